"""Cells of a selection, layer by layer: kept ones where there are any, else from the maps.

Axis letters: r cells, h heads, k segments, d length of a unit vector, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import PLAIN, Layout, lay_out, sum_units
from tssan_viz.comparison.choosing import choose_layers, choose_rows
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import kept_gram, kept_left_out
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import check_metric
from tssan_viz.comparison.statistics import Gram, gram_matrix
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

# Unit vectors of so many bytes are held at once.
_TOGETHER_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows that may be compared with each other, sorted into cells. Made by `choose`.

    Attributes
    ----------
    selection : Selection
    layout : Layout
    person : int
    notes : list of str
        What was decided without being asked, and what was left out.
    """

    selection: Selection
    layout: Layout
    person: int
    notes: list[str]

    @property
    def subject(self) -> NDArray[np.intp]:
        """The subject of each cell, as a position among the subjects: (r,)."""
        return self.layout.subject

    @property
    def label(self) -> NDArray[np.intp]:
        """The class of each cell: (r,)."""
        return self.layout.label

    def names(self, labels: NDArray[np.integer] | tuple[int, ...]) -> list[str]:
        """Return the names of classes."""
        return [str(self.selection.catalogue.name_of(int(label))) for label in labels]


def choose(
    selection: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    split: str | None = None,
    person: int = 1,
) -> Chosen:
    """Return what of a selection may be compared: one split, phase, step and person.

    Parameters
    ----------
    selection
        What is asked about.
    layer
        One, counted from 1; ``"last"``; or ``"all"``.
    head
        One, counted from 1; None for all.
    split
        None: ``"test"``, or the only other one.
    person
        From 1.

    Raises
    ------
    UserError
        Nothing is left, no row names a subject, or the layer does not exist.
    """
    if not len(selection):
        raise UserError(f"there is nothing to compare: {selection.empty_because}")
    notes = selection.notes_of_one_step()
    chosen = choose_layers(selection, layer, head)
    chosen, _ = choose_rows(chosen, split, person, notes)
    return Chosen(chosen, lay_out(chosen.rows()), person, notes)


def one_size(selection: Selection) -> tuple[int, int]:
    """Return the size (q, s) that the maps of all layers share.

    Raises
    ------
    UserError
        They differ.
    """
    sizes = {
        layer: (site["query"], site["key"])
        for layer in selection.layers
        for site in [site_of(selection, layer)]
    }
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"layer {layer}: {q} × {s}" for layer, (q, s) in sizes.items())
        raise UserError(f"maps of these layers differ in size ({each}); name one layer")
    return next(iter(sizes.values()))


def iter_grams(
    chosen: Chosen, metric: str, progress: Progress | None = None
) -> Iterator[tuple[int, list[int], Gram]]:
    """Go through the layers: the similarities of all pairs of cells.

    Parameters
    ----------
    chosen
        The rows; its notes get a word about maps without a direction.
    metric
        One of `tssan_viz.comparison.similarity.METRICS`.
    progress
        Called with (what, done, total).

    Yields
    ------
    layer, heads
        Counted from 1.
    gram : Gram
    """
    check_metric(metric)
    selection, layout = chosen.selection, chosen.layout
    layers = heads_of_layers(selection)
    kept = kept_cells(chosen, metric, progress)
    if kept is not None:
        kept.prepare([layer for layer, (_, whole) in layers.items() if whole])
    for done, (layer, (heads, whole)) in enumerate(layers.items()):
        found = None
        if kept is not None:
            places = kept.places(layer, heads)
            found = kept.answer(layer, partial(_kept_gram, heads=places), make=whole)
        if found is None:
            part = selection.select(layer=layer, head=heads)
            site = site_of(selection, layer)
            cells = sum_units(
                layout,
                (np.zeros(len(layout.cell), np.intp), 1),
                map_reader(part, progress, done, len(layers)),
                metric,
                heads=len(heads),
                size=(site["query"], site["key"]),
            )
            found = gram_matrix(cells.units, cells.present), cells.left_out
        gram, left_out = found
        note_left_out(chosen.notes, left_out, metric, layer)
        yield layer, heads, gram


def _kept_gram(
    kept: KeptLayer, at: NDArray[np.integer], heads: list[int]
) -> tuple[Gram, NDArray[np.intp]]:
    """Return the similarities of kept cells, and how many maps (h,) are in none of them."""
    return kept_gram(kept, at, heads), kept_left_out(kept, at, heads)


def note_left_out(notes: list[str], left_out: NDArray[np.integer], metric: str, layer: int) -> None:
    """Say how many maps of a layer have no direction, if any: (h,) of its heads."""
    if left_out.any():
        notes.append(
            f"maps without a direction under {metric} (uniform ones) were left out: "
            f"{int(left_out.sum())} in layer {layer}"
        )


def iter_complete_grams(
    chosen: Chosen, metric: str, progress: Progress | None = None
) -> Iterator[tuple[int, list[int], NDArray[np.float32], NDArray[np.bool_]]]:
    """Do what `iter_grams` does, with the cells that all have a similarity with each other.

    Yields
    ------
    layer, heads
        Counted from 1.
    gram : (c, c, h) float32
        Dot products of the cells that were kept.
    keep : (r,) bool
        Which these are; the notes of `chosen` say how many are not.
    """
    for layer, heads, gram in iter_grams(chosen, metric, progress):
        keep = complete_cells(gram)
        if not keep.all():
            chosen.notes.append(
                f"layer {layer}: {int((~keep).sum())} cells share no segment with some other and "
                "were left out"
            )
        yield layer, heads, gram.values[np.ix_(keep, keep)], keep


def kept_cells(chosen: Chosen, metric: str, progress: Progress | None = None) -> KeptCells | None:
    """Return the kept cells of what was chosen; None where only the maps have the answer."""
    return KeptCells.of(
        chosen.selection,
        person=chosen.person,
        metric=metric,
        notes=chosen.notes,
        progress=progress,
    )


def iter_cell_maps(
    chosen: Chosen, progress: Progress | None = None
) -> Iterator[tuple[int, list[int], NDArray[np.float32]]]:
    """Go through the layers: the mean map of each cell, segments too, each view weighing the same.

    Yields
    ------
    layer, heads
        Counted from 1.
    maps : (r, h, q, s) float32
    """
    selection, layout = chosen.selection, chosen.layout
    layers = heads_of_layers(selection)
    kept = kept_cells(chosen, PLAIN, progress)
    for done, (layer, (heads, whole)) in enumerate(layers.items()):
        site = site_of(selection, layer)
        shape = (len(layout.subject), len(heads), site["query"], site["key"])
        means = None
        if kept is not None:
            places = kept.places(layer, heads)
            means = kept.answer(layer, partial(_kept_means, heads=places), make=whole)
        if means is None:
            part = selection.select(layer=layer, head=heads)
            cells = sum_units(
                layout,
                (np.zeros(len(layout.cell), np.intp), 1),
                map_reader(part, progress, done, len(layers)),
                PLAIN,
                heads=len(heads),
                size=(site["query"], site["key"]),
            )
            means = _segments_averaged(cells.units, cells.present)
        if not np.isfinite(means).all():
            raise UserError(
                f"layer {layer}: maps have values that are no numbers; "
                "`tssan-viz verify` names them"
            )
        yield layer, heads, means.reshape(shape)


def _kept_means(kept: KeptLayer, at: NDArray[np.integer], heads: list[int]) -> NDArray[np.float32]:
    """Return the mean maps (r, h, d) of kept cells under some heads (from 0)."""
    units = kept.read("units", heads, at).swapaxes(0, 1)
    return _segments_averaged(units, kept.index.present[heads][:, at].swapaxes(0, 1))


def _segments_averaged(
    units: NDArray[np.float32], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Average (r, h, k, d) over the segments that are present (r, h, k)."""
    there = np.maximum(present.sum(axis=2), 1)
    return (units.sum(axis=2) / there[..., None]).astype(np.float32)


def head_shares(heads: list[int], bytes_each: int) -> Iterator[list[int]]:
    """Divide heads so that what they take together is bounded."""
    together = max(1, _TOGETHER_BYTES // max(bytes_each, 1))
    for start in range(0, len(heads), together):
        yield heads[start : start + together]


def complete_cells(gram: Gram) -> NDArray[np.bool_]:
    """Return the cells (r,) that have a similarity with every other one that is kept."""
    r = len(gram.values)
    keep = np.ones(r, dtype=bool)
    if gram.counted is None:
        return keep
    lacking = np.asarray((~gram.counted).any(axis=2))
    while lacking[np.ix_(keep, keep)].any():
        worst = np.where(keep, lacking[:, keep].sum(axis=1), -1).argmax()
        keep[worst] = False
    return keep


def probabilities_only(selection: Selection, what: str) -> None:
    """Refuse layers whose maps are no probabilities.

    Raises
    ------
    UserError
        It names the layer and its kind.
    """
    sites = selection.store.sites(selection.run)
    mine = sites[(sites["stream"] == selection.stream) & sites["layer"].isin(selection.layers)]
    for layer, kind in zip(mine["layer"], mine["kind"], strict=True):
        if kind != "softmax":
            raise UserError(
                f"{what} are of attention probabilities, and maps of layer {layer} are of kind "
                f"{kind!r}: choose other layers, or compare them by cosine or pearson"
            )


def enough_classes_and_subjects(chosen: Chosen, *, subjects: int = 2, classes: int = 2) -> None:
    """Refuse a design that is too small.

    Raises
    ------
    UserError
        It says how many there are and how many are needed.
    """
    layout = chosen.layout
    for found, needed, what in (
        (len(layout.subjects), subjects, "subject"),
        (len(layout.labels), classes, "class"),
    ):
        if found < needed:
            plural = {"subject": "subjects", "class": "classes"}[what]
            raise UserError(
                f"there is {found} {what if found == 1 else plural} among the rows, and at least "
                f"{needed} {plural} are needed: widen the selection, or record more"
            )


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the lines of a table as plain values for JSON; what is not defined is None."""
    plain = frame.astype(object)
    plain = plain.where(plain.notna(), None)
    return [{str(k): v for k, v in line.items()} for line in plain.to_dict(orient="records")]
