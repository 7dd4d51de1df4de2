"""One head along the steps of training: its mean map, and how spread out its attention is."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from tssan_viz.errors import UserError
from tssan_viz.figures.means import MeanMap, ask, map_table, over_subjects
from tssan_viz.figures.sheet import (
    GAP,
    MARGIN,
    Sheet,
    colour_bar,
    end_ticks,
    foot,
    full_scale,
    map_panel,
    spread,
)
from tssan_viz.figures.style import HEAD_COLOURS, RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore
from tssan_viz.store.schema import decode

# All sizes in inches.
_TITLE = 0.22
_NAME = 0.17
_LEFT = 0.46
_LOWER = 0.33
_LINES = 0.95
_BAR = 0.68
_FOOT = 0.20


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
    """Draw one head's mean map at several steps of training, and its entropy at all of them.

    Entropy is that of a row, −Σ a ln a over keys, divided by ln s (1: even attention; 0: one frame
    only), averaged over rows.

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
    room = width - 2 * MARGIN - _LEFT - _BAR
    fits = max(2, int((room + GAP) / (0.5 + GAP)))
    shown = [shown[n] for n in spread(len(shown), fits)]
    drawn = [over_subjects(rows.select(step=step))[0] for step in shown]
    entropy = _entropy(rows)
    with matplotlib.rc_context(RC):
        side = min((room - GAP * (len(shown) - 1)) / len(shown), 1.2)
        across = len(shown) * (side + GAP) - GAP
        sheet = Sheet(_TITLE + _NAME + side + _LOWER + _LINES + _LOWER + _FOOT, width)
        sheet.title(f"{asked.what}, layer {number}, head {head}", _TITLE / 2)
        norm = Normalize(0.0, full_scale(drawn))
        left, top = MARGIN + _LEFT, _TITLE + _NAME
        mesh = None
        for n, (step, values) in enumerate(zip(shown, drawn, strict=True)):
            x = left + n * (side + GAP)
            sheet.text(x + side / 2, _TITLE + _NAME / 2, f"step {step}" if n == 0 else str(step))
            axes = sheet.axes(x, top, side, side, f"step {step}")
            mesh = map_panel(axes, values, norm)
            q, s = values.shape
            end_ticks(axes, (0, s - 1), (0, q - 1), beside=n == 0)
            if n == 0:
                axes.set_ylabel("query frame", labelpad=1)
                axes.set_xlabel("key frame", labelpad=1)
        assert mesh is not None
        assert norm.vmax is not None
        beyond = "max" if max(float(one.max()) for one in drawn) > norm.vmax else "neither"
        bar = left + across + GAP + 0.04
        colour_bar(sheet, mesh, bar, top, max(side, 0.8), "attention weight", beyond)
        axes = sheet.axes(left, top + side + _LOWER, across, _LINES, "entropy", on=True)
        colour = HEAD_COLOURS[(head - 1) % len(HEAD_COLOURS)]
        axes.fill_between(
            entropy["step"], entropy["low"], entropy["high"], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(entropy["step"], entropy["entropy"], "o-", color=colour, linewidth=1, ms=2.5)
        axes.set(xlabel="training step", ylabel="entropy")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        foot(sheet, f"{asked.said()}; band: quarter to three quarters of the videos")
    tables = [
        map_table([MeanMap(number, head, values)], rows, class_name=asked.what, step=step)
        for step, values in zip(shown, drawn, strict=True)
    ]
    figure = sheet.figure
    figure.table = pd.concat(tables, ignore_index=True).merge(
        entropy[["step", "entropy", "rows"]], on="step", how="outer"
    )
    figure.caption = (
        f"Mean attention of head {head} of layer {number} along training, {asked.what}, at "
        f"{len(shown)} of {len(steps)} recorded steps ({steps[0]} to {steps[-1]}); below, the "
        "entropy of its rows over ln s (1: even attention), the mean over videos with the middle "
        f"half of them. One colour scale for all panels. {asked.said()}. Described, not tested."
    )
    figure.notes = tuple(note for note in asked.notes if "steps of the run" not in note)
    return figure


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
