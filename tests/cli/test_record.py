"""`tssan-viz record`: from a trained run and a data set to a store that explains itself."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from tssan.building import build_network
from tssan.dataset import SkeletonDataset, prepare
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe
from tssan.skeletons.classes import SYNTHETIC
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.synthetic import generate
from tssan.skeletons.topology import KINECT_V2_25
from tssan.training import TrainedRun, load_run

from tests.stores import make_store
from tssan_viz.cli import main
from tssan_viz.cli.record import (
    RecordedRun,
    _print_outcome,
    make_catalogue,
    poses_to_draw,
    record_run,
)
from tssan_viz.errors import UserError
from tssan_viz.store import open_store

PROTOCOL = Protocol("halves", "subject", (1, 2), (3, 4))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SkeletonDataset:
    names = [c.name for c in SYNTHETIC[:3]] + [c.name for c in SYNTHETIC[-1:]]
    videos = generate([1, 2, 3, 4], classes=names, cameras=(1,), replications=(1,))
    return prepare(
        videos,
        tmp_path_factory.mktemp("data") / "synthetic",
        name="synthetic",
        classes=SYNTHETIC,
        protocols=[PROTOCOL],
    )


def make_run(
    path: Path, dataset: SkeletonDataset, seed: int = 0, variant: str = "san-v2"
) -> TrainedRun:
    """Write a run's folder with weights that nothing was learnt into."""
    recipe = Recipe(
        name="small",
        clips=ClipsRecipe(frames=8, segments=2),
        network=NetworkRecipe(variant=variant, layers=2, heads=2, width=16),
    )
    torch.manual_seed(seed)
    network = build_network(recipe, joints=25, coordinates=3, classes=len(dataset.classes))
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    save_file(network.state_dict(), path / "checkpoint.safetensors")
    results = {
        "dataset": dataset.name,
        "protocol": "halves",
        "seed": seed,
        "test_accuracy": 0.1,
        "classes": [c.name for c in dataset.classes],
        "topology": dataset.topology.name,
        "joints": 25,
        "coordinates": 3,
    }
    (path / "results.json").write_text(json.dumps(results))
    return load_run(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset) -> TrainedRun:
    return make_run(tmp_path_factory.mktemp("runs") / "first run", dataset)


def run_command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tssan-viz", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    out = capsys.readouterr()
    return int(exit.value.code or 0), out.out, out.err


def test_the_command_records_and_says_what_to_do_next(
    monkeypatch, capsys, tmp_path, dataset, trained
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    code, out, err = run_command(
        monkeypatch, capsys, "record", "--run", trained.path, "--data", dataset.path
    )
    assert code == 0, err
    store = open_store(tmp_path / "attention-store")
    assert store.run_names() == ["first run"]
    rows = store.rows("first run")
    assert f"as {len(rows)} rows" in out
    assert set(rows["split"]) == {"test"}
    assert set(rows.loc[rows["person"] == 1, "subject"]) == {3, 4}
    samples = rows.drop_duplicates("sample")
    assert len(samples) == len(dataset.split("halves").test) == 8
    assert f"{samples['correct'].mean():.1%}" in out
    named = re.search(r'tssan-viz compare --class "(.+)"', out)
    assert named is not None
    assert store.catalogue().resolve(named[1]).label in set(rows["label"])
    shown = re.search(r"tssan-viz view (\S+)", out)
    assert shown is not None
    assert shown[1] in set(rows["sample"])
    assert "tssan-viz serve" in out

    code, out, _ = run_command(
        monkeypatch, capsys, "record", "--run", trained.path, "--data", dataset.path
    )
    assert code == 0
    assert "recorded 0 test videos" in out
    assert "8 were there already" in out


@pytest.mark.parametrize("name", ["put on jacket", "throw", "$(touch pwned)", 'a"b', "it's"])
def test_the_next_commands_hold_names_from_the_data_as_one_word(capsys, tmp_path, name):
    store = make_store(tmp_path / "s", subjects=2, classes=(name, "other"), frames=4)
    _print_outcome(RecordedRun(store, "generated", 1, 0, 1, None), "test", given=None)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (command,) = (" ".join(line) for line in lines if line[:2] == ["tssan-viz", "compare"])
    assert shlex.split(command) == ["tssan-viz", "compare", "--class", name]


def test_what_is_stored_is_what_the_network_does(tmp_path, dataset, trained):
    store = open_store(tmp_path / "s", create=True)
    recorded = record_run(trained, dataset, store, split="all", batch_size=5, progress=False)
    assert (recorded.samples, recorded.skipped) == (len(dataset), 0)

    indices = list(range(len(dataset)))
    clips = trained.clips(dataset, indices)
    with torch.no_grad():
        logits = trained.network(clips.position, clips.motion, clips.present)
    answers = dict(zip(dataset.index["sample"], logits.argmax(1).tolist(), strict=True))
    rows = store.rows(recorded.run)
    assert len(rows) == recorded.rows == int(clips.present.sum())
    assert {s: int(p) for s, p in zip(rows["sample"], rows["predicted"], strict=True)} == answers
    truth = dataset.index["label"].to_numpy()
    expected = float(np.mean([a == t for a, t in zip(answers.values(), truth, strict=True)]))
    assert recorded.accuracy == pytest.approx(expected)
    parts = dict(zip(rows["sample"], rows["split"], strict=True))
    for part in ("train", "test"):
        for i in getattr(dataset.split("halves"), part):
            assert parts[dataset.index["sample"].iloc[i]] == part

    line = dataset.index.iloc[-1]
    sample = store.sample(line["sample"], recorded.run)
    assert np.allclose(sample.frames, clips.frames[-1].numpy())
    assert np.allclose(sample.seconds, sample.frames / dataset.fps)
    assert (sample.present == clips.present[-1].numpy().T).all()
    assert sample.poses.shape == (2, 2, 8, 25, 3)
    assert store.info(recorded.run)["checkpoint_sha256"] == trained.checkpoint_sha256
    assert store.catalogue(recorded.run) == make_catalogue(dataset)


@pytest.mark.parametrize("variant", ["san-v1", "san-v3"])
def test_every_variant_of_the_network_is_recorded(tmp_path, dataset, variant):
    run = make_run(tmp_path / "run", dataset, variant=variant)
    store = open_store(tmp_path / "s", create=True)
    recorded = record_run(run, dataset, store, progress=False)
    rows = store.rows("run")
    streams = {"san-v1": {"main"}, "san-v3": {"position", "motion"}}[variant]
    assert set(store.sites("run")["stream"]) == streams
    for stream in streams:
        assert store.select(run="run", stream=stream).maps().sizes == {
            "row": recorded.rows,
            "layer": 2,
            "head": 2,
            "query": 8,
            "key": 8,
        }
    indices = dataset.split("halves").test
    present = run.clips(dataset, indices).present
    fused = "m" not in run.network.row_axes
    assert recorded.rows == int((present.any(dim=2) if fused else present).sum())
    assert rows["person"].isna().all() == fused


def test_an_interrupted_recording_goes_on_without_computing_twice(
    tmp_path, monkeypatch, dataset, trained
):
    store = open_store(tmp_path / "s", create=True)
    clips = type(trained).clips
    seen: list[int] = []

    def interrupted(self, dataset, indices):
        if len(seen) >= 4:
            raise KeyboardInterrupt
        seen.extend(indices)
        return clips(self, dataset, indices)

    monkeypatch.setattr(type(trained), "clips", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record_run(trained, dataset, store, batch_size=2, progress=False)
    monkeypatch.setattr(type(trained), "clips", clips)
    held = set(store.rows("first run")["sample"])
    assert len(held) in (2, 4)
    recorded = record_run(trained, dataset, store, batch_size=2, progress=False)
    assert (recorded.samples, recorded.skipped) == (8 - len(held), len(held))
    rows = store.rows("first run")
    assert not rows.duplicated(["sample", "segment", "person"]).any()
    assert rows["sample"].nunique() == 8
    assert rows["predicted"].notna().all()


def test_ctrl_c_is_answered_with_how_to_go_on(monkeypatch, capsys, tmp_path, dataset, trained):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(trained), "clips", pressed)
    where = ("--run", trained.path, "--data", dataset.path, "--store", tmp_path / "s")
    code, _, err = run_command(monkeypatch, capsys, "record", *where)
    assert code == 130
    assert "the same command goes on there" in " ".join(err.split())


def test_another_checkpoint_of_the_same_name_is_refused(
    monkeypatch, capsys, tmp_path, dataset, trained
):
    record_run(trained, dataset, open_store(tmp_path / "s", create=True), progress=False)
    other = make_run(tmp_path / "first run", dataset, seed=1)
    code, _, err = run_command(
        monkeypatch,
        capsys,
        *("record", "--run", other.path, "--data", dataset.path, "--store", tmp_path / "s"),
    )
    assert code == 2
    words = " ".join(err.split())
    assert "another checkpoint" in words
    assert "rename the run's folder" in words
    assert "Traceback" not in err


def test_another_data_set_is_refused(tmp_path, dataset, trained):
    store = open_store(tmp_path / "s", create=True)
    videos = generate([1, 3], classes=[SYNTHETIC[0].name], cameras=(1,), replications=(1,))
    other = prepare(
        videos, tmp_path / "other", name="other", classes=SYNTHETIC, protocols=[PROTOCOL]
    )
    with pytest.raises(UserError, match="trained on synthetic, and the data set given is other"):
        record_run(trained, other, store, progress=False)


def sequence(joints, present, units="m", topology=KINECT_V2_25) -> SkeletonSequence:
    return SkeletonSequence(
        joints=np.asarray(joints, np.float32),
        present=np.asarray(present, bool),
        topology=topology,
        units=units,
        fps=30.0,
        sample="s",
        label=0,
        class_name="c",
        class_code=None,
        subject=1,
        camera=1,
        setup=None,
        replication=None,
    )


def test_poses_are_the_videos_own_joints_between_frames():
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(2, 6, 25, 3)).astype(np.float32)
    present = np.ones((2, 6), bool)
    present[1, [0, 3]] = False
    joints[~present] = 0
    frames = np.array([[0.0, 0.5, 1.25], [2.5, 3.0, 5.0]], np.float32)
    poses = poses_to_draw(sequence(joints, present), frames, 3)
    assert poses.shape == (3, 2, 3, 25, 3)
    assert poses.dtype == np.float32
    origin = joints[0, 0, KINECT_V2_25.centre]
    expected = np.stack(
        [np.interp(frames, np.arange(6), joints[0, :, v, c]) for v in range(25) for c in range(3)],
        axis=-1,
    ).reshape(2, 3, 25, 3)
    assert np.allclose(poses[0], expected - origin, atol=1e-6)
    # The second person is seen in frames 1, 2, 4 and 5 only.
    seen = [1, 2, 4, 5]
    expected = np.stack(
        [np.interp(frames, seen, joints[1, seen, v, c]) for v in range(25) for c in range(3)],
        axis=-1,
    ).reshape(2, 3, 25, 3)
    assert np.allclose(poses[1], expected - origin, atol=1e-6)
    assert not poses[2].any()


def test_poses_of_image_coordinates_stand_upright():
    joints = np.zeros((1, 1, 25, 2))
    joints[0, 0, :, 1] = np.arange(25)
    poses = poses_to_draw(sequence(joints, [[True]], units="image"), np.zeros((1, 1)), 1)
    down = np.arange(25) - KINECT_V2_25.centre
    assert (poses[0, 0, 0, :, 1] == -down).all()
