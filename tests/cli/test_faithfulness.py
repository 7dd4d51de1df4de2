"""`tssan-viz faithfulness` as it is typed: the table, the curves, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread
from tssan.dataset import SkeletonDataset, prepare
from tssan.skeletons.classes import SYNTHETIC
from tssan.skeletons.synthetic import generate
from tssan.training import TrainedRun

from tests.cli.test_record import PROTOCOL, make_run, run_command
from tssan_viz.cli.explained_run import explained_run
from tssan_viz.cli.faithfulness import sentences, spread
from tssan_viz.cli.record import record_run
from tssan_viz.comparison.decoding import decodability
from tssan_viz.evidence.kept import evidence_line, kept_evidence
from tssan_viz.store import open_store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    names = [SYNTHETIC[0].name, SYNTHETIC[-1].name]
    return prepare(
        generate([1, 2, 3, 4], classes=names, cameras=(1,), replications=(1, 2)),
        tmp_path_factory.mktemp("data") / "synthetic",
        name="synthetic",
        classes=SYNTHETIC,
        protocols=[PROTOCOL],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: SkeletonDataset) -> TrainedRun:
    return make_run(tmp_path_factory.mktemp("runs") / "first run", dataset)


METHODS = ("--method", "received", "--method", "occlusion")


def test_the_table_the_curves_and_a_line_beside_the_maps(
    monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    store = open_store(tmp_path / "store", create=True)
    record_run(trained, dataset, store, progress=False)
    where = ("--run", trained.path, "--data", dataset.path, "--store", store.path)
    out = tmp_path / "found"
    name = SYNTHETIC[0].name
    words = ("--class", name, *METHODS, "--heads", "-o", out)
    code, printed, err = run_command(monkeypatch, capsys, "faithfulness", *where, *words)
    assert code == 0, err
    assert "2 subjects · 4 videos" in printed
    assert "the least possible p is 0.25" in printed
    assert f"which heads {name} needs" in printed
    assert "kept beside the maps of first run" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        *("curves.csv", "curves.pdf", "curves.png", "faithfulness.csv", "faithfulness.json"),
        *("heads.csv", "sanity.csv"),
    ]
    assert imread(out / "curves.png").std() > 0.05
    found = json.loads((out / "faithfulness.json").read_text())
    table = pd.read_csv(out / "faithfulness.csv").set_index("method")
    assert list(table.index) == ["received", "occlusion", "random"]
    assert found["table"][0]["deletion"] == pytest.approx(table.loc["received", "deletion"])
    heads = pd.read_csv(out / "heads.csv")
    assert len(heads) == 4
    assert "all heads at once" in printed
    # How well the class can be read from a head's maps is the comparison's own answer.
    told = decodability(store.select(split="test"), permutations=1).table["class_accuracy"]
    assert heads["decodable"].tolist() == pytest.approx(told.tolist())
    assert [line["edit"] for line in found["heads"]["together"]][2] == "uniform"
    assert {video["subject"] for video in found["videos"]} == {3, 4}
    label = int(SYNTHETIC[0].label)
    assert [one["kind"] for one in kept_evidence(store)] == ["faithfulness", "heads"]
    line = evidence_line(store, label=label)
    assert line is not None
    assert line.startswith(f"deletion AUC {table.loc['received', 'deletion']:.2f}, random ")


def test_a_store_that_is_not_there_is_said_before_the_network_is_asked(
    monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "tssan_viz.cli.faithfulness.ask_faithfulness", lambda *_, **__: asked.append("")
    )
    where = ("--run", trained.path, "--data", dataset.path, "--store", tmp_path / "none")
    code, _, err = run_command(monkeypatch, capsys, "faithfulness", *where, *METHODS)
    assert code == 2
    assert "there is no attention store at" in err
    assert not asked


@pytest.mark.parametrize("how", ["frozen", "other"])
def test_other_things_can_stand_for_frames(
    how: str, monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--run", trained.path, "--data", dataset.path)
    words = ("--replace", how, "--method", "received", "--limit", 4, "--json")
    code, printed, err = run_command(monkeypatch, capsys, "faithfulness", *where, *words)
    assert code == 0, err
    found = json.loads(printed)
    assert found["replaced"] == how
    assert found["class"] == "all classes"
    assert len(found["videos"]) == 4


def test_a_part_is_spread_over_subjects(dataset: SkeletonDataset, trained: TrainedRun) -> None:
    opened = explained_run(trained, dataset)
    chosen = spread(opened, opened.part("test"), 4)
    assert sorted(opened.subjects(chosen)) == [3, 3, 4, 4]


def test_it_is_said_where_attention_does_not_beat_chance() -> None:
    table = pd.DataFrame(
        {"method": ["received", "occlusion", "random"], "deletion_p": [0.4, 0.01, float("nan")]}
    )
    said = sentences(table, 8, {"received": False, "occlusion": True})
    assert said[0] == "Frames matter more than random ones (p max-T) by: occlusion."
    assert said[1] == "Not shown of: received."
    assert "received: hardly changed when the weights are shuffled" in said[-1]
    table["deletion_p"] = 0.3
    # What was not shown is not thereby shown to be absent.
    assert "No method's frames are shown to matter more" in sentences(table, 8, {})[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--class", "nothing"), "nothing"),
        (("--replace", "blur"), "interpolated, frozen, other"),
        (("--method", "recieved"), "did you mean received"),
        (("-o", "no/such/folder"), "there is no folder"),
        (("--class", "reading"), "no video of the test part"),
    ],
)
def test_what_is_wrong_is_said(
    words, said, monkeypatch, capsys, tmp_path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--run", trained.path, "--data", dataset.path)
    code, _, err = run_command(monkeypatch, capsys, "faithfulness", *words, *where)
    assert code == 2
    assert said in err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_there_is_said_before_the_work(
    monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    def worked(*_, **__):
        raise AssertionError("the store comes first")

    monkeypatch.setattr("tssan_viz.cli.faithfulness.ask_faithfulness", worked)
    where = ("--run", trained.path, "--data", dataset.path, "--store", tmp_path / "nowhere")
    code, _, err = run_command(monkeypatch, capsys, "faithfulness", *where)
    assert code == 2
    assert "there is no attention store at" in err.replace("\n", " ")
