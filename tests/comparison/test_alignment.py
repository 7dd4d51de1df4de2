"""Warping maps to one reference: the path is the cheapest, and comes from the skeletons alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores import make_store
from tssan_viz import compare_class
from tssan_viz.comparison.alignment import (
    AlignedSelection,
    aligned,
    dtw_paths,
    frame_weights,
    pose_features,
    warp_maps,
)
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.measure_contrasts import measure_contrasts
from tssan_viz.comparison.pairs import pair_distances
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore


def cheapest(cost: np.ndarray) -> float:
    """What the cheapest path costs, by the recursion as it is written in the books."""

    @cache
    def to(j: int, i: int) -> float:
        if j == 0 and i == 0:
            return float(cost[0, 0])
        before = [
            to(a, b) for a, b in ((j - 1, i - 1), (j - 1, i), (j, i - 1)) if a >= 0 and b >= 0
        ]
        return float(cost[j, i]) + min(before)

    return to(cost.shape[0] - 1, cost.shape[1] - 1)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10_000))
@settings(deadline=None)
def test_paths_are_the_cheapest(t: int, u: int, seed: int) -> None:
    cost = np.random.default_rng(seed).random((3, t, u))
    first, last, total = dtw_paths(cost)
    for n in range(3):
        assert total[n] == pytest.approx(cheapest(cost[n]))
        # Monotone and without a gap: from corner to corner.
        assert first[n, 0] == 0
        assert last[n, -1] == u - 1
        assert (first[n] <= last[n]).all()
        assert np.isin(first[n, 1:] - last[n, :-1], (0, 1)).all()


def test_the_band_keeps_paths_near_phase() -> None:
    cost = np.ones((1, 12, 12))
    cost[0, :, 0] = cost[0, -1, :] = 0
    free = dtw_paths(cost)
    held = dtw_paths(cost, band=3)
    assert free[2][0] == 0
    assert held[2][0] > 0
    assert (np.abs(held[0][0] - np.arange(12)) <= 4).all()


def test_a_stretched_motion_goes_back_to_the_reference() -> None:
    """Frames that are held, in the motion and in the map, are taken together again."""
    rng = np.random.default_rng(0)
    t, hold = 12, np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 8, 10, 11])
    motion = np.cumsum(rng.random((t, 4)), axis=0)
    stretched = motion[hold]
    cost = np.sqrt(((motion[:, None] - stretched[None]) ** 2).sum(-1))[None]
    weights = frame_weights(*dtw_paths(cost)[:2])
    recovered = weights[0] @ stretched
    assert np.abs(recovered - motion)[:7].max() < 1e-6
    assert np.abs(recovered - motion).mean() < np.abs(stretched - motion).mean() / 2


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_warped_rows_sum_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((2, 3, 8, 8))
    maps /= maps.sum(-1, keepdims=True)
    first = np.sort(rng.uniform(0, 7, (2, 8))).astype(np.float32)
    warped = warp_maps(maps, frame_weights(first, first))
    np.testing.assert_allclose(warped.sum(-1), 1, atol=1e-5)
    same = np.tile(np.arange(8, dtype=np.float32), (2, 1))
    np.testing.assert_allclose(warp_maps(maps, frame_weights(same, same)), maps, atol=1e-6)


def test_maps_of_other_lengths_are_refused() -> None:
    weights = frame_weights(np.zeros((1, 4)), np.zeros((1, 4)))
    with pytest.raises(UserError, match="query and key must be the frames"):
        warp_maps(np.ones((1, 6, 6)), weights)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_features_know_nothing_of_place_camera_and_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = rng.normal(size=(5, 6, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = 1.7 * poses @ turn + rng.normal(size=3)
    np.testing.assert_allclose(pose_features(moved), pose_features(poses), atol=1e-5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> AttentionStore:
    return make_store(
        tmp_path_factory.mktemp("aligned") / "store",
        subjects=6,
        planted="put on jacket",
        segments=2,
    )


def test_the_reference_is_one_and_parts_keep_it(store: AttentionStore) -> None:
    whole = aligned(store.select(), "dtw")
    assert isinstance(whole, AlignedSelection)
    part = whole.select(class_name="reading", layer=2)
    assert isinstance(part, AlignedSelection)
    assert part.alignment is whole.alignment
    assert "one reference: the mean motion of 96 videos" in part.notes[-1]
    both = part | whole.select(class_name="hand waving", layer=2)
    assert both.alignment is whole.alignment
    apart = aligned(store.select(class_name="hand waving", layer=2), "dtw")
    with pytest.raises(UserError, match="align the whole selection first"):
        _ = part | apart


def test_a_comparison_reads_aligned_maps_and_no_kept_cells(store: AttentionStore) -> None:
    plain = compare_class(store, "put on jacket", permutations=100)
    for how in ("seconds", "dtw"):
        selection = aligned(store.select(), how)
        assert KeptCells.of(selection, person=1, metric="cosine", notes=[]) is None
        found = compare_class(selection, "put on jacket", permutations=100)
        assert any(note.startswith(f"aligned by {how}") for note in found.notes)
        first = selection.maps().values[0, 0, 0]
        np.testing.assert_allclose(first.sum(-1), 1, atol=1e-5)
        assert len(found.table) == len(plain.table)
    # The generated videos all last as long, so that time is phase.
    seconds = compare_class(aligned(store.select(), "seconds"), "put on jacket", permutations=100)
    np.testing.assert_allclose(seconds.table["delta"], plain.table["delta"], atol=1e-4)


def test_time_and_motion_go_along_with_the_maps(store: AttentionStore) -> None:
    """All videos last as long here: aligned in seconds, everything is as it was."""
    names = ["distance_seconds", "coupling_to_motion", "entropy"]
    parts = {"class_name": "reading"}, {"class_name": "hand waving"}
    plain = store.select()
    expected = measure_contrasts(*(plain.select(**part) for part in parts), measures=names).table
    timed = aligned(plain, "seconds")
    found = measure_contrasts(*(timed.select(**part) for part in parts), measures=names).table
    np.testing.assert_allclose(found["mean_a"], expected["mean_a"], atol=2e-3)
    warped = aligned(plain, "dtw")
    along = measure_contrasts(*(warped.select(**part) for part in parts), measures=names).table
    by_name = along.groupby("measure")["mean_a"]
    assert by_name.get_group("distance_seconds").isna().all()
    assert by_name.get_group("coupling_to_motion").notna().all()
    seconds = pair_distances(timed, metric="wasserstein", layer=1, pairs=2)
    phase = pair_distances(plain, metric="wasserstein", layer=1, pairs=2)
    assert (seconds.units, phase.units) == ("seconds", "seconds")
    np.testing.assert_allclose(seconds.table["within"], phase.table["within"], rtol=1e-3)
    assert pair_distances(warped, metric="wasserstein", layer=1, pairs=2).units == "frames"


def test_what_cannot_be_aligned_is_said(tmp_path: Path, store: AttentionStore) -> None:
    with pytest.raises(UserError, match="choose one of none, seconds, dtw"):
        aligned(store.select(), "warp")
    assert not isinstance(aligned(store.select(), "none"), AlignedSelection)
    bare = make_store(tmp_path / "bare", subjects=2, poses=False)
    with pytest.raises(UserError, match="recorded without poses"):
        aligned(bare.select(), "dtw")
    with pytest.raises(UserError, match="nothing to align"):
        aligned(bare.select(subject=1, camera=1).select(where="confidence > 2"), "dtw")
