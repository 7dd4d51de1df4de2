"""Cells against means written out, and the mean over single pairs against SciPy's pdist."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from tests.comparison.test_similarity import softmax_maps
from tssan_viz.comparison import cells as cells_module
from tssan_viz.comparison.cells import (
    ReadMaps,
    cell_mean_maps,
    lay_out,
    sides_of,
    single_pair_means,
    sum_units,
)
from tssan_viz.comparison.similarity import unit_vectors
from tssan_viz.comparison.statistics import estimate, gram_matrix, make_design


def make_rows(n: int, seed: int, segments: int = 2) -> pd.DataFrame:
    """Rows of a lopsided data set: cameras, replications and segments come as they come."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "subject": rng.integers(3, 7, n),
            "label": rng.integers(0, 3, n),
            "segment": rng.integers(1, segments + 1, n),
            "camera": pd.array(rng.choice([1, 2, 3, None], n), dtype="Int32"),
            "replication": pd.array(rng.choice([1, 2], n), dtype="Int32"),
        }
    )
    rows.loc[:2, "label"] = 0
    rows.loc[:2, "subject"] = [3, 4, 5]
    return rows


def reader(maps: np.ndarray) -> ReadMaps:
    def read(rows: int) -> Iterator[np.ndarray]:
        for start in range(0, len(maps), rows):
            yield maps[start : start + rows]

    return read


def nested_mean(rows: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Mean of views' means per replication, then of the replications', as it is defined."""
    of_replications = []
    for replication in rows["replication"].unique():
        there = rows["replication"] == replication
        cameras = rows["camera"].astype("object").where(rows["camera"].notna(), "none")
        of_cameras = [
            values[(there & (cameras == camera)).to_numpy()].mean(axis=0)
            for camera in cameras[there].unique()
        ]
        of_replications.append(np.mean(of_cameras, axis=0))
    return np.mean(of_replications, axis=0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 60), seed=st.integers(0, 999), metric=st.sampled_from(["cosine", "pearson"])
)
def test_a_cell_is_the_mean_over_cameras_then_replications(n: int, seed: int, metric: str) -> None:
    rows = make_rows(n, seed)
    maps = softmax_maps(n, 2, 5, 5, seed=seed).astype(np.float32)
    if metric == "pearson":
        maps[np.random.default_rng(seed).random(n) < 0.3, 1] = 0.2
    layout = lay_out(rows)
    found = sum_units(layout, sides_of(layout, 0), reader(maps), metric, heads=2, size=(5, 5))
    units, usable = unit_vectors(maps, metric)
    for cell in range(len(layout.subject)):
        for k, segment in enumerate(layout.segments):
            for head in range(2):
                mine = (
                    (rows["subject"] == layout.subjects[layout.subject[cell]])
                    & (rows["label"] == layout.label[cell])
                    & (rows["segment"] == segment)
                ).to_numpy() & usable[:, head]
                assert found.present[cell, head, k] == mine.any()
                expected = nested_mean(rows[mine], units[mine, head]) if mine.any() else 0
                np.testing.assert_allclose(found.units[cell, head, k], expected, atol=2e-6)
    np.testing.assert_array_equal(found.left_out, (~usable).sum(axis=0))


def test_reading_in_small_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(40, 1)
    maps = softmax_maps(40, 3, 6, 6)
    whole = sum_units(
        lay_out(rows), sides_of(lay_out(rows), 0), reader(maps), "cosine", heads=3, size=(6, 6)
    )
    monkeypatch.setattr(cells_module, "_CHUNK_VALUES", 3 * 36 * 7)
    monkeypatch.setattr(cells_module, "_SORTED_VALUES", 36 * 17)
    monkeypatch.setattr(cells_module, "_CACHED_VALUES", 36 * 5)
    parts = sum_units(
        lay_out(rows), sides_of(lay_out(rows), 0), reader(maps), "cosine", heads=3, size=(6, 6)
    )
    np.testing.assert_allclose(parts.units, whole.units, atol=1e-6)
    np.testing.assert_allclose(parts.sums, whole.sums, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "pearson"])
def test_the_mean_over_single_pairs_is_pdists(metric: str) -> None:
    rows = make_rows(50, 5)
    maps = softmax_maps(50, 1, 6, 6)
    layout = lay_out(rows)
    found = sum_units(layout, sides_of(layout, 1), reader(maps), metric, heads=1, size=(6, 6))
    name = "cosine" if metric == "cosine" else "correlation"
    similarity = 1 - squareform(pdist(maps.reshape(50, -1), name))
    subject, label, segment = (rows[c].to_numpy() for c in ("subject", "label", "segment"))
    comparable = (subject[:, None] != subject) & (segment[:, None] == segment)

    def mean(first: np.ndarray, second: np.ndarray) -> float:
        pairs = comparable & first[:, None] & second
        return np.mean([similarity[pairs & (segment == s)].mean() for s in (1, 2)])

    within, between = single_pair_means(found.sides, two_classes=False)
    assert within[0] == pytest.approx(mean(label == 1, label == 1), abs=1e-5)
    assert between[0] == pytest.approx(mean(label == 1, label != 1), abs=1e-5)


def test_with_one_video_per_cell_all_ways_to_average_agree() -> None:
    subject, label = np.repeat(np.arange(1, 6), 3), np.tile(np.arange(3), 5)
    rows = pd.DataFrame(
        {"subject": subject, "label": label, "segment": 1, "camera": 1, "replication": 1}
    )
    maps = softmax_maps(15, 2, 8, 8)
    layout = lay_out(rows)
    cells = sum_units(layout, sides_of(layout, 0), reader(maps), "cosine", heads=2, size=(8, 8))
    found = estimate(
        gram_matrix(cells.units, cells.present), make_design(layout.subject, layout.label == 0)
    )
    within, between = single_pair_means(cells.sides, two_classes=False)
    np.testing.assert_allclose(found.within, within, atol=1e-6)
    np.testing.assert_allclose(found.between, between, atol=1e-6)
    other_subject = squareform(pdist(subject[label == 0, None])) > 0
    similarity = 1 - squareform(pdist(maps[label == 0, 1].reshape(5, -1), "cosine"))
    assert found.within[1] == pytest.approx(similarity[other_subject].mean(), abs=1e-6)


def test_mean_maps_are_nested_means_over_segments_too() -> None:
    rows = make_rows(60, 3)
    maps = softmax_maps(60, 1, 4, 6)
    layout = lay_out(rows)
    found = cell_mean_maps(layout, reader(maps), size=(4, 6))
    for cell in range(len(layout.subject)):
        of_segments = []
        for segment in layout.segments:
            mine = (
                (rows["subject"] == layout.subjects[layout.subject[cell]])
                & (rows["label"] == layout.label[cell])
                & (rows["segment"] == segment)
            ).to_numpy()
            if mine.any():
                of_segments.append(nested_mean(rows[mine], maps[mine, 0]))
        np.testing.assert_allclose(found[cell], np.mean(of_segments, axis=0), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
