"""Mean maps of each class as each camera saw it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.cell_layers import Chosen, kept_cells
from tssan_viz.comparison.cells import PLAIN, lay_out, sum_units
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of

# Two numbers in one: no data set has so many cameras.
_CAMERAS = 10_000


def camera_mean_maps(
    chosen: Chosen, layer: int, progress: Progress | None = None
) -> tuple[list[int], list[int], NDArray[np.float32]]:
    """Average the maps of one layer over subjects, for each class and camera.

    A subject's maps of a class and a camera are averaged first, segment by segment, so that each
    subject weighs the same.

    Parameters
    ----------
    chosen
        What `tssan_viz.comparison.cell_layers.choose` returned; the layer is among its layers.
    layer
        Counted from 1.
    progress
        Called with (what, done, total).

    Returns
    -------
    labels, cameras : list of int
        What occurs; rows without a camera are left out.
    maps : (c, v, h, q, s) float32
        NaN where a camera saw no video of a class.
    """
    heads, whole = heads_of_layers(chosen.selection)[layer]
    site = site_of(chosen.selection, layer)
    size = (site["query"], site["key"])
    found = None
    kept = kept_cells(chosen, PLAIN, progress)
    if kept is not None:
        places = kept.places(layer, heads)
        found = kept.answer(layer, lambda it, at: _of_kept(it, at, places), make=whole)
    if found is None:
        rows = chosen.selection.rows()
        seen = rows["camera"].astype("Int64").fillna(-1)
        layout = lay_out(rows.assign(subject=rows["subject"] * _CAMERAS + seen + 1))
        cells = sum_units(
            layout,
            (np.zeros(len(layout.cell), np.intp), 1),
            map_reader(chosen.selection.select(layer=layer, head=heads), progress),
            PLAIN,
            heads=len(heads),
            size=size,
        )
        there = np.maximum(cells.present.sum(axis=2), 1)
        means = cells.units.sum(axis=2) / there[..., None]
        camera = np.array(layout.subjects)[layout.subject] % _CAMERAS - 1
        found = layout.label, camera, means
    label, camera, means = found
    labels, cameras = np.unique(label), np.unique(camera[camera >= 0])
    maps = np.full((len(labels), len(cameras), len(heads), *size), np.nan, np.float32)
    for i, one in enumerate(labels):
        for j, view in enumerate(cameras):
            mine = means[(label == one) & (camera == view)]
            if len(mine):
                maps[i, j] = mine.mean(axis=0).reshape(len(heads), *size)
    return labels.tolist(), cameras.tolist(), maps


def _of_kept(
    kept: KeptLayer, at: NDArray[np.integer], heads: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return label and camera of each kept sum, and its mean map (g, h, d)."""
    index = kept.index
    groups = np.flatnonzero(np.isin(index.groups[:, 0], at))
    means = np.empty((len(groups), len(heads), kept.length), np.float32)
    for i, head in enumerate(heads):
        counts = index.counts[head, groups][..., None]
        of_segment = kept.read("sums", [head], groups)[0] / np.maximum(counts, 1)
        means[:, i] = of_segment.sum(axis=1) / np.maximum((counts > 0).sum(axis=1), 1)
    cell, camera = index.groups[groups].T
    return index.cells[cell, 1], camera, means
