"""`tssan-viz benchmark known-answer` in small: it finds the plant, and goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_record import run_command
from tssan_viz.cli.benchmark import known_answer
from tssan_viz.evidence.attributions import METHODS


@pytest.mark.slow
def test_the_known_answer_in_small(monkeypatch, capsys, tmp_path: Path) -> None:
    found = known_answer(tmp_path, "one moment", 0, epochs=12, videos=32)
    assert found["accuracy"] > 0.9, "what was not learnt cannot be found"
    assert set(found["frames"]) == {*METHODS, "received, best head", "random"}
    for method in ("occlusion", "integrated-gradients"):
        assert found["frames"][method] > found["frames"]["random"] + 0.1
        assert found["joints"][method] > found["joints"]["random"] + 0.1
    # What is there is read, whatever the run's folder has become since.
    (tmp_path / "one-moment-0" / "run" / "checkpoint.safetensors").unlink()
    assert known_answer(tmp_path, "one moment", 0, epochs=12, videos=32) == found
    words = ("benchmark", "known-answer", "-o", tmp_path, "--setting", "one moment")
    code, _, err = run_command(monkeypatch, capsys, *words, "--seeds", 1)
    assert code == 2
    assert "was made with 12 epochs" in err.replace("\n", " ")


def test_the_table_of_what_is_there(monkeypatch, capsys, tmp_path: Path) -> None:
    for seed in range(5):
        folder = tmp_path / f"reversed-{seed}"
        folder.mkdir()
        scores = {"occlusion": 0.6 + 0.01 * seed, "received": 0.2, "random": 0.2 + 0.001 * seed}
        result = {
            **{"setting": "reversed", "seed": seed, "epochs": 25, "videos": 48, "accuracy": 0.9},
            **{"frames": scores, "joints": scores},
        }
        (folder / "known-answer.json").write_text(json.dumps(result))
    words = ("benchmark", "known-answer", "-o", tmp_path, "--setting", "reversed")
    code, out, err = run_command(monkeypatch, capsys, *words)
    assert code == 0, err
    assert "accuracy 0.900, 5 seeds" in out
    assert "not valid" not in out
    code, out, err = run_command(monkeypatch, capsys, *words, "--json")
    found = json.loads(out)
    assert found["valid"] == {"reversed": True}
    beating = {line["method"] for line in found["table"] if line["beats_random"]}
    assert beating == {"occlusion"}
    code, out, _ = run_command(monkeypatch, capsys, *words, "--seeds", 2)
    assert "not valid" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("speed",), "there is known-answer"),
        (("known-answer", "--setting", "sideways"), "one moment, two moments"),
    ],
)
def test_what_is_wrong_is_said(words, said, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_command(monkeypatch, capsys, "benchmark", *words)
    assert code == 2
    assert said in err.replace("\n", " ")
    assert not list(tmp_path.iterdir())
