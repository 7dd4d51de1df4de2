"""A comparison as one figure: Δ of every head with its interval, and the maps of the strongest."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

from tssan_viz.comparison.words import counted, format_p
from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

    from tssan_viz.comparison.comparison import Comparison

_WIDTH = 7.0
"""Width of a figure over both columns of a page, in inches."""

_LINE = 0.135
"""Height of one head, in inches."""


def comparison_figure(comparison: Comparison) -> PaperFigure:
    """Draw a comparison for paper.

    Left: Δ with the jackknife interval for each layer and head, filled where p max-T is at or
    below alpha. Right: the mean maps of both sides in the head with the smallest p max-T, and
    their difference; with more than two groups the first three groups.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare`.

    Returns
    -------
    PaperFigure
    """
    table = comparison.table
    height = max(2.3, 0.75 + _LINE * len(table))
    line = comparison.strongest
    with matplotlib.rc_context(RC):
        figure = PaperFigure(figsize=(_WIDTH, height), layout="constrained")
        if line is None:
            _deltas(figure.add_subplot(), comparison)
            return figure
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.75), squeeze=False)[0]
        _deltas(left.add_subplot(), comparison)
        layer, head = int(line["layer"]), int(line["head"])
        maps = comparison.group_maps(layer, head)
        names = list(comparison.side_names)
        two = len(maps) == 2
        shown = maps if two else maps[:3]
        top = float(np.nanmax(shown))
        axes = right.subplots(1, 3, sharex=True, sharey=True, squeeze=False)[0]
        for axis in axes[len(shown) + two :]:
            axis.set_visible(False)
        for axis, one, name in zip(axes, shown, names, strict=False):
            image = axis.imshow(one, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            axis.set_title(_wrapped(name, 18))
            axis.set_xlabel("key frame")
            _scale(right.colorbar(image, ax=axis, orientation="horizontal", aspect=18))
        if two:
            difference = maps[0] - maps[1]
            most = float(np.nanmax(np.abs(difference))) or 1e-6
            image = axes[2].imshow(
                difference,
                cmap="RdBu_r",
                norm=TwoSlopeNorm(0.0, -most, most),
                interpolation="nearest",
            )
            axes[2].set_title("difference")
            axes[2].set_xlabel("key frame")
            _scale(right.colorbar(image, ax=axes[2], orientation="horizontal", aspect=18))
        axes[0].set_ylabel("query frame")
        p = "" if np.isnan(line["p_max_t"]) else f", p max-T {format_p(line['p_max_t'])}"
        of = counted(len(comparison.subjects), "subject")
        right.suptitle(
            f"mean maps in layer {layer} head {head} ({of}{p})",
            fontsize=8,
        )
    return figure


def _scale(bar: Colorbar) -> None:
    """Leave so few numbers at a scale that they do not run into each other."""
    bar.locator = MaxNLocator(3)
    bar.update_ticks()


def _deltas(axis: Axes, comparison: Comparison) -> None:
    table = comparison.table
    y = np.arange(len(table))
    found = (table["p_max_t"] <= comparison.alpha).to_numpy()
    delta = table["delta"].to_numpy(float)
    for place, (low, high) in enumerate(zip(table["low"], table["high"], strict=True)):
        if np.isfinite(low):
            colour = HEAD_COLOURS[0] if found[place] else FAINT
            axis.plot([low, high], [place, place], color=colour, linewidth=1.0)
    axis.axvline(0, color="black", linewidth=0.5)
    axis.plot(
        delta[~found], y[~found], "o", markersize=3, markerfacecolor="white", markeredgecolor=FAINT
    )
    axis.plot(delta[found], y[found], "o", markersize=3.5, color=HEAD_COLOURS[0])
    names = [f"{line.layer}.{line.head}" for line in table.itertuples()]
    axis.set_yticks(y, names)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_ylabel("layer.head")
    axis.set_xlabel("Δ = B − W (distance)" if comparison.is_distance else "Δ = W − B (similarity)")
    axis.set_title(_wrapped(comparison.title, 42), fontsize=8, loc="left")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _wrapped(text: str, width: int) -> str:
    """Break text into two lines at most."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder="…"))
