"""The analyses that stand beside W, B and Δ, each asked of the rows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tssan_viz.comparison.reading import Progress
from tssan_viz.comparison.similarity import METRICS
from tssan_viz.comparison.words import format_p
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from tssan_viz.comparison.comparison import Comparison

ANALYSES = {
    "variance": "How much is class, subject, camera and replication?",
    "decoding": "Is a head about the action or about the person?",
    "difference": "Where do the mean maps differ?",
    "measures": "In which measures do the two sides differ?",
    "permanova": "Do the classes differ as a whole?",
    "matrix": "Which classes are alike?",
}
"""What can be shown, and the question that each answers."""

# So many lines of long tables are shown; the rest is in the result.
_SHOWN = 12
_LONG = ("measures", "difference")
# Permutations to each of which a model is fitted, for each head and whoever is left out.
_FITTED = 99


@dataclass(frozen=True, eq=False)
class Analysis:
    """One analysis of the rows of a comparison.

    Attributes
    ----------
    name, title : str
        One of `ANALYSES`, and its question.
    table : DataFrame or None
        What is shown of it.
    result : object or None
        What the analysis returned; None where it could not be made.
    notes : list of str
        What it decided, or why it could not be made.
    """

    name: str
    title: str
    table: pd.DataFrame | None
    result: Any
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        if self.result is None:
            return {"result": None, "notes": self.notes}
        return dict(self.result.to_dict())


def parse_analyses(text: str | None) -> list[str]:
    """Read the names of analyses, separated by commas; ``all`` is each of them.

    Raises
    ------
    UserError
        There is no such analysis.
    """
    if text is None:
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return list(ANALYSES)
    for name in names:
        if name not in ANALYSES:
            raise UserError(f"cannot show {name!r}: choose among {', '.join(ANALYSES)}, or all")
    return list(dict.fromkeys(names))


def analyse(
    comparison: Comparison,
    names: Sequence[str],
    *,
    permutations: int = 1000,
    decoder: str = "nearest mean",
    progress: Progress | None = None,
) -> list[Analysis]:
    """Ask the rows of a comparison further questions, aligned where the comparison was.

    An analysis that the rows cannot carry says why instead of failing the others.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare`.
    names
        Of `ANALYSES`.
    permutations
        How many each analysis draws.
    decoder
        One of `tssan_viz.comparison.decoding.METHODS`; of permutations "logistic", which fits a
        model to each, takes 99 at most.
    progress
        Called with (what, done, total).
    """
    asked = comparison.aligned or comparison
    found = [_analyse(asked, name, permutations, decoder, progress) for name in names]
    if comparison.aligned is not None:
        for analysis in found:
            analysis.notes.append("of the aligned maps")
    return found


def _analyse(
    comparison: Comparison,
    name: str,
    permutations: int,
    decoder: str,
    progress: Progress | None,
) -> Analysis:
    from tssan_viz.comparison.class_matrix import class_matrix
    from tssan_viz.comparison.decoding import decodability
    from tssan_viz.comparison.difference import difference_maps
    from tssan_viz.comparison.measure_contrasts import measure_contrasts
    from tssan_viz.comparison.permanova import permanova
    from tssan_viz.comparison.variance import variance_shares

    notes: list[str] = []
    metric = comparison.metric
    if metric not in METRICS:
        metric = METRICS[0]
        if name not in ("difference", "measures"):
            notes.append(f"by {metric}: {comparison.metric} has no form that this can use")
    where: dict[str, Any] = {
        "split": comparison.split,
        "person": comparison.person,
        "progress": progress,
    }
    seeded = {**where, "permutations": permutations, "seed": comparison.seed}
    selection = comparison.selection
    result: Any
    try:
        if name in ("difference", "measures"):
            sides = comparison.sides
            if sides is None:
                raise UserError(
                    "this takes two groups of one run; name them, like --group camera:1 "
                    "--group camera:2"
                )
            first, second = comparison.side_names
            notes.append(f"first: {first}; second: {second}; differences are first − second")
            ask = difference_maps if name == "difference" else measure_contrasts
            result = ask(*sides, alpha=comparison.alpha, **seeded)
        elif name == "variance":
            result = variance_shares(selection, metric=metric, **where)
        elif name == "decoding":
            if decoder == "logistic":
                seeded["permutations"] = min(permutations, _FITTED)
            notes.append(f"decoder: {decoder}")
            result = decodability(selection, metric=metric, method=decoder, **seeded)
        elif name == "permanova":
            by = "camera" if getattr(comparison, "by", None) == "camera" else "class"
            result = permanova(selection, by=by, metric=metric, **seeded)
            many = f"{result.n_levels} levels, {result.n_cells} cells"
            notes.append(f"of the {by}, permuted within each {result.block} ({many})")
        else:
            result = class_matrix(selection, metric=metric, **where)
    except UserError as error:
        return Analysis(name, ANALYSES[name], None, None, [f"not made: {error}"])
    notes += [note for note in result.notes if note not in comparison.notes]
    shown = _shown(name, result)
    if name in _LONG and len(shown) < len(result.table):
        notes.append(f"the {len(shown)} strongest of {len(result.table)} lines are shown")
    smallest = getattr(result, "smallest_p", None)
    if smallest is not None and smallest == smallest:
        notes.append(f"{_drawn(result)}; smallest possible p {format_p(smallest)}")
    title = ANALYSES[name]
    if name == "permanova":
        title = title.replace("classes", {"class": "classes", "camera": "cameras"}[result.factor])
    return Analysis(name, title, shown, result, notes)


def _drawn(result: Any) -> str:
    """Say what the p-values of a result come from."""
    exchanged = getattr(result, "exchange", None)
    what = f"exchanges of {exchanged}" if exchanged else "permutations"
    if getattr(result, "enumerated", False):
        return f"all {what}"
    return f"{result.n_permutations:,} random {what} (seed {result.seed})"


# What is shown of each table, and what its columns are called there; results have all.
_COLUMNS: dict[str, dict[str, str]] = {
    "decoding": {
        "layer": "layer",
        "head": "head",
        "class_accuracy": "class",
        "class_chance": "by chance",
        "class_p_max_t": "class p max-T",
        "subject_accuracy": "person",
        "subject_chance": "by chance ",
        "subject_p_max_t": "person p max-T",
    },
    "difference": {
        "layer": "layer",
        "head": "head",
        "largest": "largest",
        "query": "query",
        "key": "key",
        "p": "p max-T",
        "cells": "cells that differ",
        "cluster_p": "cluster p",
    },
    "measures": {
        "layer": "layer",
        "head": "head",
        "measure": "measure",
        "mean_a": "first",
        "mean_b": "second",
        "difference": "difference",
        "hedges_g": "g",
        "p_max_t": "p max-T",
    },
    "permanova": {
        "layer": "layer",
        "head": "head",
        "F": "F",
        "R2": "R²",
        "p": "p",
        "p_max_t": "p max-T",
        "q": "q",
        "dispersion_p": "spread p",
    },
    "matrix": {
        "class_name": "class",
        "W": "W",
        "nearest": "nearest",
        "nearest_similarity": "similarity",
        "farthest": "farthest",
        "margin": "margin",
    },
}


def is_p(column: object) -> bool:
    """Whether a column holds p-values or false discovery rates."""
    name = str(column)
    return name in ("p", "q", "p_max_t") or name.endswith(("p max-T", "_p", "_q", " p", "_p_max_t"))


def _shown(name: str, result: Any) -> pd.DataFrame:
    """Return what fits a page of a result: the strongest lines of long tables."""
    table: pd.DataFrame
    if name == "variance":
        table = result.wide(None)
        return table
    table = result.table
    if name in _LONG:
        p = "p_max_t" if name == "measures" else "p"
        table = table.sort_values(p, kind="stable").head(_SHOWN)
    columns = {old: new for old, new in _COLUMNS[name].items() if old in table}
    if name == "matrix" and len(table) == 2:
        # The one other class is nearest and farthest.
        del columns["farthest"]
    return table[list(columns)].rename(columns=columns).reset_index(drop=True)
