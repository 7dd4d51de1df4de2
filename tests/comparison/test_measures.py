"""Measures of one map: known answers, bounds, and the numbers of the recorder and of SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr

from tests.stores import measures_of
from tssan_viz import measures
from tssan_viz.errors import UserError
from tssan_viz.measures.named import NEED_POSES, NEED_SECONDS

UNIFORM = np.full((6, 6), 1 / 6)
DIAGONAL = np.eye(6)
FIRST = np.zeros((6, 6))
FIRST[:, 0] = 1

FROM_MAPS = [name for name in measures.MEASURES if name not in (*NEED_POSES, *NEED_SECONDS)]


def some_map(seed: int, *shape: int) -> np.ndarray:
    p = np.random.default_rng(seed).gamma(0.4, size=shape)
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "uniform", "diagonal", "first"),
    [
        ("entropy", 1, 0, 0),
        ("effective_frames", 6, 1, 1),
        ("globalness", np.log(6), 0, 0),
        ("verticality", -np.log(6), -np.log(6), 0),
        ("gini", 0, 5 / 6, 5 / 6),
        ("hoyer", 0, 1, 1),
        ("top_mass", 1 / 6, 1, 1),
        ("confidence", 1 / 6, 1, 1),
        ("distance", 35 / 18, 0, 2.5),
        ("look_ahead", 0, 0, -2.5),
        ("diagonality", -35 / 18 / 6, 0, -2.5 / 6),
        ("positional_share", 1 / 6, 1, 1 / 6),
        ("diagonal_mass", 16 / 36, 1, 2 / 6),
        ("block_mass", 10 / 36, 1, 2 / 6),
        ("first_mass", 2 / 6, 2 / 6, 1),
        ("last_mass", 2 / 6, 2 / 6, 0),
        ("symmetry", 1, 1, 1 / 6),
    ],
)
def test_known_answers(name: str, uniform: float, diagonal: float, first: float) -> None:
    found = measures.measure(np.stack([UNIFORM, DIAGONAL, FIRST]), [name])[name]
    np.testing.assert_allclose(found, [uniform, diagonal, first], atol=1e-12)


def test_every_measure_that_needs_maps_alone_has_a_known_answer() -> None:
    marks = test_known_answers.pytestmark  # type: ignore[attr-defined]
    known = {case[0] for mark in marks if mark.name == "parametrize" for case in mark.args[1]}
    assert known == set(FROM_MAPS)


@given(st.integers(0, 10_000), st.integers(2, 12))
@settings(deadline=None, max_examples=40)
def test_bounds_and_relations(seed: int, s: int) -> None:
    maps = some_map(seed, 3, s, s)
    found = measures.measure(maps, FROM_MAPS)
    for name in ("entropy", "gini", "hoyer", "top_mass", "confidence", "positional_share",
                 "diagonal_mass", "block_mass", "first_mass", "last_mass", "symmetry"):  # fmt: skip
        assert ((found[name] > -1e-9) & (found[name] < 1 + 1e-9)).all(), name
    # Entropy is concave: that of the mean row is no less than the mean of the rows'.
    assert (-found["verticality"] >= found["globalness"] - 1e-9).all()
    assert (np.abs(found["look_ahead"]) <= found["distance"] + 1e-9).all()
    np.testing.assert_allclose(found["diagonality"], -found["distance"] / s)
    mirrored = measures.measure(maps[:, ::-1, ::-1], FROM_MAPS)
    np.testing.assert_allclose(mirrored["look_ahead"], -found["look_ahead"], atol=1e-9)
    np.testing.assert_allclose(mirrored["first_mass"], found["last_mass"], atol=1e-9)
    np.testing.assert_allclose(
        found["globalness"], scipy_entropy(maps, axis=-1).mean(-1), atol=1e-9
    )


def test_yangs_measures_are_their_equations() -> None:
    """Equations 1 to 3 of arXiv 2006.03265, sum by sum, over three maps (utterances there)."""
    t = 5
    maps = some_map(7, 3, t, t)

    def h(row: np.ndarray) -> float:
        return float(-(row * np.log(row)).sum())

    g = np.mean([sum(h(a[q]) for q in range(t)) / t for a in maps])
    v = np.mean([-h(sum(a[q] for q in range(t)) / t) for a in maps])
    d = np.mean(
        [-sum(abs(q - k) * a[q, k] for q in range(t) for k in range(t)) / t**2 for a in maps]
    )
    assert measures.globalness(maps).mean() == pytest.approx(g)
    assert measures.verticality(maps).mean() == pytest.approx(v)
    assert measures.diagonality(maps).mean() == pytest.approx(d)


@given(st.integers(0, 10_000), st.integers(2, 12))
@settings(deadline=None, max_examples=40)
def test_gini_is_the_mean_absolute_difference(seed: int, s: int) -> None:
    row = some_map(seed, 1, s)
    pairs = np.abs(row[0][:, None] - row[0]).sum() / (2 * s)
    assert measures.gini(row) == pytest.approx(pairs)


def test_what_was_recorded_is_what_the_maps_give() -> None:
    maps = some_map(3, 5, 2, 9, 9).astype(np.float32)
    recorded = measures_of(maps)
    names = {"entropy": "entropy", "distance": "distance", "look_ahead": "look_ahead"}
    for name, stored in {**names, "confidence": "peak"}.items():
        found = measures.measure(maps, [name])[name]
        np.testing.assert_allclose(found, recorded[stored], atol=1e-5)


def test_distances_in_seconds_follow_the_frame_times() -> None:
    maps = some_map(0, 2, 6, 6)
    times = np.stack([np.arange(6) / 10, np.arange(6) / 5])
    found = measures.measure(maps, ["distance", "distance_seconds"], seconds=times)
    np.testing.assert_allclose(found["distance_seconds"], found["distance"] * np.array([0.1, 0.2]))


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_coupling_is_scipys_spearman(seed: int) -> None:
    maps = some_map(seed, 3, 7, 7)
    speed = np.random.default_rng(seed).integers(0, 4, (3, 7)).astype(float)
    found = measures.coupling_to_motion(maps, speed)
    for n in range(3):
        if len(set(speed[n])) == 1:
            assert np.isnan(found[n])
        else:
            assert found[n] == pytest.approx(spearmanr(maps[n].mean(0), speed[n]).statistic)


def test_speed_is_that_of_a_known_motion() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 0.4])
    poses = np.zeros((4, 5, 3))
    poses[:, :, 0] = 2 * seconds[:, None]
    np.testing.assert_allclose(measures.joint_speed(poses, seconds), 2)
    np.testing.assert_allclose(measures.joint_speed(poses), [0.2, 0.2, 0.3, 0.4])
    poses[:, 1] = np.nan
    np.testing.assert_allclose(measures.joint_speed(poses, seconds), 2)
    assert np.isnan(measures.joint_speed(np.full((4, 5, 3), np.nan))).all()
    assert np.isnan(measures.joint_speed(poses[:1])).all()


def test_attention_to_the_fastest_frame() -> None:
    speed = np.array([0, 0, 0, 9, 0, 0.0])
    at = np.zeros((6, 6))
    at[:, 3] = 1
    found = measures.measure(np.stack([at, FIRST]), ["peak_motion_mass"], speed=speed)
    np.testing.assert_allclose(found["peak_motion_mass"], [1, 0])
    unknown = measures.measure(FIRST, ["peak_motion_mass", "coupling_to_motion"])
    assert np.isnan(unknown["peak_motion_mass"])
    assert np.isnan(unknown["coupling_to_motion"])


def test_a_positional_head_has_its_offset() -> None:
    shifted = np.roll(np.eye(10), 2, axis=1)
    share, offset = measures.positional_share(shifted)
    assert share == pytest.approx(0.8)
    assert offset == 2


def test_rows_that_are_masked_in_full_do_not_count() -> None:
    maps = some_map(1, 6, 6)
    masked = maps.copy()
    masked[4:] = 0
    for name in ("entropy", "gini", "hoyer", "confidence", "distance", "top_mass"):
        whole = getattr(measures, name)
        assert whole(masked) == pytest.approx(whole(maps[:4])), name
    nothing = measures.measure(np.zeros((4, 4)), FROM_MAPS)
    assert all(np.isnan(value) for value in nothing.values())


@given(arrays(np.float64, (3, 5, 5), elements=st.floats(-1, 1)))
@settings(deadline=None, max_examples=30)
def test_what_is_no_probability_is_refused(maps: np.ndarray) -> None:
    if maps.min() < 0:
        with pytest.raises(UserError, match="attention probabilities"):
            measures.entropy(maps)
    with pytest.raises(UserError, match="no numbers"):
        measures.gini(np.where(maps == maps.flat[0], np.nan, maps))


def test_bad_questions() -> None:
    with pytest.raises(UserError, match="did you mean 'entropy'"):
        measures.measure(UNIFORM, ["entrpy"])
    with pytest.raises(UserError, match="as many query as key frames"):
        measures.symmetry(np.ones((2, 3)))
    with pytest.raises(UserError, match="4 times are given for maps of 6"):
        measures.distance(UNIFORM, np.arange(4))
    with pytest.raises(UserError, match="the template is"):
        measures.template_score(UNIFORM, np.ones((2, 2)))
    with pytest.raises(UserError, match="two dimensions"):
        measures.entropy(np.ones(3))
