"""The recorder on TS-SAN itself, into a store on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tssan.building import build_network
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe

from tests.recording.support import CATALOGUE, Model, watch_calls
from tssan_viz.errors import UserError
from tssan_viz.recording import record
from tssan_viz.store import open_store

N, K, M, T, V, C = 3, 2, 2, 8, 20, 3


def tssan(fused=True, dropout=0.0):
    recipe = Recipe(
        name="small",
        clips=ClipsRecipe(frames=T, segments=K, persons=M),
        network=NetworkRecipe(
            layers=2,
            heads=4,
            width=16,
            dropout=dropout,
            encoder_dropout=dropout,
            classifier_dropout=dropout,
        ),
    )
    torch.manual_seed(0)
    return build_network(recipe, joints=V, coordinates=C, classes=3, fused=fused)


def clips():
    generator = torch.Generator().manual_seed(1)
    position = torch.randn(N, K, M, T, V, C, generator=generator)
    present = torch.tensor([[[1, 1], [1, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]]]).bool()
    return position * present[..., None, None, None], position.flip(3), present


def announce(recorder, present, step=0):
    recorder.samples(
        sample=["a", "b", "c"],
        label=[0, 1, 2],
        subject=[4, 5, 6],
        step=step,
        axes=("n", "k", "m"),
        present=present,
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_tssan_is_recorded_as_it_attends_and_not_changed(tmp_path, fused, train):
    position, motion, present = clips()
    plain = tssan(fused, dropout=0.4).train(train)
    torch.manual_seed(2)
    expected = plain(position, motion, present)
    expected.sum().backward()

    watched = tssan(fused, dropout=0.4).train(train)
    with record(watched, tmp_path / "store", run="r", catalogue=CATALOGUE) as recorder:
        explicit = watch_calls(watched)
        announce(recorder, present)
        torch.manual_seed(2)
        logits = watched(position, motion, present)
        recorder.predictions(logits)
        logits.sum().backward()
    assert torch.equal(expected, logits)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)

    sites = [f"block.layers.{i}.attention.attend" for i in range(2)]
    assert [site.name for site in recorder.sites] == sites
    store = open_store(tmp_path / "store")
    maps = store.select(run="r").maps()
    assert maps.sizes == {"row": 9, "layer": 2, "head": 4, "query": T, "key": T}
    there = present.reshape(-1).numpy()
    for layer, site in enumerate(sites, start=1):
        probabilities = explicit[site][0].numpy()[there]
        assert np.abs(maps.sel(layer=layer).to_numpy() - probabilities).max() <= 2.5e-4
    rows = store.rows("r")
    assert rows["predicted"].nunique() <= 3
    answer = dict(zip("abc", logits.argmax(1).tolist(), strict=True))
    assert all(answer[s] == p for s, p in zip(rows["sample"], rows["predicted"], strict=True))


def test_rows_of_tssan_are_samples_then_segments_then_persons(tmp_path):
    """Only the clip that a row is said to be changes when that clip is changed."""
    position, motion, _ = clips()
    network = tssan().eval()
    everyone = torch.ones(N, K, M, dtype=torch.bool)
    with record(network, tmp_path / "s", run="r", catalogue=CATALOGUE) as recorder:
        for step, changed in enumerate([None, *np.ndindex(N, K, M)]):
            video = position.clone()
            if changed:
                video[changed] += torch.randn(T, V, C, generator=torch.Generator().manual_seed(3))
            announce(recorder, everyone, step)
            with torch.no_grad():
                network(video, motion, everyone)
    store = open_store(tmp_path / "s")
    before = store.select(run="r", step=0).maps().to_numpy()
    for step, (n, k, m) in enumerate(np.ndindex(N, K, M), start=1):
        after = store.select(run="r", step=step)
        differs = np.abs(after.maps().to_numpy() - before).max(axis=(1, 2, 3, 4)) > 0
        lines = after.rows()[differs]
        found = list(zip(lines["sample"], lines["segment"], lines["person"], strict=True))
        assert found == [("abc"[n], k + 1, m + 1)]
        assert lines["subject"].isna().all() == (m == 1)


def test_measures_are_in_the_store(tmp_path):
    torch.manual_seed(0)
    model = Model(layers=1)
    explicit = watch_calls(model)
    with record(model, tmp_path / "s", run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a", "b"])
        model(torch.randn(2, 6, 8) * 3)
    measures = open_store(tmp_path / "s").select(run="r").measures()
    p = explicit["layers.0.attend"][0].numpy()
    expected = p.max(-1).mean(-1)
    for line in measures.itertuples():
        row = "ab".index(line.sample)
        assert line.peak == pytest.approx(expected[row, line.head - 1], abs=1e-5)
    assert {"entropy", "distance", "look_ahead", "peak"} <= set(measures.columns)
    assert len(measures) == 4


def test_the_same_run_goes_on_and_another_shape_is_refused(tmp_path):
    model = Model()
    for names, t in ((["a"], 5), (["b"], 5)):
        with record(model, tmp_path / "s", run="r", catalogue=CATALOGUE) as recorder:
            recorder.samples(sample=names)
            model(torch.randn(1, t, 8))
    assert sorted(open_store(tmp_path / "s").rows("r")["sample"]) == ["a", "b"]
    with pytest.raises(UserError, match="other sites"):
        record_once(model, tmp_path / "s", t=6)
    assert len(open_store(tmp_path / "s").rows("r")) == 2


def record_once(model, store, t):
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["c"])
        model(torch.randn(1, t, 8))


def test_a_kill_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path):
    script = textwrap.dedent(
        """
        import sys, torch
        from tests.recording.support import CATALOGUE, Model
        from tssan_viz.recording import record

        torch.manual_seed(0)
        model = Model()
        with record(model, sys.argv[1], run="r", catalogue=CATALOGUE) as recorder:
            for i in range(1000):
                recorder.samples(sample=[f"{i}a", f"{i}b"])
                model(torch.randn(2, 6, 8))
                if i % 3 == 2:
                    recorder.flush()
                    print(recorder.report().rows, flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 18:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    rest = process.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    assert process.returncode == -signal.SIGKILL

    store = open_store(tmp_path / "s")
    rows = store.rows("r")
    assert set(rows["sample"]) >= {f"{i}{c}" for i in range(acknowledged // 2) for c in "ab"}
    maps = store.select(run="r").maps().to_numpy()
    assert len(maps) == len(rows)
    assert np.abs(maps.sum(-1) - 1).max() < 1e-3
    with record(Model(), store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["later"])
        recorder._model(torch.randn(1, 6, 8))
    assert len(open_store(tmp_path / "s").rows("r")) == len(rows) + 1
