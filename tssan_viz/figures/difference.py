"""Where the maps of two groups differ: both means, their difference, and what survives the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from tssan_viz.comparison.difference import DifferenceMaps, difference_maps
from tssan_viz.errors import UserError
from tssan_viz.figures.means import ask, counted, named_heads, provenance
from tssan_viz.figures.sheet import (
    BAR,
    FOOT,
    GAP,
    LOWER,
    MARGIN,
    NAME,
    TITLE,
    Scale,
    Sheet,
    colour_bar,
    end_ticks,
    fit,
    foot,
    map_panel,
    signed_scale,
    weight_scale,
)
from tssan_viz.figures.style import RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# All sizes in inches.
_LEFT = 0.52

MOST_HEADS = 8


def difference(
    source: AttentionStore | Selection | DifferenceMaps,
    class_name: str | int | None = None,
    other: str | int | None = None,
    *,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    permutations: int = 5000,
    seed: int = 0,
    alpha: float = 0.05,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
    names: tuple[str, str] = ("a", "b"),
    progress: Any = None,
) -> PaperFigure:
    """Draw the mean maps of two groups and their difference, significant cells outlined.

    Picture and caption say how many cells those are, of the maps that are drawn.

    Parameters
    ----------
    source
        A store (its test videos), a selection, or what `difference_maps` returned (`names` says
        what its groups are called).
    class_name, other
        The two classes; `other` is by default all other classes.
    layer, head
        Counted from 1. Default: the last layer; all heads, of more than eight those that differ
        most.
    permutations, seed, alpha
        As in `tssan_viz.comparison.difference.difference_maps`. The correction is over all cells of
        all heads that are tested, which are those of the layer.
    subject, person, run
        Whose rows.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, no class was named, or both are the same.
    """
    width = paper_width(venue, columns)
    said = ""
    rows: Selection | None = None
    notes: tuple[str, ...] = ()
    if isinstance(source, DifferenceMaps):
        found = source
    else:
        if class_name is None:
            raise UserError("name the class whose maps are compared: class_name= (--class)")
        asked = ask(source, subject=subject, person=person, run=run)
        rows = asked.rows
        a = asked.rows.catalogue.resolve(class_name)
        of_a = asked.rows.select(class_name=a.label)
        if other is None:
            of_b, names = asked.rows - of_a, (str(a), "all other classes")
        else:
            b = asked.rows.catalogue.resolve(other)
            if a == b:
                raise UserError(f"{a} is compared with itself; name two classes")
            of_b, names = asked.rows.select(class_name=b.label), (str(a), str(b))
        for part, name in ((of_a, names[0]), (of_b, names[1])):
            if not len(part):
                raise UserError(f"there is no video of {name} to compare: {part.empty_because}")
        found = difference_maps(
            of_a,
            of_b,
            layer=asked.rows.layers[-1] if layer is None else layer,
            person=person,
            permutations=permutations,
            seed=seed,
            alpha=alpha,
            progress=progress,
        )
        said = (
            f" {names[0]}: {counted(of_a)}; {names[1]}: {counted(of_b)}; {provenance(asked.rows)}."
        )
        notes = asked.notes
    shown, note = _shown(found, head)
    numbers = [found.heads[n] for n in shown]
    if rows is not None and len(set(found.layers)) == 1:
        heads = named_heads(numbers, rows, found.layers[0])
    else:
        heads = f"head{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    with matplotlib.rc_context(RC):
        weight = weight_scale([*found.mean_a[shown], *found.mean_b[shown]])
        figure = _draw(found, shown, weight, names, width)
    figure.table = _table(found, shown, names)
    outcome = _outcome(found, shown)
    test = (
        f"{outcome[0].upper()}{outcome[1:]} at {found.alpha:g}, corrected for all cells of all "
        f"{len(found.heads)} maps (max-T; {found.exchange}; "
        f"{found.n_assignments if found.enumerated else found.n_permutations} "
        f"{'assignments, all of them' if found.enumerated else f'permutations, seed {found.seed}'}"
        f"; smallest possible p {found.smallest_p:.2g})"
        if found.tested
        else "Not tested"
    )
    layers = ", ".join(str(n) for n in dict.fromkeys(found.layers[n] for n in shown))
    figure.caption = (
        f"Mean attention of {names[0]} (A) and of {names[1]} (B) and their difference, layer "
        f"{layers}, {heads}; rows are queries, columns keys; each subject weighs the same"
        f"{weight.said()}. {test}. "
        f"n = {found.n_subjects} subjects.{said}"
    )
    figure.notes = tuple(dict.fromkeys([*notes, *found.notes, *note]))
    return figure


def _outcome(found: DifferenceMaps, shown: list[int]) -> str:
    """Return how many cells of the maps that are drawn differ, and are therefore outlined."""
    cells = found.significant[shown]
    number = int(cells.sum())
    if not number:
        return "no cell differs"
    verb = "differs and is outlined" if number == 1 else "differ and are outlined"
    return f"{number} of {cells.size} cells {verb}"


def _shown(found: DifferenceMaps, head: int | Sequence[int] | None) -> tuple[list[int], list[str]]:
    """Return which maps are drawn: those asked for, else the ones that differ most."""
    everything = list(range(len(found.heads)))
    if head is not None:
        wanted = [head] if isinstance(head, int | np.integer) else list(head)
        missing = [n for n in wanted if n not in found.heads]
        if missing:
            raise UserError(f"there is no head {missing[0]}; there are {max(found.heads)}")
        return [n for n in everything if found.heads[n] in wanted], []
    if len(everything) <= MOST_HEADS:
        return everything, []
    size = np.abs(found.difference).reshape(len(everything), -1).max(axis=1)
    keep = sorted(np.argsort(-size, kind="stable")[:MOST_HEADS].tolist())
    return keep, [f"the {MOST_HEADS} maps that differ most are drawn of {len(everything)}"]


def _draw(
    found: DifferenceMaps,
    shown: list[int],
    weight: Scale,
    names: tuple[str, str],
    width: float,
) -> PaperFigure:
    room = width - 2 * MARGIN - _LEFT - BAR
    side = fit(len(shown), room, GAP, 0.36, 1.5, "heads")
    row = side + GAP
    sheet = Sheet(TITLE + NAME + 3 * row + LOWER + FOOT, width)
    sheet.title(f"A: {names[0]}   B: {names[1]}", TITLE / 2)
    one_layer = len({found.layers[n] for n in shown}) == 1
    signed = signed_scale([found.difference[shown]])
    top = TITLE + NAME
    left = MARGIN + _LEFT
    rows = (
        (found.mean_a, weight, "mean A"),
        (found.mean_b, weight, "mean B"),
        (found.difference, signed, "A − B"),
    )
    for line, (maps, scale, name) in enumerate(rows):
        y = top + line * row
        for column, n in enumerate(shown):
            x = left + column * (side + GAP)
            axes = sheet.axes(x, y, side, side, f"{name} {found.layers[n]} {found.heads[n]}")
            map_panel(axes, maps[n], scale)
            q, s = maps[n].shape
            last = line == 2
            end_ticks(axes, (0, s - 1), (0, q - 1), below=last, beside=column == 0)
            if line == 0:
                word = f"head {found.heads[n]}"
                sheet.text(x + side / 2, TITLE + NAME / 2, word if one_layer else
                           f"{found.layers[n]}.{found.heads[n]}")  # fmt: skip
            if last:
                outline(axes, found.significant[n])
            if last and column == 0:
                axes.set_xlabel("key frame", labelpad=1)
                axes.set_ylabel("query frame", labelpad=1)
        sheet.text(MARGIN + 0.07, y + side / 2, name, rotation=90)
    bar = left + len(shown) * (side + GAP) + 0.06
    colour_bar(sheet, weight, bar, top, 2 * row - GAP, "attention weight")
    colour_bar(sheet, signed, bar, top + 2 * row, max(side, 0.5), "difference")
    if found.tested:
        words = f"{found.n_subjects} subjects; {_outcome(found, shown)} (max-T, {found.alpha:g})"
    else:
        words = f"{found.n_subjects} subjects; not tested"
    foot(sheet, words + weight.said())
    return sheet.figure


def outline(axes: Axes, cells: NDArray[np.bool_]) -> None:
    """Draw the border of cells (q, s) of a map, along the edges of the cells."""
    padded = np.pad(cells, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # edges above row q
    down = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # edges left of column s
    lines = [[(s - 0.5, q - 0.5), (s + 0.5, q - 0.5)] for q, s in across]
    lines += [[(s - 0.5, q - 0.5), (s - 0.5, q + 0.5)] for q, s in down]
    axes.add_collection(
        LineCollection(lines, colors="#000000", linewidths=0.6, capstyle="projecting"),
        autolim=False,
    )


def _table(found: DifferenceMaps, shown: list[int], names: tuple[str, str]) -> pd.DataFrame:
    """Return one line per map, query and key."""
    h, q, s = (index.ravel() for index in np.indices((len(shown), *found.difference.shape[1:])))
    return pd.DataFrame(
        {
            "a": names[0],
            "b": names[1],
            "layer": np.array(found.layers)[shown][h],
            "head": np.array(found.heads)[shown][h],
            "query": q,
            "key": s,
            "mean_a": found.mean_a[shown].ravel(),
            "mean_b": found.mean_b[shown].ravel(),
            "difference": found.difference[shown].ravel(),
            "p_max_t": found.p[shown].ravel(),
            "significant": found.significant[shown].ravel(),
        }
    )
