"""Is a head about the action or about the person: how well either can be read from its maps."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import pandas as pd

from tssan_viz.comparison.decoding import Decodability, decodability
from tssan_viz.figures.means import ask
from tssan_viz.figures.sheet import MARGIN, Sheet, foot
from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

_MARKS = "osD^vPX*"
_LEVEL = 0.05

# All sizes in inches.
_TITLE = 0.22
_LEFT = 0.48
_LOWER = 0.36
_LEGEND = 0.78
_FOOT = 0.20


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
        "per head, with its number. Dashed: chance, the mean over permuted labels. Filled: the "
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
    sheet = Sheet(_TITLE + side + _LOWER + _FOOT, width)
    sheet.title("what a head's map tells", _TITLE / 2)
    axes = sheet.axes(MARGIN + _LEFT, _TITLE, side, side, "decoding", on=True)
    layers = list(dict.fromkeys(table["layer"]))
    for n, layer in enumerate(layers):
        part = table[table["layer"] == layer]
        colour = HEAD_COLOURS[n % len(HEAD_COLOURS)]
        mark = _MARKS[n % len(_MARKS)]
        axes.plot([], [], mark, color=colour, markersize=4, label=f"layer {layer}")
        for line in part.itertuples():
            axes.plot(
                line.class_accuracy,
                line.subject_accuracy,
                mark,
                markersize=4,
                markeredgecolor=colour,
                markeredgewidth=0.8,
                markerfacecolor=colour if line.class_p_max_t <= _LEVEL else "#FFFFFF",
                clip_on=False,
                zorder=3,
            )
            axes.annotate(
                str(line.head),
                (line.class_accuracy, line.subject_accuracy),
                xytext=(3, 2),
                textcoords="offset points",
                fontsize=7,
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


def _limits(table: pd.DataFrame, what: str) -> tuple[float, float]:
    """Return the ends of an axis that holds all accuracies and chance."""
    values = pd.concat([table[f"{what}_accuracy"], table[f"{what}_chance"]])
    low, high = float(values.min()), float(values.max())
    room = max(0.08 * (high - low), 0.02)
    return max(0.0, low - room), min(1.05, high + room)
