"""The layout of the paper's Figure 5: the last layer's attention in three videos, head by head."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.style import (
    FAINT,
    HEAD_COLOURS,
    OTHER_PERSON,
    RC,
    SIDE_COLOURS,
    WIDTH,
    PaperFigure,
)
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore, SkeletonInfo

STYLES = ("lines", "heat")

# Opacity is given in this many steps; a line that would be fainter than the first is not drawn,
# which keeps a file of 24 panels below a megabyte.
_OPACITIES = 48

# All sizes in inches.
_MARGIN = 0.06
_GAP = 0.09
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

    Returns
    -------
    PaperFigure
        A matplotlib figure 7 inches wide. `tssan_viz.figures.save_figure` writes it.

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
        return _lines(data, tokens) if style == "lines" else _heat(data, tokens)


def _lines(data: Figure5Data, tokens: int) -> PaperFigure:
    row = _TITLE + _HEADS + _LINES_HEIGHT + _GAP
    height = len(data.videos) * row + _FOOT
    sheet = _Sheet(height)
    scale = _line_scale(data)
    panels = WIDTH - 2 * (_MARGIN + _LINE_TOKENS)
    width = (panels - _GAP * (len(data.heads) - 1)) / len(data.heads)
    for n, video in enumerate(data.videos):
        top = n * row
        sheet.title(video.title, top + _TITLE / 2)
        top += _TITLE
        t, s = video.maps.shape[1:]
        for side, frames, label in (("query", t, "query frame"), ("key", s, "key frame")):
            left = _MARGIN if side == "query" else WIDTH - _MARGIN - _LINE_TOKENS
            axes = sheet.axes(left, top + _HEADS, _LINE_TOKENS, _LINES_HEIGHT, f"{side} poses")
            _pose_column(axes, data, video, _spread(frames, tokens), frames, side)
            sheet.text(left + _LINE_TOKENS / 2, top + _HEADS / 2, label, colour=FAINT)
        for m, number in enumerate(data.heads):
            left = _MARGIN + _LINE_TOKENS + m * (width + _GAP)
            sheet.text(left + width / 2, top + _HEADS / 2, f"head {number}")
            axes = sheet.axes(
                left, top + _HEADS, width, _LINES_HEIGHT, f"{video.sample} head {number}"
            )
            _line_panel(axes, video.maps[m], _colour(number), scale, tokens)
    _opacity_key(sheet, scale, height, data)
    return sheet.figure


def _heat(data: Figure5Data, tokens: int) -> PaperFigure:
    panels = WIDTH - _MARGIN - _LEFT_TICKS - _BAR
    heads = max(len(data.heads), 3)
    side = min((panels - _GAP * (heads - 1)) / heads, 1.6)
    row = _TITLE + _STRIP + _HEADS + side + _LOWER_TICKS + _GAP
    height = len(data.videos) * row + 0.24
    sheet = _Sheet(height)
    full = _full_scale(data)
    mesh: QuadMesh | None = None
    for n, video in enumerate(data.videos):
        top = n * row
        sheet.title(video.title, top + _TITLE / 2)
        top += _TITLE
        t, s = video.maps.shape[1:]
        strip = sheet.axes(_MARGIN + _LEFT_TICKS, top, panels, _STRIP, f"{video.sample} poses")
        _pose_strip(strip, data, video, _spread(t, tokens))
        top += _STRIP
        for m, number in enumerate(data.heads):
            left = _MARGIN + _LEFT_TICKS + m * (side + _GAP)
            sheet.text(left + side / 2, top + _HEADS / 2, f"head {number}")
            axes = sheet.axes(left, top + _HEADS, side, side, f"{video.sample} head {number}")
            axes.set_axis_on()
            mesh = axes.pcolormesh(
                np.arange(s + 1) - 0.5,
                np.arange(t + 1) - 0.5,
                video.maps[m],
                norm=Normalize(0.0, full, clip=False),
                cmap="viridis",
                # Without an edge of its own colour, viewers show hairlines between the cells.
                edgecolors="face",
                linewidth=0.4,
            )
            axes.set(xlim=(-0.5, s - 0.5), ylim=(t - 0.5, -0.5))
            axes.set_xticks([0, s - 1], labels=[_frame(video, 0), _frame(video, s - 1)])
            axes.get_xticklabels()[0].set_horizontalalignment("left")
            axes.get_xticklabels()[-1].set_horizontalalignment("right")
            axes.set_yticks([0, t - 1], labels=[_frame(video, 0), _frame(video, t - 1)])
            axes.tick_params(labelleft=m == 0)
            if m == 0:
                axes.set_ylabel("query frame", labelpad=2)
                axes.set_xlabel("key frame", labelpad=1)
    assert mesh is not None
    top = _TITLE + _STRIP + _HEADS
    scale = sheet.axes(WIDTH - _BAR + 0.12, top, 0.10, max(side, 1.0), "colour scale")
    scale.set_axis_on()
    clipped = full < max(float(video.maps.max()) for video in data.videos)
    bar = sheet.figure.colorbar(mesh, cax=scale, extend="max" if clipped else "neither")
    if bar.solids is not None:
        bar.solids.set(rasterized=False, edgecolor="face")
    scale.set_ylabel("attention weight")
    scale.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    sheet.text(_MARGIN, height - 0.12, _what(data), colour=FAINT, align="left")
    return sheet.figure


class _Sheet:
    """A figure on which places are given in inches from the upper left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = PaperFigure(figsize=(WIDTH, height))

    def axes(self, left: float, top: float, width: float, height: float, label: str) -> Axes:
        box = (
            left / WIDTH,
            1 - (top + height) / self.height,
            width / WIDTH,
            height / self.height,
        )
        axes = self.figure.add_axes(box, label=label)
        axes.set_axis_off()
        return axes

    def text(
        self, x: float, y: float, text: str, colour: str = "#000000", align: str = "center"
    ) -> None:
        self.figure.text(
            x / WIDTH, 1 - y / self.height, text, color=colour, ha=align, va="center_baseline"
        )

    def title(self, text: str, y: float) -> None:
        self.figure.text(
            _MARGIN / WIDTH,
            1 - y / self.height,
            text,
            ha="left",
            va="center_baseline",
            fontsize=8,
            fontweight="bold",
        )


def _line_panel(
    axes: Axes, weights: NDArray[np.float32], colour: str, scale: Normalize, tokens: int
) -> None:
    """Draw the lines of one head, the strongest on top; the collection's array is the weights."""
    t, s = weights.shape
    query, key = (index.ravel() for index in np.indices(weights.shape))
    order = np.argsort(weights.ravel(), kind="stable")
    order = order[np.asarray(scale(weights.ravel()[order])) >= 1 / _OPACITIES]
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
        cmap=_opacity_ramp(colour),
        norm=scale,
        # As many thin lines as there are frames would run into one surface if they were not finer.
        linewidths=min(0.5, 12 / t),
        capstyle="butt",
    )
    axes.add_collection(lines, autolim=False)
    for x, frames in ((0.0, t), (1.0, s)):
        axes.plot([x, x], [0, 1], color=FAINT, linewidth=0.4)
        marks = _spread(frames, tokens) / max(frames - 1, 1)
        axes.plot(np.full(len(marks), x), marks, "o", color=FAINT, markersize=1.3, clip_on=False)
    margin = _margin(len(_spread(t, tokens)))
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
            _frame(video, frame),
            ha="right" if side == "query" else "left",
            va="center_baseline",
            fontsize=7,
        )
        centre = edge - sign * 0.50
        _pose(axes, data.skeleton, video, frame, centre, y, min(room, _STRIP))


def _pose_strip(axes: Axes, data: Figure5Data, video: Video, frames: NDArray[np.int_]) -> None:
    """Draw poses beside each other, with the frame number below."""
    width = axes.get_position().width * WIDTH
    axes.set(xlim=(0, width), ylim=(_STRIP, 0))
    for n, frame in enumerate(frames):
        x = width * (n + 0.5) / len(frames)
        _pose(axes, data.skeleton, video, frame, x, 0.20, 0.36)
        axes.text(x, _STRIP - 0.06, f"frame {_frame(video, frame)}", ha="center", fontsize=7)


def _pose(
    axes: Axes,
    skeleton: SkeletonInfo | None,
    video: Video,
    frame: int,
    x: float,
    y: float,
    height: float,
) -> None:
    """Draw who is there at a frame around (x, y), `height` inches for the tallest pose."""
    if skeleton is None or video.poses is None:
        return
    poses = video.poses[..., :2] * np.array([1.0, 1.0 if skeleton.units == "image" else -1.0])
    person = poses[0]
    low, high = person[..., 1].min(), person[..., 1].max()
    scale = 0.86 * height / max(high - low, 1e-6)
    # Up and down is kept from frame to frame, so that who sits or jumps is seen to; where the
    # person stands is not.
    origin = np.array([person[frame, :, 0].mean(), (low + high) / 2])
    child, parent = np.array(skeleton.bones).T
    for m in reversed(range(len(poses))):
        place = (poses[m, frame] - origin) * scale + np.array([x, y])
        colours = [
            SIDE_COLOURS.get(skeleton.sides[joint], SIDE_COLOURS["centre"])
            if m == 0
            else OTHER_PERSON
            for joint in child
        ]
        axes.add_collection(
            LineCollection(
                list(np.stack([place[child], place[parent]], axis=1)),
                colors=colours,
                linewidths=0.6,
                capstyle="round",
            ),
            autolim=False,
        )
        if skeleton.head_joint is not None:
            axes.plot(
                *place[skeleton.head_joint],
                "o",
                color=SIDE_COLOURS["centre"] if m == 0 else OTHER_PERSON,
                markersize=1.8,
                markeredgewidth=0,
            )


def _opacity_key(sheet: _Sheet, scale: Normalize, height: float, data: Figure5Data) -> None:
    y = height - 0.26
    sheet.text(_MARGIN, y, "attention weight", align="left")
    axes = sheet.axes(_MARGIN + 1.05, y - 0.1, 3.2, 0.2, "opacity key")
    axes.set(xlim=(0, 3.2), ylim=(0, 1))
    ramp = _opacity_ramp("#000000")
    for n, part in enumerate((0.25, 0.5, 0.75, 1.0)):
        axes.plot([0.8 * n, 0.8 * n + 0.25], [0.5, 0.5], color=ramp(part), linewidth=1.2)
        more = "≥ " if part == 1.0 else ""
        weight = float(scale.inverse(part))
        axes.text(0.8 * n + 0.31, 0.5, f"{more}{weight:.2g}", va="center_baseline")
    faintest = scale.inverse(1 / _OPACITIES)
    left_out = f"; weights up to {faintest:.2g}, about those of even attention, are left out"
    sheet.text(_MARGIN, height - 0.1, _what(data) + left_out, colour=FAINT, align="left")


def _what(data: Figure5Data) -> str:
    parts = [f"layer {data.layer} of {data.layers}"]
    if data.segment is not None:
        parts.append(f"segment {data.segment}")
    parts += [f"person {data.person}", f"run {data.run}"]
    return ", ".join(parts)


def _line_scale(data: Figure5Data) -> Normalize:
    """Return what turns a weight into an opacity: 0 at even attention, 1 at `_full_scale`.

    Attention over many frames is spread out: drawn from 0 on, a thousand faint lines per panel
    would cover it evenly and hide the few that stand out.
    """
    even = 1.0 / data.videos[0].maps.shape[-1]
    return Normalize(even, max(_full_scale(data), 1.01 * even), clip=True)


def _full_scale(data: Figure5Data) -> float:
    """Return the weight drawn fully opaque: the 99.5th percentile of all that is shown.

    One scale for all panels, so that they can be compared; a single extreme does not fade the rest.
    """
    values = np.concatenate([video.maps.ravel() for video in data.videos])
    return float(max(np.quantile(values, 0.995), 1e-6))


def _opacity_ramp(colour: str) -> LinearSegmentedColormap:
    rgb = to_rgb(colour)
    return LinearSegmentedColormap.from_list("opacity", [(*rgb, 0.0), (*rgb, 1.0)], N=_OPACITIES)


def _colour(head: int) -> str:
    return HEAD_COLOURS[(head - 1) % len(HEAD_COLOURS)]


def _spread(frames: int, tokens: int) -> NDArray[np.int_]:
    return np.unique(np.linspace(0, frames - 1, min(tokens, frames)).round().astype(int))


def _margin(tokens: int) -> float:
    """Return the room above the first and below the last frame, for half a pose."""
    return 0.5 / tokens


def _frame(video: Video, frame: int) -> str:
    """Return the frame's number in the source where the map is over the sampled frames."""
    if frame < len(video.frames):
        return f"{video.frames[frame]:.0f}"
    return str(frame)
