"""Unit vectors against the textbook form of every metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from tssan_viz.comparison.similarity import METRICS, unit_vectors
from tssan_viz.errors import UserError


def softmax_maps(*shape: int, seed: int = 0, sharpness: float = 2.0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=shape) * sharpness
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def similarities(maps: np.ndarray, metric: str) -> np.ndarray:
    units, usable = unit_vectors(maps, metric)
    assert usable.all()
    return units @ units.T


def test_cosine_and_pearson_are_scipys() -> None:
    maps = softmax_maps(7, 12, 12)
    flat = maps.reshape(7, -1)
    for metric, scipys in (("cosine", "cosine"), ("pearson", "correlation")):
        expected = 1 - squareform(pdist(flat, scipys))
        np.testing.assert_allclose(similarities(maps, metric), expected, atol=2e-6)


def test_hellinger_is_the_mean_affinity_of_the_rows() -> None:
    maps = softmax_maps(5, 9, 9)
    expected = np.array([[np.sqrt(a * b).sum(axis=-1).mean() for b in maps] for a in maps])
    np.testing.assert_allclose(similarities(maps, "hellinger"), expected, atol=2e-6)


def test_cka_is_linear_cka_by_hsic() -> None:
    maps = softmax_maps(5, 10, 8)
    centring = np.eye(10) - 1 / 10

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ a.T @ centring @ b @ b.T @ centring))

    expected = np.array(
        [[hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b)) for b in maps] for a in maps]
    )
    np.testing.assert_allclose(similarities(maps, "cka"), expected, atol=1e-5)


@given(
    metric=st.sampled_from(METRICS),
    frames=st.integers(2, 20),
    sharpness=st.floats(0.1, 20),
    seed=st.integers(0, 1000),
)
def test_vectors_have_length_one(metric: str, frames: int, sharpness: float, seed: int) -> None:
    maps = softmax_maps(3, 2, frames, frames, seed=seed, sharpness=sharpness).astype(np.float16)
    units, usable = unit_vectors(maps, metric)
    lengths = np.linalg.norm(units, axis=-1)
    np.testing.assert_allclose(lengths[usable], 1, atol=1e-5)
    assert (lengths[~usable] == 0).all()
    assert np.isfinite(units).all()


@pytest.mark.parametrize("frames", [3, 7, 30, 32])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_uniform_map_has_no_direction_for_pearson_and_cka(frames: int, dtype: type) -> None:
    uniform = np.full((1, frames, frames), 1 / frames, dtype=dtype)
    for metric, expected in (("pearson", False), ("cka", False), ("cosine", True)):
        units, usable = unit_vectors(uniform, metric)
        assert usable[0] == expected
        assert np.linalg.norm(units) == pytest.approx(float(expected), abs=1e-5)
    one_frame = np.zeros((1, frames, frames), dtype=dtype)
    one_frame[..., 0] = 1
    assert unit_vectors(one_frame, "pearson")[1].all()
    assert not unit_vectors(one_frame, "cka")[1].any()


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'euclid'.*cosine, pearson"):
        unit_vectors(softmax_maps(1, 4, 4), "euclid")
    with pytest.raises(UserError, match="negative"):
        unit_vectors(-softmax_maps(1, 4, 4), "hellinger")
