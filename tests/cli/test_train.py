"""`tssan-viz train` as it is typed: what it prints, what it refuses, what Ctrl-C leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.training import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "toy"
    toy.make(out)
    return out


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "toy.yaml"
    path.write_text(yaml.safe_dump(toy.RECIPE.to_dict()))
    return path


def command(*arguments: object) -> list[str]:
    code = "from tssan_viz.cli import main; main()"
    return [sys.executable, "-c", code, "train", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, check=False
    )


def test_train_prints_accuracy_seed_time_and_the_next_command(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(recipe, "--data", data, "--out", out, "--seed", 5, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 5
    assert results["epochs"] == 2
    first, *_, last = done.stdout.splitlines()
    assert first.startswith(f"test accuracy {100 * results['test_accuracy']:.1f} % (")
    assert f"{results['test_correct']} of 54 sequences), toy cross-subject" in first
    assert "seed 5" in first
    assert " s of training on " in first
    assert "held-out part of the training subjects" in done.stdout
    assert last == f"next: tssan-viz record --run {out} --data {data}"
    assert "Traceback" not in done.stderr
    assert "lightning" not in done.stderr.lower()

    again = run(recipe, "--data", data, "--out", out)
    assert again.returncode == 2
    assert "finished run already" in again.stderr
    assert "Traceback" not in again.stderr


def test_protocol_overrides_the_recipe(data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(recipe, "--data", data, "--out", out, "--protocol", "cross-view", "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "toy cross-view" in done.stdout
    assert yaml.safe_load((out / "recipe.yaml").read_text())["protocol"] == "cross-view"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"recipe": "utd-mahd"}, "did you mean utd-mhad?"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--protocol": "cross-subjct"}, "cross-subject"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    data: Path, recipe: Path, tmp_path: Path, wrong: dict[str, str], says: str
) -> None:
    given: dict[str, object] = {"--data": data, "--out": tmp_path / "run"} | wrong
    chosen = given.pop("recipe", recipe)
    done = run(chosen, *(word for option in given.items() for word in option))
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_resume_goes_on_with(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    epochs = ("--epochs", 400)
    process = subprocess.Popen(
        command(recipe, "--data", data, "--out", out, *epochs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    begun = time.monotonic()
    while not (out / "resume.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 200
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, (stdout, stderr)
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert not (out / "results.json").exists()

    refused = run(recipe, "--data", data, "--out", out, "--epochs", 300, "--resume")
    assert refused.returncode == 2
    assert "epochs" in refused.stderr
