"""What is drawn in several figures: places in inches, poses, maps with one scale."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Video
from tssan_viz.figures.style import FAINT, OTHER_PERSON, SIDE_COLOURS, PaperFigure
from tssan_viz.store import SkeletonInfo

# All sizes in inches.
MARGIN = 0.06
GAP = 0.09
TITLE = 0.22
NAME = 0.17
LOWER = 0.27
BAR = 0.74
_LONGEST = 6  # letters of a number that stand beside a colour scale
FOOT = 0.20
_LINE = 0.13  # between the lines of a footnote

# Dots per inch at which texts are measured.
_FINE = 600

# Opacity is given in this many steps; a line that would be fainter than the first is not drawn,
# which keeps a file of 24 panels below a megabyte.
OPACITIES = 48


class Sheet:
    """A figure on which places are given in inches from the upper left corner."""

    def __init__(self, height: float, width: float) -> None:
        self.height = height
        self.width = width
        self.figure = PaperFigure(figsize=(width, height))

    def axes(
        self, left: float, top: float, width: float, height: float, label: str, on: bool = False
    ) -> Axes:
        """Add axes, without a frame unless `on`."""
        box = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(box, label=label)
        if not on:
            axes.set_axis_off()
        return axes

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "#000000",
        align: str = "center",
        rotation: float = 0,
    ) -> None:
        """Write a text at a place."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            color=colour,
            ha=align,
            va="center_baseline" if rotation == 0 else "center",
            rotation=rotation,
        )

    def title(self, text: str, y: float) -> None:
        """Write a heading at the left, cut to the width of the page."""
        shown = self.figure.text(
            MARGIN / self.width,
            1 - y / self.height,
            text,
            ha="left",
            va="center_baseline",
            fontsize=8,
            fontweight="bold",
        )
        shorten(shown, self.width - 2 * MARGIN)


def shorten(text: matplotlib.text.Text, width: float) -> None:
    """Cut a text that is wider than so many inches, with an ellipsis at its end."""
    words = text.get_text()
    while len(words) > 1:
        if measured(text) <= width:
            return
        words = words[:-1].rstrip()
        text.set_text(words + "…")


def measured(text: matplotlib.text.Text) -> float:
    """Return how wide a text is, in inches."""
    from matplotlib.backends.backend_agg import RendererAgg

    with warnings.catch_warnings():
        # Which characters no font has is said when the figure is saved.
        warnings.filterwarnings("ignore", message="Glyph")
        # Letters on coarse dots are narrower than in print.
        box = text.get_window_extent(RendererAgg(1, 1, _FINE), dpi=_FINE)
    return float(box.width / _FINE)


def fit(count: int, room: float, gap: float, least: float, most: float, what: str) -> float:
    """Return how wide each of some panels is that stand beside each other.

    Raises
    ------
    UserError
        They would be narrower than `least`.
    """
    side = (room - gap * (count - 1)) / count
    if side < least:
        fits = int((room + gap) / (least + gap))
        raise UserError(
            f"{count} {what} do not fit beside each other; {fits} do at this width. "
            "Name fewer, or take columns=2 (--columns 2)"
        )
    return min(side, most)


def grid(count: int, room: float, gap: float, side: float) -> tuple[int, int]:
    """Return rows and columns for panels of a wanted side, the last row as full as can be."""
    most = max(1, min(count, int((room + gap) / (side + gap))))
    rows = -(-count // most)
    return rows, -(-count // rows)


@dataclass(frozen=True)
class Scale:
    """What turns numbers into colours, the same in all panels.

    Parameters
    ----------
    norm, cmap
        As matplotlib takes them.
    extend
        ``max`` or ``both`` where numbers lie beyond the ends, else ``neither``.
    even
        Even attention, 1 / s, where the numbers are attention over s keys and it is in range.
    """

    norm: Normalize
    cmap: str | Colormap = "viridis"
    extend: str = "neither"
    even: float | None = None

    def said(self) -> str:
        """Return what figure and caption have to say of the mark beside the scale."""
        return f"; ▸ even attention, {self.even:.3g}" if self.even is not None else ""


def weight_scale(
    maps: Sequence[NDArray[np.floating]], within: Sequence[NDArray[np.floating]] | None = None
) -> Scale:
    """Return the scale of weights, from the least that is shown to `full_scale`.

    Attention over many frames lies close to even: from 0 on, it would all be one colour.

    Parameters
    ----------
    maps
        All that is drawn, each (q, s).
    within
        What the ends are taken from; default: all of it.
    """
    inner = maps if within is None else within
    low = min((float(np.nanmin(one)) for one in inner if np.isfinite(one).any()), default=0.0)
    high = full_scale(inner)
    # What 16 bits round is not to be seen: a hundredth of a weight is the least range.
    high = max(high, low + 0.01 * abs(high))
    most = max((float(np.nanmax(one)) for one in maps if np.isfinite(one).any()), default=high)
    return Scale(
        Normalize(low, high),
        extend="max" if most > high else "neither",
        even=_even_attention(maps, low, high),
    )


def _even_attention(maps: Sequence[NDArray[np.floating]], low: float, high: float) -> float | None:
    keys = {one.shape[-1] for one in maps}
    if len(keys) != 1 or not all(np.allclose(one.sum(axis=-1), 1, atol=0.02) for one in maps):
        return None
    even = 1.0 / keys.pop()
    return even if low <= even <= high else None


def signed_scale(maps: Sequence[NDArray[np.floating]]) -> Scale:
    """Return the scale of differences, white at 0 and as far to both sides."""
    sizes = [np.abs(one) for one in maps]
    edge = full_scale(sizes)
    beyond = max(float(np.nanmax(one)) for one in sizes) > edge
    return Scale(Normalize(-edge, edge), "RdBu_r", "both" if beyond else "neither")


def full_scale(maps: Iterable[NDArray[np.floating]]) -> float:
    """Return the weight at the end of a scale: the 99.5th percentile of all that is shown.

    One scale for all panels, so that they can be compared; a single extreme does not fade the rest.
    """
    values = np.concatenate([np.asarray(one).ravel() for one in maps])
    values = values[np.isfinite(values)]
    return float(max(np.quantile(values, 0.995), 1e-6)) if len(values) else 1.0


def map_panel(axes: Axes, weights: NDArray[np.floating], scale: Scale) -> None:
    """Draw a map (q, s): queries run down, keys to the right.

    It is an image with one pixel per cell, also in PDF and SVG: sharp at any size, and a hundredth
    of what its cells take as shapes.
    """
    q, s = weights.shape
    axes.set_axis_on()
    axes.imshow(
        weights,
        norm=scale.norm,
        cmap=scale.cmap,
        # Vector formats get the cells as they are, to be enlarged without mixing neighbours.
        interpolation="none",
        aspect="auto",
        extent=(-0.5, s - 0.5, q - 0.5, -0.5),
    )


def end_ticks(
    axes: Axes,
    keys: tuple[object, object],
    queries: tuple[object, object],
    *,
    below: bool = True,
    beside: bool = True,
) -> None:
    """Label the first and the last key and query only, inside the panel's width."""
    s, q = axes.get_xlim()[1] - 0.5, axes.get_ylim()[0] - 0.5
    axes.set_xticks([0, s] if s else [0], labels=[str(n) for n in keys][: 2 if s else 1])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_yticks([0, q] if q else [0], labels=[str(n) for n in queries][: 2 if q else 1])
    axes.get_yticklabels()[0].set_verticalalignment("top")
    axes.get_yticklabels()[-1].set_verticalalignment("bottom")
    axes.tick_params(bottom=below, labelbottom=below, left=beside, labelleft=beside)


def _thousandfold(value: float, _: int | None) -> str:
    return f"{1000 * value:.4g}".replace("-", "−")


def colour_bar(
    sheet: Sheet,
    scale: Scale,
    left: float,
    top: float,
    length: float,
    label: str,
    lying: bool = False,
) -> None:
    """Draw the scale of all panels with its unit, and a mark where attention is even."""
    size = (length, 0.09) if lying else (0.10, length)
    axes = sheet.axes(left, top, *size, "colour scale", on=True)
    bar = sheet.figure.colorbar(
        matplotlib.cm.ScalarMappable(scale.norm, scale.cmap),
        cax=axes,
        extend=scale.extend,
        orientation="horizontal" if lying else "vertical",
    )
    if bar.solids is not None:
        bar.solids.set_visible(False)
    low, high = axes.get_xlim() if lying else axes.get_ylim()
    # As the maps: one picture instead of 256 rectangles.
    shades = np.linspace(low, high, 256)
    axes.imshow(
        shades[None] if lying else shades[:, None],
        norm=scale.norm,
        cmap=scale.cmap,
        interpolation="none",
        aspect="auto",
        origin="lower",
        extent=(low, high, 0, 1) if lying else (0, 1, low, high),
    )
    axis = axes.xaxis if lying else axes.yaxis
    axis.set_major_locator(matplotlib.ticker.MaxNLocator(2 if lying else 4))
    plain = matplotlib.ticker.ScalarFormatter(useOffset=False)
    axis.set_major_formatter(plain)
    ticks = plain.format_ticks(axis.get_majorticklocs().tolist())
    if not lying and any(len(words) > _LONGEST for words in ticks):
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(_thousandfold))
        sheet.text(left, top + length + 0.08, "× 0.001", align="left")
    bar.set_label(label, labelpad=2)
    if scale.even is not None:
        axes.plot(
            -0.25, scale.even, ">", color="#000000", markersize=3, clip_on=False,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip


def spread(frames: int, tokens: int) -> NDArray[np.int_]:
    """Return some frames of all, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, frames - 1, min(tokens, frames)).round().astype(int))


def frame_number(video: Video, frame: int) -> str:
    """Return the frame's number in the source where the map is over the sampled frames."""
    if frame < len(video.frames):
        return f"{video.frames[frame]:.0f}"
    return str(frame)


def opacity_ramp(colour: str) -> LinearSegmentedColormap:
    """Return a colour map from nothing to a colour."""
    rgb = to_rgb(colour)
    return LinearSegmentedColormap.from_list("opacity", [(*rgb, 0.0), (*rgb, 1.0)], N=OPACITIES)


def draw_pose(
    axes: Axes,
    skeleton: SkeletonInfo | None,
    video: Video,
    frame: int,
    x: float,
    y: float,
    height: float,
    *,
    linewidth: float = 0.6,
    colour: Any = None,
) -> None:
    """Draw who is there at a frame around (x, y), `height` inches for the tallest pose.

    The person shown gets a colour of its sides, or all of it the one given.
    """
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
            OTHER_PERSON
            if m
            else colour or SIDE_COLOURS.get(skeleton.sides[joint], SIDE_COLOURS["centre"])
            for joint in child
        ]
        axes.add_collection(
            LineCollection(
                list(np.stack([place[child], place[parent]], axis=1)),
                colors=colours,
                linewidths=linewidth,
                capstyle="round",
                # An arm may reach out of the strip; it is drawn as far as it goes.
                clip_on=False,
            ),
            autolim=False,
        )
        if skeleton.head_joint is not None:
            axes.plot(
                *place[skeleton.head_joint],
                "o",
                color=OTHER_PERSON if m else colour or SIDE_COLOURS["centre"],
                markersize=3 * linewidth,
                markeredgewidth=0,
                clip_on=False,
            )


def foot(sheet: Sheet, text: str) -> None:
    """Write what the figure shows along its lower edge, on as many lines as it takes.

    It comes last: for every further line the picture grows at its lower edge.
    """
    width = sheet.width - 2 * MARGIN
    lines: list[matplotlib.text.Text] = []
    for word in re.split("(?<!▸) ", text):  # a mark stays with what it means
        before = lines[-1].get_text() if lines else ""
        if lines:
            lines[-1].set_text(f"{before} {word}")
            if measured(lines[-1]) <= width:
                continue
            lines[-1].set_text(before)
        lines.append(
            sheet.figure.text(MARGIN / sheet.width, 0, word, color=FAINT, ha="left",
                              va="center_baseline")
        )  # fmt: skip
    _grow(sheet, _LINE * (len(lines) - 1))
    for n, line in enumerate(reversed(lines)):
        line.set_y((0.1 + n * _LINE) / sheet.height)
        shorten(line, width)


def _grow(sheet: Sheet, more: float) -> None:
    """Add so many inches at the lower edge; everything stays as far from the upper one."""
    before, sheet.height = sheet.height, sheet.height + more
    part = before / sheet.height
    for axes in sheet.figure.axes:
        box = axes.get_position(original=True)
        axes.set_position((box.x0, 1 - (1 - box.y0) * part, box.width, box.height * part))
    for text in sheet.figure.texts:
        text.set_y(1 - (1 - text.get_position()[1]) * part)
    sheet.figure.set_size_inches(sheet.width, sheet.height)
