"""`tssan-viz evaluate` as it is typed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tssan.run_folder import read_evaluations
from tssan.training import TrainedRun, train

from tests.training import toy
from tssan_viz.cli import main


def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["tssan-viz", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "toy"
    toy.make(out)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    from tssan.dataset import SkeletonDataset

    recipe = replace(toy.RECIPE, training=replace(toy.RECIPE.training, select_on="test"))
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(recipe, SkeletonDataset.open(data), out, progress=False)


@pytest.fixture
def run(trained: TrainedRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "run"))


def test_evaluate_prints_what_it_writes(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(monkeypatch, capsys, "evaluate", run, "--data", data)
    assert code == 0, err
    folder = run / "evaluation-test"
    written = json.loads((folder / "evaluation.json").read_text())
    first, second, *_ = out.splitlines()
    assert first == (
        "toy cross-subject, test part, recipe toy, "
        "selected on the test part, as the paper's protocol does"
    )
    assert f"{100 * written['top1']:.1f} % ({written['correct']} of 54)" in second
    assert "95 %" in out
    assert "the test part was looked at 6 times with this run" in out, "4 epochs, train, evaluate"
    assert out.splitlines()[-1] == f"written to {folder}"
    assert len(pd.read_csv(folder / "predictions.csv")) == 54


def test_json_is_all_that_is_printed(
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("evaluate", run, "--data", data, "--split", "train", "--json", "--out")
    code, out, _ = answer(monkeypatch, capsys, *words, tmp_path / "there")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "there/evaluation.json").read_text())
    assert json.loads(out)["test_evaluations"] == 5, "the training part is not counted"


def test_what_cannot_be_evaluated_is_said_in_words(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", run, "--data", data, "--split", "validation")
    code, _, err = answer(monkeypatch, capsys, *words)
    assert code == 2
    assert "has no validation part" in " ".join(err.split())
    code, _, err = answer(monkeypatch, capsys, "evaluate", data, "--data", data)
    assert code == 2
    assert "holds no trained run" in " ".join(err.split())


def test_a_folder_that_cannot_be_made_costs_no_look_at_the_test_part(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_evaluations(run)
    out = run / "recipe.yaml"
    words = ("evaluate", run, "--data", data, "--out")
    code, _, err = answer(monkeypatch, capsys, *words, out)
    assert code == 2
    assert "this is a file, and a folder is needed" in " ".join(err.split())
    code, _, err = answer(monkeypatch, capsys, *words, out / "inside")
    assert code == 2
    assert "cannot be made: Not a directory" in " ".join(err.split())
    assert read_evaluations(run) == before
