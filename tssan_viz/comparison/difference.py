"""Where two groups of maps differ: the mean map of each, their difference, and a test of cells.

Axis letters: c cells (subject × class), h heads (of all layers), q query and s key frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from tssan_viz.comparison.cell_layers import choose, iter_cell_maps, one_size, records
from tssan_viz.comparison.exchange import Exchange, MaxT, plan_exchange
from tssan_viz.comparison.reading import Progress
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

# Above this two-sided p of a single cell, cells do not form clusters.
CLUSTER_FORMING_P = 0.01
# Clusters are looked for in no more than so many assignments, as each costs a labelling.
_CLUSTER_ASSIGNMENTS = 1000
# Neighbours are one frame apart in query or key, in one map.
_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_NEIGHBOURS[1] = [[False, True, False], [True, True, True], [False, True, False]]


@dataclass(frozen=True, eq=False)
class DifferenceMaps:
    """What `difference_maps` found.

    Attributes
    ----------
    mean_a, mean_b, difference : (h, q, s) float32
        Mean maps over subjects, each weighing the same, and a − b.
    z : (h, q, s) float32
        The difference over its standard deviation over all assignments; 0 where nothing moves, NaN
        without a test.
    p : (h, q, s) float64
        p max-T, two-sided: holds for all cells of all maps together. NaN without a test.
    significant : (h, q, s) bool
        p ≤ alpha.
    cluster : (h, q, s) int
        The number of the cell's cluster in `clusters`, 0 for none.
    clusters : DataFrame
        ``cluster``, ``layer``, ``head``, ``sign``, ``cells``, ``p``: connected cells whose |z|
        passes the threshold, with the p of so large a cluster in any map (Maris & Oostenveld
        2007). It says that the maps differ there somewhere, not in which of its cells.
    layers, heads : tuple of int
        Of each map (h), counted from 1.
    subjects_a, subjects_b : tuple of int
        Who is in the means.
    n_subjects : int
    exchange : str
        What is exchanged.
    n_permutations, n_assignments, enumerated, smallest_p, seed, alpha, tested
        How it was tested.
    n_cluster_permutations : int
        Assignments that clusters are compared with, a sample where there are more than 1,000.
    notes : list of str
    """

    mean_a: NDArray[np.float32]
    mean_b: NDArray[np.float32]
    difference: NDArray[np.float32]
    z: NDArray[np.float32]
    p: NDArray[np.float64]
    significant: NDArray[np.bool_]
    cluster: NDArray[np.int64]
    clusters: pd.DataFrame
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    subjects_a: tuple[int, ...]
    subjects_b: tuple[int, ...]
    n_subjects: int
    exchange: str
    n_permutations: int
    n_cluster_permutations: int
    n_assignments: int
    enumerated: bool
    smallest_p: float
    seed: int
    alpha: float
    tested: bool
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One line per layer and head: where the largest difference lies, and what is significant.

        ``largest`` is the difference of largest size, at ``query`` and ``key`` (frames from 0);
        ``p`` the smallest p max-T of the map; ``cells`` how many are significant; ``cluster_p`` the
        smallest p of a cluster, NaN where there is none.
        """
        h, _, s = self.difference.shape
        at = np.abs(self.difference).reshape(h, -1).argmax(axis=1)
        by_map = self.clusters.groupby(["layer", "head"])["p"].min().to_dict()
        sites = list(zip(self.layers, self.heads, strict=True))
        return pd.DataFrame(
            {
                "layer": self.layers,
                "head": self.heads,
                "largest": self.difference.reshape(h, -1)[np.arange(h), at],
                "query": at // s,
                "key": at % s,
                "p": self.p.reshape(h, -1).min(axis=1),
                "cells": self.significant.sum(axis=(1, 2)),
                "cluster_p": [by_map.get(site, np.nan) for site in sites],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as plain values for JSON."""
        return {
            "table": records(self.table),
            "clusters": records(self.clusters),
            "subjects_a": list(self.subjects_a),
            "subjects_b": list(self.subjects_b),
            "test": {
                "statistic": "difference over its standard deviation over all assignments",
                "alternative": "two-sided",
                "exchange": self.exchange,
                "permutations": self.n_permutations,
                "assignments": self.n_assignments,
                "enumerated": self.enumerated,
                "smallest_p": self.smallest_p if self.tested else None,
                "seed": None if self.enumerated else self.seed,
                "alpha": self.alpha,
                "correction": "max-T over all cells of all maps",
                "cluster_forming_p": CLUSTER_FORMING_P,
                "cluster_permutations": self.n_cluster_permutations,
            },
            "notes": self.notes,
        }


def difference_maps(
    selection_a: Selection,
    selection_b: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    split: str | None = None,
    person: int = 1,
    permutations: int = 5000,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> DifferenceMaps:
    """Compare the mean maps of two groups of rows, cell by cell.

    What is exchanged depends on how the groups differ: see
    `tssan_viz.comparison.exchange.plan_exchange`.

    Parameters
    ----------
    selection_a, selection_b
        The groups, of one run and without a row in common.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    permutations
        Assignments to draw; when there are no more than that, all are gone through.
    seed
        Of the draw.
    alpha
        Level of `significant`.
    progress
        Called with (what, done, total).

    Returns
    -------
    DifferenceMaps

    Raises
    ------
    UserError
        The groups share rows or come from different runs, layers differ in size, or nothing can
        be compared.
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}: it lies between 0 and 1")
    a = choose(selection_a, layer=layer, head=head, split=split, person=person)
    b = choose(selection_b, layer=layer, head=head, split=split, person=person)
    size = one_size(a.selection)
    exchange, _ = plan_exchange(a, b, permutations=permutations, seed=seed)

    def pieces() -> Iterator[tuple[int, list[int], NDArray[np.float32]]]:
        for (number, heads, of_a), (_, _, of_b) in zip(
            iter_cell_maps(a, progress), iter_cell_maps(b, progress), strict=True
        ):
            yield number, heads, np.concatenate([of_a, of_b])

    notes = list(dict.fromkeys([*a.notes, *b.notes, *exchange.notes]))
    return _compare(exchange, pieces(), size, seed, alpha, notes, progress)


def _compare(
    exchange: Exchange,
    pieces: Iterator[tuple[int, list[int], NDArray[np.float32]]],
    size: tuple[int, int],
    seed: int,
    alpha: float,
    notes: list[str],
    progress: Progress | None,
) -> DifferenceMaps:
    """Go through the layers, so that memory holds the cells of one layer."""
    tested = exchange.weights is not None
    top = MaxT.of(exchange)
    clusters = _Clusters(exchange, seed)
    layers: list[int] = []
    heads: list[int] = []
    means: list[tuple[NDArray, NDArray]] = []
    for number, of_layer, maps in pieces:
        flat = maps.reshape(len(maps), -1)
        each = exchange.means(flat)
        means.append((np.nanmean(each[0], axis=0), np.nanmean(each[1], axis=0)))
        if tested:
            units = np.asarray(exchange.to_units @ flat, np.float32)
            if progress is not None:
                progress("permuting", 0, 1)
            top.add(units, partial(clusters.add, shape=(len(of_layer), *size)))
        layers += [number] * len(of_layer)
        heads += of_layer
    shape = (len(layers), *size)
    mean_a = np.concatenate([a for a, _ in means]).reshape(shape)
    mean_b = np.concatenate([b for _, b in means]).reshape(shape)
    z, p = np.full(shape, np.nan), np.full(shape, np.nan)
    cluster, table = np.zeros(shape, np.int64), clusters.nothing
    if tested:
        z = np.concatenate(top.observed).reshape(shape)
        p = np.concatenate(top.finish()[1]).reshape(shape)
        cluster, table = clusters.finish(z, layers, heads)
    else:
        notes.append(f"no test: {exchange.reason}")
    if tested and exchange.smallest_p > alpha:
        notes.append(
            f"the smallest possible p is {exchange.smallest_p:.2g}, so that p ≤ {alpha:g} is out "
            "of reach with so few subjects"
        )
    in_a, in_b = (
        tuple(s for s, weights in zip(exchange.subjects, w, strict=True) if weights.any())
        for w in (exchange.of_a, exchange.of_b)
    )
    return DifferenceMaps(
        mean_a=mean_a.astype(np.float32),
        mean_b=mean_b.astype(np.float32),
        difference=(mean_a - mean_b).astype(np.float32),
        z=z.astype(np.float32),
        p=p,
        significant=np.nan_to_num(p, nan=1.0) <= alpha,
        cluster=cluster,
        clusters=table,
        layers=tuple(layers),
        heads=tuple(heads),
        subjects_a=in_a,
        subjects_b=in_b,
        n_subjects=len(exchange.subjects),
        exchange=exchange.what,
        n_permutations=exchange.n_drawn,
        n_cluster_permutations=clusters.n_drawn,
        n_assignments=exchange.n_assignments,
        enumerated=exchange.enumerated,
        smallest_p=exchange.smallest_p,
        seed=seed,
        alpha=alpha,
        tested=tested,
        notes=notes,
    )


class _Clusters:
    """The largest cluster of each assignment, over all maps."""

    nothing = pd.DataFrame(
        {name: [] for name in ("cluster", "layer", "head", "sign", "cells", "p")}
    )

    def __init__(self, exchange: Exchange, seed: int) -> None:
        self._exchange = exchange
        self._threshold = exchange.threshold(CLUSTER_FORMING_P)
        n = exchange.n_drawn
        # All assignments stand in an order, so that the first of them would be no sample.
        others = np.random.default_rng(seed).permutation(n)[:_CLUSTER_ASSIGNMENTS] + 1
        self._lines = np.concatenate([np.zeros(min(n, 1), np.intp), np.sort(others)])
        self._largest = np.zeros(len(self._lines), np.int64)

    @property
    def n_drawn(self) -> int:
        """Assignments that clusters are compared with, the observed one not among them."""
        return max(len(self._lines) - 1, 0)

    def add(self, start: int, z: NDArray[np.float32], shape: tuple[int, int, int]) -> None:
        """Look at z (a, f) of assignments, from `start` on, of maps of a shape (h, q, s)."""
        first, stop = np.searchsorted(self._lines, [start, start + len(z)])
        mine = z[self._lines[first:stop] - start].reshape(-1, *shape)
        largest = _largest_clusters(mine, self._threshold)
        np.maximum(self._largest[first:stop], largest, out=self._largest[first:stop])

    def _found(self, z: NDArray[np.floating]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Label the clusters of either sign of maps (h, q, s)."""
        for sign in (1, -1):
            yield ndimage.label(sign * z >= self._threshold, structure=_NEIGHBOURS)

    def finish(
        self, z: NDArray[np.float64], layers: list[int], heads: list[int]
    ) -> tuple[NDArray[np.int64], pd.DataFrame]:
        numbered = np.zeros(z.shape, np.int64)
        lines = []
        for sign, (found, count) in zip(("a > b", "a < b"), self._found(z), strict=True):
            for number in range(1, count + 1):
                where = found == number
                cells = int(where.sum())
                h = int(np.argwhere(where)[0, 0])
                p = float((self._largest >= cells).mean())
                lines.append((where, layers[h], heads[h], sign, cells, p))
        lines.sort(key=lambda line: (line[5], -line[4]))
        for i, line in enumerate(lines, start=1):
            numbered[line[0]] = i
        if not lines:
            return numbered, self.nothing
        table = pd.DataFrame(
            [(i, *line[1:]) for i, line in enumerate(lines, start=1)], columns=self.nothing.columns
        )
        return numbered, table


def _largest_clusters(z: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Return the cells of the largest cluster of each assignment of z (a, h, q, s): (a,).

    What passes the threshold is a small part of the cells, so that a graph of these alone is
    labelled in one go.
    """
    sign = (z >= threshold).astype(np.int8)
    sign -= z <= -threshold
    flat = sign.reshape(-1)
    passed = np.flatnonzero(flat)
    n, (q, s) = len(passed), z.shape[2:]
    if not n:
        return np.zeros(len(z), np.int64)
    edges = []
    for step, there in ((1, passed % s < s - 1), (s, passed // s % q < q - 1)):
        first = np.flatnonzero(there)
        next_to = passed[first] + step
        joined = flat[passed[first]] == flat[next_to]
        edges.append((first[joined], np.searchsorted(passed, next_to[joined])))
    one, other = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(n, n))
    _, cluster = csgraph.connected_components(graph, directed=False)
    largest = np.zeros(len(z), np.int64)
    np.maximum.at(largest, passed // sign[0].size, np.bincount(cluster)[cluster])
    return largest
