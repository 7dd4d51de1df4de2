"""W, B, Δ and their tests against loops over pairs, SciPy, statsmodels and seeded null data."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from statsmodels.stats.multitest import multipletests

from tssan_viz.comparison.comparison import Accuracy
from tssan_viz.comparison.statistics import (
    Design,
    Gram,
    estimate,
    false_discovery_rate,
    gram_matrix,
    hedges_g,
    jackknife_interval,
    make_design,
    null_deltas,
    p_values,
    t_quantile,
)


class Cells:
    """Random unit-vector means of every (subject, class), some missing."""

    def __init__(
        self,
        subjects: int = 5,
        classes: int = 4,
        heads: int = 3,
        segments: int = 2,
        length: int = 6,
        seed: int = 0,
        missing: float = 0.0,
        missing_segments: float = 0.0,
        planted: float = 0.0,
        subject_effect: float = 0.5,
    ) -> None:
        rng = np.random.default_rng(seed)
        shape = (subjects, classes, heads, segments, length)
        units = rng.normal(size=shape)
        units += subject_effect * rng.normal(size=(subjects, 1, heads, segments, length))
        units[:, 0, 0] += planted * rng.normal(size=(segments, length))
        units /= np.linalg.norm(units, axis=-1, keepdims=True)
        keep = rng.random((subjects, classes)) >= missing
        keep[:3, 0] = True
        keep[:, -1] |= ~keep.any(axis=1)
        self.subject, self.label = np.nonzero(keep)
        self.units = units[keep].astype(np.float32)
        self.present = rng.random((keep.sum(), heads, segments)) >= missing_segments
        self.units[~self.present] = 0

    def gram(self) -> Gram:
        return gram_matrix(self.units, self.present)

    def design(self, label: int = 0, **options: object) -> Design:
        return make_design(self.subject, self.label == label, **options)  # type: ignore[arg-type]

    def only(self, *labels: int) -> Cells:
        keep = np.isin(self.label, labels)
        part = object.__new__(Cells)
        part.subject, part.label = self.subject[keep], self.label[keep]
        part.units, part.present = self.units[keep], self.present[keep]
        return part

    def similarity(self, a: int, b: int, head: int) -> float:
        """Mean over the segments that both cells have, in float64; NaN without one."""
        both = self.present[a, head] & self.present[b, head]
        if not both.any():
            return np.nan
        x, y = self.units[a, head].astype(float), self.units[b, head].astype(float)
        return float((x * y).sum(axis=-1)[both].mean())

    def pairs(self, head: int, label: int, other: set[int], label_of: np.ndarray) -> list[float]:
        found = [
            self.similarity(a, b, head)
            for a, b in product(range(len(self.subject)), repeat=2)
            if self.subject[a] != self.subject[b] and label_of[a] == label and label_of[b] in other
        ]
        return [value for value in found if not np.isnan(value)]

    def brute(self, head: int, label: int = 0, label_of: np.ndarray | None = None) -> np.ndarray:
        """W and B by the definition: a loop over all pairs of cells."""
        labels = self.label if label_of is None else label_of
        rest = set(range(labels.max() + 1)) - {label}
        within = self.pairs(head, label, {label}, labels)
        return np.array([np.mean(within), np.mean(self.pairs(head, label, rest, labels))])


@pytest.mark.parametrize(("missing", "segments"), [(0, 0), (0.3, 0), (0.2, 0.3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_w_b_and_delta_are_the_means_over_pairs(missing: float, segments: float, seed: int) -> None:
    cells = Cells(seed=seed, missing=missing, missing_segments=segments)
    found = estimate(cells.gram(), cells.design())
    for head in range(3):
        w, b = cells.brute(head)
        assert found.within[head] == pytest.approx(w, abs=1e-6)
        assert found.between[head] == pytest.approx(b, abs=1e-6)
        assert found.delta[head] == pytest.approx(w - b, abs=1e-6)


def test_two_classes_take_the_mean_of_both_within() -> None:
    cells = Cells(missing=0.3, missing_segments=0.2, seed=3).only(0, 2)
    found = estimate(cells.gram(), cells.design(two_classes=True))
    for head in range(3):
        first, between = cells.brute(head, 0)
        second, same = cells.brute(head, 2)
        assert between == pytest.approx(same)
        assert found.within[head] == pytest.approx((first + second) / 2, abs=1e-6)
        np.testing.assert_allclose(found.within_each[:, head], [first, second], atol=1e-6)
        assert found.between[head] == pytest.approx(between, abs=1e-6)


def test_two_complete_classes_are_a_sign_flip_test_of_differences() -> None:
    cells = Cells(subjects=6, classes=2, segments=1, seed=5)
    design = cells.design(two_classes=True)
    deltas = null_deltas(cells.gram(), design)
    assert design.enumerated
    assert len(deltas) == 2**6
    differences = (cells.units[cells.label == 0] - cells.units[cells.label == 1])[:, :, 0]
    for head in range(3):
        flipped = []
        for signs in product([1, -1], repeat=6):
            d = np.array(signs)[:, None] * differences[:, head].astype(float)
            products = d @ d.T
            flipped.append((products.sum() - np.trace(products)) / (6 * 5) / 2)
        np.testing.assert_allclose(np.sort(deltas[:, head]), np.sort(flipped), atol=1e-6)
        assert deltas[0, head] == pytest.approx(flipped[0], abs=1e-6)


def test_the_smallest_p_is_that_of_the_enumeration() -> None:
    for subjects, expected in ((5, 0.0625), (9, 0.00390625)):
        cells = Cells(subjects=subjects, classes=2)
        assert cells.design(two_classes=True).smallest_p == expected
    assert Cells(subjects=3, classes=4).design().smallest_p == 1 / 4**3
    assert Cells(subjects=8, classes=4).design(n_permutations=999).smallest_p == 1 / 1000
    alone = Cells(subjects=4, classes=1).design()
    assert (alone.smallest_p, alone.n_assignments) == (1, 1)


def test_a_perfect_difference_reaches_the_smallest_p() -> None:
    first, second = np.eye(4, dtype=np.float32)[:2]
    units = np.stack([first, second] * 5)[:, None, None]
    subject, of_class = np.repeat(np.arange(5), 2), np.tile([True, False], 5)
    design = make_design(subject, of_class, two_classes=True)
    found = p_values(null_deltas(gram_matrix(units, np.ones((10, 1, 1), bool)), design))
    assert found.p[0] == found.p_max_t[0] == design.smallest_p == 0.0625


@pytest.mark.parametrize(("missing", "segments"), [(0, 0), (0.3, 0), (0.2, 0.3)])
def test_every_assignment_is_the_definition_on_exchanged_labels(
    missing: float, segments: float
) -> None:
    cells = Cells(subjects=4, missing=missing, missing_segments=segments, seed=2)
    gram, design = cells.gram(), cells.design()
    deltas = null_deltas(gram, design)
    np.testing.assert_allclose(deltas[0], estimate(gram, design).delta, atol=1e-9)
    for row in np.random.default_rng(0).integers(0, len(deltas), 12):
        labels = cells.label.copy()
        for own, played in zip(design.played[0][0], design.played[0][row], strict=True):
            labels[own], labels[played] = labels[played], labels[own]
        w, b = cells.brute(1, label_of=labels)
        assert deltas[row, 1] == pytest.approx(w - b, abs=1e-6)


def test_every_assignment_of_two_classes_is_the_definition_on_exchanged_labels() -> None:
    cells = Cells(subjects=6, missing=0.3, missing_segments=0.2, seed=7).only(0, 1)
    gram, design = cells.gram(), cells.design(two_classes=True)
    deltas = null_deltas(gram, design)
    np.testing.assert_allclose(deltas[0], estimate(gram, design).delta, atol=1e-9)
    both = set(cells.subject[cells.label == 0]) & set(cells.subject[cells.label == 1])
    assert len(deltas) == 2 ** len(both)
    for row in range(len(deltas)):
        labels = np.empty_like(cells.label)
        labels[design.played[0][row]] = 0
        labels[design.played[1][row]] = 1
        first, between = cells.brute(2, 0, label_of=labels)
        second, _ = cells.brute(2, 1, label_of=labels)
        assert deltas[row, 2] == pytest.approx((first + second) / 2 - between, abs=1e-6)


def test_p_is_scipys_permutation_test_when_all_is_enumerated() -> None:
    cells = Cells(subjects=5, classes=2, segments=1, length=3, planted=0.6, seed=11)
    found = p_values(null_deltas(cells.gram(), cells.design(two_classes=True)))
    index = np.arange(5.0)

    def delta_of(head: int, first: np.ndarray, second: np.ndarray) -> float:
        # The samples are cell numbers, which SciPy exchanges within each pair.
        a, b = (cells.units[x.astype(int), head, 0].astype(float) for x in (first, second))
        off = ~np.eye(5, dtype=bool)
        within = ((a @ a.T)[off].mean() + (b @ b.T)[off].mean()) / 2
        return float(within - (a @ b.T)[off].mean())

    for head in range(3):
        result = stats.permutation_test(
            (2 * index, 2 * index + 1),
            lambda x, y, head=head: delta_of(head, x, y),
            permutation_type="samples",
            alternative="greater",
            n_resamples=np.inf,
        )
        assert found.p[head] == pytest.approx(result.pvalue)


def test_sampling_tends_to_the_enumeration() -> None:
    cells = Cells(subjects=5, classes=4, planted=0.6, seed=4)
    gram = cells.gram()
    full = cells.design(n_permutations=4**5)
    part = cells.design(n_permutations=4**5 - 1, seed=3)
    assert full.enumerated
    assert not part.enumerated
    assert part.n_drawn == 4**5 - 1
    many = make_design(cells.subject, cells.label == 0, n_permutations=4**5 - 1, seed=1)
    exact = p_values(null_deltas(gram, full))
    drawn = [
        p_values(null_deltas(gram, cells.design(n_permutations=1000, seed=seed)))
        for seed in range(20)
    ]
    assert len(null_deltas(gram, many)) == 4**5
    np.testing.assert_allclose(np.mean([d.p for d in drawn], axis=0), exact.p, atol=0.012)
    np.testing.assert_allclose(
        np.mean([d.p_max_t for d in drawn], axis=0), exact.p_max_t, atol=0.02
    )


def test_drawn_p_counts_the_observed_one() -> None:
    deltas = np.array([[3.0], [1.0], [2.0], [3.0], [4.0]])
    found = p_values(deltas)
    assert found.p[0] == (2 + 1) / (4 + 1)


def test_max_t_and_q_by_hand() -> None:
    rng = np.random.default_rng(8)
    deltas = rng.normal(size=(400, 6)) * np.array([1, 10, 0.1, 1, 1, 1])
    deltas[0, :2] = deltas[:, :2].max(axis=0) * 1.1
    found = p_values(deltas)
    t = (deltas - deltas.mean(axis=0)) / deltas.std(axis=0)
    largest = t.max(axis=1)
    expected = [(largest >= t[0, head]).sum() / 400 for head in range(6)]
    np.testing.assert_allclose(found.p_max_t, expected)
    np.testing.assert_allclose(found.q, multipletests(found.p, method="fdr_bh")[1])
    assert (found.p_max_t >= found.p).all()


@given(
    p=st.lists(st.sampled_from([0.0001, 0.001, 0.01, 0.02, 0.2, 0.5, 1.0]), min_size=1, max_size=9),
    df=st.integers(1, 40),
    probability=st.floats(0.5, 0.9999),
)
def test_what_scipy_and_statsmodels_say(p: list[float], df: int, probability: float) -> None:
    q = false_discovery_rate(np.array(p))
    np.testing.assert_allclose(q, multipletests(p, method="fdr_bh")[1], rtol=1e-12)
    expected = stats.t.ppf(probability, df)
    assert t_quantile(probability, df) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("right", "videos"), [(0, 5), (1, 30), (6, 30), (7, 30), (30, 30)])
def test_chance_is_the_binomial_test(right: int, videos: int) -> None:
    p = stats.binomtest(right, videos, 1 / 8, "greater").pvalue
    assert Accuracy(right, videos, 8).at_chance == (p > 0.05)


def test_a_head_that_nothing_moves_is_never_significant() -> None:
    units = np.full((12, 2, 1, 9), 1 / 3, dtype=np.float32)
    rng = np.random.default_rng(0)
    units[:, 1] = rng.random((12, 1, 9))
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    subject, of_class = np.repeat(np.arange(4), 3), np.tile([True, False, False], 4)
    found = p_values(
        null_deltas(gram_matrix(units, np.ones((12, 2, 1), bool)), make_design(subject, of_class))
    )
    assert found.p[0] == found.p_max_t[0] == 1


def test_heads_without_pairs_are_not_tested() -> None:
    cells = Cells(subjects=4, classes=3, heads=2)
    cells.present[:, 1] = False
    cells.units[:, 1] = 0
    gram, design = cells.gram(), cells.design()
    found = estimate(gram, design)
    assert np.isnan([found.within[1], found.delta[1], found.hedges_g[1]]).all()
    tested = p_values(null_deltas(gram, design))
    assert np.isnan([tested.p[1], tested.p_max_t[1], tested.q[1]]).all()
    assert tested.p[0] == tested.p_max_t[0] == tested.q[0]


def test_the_jackknife_is_recomputation_without_each_subject() -> None:
    for two_classes in (False, True):
        cells = Cells(subjects=8, classes=3, missing=0.2, seed=9)
        if two_classes:
            cells = cells.only(0, 1)
        found = estimate(cells.gram(), cells.design(two_classes=two_classes), alpha=0.1)
        n = int((cells.label == 0).sum())
        for head in range(3):
            left = []
            for s in np.unique(cells.subject):
                part = object.__new__(Cells)
                keep = cells.subject != s
                part.subject, part.label = cells.subject[keep], cells.label[keep]
                part.units, part.present = cells.units[keep], cells.present[keep]
                w, b = part.brute(head)
                if two_classes:
                    w = (w + part.brute(head, 1)[0]) / 2
                left.append(w - b)
            m = len(left)
            error = np.sqrt((m - 1) / m * np.sum((np.array(left) - np.mean(left)) ** 2))
            half = stats.t.ppf(0.95, n - 1) * error
            assert found.low[head] == pytest.approx(found.delta[head] - half, abs=1e-5)
            assert found.high[head] == pytest.approx(found.delta[head] + half, abs=1e-5)


def test_no_interval_under_six_subjects() -> None:
    for subjects, there in ((5, False), (6, True)):
        cells = Cells(subjects=subjects)
        found = estimate(cells.gram(), cells.design())
        assert np.isfinite(found.low).all() == there
        assert np.isfinite(found.high).all() == there
    values = np.zeros((6, 1))
    assert jackknife_interval(np.zeros(1), values, 6)[0] == 0


def test_hedges_g_of_per_subject_differences() -> None:
    cells = Cells(subjects=7, classes=3, seed=6)
    found = estimate(cells.gram(), cells.design())
    values = []
    for s in range(7):
        mine = np.flatnonzero((cells.subject == s) & (cells.label == 0))[0]
        others = np.flatnonzero(cells.subject != s)
        w = np.mean([cells.similarity(mine, b, 1) for b in others if cells.label[b] == 0])
        b = np.mean([cells.similarity(mine, b, 1) for b in others if cells.label[b] != 0])
        values.append(w - b)
    exact = stats.norm.fit(values)[0] / np.std(values, ddof=1)
    # Hedges' exact correction for 6 degrees of freedom, from the table of his paper.
    assert found.hedges_g[1] == pytest.approx(exact * 0.8686, rel=1e-3)
    assert np.isnan(hedges_g(np.ones((2, 1)))).all()
    assert np.isnan(hedges_g(np.full((5, 1), 0.25))).all()


def test_dot_products_are_cdist() -> None:
    cells = Cells(segments=1)
    gram = cells.gram()
    assert (gram.values == gram.values.transpose(1, 0, 2)).all()
    for head in range(3):
        flat = cells.units[:, head, 0]
        np.testing.assert_allclose(
            gram.values[:, :, head], 1 - cdist(flat, flat, "cosine"), atol=1e-6
        )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    subjects=st.integers(3, 8),
    classes=st.integers(2, 5),
    two_classes=st.booleans(),
    missing=st.sampled_from([0.0, 0.3]),
)
def test_names_of_subjects_and_classes_do_not_matter(
    seed: int, subjects: int, classes: int, two_classes: bool, missing: float
) -> None:
    cells = Cells(subjects, classes, heads=2, seed=seed, missing=missing)
    if two_classes:
        cells = cells.only(0, 1)
    before = estimate(cells.gram(), cells.design(two_classes=two_classes))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cells.subject))
    names = rng.permutation(cells.subject.max() + 1)
    cells.subject, cells.label = names[cells.subject[order]], cells.label[order]
    cells.units, cells.present = cells.units[order], cells.present[order]
    after = estimate(cells.gram(), cells.design(two_classes=two_classes))
    for field in ("within", "between", "delta", "hedges_g", "low", "high"):
        np.testing.assert_allclose(
            getattr(after, field), getattr(before, field), atol=2e-5, rtol=1e-4
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), subjects=st.integers(2, 5), classes=st.integers(2, 4))
def test_p_values_lie_between_the_smallest_and_one(seed: int, subjects: int, classes: int) -> None:
    cells = Cells(subjects, classes, heads=2, seed=seed)
    design = cells.design(n_permutations=200, seed=seed)
    found = p_values(null_deltas(cells.gram(), design))
    for values in (found.p, found.p_max_t):
        assert (values >= design.smallest_p - 1e-12).all()
        assert (values <= 1).all()
    assert (found.p_max_t >= found.p - 1e-12).all()
    assert (found.q >= found.p - 1e-12).all()


def rejections(n_sets: int, *, two_classes: bool, subjects: int, classes: int) -> tuple[int, int]:
    """Count data sets without a class effect in which a head and the whole are rejected at 0.05."""
    heads = any_head = 0
    for seed in range(n_sets):
        cells = Cells(subjects, classes, heads=4, segments=1, seed=seed, subject_effect=1.0)
        design = cells.design(two_classes=two_classes, n_permutations=199, seed=seed)
        found = p_values(null_deltas(cells.gram(), design))
        heads += found.p[0] <= 0.05
        any_head += found.p_max_t.min() <= 0.05
    return heads, any_head


DESIGNS = [
    pytest.param({"two_classes": False, "subjects": 6, "classes": 5}, id="class against the rest"),
    pytest.param({"two_classes": False, "subjects": 3, "classes": 4}, id="three subjects"),
    pytest.param({"two_classes": True, "subjects": 8, "classes": 2}, id="two classes"),
]


@pytest.mark.parametrize("design", DESIGNS)
def test_null_data_are_rejected_as_often_as_stated(design: dict) -> None:
    for count in rejections(1500, **design):
        assert 0.03 <= count / 1500 <= 0.07


def test_a_planted_class_is_found_in_its_head_only() -> None:
    cells = Cells(subjects=8, classes=5, heads=4, planted=2.0, length=20, seed=1)
    found = p_values(null_deltas(cells.gram(), cells.design(n_permutations=2000)))
    assert found.p_max_t[0] <= 0.001
    assert (found.p_max_t[1:] > 0.05).all()
