"""Small multiples of mean maps: the heads of a layer, all layers and heads, the subjects."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.means import Asked, MeanMap, ask, map_table, mean_maps
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
    grid,
    map_panel,
    shorten,
    weight_scale,
)
from tssan_viz.figures.style import RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# All sizes in inches.
_LEFT = 0.36

Classes = str | int | Sequence[str | int] | None


def heads(
    source: AttentionStore | Selection,
    class_name: Classes = None,
    *,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw the mean map of every head of a layer, on one scale.

    Parameters
    ----------
    source
        A store (its test videos), or a selection.
    class_name
        Of which classes' videos the mean is; default: all.
    layer, head
        Counted from 1; default: the last layer, all heads.
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
        Nothing fits, or a class, layer or head does not exist.
    """
    width = paper_width(venue, columns)
    asked = ask(source, class_name, subject=subject, person=person, run=run)
    number = asked.rows.layers[-1] if layer is None else layer
    rows = asked.rows.select(layer=number, head=head)
    maps = mean_maps(rows)
    scale = weight_scale([one.map for one in maps])
    figure = _panels(
        [one.map for one in maps],
        [f"head {one.head}" for one in maps],
        title=f"{asked.what}, layer {number}",
        scale=scale,
        said=asked.said(),
        width=width,
    )
    return _finish(
        figure,
        asked,
        f"Mean attention of each head of layer {number}, {asked.what}. {_HOW}{scale.said()}",
        map_table(maps, rows, class_name=asked.what),
    )


def subjects(
    source: AttentionStore | Selection,
    class_name: Classes = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw one head's mean map of every subject, on one scale.

    Parameters are those of `heads`; `head` is one, by default the first.

    Raises
    ------
    UserError
        Nothing fits, or the run was recorded without subjects.
    """
    width = paper_width(venue, columns)
    asked = ask(source, class_name, subject=subject, person=person, run=run)
    number = asked.rows.layers[-1] if layer is None else layer
    rows = asked.rows.select(layer=number, head=1 if head is None else head)
    samples = rows.samples()
    if not samples["subject"].notna().any():
        raise UserError(
            f"run {rows.run!r} was recorded without subjects, so that there is one panel only; "
            "`heads` draws it"
        )
    means = rows.mean("subject")
    who = [int(n) for n in means["subject"].values]
    videos = samples.groupby("subject").size()
    maps = [MeanMap(number, rows.heads[0], one[0, 0]) for one in means.values]
    scale = weight_scale([one.map for one in maps])
    figure = _panels(
        [one.map for one in maps],
        [f"subject {n}" for n in who],
        title=f"{asked.what}, layer {number}, head {rows.heads[0]}",
        scale=scale,
        said=asked.said(),
        width=width,
    )
    tables = [
        map_table([one], rows, class_name=asked.what, subject=n, videos=int(videos[n]))
        for one, n in zip(maps, who, strict=True)
    ]
    return _finish(
        figure,
        asked,
        f"Mean attention of head {rows.heads[0]} of layer {number} for each subject, {asked.what}; "
        f"a panel is the mean over that subject's videos ({_span(videos)}). Rows are query frames, "
        "columns key frames (sampled frames, from 0); one colour scale for all panels"
        f"{scale.said()}",
        pd.concat(tables, ignore_index=True),
    )


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low} each" if low == high else f"{low} to {high}"


def model(
    source: AttentionStore | Selection,
    class_name: Classes = None,
    *,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw the mean map of every layer and head: a row for each layer, a column for each head.

    Parameters are those of `heads`.
    """
    width = paper_width(venue, columns)
    asked = ask(source, class_name, subject=subject, person=person, run=run)
    maps = mean_maps(asked.rows)
    scale = weight_scale([one.map for one in maps])
    layers = list(dict.fromkeys(one.layer for one in maps))
    numbers = sorted({one.head for one in maps})
    with matplotlib.rc_context(RC):
        room = width - 2 * MARGIN - _LEFT - BAR
        gap = 0.05
        side = fit(len(numbers), room, gap, 0.16, 1.1, "heads")
        used = len(numbers) * (side + gap) - gap
        height = TITLE + NAME + len(layers) * (side + gap) + 0.18 + FOOT
        sheet = Sheet(max(height, 1.5), width)
        sheet.title(f"{asked.what}, mean map of each head", TITLE / 2)
        left, top = MARGIN + _LEFT, TITLE + NAME
        named = 1 if side > 0.3 else 2
        for n, number in enumerate(numbers):
            if n % named == 0:
                sheet.text(left + n * (side + gap) + side / 2, TITLE + NAME / 2, str(number))
        sheet.text(left - 0.05, TITLE + NAME / 2, "head", align="right")
        for one in maps:
            x = left + numbers.index(one.head) * (side + gap)
            y = top + layers.index(one.layer) * (side + gap)
            axes = sheet.axes(x, y, side, side, f"layer {one.layer} head {one.head}")
            map_panel(axes, one.map, scale)
            axes.set(xticks=[], yticks=[])
        for n, number in enumerate(layers):
            y = top + n * (side + gap) + side / 2
            sheet.text(left - 0.07, y, str(number), align="right")
        x, y = MARGIN + 0.06, top + len(layers) * (side + gap) / 2
        sheet.text(x, y, "layer", rotation=90)
        sheet.text(left + used / 2, top + len(layers) * (side + gap) + 0.06, "query ↓   key →")
        high = max(min(len(layers) * (side + gap) - gap, 2.4), 0.9)
        colour_bar(sheet, scale, left + used + 0.12, top, high, "attention weight")
        foot(sheet, asked.said() + scale.said())
    return _finish(
        sheet.figure,
        asked,
        f"Mean attention of every layer and head, {asked.what}. {_HOW}{scale.said()}",
        map_table(maps, asked.rows, class_name=asked.what),
    )


_HOW = (
    "Each panel is the mean over subjects of each subject's mean over videos and segments, rows "
    "are query frames, columns key frames (sampled frames, from 0); one colour scale for all panels"
)


def _finish(figure: PaperFigure, asked: Asked, caption: str, table: pd.DataFrame) -> PaperFigure:
    figure.caption = f"{caption}. {asked.said()}. Described, not tested."
    figure.table = table
    figure.notes = asked.notes
    return figure


def _panels(
    maps: Sequence[NDArray[np.floating]],
    names: Sequence[str],
    *,
    title: str,
    scale: Scale,
    said: str,
    width: float,
) -> PaperFigure:
    """Draw maps in rows and columns with one scale at the right."""
    with matplotlib.rc_context(RC):
        room = width - 2 * MARGIN - _LEFT - BAR
        wanted = 0.8 if len(maps) <= 16 else 0.62
        lines, across = grid(len(maps), room, GAP, wanted)
        side = min((room - GAP * (across - 1)) / across, 1.5)
        row = NAME + side + 0.06
        sheet = Sheet(TITLE + lines * row + LOWER + FOOT, width)
        sheet.title(title, TITLE / 2)
        for n, (values, name) in enumerate(zip(maps, names, strict=True)):
            line, column = divmod(n, across)
            left = MARGIN + _LEFT + column * (side + GAP)
            top = TITLE + line * row + NAME
            axes = sheet.axes(left, top, side, side, name)
            map_panel(axes, values, scale)
            words = axes.text(
                0.5, 1.0 + 0.5 * NAME / side, name, transform=axes.transAxes, ha="center",
                va="center_baseline",
            )  # fmt: skip
            shorten(words, side + GAP)
            q, s = values.shape
            last = n + across >= len(maps)
            end_ticks(axes, (0, s - 1), (0, q - 1), below=last, beside=column == 0)
            if column == 0 and last:
                axes.set_ylabel("query frame", labelpad=1)
                axes.set_xlabel("key frame", labelpad=1)
        high = min(max(lines * row - NAME - 0.06, 0.8), 2.4)
        left = MARGIN + _LEFT + across * (side + GAP) + 0.06
        colour_bar(sheet, scale, left, TITLE + NAME, high, "attention weight")
        foot(sheet, said + scale.said())
    return sheet.figure
