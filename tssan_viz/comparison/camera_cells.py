"""Cells of one subject and one camera: whether maps differ with the view, whatever the class.

Axis letters: r cells, h heads, k segments, d length of a unit vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.cell_layers import Chosen, complete_cells, note_left_out
from tssan_viz.comparison.cells import Layout, lay_out, sum_units
from tssan_viz.comparison.choosing import narrow
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import check_metric
from tssan_viz.comparison.statistics import gram_matrix
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection


@dataclass(frozen=True, eq=False)
class CameraCells:
    """Which rows make which cell of a subject and a camera. Made by `camera_cells`.

    Attributes
    ----------
    subject, camera : (r,) int
        Of each cell; cameras count from 0.
    """

    subject: NDArray[np.intp]
    camera: NDArray[np.intp]
    _selection: Selection
    _layout: Layout
    # (r, cells of the layout): which subject × class × camera make each cell.
    _made_of: NDArray[np.float64]

    def grams(
        self, metric: str, notes: list[str], progress: Progress | None = None
    ) -> Iterator[tuple[int, list[int], NDArray[np.float32], NDArray[np.bool_]]]:
        """Go through the layers, as `tssan_viz.comparison.cell_layers.iter_complete_grams` does."""
        check_metric(metric)
        layers = heads_of_layers(self._selection)
        for done, (layer, (heads, _)) in enumerate(layers.items()):
            site = site_of(self._selection, layer)
            cells = sum_units(
                self._layout,
                (np.zeros(len(self._layout.cell), np.intp), 1),
                map_reader(
                    self._selection.select(layer=layer, head=heads), progress, done, len(layers)
                ),
                metric,
                heads=len(heads),
                size=(site["query"], site["key"]),
            )
            note_left_out(notes, cells.left_out, metric, layer)
            n = np.tensordot(self._made_of, cells.present * 1.0, 1)
            total = np.tensordot(self._made_of.astype(np.float32), cells.units, 1)
            units = total / np.maximum(n, 1).astype(np.float32)[..., None]
            gram = gram_matrix(units, n > 0)
            keep = complete_cells(gram)
            yield layer, heads, gram.values[np.ix_(keep, keep)], keep


def camera_cells(chosen: Chosen) -> CameraCells:
    """Sort rows by subject and camera, over the classes in which all cameras saw the subject.

    A subject's mean over cameras of other classes would bring in how classes differ.

    Parameters
    ----------
    chosen
        What may be compared; its notes get a word about what is left out.

    Raises
    ------
    UserError
        The rows have no camera, or one only, or no two subjects were seen by several.
    """
    if chosen.selection.rows()["camera"].isna().all():
        raise UserError("the rows have no camera; record it with recorder.samples(camera=…)")
    selection = narrow(chosen.selection, where="camera IS NOT NULL")
    rows = selection.rows()
    cameras, camera = np.unique(rows["camera"].to_numpy(int), return_inverse=True)
    v = len(cameras)
    if v < 2:
        raise UserError(f"all rows are of camera {cameras[0]}: nothing to tell apart")
    layout = lay_out(rows.assign(label=rows["label"].to_numpy(int) * v + camera))
    label, seen_by = np.divmod(layout.label, v)
    keys, lines, lost = [], [], 0
    for s in range(len(layout.subjects)):
        own = np.flatnonzero(layout.subject == s)
        by = np.unique(seen_by[own])
        full = [one for one in np.unique(label[own]) if (label[own] == one).sum() == len(by)]
        lost += len(np.unique(label[own])) - len(full)
        if len(by) < 2 or not full:
            continue
        for g in by:
            keys.append((s, g))
            lines.append((layout.subject == s) & (seen_by == g) & np.isin(label, full))
    if len({s for s, _ in keys}) < 2:
        raise UserError(
            "no two subjects were seen by several cameras in the same class, so that cameras "
            "cannot be told from classes"
        )
    if lost:
        are = "was" if lost == 1 else "were"
        chosen.notes.append(
            f"left out: {counted(lost, 'class')} of a subject that {are} not seen by all of its "
            "cameras"
        )
    subject, of_camera = np.array(keys, np.intp).T
    return CameraCells(subject, of_camera, selection, layout, np.array(lines, np.float64))
