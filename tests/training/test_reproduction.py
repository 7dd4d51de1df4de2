"""`tssan-viz reproduce`: rows of the paper's tables on generated data, shrunk until they fit."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tssan import reproduction
from tssan.dataset import SkeletonDataset, prepare
from tssan.errors import DataError, LostLoss
from tssan.reproduction import find_rows, find_table, plan, run_planned
from tssan.tables import paper_tables

from tests.training import toy
from tssan_viz.cli import main

SMALL = (
    *("network.layers=1", "network.heads=2", "network.width=16", "clips.frames=8"),
    *("training.epochs=1", "training.batch_size=32"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    """Toys that are divided under NTU RGB+D's names."""
    return prepare(
        (toy.move(a, s, c, r) for a in range(3) for s in (1, 4) for c in (1, 2) for r in range(3)),
        tmp_path_factory.mktemp("toys") / "toy",
        name="toy",
        classes=toy.CLASSES,
        protocols=(
            replace(toy.CROSS_VIEW, name="xview"),
            replace(toy.CROSS_SUBJECT, name="xsub"),
        ),
    )


def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tssan-viz", "reproduce", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_a_table_is_run_printed_and_not_run_again(
    data: SkeletonDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs"
    words: list[object] = ["table3", "--data", data.path, "--out", out, "--protocol", "xview"]
    words += ["--seeds", "0,1", "--rows", "t3_san-v3-ff,SAN-V2 + cnn"]
    words += [word for one in SMALL for word in ("--set", one)]
    code, printed, err = answer(monkeypatch, capsys, *words)
    assert code == 0, err
    names = [f"t3_san-{v}-xview-seed{s}" for v in ("v2-cnn", "v3-ff") for s in (0, 1)]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == names
    found = [json.loads((out / name / "results.json").read_text()) for name in names]
    assert [one["seed"] for one in found] == [0, 1, 0, 1]
    assert {one["protocol"] for one in found} == {"xview"}

    lines = pd.read_csv(out / "table3-xview.csv")
    assert lines["row"].tolist() == ["SAN-V2 + CNN", "SAN-V3 + FF"], "in the table's order"
    assert lines["paper"].tolist() == [91.7, 84.1]
    first, second = (100 * one["test_accuracy"] for one in found[:2])
    assert lines["ours"][0] == pytest.approx((first + second) / 2)
    assert lines["spread"][0] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert lines["difference"][0] == pytest.approx(lines["ours"][0] - 91.7)
    (shown,) = [line for line in printed.splitlines() if line.startswith("SAN-V3 + FF")]
    assert shown.split()[3:5] == ["top-1", "84.1"]
    assert f"± {lines['spread'][1]:.1f}" in shown
    assert "ours: selected on a held-out part of the training subjects" in printed
    assert "the paper's numbers are for ntu60, ours for toy" in printed
    assert "the paper's protocols" not in printed, "it is one of them"
    assert "network.layers=1" in printed

    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("tssan.training.train", no_training)
    code, again, _ = answer(monkeypatch, capsys, *words)
    assert code == 0
    assert again.count("there already") == 4
    code, _, err = answer(monkeypatch, capsys, *words, "--set", "training.epochs=2")
    assert code == 2
    assert "training.epochs: 1 there, 2 now" in " ".join(err.split())
    code, _, err = answer(monkeypatch, capsys, *words, "--precision", "bf16")
    assert code == 2
    assert "precision 32 there, bf16 now" in " ".join(err.split())

    # Where the table cannot be written it is printed all the same, and told in words.
    (out / "table3-xview.csv").unlink()
    (out / "table3-xview.csv").mkdir()
    code, printed, err = answer(monkeypatch, capsys, *words)
    assert code == 2
    assert "SAN-V3 + FF" in printed
    assert "cannot write" in err
    assert not list(out.glob(".table3*")), "nothing half-written stays"


def test_another_protocol_than_the_tables_is_said_beside_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = toy.make(tmp_path / "other")
    words: list[object] = ["table3", "--data", other.path, "--out", tmp_path / "runs"]
    words += ["--seeds", "0", "--rows", "SAN-V2 + cnn"]
    words += [word for one in SMALL for word in ("--set", one)]
    code, printed, err = answer(monkeypatch, capsys, *words)
    assert code == 0, err
    paper = ", ".join(find_table("table3").protocols)
    assert f"the paper's protocols for it are {paper}; ours is cross-subject" in printed


def test_rows_that_are_one_run_are_run_once(tmp_path: Path) -> None:
    rows = [row for table in paper_tables().values() for row in table.rows]
    ntu = [row for row in rows if "xsub" in row.top1]
    runs = plan(ntu, "xsub", tmp_path, seeds=[0, 1])
    assert len(runs) == 2 * 15, "the paper has 15 distinct configurations on NTU RGB+D"
    assert len({run.path for run in runs}) == len(runs)
    shared = next(run for run in runs if run.path.name == "t1_ts-san-v2-xsub-seed0")
    assert len(shared.rows) == 4
    assert sum(len(run.rows) for run in runs) == 2 * len(ntu)


def test_an_interrupted_run_is_gone_on_with(
    data: SkeletonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("tssan.training.train", lambda *_, **how: asked.append(how) or None)
    (run,) = plan(find_table("3").rows[:1], "xsub", tmp_path, seeds=[0], settings=SMALL)
    run.path.mkdir()
    (run.path / "resume.ckpt").touch()
    with pytest.raises(AttributeError):
        run_planned(run, data)
    assert asked[0]["resume"] is True


def test_a_run_whose_loss_is_lost_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    table = find_table("table3")
    runs = plan(table.rows[:2], "xsub", tmp_path, seeds=[0, 1])

    def run(planned: reproduction.Planned) -> dict:
        if planned.recipe.name == "t3_san-v1-ff" and planned.seed == 1:
            raise LostLoss("lost")
        return {"test_accuracy": 0.5, "test_top5": None, "selection": "", "seconds": 60.0}

    lines = reproduction.reproduce(table.rows[:2], runs, run)
    assert lines["seeds"].tolist() == [1, 2]
    assert lines["failed"].tolist() == ["1", ""]
    assert lines["ours"].tolist() == [50.0, 50.0]
    assert lines["minutes"].tolist() == [1.0, 1.0]


def test_kinetics_has_two_measures(tmp_path: Path) -> None:
    table = find_table("table2")
    runs = plan(table.rows, "train-val", tmp_path, seeds=[0])
    lines = reproduction.reproduce(
        table.rows,
        runs,
        lambda _: {"test_accuracy": 0.3, "test_top5": 0.5, "selection": "", "seconds": 60.0},
    )
    assert lines["measure"].tolist() == ["top-1", "top-5"]
    assert lines["paper"].tolist() == [35.1, 55.7]
    assert lines["ours"].tolist() == [30.0, 50.0]


def test_what_the_paper_does_not_have() -> None:
    with pytest.raises(DataError, match="did you mean table3"):
        find_table("tabel3")
    with pytest.raises(DataError, match=r"no row 'SAN-V2\+CNN'.*did you mean SAN-V2 \+ CNN"):
        find_rows(find_table("table3"), ["SAN-V2+CNN"])
    assert find_table("5") == paper_tables()["table5"]
    assert find_rows(find_table("5"), []) == paper_tables()["table5"].rows


def test_seeds_that_are_none(
    data: SkeletonDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = answer(monkeypatch, capsys, "table3", "--data", data.path, "--seeds", "0,0")
    assert code == 2
    assert "each once, such as 0,1,2" in " ".join(err.split())
