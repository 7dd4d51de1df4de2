"""Distances instead of similarities: the same W, B and Δ, from pairs of maps that are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.pairs import PairDistances, pair_distances
from tssan_viz.comparison.statistics import Design

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.selection import Selection


def draw_distances(
    selection: Selection,
    metric: str,
    person: int,
    seed: int,
    progress: Progress | None,
    notes: list[str],
) -> PairDistances:
    """Take the distances of all cells of a selection, and note how many pairs were drawn."""
    split = selection.rows()["split"].dropna().unique()
    drawn = pair_distances(
        selection,
        metric=metric,
        split=str(split[0]) if len(split) else None,
        person=person,
        seed=seed,
        progress=progress,
    )
    notes += [note for note in drawn.notes if note not in notes and "name no split" not in note]
    notes.append(
        f"{metric} is a distance ({drawn.units}): W and B are distances, Δ = B − W; it is of the "
        "single pairs, so that no mean map is in it"
    )
    return drawn


def as_distances(
    columns: Mapping[str, Any], drawn: PairDistances, layer: int, design: Design
) -> dict[str, Any]:
    """Turn W and B, which were computed from minus the distances, into distances again.

    Adds the standard errors of W and B that come from drawing pairs: errors of different cells are
    independent.
    """
    turned = {name: -columns[name] for name in ("W", "B", "W_class", "W_other") if name in columns}
    error = drawn.error[:, :, drawn.sites["layer"].to_numpy() == layer].astype(np.float64)
    own = design.of_class
    apart = design.subject[:, None] != design.subject
    within = own[:, None] & own & apart
    if design.two_classes:
        within |= ~own[:, None] & ~own & apart
    between = own[:, None] & ~own & apart
    # Each two cells stand in `within` twice, with the one error that they have.
    return turned | {
        "W_error": _error_of_mean(error[within]) * np.sqrt(2),
        "B_error": _error_of_mean(error[between]),
    }


def _error_of_mean(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard error of the mean of values with errors (n, h) of their own."""
    return np.sqrt((errors**2).sum(axis=0)) / len(errors)
