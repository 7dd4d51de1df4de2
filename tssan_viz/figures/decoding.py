"""Is a head about the action or about the person: how well either can be read from its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tssan_viz.comparison.decoding import Decodability, decodability
from tssan_viz.figures.means import ask
from tssan_viz.figures.sheet import FOOT, LOWER, MARGIN, TITLE, Sheet, foot
from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

_MARKS = "osD^vPX*"
_LEVEL = 0.05

# More numbers than that do not find room beside their marks.
_NUMBERED = 60

# All sizes in inches.
_LEFT = 0.48
_LEGEND = 0.78


def decoding(
    source: AttentionStore | Selection | Decodability,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    method: str = "nearest mean",
    permutations: int = 1000,
    seed: int = 0,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 1,
) -> PaperFigure:
    """Draw for every head how well class and subject can be read from its map, with chance.

    Parameters
    ----------
    source
        A store (its test videos), a selection, or what `decodability` returned.
    layer, head
        Counted from 1; default: all.
    metric, method, permutations, seed
        As in `tssan_viz.comparison.decoding.decodability`.
    subject, person, run
        Whose rows.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers. A filled mark: the class is read better than chance at 0.05,
        corrected for all heads.

    Raises
    ------
    UserError
        Nothing fits, or there are too few classes or subjects.
    """
    width = paper_width(venue, columns)
    said = ""
    if isinstance(source, Decodability):
        found = source
    else:
        asked = ask(source, subject=subject, person=person, run=run)
        found = decodability(
            asked.rows,
            layer=layer,
            head=head,
            metric=metric,
            method=method,
            person=person,
            permutations=permutations,
            seed=seed,
        )
        said = f" {asked.said()}."
    with matplotlib.rc_context(RC):
        figure = _draw(found, width)
    figure.table = found.table
    figure.caption = (
        "How well the class (leaving one subject out) and the subject (leaving one class out) are "
        f"read from the maps of one head, by {found.method} of {found.metric} similarity; one mark "
        "per head, numbered layer.head. Dashed: chance, the mean over permuted labels. Filled: the "
        f"class is read better than chance at {_LEVEL:g} (max-T over all heads). n = "
        f"{found.n_cells} cells of {found.n_classes} classes and {found.n_subjects} subjects; "
        f"{found.n_permutations} permutations, smallest possible p {found.smallest_p:.2g}, seed "
        f"{found.seed}.{said}"
    )
    figure.notes = tuple(found.notes)
    return figure


def _draw(found: Decodability, width: float) -> PaperFigure:
    table = found.table
    side = min(width - 2 * MARGIN - _LEFT - _LEGEND, 3.4)
    sheet = Sheet(TITLE + side + LOWER + 0.08 + FOOT, width)
    sheet.title("decoded from the map of one head", TITLE / 2)
    axes = sheet.axes(MARGIN + _LEFT, TITLE, side, side, "decoding", on=True)
    layers = list(dict.fromkeys(table["layer"]))
    for n, layer in enumerate(layers):
        # Marks of a later layer are smaller, so that one behind another can be seen.
        style: dict[str, Any] = {
            "marker": _MARKS[n % len(_MARKS)],
            "markersize": 5.5 - 2.0 * n / max(len(layers) - 1, 1),
            "color": HEAD_COLOURS[n % len(HEAD_COLOURS)],
            "linestyle": "none",
        }
        axes.plot([], [], label=f"layer {layer}", **style)
        for line in table[table["layer"] == layer].itertuples():
            axes.plot(
                line.class_accuracy,
                line.subject_accuracy,
                **style,
                markerfacecolor=style["color"] if line.class_p_max_t <= _LEVEL else "#FFFFFF",
                markeredgewidth=0.8,
                clip_on=False,
                zorder=3,
            )
    for draw, column in ((axes.axvline, "class_chance"), (axes.axhline, "subject_chance")):
        draw(table[column].mean(), color=FAINT, linewidth=0.6, dashes=(3, 2), zorder=1)
    axes.set(
        xlim=_limits(table, "class"),
        ylim=_limits(table, "subject"),
        xlabel="accuracy of the class",
        ylabel="accuracy of the subject",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        low, high = axis.get_view_interval()
        # Ticks of a narrow range lie between whole percents.
        digits = 0 if high - low > 0.2 else 1
        axis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=digits))
    if len(table) <= _NUMBERED:
        _number(axes, table, side)
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([], [], color=FAINT, linewidth=0.6, dashes=(3, 2), label="chance")
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=7,
        handlelength=1.2, handletextpad=0.4, borderaxespad=0,
    )  # fmt: skip
    foot(
        sheet,
        f"{found.n_classes} classes, {found.n_subjects} subjects; filled: p ≤ {_LEVEL:g}, max-T",
    )
    return sheet.figure


def _number(axes: Axes, table: pd.DataFrame, side: float) -> None:
    """Write layer.head beside each mark, where it covers no other number and no mark.

    Heads of a layer that share a mark share a number. Greedy: each takes the nearest free place
    around its mark, with a line to it where that is not right beside it.
    """
    columns = ["class_accuracy", "subject_accuracy"]
    size = side * 72.0
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    marks = (table[columns].to_numpy() - limits[:, 0]) / np.ptp(limits, axis=1) * size
    taken = [np.concatenate([mark - 2.5, mark + 2.5]) for mark in marks]
    several = table["layer"].nunique() > 1
    for (layer, *_), part in table.groupby(["layer", *columns], sort=False):
        mark = marks[table.index.get_loc(part.index[0])]
        heads = ",".join(str(head) for head in part["head"])
        word = f"{layer}.{heads}" if several else heads
        half = np.array([2.1 * len(word), 3.2])
        places = [mark + (half + reach) * way for reach in (2, 6, 11, 17, 24) for way in _WAYS]
        costs = [_covered(place, half, taken, size) for place in places]
        best = int(np.argmin(costs))
        taken.append(np.concatenate([places[best] - half, places[best] + half]))
        axes.annotate(
            word,
            tuple(part[columns].iloc[0]),
            xytext=places[best] - mark,
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize=6.5,
            arrowprops=None
            if best < len(_WAYS)
            else {"arrowstyle": "-", "color": FAINT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2},
        )


# Where a number may stand: beside its mark, above and below, between.
_WAYS = np.array([(1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (0, 1), (0, -1), (1, 0), (-1, 0)])


def _covered(
    place: NDArray[np.floating],
    half: NDArray[np.floating],
    taken: list[NDArray[np.floating]],
    size: float,
) -> float:
    """Return how much of a box is covered by others or lies outside the axes, in points²."""
    boxes = np.array(taken)
    low = np.maximum(boxes[:, :2], place - half)
    high = np.minimum(boxes[:, 2:], place + half)
    covered = float(np.prod(np.clip(high - low, 0, None), axis=1).sum())
    outside = np.clip(half - place, 0, None).sum() + np.clip(place + half - size, 0, None).sum()
    return covered + 10.0 * float(outside)


def _limits(table: pd.DataFrame, what: str) -> tuple[float, float]:
    """Return the ends of an axis that holds all accuracies and chance."""
    values = pd.concat([table[f"{what}_accuracy"], table[f"{what}_chance"]])
    low, high = float(values.min()), float(values.max())
    room = max(0.08 * (high - low), 0.02)
    return max(0.0, low - room), min(1.05, high + room)
