"""What is drawn in several figures: places in inches, poses, maps with one scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Video
from tssan_viz.figures.style import FAINT, OTHER_PERSON, SIDE_COLOURS, PaperFigure
from tssan_viz.store import SkeletonInfo

MARGIN = 0.06
GAP = 0.09

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
    figure = text.get_figure(root=True)
    assert figure is not None
    words = text.get_text()
    while len(words) > 1:
        if measured(text) <= width:
            return
        words = words[:-1].rstrip()
        text.set_text(words + "…")


def measured(text: matplotlib.text.Text) -> float:
    """Return how wide a text is, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = text.get_figure(root=True)
    assert figure is not None
    with warnings.catch_warnings():
        # Which characters no font has is said when the figure is saved.
        warnings.filterwarnings("ignore", message="Glyph")
        box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    return float(box.width / figure.dpi)


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


def full_scale(maps: Iterable[NDArray[np.floating]]) -> float:
    """Return the weight at the end of a scale: the 99.5th percentile of all that is shown.

    One scale for all panels, so that they can be compared; a single extreme does not fade the rest.
    """
    values = np.concatenate([np.asarray(one).ravel() for one in maps])
    values = values[np.isfinite(values)]
    return float(max(np.quantile(values, 0.995), 1e-6)) if len(values) else 1.0


def map_panel(
    axes: Axes, weights: NDArray[np.floating], norm: Normalize, cmap: str = "viridis"
) -> QuadMesh:
    """Draw a map (q, s): queries run down, keys to the right."""
    q, s = weights.shape
    axes.set_axis_on()
    mesh = axes.pcolormesh(
        np.arange(s + 1) - 0.5,
        np.arange(q + 1) - 0.5,
        weights,
        norm=norm,
        cmap=cmap,
        # Without an edge of its own colour, viewers show hairlines between the cells.
        edgecolors="face",
        linewidth=0.4,
    )
    axes.set(xlim=(-0.5, s - 0.5), ylim=(q - 0.5, -0.5))
    return mesh


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
    axes.tick_params(labelbottom=below, labelleft=beside)


def colour_bar(
    sheet: Sheet,
    mesh: matplotlib.cm.ScalarMappable,
    left: float,
    top: float,
    height: float,
    label: str,
    extend: str = "neither",
) -> None:
    """Draw the scale of all panels, with its unit, at their right."""
    axes = sheet.axes(left, top, 0.10, height, "colour scale", on=True)
    bar = sheet.figure.colorbar(mesh, cax=axes, extend=extend)
    if bar.solids is not None:
        bar.solids.set(rasterized=False, edgecolor="face")
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))


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
    """Write what the figure shows along its lower edge."""
    shown = sheet.figure.text(
        MARGIN / sheet.width,
        0.1 / sheet.height,
        text,
        color=FAINT,
        ha="left",
        va="center_baseline",
    )
    shorten(shown, sheet.width - 2 * MARGIN)
