"""`tssan-viz sites`, and recording while `tssan-viz train` trains."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tssan.dataset import prepare
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe, TrainingRecipe
from tssan.skeletons.classes import SYNTHETIC
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.synthetic import generate
from tssan.training import train

from tssan_viz.cli import main
from tssan_viz.cli.common import console
from tssan_viz.cli.watched_training import probe_callback
from tssan_viz.errors import UserError
from tssan_viz.store import open_store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    videos = generate(
        [1, 2, 3, 4], classes=[c.name for c in SYNTHETIC[:3]], cameras=(1,), replications=(1,)
    )
    return prepare(
        videos,
        tmp_path_factory.mktemp("data") / "synthetic",
        name="synthetic",
        classes=SYNTHETIC,
        protocols=[Protocol("halves", "subject", (1, 2), (3, 4))],
    )


def recipe(variant="san-v2"):
    return Recipe(
        name="small",
        protocol="halves",
        clips=ClipsRecipe(frames=8, segments=2),
        network=NetworkRecipe(variant=variant, layers=2, heads=2, width=16),
        training=TrainingRecipe(
            epochs=2, batch_size=4, validation=0.0, keep="last", schedule="one_cycle"
        ),
    )


def run_command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tssan-viz", *map(str, arguments)])
    monkeypatch.setattr(console, "width", 200)
    with pytest.raises(SystemExit) as exit:
        main()
    out = capsys.readouterr()
    return int(exit.value.code or 0), out.out, out.err


@pytest.mark.parametrize("variant", ["san-v1", "san-v2", "san-v3"])
def test_a_training_is_watched_and_not_changed(monkeypatch, capsys, tmp_path, dataset, variant):
    plain = train(recipe(variant), dataset, tmp_path / "plain", seed=3, progress=False)
    watching = probe_callback(
        recipe(variant), dataset, str(tmp_path / "s"), tmp_path / "run", videos=5, seed=3
    )
    watched = train(
        recipe(variant), dataset, tmp_path / "run", seed=3, progress=False, callbacks=[watching]
    )
    expected, found = (load_file(run.path / "checkpoint.safetensors") for run in (plain, watched))
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    store = open_store(tmp_path / "s")
    rows = store.rows("run-training")
    assert len(rows) == watching.report.rows_acknowledged
    assert rows["epoch"].unique().tolist() == [0, 1, 2]
    assert set(rows["phase"]) == {"probe"}
    assert set(rows["subject"].dropna()) <= {1, 2}, "the test part is not looked at"
    samples = rows.drop_duplicates("sample")
    assert len(samples) == 5
    assert samples["class_name"].nunique() == 3
    assert rows["person"].isna().all() == (
        variant == "san-v1" or "m" not in watched.network.row_axes
    )
    streams = set(store.sites("run-training")["stream"])
    assert streams == ({"position", "motion"} if variant == "san-v3" else {"main"})

    # What was recorded last is what the finished network does.
    chosen = [int(np.flatnonzero(dataset.index["sample"] == s)[0]) for s in samples["sample"]]
    clips = watched.clips(dataset, chosen)
    with torch.no_grad():
        answers = watched.network(clips.position, clips.motion, clips.present).argmax(1).tolist()
    last = rows[rows["epoch"] == 2].drop_duplicates("sample")
    assert last["predicted"].tolist() == answers

    # The loss stands beside the maps, as the run's own table has it.
    curves = pd.read_csv(watched.path / "metrics.csv").set_index("epoch")
    of_epoch = rows.groupby("epoch")[["train_loss", "train_accuracy"]].first().astype(float)
    assert of_epoch.loc[0].isna().all()
    for name in of_epoch:
        assert of_epoch.loc[[1, 2], name].tolist() == pytest.approx(list(curves[name]), rel=1e-5)

    code, out, _ = run_command(monkeypatch, capsys, "sites", "--run", tmp_path / "run")
    assert code == 0
    lines = [line.split() for line in out.splitlines() if "attend" in line]
    assert len(lines) == len(store.sites("run-training"))
    assert all(line[3:] == ["softmax", "2", "8", "8"] for line in lines)


def test_more_videos_than_there_are_is_refused(tmp_path, dataset):
    with pytest.raises(UserError, match="--probe 99: the training part has 6 videos"):
        probe_callback(recipe(), dataset, str(tmp_path / "s"), tmp_path, videos=99, seed=0)


MODULE = """
from torch import nn

SIZE = 3

def make():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)

def number():
    return 3
"""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mine:make"], 0, "layers.1.self_attn"),
        (["mine:make", "--only", "layers.0.*"], 0, "layers.0.self_attn"),
        (["mine:nothing"], 2, "mine has no function 'nothing'; it has make, number"),
        (["mine:number"], 2, "returned a int; a torch.nn.Module is wanted"),
        (["nobodys:make"], 2, "nobodys cannot be imported"),
        (["mine"], 2, "package.module:function"),
        (["utd-mhad"], 2, "utd-mhad is a recipe: train it, and give --run"),
        ([], 2, "--run"),
        (["mine:make", "--only", "decoder.*"], 2, "decoder"),
    ],
)
def test_sites_of_any_model(monkeypatch, capsys, tmp_path, arguments, code, message):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    found, out, err = run_command(monkeypatch, capsys, "sites", *arguments)
    assert found == code, err
    assert message in (err if code else out)
    assert "Traceback" not in err
    if code == 0:
        assert "importing mine and calling make()" in out
        assert "layers.1.self_attn" not in out or "--only" not in arguments
