"""A class's maps across cameras: of two subjects, and of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import Layout, lay_out, sum_units
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import kept_view_similarities, view_similarities
from tssan_viz.comparison.reading import map_reader, site_of

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

COLUMNS = ("same_view", "other_view", "subject_same_view", "subject_other_view")


def view_table(
    selection: Selection,
    layout: Layout,
    kept: KeptCells | None,
    layer: int,
    heads: list[int],
    metric: str,
    label: int,
) -> pd.DataFrame:
    """Compare the maps of one class over cameras, in one layer.

    Means are over all single pairs of videos, like segments; copies of a video are not among the
    rows.

    Parameters
    ----------
    selection, layout
        The rows, of which those of the class count.
    kept
        Kept cells of the selection, if there are any.
    layer, heads
        Counted from 1.
    metric, label
        Of which similarity, and of which class.

    Returns
    -------
    DataFrame
        `layer`, `head`, and `COLUMNS`; no line where there is one camera.
    """
    nothing = pd.DataFrame(columns=["layer", "head", *COLUMNS])
    rows = selection.rows()
    cameras = rows.loc[rows["label"] == label, "camera"].dropna().nunique()
    if cameras < 2:
        return nothing
    found = None
    if kept is not None:
        places, people = kept.places(layer, heads), list(layout.subjects)
        found = kept.answer(
            layer,
            lambda cells, _: kept_view_similarities(cells, label, places, people)[1:],
            make=False,
        )
    if found is None:
        found = _from_maps(selection.select(layer=layer, head=heads, label=label), metric)
    across, within = found
    same = np.eye(across.shape[0], dtype=bool)
    columns = {
        "same_view": _mean(across[same]),
        "other_view": _mean(across[~same]),
        "subject_same_view": _mean(within[same]),
        "subject_other_view": _mean(within[~same]),
    }
    return pd.DataFrame({"layer": layer, "head": heads, **columns})


def _from_maps(
    selection: Selection, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = selection.rows()
    layout = lay_out(rows)
    camera = rows["camera"].astype("Int64").fillna(-1).to_numpy(np.int64)
    cameras, view = np.unique(camera, return_inverse=True)
    subject = layout.subject[layout.cell]
    v, s = len(cameras), len(layout.subjects)
    site = site_of(selection, selection.layers[0])
    cells = sum_units(
        layout,
        (view * s + subject, v * s),
        map_reader(selection),
        metric,
        heads=len(selection.heads),
        size=(site["query"], site["key"]),
    )
    h, k = cells.counts.shape[1:]
    sums = np.moveaxis(cells.sums.reshape(v, s, h, k, -1), (2, 3), (0, 1))
    counts = np.moveaxis(cells.counts.reshape(v, s, h, k), (2, 3), (0, 1))
    return view_similarities(sums, counts)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average pairs of cameras (n, h) where there are any."""
    there = np.isfinite(values)
    total = np.where(there, values, 0).sum(axis=0)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)
