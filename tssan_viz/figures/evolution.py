"""One head along training: its mean map, how spread out it is, and how much of it is class."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tssan_viz.comparison.variance import variance_shares
from tssan_viz.errors import UserError
from tssan_viz.figures.means import MeanMap, ask, map_table, over_subjects
from tssan_viz.figures.sheet import (
    BAR,
    FOOT,
    GAP,
    LOWER,
    MARGIN,
    NAME,
    TITLE,
    Scale,
    Sheet,
    colour_bar,
    end_ticks,
    foot,
    map_panel,
    spread,
    weight_scale,
)
from tssan_viz.figures.style import FAINT, HEAD_COLOURS, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore
from tssan_viz.store.schema import decode

# All sizes in inches.
_LEFT = 0.46
# Entropies close to 1 take four decimals.
_LINES_LEFT = 0.62
_LINES = 0.95


def evolution(
    source: AttentionStore | Selection,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    layer: int | None = None,
    head: int = 1,
    maps: int = 7,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 2,
) -> PaperFigure:
    """Draw one head's mean map at several steps of training, its entropy and its class share.

    Entropy is that of a row, −Σ a ln a over keys, divided by ln s (1: even attention; 0: one frame
    only), averaged over rows. The class share is the variance component of the class over the sum
    of all, as `tssan_viz.comparison.variance.variance_shares` estimates it at each step; it is left
    out where there are fewer than two classes or subjects.

    Parameters
    ----------
    source
        A store, or a selection, of a run that was recorded at several steps.
    class_name
        Of which classes' videos the mean is; default: all.
    layer, head
        Counted from 1; default: the last layer, head 1.
    maps
        At how many steps the map is drawn at most; evenly spread over those recorded.
    subject, person, run
        Whose rows.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, or the run was recorded at one step only.
    """
    width = paper_width(venue, columns)
    asked = ask(source, class_name, subject=subject, person=person, run=run, every_step=True)
    number = asked.rows.layers[-1] if layer is None else layer
    rows = asked.rows.select(layer=number, head=head)
    steps = sorted(int(n) for n in rows.rows()["step"].dropna().unique())
    if len(steps) < 2:
        there = f"step {steps[0]} only" if steps else "no step"
        raise UserError(
            f"run {rows.run!r} was recorded at {there}, and evolution takes at least 2; record in "
            "training (`tssan-viz train … --record STORE --probe 100`)"
        )
    shown = [steps[n] for n in spread(len(steps), maps)]
    room = width - 2 * MARGIN - _LEFT - BAR
    fits = max(2, int((room + GAP) / (0.5 + GAP)))
    shown = [shown[n] for n in spread(len(shown), fits)]
    drawn = [over_subjects(rows.select(step=step))[0] for step in shown]
    scale = weight_scale(drawn)
    lines = _entropy(rows)
    share, notes = _class_share(rows, steps)
    lines["class_share"] = lines["step"].map(share)
    what = f"{asked.what}, layer {number}, head {head}"
    colour = HEAD_COLOURS[(head - 1) % len(HEAD_COLOURS)]
    with matplotlib.rc_context(RC):
        by_step = dict(zip(shown, drawn, strict=True))
        figure = _draw(by_step, lines, scale, what, asked.said(), width, colour)
    tables = [
        map_table([MeanMap(number, head, values)], rows, class_name=asked.what, step=step)
        for step, values in zip(shown, drawn, strict=True)
    ]
    figure.table = pd.concat(tables, ignore_index=True).merge(
        lines[["step", "entropy", "class_share", "rows"]], on="step", how="outer"
    )
    figure.caption = (
        f"Mean attention of head {head} of layer {number} along training, {asked.what}, at "
        f"{len(shown)} of {len(steps)} recorded steps ({steps[0]} to {steps[-1]}; sampled frames, "
        "from 0); below, the entropy of its rows over ln s (1: even attention), the mean over rows "
        "with the middle half of them"
        + (
            ", and the share of the class in the variance of the maps (variance component over the "
            "sum of all; an estimate, which may be negative)"
            if share
            else ""
        )
        + f". One colour scale for all panels{scale.said()}. {asked.said()}. Described, not tested."
    )
    figure.notes = (*asked.notes, *notes)
    return figure


def _draw(
    maps: dict[int, NDArray[np.float32]],
    lines: pd.DataFrame,
    scale: Scale,
    what: str,
    said: str,
    width: float,
    colour: str,
) -> PaperFigure:
    """Draw the maps by step, and below them what was measured at every step."""
    room = width - 2 * MARGIN - _LEFT - BAR
    side = min((room - GAP * (len(maps) - 1)) / len(maps), 1.2)
    across = len(maps) * (side + GAP) - GAP
    sheet = Sheet(TITLE + NAME + side + LOWER + 0.12 + _LINES + LOWER + FOOT + 0.05, width)
    sheet.title(what, TITLE / 2)
    left, top = (width - _LEFT - across - GAP - BAR) / 2 + _LEFT, TITLE + NAME
    for n, (step, values) in enumerate(maps.items()):
        x = left + n * (side + GAP)
        sheet.text(x + side / 2, TITLE + NAME / 2, f"step {step}" if n == 0 else str(step))
        axes = sheet.axes(x, top, side, side, f"step {step}")
        map_panel(axes, values, scale)
        q, s = values.shape
        end_ticks(axes, (0, s - 1), (0, q - 1), beside=n == 0)
        if n == 0:
            axes.set_ylabel("query frame", labelpad=1)
            axes.set_xlabel("key frame", labelpad=1)
    colour_bar(sheet, scale, left + across + GAP + 0.06, top, max(side, 0.8), "attention weight")
    top += side + LOWER + 0.12
    both = bool(lines["class_share"].notna().any())
    each = (width - 3 * MARGIN) / (2 if both else 1) - _LINES_LEFT
    axes = sheet.axes(MARGIN + _LINES_LEFT, top, each, _LINES, "entropy", on=True)
    axes.fill_between(
        lines["step"], lines["low"], lines["high"], color=colour, alpha=0.2, linewidth=0
    )
    _line(axes, lines["step"], lines["entropy"], "entropy", colour)
    if both:
        x = MARGIN + each + 2 * _LINES_LEFT
        axes = sheet.axes(x, top, each, _LINES, "class share", on=True)
        axes.axhline(0, color=FAINT, linewidth=0.5, dashes=(3, 2))
        _line(axes, lines["step"], lines["class_share"], "class share", colour)
    foot(sheet, f"{said}; band: middle half of the rows{scale.said()}")
    return sheet.figure


def _line(axes: Axes, steps: pd.Series, values: pd.Series, label: str, colour: str) -> None:
    axes.plot(steps, values, "o-", color=colour, linewidth=1, markersize=2.5, clip_on=False)
    axes.set(xlabel="training step", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.yaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter(useOffset=False))


def _class_share(rows: Selection, steps: list[int]) -> tuple[dict[int, float], list[str]]:
    """Return the share of the class in the variance of the maps at each step, and notes."""
    found = {}
    for step in steps:
        try:
            shares = variance_shares(rows.select(step=step), layer=rows.layers[0])
        except UserError as error:
            return {}, [f"no class share is drawn: {error}"]
        found[step] = float(shares.wide()["class"].iloc[0])
    return found, []


def _entropy(rows: Selection) -> pd.DataFrame:
    """Return for each step the mean normalised entropy of the rows' maps, and its quartiles."""
    lines = []
    for part, stored in rows.iter_maps():
        weights = decode(stored)[:, 0, 0]
        logs = np.log(np.where(weights > 0, weights, 1.0))
        own = -(weights * logs).sum(axis=-1).mean(axis=-1) / np.log(max(weights.shape[-1], 2))
        lines.append(pd.DataFrame({"step": part["step"].astype(int), "entropy": own}))
    each = pd.concat(lines).groupby("step")["entropy"]
    return pd.DataFrame(
        {
            "entropy": each.mean(),
            "low": each.quantile(0.25),
            "high": each.quantile(0.75),
            "rows": each.size(),
        }
    ).reset_index()
