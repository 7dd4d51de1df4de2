"""Δ between groups and its exchange against loops, SciPy, and seeded data with and without one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.comparison.test_statistics import Cells
from tssan_viz.comparison.contrasts import estimate_groups, group_deltas
from tssan_viz.comparison.group_cells import GroupCells
from tssan_viz.comparison.group_exchange import design_groups, in_the_same_classes
from tssan_viz.comparison.statistics import (
    Estimates,
    estimate,
    gram_matrix,
    make_design,
    null_deltas,
    p_values,
)


def make_cells(
    subjects: int = 6,
    classes: int = 3,
    groups: int = 2,
    *,
    between_subjects: bool = False,
    heads: int = 2,
    length: int = 6,
    missing: float = 0.0,
    subject_effect: float = 0.5,
    class_effect: float = 0.5,
    person_by_group: float = 0.0,
    planted: float = 0.0,
    truth: np.ndarray | None = None,
    confused: bool = False,
    untangled: bool = False,
    seed: int = 0,
) -> GroupCells:
    """Cells with an imprint of subject, class, subject × group and, planted in head 0, group.

    `confused` leaves out cells as a network does: each class is taken for itself most often.
    `untangled` keeps what is left for an exchange among groups of the same classes.
    """
    rng = np.random.default_rng(seed)
    subject, label, group = (x.reshape(-1) for x in np.indices((subjects, classes, groups)))
    if between_subjects:
        keep = group == subject % groups
        subject, label, group = subject[keep], label[keep], group[keep]
    keep = rng.random(len(subject)) >= missing
    subject, label, group = subject[keep], label[keep], group[keep]
    if confused:
        keep = rng.random(len(subject)) < np.where(group == label % groups, 0.9, 0.35)
        subject, label, group = subject[keep], label[keep], group[keep]
    if untangled:
        keep = in_the_same_classes(subject, label, group)
        subject, label, group = subject[keep], label[keep], group[keep]
    shape = (heads, 1, length)
    units = rng.normal(size=(len(subject), *shape))
    units += class_effect * rng.normal(size=(classes, *shape))[label]
    units += subject_effect * rng.normal(size=(subjects, *shape))[subject]
    if person_by_group:
        units += person_by_group * rng.normal(size=(subjects, groups, *shape))[subject, group]
    imprint = rng.normal(size=(groups, length)) if truth is None else truth
    units[:, 0, 0] += planted * imprint[group]
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    present = np.ones(units.shape[:3], bool)
    return GroupCells.of(units.astype(np.float32), present, subject, label, group, groups)


def brute_force(cells: GroupCells, head: int, group: np.ndarray) -> tuple[float, float]:
    """W and B by loops over classes, groups and pairs of cells."""
    within, between = [], []
    for members, gram in cells.blocks:
        found: dict[tuple[int, int], list[float]] = {}
        for i, j in product(range(len(members)), repeat=2):
            a, b = members[i], members[j]
            if cells.subject[a] != cells.subject[b]:
                key = tuple(sorted((int(group[a]), int(group[b]))))
                found.setdefault(key, []).append(float(gram.values[i, j, head]))  # type: ignore[arg-type]
        same = [np.mean(values) for (a, b), values in found.items() if a == b]
        apart = [np.mean(values) for (a, b), values in found.items() if a != b]
        if same and apart:
            within.append(np.mean(same))
            between.append(np.mean(apart))
    return float(np.mean(within)), float(np.mean(between))


CASES = [
    pytest.param({}, "within", id="two groups"),
    pytest.param({"groups": 3, "missing": 0.2}, "within", id="three groups with holes"),
    pytest.param({"between_subjects": True}, "subjects", id="groups of subjects"),
    pytest.param(
        {"between_subjects": True, "subjects": 7, "groups": 3, "missing": 0.1},
        "subjects",
        id="unequal groups of subjects",
    ),
    pytest.param({"missing": 0.1}, "within", id="two groups with holes"),
    pytest.param({"groups": 3, "missing": 0.2}, "alike", id="groups of the same classes"),
    pytest.param(
        {"classes": 4, "groups": 4, "confused": True, "untangled": True},
        "alike",
        id="what is predicted",
    ),
]


@pytest.mark.parametrize(("options", "exchange"), CASES)
def test_every_assignment_is_the_definition_on_exchanged_groups(
    options: dict, exchange: str
) -> None:
    cells = make_cells(**options, seed=3)
    found = estimate_groups(cells, exchange)
    within, between = brute_force(cells, 1, cells.group)
    assert found.within[1] == pytest.approx(within, abs=1e-6)
    assert found.between[1] == pytest.approx(between, abs=1e-6)
    assert found.delta[1] == pytest.approx(within - between, abs=1e-6)
    design = design_groups(cells, exchange, n_permutations=500)
    deltas = group_deltas(cells, design)
    np.testing.assert_array_equal(design.groups[0], cells.group)
    np.testing.assert_allclose(deltas[0], found.delta, atol=1e-9)
    for row in range(1, len(design.groups), max(1, len(design.groups) // 10)):
        within, between = brute_force(cells, 0, design.groups[row])
        assert deltas[row, 0] == pytest.approx(within - between, abs=1e-6)


def test_a_group_that_lacks_a_class_is_not_taken_for_alike() -> None:
    # Maps of class 0 are alike whoever does it; the second group has no other class.
    rng = np.random.default_rng(0)
    subject, label, group = (x.reshape(-1) for x in np.indices((8, 2, 2)))
    keep = (label == 0) | (group == 0) | (subject < 2)
    subject, label, group = subject[keep], label[keep], group[keep]
    units = rng.normal(size=(len(subject), 1, 1, 4000))
    units[label == 0] += 3
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    present = np.ones(units.shape[:3], bool)
    cells = GroupCells.of(units.astype(np.float32), present, subject, label, group, 2)
    found = estimate_groups(cells, "within")
    assert abs(found.delta[0]) < 0.1
    deltas = group_deltas(cells, design_groups(cells, "within", n_permutations=200))
    assert abs(deltas[1:].mean()) < 0.05


@pytest.mark.parametrize("draws", [10, 100_000])
def test_exchanges_move_what_they_may_and_nothing_else(draws: int) -> None:
    cells = make_cells(4, 2, 2, seed=1)
    within = design_groups(cells, "within", n_permutations=draws).groups
    for s, c in product(range(4), range(2)):
        block = within[:, (cells.subject == s) & (cells.label == c)]
        assert (np.sort(block, axis=1) == [0, 1]).all()
    moved = within != cells.group
    for s in range(4):
        mine = moved[:, cells.subject == s]
        assert (mine == mine[:, :1]).all()
    assert moved.any(axis=0).all()
    # Classes 0 and 1 are taken for 0 or 1, class 2 for 2 or 3: it moves by itself.
    third = make_cells(4, 3, 2, seed=1)
    group = third.group + 2 * (third.label == 2)
    other = replace(third, group=group, n_groups=4)
    alike = design_groups(other, "alike", n_permutations=draws)
    assert alike.n_assignments == 2**8
    for s in range(4):
        mine = (alike.groups != group)[:, third.subject == s]
        together = mine[:, third.label[third.subject == s] < 2]
        assert (together == together[:, :1]).all()
        assert (together[:, 0] != mine[:, third.label[third.subject == s] == 2][:, 0]).any()
    apart = make_cells(6, 2, 2, between_subjects=True)
    whole = design_groups(apart, "subjects", n_permutations=draws).groups
    for s in range(6):
        mine = whole[:, apart.subject == s]
        assert (mine == mine[:, :1]).all()
    assert (whole.sum(axis=1) == apart.group.sum()).all()


@settings(max_examples=60, deadline=None)
@given(
    there=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)),
        min_size=1,
        max_size=40,
        unique=True,
    )
)
def test_groups_that_are_exchanged_are_in_the_same_classes(
    there: list[tuple[int, int, int]],
) -> None:
    cells = np.array(there)
    kept = cells[in_the_same_classes(*cells.T)]
    classes: dict[tuple[int, int], set[int]] = {}
    for s, c, g in kept.tolist():
        classes.setdefault((s, g), set()).add(c)
    for (s, g), mine in classes.items():
        assert any(mine == other for (t, h), other in classes.items() if t == s and h != g)
    # Whole subjects stay whole, where any other has the same.
    whole = np.stack([x.reshape(-1) for x in np.indices((3, 4, 2))], axis=1)
    assert in_the_same_classes(*whole.T).all()


def test_of_tangled_groups_the_cells_that_others_have_too_are_kept() -> None:
    # Both have 0 and 1 in class 0; the first also 1 in class 1, beside 2.
    cells = np.array([(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2), (1, 0, 0), (1, 0, 1)])
    kept = cells[in_the_same_classes(*cells.T)]
    assert kept.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]


def test_the_number_of_exchanges_and_the_smallest_p() -> None:
    pairs = make_cells(3, 2, 2)
    for exchange in ("within", "alike"):
        design = design_groups(pairs, exchange)
        assert (design.n_assignments, len(design.groups)) == (2**3, 2**3)
        assert design.smallest_p == 2 / 2**3
        assert len(np.unique(design.groups, axis=0)) == 2**3
    cameras = design_groups(make_cells(4, 2, 3), "within")
    assert (cameras.n_assignments, cameras.smallest_p) == (6**4, 6 / 6**4)
    assert len(np.unique(cameras.groups, axis=0)) == 6**4
    three = design_groups(make_cells(6, 2, 3, between_subjects=True), "subjects")
    assert (three.n_assignments, three.smallest_p) == (90, 6 / 90)
    assert len(np.unique(three.groups, axis=0)) == 90
    equal = design_groups(make_cells(8, 2, 2, between_subjects=True), "subjects")
    assert (equal.n_assignments, equal.smallest_p) == (math.comb(8, 4), 2 / math.comb(8, 4))
    assert len(np.unique(equal.groups, axis=0)) == math.comb(8, 4)
    unequal = design_groups(make_cells(7, 2, 2, between_subjects=True), "subjects")
    assert unequal.smallest_p == 1 / math.comb(7, 3)
    # Naming groups anew everywhere changes nothing: 0 with 1, and 2 with 3.
    twice = make_cells(2, 2, 2)
    apart = replace(twice, group=twice.group + 2 * twice.label, n_groups=4)
    design = design_groups(apart, "alike")
    assert (design.n_assignments, design.smallest_p) == (2**4, 4 / 2**4)
    deltas = group_deltas(apart, design)
    assert (np.abs(deltas - deltas[0]).max(axis=1) < 1e-6).sum() == 4
    drawn = design_groups(make_cells(9, 3, 2), "within", n_permutations=99)
    assert (drawn.enumerated, drawn.smallest_p, drawn.n_drawn) == (False, 1 / 100, 99)
    nothing = design_groups(pairs, None)
    assert (nothing.exchange, nothing.smallest_p, nothing.n_drawn) == (None, 1.0, 0)


def test_there_may_be_hundreds_of_groups() -> None:
    cells = make_cells(3, 200, 2)
    many = replace(cells, group=cells.group + 2 * cells.label, n_groups=400)
    design = design_groups(many, "alike", n_permutations=9)
    np.testing.assert_array_equal(design.groups[0], many.group)
    np.testing.assert_array_equal(design.groups[9] // 2, many.label)


def test_p_of_groups_of_subjects_is_scipys() -> None:
    cells = make_cells(8, 1, 2, between_subjects=True, planted=0.7, class_effect=0, seed=2)
    found = p_values(group_deltas(cells, design_groups(cells, "subjects")))
    ((members, gram),) = cells.blocks
    position = np.argsort(members)

    def delta(head: int, first: np.ndarray, second: np.ndarray) -> float:
        a, b = position[first.astype(int)], position[second.astype(int)]
        values = gram.values[:, :, head].astype(float)
        off = ~np.eye(len(a), dtype=bool)
        within = (values[np.ix_(a, a)][off].mean() + values[np.ix_(b, b)][off].mean()) / 2
        return float(within - values[np.ix_(a, b)].mean())

    samples = [np.flatnonzero(cells.group == g).astype(float) for g in (0, 1)]
    for head in range(2):
        result = stats.permutation_test(
            samples,
            lambda x, y, head=head: delta(head, x, y),
            permutation_type="independent",
            alternative="greater",
            n_resamples=np.inf,
        )
        assert found.p[head] == pytest.approx(result.pvalue)


@pytest.mark.parametrize("exchange", ["within", "subjects"])
def test_the_jackknife_is_recomputation_without_each_subject(exchange: str) -> None:
    cells = make_cells(8, 2, 2, between_subjects=exchange == "subjects", seed=5)
    found = estimate_groups(cells, exchange, alpha=0.1)
    left = []
    for s in range(8):
        part = cells.subject != s
        keep = np.flatnonzero(part)
        blocks = [
            (members[part[members]], gram_part(gram, part[members]))
            for members, gram in cells.blocks
        ]
        new = np.cumsum(part) - 1
        smaller = GroupCells(
            cells.subject[keep],
            cells.group[keep],
            cells.label[keep],
            [(new[members], gram) for members, gram in blocks],
            2,
            2,
        )
        within, between = brute_force(smaller, 0, smaller.group)
        left.append(within - between)
    values = np.array(left)
    if exchange == "within":
        error, df = np.sqrt(7 / 8 * ((values - values.mean()) ** 2).sum()), 7
    else:
        two = [values[np.arange(8) % 2 == g] for g in (0, 1)]
        error, df = np.sqrt(sum(3 / 4 * ((x - x.mean()) ** 2).sum() for x in two)), 6
    half = stats.t.ppf(0.95, df) * error
    assert found.low[0] == pytest.approx(found.delta[0] - half, abs=1e-5)
    assert found.high[0] == pytest.approx(found.delta[0] + half, abs=1e-5)
    few = estimate_groups(make_cells(5, 2, 2), "within")
    assert np.isnan(few.low).all()


def gram_part(gram: object, keep: np.ndarray) -> object:
    from tssan_viz.comparison.statistics import Gram

    assert isinstance(gram, Gram)
    return Gram(gram.values[np.ix_(keep, keep)], None)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    subjects=st.integers(2, 6),
    groups=st.integers(2, 3),
    missing=st.sampled_from([0.0, 0.3]),
)
def test_p_values_lie_between_the_smallest_and_one(
    seed: int, subjects: int, groups: int, missing: float
) -> None:
    cells = make_cells(subjects, 2, groups, seed=seed, missing=missing)
    if not len(cells.subject):
        return
    design = design_groups(cells, "within", n_permutations=100, seed=seed)
    found = p_values(group_deltas(cells, design))
    for values in (found.p, found.p_max_t):
        there = values[np.isfinite(values)]
        assert (there >= design.smallest_p - 1e-12).all()
        assert (there <= 1).all()


def rejections(n_sets: int, exchange: str, **options: object) -> tuple[float, float]:
    """How often a head, and any head, is rejected at 0.05 without an effect of groups."""
    head = any_head = 0
    for seed in range(n_sets):
        cells = make_cells(seed=seed, **options)  # type: ignore[arg-type]
        design = design_groups(cells, exchange, n_permutations=199, seed=seed)  # type: ignore[arg-type]
        found = p_values(group_deltas(cells, design))
        head += found.p[0] <= 0.05
        any_head += np.nanmin(found.p_max_t) <= 0.05
    return head / n_sets, any_head / n_sets


NULLS = [
    pytest.param("within", {"subjects": 6, "classes": 3, "groups": 3}, id="cameras"),
    pytest.param(
        "within", {"subjects": 8, "classes": 4, "groups": 2, "missing": 0.3}, id="unbalanced"
    ),
    pytest.param("within", {"subjects": 4, "classes": 3, "groups": 3}, id="few subjects"),
    pytest.param(
        "within",
        {"subjects": 6, "classes": 5, "groups": 3, "person_by_group": 1.0},
        id="each person looks different to each camera",
    ),
    pytest.param(
        "within",
        {"subjects": 8, "classes": 5, "groups": 3, "person_by_group": 1.0, "missing": 0.3},
        id="each person looks different to each camera, unbalanced",
    ),
    pytest.param(
        "within",
        {"subjects": 7, "classes": 4, "groups": 2, "person_by_group": 3.0},
        id="each person looks very different to each camera",
    ),
    pytest.param(
        "alike",
        {"subjects": 8, "classes": 5, "groups": 5, "confused": True},
        id="what is predicted",
    ),
    pytest.param(
        "alike",
        {"subjects": 7, "classes": 5, "groups": 5, "confused": True, "person_by_group": 1.0},
        id="what is predicted, and persons look different under each prediction",
    ),
    pytest.param(
        "alike",
        {"subjects": 8, "classes": 4, "groups": 3, "missing": 0.3, "person_by_group": 1.0},
        id="what is predicted, persons look different, unbalanced",
    ),
    pytest.param(
        "within",
        {"subjects": 8, "classes": 3, "groups": 2, "subject_effect": 2.0, "class_effect": 2.0},
        id="strong subjects",
    ),
    pytest.param(
        "subjects",
        {"subjects": 10, "classes": 4, "between_subjects": True, "subject_effect": 2.0},
        id="groups of subjects",
    ),
    pytest.param(
        "subjects",
        {"subjects": 9, "classes": 3, "groups": 2, "between_subjects": True, "missing": 0.2},
        id="unbalanced groups of subjects",
    ),
    pytest.param(
        "subjects", {"subjects": 7, "classes": 3, "between_subjects": True}, id="seven subjects"
    ),
    pytest.param("within", {"subjects": 8, "classes": 3, "subject_effect": 2.0}, id="steps"),
    pytest.param("within", {"subjects": 9, "classes": 2, "missing": 0.2}, id="unbalanced steps"),
]


@pytest.mark.parametrize(("exchange", "options"), NULLS)
def test_null_data_are_rejected_as_often_as_stated(exchange: str, options: dict) -> None:
    for rate in rejections(1000, exchange, untangled=exchange == "alike", **options):
        assert 0.03 <= rate <= 0.07


KINDS: dict[str, dict] = {
    "within": {"classes": 2, "groups": 2},
    "alike": {"classes": 4, "groups": 4, "confused": True, "untangled": True},
    "subjects": {"classes": 2, "groups": 2, "between_subjects": True},
}


def test_power_rises_with_effect_and_with_subjects_and_in_the_planted_head() -> None:
    def power(exchange: str, subjects: int, planted: float) -> tuple[float, float]:
        found = []
        for seed in range(80):
            cells = make_cells(
                subjects,
                **KINDS[exchange],
                heads=4,
                length=12,
                planted=planted,
                seed=seed,
            )
            design = design_groups(cells, exchange, n_permutations=199, seed=seed)
            found.append(p_values(group_deltas(cells, design)).p_max_t <= 0.05)
        return float(np.mean(found, axis=0)[0]), float(np.mean(found, axis=0)[1:].max())

    for exchange in KINDS:
        small, large = power(exchange, 8, 0.25)[0], power(exchange, 8, 0.8)[0]
        more = power(exchange, 16, 0.25)[0]
        assert small < large
        assert small < more
        assert large >= 0.8
        assert power(exchange, 8, 0.8)[1] <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("exchange", "subjects"), [("within", 10), ("within", 20)])
def test_intervals_cover(exchange: str, subjects: int) -> None:
    _covers(exchange, subjects)


@pytest.mark.slow
@pytest.mark.parametrize("subjects", [10, 20])
def test_intervals_of_groups_of_subjects_cover(subjects: int) -> None:
    _covers("subjects", subjects)


@pytest.mark.slow
@pytest.mark.parametrize("subjects", [10, 20])
def test_intervals_cover_where_each_person_looks_different_to_each_camera(subjects: int) -> None:
    _covers("within", subjects, person_by_group=1.0, classes=4)


def _covers(exchange: str, subjects: int, **further: object) -> None:
    truth = np.random.default_rng(9).normal(size=(2, 6))
    options = {"between_subjects": exchange == "subjects", "planted": 0.8, "truth": truth}
    options |= {"class_effect": 0.0, "classes": 2, "heads": 1, **further}
    many = make_cells(600, groups=2, seed=77_000, **options)  # type: ignore[arg-type]
    wanted = estimate_groups(many, None).delta[0]
    inside = 0
    for seed in range(1000):
        cells = make_cells(subjects, groups=2, seed=seed, **options)  # type: ignore[arg-type]
        found = estimate_groups(cells, exchange)  # type: ignore[arg-type]
        inside += found.low[0] <= wanted <= found.high[0]
    assert 0.93 <= inside / 1000 <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("subjects", [10, 20])
@pytest.mark.parametrize(("two_classes", "classes"), [(False, 4), (True, 2)])
def test_intervals_of_classes_cover(two_classes: bool, classes: int, subjects: int) -> None:
    truth = np.random.default_rng(5).normal(size=8)

    def delta(n: int, seed: int) -> Estimates:
        rng = np.random.default_rng(seed)
        units = rng.normal(size=(n, classes, 1, 1, 8)) + rng.normal(size=(n, 1, 1, 1, 8))
        units[:, 0, 0, 0] += truth
        units /= np.linalg.norm(units, axis=-1, keepdims=True)
        subject, label = (x.reshape(-1) for x in np.indices((n, classes)))
        flat = units.reshape(n * classes, 1, 1, 8).astype(np.float32)
        gram = gram_matrix(flat, np.ones((len(flat), 1, 1), bool))
        options = {"two_classes": two_classes, "n_permutations": 1}
        return estimate(gram, make_design(subject, label == 0, **options))  # type: ignore[arg-type]

    wanted = delta(700, 99).delta[0]
    found = [delta(subjects, seed) for seed in range(1000)]
    inside = np.mean([one.low[0] <= wanted <= one.high[0] for one in found])
    assert 0.93 <= inside <= 0.97


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"subjects": 8, "classes": 5, "missing": 0.3}, id="unbalanced"),
        pytest.param({"subjects": 6, "classes": 4, "subject_effect": 3.0}, id="strong subjects"),
        pytest.param(
            {"subjects": 9, "classes": 2, "two_classes": True, "subject_effect": 3.0},
            id="two classes, strong subjects",
        ),
        pytest.param(
            {"subjects": 10, "classes": 2, "two_classes": True, "missing": 0.2},
            id="two classes, unbalanced",
        ),
    ],
)
def test_null_classes_are_rejected_as_often_as_stated(options: dict) -> None:
    chosen = dict(options)
    two_classes = chosen.pop("two_classes", False)
    rejected = np.zeros(2)
    for seed in range(1000):
        cells = Cells(heads=4, segments=1, seed=seed, **chosen)
        design = cells.design(two_classes=two_classes, n_permutations=199, seed=seed)
        found = p_values(null_deltas(cells.gram(), design))
        rejected += [found.p[0] <= 0.05, np.nanmin(found.p_max_t) <= 0.05]
    assert (rejected / 1000 >= 0.03).all()
    assert (rejected / 1000 <= 0.07).all()


def test_power_for_a_class_rises_with_effect_and_with_subjects() -> None:
    def power(subjects: int, planted: float) -> float:
        found = []
        for seed in range(80):
            cells = Cells(subjects, 4, heads=4, length=12, planted=planted, seed=seed)
            design = cells.design(n_permutations=199, seed=seed)
            found.append(p_values(null_deltas(cells.gram(), design)).p_max_t[0] <= 0.05)
        return float(np.mean(found))

    assert power(6, 0.3) < power(6, 1.0)
    assert power(6, 0.5) < power(12, 0.5)
    assert power(12, 1.0) >= 0.9
