"""What kept cells answer: similarities, means over single pairs, mean maps, views.

Nothing here reads a map. Axis letters: r cells, g groups (a cell and a camera), s subjects,
h heads, k segments, d length of a unit vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.cells import Sides
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.comparison.statistics import Gram, ratio, similarities_of


def kept_gram(kept: KeptLayer, at: NDArray[np.integer], heads: Sequence[int]) -> Gram:
    """Return the similarities of cells (positions) under some heads (from 0)."""
    return Gram(kept.gram(at, at, heads), _shared(kept, at, at, heads))


def kept_class_similarities(
    kept: KeptLayer, label: int, heads: Sequence[int]
) -> tuple[list[int], NDArray[np.float64]]:
    """Compare one class with every other; see `tssan_viz.comparison.statistics`."""
    subject, labels = kept.index.cells.T
    own, every = np.flatnonzero(labels == label), np.arange(len(labels))
    values = kept.gram(own, every, heads)
    shared = _shared(kept, own, every, heads)
    weights = np.ones_like(values) if shared is None else shared.astype(np.float32)
    return similarities_of(values, weights, own, subject, labels)


def kept_within_and_between(
    kept: KeptLayer,
    at: NDArray[np.integer],
    label: int,
    heads: Sequence[int],
    other: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return W and B of a class (`tssan_viz.comparison.statistics`), its lines alone being read.

    Parameters
    ----------
    kept
        The layer.
    at : (r,)
        Which of its cells take part.
    label
        The class.
    heads
        From 0.
    other
        The class that it is compared with; None for all others.

    Returns
    -------
    W, B : (h,) float64
        NaN where no two subjects have them.
    """
    subject, labels = kept.index.cells[at].T

    def mean(of: NDArray[np.bool_], beside: NDArray[np.bool_]) -> NDArray[np.float64]:
        lines, columns = at[of], at[beside]
        values = kept.gram(lines, columns, heads)
        there = (subject[of][:, None] != subject[beside])[..., None]
        shared = _shared(kept, lines, columns, heads)
        if shared is not None:
            there = there & shared
        count = np.broadcast_to(there, values.shape).sum(axis=(0, 1))
        return ratio(np.where(there, values, 0).sum(axis=(0, 1), dtype=np.float64), count)

    own = labels == label
    rest = ~own if other is None else labels == other
    within = [mean(own, own)] if other is None else [mean(own, own), mean(rest, rest)]
    return np.mean(within, axis=0), mean(own, rest)


def kept_subject_similarities(
    kept: KeptLayer, label: int, heads: Sequence[int]
) -> tuple[list[int], NDArray[np.float64]]:
    """Compare the subjects' cells of a class with each other.

    Returns
    -------
    subjects : list of int
    similarity : (s, s, h) float64
        NaN on the diagonal: a cell is not compared with itself; and where two share no segment.
    """
    own = np.flatnonzero(kept.index.cells[:, 1] == label)
    values = kept.gram(own, own, heads).astype(np.float64)
    shared = _shared(kept, own, own, heads)
    if shared is not None:
        values[~shared] = np.nan
    values[np.arange(len(own)), np.arange(len(own))] = np.nan
    return kept.index.cells[own, 0].tolist(), values


def _shared(
    kept: KeptLayer,
    lines: NDArray[np.integer],
    columns: NDArray[np.integer],
    heads: Sequence[int],
) -> NDArray[np.bool_] | None:
    """Return which pairs of cells share a segment: (lines, columns, h); None if all do."""
    there = kept.index.present[list(heads)]
    if there[:, lines].all() and there[:, columns].all():
        return None
    segments = there.astype(np.float32)
    shared = segments[:, lines] @ segments[:, columns].swapaxes(1, 2)
    return np.moveaxis(shared > 0, 0, -1)


def kept_sides(
    kept: KeptLayer,
    at: NDArray[np.integer],
    subject: NDArray[np.integer],
    of_class: NDArray[np.bool_],
    heads: Sequence[int],
) -> Sides:
    """Return the plain sums of the class and of the others, by subject.

    Where all kept cells of a subject are asked for, those of the others are the subject's total
    without the class, so that only the class's sums are read.

    Parameters
    ----------
    kept
        The layer.
    at, subject, of_class : (r,)
        Which cells, the subject (from 0) of each, and whether it is one of the class.
    heads
        From 0.
    """
    index = kept.index
    n_subjects, k = int(subject.max()) + 1, len(index.segments)
    sums = np.zeros((2, n_subjects, len(heads), k, kept.length), np.float32)
    counts = np.zeros((2, n_subjects, len(heads), k))
    position = np.full(len(index.cells), -1)
    position[at] = np.arange(len(at))
    cell = position[index.groups[:, 0]]

    def add(groups: NDArray[np.integer], side: int) -> None:
        values = kept.read("sums", heads, groups)
        for i, group in enumerate(groups):
            of = subject[cell[group]]
            sums[side, of] += values[:, i]
            counts[side, of] += index.counts[list(heads), group]

    add(np.flatnonzero((cell >= 0) & of_class[cell]), 0)
    subjects = index.subjects
    for s in range(n_subjects):
        mine = at[subject == s]
        same = np.flatnonzero(index.cells[:, 0] == index.cells[mine[0], 0])
        if len(same) == len(mine):
            total = int(np.searchsorted(subjects, index.cells[mine[0], 0]))
            groups = np.flatnonzero(np.isin(index.groups[:, 0], same))
            sums[1, s] = kept.read("totals", heads, np.array([total]))[:, 0] - sums[0, s]
            every = index.counts[list(heads)][:, groups].sum(axis=1, dtype=np.float64)
            counts[1, s] = every - counts[0, s]
        else:
            add(np.flatnonzero((cell >= 0) & ~of_class[cell] & (subject[cell] == s)), 1)
    return Sides(sums, counts)


def kept_left_out(
    kept: KeptLayer, at: NDArray[np.integer], heads: Sequence[int]
) -> NDArray[np.intp]:
    """Return how many maps of cells have no direction and are in no sum: (h,)."""
    index = kept.index
    mine = np.isin(index.groups[:, 0], at)
    counted = index.counts[list(heads)][:, mine].sum(axis=(1, 2), dtype=np.intp)
    return index.rows[at].sum() - counted


def kept_mean_maps(
    kept: KeptLayer, at: NDArray[np.integer], head: int, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the mean map of each cell, segments too: (r, q, s), each view weighing the same.

    `kept` holds the sums of plain maps; the head counts from 0.
    """
    units = kept.read("units", [head], at)[0]
    segments = kept.index.present[head, at].sum(axis=1)
    return units.sum(axis=1, dtype=np.float64).reshape(-1, *size) / segments[:, None, None]


def kept_view_similarities(
    kept: KeptLayer, label: int, heads: Sequence[int], subjects: Sequence[int] | None = None
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
    """Compare the maps of a class over cameras: all pairs of single maps, like segments.

    Parameters
    ----------
    kept
        The layer.
    label
        The class.
    heads
        From 0.
    subjects
        Whose maps; None for all.

    Returns
    -------
    cameras : list of int
        What occurs; −1 stands for videos without a camera.
    across, within : (v, v, h) float64
        Mean similarity of a map seen by one camera with one seen by another (or the same), of two
        subjects, and of one subject; no map with itself. NaN without a pair.
    """
    index = kept.index
    chosen = list(heads)
    mine = index.cells[:, 1] == label
    if subjects is not None:
        mine &= np.isin(index.cells[:, 0], subjects)
    groups = np.flatnonzero(mine[index.groups[:, 0]])
    camera, view = np.unique(index.groups[groups, 1], return_inverse=True)
    of_cell = index.cells[index.groups[groups, 0], 0]
    people, subject = np.unique(of_cell, return_inverse=True)
    values = kept.read("sums", chosen, groups)
    n = np.zeros((len(chosen), len(index.segments), len(camera), len(people)))
    sums = np.zeros((*n.shape, values.shape[-1]), np.float32)
    sums[:, :, view, subject] = values.swapaxes(1, 2)
    n[:, :, view, subject] = index.counts[chosen][:, groups].swapaxes(1, 2)
    across, within = view_similarities(sums, n)
    return camera.tolist(), across, within


def view_similarities(
    sums: NDArray[np.float32], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take the means over all pairs of single maps, by the views of both.

    Parameters
    ----------
    sums : (h, k, v, s, d)
        Sums of unit vectors of each view and subject.
    n : (h, k, v, s)
        How many are in each.

    Returns
    -------
    across, within : (v, v, h) float64
        Of two subjects, and of one; no map with itself. NaN without a pair.
    """
    total, every = sums.sum(axis=3), n.sum(axis=3)
    # (h, k, s, v, v): of each subject, its maps of one view with those of another.
    by_subject = sums.swapaxes(2, 3)
    own = (by_subject @ by_subject.swapaxes(-1, -2)).sum(axis=2, dtype=np.float64)
    own_pairs = n @ n.swapaxes(-1, -2)
    across = (total @ total.swapaxes(-1, -2)).astype(np.float64) - own
    across_pairs = every[..., :, None] * every[..., None, :] - own_pairs
    # A unit vector's product with itself is 1.
    itself = np.eye(sums.shape[2]) * every[..., None]
    return (
        _over_segments(across, across_pairs),
        _over_segments(own - itself, own_pairs - itself),
    )


def _over_segments(total: NDArray[np.float64], pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide sums (h, k, v, v) by pairs, and average over the segments that have any."""
    there = pairs > 0
    ratio = np.where(there, total / np.maximum(pairs, 1), 0).sum(axis=1)
    segments = there.sum(axis=1)
    means = np.where(segments > 0, ratio / np.maximum(segments, 1), np.nan)
    return np.moveaxis(means, 0, -1)
