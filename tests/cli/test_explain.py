"""`tssan-viz explain` as it is typed, and what a trained run is to those who explain it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from tssan.dataset import SkeletonDataset, prepare
from tssan.skeletons.classes import SYNTHETIC
from tssan.skeletons.synthetic import generate
from tssan.training import TrainedRun

import tssan_viz
from tests.cli.test_record import PROTOCOL, make_run, run_command
from tssan_viz.cli.explain import strip_of
from tssan_viz.cli.explained_run import explained_run
from tssan_viz.evidence.attributions import METHODS, attribute
from tssan_viz.views import sample_payload


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    names = [SYNTHETIC[0].name, SYNTHETIC[1].name, SYNTHETIC[-1].name]
    return prepare(
        generate([1, 2, 3, 4], classes=names, cameras=(1,), replications=(1,)),
        tmp_path_factory.mktemp("data") / "synthetic",
        name="synthetic",
        classes=SYNTHETIC,
        protocols=[PROTOCOL],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: SkeletonDataset) -> TrainedRun:
    return make_run(tmp_path_factory.mktemp("runs") / "first run", dataset)


@pytest.mark.parametrize("variant", ["san-v1", "san-v2", "san-v3"])
def test_every_variant_is_explained_by_every_method(
    variant: str, tmp_path: Path, dataset: SkeletonDataset
) -> None:
    opened = explained_run(make_run(tmp_path / variant, dataset, variant=variant), dataset)
    videos = opened.videos(opened.part("test"))
    with torch.no_grad():
        unchanged = opened.explained.model(videos.clips.position, *videos.extra)
        expected = opened.trained.network(*videos.clips[:3])
    assert torch.equal(unchanged, expected)
    found = attribute(
        opened.explained,
        videos.clips.position,
        videos.labels,
        extra=videos.extra,
        present=videos.clips.present,
        steps=2,
        heads=True,
    )
    persons = 2 if variant == "san-v2" else 1
    layers = 4 if variant == "san-v3" else 2
    for method in METHODS:
        assert found.frames(method).shape == (6, 2, 8)
        assert found.frames(method).isfinite().all()
        assert found.frames(method).std(dim=-1).max() > 0
    assert found.persons["rollout"].shape == (6, 2, persons, 8)
    assert found.heads is not None
    assert found.heads.shape == (6, layers, 2, 2, persons, 8)
    assert len(opened.layers) == layers


def test_moved_positions_take_their_motion_along(
    trained: TrainedRun, dataset: SkeletonDataset
) -> None:
    """What the wrapper makes of changed positions is what the clips would have been."""
    opened = explained_run(trained, dataset)
    videos = opened.videos([0, 1])
    position, motion, present = videos.extra
    changed = position + torch.randn(position.shape, generator=torch.Generator().manual_seed(0))
    whole = changed.movedim(2, 1).flatten(2, 3)
    moved = torch.diff(whole, dim=2, prepend=whole[:, :, :1])
    moved = moved.unflatten(2, (2, -1)).movedim(1, 2) * trained.recipe.clips.motion_scale
    first = (changed, position, motion, present)
    with torch.no_grad():
        found = opened.explained.model(*(one[:, :, :1] for one in first))
        expected = trained.network(changed[:, :, :1], moved[:, :, :1], present[:, :, :1])
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_video_in_words_json_and_a_picture(
    monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    sample = str(dataset.index["sample"].iloc[-1])
    where = ("--run", trained.path, "--data", dataset.path)
    picture = tmp_path / "explained.png"
    code, out, err = run_command(monkeypatch, capsys, "explain", sample, *where, "-o", picture)
    assert code == 0, err
    for method in METHODS:
        assert method in out
    assert "joints whose rest costs most" in out
    assert imread(picture).std() > 0.05
    chosen = ("--method", "rollout", "--method", "occlusion", "--json")
    code, out, err = run_command(monkeypatch, capsys, "explain", sample, *where, *chosen)
    assert code == 0, err
    found = json.loads(out)
    assert [line["method"] for line in found["methods"]] == ["rollout", "occlusion"]
    assert sum(found["methods"][0]["frames"]) == pytest.approx(1)
    assert len(found["joints"]) == 25
    assert len(found["seconds"]) == 16
    rollout, occlusion = found["methods"]
    assert sum(rollout["segments"]) == pytest.approx(1)
    assert rollout["segments"][0] == pytest.approx(sum(rollout["frames"][:8]))
    both = [sum(persons) for persons in zip(*rollout["persons"], strict=True)]
    assert both == pytest.approx(rollout["frames"])
    assert occlusion["persons"] is None, "it takes a frame from everybody at once"


def test_joints_are_kept_beside_recorded_maps(
    monkeypatch, capsys, tmp_path: Path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    where = ("--run", trained.path, "--data", dataset.path, "--store", tmp_path / "store")
    assert run_command(monkeypatch, capsys, "record", *where)[0] == 0
    sample = str(dataset.index["sample"].iloc[-1])
    asked = ("--method", "occlusion", "--json")
    code, out, err = run_command(monkeypatch, capsys, "explain", sample, *where, *asked)
    assert code == 0, err
    assert "joints kept beside the maps of first run" in err
    store = tssan_viz.open_store(tmp_path / "store")
    lost = sample_payload(store.select(), sample).manifest["joints_lost"]
    names = [str(joint) for joint in dataset.topology.joints]
    for told in json.loads(out)["joints"]:
        place = names.index(told["joint"])
        assert sum(person[place] for person in lost) == pytest.approx(told["logit_lost"], abs=1e-3)
    missing = (*where[:-1], tmp_path / "nowhere")
    code, _, err = run_command(monkeypatch, capsys, "explain", sample, *missing, *asked)
    assert code == 2
    assert "nowhere" in err


def test_two_persons_are_told_apart(
    monkeypatch, capsys, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    two = dataset.index[dataset.index["persons"] == 2]["sample"].iloc[-1]
    where = ("--run", trained.path, "--data", dataset.path, "--method", "relevance")
    code, out, err = run_command(monkeypatch, capsys, "explain", str(two), *where)
    assert code == 0, err
    parts = re.search(r"persons 1 to 2 by relevance: (\d+) %, (\d+) %", out)
    assert parts is not None
    assert int(parts[1]) + int(parts[2]) == pytest.approx(100, abs=1)


def test_a_class_is_the_mean_of_its_test_videos(
    monkeypatch, capsys, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    where = ("--run", trained.path, "--data", dataset.path, "--method", "received", "--json")
    name = SYNTHETIC[0].name
    code, out, err = run_command(monkeypatch, capsys, "explain", "--class", name.upper(), *where)
    assert code == 0, err
    whole = json.loads(out)
    assert whole["videos"] == 2
    test = dataset.index[dataset.index["subject"].isin([3, 4])]
    parts = []
    for sample in test[test["class_name"] == name]["sample"]:
        code, out, _ = run_command(monkeypatch, capsys, "explain", sample, *where)
        parts.append(json.loads(out)["methods"][0]["frames"])
    mean = [(a + b) / 2 for a, b in zip(*parts, strict=True)]
    assert whole["methods"][0]["frames"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "either the name of a video or --class"),
        (("S001", "--class", "throw"), "either the name of a video or --class"),
        (("nobody",), "the nearest name is S"),
        (("--class", "drink watr"), "drink water"),
        (("--class", "drink water", "--method", "rolout"), "did you mean rollout"),
        (("--class", "drink water", "-o", "x.gif"), ".pdf, .svg"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    words, said, monkeypatch, capsys, tmp_path, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--run", trained.path, "--data", dataset.path)
    code, _, err = run_command(monkeypatch, capsys, "explain", *words, *where)
    assert code == 2
    assert said in err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_strip_is_as_high_as_its_values() -> None:
    assert strip_of([0.0, 1.0, 2.0, -1.0], width=4) == " ▄█·"
    assert strip_of([0.0] * 8, width=4) == "    "


def test_without_captum_the_extra_is_named_and_attention_is_left(
    monkeypatch, capsys, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    sample = str(dataset.index["sample"].iloc[-1])
    words = ("explain", sample, "--run", trained.path, "--data", dataset.path)
    code, _, err = run_command(monkeypatch, capsys, *words)
    assert code == 2
    assert "pip install 'tssan-viz[evidence]'" in err.replace("\n", " ")
    code, out, err = run_command(monkeypatch, capsys, *words, "--method", "received")
    assert code == 0, err
    assert "joints" not in out


def test_videos_of_nobody_known_stay_the_same_in_every_batch(
    monkeypatch, dataset: SkeletonDataset, trained: TrainedRun
) -> None:
    opened = explained_run(trained, dataset)
    index = dataset.index.copy()
    index["subject"] = index["subject"].astype("Int64")
    index.loc[index.index[:2], "subject"] = pd.NA
    monkeypatch.setattr(dataset, "index", index)
    whole = opened.subjects([0, 1, 2])
    assert (whole[:2] < 0).all()
    assert whole[2] == index["subject"].iloc[2]
    assert [int(opened.subjects([i])[0]) for i in (0, 1, 2)] == whole.tolist()
