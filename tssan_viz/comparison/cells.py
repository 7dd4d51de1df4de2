"""Cells: one class of one subject, the mean of its maps with every view weighing the same.

Axis letters: n rows of the store, r cells, h heads, k segments, d length of a unit vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.similarity import vectors_and_norms
from tssan_viz.store.schema import decode_pieces

# Values that are read at once: about 32 MB of float32.
_CHUNK_VALUES = 1 << 23
# Values that are worked on at once stay in the processor's cache.
_CACHED_VALUES = 1 << 17
# Values of a head that are sorted by view at once: 16 MB as they are stored. Not fewer where there
# are more heads: sums are the same to the last bit, however heads are shared out.
_SORTED_VALUES = 1 << 23

PLAIN = "plain"
"""What stands for a metric where the maps are summed as they are."""

ReadMaps = Callable[[int], Iterator[NDArray[np.floating]]]
"""Goes through the maps (n, h, q, s) of the layout's rows in order, at most so many at a time, as
they are stored."""

ReadPieces = Callable[[int], Iterator[Sequence[NDArray[np.floating]]]]
"""The same for each head (n, q, s), as `AttentionStore.read_pieces` gives them."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Which rows make which cell. Made by `lay_out`.

    Attributes
    ----------
    subjects, labels, segments
        What occurs, in order.
    subject : (r,) int
        The subject of each cell, as a position in `subjects`.
    label : (r,) int
        The class of each cell.
    cell, segment : (n,) int
        The cell of each row, and its segment as a position in `segments`.
    trial, view : (n,) int
        Rows of one cell, segment and replication share a trial; those of one camera in it a view.
    """

    subjects: tuple[int, ...]
    labels: tuple[int, ...]
    segments: tuple[int, ...]
    subject: NDArray[np.intp]
    label: NDArray[np.intp]
    cell: NDArray[np.intp]
    segment: NDArray[np.intp]
    trial: NDArray[np.intp]
    view: NDArray[np.intp]

    def weights(self, usable: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return what each row counts in its cell and segment: (n,), or (n, h) like `usable`.

        Rows of one view share its part, views share their trial's, trials the cell's. A row that
        is not usable counts nothing, and the others take its part.
        """
        there = np.ones(len(self.cell)) if usable is None else usable.astype(np.float64)
        pile = self.cell * len(self.segments) + self.segment
        in_view = _count(self.view, there)
        view_trial = _first(self.view, self.trial)
        in_trial = _count(view_trial, in_view > 0)
        trial_pile = _first(self.trial, pile)
        in_pile = _count(trial_pile, in_trial > 0)
        shared = in_view[self.view] * in_trial[self.trial] * in_pile[pile]
        return there / np.maximum(shared, 1)


def _count(group: NDArray[np.intp], there: NDArray, groups: int = 0) -> NDArray[np.float64]:
    """Sum (n,) or (n, h) over the members of each group; there are at least so many groups."""
    if there.ndim == 1:
        return np.bincount(group, there, groups).astype(np.float64, copy=False)
    return np.stack([np.bincount(group, column, groups) for column in there.T], axis=1)


def _first(group: NDArray[np.intp], values: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the value that all members of a group share, for each group."""
    shared = np.empty(int(group.max()) + 1, dtype=np.intp)
    shared[group] = values
    return shared


def lay_out(rows: pd.DataFrame) -> Layout:
    """Sort rows into cells.

    Parameters
    ----------
    rows
        With `subject` and `label` (none missing), `segment`, `camera` and `replication` (missing
        ones count as one value).

    Returns
    -------
    Layout
    """
    names, number = {}, {}
    for column in ("subject", "label", "segment", "replication", "camera"):
        values = rows[column].to_numpy(np.float64, na_value=-1.0).astype(np.int64)
        names[column], number[column] = numbered(values)

    def within(pile: NDArray[np.intp], column: str) -> NDArray[np.intp]:
        return numbered(pile * len(names[column]) + number[column])[1]

    n_labels = len(names["label"])
    cells, cell = numbered(number["subject"] * n_labels + number["label"])
    trial = within(within(cell, "segment"), "replication")
    return Layout(
        subjects=tuple(names["subject"].tolist()),
        labels=tuple(names["label"].tolist()),
        segments=tuple(names["segment"].tolist()),
        subject=cells // n_labels,
        label=names["label"][cells % n_labels],
        cell=cell,
        segment=number["segment"],
        trial=trial,
        view=within(trial, "camera"),
    )


def numbered(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return what occurs (u,), in order, and which of it each of (n,) is: `np.unique`'s inverse.

    Numbers that lie as close together as those of subjects and cells need no sorting.
    """
    if not len(values):
        return values, values.astype(np.intp)
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span > 8 * len(values) + 1024:
        found, number = np.unique(values, return_inverse=True)
        return found, number.reshape(-1)
    there = np.zeros(span, bool)
    there[values - low] = True
    return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[values - low]


@dataclass(frozen=True, eq=False)
class Sides:
    """Plain sums of unit vectors of one layer, by subject and side.

    Attributes
    ----------
    sums : (w, s, h, k, d) float32
        Of the class (w = 0) and of the others (w = 1).
    counts : (w, s, h, k) float64
        How many unit vectors are in each sum.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Mean unit vectors of one layer, and plain sums of them over groups of rows.

    Attributes
    ----------
    units : (r, h, k, d) float32
        Mean over views, then trials, of the unit vectors; zero where there is none.
    present : (r, h, k) bool
        Where there is one.
    sums : (g, h, k, d) float32
        Plain sums of unit vectors of each group.
    counts : (g, h, k) float64
        How many unit vectors are in each sum.
    left_out : (h,) int
        Maps without a norm, which have no direction and are left out.
    """

    units: NDArray[np.float32]
    present: NDArray[np.bool_]
    sums: NDArray[np.float32]
    counts: NDArray[np.float64]
    left_out: NDArray[np.intp]

    @property
    def sides(self) -> Sides:
        """The sums, where the groups are those of `sides_of`."""
        two = (2, len(self.sums) // 2)
        return Sides(
            self.sums.reshape(*two, *self.sums.shape[1:]),
            self.counts.reshape(*two, *self.counts.shape[1:]),
        )


class Memory:
    """Large arrays that come and go, in memory that stays.

    Pages that are new to a process cost about as much as what is computed in them.
    """

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def array(self, what: str, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray:
        """Return an array that holds anything; that of the same `what` before it is overwritten."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        kept = self._kept.get(what)
        if kept is None or len(kept) < size:
            kept = self._kept[what] = np.empty(size, np.uint8)
        return kept[:size].view(dtype).reshape(shape)


def sides_of(layout: Layout, label: int) -> tuple[NDArray[np.intp], int]:
    """Return the group (n,) of each row, by subject and class or not, and how many there are."""
    subjects = len(layout.subjects)
    side = (layout.label != label).astype(np.intp)
    return (side * subjects + layout.subject)[layout.cell], 2 * subjects


def sum_units(
    layout: Layout,
    groups: tuple[NDArray[np.intp], int],
    read: ReadMaps | ReadPieces,
    metric: str,
    *,
    heads: int,
    size: tuple[int, int],
    memory: Memory | None = None,
) -> Cells:
    """Make the cells of one layer: for each class and subject the mean of its unit vectors.

    Maps are read in pieces and no pair of maps is formed; memory grows with cells, not with rows.
    Rows of one view weigh the same, so that each map is added once, to its view's sum, and views
    are weighed at the end, when it is known which maps have a norm.

    Parameters
    ----------
    layout
        Which rows make which cell.
    groups
        The group (n,) of each row, for the plain sums, and how many groups there are.
    read
        Goes through the maps of the rows.
    metric
        One of `tssan_viz.comparison.similarity.METRICS`, or `PLAIN` for the maps as they are.
    heads, size
        Of the maps: h and (q, s).
    memory
        What is used again by the next call with it, which overwrites the answer of this one.

    Returns
    -------
    Cells
    """
    memory = memory or Memory()
    n = len(layout.cell)
    group, g = groups
    length = vector_length(metric, size)
    r, k = len(layout.subject), len(layout.segments)
    pile = layout.cell * k + layout.segment
    plain_pile = group * k + layout.segment
    # A group that divides a view divides its sum. Views of a pile lie together.
    found, part_of = numbered(plain_pile * (int(layout.view.max(initial=0)) + 1) + layout.view)
    first = np.empty(len(found), np.intp)
    first[part_of[::-1]] = np.arange(n)[::-1]
    views = memory.array("views", (heads, len(first), length))
    views.fill(0)
    usable = np.ones((heads, n), dtype=bool)
    start = 0
    for block in _blocks(read, heads, size, n, memory):
        rows = slice(start, start + block.shape[1])
        _add_sorted(views, usable[:, rows], block, part_of[rows], metric)
        start = rows.stop
    units = memory.array("units", (heads, r * k, length))
    _sum_views(views, pile[first], _view_weights(layout, usable, first, part_of), units)
    sums = views
    if len(first) < g * k or (plain_pile[first[1:]] == plain_pile[first[:-1]]).any():
        ones = np.broadcast_to(np.float32(1), views.shape[:2])
        sums = memory.array("sums", (heads, g * k, length))
        _sum_views(views, plain_pile[first], ones, sums)
    present = _count(pile, usable.T, r * k).T > 0
    counts = _count(plain_pile, usable.T, g * k).T
    return Cells(
        units=units.reshape(heads, r, k, length).swapaxes(0, 1),
        present=present.reshape(heads, r, k).swapaxes(0, 1),
        sums=sums.reshape(heads, g, k, length).swapaxes(0, 1),
        counts=counts.reshape(heads, g, k).swapaxes(0, 1),
        left_out=(~usable).sum(axis=1),
    )


def _view_weights(
    layout: Layout,
    usable: NDArray[np.bool_],
    first: NDArray[np.intp],
    part_of: NDArray[np.intp],
) -> NDArray[np.floating]:
    """Return what the rows of each part of a view count in a cell: (h, parts)."""
    if usable.all():
        return np.broadcast_to(layout.weights()[first], (len(usable), len(first)))
    weights = np.zeros((len(first), len(usable)))
    np.maximum.at(weights, part_of, layout.weights(usable.T))
    return weights.T


def _sum_views(
    vectors: NDArray[np.float32],
    pile: NDArray[np.intp],
    weights: NDArray[np.floating],
    out: NDArray[np.float32],
) -> None:
    """Sum vectors (h, v, d) of each pile, weighted by (h, v), into `out` (h, piles, d)."""
    from scipy.sparse import csr_array

    shape = (out.shape[1], len(pile))
    for there, those, each in zip(out, vectors, weights, strict=True):
        share = csr_array((each.astype(np.float32), (pile, np.arange(len(pile)))), shape=shape)
        there[...] = share @ those


def vector_length(metric: str, size: tuple[int, int]) -> int:
    """Return how long a metric's unit vectors of maps (q, s) are."""
    return size[0] ** 2 if metric == "cka" else size[0] * size[1]


def _blocks(
    read: ReadMaps | ReadPieces, heads: int, size: tuple[int, int], n: int, memory: Memory
) -> Iterator[NDArray[np.floating]]:
    """Go through the maps of n rows as they are stored, so many rows (h, rows, q, s) at a time.

    All share one piece of memory.
    """
    together = max(1, min(n, _SORTED_VALUES // math.prod(size)))
    block, filled = np.empty((heads, 0, *size), np.float16), 0
    for maps in read(max(1, min(together, _CHUNK_VALUES // (heads * math.prod(size))))):
        by_head = maps.swapaxes(0, 1) if isinstance(maps, np.ndarray) else maps
        if not block.size:
            block = memory.array("block", (heads, together, *size), by_head[0].dtype)
        taken = 0
        while taken < len(by_head[0]):
            now = min(together - filled, len(by_head[0]) - taken)
            for there, those in zip(block, by_head, strict=True):
                there[filled : filled + now] = those[taken : taken + now]
            filled, taken = filled + now, taken + now
            if filled == together:
                yield block
                filled = 0
    if filled:
        yield block[:, :filled]


def _add_sorted(
    sums: NDArray[np.float32],
    usable: NDArray[np.bool_],
    block: NDArray[np.floating],
    part: NDArray[np.intp],
    metric: str,
) -> None:
    """Add the unit vectors of maps (h, n, q, s) to the sums (h, parts, d) of their parts (n,).

    Maps of one part are added while its sum is in the processor's cache, and are divided by their
    norm as they are added.
    """
    from scipy.sparse import csr_array

    order = np.argsort(part, kind="stable")
    together = max(1, _CACHED_VALUES // math.prod(block.shape[2:]))
    few = np.empty((together, *block.shape[2:]), block.dtype)
    for start in range(0, len(order), together):
        rows = order[start : start + together]
        of_row = part[rows]
        begins = np.flatnonzero(np.diff(of_row, prepend=-1))
        parts = of_row[begins]
        to_part = np.append(begins, len(rows)).astype(np.int32)
        column = np.arange(len(rows), dtype=np.int32)
        # "clip" saves the copy that "raise" makes; all are there.
        gathered = (
            [np.take(those, rows, axis=0, out=few[: len(rows)], mode="clip")] for those in block
        )
        for there, ok, (maps,) in zip(sums, usable, decode_pieces(gathered, together), strict=True):
            if metric == PLAIN:
                vectors, weights = maps, np.ones(len(rows), np.float32)
            else:
                vectors, norms, ok[rows] = vectors_and_norms(maps, metric)
                weights = ok[rows] / norms
            share = csr_array((weights, column, to_part), shape=(len(parts), len(rows)))
            there[parts] += share @ vectors.reshape(len(rows), -1)


def cell_mean_maps(layout: Layout, read: ReadMaps, *, size: tuple[int, int]) -> NDArray[np.float64]:
    """Average the maps of one head, segments too: (r, q, s), each view weighing the same."""
    k = len(layout.segments)
    q, s = size
    means = np.zeros((1, len(layout.subject) * k, q * s), dtype=np.float64)
    pile = layout.cell * k + layout.segment
    weights = layout.weights()
    for part, maps in _pieces(read, 1, size):
        vectors = maps.astype(np.float64).reshape(1, -1, q * s)
        vectors *= weights[part, None]
        _add(means, pile[part], vectors)
    there = np.zeros(len(layout.subject) * k)
    there[pile] = 1
    segments = there.reshape(-1, k).sum(axis=1)
    return means.reshape(-1, k, q, s).sum(axis=1) / segments[:, None, None]


def _pieces(
    read: ReadMaps | ReadPieces, heads: int, size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Go through decoded maps (h, n, q, s) with the rows that they belong to; of each few."""
    values = heads * size[0] * size[1]
    together = max(1, _CACHED_VALUES // values)
    by_head = (
        [*maps.swapaxes(0, 1)] if isinstance(maps, np.ndarray) else maps
        for maps in read(max(1, _CHUNK_VALUES // values))
    )
    start = 0
    for few in decode_pieces(by_head, together):
        yield slice(start, start + few.shape[1]), few
        start += few.shape[1]


def _add(
    piles: NDArray[np.floating], pile: NDArray[np.intp], vectors: NDArray[np.floating]
) -> None:
    """Add vectors (h, n, d) to their piles (h, piles, d)."""
    by_pile = piles.swapaxes(0, 1)
    for number, vector in zip(pile.tolist(), vectors.swapaxes(0, 1), strict=True):
        there = by_pile[number]
        np.add(there, vector, there)


def single_pair_means(sides: Sides, *, two_classes: bool) -> tuple[NDArray, NDArray]:
    """Take W and B over all pairs of single maps of different subjects.

    Each pair of maps weighs the same, so that subjects weigh by their number of videos: what a
    loop over pairs computes. Like segments are compared, then averaged.

    Parameters
    ----------
    sides
        The sums of the class and of the others.
    two_classes
        W is then the mean of both classes' W.

    Returns
    -------
    within, between : (h,) float64
        NaN without a pair.
    """

    def mean(a: int, b: int) -> NDArray[np.float64]:
        first, second = sides.sums[a].astype(np.float64), sides.sums[b].astype(np.float64)
        total = (first.sum(0) * second.sum(0)).sum(-1) - (first * second).sum((0, -1))
        n, m = sides.counts[a], sides.counts[b]
        pairs = n.sum(0) * m.sum(0) - (n * m).sum(0)
        there = pairs > 0
        ratio = np.where(there, total / np.maximum(pairs, 1), 0.0).sum(axis=-1)
        segments = there.sum(axis=-1)
        return np.where(segments > 0, ratio / np.maximum(segments, 1), np.nan)

    within = mean(0, 0)
    if two_classes:
        within = (within + mean(1, 1)) / 2
    return within, mean(0, 1)
