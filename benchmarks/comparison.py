"""Measure a comparison over a whole test set: once the cells are kept, from the maps, by all pairs.

A store of generated maps is recorded (as many videos as the test set of NTU RGB+D 60 has, of 20
subjects and 60 classes under 3 cameras) and compared as the command does, with the store opened
anew each time. Beside it stand the same comparison from the maps, and SciPy's `pdist` over all
pairs of one head of a part of the videos, whose time is scaled to all of them. The means over
single pairs must agree to 1e-6, or the benchmark fails.

    python benchmarks/comparison.py
    python benchmarks/comparison.py --frames 32 --segments 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.spatial.distance import pdist, squareform

from tssan_viz import compare, compare_class
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import (
    kept_class_similarities,
    kept_subject_similarities,
    kept_view_similarities,
)
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.store import AttentionStore, Catalogue, ClassEntry, Site, open_store

console = Console()


def record(path: Path, options: argparse.Namespace) -> None:
    """Write a run whose maps carry a class, a subject and noise."""
    rng = np.random.default_rng(0)
    t, h, k = options.frames, options.heads, options.segments
    sites = tuple(Site(f"blocks.{n}.attend", n + 1, h, t, t) for n in range(options.layers))
    classes = tuple(ClassEntry(c, f"class {c}", f"A{c + 1:03d}") for c in range(options.classes))
    manner = rng.normal(size=(options.subjects, h, t, t)).astype(np.float32)
    cells = options.subjects * options.classes
    videos = np.full(cells, options.videos // cells)
    videos[: options.videos - videos.sum()] += 1
    store = open_store(path, create=True)
    catalogue = Catalogue("generated", classes, None, 30.0)
    with store.writer("benchmark", sites=sites, catalogue=catalogue) as writer:
        for c in track(range(options.classes), description="recording", transient=True):
            action = rng.normal(size=(h, t, t)).astype(np.float32)
            subject = np.repeat(
                np.arange(options.subjects), videos[c * options.subjects :][: options.subjects]
            )
            turn = np.concatenate([np.arange(n) for n in np.unique(subject, return_counts=True)[1]])
            row = np.repeat(np.arange(len(subject)), k)
            rows = {
                "sample": [f"{c}-{s}-{i}" for s, i in zip(subject[row], turn[row], strict=True)],
                "label": [c] * len(row),
                "class_name": [f"class {c}"] * len(row),
                "class_code": [f"A{c + 1:03d}"] * len(row),
                "subject": (subject[row] + 1).tolist(),
                "camera": (turn[row] % 3 + 1).tolist(),
                "replication": (turn[row] // 3 % 2 + 1).tolist(),
                "segment": np.tile(np.arange(k) + 1, len(subject)).tolist(),
                "person": [1] * len(row),
                "split": ["test"] * len(row),
                "step": [0] * len(row),
                "phase": ["inference"] * len(row),
            }
            maps = {}
            for site in sites:
                scores = rng.standard_normal((len(row), h, t, t), dtype=np.float32)
                scores += manner[subject[row]] + 0.3 * action
                np.exp(scores, out=scores)
                scores /= scores.sum(-1, keepdims=True)
                maps[site.name] = scores.astype(np.float16)
            writer.add(rows, maps)


def timed(work: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Return the median seconds of some calls, by the clock and of all cores."""
    clock, cores = [], []
    for _ in range(times):
        started = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - started[0])
        cores.append(time.process_time() - started[1])
    return statistics.median(clock), statistics.median(cores)


def by_pairs(store: AttentionStore, rows: pd.DataFrame) -> tuple[float, float, float]:
    """W and B of class 0 over all pairs of videos, of layer 1 head 1, and the seconds it took."""
    maps = store.read_maps("benchmark", rows["row_id"].to_numpy(), {1: [1]})
    flat = maps.reshape(len(rows), -1).astype(np.float64)
    started = time.perf_counter()
    similarity = 1 - squareform(pdist(flat, "cosine"))
    subject, label = rows["subject"].to_numpy(int), rows["label"].to_numpy(int)
    segment = rows["segment"].to_numpy(int)
    pairs = (subject[:, None] != subject) & (segment[:, None] == segment) & (label == 0)[:, None]
    means = []
    for other in (label == 0, label != 0):
        chosen = [pairs & other & (segment == k) for k in np.unique(segment)]
        means.append(float(np.mean([similarity[some].mean() for some in chosen])))
    return means[0], means[1], time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=16_560)
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--segments", type=int, default=1)
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--part", type=int, default=2, help="subjects of which all pairs are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        record(path, options)
        measure(path, options)


def measure(path: Path, options: argparse.Namespace) -> None:
    """Compare in all ways and print how long each takes."""

    def of_class(permutations: int = options.permutations) -> pd.DataFrame:
        return compare_class(open_store(path), 0, permutations=permutations).table

    def of_subjects() -> pd.DataFrame:
        half = ",".join(str(s + 1) for s in range(options.subjects // 2))
        groups = [f"subject:{half}"]
        store = open_store(path)
        return compare(store, groups=groups, permutations=options.permutations).table

    with patch.object(KeptCells, "of", lambda *_, **__: None):
        expected = of_class()
        from_maps = timed(of_class, 1)
    making = timed(of_class, 1)
    once_kept = timed(of_class)
    found = of_class()
    for column in ("W", "B", "delta", "W_pairs", "B_pairs", "low", "high"):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-6)

    store = open_store(path)
    part = store.select(subject=list(range(1, options.part + 1)))
    rows = part.rows()
    within, between, seconds = by_pairs(store, rows)
    line = compare_class(part, 0, permutations=1).table.iloc[0]
    np.testing.assert_allclose([line["W_pairs"], line["B_pairs"]], [within, between], atol=1e-6)
    everything = len(store.rows("benchmark"))
    heads = options.layers * options.heads
    all_pairs = seconds * (everything / len(rows)) ** 2 * heads

    selection = store.select()
    kept = KeptCells.of(selection, person=1, metric="cosine", notes=[])
    assert kept is not None
    kept.prepare(selection.layers)

    def timed_answer(work: Callable[[KeptLayer, int, range], object]) -> tuple[float, float]:
        heads_of = range(options.heads)
        return timed(partial(kept.answer, 1, lambda cells, _: work(cells, 0, heads_of), make=False))

    size = sum(f.stat().st_size for f in (path / "cells").rglob("*") if f.is_file())
    table = Table("what", "seconds", "CPU", title=f"{options.videos:,} videos, {heads} heads")
    for name, (clock, cores) in {
        f"once the cells are kept, {options.permutations:,} permutations": once_kept,
        "the same with 1 permutation": timed(lambda: of_class(1)),
        "half of the subjects against the others, once kept": timed(of_subjects, 1),
        "the first one, which makes them": making,
        "from the maps": from_maps,
        "class similarities of a layer": timed_answer(kept_class_similarities),
        "subject similarities of a layer": timed_answer(kept_subject_similarities),
        "view similarities of a layer": timed_answer(kept_view_similarities),
    }.items():
        table.add_row(name, f"{clock:.3f}", f"{cores:.3f}")
    table.add_row(f"all pairs (pdist of {len(rows):,} maps, scaled)", f"{all_pairs:,.0f}")
    console.print(table)
    console.print(
        f"kept cells: {size / 1e9:.2f} GB beside {(store.size() - size) / 1e9:.2f} GB; once kept "
        f"{from_maps[0] / once_kept[0]:.1f} × faster than from the maps, "
        f"{all_pairs / once_kept[0]:,.0f} × faster than all pairs; they agree to 1e-6"
    )


if __name__ == "__main__":
    main()
