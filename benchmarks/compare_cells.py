"""Measure how much cheaper a comparison by cells is than one by all pairs of videos.

Both take the same maps in the same run: the loop over pairs in its fastest form (a matrix product
per head over all videos, then masks), and the cells, whose cost grows with subjects × classes.
The mean over single pairs must agree, or the benchmark fails. The seconds that 10,000 permutations
take, over all heads together, are printed beside.

    python benchmarks/compare_cells.py
    python benchmarks/compare_cells.py --subjects 20 --classes 60 --heads 8
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tssan_viz.comparison.cells import lay_out, sides_of, single_pair_means, sum_units
from tssan_viz.comparison.similarity import unit_vectors
from tssan_viz.comparison.statistics import (
    estimate,
    gram_matrix,
    make_design,
    null_deltas,
    p_values,
)


def by_pairs(maps: np.ndarray, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """W and B of class 0 for each head, over all pairs of videos of different subjects."""
    units, _ = unit_vectors(maps)
    subject, label = rows["subject"].to_numpy(), rows["label"].to_numpy()
    apart = subject[:, None] != subject
    own = apart & (label[:, None] == 0) & (label == 0)
    other = apart & (label[:, None] == 0) & (label != 0)
    within, between = [], []
    for head in range(maps.shape[1]):
        similarity = units[:, head] @ units[:, head].T
        within.append(similarity[own].mean(dtype=np.float64))
        between.append(similarity[other].mean(dtype=np.float64))
    return np.array(within), np.array(between)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--videos", type=int, nargs="+", default=[6, 18, 36], help="of each cell")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    table = Table("videos", "cells", "all pairs, s", "cells, s", "ratio", "10,000 permutations, s")
    for videos in track(options.videos, description="comparing", transient=True):
        shape = (options.subjects, options.classes, videos)
        subject, label, camera = (axis.reshape(-1) for axis in np.indices(shape))
        rows = pd.DataFrame(
            {
                "subject": subject,
                "label": label,
                "camera": camera,
                "replication": 1,
                "segment": 1,
            }
        )
        frames = options.frames
        maps = rng.random((len(rows), options.heads, frames, frames), dtype=np.float32)
        maps = (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)

        def read(count: int, maps: np.ndarray = maps) -> Iterator[np.ndarray]:
            for start in range(0, len(maps), count):
                yield maps[start : start + count]

        started = time.perf_counter()
        expected = by_pairs(maps, rows)
        pairs_seconds = time.perf_counter() - started

        started = time.perf_counter()
        layout = lay_out(rows)
        cells = sum_units(
            layout, sides_of(layout, 0), read, "cosine", heads=options.heads, size=(frames, frames)
        )
        gram = gram_matrix(cells.units, cells.present)
        design = make_design(layout.subject, layout.label == 0)
        estimate(gram, design)
        found = single_pair_means(cells.sides, two_classes=False)
        cells_seconds = time.perf_counter() - started

        started = time.perf_counter()
        p_values(null_deltas(gram, design))
        test_seconds = time.perf_counter() - started
        np.testing.assert_allclose(found, expected, atol=1e-5)
        table.add_row(
            f"{len(rows):,}",
            f"{len(layout.subject):,}",
            f"{pairs_seconds:.2f}",
            f"{cells_seconds:.2f}",
            f"{pairs_seconds / cells_seconds:.1f} ×",
            f"{test_seconds:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
