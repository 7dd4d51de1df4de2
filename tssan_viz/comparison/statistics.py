"""What a comparison rests on: two means over pairs of subjects, and the exchange that tests them.

Everything here works on the similarities of *cells*. A cell is one class of one subject: the mean
unit vector of its maps. The unit of every statement is the subject; samples never count as
independent. Axis letters: r cells (row of a Gram matrix), c cells (column), h heads, s subjects.

With ū_cs the cell of class c and subject s:

* W = mean over s ≠ s′ of ⟨ū_cs, ū_cs′⟩, the same class in two subjects;
* B = mean over s ≠ s′ and c′ ≠ c of ⟨ū_cs, ū_c′s′⟩, another class in another subject;
* Δ = W − B.

For two classes against each other W is the mean of the two classes' W, and B runs over the pairs
with one class on either side. When every subject has both, 2Δ is the mean over s ≠ s′ of
⟨d_s, d_s′⟩ with d_s the difference of the subject's two cells, so that exchanging the two labels
within a subject is a sign flip of d_s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special

MIN_SUBJECTS_FOR_INTERVAL = 6

# Deltas are tied when they differ by rounding only, and a head is still when nothing moves it.
_TIE = 1e-6
_STILL = 1e-7

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gram:
    """Similarities of all pairs of cells, for each head.

    Attributes
    ----------
    values : (r, c, h) float32
        Dot products of like segments, averaged over the segments that both cells have; 0 where
        they have none.
    counted : (r, c, h) bool or None
        Where a pair has a similarity; None when all have.
    """

    values: NDArray[np.float32]
    counted: NDArray[np.bool_] | None

    @property
    def weights(self) -> NDArray[np.float32]:
        """`counted` as numbers, all ones where no pair is missing: (r, c, h) or broadcast to it."""
        if self.counted is None:
            return np.broadcast_to(np.float32(1.0), self.values.shape)
        return self.counted.astype(np.float32)


def gram_matrix(units: NDArray[np.float32], present: NDArray[np.bool_]) -> Gram:
    """Compare every cell with every other, like segments with like, then the mean over segments.

    Parameters
    ----------
    units : (r, h, k, d) float32
        Mean unit vectors; zero where a cell has no map of a segment.
    present : (r, h, k) bool
        Where a cell has one.

    Returns
    -------
    Gram
        Exactly symmetric in its first two axes.
    """
    r, h, k, d = units.shape
    values = np.empty((r, r, h), dtype=np.float32)
    counted = None if present.all() else np.empty((r, r, h), dtype=bool)
    for head in range(h):
        flat = np.ascontiguousarray(units[:, head]).reshape(r, k * d)
        products = flat @ flat.T
        if counted is None:
            products /= k
        else:
            segments = present[:, head].astype(np.float32)
            shared = segments @ segments.T
            products /= np.maximum(shared, 1.0)
            counted[:, :, head] = shared > 0
        values[:, :, head] = products
    return Gram(values, counted)


@dataclass(frozen=True, eq=False)
class Design:
    """Which cells are the class's, and the exchanges that a test compares them with.

    Made by `make_design`.

    Attributes
    ----------
    subject : (r,) int
        The subject of each cell, counted from 0.
    of_class : (r,) bool
        Whether the cell is one of the class; all others are the rest, or the other class.
    two_classes : bool
        Class against class (labels exchanged within subject) instead of class against the rest.
    played : tuple of (assignments, n) int
        For each assignment (the observed one first) the cell of each subject that plays the
        class; for two classes also the cells that play the other one.
    enumerated : bool
        All assignments stand in `played`, instead of the observed one and a seeded sample.
    n_assignments : int
        How many there are in all.
    smallest_p : float
        The smallest p-value that the design can give; 1 when nothing can be exchanged.
    """

    subject: NDArray[np.intp]
    of_class: NDArray[np.bool_]
    two_classes: bool
    played: tuple[NDArray[np.intp], ...]
    enumerated: bool
    n_assignments: int
    smallest_p: float

    @property
    def n_subjects(self) -> int:
        """Subjects that have the class."""
        return int(self.of_class.sum())

    @property
    def n_drawn(self) -> int:
        """Assignments that the test compares with the observed one, itself not among them."""
        return len(self.played[0]) - 1


def make_design(
    subject: NDArray[np.intp],
    of_class: NDArray[np.bool_],
    *,
    two_classes: bool = False,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> Design:
    """Lay out the test: class means are exchanged within each subject, and nowhere else.

    Against the rest, the statistic depends only on which cell of each subject plays the class, so
    an assignment is one cell per subject. For two classes it is one bit per subject that has both.
    All assignments are enumerated when there are no more of them than `n_permutations`.

    Parameters
    ----------
    subject : (r,) int
        The subject of each cell, counted from 0.
    of_class : (r,) bool
        Cells of the class, at most one per subject.
    two_classes
        The remaining cells are all of one other class.
    n_permutations
        How many assignments to draw (with replacement, each subject's cells equally likely) when
        there are too many to enumerate.
    seed
        Of the draw.

    Returns
    -------
    Design
    """
    own = np.flatnonzero(of_class)
    rest = np.flatnonzero(~of_class)
    if two_classes:
        own_of = {int(subject[r]): r for r in own}
        rest_of = {int(subject[r]): r for r in rest}
        both = [s for s in own_of if s in rest_of]
        bits, enumerated, total = list_or_draw([2] * len(both), n_permutations, seed)
        first = np.tile(own, (len(bits), 1))
        second = np.tile(rest, (len(bits), 1))
        for column, s in enumerate(both):
            pair = np.array([own_of[s], rest_of[s]])
            first[:, list(own_of).index(s)] = pair[bits[:, column]]
            second[:, list(rest_of).index(s)] = pair[1 - bits[:, column]]
        played: tuple[NDArray[np.intp], ...] = (first, second)
        # With both classes in every subject, exchanging all labels at once changes nothing.
        mirrored = len(both) == len(own_of) == len(rest_of)
        ties = 2 if mirrored and total > 1 else 1
    else:
        choices = [np.concatenate([[r], rest[subject[rest] == subject[r]]]) for r in own]
        table, enumerated, total = list_or_draw([len(c) for c in choices], n_permutations, seed)
        columns = [cells[table[:, i]] for i, cells in enumerate(choices)]
        played = (np.stack(columns, axis=1) if columns else np.empty((1, 0), dtype=np.intp),)
        ties = 1
    return Design(
        subject=np.asarray(subject, dtype=np.intp),
        of_class=np.asarray(of_class, dtype=bool),
        two_classes=two_classes,
        played=played,
        enumerated=enumerated,
        n_assignments=total,
        smallest_p=ties / total if enumerated else 1 / len(played[0]),
    )


def list_or_draw(
    sizes: Sequence[int], n_permutations: int, seed: int
) -> tuple[NDArray[np.intp], bool, int]:
    """Choose one of so many (n,) again and again: all ways if there are few, else a seeded sample.

    Returns
    -------
    choices : (p, n) int
        The observed one (zeros) first.
    enumerated : bool
        Whether these are all.
    total : int
        How many there are in all.
    """
    total = math.prod(sizes)
    if total <= max(n_permutations, 1):
        table = np.indices(sizes, dtype=np.intp).reshape(len(sizes), total).T
        return table, True, total
    drawn = np.random.default_rng(seed).integers(0, sizes, size=(n_permutations, len(sizes)))
    return np.concatenate([np.zeros((1, len(sizes)), dtype=np.intp), drawn]), False, total


@dataclass(frozen=True, eq=False)
class Estimates:
    """The numbers of a comparison, one per head: each (h,) float64, NaN where not defined.

    Attributes
    ----------
    within, between, delta
        W, B and Δ = W − B.
    within_each : (1 or 2, h)
        W of the class; for two classes, of each of them.
    hedges_g
        See `hedges_g`.
    low, high
        See `jackknife_interval`.
    """

    within: Floats
    between: Floats
    delta: Floats
    within_each: Floats
    hedges_g: Floats
    low: Floats
    high: Floats


def estimate(gram: Gram, design: Design, *, alpha: float = 0.05) -> Estimates:
    """Compute W, B, Δ, effect size and interval of the observed classes.

    Parameters
    ----------
    gram
        Similarities of the cells.
    design
        Which cells are the class's.
    alpha
        The interval covers 1 − alpha.
    """
    pairs = _SubjectPairs.of(gram, design)
    within_each, between = pairs.means()
    within = within_each.mean(axis=0)
    low, high = jackknife_interval(
        within - between, pairs.deltas_without_each(), design.n_subjects, alpha=alpha
    )
    return Estimates(
        within=within,
        between=between,
        delta=within - between,
        within_each=within_each,
        hedges_g=hedges_g(pairs.delta_of_each()),
        low=low,
        high=high,
    )


@dataclass(frozen=True, eq=False)
class _SubjectPairs:
    """Sums and counts of similarities for each ordered pair of subjects, none with itself.

    within_sum, within_count: (w, s, s, h), w the class (and the other of two);
    between_sum, between_count: (s, s, h), the class's cell of the first subject with the other
    cells of the second.
    """

    within_sum: Floats
    within_count: Floats
    between_sum: Floats
    between_count: Floats

    @classmethod
    def of(cls, gram: Gram, design: Design) -> _SubjectPairs:
        own, rest = design.of_class, ~design.of_class
        sides = (own, rest) if design.two_classes else (own,)

        def total(first: NDArray, second: NDArray) -> Floats:
            return _by_subjects(gram.values, design.subject, first, second)

        def count(first: NDArray, second: NDArray) -> Floats:
            if gram.counted is not None:
                return _by_subjects(gram.weights, design.subject, first, second)
            return _pairs_of_subjects(design.subject, first, second, gram.values.shape[2])

        return cls(
            within_sum=np.stack([total(side, side) for side in sides]),
            within_count=np.stack([count(side, side) for side in sides]),
            between_sum=total(own, rest),
            between_count=count(own, rest),
        )

    def means(self) -> tuple[Floats, Floats]:
        """W of each class (w, h) and B (h,)."""
        within = ratio(self.within_sum.sum((1, 2)), self.within_count.sum((1, 2)))
        return within, ratio(self.between_sum.sum((0, 1)), self.between_count.sum((0, 1)))

    def deltas_without_each(self) -> Floats:
        """Δ with each subject left out in turn: (s, h), NaN for subjects that are in no pair."""
        within = ratio(
            without_each_subject(self.within_sum), without_each_subject(self.within_count)
        ).mean(axis=0)
        between = ratio(
            without_each_subject(self.between_sum), without_each_subject(self.between_count)
        )
        taking_part = self.between_count.sum((0, 2)) + self.between_count.sum((1, 2)) > 0
        return np.where(taking_part[:, None], within - between, np.nan)

    def delta_of_each(self) -> Floats:
        """W_s − B_s over the pairs of one subject with all others: (s, h), NaN where none."""
        within = ratio(self.within_sum.sum(2), self.within_count.sum(2))
        if len(within) == 1:
            between = ratio(self.between_sum.sum(1), self.between_count.sum(1))
            return within[0] - between
        both_ways = ratio(
            self.between_sum.sum(1) + self.between_sum.sum(0),
            self.between_count.sum(1) + self.between_count.sum(0),
        )
        return within.mean(axis=0) - both_ways


def _by_subjects(
    values: NDArray[np.float32], subject: NDArray[np.intp], first: NDArray, second: NDArray
) -> Floats:
    """Sum (r, c, h) over the cells of each pair of different subjects: (s, s, h)."""
    n = int(subject.max()) + 1
    of_subject = subject[:, None] == np.arange(n)
    columns = of_subject[second].astype(np.float64)
    by_second = np.einsum("rch,cs->rsh", values[np.ix_(first, second)], columns, optimize=True)
    table = np.zeros((n, n, values.shape[2]))
    np.add.at(table, subject[first], by_second)
    table[np.arange(n), np.arange(n)] = 0.0
    return table


def _pairs_of_subjects(
    subject: NDArray[np.intp], first: NDArray, second: NDArray, n_heads: int
) -> Floats:
    """Count the pairs of cells of each two different subjects: (s, s, h)."""
    n = int(subject.max()) + 1
    pairs = np.outer(*(np.bincount(subject[side], minlength=n) for side in (first, second)))
    np.fill_diagonal(pairs, 0)
    return np.repeat(pairs[..., None].astype(np.float64), n_heads, axis=2)


def without_each_subject(table: Floats) -> Floats:
    """Sum (..., s, s, h) over all pairs in which subject s has no part: (..., s, h)."""
    return table.sum((-3, -2))[..., None, :] - table.sum(-3) - table.sum(-2)


def ratio(total: NDArray, count: NDArray) -> Floats:
    """Divide sums over pairs by the number of pairs; NaN where there is none."""
    # Counts are whole numbers of pairs; what is below a half is none, whatever rounding left.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0.5, total / count, np.nan)


def jackknife_interval(
    observed: Floats, without_each: Floats, n_subjects: int, *, alpha: float = 0.05
) -> tuple[Floats, Floats]:
    """Leave out one subject at a time and take t quantiles.

    θ ± t(1 − α/2; n − 1) · √((m − 1)/m · Σ (θ₍ᵢ₎ − θ̄)²), with θ₍ᵢ₎ the estimate without subject i,
    m the subjects that take part in any pair and n those that have the class (Efron & Stein 1981).
    Under six subjects there is no interval: it would be too short, whatever the method.

    Parameters
    ----------
    observed : (h,)
        The estimate from all subjects.
    without_each : (s, h)
        Estimates with one subject left out; NaN for subjects that take no part.
    n_subjects
        Subjects that have the class.
    alpha
        The interval covers 1 − alpha.

    Returns
    -------
    low, high : (h,) float64
        NaN under `MIN_SUBJECTS_FOR_INTERVAL`.
    """
    nothing = np.full_like(observed, np.nan)
    if n_subjects < MIN_SUBJECTS_FOR_INTERVAL:
        return nothing, nothing.copy()
    left = without_each[np.isfinite(without_each).any(axis=1)]
    m = len(left)
    spread = ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    half = t_quantile(1 - alpha / 2, n_subjects - 1) * np.sqrt((m - 1) / m * spread)
    return observed - half, observed + half


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t, as `scipy.stats.t.ppf` does.

    All of `scipy.stats` takes longer to import than a comparison takes.
    """
    return float(special.stdtrit(df, probability))


def hedges_g(values: Floats) -> Floats:
    """Standardise the per-subject differences: mean / sd × J(n − 1).

    For each subject s, W_s − B_s is taken over the pairs of s with all other subjects. J is the
    exact small-sample correction Γ(m/2) / (√(m/2) Γ((m − 1)/2)) (Hedges 1981). The values of two
    subjects share pairs, so g describes how uniform the effect is and is no test.

    Parameters
    ----------
    values : (s, h)
        Per-subject differences; NaN is left out.

    Returns
    -------
    (h,) float64
        NaN under three subjects or where all differences are equal.
    """
    n = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(n, 1)
    squares = np.nansum((values - mean) ** 2, axis=0)
    m = np.maximum(n - 1, 2)
    spread = np.sqrt(squares / m)
    defined = (n >= 3) & (spread > 0)
    return np.where(
        defined, mean / np.where(defined, spread, 1.0) * small_sample_correction(m), np.nan
    )


def small_sample_correction(m: NDArray[np.integer] | int) -> Floats:
    """Return J(m) of Hedges (1981) for m degrees of freedom, at least 2; see `hedges_g`."""
    half = np.asarray(m, np.float64) / 2
    found: Floats = np.exp(special.gammaln(half) - special.gammaln(half - 0.5) - 0.5 * np.log(half))
    return found


def null_deltas(gram: Gram, design: Design) -> Floats:
    """Compute Δ for every assignment of the design.

    Each costs one look-up per pair of subjects: B over the rest follows from W and from the sums
    of each cell with all cells of the other subjects.

    Parameters
    ----------
    gram
        Similarities of the cells.
    design
        The assignments.

    Returns
    -------
    (assignments, h) float64
        The observed one first. NaN where an assignment leaves no pair.
    """
    if design.two_classes:
        first, second = design.played
        own = design.subject[design.played[0][0]]
        other = design.subject[design.played[1][0]]
        within_first = _mean_over(gram, first, first, combinations(range(len(own)), 2))
        within_second = _mean_over(gram, second, second, combinations(range(len(other)), 2))
        crossed = [(i, j) for i in range(len(own)) for j in range(len(other)) if own[i] != other[j]]
        return (within_first + within_second) / 2 - _mean_over(gram, first, second, crossed)
    (played,) = design.played
    pairs = list(combinations(range(played.shape[1]), 2))
    within = _sum_over(gram.values, played, played, pairs)
    cells = np.unique(played)
    every = _with_other_subjects(gram.values, design.subject, cells)[played].sum(axis=1)
    if gram.counted is None:
        n_within = np.array(float(len(pairs)))
        own = np.bincount(design.subject)[design.subject[design.of_class]]
        others = len(design.subject) - own
        n_every = np.array(float(others.sum()))
    else:
        n_within = _sum_over(gram.weights, played, played, pairs)
        n_every = _with_other_subjects(gram.weights, design.subject, cells)[played].sum(axis=1)
    return ratio(within, n_within) - ratio(every - 2 * within, n_every - 2 * n_within)


def _mean_over(
    gram: Gram, first: NDArray[np.intp], second: NDArray[np.intp], pairs: Iterable[tuple[int, int]]
) -> Floats:
    chosen = list(pairs)
    total = _sum_over(gram.values, first, second, chosen)
    if gram.counted is None:
        return ratio(total, np.array(float(len(chosen))))
    return ratio(total, _sum_over(gram.weights, first, second, chosen))


def _sum_over(
    values: NDArray[np.float32],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    pairs: Sequence[tuple[int, int]],
) -> Floats:
    """Sum values[first[:, i], second[:, j]] over the pairs (i, j): (assignments, h)."""
    r, _, h = values.shape
    flat = values.reshape(r * r, h)
    total = np.zeros((len(first), h))
    for i, j in pairs:
        total += flat.take(first[:, i] * r + second[:, j], axis=0)
    return total


def _with_other_subjects(
    values: NDArray[np.float32], subject: NDArray[np.intp], cells: NDArray[np.intp]
) -> Floats:
    """Sum of some cells' values with all cells of other subjects: (r, h), 0 for other cells."""
    total = np.zeros((len(values), values.shape[2]))
    chosen = values if len(cells) == len(values) else values[cells]
    total[cells] = chosen.sum(axis=1, dtype=np.float64)
    for s in np.unique(subject[cells]):
        mine, asked = np.flatnonzero(subject == s), cells[subject[cells] == s]
        total[asked] -= values[np.ix_(asked, mine)].sum(axis=1, dtype=np.float64)
    return total


def class_similarities(
    gram: Gram, subject: NDArray[np.intp], label: NDArray[np.intp], chosen: int
) -> tuple[list[int], Floats]:
    """Compare one class with every other, in different subjects.

    Parameters
    ----------
    gram
        Similarities of the cells.
    subject, label : (r,) int
        Of each cell.
    chosen
        The class.

    Returns
    -------
    labels : list of int
        The other classes.
    similarity : (labels, h) float64
        Mean over s ≠ s′ of ⟨ū_cs, ū_ds′⟩ for each other class d: the parts of B.
    """
    own = np.flatnonzero(label == chosen)
    return similarities_of(gram.values[own], gram.weights[own], own, subject, label)


def similarities_of(
    values: NDArray[np.float32],
    weights: NDArray[np.float32],
    own: NDArray[np.intp],
    subject: NDArray[np.intp],
    label: NDArray[np.intp],
) -> tuple[list[int], Floats]:
    """Do what `class_similarities` does with the lines of the class alone.

    Parameters
    ----------
    values, weights : (n, r, h)
        Similarities of the class's cells with all cells, and where there are any (1, else 0).
    own : (n,) int
        The class's cells.
    subject, label : (r,) int
        Of each cell.
    """
    labels, of_label = np.unique(label, return_inverse=True)
    belongs = (of_label.reshape(-1) == np.arange(len(labels))[:, None]).astype(np.float64)
    apart = (subject[own][:, None] != subject)[..., None]
    total = belongs @ np.where(apart, values, 0.0).sum(axis=0, dtype=np.float64)
    count = belongs @ np.where(apart, weights, 0.0).sum(axis=0, dtype=np.float64)
    other = labels != label[own[0]]
    return labels[other].tolist(), ratio(total, count)[other]


def false_discovery_rate(p: Floats) -> Floats:
    """Return q of Benjamini & Hochberg (1995) for each p of a family (h,): statsmodels' ``fdr_bh``.

    q of the i-th smallest p is the least n p_j / j over all j ≥ i.
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(q, 1.0)


@dataclass(frozen=True, eq=False)
class PValues:
    """One-sided p-values (large Δ), each (h,) float64, NaN where nothing was tested.

    Attributes
    ----------
    p
        Share of the assignments whose Δ is at least the observed one, itself among them.
    p_max_t
        The same for the largest studentised Δ over all heads (Westfall & Young 1993): holds for
        all heads together.
    q
        Benjamini & Hochberg (1995), false discovery rate over all heads.
    """

    p: Floats
    p_max_t: Floats
    q: Floats


def p_values(deltas: Floats) -> PValues:
    """Compare the observed Δ with those of the other assignments.

    When all assignments are enumerated p is hits / total. When they are drawn it is
    (hits + 1) / (B + 1), which counts the observed one in, so that p is never zero and the test is
    exact (Phipson & Smyth 2010). For max-T each head's Δ is divided by the standard deviation of
    its own assignments, so that heads with large similarities do not drown the others.

    Parameters
    ----------
    deltas : (assignments, h)
        From `null_deltas`, the observed one first; all heads that are tested together.

    Returns
    -------
    PValues
    """
    tested = np.isfinite(deltas[0])
    p, p_max_t, q = (np.full(deltas.shape[1], np.nan) for _ in range(3))
    if not tested.any() or len(deltas) < 2:
        return PValues(p, p_max_t, q)
    chosen = deltas[:, tested]
    centre = np.nanmean(chosen, axis=0)
    spread = np.nanstd(chosen, axis=0)
    moves = spread > _STILL
    studentised = np.where(moves, (chosen - centre) / np.where(moves, spread, 1.0), 0.0)
    studentised[np.isnan(chosen)] = -np.inf
    least = studentised[0] - _TIE
    p[tested] = (studentised >= least).mean(axis=0)
    largest = np.sort(studentised.max(axis=1))
    p_max_t[tested] = (len(largest) - np.searchsorted(largest, least)) / len(largest)
    q[tested] = false_discovery_rate(p[tested])
    return PValues(p, p_max_t, q)
