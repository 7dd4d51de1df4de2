"""Distances of pairs: SciPy's numbers, and means over pairs that a loop finds too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from tests.comparison import stores
from tests.comparison.stores import every, write
from tests.stores import make_store
from tssan_viz.comparison.measure_contrasts import measure_contrasts
from tssan_viz.comparison.pairs import distances, pair_distances
from tssan_viz.comparison.statistics import estimate, make_design
from tssan_viz.errors import UserError
from tssan_viz.store import Site


def maps(seed: int, *shape: int) -> np.ndarray:
    p = np.random.default_rng(seed).gamma(0.3, size=shape)
    return p / p.sum(-1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 9))
@settings(deadline=None)
def test_distances_are_those_of_scipy(seed: int, q: int, s: int) -> None:
    a, b = maps(seed, q, s), maps(seed + 1, q, s)
    at = np.arange(s) * 0.25
    expected = {
        "jsd": np.mean([jensenshannon(x, y) ** 2 for x, y in zip(a, b, strict=True)]),
        "wasserstein": np.mean(
            [wasserstein_distance(at, at, x, y) for x, y in zip(a, b, strict=True)]
        ),
        "tv": np.mean([np.abs(x - y).sum() / 2 for x, y in zip(a, b, strict=True)]),
    }
    for metric, value in expected.items():
        assert distances(a, b, metric, 0.25) == pytest.approx(value, abs=1e-10)
        assert distances(b, a, metric, 0.25) == pytest.approx(value, abs=1e-10)
        assert distances(a, a, metric) == pytest.approx(0, abs=1e-12)


def test_rows_that_attend_to_nothing_do_not_count() -> None:
    a, b = maps(0, 4, 5), maps(1, 4, 5)
    masked = a.copy()
    masked[2] = 0
    kept = [0, 1, 3]
    assert distances(masked, b, "tv") == pytest.approx(distances(a[kept], b[kept], "tv"))
    assert np.isnan(distances(np.zeros((2, 3)), np.zeros((2, 3)), "jsd"))


def test_a_shift_by_one_frame_costs_one_step_however_far_apart_jsd_finds_it() -> None:
    near, far = np.eye(8)[[0]], np.eye(8)[[1, 7]][:, None]
    assert distances(np.broadcast_to(near, (2, 1, 8)), far, "wasserstein", 0.1).tolist() == (
        pytest.approx([0.1, 0.7])
    )
    assert distances(np.broadcast_to(near, (2, 1, 8)), far, "jsd").tolist() == (
        pytest.approx([np.log(2), np.log(2)])
    )


@pytest.mark.parametrize(
    ("a", "b", "metric", "words"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "tv", "cannot be compared row by row"),
        (np.ones((2, 3)), -np.ones((2, 3)), "tv", "negative or no numbers"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), "jsd", "negative or no numbers"),
        (np.ones((2, 3)), np.ones((2, 3)), "cosine", "choose one of jsd, wasserstein, tv"),
    ],
)
def test_what_cannot_be_compared(a: np.ndarray, b: np.ndarray, metric: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        distances(a, b, metric)


def test_all_pairs_are_those_of_a_loop(tmp_path: Path) -> None:
    """With unequal views: each view of a cell counts the same."""
    rows = every(subjects=3, classes=2, cameras=2, segments=2)
    rows = rows.drop(rows.index[(rows["sample"] == "S1L0C2") & (rows["segment"] == 1)])
    store = write(tmp_path / "store", rows.reset_index(drop=True))
    found = pair_distances(store.select(), metric="jsd", pairs=1000)
    assert found.pairs == 0
    assert (found.table[["within_error", "between_error"]] == 0).all().all()
    all_maps = store.select().maps().values[:, 0]
    rows = store.select().rows()

    def mean(a: tuple[int, int], b: tuple[int, int], head: int) -> float:
        per_segment = []
        for k in (1, 2):
            mine = [
                rows.index[(rows["subject"] == s) & (rows["label"] == c) & (rows["segment"] == k)]
                for s, c in (a, b)
            ]
            per_segment.append(
                np.mean(
                    [
                        distances(all_maps[i, head], all_maps[j, head], "jsd")
                        for i in mine[0]
                        for j in mine[1]
                    ]
                )
            )
        return float(np.mean(per_segment))

    within, between = [], []
    for s, o in ((1, 2), (1, 3), (2, 3)):
        within.append(np.mean([mean((s, c), (o, c), 1) for c in (0, 1)]))
        between.append(np.mean([mean((s, c), (o, 1 - c), 1) for c in (0, 1)]))
    line = found.table.iloc[1]
    assert line["within"] == pytest.approx(np.mean(within), abs=1e-6)
    assert line["between"] == pytest.approx(np.mean(between), abs=1e-6)
    assert np.isnan(found.distance[0, 0]).all()


def test_drawn_pairs_are_near_all_pairs_as_far_as_their_error_says(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=5, planted="put on jacket", layers=1)
    whole = pair_distances(store.select(), metric="tv", pairs=1000)
    off = []
    for seed in range(12):
        drawn = pair_distances(store.select(), metric="tv", pairs=4, seed=seed)
        assert drawn.pairs == 4
        for what in ("within", "between"):
            off += ((drawn.table[what] - whole.table[what]) / drawn.table[f"{what}_error"]).tolist()
    assert 0.7 < np.std(off) < 1.4
    assert abs(np.mean(off)) < 0.5
    same = pair_distances(store.select(), metric="tv", pairs=4, seed=3)
    again = pair_distances(store.select(), metric="tv", pairs=4, seed=3)
    assert same.table.equals(again.table)


def test_the_tests_for_similarities_take_minus_the_distances(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=6, planted="put on jacket")
    found = pair_distances(store.select(), metric="wasserstein")
    assert found.units == "seconds"
    gram = found.gram(2)
    assert gram.counted is None
    design = make_design(found.subject, found.label == 0, n_permutations=500)
    delta = estimate(gram, design).delta
    assert delta.argmax() == 0
    own = found.label[:, None] == 0
    line = found.distance[:, :, 4]
    within = np.nanmean(line[own & own.T])
    between = np.nanmean(line[np.broadcast_to(own & ~own.T, line.shape)])
    assert delta[0] == pytest.approx(between - within, abs=1e-5)
    assert len(found.to_dict()["table"]) == 8


def test_maps_that_are_no_probabilities_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signed(layers: int, heads: int, frames: int) -> tuple[Site, ...]:
        return (Site("tanh", 1, heads, frames, frames, kind="signed"),)

    monkeypatch.setattr(stores, "make_sites", signed)
    store = write(tmp_path / "store", every(subjects=3, classes=2))
    with pytest.raises(UserError, match="layer 1 are of kind 'signed'"):
        pair_distances(store.select())
    with pytest.raises(UserError, match="measures are of attention probabilities"):
        measure_contrasts(store.select(label=0), store.select(label=1))


def test_bad_questions(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=2, classes=2))
    with pytest.raises(UserError, match="choose one of jsd"):
        pair_distances(store.select(), metric="cosine")
    with pytest.raises(UserError, match="at least 1"):
        pair_distances(store.select(), pairs=0)
    with pytest.raises(UserError, match="at least 2 subjects"):
        pair_distances(store.select(subject=1))
