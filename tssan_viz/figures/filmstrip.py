"""Poses along time, shaded by the attention that their frames receive."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, Normalize

from tssan_viz.errors import UserError
from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.means import named_heads
from tssan_viz.figures.sheet import (
    BAR,
    FOOT,
    MARGIN,
    TITLE,
    Scale,
    Sheet,
    colour_bar,
    draw_pose,
    foot,
    frame_number,
    spread,
)
from tssan_viz.figures.style import FAINT, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# Dark is high, so that what is attended to stands out from white paper; without the pale yellow
# end, of which thin lines cannot be seen.
COLOURS = LinearSegmentedColormap.from_list(
    "strip", matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1.0, 256))
)

# All sizes in inches.
_POSE = 0.66
_CURVE = 0.32
_TICKS = 0.26
_LEFT = 0.50


def filmstrip(
    source: AttentionStore | Selection,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    sample: str | Sequence[str] | None = None,
    subject: int | Sequence[int] | None = None,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    frames: int = 12,
    segment: int | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw poses shaded by received attention, and the received attention of all frames below.

    A frame receives r_s = mean over queries of a_qs, averaged over the heads; even attention over s
    frames gives each 1 / s.

    Parameters
    ----------
    source
        A store (its test videos), or a selection.
    class_name, sample, subject
        Which videos: chosen as in `figure5`, or by their names.
    layer, head
        Counted from 1. Default: the last layer, all its heads.
    frames
        How many poses in a strip.
    segment, person, run
        As in `figure5`.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, or the videos were recorded without poses.
    """
    width = paper_width(venue, columns)
    if frames < 2:
        raise UserError(f"frames is {frames}; a strip has at least 2 poses")
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
        most_heads=None,
    )
    bare = [video.sample for video in data.videos if video.poses is None]
    if bare or data.skeleton is None:
        raise UserError(
            f"{(bare or [data.videos[0].sample])[0]} was recorded without poses of the frames that "
            "are attended to; `tssan-viz figure heads` needs none"
        )
    received = [video.maps.mean(axis=(0, 1)) for video in data.videos]
    which = named_heads(data.heads, chosen.select(run=data.run), data.layer)
    with matplotlib.rc_context(RC):
        figure = _draw(data, received, frames, width, which)
    figure.table = _table(data, received)
    videos = "; ".join(f"{video.title} [{video.sample}]" for video in data.videos)
    figure.caption = (
        f"Attention that each frame receives in layer {data.layer} of {data.layers} (mean over "
        f"queries and {which}) in {len(data.videos)} videos: {videos}. Poses and bars share one "
        "colour scale; the dashed line is even attention. "
        + (f"Segment {data.segment}, person" if data.segment is not None else "Person")
        + f" {data.person}, run {data.run}. Single videos are shown, nothing is tested."
    )
    figure.notes = data.notes
    return figure


def _draw(data: Figure5Data, received: list, frames: int, width: float, which: str) -> PaperFigure:
    row = TITLE + _POSE + _CURVE + _TICKS
    sheet = Sheet(len(data.videos) * row + FOOT + 0.04, width)
    room = width - 2 * MARGIN - _LEFT - BAR
    high = max(float(one.max()) for one in received)
    even = 1.0 / len(received[0])
    low = min(float(one.min()) for one in received)
    norm = Normalize(low, max(high, low + 1e-6))
    for n, (video, weights) in enumerate(zip(data.videos, received, strict=True)):
        top = n * row
        sheet.title(video.title, top + TITLE / 2)
        t = len(weights)
        step = room / t
        count = min(frames, int(room / 0.24))
        poses = sheet.axes(MARGIN + _LEFT, top + TITLE, room, _POSE, f"{video.sample} poses")
        poses.set(xlim=(0, room), ylim=(_POSE, 0))
        shown = spread(t, count)
        for frame in shown:
            draw_pose(
                poses,
                data.skeleton,
                video,
                int(frame),
                step * (frame + 0.5),
                _POSE / 2,
                min(_POSE, 2.4 * room / len(shown)),
                linewidth=1.0,
                colour=COLOURS(float(norm(weights[frame]))),
            )
        axes = sheet.axes(
            MARGIN + _LEFT, top + TITLE + _POSE, room, _CURVE, f"{video.sample} received", on=True
        )
        axes.bar(np.arange(t), weights, width=1.0, color=COLOURS(norm(weights)), linewidth=0)
        axes.axhline(even, color=FAINT, linewidth=0.5, dashes=(3, 2))
        axes.set(xlim=(-0.5, t - 0.5), ylim=(0, 1.05 * max(high, even)))
        axes.spines[["top", "right"]].set_visible(False)
        marks = [int(f) for f in (shown if len(shown) <= 12 else shown[::2])]
        axes.set_xticks(marks, labels=_labels(video, marks))
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(2))
        sheet.text(MARGIN + _LEFT - 0.08, top + row - _TICKS + 0.10, "frame", align="right")
    scale = Scale(norm, COLOURS, even=even if low <= even <= high else None)
    tall = min(len(data.videos) * row - TITLE - _TICKS, 2.0)
    colour_bar(sheet, scale, width - MARGIN - BAR + 0.16, TITLE, tall, "received attention")
    segment = f", segment {data.segment}" if data.segment is not None else ""
    foot(
        sheet,
        f"layer {data.layer} of {data.layers}, {which}{segment}, run {data.run}; "
        f"dashed{', ▸' * (scale.even is not None)}: even attention",
    )
    return sheet.figure


def _labels(video: Video, frames: list[int]) -> list[str]:
    return [frame_number(video, frame) for frame in frames]


def _table(data: Figure5Data, received: list) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "run": data.run,
                    "sample": video.sample,
                    "class_name": video.class_name,
                    "subject": video.subject,
                    "layer": data.layer,
                    "heads": " ".join(map(str, data.heads)),
                    "frame": np.arange(len(weights)),
                    "source_frame": video.frames,
                    "received": weights,
                }
            )
            for video, weights in zip(data.videos, received, strict=True)
        ],
        ignore_index=True,
    )
