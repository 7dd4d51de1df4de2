"""The layout of the paper's Figure 1: poses, and the strongest links that a head makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.means import provenance
from tssan_viz.figures.sheet import (
    FOOT,
    MARGIN,
    NAME,
    TITLE,
    Sheet,
    draw_pose,
    foot,
    frame_number,
    opacity_ramp,
)
from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# All sizes in inches.
_POSE = 0.62
_LINKS = 0.85
_PAD = 0.04
_NUMBER = 0.15
_KEY = 0.24
_SIDE = 0.40
_BETWEEN = 0.18


def figure1(
    source: AttentionStore | Selection,
    class_name: str | int | None = None,
    *,
    sample: str | None = None,
    subject: int | None = None,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    frames: int = 8,
    links: int = 16,
    segment: int | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw the strongest links between the poses of one video, two heads beside each other.

    As in Figure 1 of Cho et al. (WACV 2020). The sampled frames are cut into as many stretches as
    poses are drawn; a link's weight is the mean over its query frames of the sum over its key
    frames, so that the weights of a query pose add up to 1.

    Parameters
    ----------
    source
        A store (its test videos), or a selection.
    class_name, sample, subject
        Which video: of which class, or by its name. Default: "put on jacket" where it is there,
        the first rightly recognised one.
    layer, head
        Counted from 1. Default: the last layer, and the two heads with the highest peaks.
    frames
        How many poses.
    links
        How many links of each head, the strongest.
    segment, person, run
        As in `figure5`.
    venue, columns
        For which publisher's columns, and over how many; over one the heads stand below each other.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, or the video was recorded without poses.
    """
    width = paper_width(venue, columns)
    if frames < 2:
        raise UserError(f"frames is {frames}; links run between at least 2 poses")
    if links < 1:
        raise UserError(f"links is {links}; at least 1 is drawn")
    chosen = source.select(sample=sample) if sample is not None else source
    data = figure5_data(
        chosen,
        class_name,
        subject=subject,
        layer=layer,
        head=head,
        segment=segment,
        person=person,
        run=run,
    )
    video = data.videos[0]
    if data.skeleton is None or video.poses is None:
        raise UserError(
            f"{video.sample} was recorded without poses of the frames that are attended to; "
            "`tssan-viz figure heads` needs none"
        )
    which = _two(video.maps) if head is None else np.arange(len(data.heads))
    t = video.maps.shape[1]
    stretches = np.array_split(np.arange(t), min(frames, t))
    weights = np.stack([_between(video.maps[n], stretches) for n in which])
    numbers = [data.heads[n] for n in which]
    with matplotlib.rc_context(RC):
        figure = _draw(data, video, numbers, weights, stretches, links, width, columns)
    figure.table = _table(data, video, numbers, weights, stretches, links)
    figure.caption = (
        f"The {links} strongest links of {' and '.join(f'head {n}' for n in numbers)} in layer "
        f"{data.layer} of {data.layers} between {len(stretches)} poses of {video.title} "
        f"[{video.sample}]. The upper poses attend (queries), the lower ones are attended to "
        f"(keys). Each pose stands for {_sizes(stretches)} of {t} sampled frames; a link's weight "
        "is the mean over its query frames of the sum over its key frames. One video "
        f"(n = 1 video of 1 subject), nothing is tested. {_person(data)}"
        f"{provenance(chosen.select(run=data.run))}."
    )
    # What is said of further videos does not concern this one.
    figure.notes = tuple(note for note in data.notes if "recorded of" not in note)
    if frames > t:
        figure.notes += (f"{t} poses are drawn of {frames}: the video has {t} sampled frames",)
    return figure


def _two(maps: NDArray[np.float32]) -> NDArray[np.int_]:
    """Return the two heads whose rows are most concentrated."""
    peak = maps.max(axis=-1).mean(axis=-1)
    return np.sort(np.argsort(-peak, kind="stable")[:2])


def _between(weights: NDArray[np.float32], stretches: list[NDArray[np.int_]]) -> NDArray:
    """Return the weights between stretches of frames; rows still sum to what they summed to."""
    rows = np.stack([weights[part].mean(axis=0) for part in stretches])
    return np.stack([rows[:, part].sum(axis=1) for part in stretches], axis=1)


def _strongest(weights: NDArray, links: int) -> NDArray[np.int_]:
    """Return which of all links are drawn, the weakest first."""
    return np.argsort(weights.ravel(), kind="stable")[-links:]


def _sizes(stretches: list[NDArray[np.int_]]) -> str:
    sizes = sorted({len(part) for part in stretches})
    return " or ".join(map(str, sizes))


def _person(data: Figure5Data) -> str:
    segment = f"Segment {data.segment}, person" if data.segment is not None else "Person"
    return f"{segment} {data.person}, "


def _draw(
    data: Figure5Data,
    video: Video,
    heads: list[int],
    weights: NDArray,
    stretches: list[NDArray[np.int_]],
    links: int,
    width: float,
    columns: int,
) -> PaperFigure:
    across = min(len(heads), columns)
    lines = -(-len(heads) // across)
    panel = NAME + _NUMBER + 2 * _POSE + _LINKS + _PAD + _NUMBER
    sheet = Sheet(TITLE + lines * (panel + 0.08) + _KEY + FOOT, width)
    sheet.title(video.title, TITLE / 2)
    room = (width - 2 * MARGIN - across * _SIDE - (across - 1) * _BETWEEN) / across
    even = 1.0 / len(stretches)
    scale = Normalize(min(even, float(weights.min())), float(weights.max()) + 1e-9, clip=True)
    for n, number in enumerate(heads):
        line, column = divmod(n, across)
        left = MARGIN + column * (room + _SIDE + _BETWEEN)
        top = TITLE + line * (panel + 0.08)
        sheet.text(left + _SIDE + room / 2, top + NAME / 2, f"head {number}")
        height = panel - NAME
        axes = sheet.axes(left, top + NAME, room + _SIDE, height, f"links head {number}")
        axes.set(xlim=(-_SIDE, room), ylim=(height, 0))
        colour = HEAD_COLOURS[(number - 1) % len(HEAD_COLOURS)]
        _panel(axes, data, video, weights[n], stretches, links, scale, colour, room)
    _key(sheet, scale, sheet.height - FOOT - _KEY / 2)
    segment = f", segment {data.segment}" if data.segment is not None else ""
    foot(sheet, f"layer {data.layer} of {data.layers}{segment}, run {data.run}")
    return sheet.figure


def _panel(
    axes: Axes,
    data: Figure5Data,
    video: Video,
    weights: NDArray,
    stretches: list[NDArray[np.int_]],
    links: int,
    scale: Normalize,
    colour: str,
    room: float,
) -> None:
    step = room / len(stretches)
    x = step * (np.arange(len(stretches)) + 0.5)
    upper = _NUMBER + _POSE + 0.02
    lower = upper + _LINKS
    order = _strongest(weights, links)
    query, key = np.unravel_index(order, weights.shape)
    values = weights.ravel()[order]
    ends = np.stack(
        [
            np.stack([x[query], np.full(len(order), upper)], axis=-1),
            np.stack([x[key], np.full(len(order), lower)], axis=-1),
        ],
        axis=1,
    )
    axes.add_collection(
        LineCollection(
            list(ends),
            array=values,
            cmap=opacity_ramp(colour),
            norm=scale,
            linewidths=0.5 + 2.0 * np.asarray(scale(values)),
            capstyle="round",
        ),
        autolim=False,
    )
    for n, part in enumerate(stretches):
        frame = int(part[(len(part) - 1) // 2])
        for y, number in ((_NUMBER + _POSE / 2, _NUMBER / 2), (lower + _PAD + _POSE / 2, None)):
            draw_pose(
                axes, data.skeleton, video, frame, x[n], y, min(_POSE, 1.9 * step), linewidth=0.8
            )
            place = number if number is not None else lower + _PAD + _POSE + _NUMBER / 2
            axes.text(
                x[n], place, frame_number(video, frame), ha="center", va="center_baseline",
                fontsize=7,
            )  # fmt: skip
        axes.plot([x[n], x[n]], [upper, lower], "o", color=FAINT, markersize=1.5)
    words = {
        _NUMBER / 2: "frame",
        _NUMBER + _POSE / 2: "query",
        lower + _PAD + _POSE / 2: "key",
        lower + _PAD + _POSE + _NUMBER / 2: "frame",
    }
    for y, word in words.items():
        axes.text(-_SIDE, y, word, ha="left", va="center_baseline", fontsize=7, color=FAINT)


def _key(sheet: Sheet, scale: Normalize, y: float) -> None:
    sheet.text(MARGIN, y, "weight of a link", align="left")
    axes = sheet.axes(MARGIN + 0.95, y - 0.1, 2.1, 0.2, "link key")
    axes.set(xlim=(0, 2.1), ylim=(0, 1))
    ramp = opacity_ramp("#000000")
    for n, part in enumerate((1 / 3, 2 / 3, 1.0)):
        axes.plot(
            [0.7 * n, 0.7 * n + 0.2], [0.5, 0.5], color=ramp(part), linewidth=0.5 + 2.0 * part
        )
        axes.text(0.7 * n + 0.27, 0.5, f"{float(scale.inverse(part)):.2f}", va="center_baseline")


def _table(
    data: Figure5Data,
    video: Video,
    heads: list[int],
    weights: NDArray,
    stretches: list[NDArray[np.int_]],
    links: int,
) -> pd.DataFrame:
    """Return one line per head, query pose and key pose."""
    h, q, s = (index.ravel() for index in np.indices(weights.shape))
    drawn = np.zeros(weights.shape, bool)
    for n, one in enumerate(weights):
        drawn[n].ravel()[_strongest(one, links)] = True
    first = np.array([part[0] for part in stretches])
    last = np.array([part[-1] for part in stretches])
    return pd.DataFrame(
        {
            "run": data.run,
            "sample": video.sample,
            "layer": data.layer,
            "head": np.array(heads)[h],
            "query_pose": q,
            "key_pose": s,
            "first_query": first[q],
            "last_query": last[q],
            "first_key": first[s],
            "last_key": last[s],
            "weight": weights.ravel(),
            "drawn": drawn.ravel(),
        }
    )
