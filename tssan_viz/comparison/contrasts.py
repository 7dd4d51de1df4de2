"""Groups of one class against each other: two means over pairs of subjects, and their exchange.

Everything here works on cells: the mean unit vector of the maps of one class, one subject and one
group (a camera, right or wrong, short or long, …). Only cells of the same class and of different
subjects are compared:

* W_gc = mean over the pairs of group g in class c, W_c the mean of them over the groups;
* B_abc = mean over the pairs of class c with one cell in group a and one in b, B_c their mean;
* W and B are the means of W_c and B_c over the classes, and Δ = W − B.

Every class weighs the same in W and in B, so that a group that lacks a class is not taken for one
whose maps are alike.

What is exchanged depends on what the groups are: see `tssan_viz.comparison.group_exchange`.

Axis letters: r cells, n cells of a class, g groups, s subjects, p assignments, h heads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.group_cells import GroupCells
from tssan_viz.comparison.group_exchange import Exchange, GroupDesign
from tssan_viz.comparison.statistics import (
    MIN_SUBJECTS_FOR_INTERVAL,
    Floats,
    Gram,
    hedges_g,
    jackknife_interval,
    ratio,
    t_quantile,
    without_each_subject,
)

# Assignments that are gone through at once: their sums take some tens of megabytes.
_PART = 2_000


def group_deltas(
    cells: GroupCells, design: GroupDesign, progress: Callable[[int, int], None] | None = None
) -> Floats:
    """Compute Δ for every assignment of the design: (p, h), the observed one first.

    Parameters
    ----------
    cells, design
        What is compared, and how it is exchanged.
    progress
        Called with how many assignments are done, and how many there are.
    """
    deltas = np.empty((len(design.groups), cells.n_heads))
    blocks = _moving_together(cells)
    for start in range(0, len(deltas), _PART):
        part = slice(start, start + _PART)
        deltas[part] = _deltas_of(cells, blocks, design.groups[part])
        if progress is not None:
            progress(min(start + _PART, len(deltas)), len(deltas))
    return deltas


# The cells of a class, their similarities, which pairs have one, how many classes it stands for.
_Block = tuple[NDArray[np.intp], NDArray[np.floating], NDArray[np.bool_] | None, int]


def _moving_together(cells: GroupCells) -> list[_Block]:
    """Return the classes, those in one whose cells move together, and how many each stands for.

    A subject's cells of one group move in all its classes at once, so that classes that the same
    subjects have in the same groups have the same pairs in every assignment, and their similarities
    are averaged first.
    """
    alike: dict[tuple[tuple[int, ...], ...], list[tuple[NDArray[np.intp], Gram]]] = {}
    blocks: list[_Block] = []
    for members, gram in cells.blocks:
        if gram.counted is not None:
            blocks.append((members, gram.values, gram.counted, 1))
            continue
        key = (tuple(cells.subject[members].tolist()), tuple(cells.group[members].tolist()))
        alike.setdefault(key, []).append((members, gram))
    for several in alike.values():
        mean = np.zeros(several[0][1].values.shape)
        for _, gram in several:
            mean += gram.values / np.float64(len(several))
        blocks.append((several[0][0], mean, None, len(several)))
    return blocks


def _deltas_of(
    cells: GroupCells,
    blocks: list[_Block],
    groups: NDArray[np.int16],
) -> Floats:
    p, h = len(groups), cells.n_heads
    total, classes = np.zeros((p, h)), np.zeros((p, h))
    for members, similarity, counted_pairs, stands_for in blocks:
        n = len(members)
        subject = cells.subject[members]
        apart = (subject[:, None] != subject)[..., None]
        values = np.where(apart, similarity.astype(np.float64), 0.0).reshape(n, -1)
        weights = apart * 1.0 if counted_pairs is None else (apart & counted_pairs) * 1.0
        flat_weights = weights.reshape(n, -1)
        of_members = groups[:, members]
        there = {g: (of_members == g) * 1.0 for g in np.unique(of_members)}
        within: list[Floats] = []
        between: list[Floats] = []
        for a, in_a in there.items():
            # (p, n) · (n, n·h): for each assignment, each cell's sum over the cells of the group.
            sums = (in_a @ values).reshape(p, n, -1)
            counts = (in_a @ flat_weights).reshape(p, n, -1)
            for b, in_b in there.items():
                if b < a:
                    continue
                found = ratio(
                    np.einsum("pnh,pn->ph", sums, in_b), np.einsum("pnh,pn->ph", counts, in_b)
                )
                (within if a == b else between).append(found)
        if between:
            delta: Floats = _mean(np.stack(within)) - _mean(np.stack(between))
            counted = np.isfinite(delta)
            total += stands_for * np.where(counted, delta, 0.0)
            classes += stands_for * counted
    return ratio(total, classes)


def _mean(values: Floats) -> Floats:
    """Average over what has a pair (first axis); NaN where nothing has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0), np.float64)


def subject_similarities(
    sums: NDArray[np.float32],
    counts: NDArray[np.float64],
    subject: NDArray[np.intp],
    label: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """Compare subjects by all pairs of their single maps of one class, like segments.

    Parameters
    ----------
    sums : (r, h, k, d)
        Plain sums of unit vectors of each cell, one class of one subject.
    counts : (r, h, k)
        How many are in each.
    subject, label : (r,)
        Of each cell; subjects count from 0.

    Returns
    -------
    total, pairs : (s, s, h) float64
        Sums of similarities and the number of pairs; no map with itself.
    """
    s, h = int(subject.max()) + 1, sums.shape[1]
    total, pairs = np.zeros((s, s, h)), np.zeros((s, s, h))
    for one in np.unique(label):
        members = np.flatnonzero(label == one)
        place = np.ix_(subject[members], subject[members])
        of_heads = np.moveaxis(sums[members], 0, 2).astype(np.float64)  # (h, k, n, d)
        n = np.moveaxis(counts[members], 0, 2)  # (h, k, n)
        # A unit vector's product with itself is 1.
        itself = np.eye(len(members)) * n[..., None]
        values = (of_heads @ of_heads.swapaxes(-1, -2) - itself).sum(axis=1)
        total[place] += np.moveaxis(values, 0, -1)
        pairs[place] += np.moveaxis((n[..., None] * n[..., None, :] - itself).sum(1), 0, -1)
    return total, pairs


def describe_groups_of_subjects(
    total: Floats, pairs: Floats, group: NDArray[np.intp], n_groups: int
) -> GroupEstimates:
    """Describe groups of which at least one is a single subject; there is no test of it.

    W of a single subject is over its own videos, W of several subjects over pairs of them.

    Parameters
    ----------
    total, pairs : (s, s, h)
        From `subject_similarities`.
    group : (s,)
        The group of each subject.
    """
    g, h = n_groups, total.shape[2]
    between_each = np.full((g, g, h), np.nan)
    summed, counted = np.zeros(h), np.zeros(h)
    for a, b in product(range(g), repeat=2):
        chosen = (group == a)[:, None] & (group == b)
        if a == b and (group == a).sum() > 1:
            chosen &= ~np.eye(len(group), dtype=bool)
        between_each[a, b] = ratio(total[chosen].sum(0), pairs[chosen].sum(0))
        if a != b:
            summed += total[chosen].sum(0)
            counted += pairs[chosen].sum(0)
    within_each = between_each[np.arange(g), np.arange(g)]
    within, between = _mean(within_each), ratio(summed, counted)
    unknown = np.full(h, np.nan)
    return GroupEstimates(
        within=within,
        between=between,
        delta=within - between,
        within_each=within_each,
        between_each=between_each,
        hedges_g=unknown,
        low=unknown,
        high=unknown,
    )


@dataclass(frozen=True, eq=False)
class GroupEstimates:
    """The numbers of a comparison of groups, one per head: (h,) float64, NaN where not defined.

    Attributes
    ----------
    within, between, delta
        W, B and Δ = W − B.
    within_each : (g, h)
        W of each group.
    between_each : (g, g, h)
        Mean similarity between two groups, on the diagonal within them.
    hedges_g
        Of the per-subject differences W_s − B_s; see `tssan_viz.comparison.statistics.hedges_g`.
    low, high
        Jackknife interval of Δ.
    """

    within: Floats
    between: Floats
    delta: Floats
    within_each: Floats
    between_each: Floats
    hedges_g: Floats
    low: Floats
    high: Floats


def estimate_groups(
    cells: GroupCells, exchange: Exchange | None, *, alpha: float = 0.05
) -> GroupEstimates:
    """Compute W, B, Δ, effect size and interval of the observed groups.

    The interval leaves out one subject at a time. Groups of different subjects are samples of
    their own, so their spreads are added up, with as many degrees of freedom as subjects less
    groups. There is no interval under `MIN_SUBJECTS_FOR_INTERVAL` subjects, nor where leaving one
    out leaves a group without a pair.
    """
    g, h = cells.n_groups, cells.n_heads
    names, subject = np.unique(cells.subject, return_inverse=True)
    s = len(names)
    parts = [_of_class(cells, block, subject, s) for block in cells.blocks]
    whole = [part for part in parts if part is not None]
    if not whole:
        nothing = np.full(h, np.nan)
        each = np.full((g, g, h), np.nan)
        return GroupEstimates(
            nothing, nothing, nothing, each[np.arange(g), np.arange(g)], each, *(nothing,) * 3
        )
    counted = [np.isfinite(part.within - part.between) for part in whole]
    within, between = (
        _mean(
            np.stack([np.where(c, values, np.nan) for c, values in zip(counted, of, strict=True)])
        )
        for of in ([part.within for part in whole], [part.between for part in whole])
    )
    between_each = np.full((len(whole), g, g, h), np.nan)
    pairs_left = np.zeros((g, s, h))
    for place, part in zip(between_each, whole, strict=True):
        place[np.ix_(part.groups, part.groups)] = part.each
        pairs_left[part.groups] += part.pairs_left
    each = _mean(between_each)
    within_each = each[np.arange(g), np.arange(g)]
    # A group that loses its last pair with a subject would make another quantity of Δ.
    lost = ((pairs_left < 0.5) & np.isfinite(within_each)[:, None]).any(axis=0)
    without = np.where(lost, np.nan, _mean(np.stack([part.without for part in whole])))
    delta = within - between
    low, high = _interval(cells, exchange, delta, without, alpha)
    return GroupEstimates(
        within=within,
        between=between,
        delta=delta,
        within_each=within_each,
        between_each=each,
        hedges_g=hedges_g(_mean(np.stack([part.own for part in whole]))),
        low=low,
        high=high,
    )


@dataclass(frozen=True, eq=False)
class _OfClass:
    """One class: W and B (h,), Δ without each subject and of each one (s, h), groups that it has.

    `each` (g, g, h) are its similarities of groups; `pairs_left` (g, s, h) how many pairs each
    group has without each subject.
    """

    groups: NDArray[np.intp]
    within: Floats
    between: Floats
    each: Floats
    without: Floats
    own: Floats
    pairs_left: Floats


def _of_class(
    cells: GroupCells, block: tuple[NDArray[np.intp], Gram], subject: NDArray[np.intp], s: int
) -> _OfClass | None:
    """Compute what one class gives; None where it has one group only."""
    members, gram = block
    names, group = np.unique(cells.group[members], return_inverse=True)
    g = len(names)
    if g < 2:
        return None
    # Of a subject and a group there is one cell at most.
    place = group * s + subject[members]
    tables = []
    for values in (gram.values, gram.weights):
        table = np.zeros((g * s, g * s, cells.n_heads))
        table[np.ix_(place, place)] = values
        by_groups = table.reshape(g, s, g, s, -1).swapaxes(1, 2)
        by_groups[:, :, np.arange(s), np.arange(s)] = 0.0
        tables.append(by_groups)
    sums, counts = tables
    diagonal = np.arange(g)
    upper = np.triu_indices(g, 1)

    def w_and_b(similarity: Floats) -> tuple[Floats, Floats]:
        return _mean(similarity[diagonal, diagonal]), _mean(similarity[upper])

    each = ratio(sums.sum((2, 3)), counts.sum((2, 3)))
    left = without_each_subject(counts)
    within, between = w_and_b(each)
    left_within, left_between = w_and_b(ratio(without_each_subject(sums), left))
    # A subject's pairs with two groups are those of its cell in one and in the other.
    both_ways = (sums + sums.swapaxes(0, 1)).sum(3), (counts + counts.swapaxes(0, 1)).sum(3)
    own_within, own_between = w_and_b(ratio(*both_ways))
    return _OfClass(
        groups=names,
        within=within,
        between=between,
        each=each,
        without=left_within - left_between,
        own=own_within - own_between,
        pairs_left=left[diagonal, diagonal],
    )


def _interval(
    cells: GroupCells,
    exchange: Exchange | None,
    delta: Floats,
    without: Floats,
    alpha: float,
) -> tuple[Floats, Floats]:
    n = cells.n_subjects
    nothing = np.full_like(delta, np.nan)
    if n < MIN_SUBJECTS_FOR_INTERVAL or not np.isfinite(without).any():
        return nothing, nothing.copy()
    if exchange != "subjects":
        complete = np.isfinite(without).all(axis=0)
        low, high = jackknife_interval(delta, without, n, alpha=alpha)
        return np.where(complete, low, np.nan), np.where(complete, high, np.nan)
    names, subject = np.unique(cells.subject, return_inverse=True)
    of_subject = np.zeros(len(names), np.intp)
    of_subject[subject] = cells.group
    variance = np.zeros_like(delta)
    for g in np.unique(of_subject):
        mine = without[of_subject == g]
        m = len(mine)
        variance += (m - 1) / m * ((mine - mine.mean(axis=0)) ** 2).sum(axis=0)
    half = t_quantile(1 - alpha / 2, n - len(np.unique(of_subject))) * np.sqrt(variance)
    return delta - half, delta + half
