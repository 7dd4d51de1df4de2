"""Explanations and curves on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 7.0  # inches, over both columns of a page
_POSES = 16
_STRONG = "#0072B2"
_AGAINST = "#D55E00"


def explanation_figure(
    poses: NDArray[np.floating],
    bones: Sequence[tuple[int, int]],
    frames: Mapping[str, NDArray[np.floating]],
    seconds: NDArray[np.floating],
    *,
    title: str,
    shaded_by: str,
    joints: NDArray[np.floating] | None = None,
) -> PaperFigure:
    """Draw poses shaded by how much their frames count, and a line for each method.

    Parameters
    ----------
    poses
        (m, f, v, c): the video's frames, y up.
    bones
        Pairs of joints.
    frames
        Per method (f,). Each line is scaled by its greatest absolute value; what speaks against the
        class is orange.
    seconds
        (f,) of the source.
    title
        What is explained.
    shaded_by
        Which of the methods shades the poses.
    joints
        (m, v): how much each joint counts; dots of that size are drawn on it.
    """
    count = len(seconds)
    shown = np.unique(np.linspace(0, count - 1, min(_POSES, count)).round().astype(int))
    with matplotlib.rc_context(RC):
        height = 1.35 + 0.2 * len(frames)
        figure = PaperFigure(figsize=(_WIDTH, height))
        figure.text(0.012, 1 - 0.07 / height, title, va="top", fontweight="bold")
        left, width = 0.17, 0.815
        strip = figure.add_axes((left, 1 - 1.0 / height, width, 0.75 / height))
        strip.set_axis_off()
        _draw_poses(strip, poses, bones, frames[shaded_by], shown, joints)
        for line, (method, values) in enumerate(frames.items()):
            axes = figure.add_axes((left, 1 - (1.2 + 0.2 * line) / height, width, 0.15 / height))
            scale = np.abs(values).max() or 1.0
            low = min(0.0, float(values.min()))
            share = values / scale
            colours = [_STRONG if value >= 0 else _AGAINST for value in share]
            axes.bar(np.arange(count), share, width=1.0, color=colours, linewidth=0)
            axes.set(xlim=(-0.5, count - 0.5), ylim=(low / scale, 1.0), yticks=[])
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.text(
                -0.01,
                0.5,
                f"{method} ▴" if method == shaded_by else method,
                transform=axes.transAxes,
                ha="right",
                va="center",
                fontweight="bold" if method == shaded_by else "normal",
            )
            if line < len(frames) - 1:
                axes.set_xticks([])
            else:
                places = np.linspace(0, count - 1, 7).round().astype(int)
                axes.set_xticks(places, [f"{seconds[place]:.1f} s" for place in places])
    return figure


def _draw_poses(axes, poses, bones, values, shown, joints) -> None:  # type: ignore[no-untyped-def]
    positive = np.clip(values, 0, None)
    strength = positive / (positive.max() or 1.0)
    span = np.ptp(poses[..., 1]) or 1.0
    # Poses stand as far apart as the frames that they show, centred over the lines below.
    step = len(values) / len(shown)
    axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(poses[..., 1].min(), poses[..., 1].max()))
    box = axes.get_position()
    inches = axes.get_figure().get_size_inches()
    across = len(values) / (box.width * inches[0]) * (box.height * inches[1]) / span
    pairs = np.array(bones)
    for frame in shown:
        near = slice(max(0, round(frame - step / 2)), round(frame + step / 2) + 1)
        alpha = 0.15 + 0.85 * float(strength[near].max())
        centre = poses[0, frame, :, 0].mean()
        for person in poses[:, frame]:
            if not np.any(person):
                continue
            x = frame + (person[:, 0] - centre) * across
            points = np.stack([x, person[:, 1]], axis=1)
            axes.add_collection(
                LineCollection(
                    list(points[pairs]), colors=_STRONG, linewidths=0.9, alpha=alpha, clip_on=False
                )
            )
    if joints is not None:
        size = np.clip(joints, 0, None)
        size = 14 * size / (size.max() or 1.0)
        frame = shown[int(np.argmax(strength[shown]))]
        centre = poses[0, frame, :, 0].mean()
        for person, dots in zip(poses[:, frame], size, strict=False):
            x = frame + (person[:, 0] - centre) * across
            axes.scatter(x, person[:, 1], s=dots, color=_AGAINST, linewidths=0, zorder=3)


def curves_figure(curves: pd.DataFrame, *, title: str) -> PaperFigure:
    """Draw deletion and insertion curves, mean over subjects, random orders in grey.

    Parameters
    ----------
    curves
        `tssan_viz.evidence.faithfulness.Faithfulness.curves`.
    title
        Of what class, network and data.
    """
    with matplotlib.rc_context(RC):
        figure = PaperFigure(figsize=(_WIDTH, 2.7))
        figure.text(0.012, 0.975, title, va="top", fontweight="bold")
        # Which frames go first decides what a curve does early, where a linear axis has no room.
        for place, (name, what) in enumerate(
            (("deletion", "taken away"), ("insertion", "put back"))
        ):
            axes = figure.add_axes((0.07 + 0.37 * place, 0.16, 0.31, 0.66))
            methods = [m for m in curves["method"].unique() if m != "random"]
            for colour, method in zip(HEAD_COLOURS, methods, strict=False):
                one = curves[curves["method"] == method]
                axes.plot(
                    100 * one["share"],
                    one[name],
                    color=colour,
                    label=method,
                    lw=1.0,
                    marker=".",
                    ms=3,
                )
            chance = curves[curves["method"] == "random"]
            axes.plot(100 * chance["share"], chance[name], color=FAINT, ls="--", label="random")
            axes.fill_between(
                100 * chance["share"],
                chance[f"{name}_low"].astype(float),
                chance[f"{name}_high"].astype(float),
                color=FAINT,
                alpha=0.2,
                lw=0,
            )
            axes.set_title(name, loc="left")
            axes.set(xlabel=f"% of the frames {what}", xlim=(0, 100), ylim=(0, 1.02))
            if place == 0:
                axes.set_ylabel("probability of the class")
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="center left",
            bbox_to_anchor=(0.765, 0.5),
            frameon=False,
        )
    return figure
