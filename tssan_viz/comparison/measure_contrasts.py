"""Whether two groups differ in a measure of their maps, with subjects as the unit.

Axis letters: n rows, c cells (subject × class), s subjects, h heads, f values (heads × measures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.alignment import AlignedSelection, row_keys
from tssan_viz.comparison.cell_layers import Chosen, choose, probabilities_only, records
from tssan_viz.comparison.exchange import Exchange, MaxT, plan_exchange
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.statistics import (
    MIN_SUBJECTS_FOR_INTERVAL,
    false_discovery_rate,
    hedges_g,
    jackknife_interval,
    small_sample_correction,
    t_quantile,
)
from tssan_viz.errors import UserError
from tssan_viz.measures import MEASURES, joint_speed
from tssan_viz.measures import measure as measure_maps
from tssan_viz.measures.named import NEED_POSES, NEED_SECONDS, STORED, check_measures
from tssan_viz.selection import Selection

# Maps that are measured at once: their values as float64 stay in the cache's reach.
_PIECE_VALUES = 1 << 21

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasureContrasts:
    """What `measure_contrasts` found.

    Attributes
    ----------
    table : DataFrame
        One line per layer, head and measure: ``mean_a``, ``mean_b`` (over subjects, each weighing
        the same), ``difference``, ``hedges_g``, ``cliffs_delta``, ``low``, ``high`` (jackknife over
        subjects; NaN under six, of two groups of subjects in the smaller one), ``p`` (this line
        alone, two-sided), ``p_max_t`` (all lines together), ``q`` (false discovery rate). NaN where
        a measure is not defined for all cells.
    subjects : DataFrame
        The values behind it: ``subject``, ``layer``, ``head``, ``measure``, ``a``, ``b``.
    exchange : str
        What is exchanged.
    n_subjects, n_permutations, n_assignments, enumerated, smallest_p, seed, alpha, tested
        How it was tested.
    notes : list of str
    """

    table: pd.DataFrame
    subjects: pd.DataFrame
    exchange: str
    n_subjects: int
    n_permutations: int
    n_assignments: int
    enumerated: bool
    smallest_p: float
    seed: int
    alpha: float
    tested: bool
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not defined is None."""
        n = int(self.table["p"].notna().sum())
        return {
            "table": records(self.table),
            "measures": {name: MEASURES[name] for name in self.table["measure"].unique()},
            "n_subjects": self.n_subjects,
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
                "corrections": {
                    "p_max_t": f"max-T (Westfall-Young) over {n} lines",
                    "q": f"Benjamini-Hochberg over {n} lines",
                },
            },
            "notes": self.notes,
        }


def cliffs_delta(a: Floats, b: Floats) -> Floats:
    """Share of pairs with a larger minus share with b larger: from −1 to 1 (Cliff 1993).

    Parameters
    ----------
    a, b : (n, f) and (m, f)
        NaN is left out.

    Returns
    -------
    (f,) float64
        NaN where either has no value.
    """
    found = np.full(a.shape[1], np.nan)
    for f in range(a.shape[1]):
        x, y = a[np.isfinite(a[:, f]), f], b[np.isfinite(b[:, f]), f]
        if len(x) and len(y):
            found[f] = np.sign(x[:, None] - y).mean()
    return found


def hedges_g_of_groups(a: Floats, b: Floats) -> Floats:
    """Difference of means over the pooled standard deviation × J(n + m − 2) (Hedges 1981).

    Parameters
    ----------
    a, b : (n, f) and (m, f)
        NaN is left out.

    Returns
    -------
    (f,) float64
        NaN with fewer than two values in either group, or where nothing varies.
    """
    found = np.full(a.shape[1], np.nan)
    for f in range(a.shape[1]):
        x, y = a[np.isfinite(a[:, f]), f], b[np.isfinite(b[:, f]), f]
        if min(len(x), len(y)) < 2:
            continue
        m = len(x) + len(y) - 2
        pooled = np.sqrt(((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / np.sqrt(m)
        if pooled > 0:
            found[f] = (x.mean() - y.mean()) / pooled * small_sample_correction(m)
    return found


def measure_contrasts(
    selection_a: Selection,
    selection_b: Selection,
    *,
    measures: Sequence[str] | None = None,
    layer: int | str = "all",
    head: int | None = None,
    split: str | None = None,
    person: int = 1,
    permutations: int = 5000,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> MeasureContrasts:
    """Compare two groups of rows in measures of their maps.

    A subject's value is the mean over its classes, of the means over views, then replications and
    segments. What is exchanged depends on how the groups differ: see
    `tssan_viz.comparison.exchange.plan_exchange`.

    Parameters
    ----------
    selection_a, selection_b
        The groups, of one run and without a row in common.
    measures
        Of `tssan_viz.measures.MEASURES`; None for all. Those that were recorded are read as they
        are, the others are computed from the maps.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    permutations
        Assignments to draw; when there are no more than that, all are gone through.
    seed
        Of the draw.
    alpha
        Intervals cover 1 − alpha.
    progress
        Called with (what, done, total).

    Returns
    -------
    MeasureContrasts

    Raises
    ------
    UserError
        An unknown measure, groups that share rows or come from different runs, or nothing to
        compare.
    """
    names = list(MEASURES) if measures is None else list(dict.fromkeys(measures))
    check_measures(names)
    if not names:
        raise UserError(f"name at least one measure of {', '.join(MEASURES)}")
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}: it lies between 0 and 1")
    a = choose(selection_a, layer=layer, head=head, split=split, person=person)
    b = choose(selection_b, layer=layer, head=head, split=split, person=person)
    probabilities_only(a.selection, "measures")
    exchange, _ = plan_exchange(a, b, permutations=permutations, seed=seed)
    sites, of_a = cell_measures(a, names, progress)
    _, of_b = cell_measures(b, names, progress)
    notes = list(dict.fromkeys([*a.notes, *b.notes, *exchange.notes]))
    return _contrast(exchange, np.concatenate([of_a, of_b]), sites, names, seed, alpha, notes)


def cell_measures(
    chosen: Chosen, names: Sequence[str], progress: Progress | None = None
) -> tuple[list[tuple[int, int]], Floats]:
    """Measure the maps of each cell, each view weighing the same.

    Returns
    -------
    sites : list of (layer, head)
    values : (c, h · measures) float64
        Measures of a head side by side; NaN where no map of a cell has one.
    """
    selection = chosen.selection
    stored = _stored(selection, names)
    computed = [name for name in names if name not in stored]
    speed, seconds = _motion(chosen, computed)
    sites: list[tuple[int, int]] = []
    parts = []
    layers = heads_of_layers(selection)
    for done, (number, (heads, _)) in enumerate(layers.items()):
        values = np.full((len(selection), len(heads), len(names)), np.nan)
        for name in stored:
            values[:, :, names.index(name)] = _stored_values(selection, name, number, heads)
        if computed:
            part = selection.select(layer=number, head=heads)
            site = site_of(selection, number)
            at = [names.index(name) for name in computed]
            piece = max(1, _PIECE_VALUES // (len(heads) * site["query"] * site["key"]))
            start = 0
            for maps in map_reader(part, progress, done, len(layers))(piece):
                rows = slice(start, start + len(maps))
                found = measure_maps(
                    maps,
                    computed,
                    speed=None if speed is None else speed[rows, None],
                    seconds=None if seconds is None else seconds[rows, None],
                )
                values[rows][..., at] = np.stack([found[name] for name in computed], axis=-1)
                start += len(maps)
        parts.append(_cell_means(chosen, values.reshape(len(selection), -1)))
        sites += [(number, head) for head in heads]
    return sites, np.concatenate(parts, axis=1)


def _stored(selection: Selection, names: Sequence[str]) -> list[str]:
    """Return the measures that the recording holds for maps as they are."""
    recorded = selection.store.measures(selection.run)
    return [
        name
        for name in names
        if type(selection) is Selection
        and name in STORED
        and STORED[name] in recorded
        and recorded[STORED[name]].notna().all()
    ]


def _stored_values(selection: Selection, name: str, layer: int, heads: list[int]) -> Floats:
    recorded = selection.select(layer=layer, head=heads).measures()
    wide = recorded.pivot(index="row_id", columns="head", values=STORED[name])
    return wide.loc[selection.rows()["row_id"], heads].to_numpy(np.float64)


def _motion(chosen: Chosen, names: Sequence[str]) -> tuple[Floats | None, Floats | None]:
    """Return the speed of the joints and the seconds of each row's frames: (n, t) each."""
    if not set(names) & {*NEED_POSES, *NEED_SECONDS}:
        return None, None
    rows = chosen.selection.rows()
    samples = {
        s.sample: s
        for s in chosen.selection.store.stored_samples(
            chosen.selection.run, list(dict.fromkeys(rows["sample"]))
        )
    }
    length = max((s.frames.shape[1] for s in samples.values()), default=0)
    speed, seconds = np.full((2, len(rows), length), np.nan)
    segment = rows["segment"].fillna(1).to_numpy(np.int64) - 1
    person = rows["person"].fillna(chosen.person).to_numpy(np.int64) - 1
    for i, name in enumerate(rows["sample"]):
        sample = samples.get(name)
        if sample is None or segment[i] >= len(sample.frames):
            continue
        at = None if sample.seconds is None else sample.seconds[segment[i]].astype(np.float64)
        if at is not None:
            seconds[i, : len(at)] = at
        if sample.poses is not None and person[i] < len(sample.poses):
            moved = joint_speed(sample.poses[person[i], segment[i]], at)
            speed[i, : len(moved)] = moved
    if isinstance(chosen.selection, AlignedSelection):
        speed, seconds = _aligned_motion(chosen.selection, speed, seconds)
    return (
        speed if np.isfinite(speed).any() else None,
        seconds if np.isfinite(seconds).all() else None,
    )


def _aligned_motion(
    selection: AlignedSelection, speed: Floats, seconds: Floats
) -> tuple[Floats, Floats]:
    """Take speed along with the maps, and the times of the frames that all videos share."""
    rows, alignment = selection.rows(), selection.alignment
    weights = alignment.weights(row_keys(rows))
    warped = (weights @ speed[..., None])[..., 0]
    if not alignment.step:
        return warped, np.full(seconds.shape, np.nan)
    steps = rows["segment"].fillna(1).astype(int).map(alignment.step).to_numpy(np.float64)
    return warped, np.outer(steps, np.arange(seconds.shape[1]))


def _cell_means(chosen: Chosen, values: Floats) -> Floats:
    """Average values (n, f) of rows to those of cells (c, f), segments last."""
    layout = chosen.layout
    usable = np.isfinite(values)
    weighted = layout.weights(usable) * np.where(usable, values, 0.0)
    k, c = len(layout.segments), len(layout.subject)
    sums, there = np.zeros((2, c * k, values.shape[1]))
    pile = layout.cell * k + layout.segment
    np.add.at(sums, pile, weighted)
    np.add.at(there, pile, usable)
    segments = (there > 0).reshape(c, k, -1).sum(axis=1)
    total = sums.reshape(c, k, -1).sum(axis=1)
    return np.where(segments > 0, total / np.maximum(segments, 1), np.nan)


def _contrast(
    exchange: Exchange,
    cells: Floats,
    sites: list[tuple[int, int]],
    names: Sequence[str],
    seed: int,
    alpha: float,
    notes: list[str],
) -> MeasureContrasts:
    taking_part = exchange.of_a.any(axis=0) | exchange.of_b.any(axis=0)
    defined = np.asarray(np.isfinite(cells[taking_part]).all(axis=0))
    # Cells that take no part may lack a measure.
    filled = np.where(defined, np.nan_to_num(cells), 0.0)
    a, b = exchange.means(filled)
    a[:, ~defined] = b[:, ~defined] = np.nan
    p, p_max_t, q = (np.full(cells.shape[1], np.nan) for _ in range(3))
    if exchange.weights is not None and defined.any():
        top = MaxT.of(exchange)
        top.add(exchange.to_units @ filled[:, defined])
        alone, together = top.finish()
        p[defined], p_max_t[defined] = alone[0], together[0]
        q[defined] = false_discovery_rate(p[defined])
    mean_a, mean_b = _mean(a), _mean(b)
    low, high = _interval(a, b, exchange.paired, alpha)
    lines = [(layer, head, name) for layer, head in sites for name in names]
    table = pd.DataFrame(lines, columns=["layer", "head", "measure"]).assign(
        mean_a=mean_a,
        mean_b=mean_b,
        difference=mean_a - mean_b,
        hedges_g=hedges_g(a - b) if exchange.paired else hedges_g_of_groups(a, b),
        cliffs_delta=cliffs_delta(a, b),
        low=low,
        high=high,
        p=p,
        p_max_t=p_max_t,
        q=q,
    )
    missing = table.loc[~defined, "measure"].unique().tolist()
    if missing:
        notes.append(
            f"not defined for all maps, and left without a test: {', '.join(missing)} (measures of "
            "motion need recorded poses of each video, measures in seconds its frame times)"
        )
    if exchange.reason:
        notes.append(f"no test: {exchange.reason}")
    elif exchange.smallest_p > alpha:
        notes.append(
            f"the smallest possible p is {exchange.smallest_p:.2g}, so that p ≤ {alpha:g} is out "
            "of reach with so few subjects"
        )
    if defined.any() and np.isnan(low).all():
        where = "" if exchange.paired else " in each group"
        notes.append(f"no interval under {MIN_SUBJECTS_FOR_INTERVAL} subjects{where}")
    each = [
        pd.DataFrame(lines, columns=["layer", "head", "measure"]).assign(
            subject=subject, a=a[i], b=b[i]
        )
        for i, subject in enumerate(exchange.subjects)
    ]
    return MeasureContrasts(
        table=table,
        subjects=pd.concat(each, ignore_index=True),
        exchange=exchange.what,
        n_subjects=len(exchange.subjects),
        n_permutations=exchange.n_drawn,
        n_assignments=exchange.n_assignments,
        enumerated=exchange.enumerated,
        smallest_p=exchange.smallest_p,
        seed=seed,
        alpha=alpha,
        tested=exchange.weights is not None,
        notes=notes,
    )


def _mean(values: Floats) -> Floats:
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis=0)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)


def _interval(a: Floats, b: Floats, paired: bool, alpha: float) -> tuple[Floats, Floats]:
    """Jackknife over subjects; for two groups of them with the smaller one's degrees of freedom."""
    if paired:
        d = a - b
        n = len(d)
        without = (d.sum(axis=0) - d) / max(n - 1, 1)
        return jackknife_interval(d.mean(axis=0), without, n, alpha=alpha)
    x, y = (values[np.isfinite(values).any(axis=1)] for values in (a, b))
    smaller = min(len(x), len(y))
    nothing = np.full(a.shape[1], np.nan)
    if smaller < MIN_SUBJECTS_FOR_INTERVAL:
        return nothing, nothing.copy()
    error = np.sqrt(x.var(axis=0, ddof=1) / len(x) + y.var(axis=0, ddof=1) / len(y))
    half = t_quantile(1 - alpha / 2, smaller - 1) * error
    centre = x.mean(axis=0) - y.mean(axis=0)
    return centre - half, centre + half
