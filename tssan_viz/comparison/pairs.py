"""Distances between maps that have no unit-vector form, on stratified pairs of subjects.

Jensen-Shannon divergence, total variation and Wasserstein-1 over frames are taken of single maps,
row by row, and averaged; never of mean maps, whose distances depend on how many maps went into
them. Every two cells (subject × class) of different subjects get the same number of pairs. Axis
letters: r cells, h heads, n rows, p drawn pairs, q and s query and key frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tssan_viz.comparison.alignment import AlignedSelection
from tssan_viz.comparison.cell_layers import (
    Chosen,
    choose,
    enough_classes_and_subjects,
    probabilities_only,
    records,
)
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.statistics import Gram
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

Distance = Literal["jsd", "wasserstein", "tv"]
DISTANCES: tuple[str, ...] = get_args(Distance)

# A row whose sum is below this is masked in full.
_NOTHING = 1e-6
# Values of maps that are compared at once.
_PIECE_VALUES = 1 << 18
# About so many pairs of maps are drawn for each head when nothing else is asked for.
_PAIRS = 200_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Maps (n, q, s) made ready for a metric, so that what is of one map is computed once.

    `values` are probabilities, or their sums from the first frame on (Wasserstein); `entropy` is
    that of each row (n, q), for Jensen-Shannon; `there` says which rows attend to anything.
    """

    metric: str
    values: NDArray[np.floating]
    entropy: NDArray[np.floating]
    there: NDArray[np.bool_]
    step: float

    @classmethod
    def of(cls, maps: ArrayLike, metric: str, step: float = 1.0) -> _Prepared:
        if metric not in DISTANCES:
            raise UserError(f"unknown distance {metric!r}: choose one of {', '.join(DISTANCES)}")
        a = np.asarray(maps)
        a = a.astype(np.float32 if a.dtype == np.float16 else a.dtype, copy=False)
        if not np.isfinite(a).all() or (a.size and a.min() < 0):
            raise UserError(
                "distances of this kind are between probabilities: the maps have values that are "
                "negative or no numbers"
            )
        total = a.sum(axis=-1, keepdims=True)
        there = np.asarray(total > _NOTHING)
        a = a / np.where(there, total, 1)
        entropy = _entropy(a) if metric == "jsd" else np.zeros(a.shape[:-1], a.dtype)
        values = np.cumsum(a, axis=-1) if metric == "wasserstein" else a
        return cls(metric, values, entropy, there[..., 0], step)

    def __getitem__(self, rows: NDArray[np.intp]) -> _Prepared:
        return _Prepared(
            self.metric, self.values[rows], self.entropy[rows], self.there[rows], self.step
        )

    def distance(self, other: _Prepared) -> Floats:
        """Return the distance of each map from the other's, mean over the rows that both have."""
        if self.metric == "jsd":
            mixed = _entropy((self.values + other.values) / 2)
            rows = np.maximum(mixed - (self.entropy + other.entropy) / 2, 0)
        elif self.metric == "tv":
            rows = np.abs(self.values - other.values).sum(axis=-1) / 2
        else:
            apart = np.abs(self.values - other.values)[..., :-1]
            rows = apart.sum(axis=-1) * self.step
        there = self.there & other.there
        n = there.sum(axis=-1)
        total = np.where(there, rows, 0).sum(axis=-1, dtype=np.float64)
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _entropy(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return −Σ p ln p over the last axis; 0 ln 0 = 0."""
    return -(p * np.log(np.maximum(p, np.finfo(p.dtype).tiny))).sum(axis=-1)


def distances(p: ArrayLike, q: ArrayLike, metric: str, step: float = 1.0) -> Floats:
    """Compare maps row by row, mean over the rows that attend to anything in both.

    Parameters
    ----------
    p, q : (..., q, s)
        Maps, rows summing to 1.
    metric
        ``jsd``: Jensen-Shannon divergence ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q)/2, in nats from 0
        to ln 2 (Lin 1991); its root is what `scipy.spatial.distance.jensenshannon` returns.
        ``tv``: total variation ½ Σ|p − q|, from 0 to 1.
        ``wasserstein``: Σ_k |CDF_p(k) − CDF_q(k)| Δt, for which what moves by one frame costs Δt.
    step
        Δt.

    Returns
    -------
    (...) float64
        NaN where no row attends to anything in both.

    Raises
    ------
    UserError
        No distance has that name, the maps differ in size, or they are no probabilities.
    """
    a, b = _Prepared.of(p, metric, step), _Prepared.of(q, metric, step)
    if a.values.shape[-2:] != b.values.shape[-2:]:
        (q1, s1), (q2, s2) = a.values.shape[-2:], b.values.shape[-2:]
        raise UserError(f"maps of {q1} × {s1} and {q2} × {s2} frames cannot be compared row by row")
    return a.distance(b)


@dataclass(frozen=True, eq=False)
class PairDistances:
    """What `pair_distances` found.

    Attributes
    ----------
    table : DataFrame
        One line per layer and head: ``within``, the mean distance of one class in two subjects;
        ``between``, of two classes in two subjects; ``difference`` between − within, so that
        more than 0 says that classes are told apart; ``within_error``, ``between_error``: the
        standard error that comes from drawing pairs alone (0 when all were formed).
    distance, error : (r, r, h) float32
        Of each two cells, with the standard error from drawing (NaN with one pair each); NaN
        within a subject and where two cells share no segment. Heads of all layers, as in `sites`.
    sites : DataFrame
        ``layer``, ``head``.
    subject, label : (r,) int
        Of each cell, the subject as a position.
    pairs : int
        Pairs of maps drawn for each two cells; 0 when all were formed.
    n_pairs : int
        In all, for each head.
    n_subjects, n_classes, seed : int
    metric, units : str
    notes : list of str
    """

    table: pd.DataFrame
    distance: NDArray[np.float32]
    error: NDArray[np.float32]
    sites: pd.DataFrame
    subject: NDArray[np.intp]
    label: NDArray[np.intp]
    pairs: int
    n_pairs: int
    n_subjects: int
    n_classes: int
    seed: int
    metric: str
    units: str
    notes: list[str]

    def gram(self, layer: int) -> Gram:
        """Return minus the distances of a layer's heads, for the tests that take similarities.

        Within a subject, where no test looks, stands 0.
        """
        chosen = self.sites["layer"].to_numpy() == layer
        values = -self.distance[:, :, chosen]
        there = np.isfinite(values)
        apart = (self.subject[:, None] != self.subject)[..., None]
        values = np.ascontiguousarray(np.where(there, values, 0.0), np.float32)
        return Gram(values, None if (there | ~apart).all() else there)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not defined is None."""
        return {
            "table": records(self.table),
            "metric": self.metric,
            "units": self.units,
            "pairs_per_cell_pair": self.pairs or None,
            "pairs": self.n_pairs,
            "n_subjects": self.n_subjects,
            "n_classes": self.n_classes,
            "seed": self.seed if self.pairs else None,
            "notes": self.notes,
        }


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Pairs of rows: of which two cells (as a position in `first`, `second`), and their weight."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    of: NDArray[np.intp]
    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    weight: Floats
    all_of_them: bool


def draw_pairs(chosen: Chosen, pairs: int | None, seed: int) -> _Drawn:
    """Draw pairs of rows of like segments for every two cells of different subjects.

    A cell's rows are drawn with the weights that they have in its mean, so that views count the
    same. When the pairs asked for are as many as there are, all are formed with their weights.
    """
    layout = chosen.layout
    r, k = len(layout.subject), len(layout.segments)
    first, second = np.triu_indices(r, 1)
    apart = layout.subject[first] != layout.subject[second]
    first, second = first[apart], second[apart]
    pile = layout.cell * k + layout.segment
    weight = layout.weights()
    order = np.argsort(pile, kind="stable")
    count = np.bincount(pile, minlength=r * k).reshape(r, k)
    shared = (count[first] > 0) & (count[second] > 0)
    some = shared.any(axis=1)
    first, second, shared = first[some], second[some], shared[some]
    if not len(first):
        raise UserError("no two subjects have a segment in common, so that no pair can be formed")
    possible = (count[first] * count[second]).sum(axis=1)
    wanted = max(1, _PAIRS // len(first)) if pairs is None else pairs
    start = np.concatenate([[0], np.cumsum(count.reshape(-1))[:-1]]).reshape(r, k)
    if possible.max() <= wanted:
        return _every_pair(first, second, shared, count, start, order, weight)
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(first)), wanted)
    # One of the segments that both have, each alike.
    nth = (rng.random(len(of)) * shared.sum(axis=1)[of]).astype(np.intp)
    segment = (np.cumsum(shared[of], axis=1) <= nth[:, None]).sum(axis=1)
    passed = np.cumsum(weight[order])
    before = np.concatenate([[0.0], passed])

    def rows(cells: NDArray[np.intp]) -> NDArray[np.intp]:
        low = start[cells, segment]
        high = low + count[cells, segment]
        at = before[low] + rng.random(len(cells)) * (before[high] - before[low])
        return order[np.clip(np.searchsorted(passed, at, side="right"), low, high - 1)]

    even = np.full(len(of), 1 / wanted)
    return _Drawn(first, second, of, rows(first[of]), rows(second[of]), even, False)


def _every_pair(
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    shared: NDArray[np.bool_],
    count: NDArray[np.intp],
    start: NDArray[np.intp],
    order: NDArray[np.intp],
    weight: Floats,
) -> _Drawn:
    of, rows_a, rows_b, weights = [], [], [], []
    for segment in range(shared.shape[1]):
        both = np.flatnonzero(shared[:, segment])
        n_a, n_b = count[first[both], segment], count[second[both], segment]
        n = n_a * n_b
        mine = np.repeat(np.arange(len(both)), n)
        nth = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        a = order[start[first[both], segment][mine] + nth // n_b[mine]]
        b = order[start[second[both], segment][mine] + nth % n_b[mine]]
        of.append(both[mine])
        rows_a.append(a)
        rows_b.append(b)
        weights.append(weight[a] * weight[b] / shared.sum(axis=1)[both[mine]])
    return _Drawn(
        first,
        second,
        np.concatenate(of),
        np.concatenate(rows_a),
        np.concatenate(rows_b),
        np.concatenate(weights),
        True,
    )


def pair_distances(
    selection: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "jsd",
    pairs: int | None = None,
    split: str | None = None,
    person: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairDistances:
    """Compare maps of different subjects with a distance that has no unit-vector form.

    Parameters
    ----------
    selection
        What is asked about.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    metric
        ``jsd`` (nats), ``wasserstein`` (seconds, or frames where seconds are not known) or ``tv``.
    pairs
        Pairs of maps for each two cells; None for as many as take about 200,000 for a head, and
        all of them where there are no more.
    seed
        Of the draw.
    progress
        Called with (what, done, total).

    Returns
    -------
    PairDistances

    Raises
    ------
    UserError
        An unknown metric, fewer than two subjects or classes, or maps that are no probabilities.
    """
    if metric not in DISTANCES:
        raise UserError(f"unknown distance {metric!r}: choose one of {', '.join(DISTANCES)}")
    if pairs is not None and pairs < 1:
        raise UserError(f"pairs is {pairs}: at least 1 is needed")
    chosen = choose(selection, layer=layer, head=head, split=split, person=person)
    enough_classes_and_subjects(chosen)
    probabilities_only(chosen.selection, f"distances like {metric}")
    drawn = draw_pairs(chosen, pairs, seed)
    step, units = _step(chosen) if metric == "wasserstein" else (1.0, "nats")
    units = "share" if metric == "tv" else units
    layers = heads_of_layers(chosen.selection)
    sites = [(number, h) for number, (heads, _) in layers.items() for h in heads]
    r = len(chosen.subject)
    distance, error = np.full((2, r, r, len(sites)), np.nan, np.float32)
    lines = []
    for i, (number, h) in enumerate(sites):
        maps = _maps_of_head(chosen.selection, number, h)
        mean, spread = _head(drawn, maps, metric, step)
        distance[drawn.first, drawn.second, i] = distance[drawn.second, drawn.first, i] = mean
        error[drawn.first, drawn.second, i] = error[drawn.second, drawn.first, i] = spread
        lines.append(_line(chosen, drawn, mean, spread))
        if progress is not None:
            progress("comparing pairs", i + 1, len(sites))
    where = pd.DataFrame(sites, columns=["layer", "head"])
    per_cells = 0 if drawn.all_of_them else len(drawn.of) // len(drawn.first)
    notes = list(chosen.notes)
    notes.append(
        f"all {len(drawn.of):,} pairs of maps of different subjects were compared"
        if drawn.all_of_them
        else f"{per_cells} pairs of maps were drawn for each two cells of different subjects, "
        f"{len(drawn.of):,} in all; errors say what drawing leaves open"
    )
    return PairDistances(
        table=pd.concat([where, pd.DataFrame(lines)], axis=1),
        distance=distance,
        error=error,
        sites=where,
        subject=chosen.subject,
        label=chosen.label,
        pairs=per_cells,
        n_pairs=len(drawn.of),
        n_subjects=len(chosen.layout.subjects),
        n_classes=len(chosen.layout.labels),
        seed=seed,
        metric=metric,
        units=units,
        notes=notes,
    )


def _step(chosen: Chosen) -> tuple[float, str]:
    """Return the mean time between frames over all videos; frames where it is not known."""
    if isinstance(chosen.selection, AlignedSelection):
        steps = list(chosen.selection.alignment.step.values())
        return (float(np.mean(steps)), "seconds") if steps else (1.0, "frames")
    names = list(dict.fromkeys(chosen.selection.rows()["sample"]))
    steps = [
        float(np.diff(sample.seconds, axis=1).mean())
        for sample in chosen.selection.store.stored_samples(chosen.selection.run, names)
        if sample.seconds is not None and sample.seconds.shape[1] > 1
    ]
    if len(steps) < len(names):
        return 1.0, "frames"
    chosen.notes.append(
        "distances in seconds take the mean time between frames over all videos, as maps are "
        "compared in phase"
    )
    return float(np.mean(steps)), "seconds"


def _maps_of_head(selection: Selection, layer: int, head: int) -> NDArray[np.float32]:
    """Return the maps (n, q, s) of one head."""
    part = selection.select(layer=layer, head=head)
    site = site_of(selection, layer)
    maps = np.empty((len(selection), site["query"], site["key"]), np.float32)
    piece = max(1, _PIECE_VALUES // (site["query"] * site["key"]))
    start = 0
    for found in map_reader(part)(piece):
        maps[start : start + len(found)] = found[:, 0]
        start += len(found)
    return maps


def _head(
    drawn: _Drawn, maps: NDArray[np.floating], metric: str, step: float
) -> tuple[Floats, Floats]:
    """Return the mean distance of each two cells, and its error from drawing."""
    n = len(drawn.first)
    each = np.empty(len(drawn.of))
    ready = _Prepared.of(maps, metric, step)
    piece = max(1, _PIECE_VALUES // (maps.shape[1] * maps.shape[2]))
    for start in range(0, len(each), piece):
        part = slice(start, start + piece)
        each[part] = ready[drawn.rows_a[part]].distance(ready[drawn.rows_b[part]])
    mean: Floats = np.bincount(drawn.of, drawn.weight * each, n).astype(np.float64)
    if drawn.all_of_them:
        return mean, np.zeros(n)
    m = len(each) // n
    if m < 2:
        return mean, np.full(n, np.nan)
    squares: Floats = np.bincount(drawn.of, (each - mean[drawn.of]) ** 2, n).astype(np.float64)
    return mean, np.sqrt(squares / (m - 1) / m)


def _line(chosen: Chosen, drawn: _Drawn, mean: Floats, error: Floats) -> dict[str, float]:
    """Average over pairs of subjects, each weighing the same whatever its number of classes."""
    n = len(chosen.layout.subjects)
    pair = chosen.subject[drawn.first] * n + chosen.subject[drawn.second]
    same = chosen.label[drawn.first] == chosen.label[drawn.second]
    known = np.isfinite(mean)
    line = {}
    for what, mine in (("within", same & known), ("between", ~same & known)):
        if not mine.any():
            line[what] = line[f"{what}_error"] = np.nan
            continue
        _, of, cells = np.unique(pair[mine], return_inverse=True, return_counts=True)
        weight = 1 / cells[of.reshape(-1)] / len(cells)
        values, errors = mean[mine], error[mine]
        line[what] = float((weight * values).sum())
        if np.isnan(errors).any():
            # One pair each: what differs between cells as well is counted in.
            errors = np.full(len(values), values.std(ddof=1) if len(values) > 1 else np.nan)
        line[f"{what}_error"] = float(np.sqrt((weight**2 * errors**2).sum()))
    line["difference"] = line["between"] - line["within"]
    return line
