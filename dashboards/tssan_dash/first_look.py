"""How alike a class's maps are, from cells that are kept: known before any test has been run.

The statistics' own means (`tssan_viz.comparison.statistics`) over the lines of the classes that are
asked about, of a Gram matrix that lies on the disk: a hundredth of what a comparison with its test,
its interval and its maps takes. Axis letters: n cells of the class, r cells, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.choosing import choose_rows
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import kept_within_and_between
from tssan_viz.comparison.kept_files import DamagedCells, KeptLayer
from tssan_viz.comparison.reading import heads_of_layers
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_dash.asked import Asked
    from tssan_dash.recordings import Recordings
    from tssan_viz.selection import Selection


@dataclass(frozen=True)
class Cells:
    """Where the cells of some rows lie: layer by layer the heads' numbers and places, and `at`."""

    layers: dict[int, tuple[KeptLayer, NDArray[np.intp], list[int], list[int]]]

    @classmethod
    def of(cls, selection: Selection) -> Cells | None:
        """Return the cells of a selection; None where some are not kept, which a job then makes."""
        try:
            chosen, _ = choose_rows(selection, None, 1, [])
        except UserError:
            return None
        kept = KeptCells.of(chosen, person=1, metric="cosine", notes=[])
        if kept is None:
            return None
        layers = {}
        for layer, (heads, _) in heads_of_layers(chosen).items():
            found = kept.answer(layer, lambda cells, at: (cells, at), make=False)
            if found is None:
                return None
            layers[layer] = (*found, heads, kept.places(layer, heads))
        return cls(layers)


def first_look(recordings: Recordings, asked: Asked) -> pd.DataFrame | None:
    """Return W and B of each layer and head.

    Parameters
    ----------
    recordings
        Of the store; they remember where the cells lie.
    asked
        Classes of which run, under which conditions.

    Returns
    -------
    DataFrame or None
        ``layer``, ``head``, ``W``, ``B``, ``delta``; None where groups are compared, or the answer
        is not in the cells.
    """
    if asked.class_name is None or asked.by is not None:
        return None
    catalogue = recordings.catalogue(asked.run)
    label = catalogue.resolve(asked.class_name).label
    other = None if asked.with_class is None else catalogue.resolve(asked.with_class).label
    cells = recordings.cells(asked.run, asked.conditions(recordings.store))
    if cells is None:
        return None
    parts = []
    try:
        for layer, (kept, at, heads, places) in cells.layers.items():
            within, between = kept_within_and_between(kept, at, label, places, other)
            kept.release()
            columns = {"head": heads, "W": within, "B": between, "delta": within - between}
            parts.append(pd.DataFrame({"layer": layer, **columns}))
    except DamagedCells:
        return None
    return pd.concat(parts, ignore_index=True)
