"""The layout of the paper's Figure 5: the last layer's attention in three videos, head by head."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.sheet import (
    GAP,
    MARGIN,
    OPACITIES,
    Sheet,
    colour_bar,
    draw_pose,
    end_ticks,
    fit,
    foot,
    frame_number,
    full_scale,
    map_panel,
    opacity_ramp,
    spread,
    weight_scale,
)
from tssan_viz.figures.style import (
    FAINT,
    HEAD_COLOURS,
    RC,
    PaperFigure,
    paper_width,
)
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

STYLES = ("lines", "heat")

# All sizes in inches.
_TITLE = 0.20
_HEADS = 0.15
_LINES_HEIGHT = 1.95
_FOOT = 0.42
_LINE_TOKENS = 0.78
_STRIP = 0.52
_LEFT_TICKS = 0.40
_LOWER_TICKS = 0.36
_BAR = 0.72


def figure5(
    source: AttentionStore | Selection | Figure5Data,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    style: str = "lines",
    segment: int | None = None,
    person: int = 1,
    tokens: int | None = None,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw the attention of one layer in two videos of one class and one of another.

    Each row is a video and each column a head, as in Figure 5 of Cho et al. (WACV 2020). The line
    panels are those of BertViz: query frames on the left, key frames on the right, opacity for
    weight; here in proportion to how far a weight lies above 1 / s, that of even attention over s
    keys. Poses stand at some of the frames.

    Parameters
    ----------
    source
        A store (its test videos are considered), a selection (all of it is), or what `figure5_data`
        returned; the last has chosen already and takes none of the parameters of the choice.
    class_name
        One or more classes by name, code, alias or label: two subjects are shown of the first, one
        of each other. Default, as in the paper: "put on jacket" and "reading" where they are there.
        Which subjects: rightly recognised, of one camera, lowest number; a selection narrows it.
    layer, head
        Counted from 1. Default: the last layer, and all heads (of more than eight those with the
        highest peaks).
    style
        ``"lines"``, or ``"heat"`` for heat maps with a colour scale.
    segment, person
        Counted from 1. Default: the middle segment, the first person.
    tokens
        At how many frames a pose is drawn, evenly spread. Default: 6 beside lines, 8 over heat
        maps.
    run
        Which run of a store; default: the newest.
    venue, columns
        For which publisher's columns, and over how many: `tssan_viz.figures.VENUES`. Default: 7
        inches.

    Returns
    -------
    PaperFigure
        With its caption and numbers; `tssan_viz.figures.save_figure` writes it.

    Raises
    ------
    UserError
        Nothing fits, or a class, layer, head, segment or style does not exist.
    """
    if style not in STYLES:
        raise UserError(f"there is no style {style!r}; there are {' and '.join(STYLES)}")
    if tokens is None:
        tokens = 6 if style == "lines" else 8
    if tokens < 2:
        raise UserError(f"tokens is {tokens}; at least 2 frames get a pose, the first and the last")
    width = paper_width(venue, columns)
    if isinstance(source, Figure5Data):
        data = source
    else:
        data = figure5_data(
            source,
            class_name,
            layer=layer,
            head=head,
            segment=segment,
            person=person,
            run=run,
        )
    with matplotlib.rc_context(RC):
        figure = (_lines if style == "lines" else _heat)(data, tokens, width)
    figure.table = data.table()
    figure.caption = _caption(data, style)
    figure.notes = data.notes
    return figure


def _lines(data: Figure5Data, tokens: int, page: float) -> PaperFigure:
    row = _TITLE + _HEADS + _LINES_HEIGHT + GAP
    height = len(data.videos) * row + _FOOT
    sheet = Sheet(height, page)
    scale = _line_scale(data)
    panels = page - 2 * (MARGIN + _LINE_TOKENS)
    width = fit(len(data.heads), panels, GAP, 0.38, panels, "heads")
    for n, video in enumerate(data.videos):
        top = n * row
        sheet.title(video.title, top + _TITLE / 2)
        top += _TITLE
        t, s = video.maps.shape[1:]
        for side, frames, label in (("query", t, "query frame"), ("key", s, "key frame")):
            left = MARGIN if side == "query" else page - MARGIN - _LINE_TOKENS
            axes = sheet.axes(left, top + _HEADS, _LINE_TOKENS, _LINES_HEIGHT, f"{side} poses")
            _pose_column(axes, data, video, spread(frames, tokens), frames, side)
            sheet.text(left + _LINE_TOKENS / 2, top + _HEADS / 2, label, colour=FAINT)
        for m, number in enumerate(data.heads):
            left = MARGIN + _LINE_TOKENS + m * (width + GAP)
            sheet.text(left + width / 2, top + _HEADS / 2, f"head {number}")
            axes = sheet.axes(
                left, top + _HEADS, width, _LINES_HEIGHT, f"{video.sample} head {number}"
            )
            _line_panel(axes, video.maps[m], _colour(number), scale, tokens)
    _opacity_key(sheet, scale, height, data)
    return sheet.figure


def _heat(data: Figure5Data, tokens: int, page: float) -> PaperFigure:
    panels = page - MARGIN - _LEFT_TICKS - _BAR
    heads = max(len(data.heads), 3)
    side = fit(heads, panels, GAP, 0.38, 1.6, "heads")
    row = _TITLE + _STRIP + _HEADS + side + _LOWER_TICKS + GAP
    height = len(data.videos) * row + 0.24
    sheet = Sheet(height, page)
    scale = weight_scale([one for video in data.videos for one in video.maps])
    for n, video in enumerate(data.videos):
        top = n * row
        sheet.title(video.title, top + _TITLE / 2)
        top += _TITLE
        t, s = video.maps.shape[1:]
        strip = sheet.axes(MARGIN + _LEFT_TICKS, top, panels, _STRIP, f"{video.sample} poses")
        _pose_strip(strip, data, video, spread(t, tokens))
        top += _STRIP
        for m, number in enumerate(data.heads):
            left = MARGIN + _LEFT_TICKS + m * (side + GAP)
            sheet.text(left + side / 2, top + _HEADS / 2, f"head {number}")
            axes = sheet.axes(left, top + _HEADS, side, side, f"{video.sample} head {number}")
            map_panel(axes, video.maps[m], scale)
            end_ticks(
                axes,
                (frame_number(video, 0), frame_number(video, s - 1)),
                (frame_number(video, 0), frame_number(video, t - 1)),
                beside=m == 0,
            )
            if m == 0:
                axes.set_ylabel("query frame", labelpad=2)
                axes.set_xlabel("key frame", labelpad=1)
    top = _TITLE + _STRIP + _HEADS
    colour_bar(sheet, scale, page - _BAR + 0.12, top, max(side, 1.0), "attention weight")
    foot(sheet, _what(data) + scale.said())
    return sheet.figure


def _line_panel(
    axes: Axes, weights: NDArray[np.float32], colour: str, scale: Normalize, tokens: int
) -> None:
    """Draw the lines of one head, the strongest on top; the collection's array is the weights."""
    t, s = weights.shape
    query, key = (index.ravel() for index in np.indices(weights.shape))
    order = np.argsort(weights.ravel(), kind="stable")
    order = order[np.asarray(scale(weights.ravel()[order])) >= 1 / OPACITIES]
    ends = np.stack(
        [
            np.stack([np.zeros(len(order)), query[order] / max(t - 1, 1)], axis=-1),
            np.stack([np.ones(len(order)), key[order] / max(s - 1, 1)], axis=-1),
        ],
        axis=1,
    )
    lines = LineCollection(
        list(ends),
        array=weights.ravel()[order],
        cmap=opacity_ramp(colour),
        norm=scale,
        # As many thin lines as there are frames would run into one surface if they were not finer.
        linewidths=min(0.5, 12 / t),
        capstyle="butt",
    )
    axes.add_collection(lines, autolim=False)
    for x, frames in ((0.0, t), (1.0, s)):
        axes.plot([x, x], [0, 1], color=FAINT, linewidth=0.4)
        marks = spread(frames, tokens) / max(frames - 1, 1)
        axes.plot(np.full(len(marks), x), marks, "o", color=FAINT, markersize=1.3, clip_on=False)
    margin = _margin(len(spread(t, tokens)))
    axes.set(xlim=(-0.01, 1.01), ylim=(1 + margin, -margin))


def _pose_column(
    axes: Axes, data: Figure5Data, video: Video, frames: NDArray[np.int_], count: int, side: str
) -> None:
    """Draw poses below each other beside the lines, with the frame number towards the lines."""
    margin = _margin(len(frames))
    unit = _LINES_HEIGHT / (1 + 2 * margin)
    axes.set(xlim=(0, _LINE_TOKENS), ylim=(unit * (1 + margin), -unit * margin))
    room = unit * np.diff(frames).min(initial=count) / max(count - 1, 1)
    sign = 1 if side == "query" else -1
    edge = _LINE_TOKENS if side == "query" else 0.0
    for frame in frames:
        y = unit * frame / max(count - 1, 1)
        axes.text(
            edge - sign * 0.06,
            y,
            frame_number(video, frame),
            ha="right" if side == "query" else "left",
            va="center_baseline",
            fontsize=7,
        )
        centre = edge - sign * 0.50
        draw_pose(axes, data.skeleton, video, frame, centre, y, min(room, _STRIP))


def _pose_strip(axes: Axes, data: Figure5Data, video: Video, frames: NDArray[np.int_]) -> None:
    """Draw poses beside each other, with the frame number below."""
    page = axes.get_figure(root=True)
    assert page is not None
    width = axes.get_position().width * page.get_figwidth()
    axes.set(xlim=(0, width), ylim=(_STRIP, 0))
    for n, frame in enumerate(frames):
        x = width * (n + 0.5) / len(frames)
        draw_pose(axes, data.skeleton, video, frame, x, 0.20, 0.36)
        axes.text(x, _STRIP - 0.06, f"frame {frame_number(video, frame)}", ha="center", fontsize=7)


def _opacity_key(sheet: Sheet, scale: Normalize, height: float, data: Figure5Data) -> None:
    y = height - 0.26
    sheet.text(MARGIN, y, "attention weight", align="left")
    axes = sheet.axes(MARGIN + 1.05, y - 0.1, 3.2, 0.2, "opacity key")
    axes.set(xlim=(0, 3.2), ylim=(0, 1))
    ramp = opacity_ramp("#000000")
    for n, part in enumerate((0.25, 0.5, 0.75, 1.0)):
        axes.plot([0.8 * n, 0.8 * n + 0.25], [0.5, 0.5], color=ramp(part), linewidth=1.2)
        more = "≥ " if part == 1.0 else ""
        weight = float(scale.inverse(part))
        axes.text(0.8 * n + 0.31, 0.5, f"{more}{weight:.2g}", va="center_baseline")
    faintest = scale.inverse(1 / OPACITIES)
    left_out = f"; weights up to {faintest:.2g}, about those of even attention, are left out"
    foot(sheet, _what(data) + left_out)


def _what(data: Figure5Data) -> str:
    parts = [f"layer {data.layer} of {data.layers}"]
    if data.segment is not None:
        parts.append(f"segment {data.segment}")
    parts += [f"person {data.person}", f"run {data.run}"]
    return ", ".join(parts)


def _caption(data: Figure5Data, style: str) -> str:
    drawn = (
        "Query frames stand on the left, key frames on the right; the more opaque a line, the "
        f"higher the weight (one scale; fully opaque from {_full_scale(data):.2g} on)."
        if style == "lines"
        else "Rows are query frames, columns key frames; one colour scale for all panels."
    )
    videos = "; ".join(f"{video.title} [{video.sample}]" for video in data.videos)
    return (
        f"Attention of layer {data.layer} of {data.layers}, head by head, in "
        f"{len(data.videos)} videos: {videos}. {drawn} {_what(data)[0].upper()}{_what(data)[1:]}. "
        "Single videos are shown, nothing is tested."
    )


def _line_scale(data: Figure5Data) -> Normalize:
    """Return what turns a weight into an opacity: 0 at even attention, 1 at `_full_scale`.

    Attention over many frames is spread out: drawn from 0 on, a thousand faint lines per panel
    would cover it evenly and hide the few that stand out.
    """
    even = 1.0 / data.videos[0].maps.shape[-1]
    return Normalize(even, max(_full_scale(data), 1.01 * even), clip=True)


def _full_scale(data: Figure5Data) -> float:
    return full_scale(video.maps for video in data.videos)


def _colour(head: int) -> str:
    return HEAD_COLOURS[(head - 1) % len(HEAD_COLOURS)]


def _margin(tokens: int) -> float:
    """Return the room above the first and below the last frame, for half a pose."""
    return 0.5 / tokens
