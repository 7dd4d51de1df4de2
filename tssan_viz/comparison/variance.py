"""Shares of variance of maps: class, subject, their interaction, camera, replication.

Sums of squares of unit vectors are traces, so that everything follows from the sums of unit vectors
of each class × subject × camera × replication; no pair of videos is formed. Axis letters: g groups
(class × subject × camera × replication), k segments, d length of a unit vector, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cell_layers import (
    choose,
    enough_classes_and_subjects,
    head_shares,
    note_left_out,
    records,
)
from tssan_viz.comparison.cells import sum_units, vector_length
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import check_metric
from tssan_viz.comparison.variance_components import EFFECTS, Floats, Model, components, model
from tssan_viz.selection import Selection

ORDERS = ("class first", "subject first")


@dataclass(frozen=True, eq=False)
class VarianceShares:
    """What `variance_shares` found.

    Attributes
    ----------
    table : DataFrame
        One line per layer, head, order and effect. ``order``: which of class and subject was
        fitted first (in a balanced design it makes no difference). ``df``: degrees of freedom;
        ``eta2``: its sum of squares over the total, these sum to 1 and grow with df; ``omega2``:
        the same without that bias, for these subjects and classes; ``component``: its variance
        component, an estimate without that bias that may be negative where the effect is small,
        and is then shown as such; ``share``: the component over the sum of all. NaN where the
        design has nothing to tell it by.
    balanced : bool
        Whether both orders agree.
    n_subjects, n_classes, n_samples : int
    metric : str
    notes : list of str
    """

    table: pd.DataFrame
    balanced: bool
    n_subjects: int
    n_classes: int
    n_samples: int
    metric: str
    notes: list[str]

    def wide(self, order: str | None = ORDERS[0], value: str = "share") -> pd.DataFrame:
        """Return one line per layer, head and order with a column for each effect.

        Parameters
        ----------
        order
            Of `ORDERS`; None for both where they differ, else one line without the column.
        value
            ``share``, ``eta2``, ``omega2`` or ``component``.
        """
        both = order is None and not self.balanced
        lines = self.table[self.table["order"].isin(ORDERS if both else [order or ORDERS[0]])]
        index = ["layer", "head", "order"] if both else ["layer", "head"]
        wide = lines.pivot(index=index, columns="effect", values=value)
        return wide[list(EFFECTS)].reset_index().rename_axis(columns=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not defined is None."""
        return {
            "table": records(self.table),
            "balanced": self.balanced,
            "n_subjects": self.n_subjects,
            "n_classes": self.n_classes,
            "n_samples": self.n_samples,
            "metric": self.metric,
            "notes": self.notes,
        }


def variance_shares(
    selection: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    split: str | None = None,
    person: int = 1,
    progress: Progress | None = None,
) -> VarianceShares:
    """Say how much of what differs between maps is class, subject, camera, replication.

    An observation is the unit vector of one map; like segments are decomposed with like, and added.
    There is no p-value here: shares describe.

    Parameters
    ----------
    selection
        What is asked about.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    metric
        ``cosine``, ``pearson``, ``hellinger`` or ``cka``.
    progress
        Called with (what, done, total).

    Returns
    -------
    VarianceShares

    Raises
    ------
    UserError
        Fewer than two classes or subjects.
    """
    check_metric(metric)
    chosen = choose(selection, layer=layer, head=head, split=split, person=person)
    enough_classes_and_subjects(chosen)
    rows = chosen.selection.rows()
    names = ["label", "subject", "camera", "replication"]
    keys = rows[names].astype("Int64").fillna(-1).to_numpy(np.int64)
    groups, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    layers = heads_of_layers(chosen.selection)
    cells = len(chosen.subject) + len(groups)
    k = len(chosen.layout.segments)
    fitted: dict[bytes, tuple[Model, Model]] = {}
    parts: list[pd.DataFrame] = []
    n_heads = sum(len(heads) for heads, _ in layers.values())
    done = 0
    for number, (heads, _) in layers.items():
        site = site_of(chosen.selection, number)
        size = (site["query"], site["key"])
        left_out = []
        for share in head_shares(heads, 4 * cells * k * vector_length(metric, size)):
            made = sum_units(
                chosen.layout,
                (group, len(groups)),
                map_reader(chosen.selection.select(layer=number, head=share)),
                metric,
                heads=len(share),
                size=size,
            )
            left_out.append(made.left_out)
            for i, h in enumerate(share):
                parts += _of_head(made.sums[:, i], made.counts[:, i], groups, fitted, number, h)
            done += len(share)
            if progress is not None:
                progress("shares of variance", done, n_heads)
        note_left_out(chosen.notes, np.concatenate(left_out), metric, number)
    table = pd.concat(parts, ignore_index=True)
    return _variance_shares(table, groups, rows, chosen.notes, metric)


def _of_head(
    sums: NDArray[np.float32],
    counts: Floats,
    groups: NDArray[np.int64],
    fitted: dict[bytes, tuple[Model, Model]],
    layer: int,
    head: int,
) -> list[pd.DataFrame]:
    """Decompose one head from sums (g, k, d) and counts (g, k)."""
    ss = np.zeros((2, len(EFFECTS)))
    models: tuple[list[Model], list[Model]] = ([], [])
    for k in range(counts.shape[1]):
        there = counts[:, k] > 0
        if not there.any():
            continue
        # Heads and segments mostly share one design, which is laid out once.
        key = counts[:, k].tobytes()
        if key not in fitted:
            arguments = (counts[there, k], *groups[there].T)
            fitted[key] = (model(*arguments), model(*arguments, class_first=False))
        of_segment = sums[there, k].astype(np.float64)
        for i, made in enumerate(fitted[key]):
            ss[i] += made.sums_of_squares(of_segment, float(counts[there, k].sum()))
            models[i].append(made)
    parts = []
    for i, order in enumerate(ORDERS):
        found = components(models[i], ss[i : i + 1])
        parts.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "head": head,
                    "order": order,
                    "effect": EFFECTS,
                    "df": found.df.astype(int),
                    "eta2": np.where(found.df > 0, found.eta2[0], np.nan),
                    "omega2": np.where(found.df > 0, found.omega2[0], np.nan),
                    "component": found.component[0],
                    "share": found.share[0],
                }
            )
        )
    return parts


def _variance_shares(
    table: pd.DataFrame,
    groups: NDArray[np.int64],
    rows: pd.DataFrame,
    notes: list[str],
    metric: str,
) -> VarianceShares:
    notes = list(notes)
    first, second = (table.loc[table["order"] == order, "eta2"].to_numpy() for order in ORDERS)
    balanced = bool(np.allclose(first, second, atol=1e-6, equal_nan=True))
    notes.append(
        "shares of variance components, from sequential (type I) sums of squares; "
        + (
            "class before subject or after it makes no difference here"
            if balanced
            else "the design is not balanced, and what class and subject share goes to whichever "
            "is fitted first, so both orders are given"
        )
    )
    nothing = table.groupby("effect")["df"].max() == 0
    missing = [effect for effect in EFFECTS if nothing[effect]]
    if missing:
        notes.append(f"the design has nothing to tell {', '.join(missing)} by")
    if "residual" in missing:
        notes.append(
            "there is one video per class × subject, so that their interaction holds all that "
            "differs between videos as well"
        )
    negative = table.loc[table["share"] < 0, "effect"].unique().tolist()
    if negative:
        notes.append(
            f"negative estimates ({', '.join(negative)}) are shown as they are: there the effect "
            "is smaller than what chance alone is expected to give"
        )
    return VarianceShares(
        table=table,
        balanced=balanced,
        n_subjects=len(np.unique(groups[:, 1])),
        n_classes=len(np.unique(groups[:, 0])),
        n_samples=int(rows["sample"].nunique()),
        metric=metric,
        notes=notes,
    )
