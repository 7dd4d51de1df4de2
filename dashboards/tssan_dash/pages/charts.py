"""Charts that stand in light and dark alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

# Okabe and Ito's, without black and yellow, which cannot be seen in the dark or in the light.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
DASHES = ("solid", "dot", "dash", "longdash")


def chart(traces: Sequence[Any], *, below: str, height: int = 260) -> go.Figure:
    """Return a chart without a ground of its own.

    Parameters
    ----------
    traces
        What is drawn.
    below
        What its x axis is called.
    height
        In pixels.
    """
    figure = go.Figure(list(traces))
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        # Between black and white, and far enough from both (WCAG 2: 3 for graphics).
        font={"color": "#808080"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        showlegend=len(traces) > 1,
    )
    grid = "rgba(128,128,128,0.2)"
    figure.update_xaxes(title=below, gridcolor=grid, zeroline=False)
    figure.update_yaxes(gridcolor=grid, zeroline=False, title_standoff=8)
    return figure


# Where a name may stand beside its mark, as Plotly calls it, and its middle from there in widths
# and heights of a name.
_BESIDE = {
    "top center": (0, 1.2),
    "bottom center": (0, -1.2),
    "middle right": (0.8, 0),
    "middle left": (-0.8, 0),
}


def names_beside(x: Sequence[float], y: Sequence[float]) -> list[str | None]:
    """Return where the name of each mark stands so that none lies upon another.

    Parameters
    ----------
    x, y
        Where the marks are.

    Returns
    -------
    list of str or None
        As Plotly has it in ``textposition``; None where there is no room: it is not written.
    """
    places = np.array([x, y], float).T
    extent = np.ptp(places, axis=0) if len(places) else np.ones(2)
    # A name takes about so much of a chart of 420 pixels.
    size = np.where(extent > 0, extent, 1.0) * (0.07, 0.04)
    taken = [(place, 0.4 * size) for place in places]
    found: list[str | None] = []
    for at in places:
        for name, (right, up) in _BESIDE.items():
            middle = at + size * (right, up)
            others = [(m, s) for m, s in taken if m is not at]
            if all((np.abs(middle - m) >= (size + s) / 2).any() for m, s in others):
                taken.append((middle, size))
                found.append(name)
                break
        else:
            found.append(None)
    return found


def marks_of_heads(
    table: pd.DataFrame, x: str, y: str, surely: str, hover: Sequence[str]
) -> list[go.Scatter]:
    """Return a mark for each head, those of a layer of one colour, named as far as there is room.

    Parameters
    ----------
    table
        ``layer``, ``head`` and the columns that are named.
    x, y
        Where a mark stands.
    surely
        A p-value: up to 0.05 the mark is filled.
    hover
        What is said at a mark of x and of y, as Plotly writes it: ``action %{x:.1%}``.
    """
    beside = names_beside(table[x].tolist(), table[y].tolist())
    names = [f"{n}.{h}" for n, h in zip(table["layer"], table["head"], strict=True)]
    named = table.assign(
        name=names,
        beside=[place or "top center" for place in beside],
        written=[name if place else "" for name, place in zip(names, beside, strict=True)],
    )
    marks = []
    for place, (layer, part) in enumerate(named.groupby("layer")):
        colour = COLOURS[place % len(COLOURS)]
        filled = part[surely].le(0.05).tolist()
        marks.append(
            go.Scatter(
                x=part[x].tolist(),
                y=part[y].tolist(),
                text=part["written"].tolist(),
                customdata=part["name"].tolist(),
                name=f"layer {layer}",
                mode="markers+text",
                textposition=part["beside"].tolist(),
                textfont={"size": 11},
                marker={
                    "size": 10,
                    "color": [colour if sure else "rgba(0,0,0,0)" for sure in filled],
                    "line": {"color": colour, "width": 1.5},
                },
                hovertemplate="<br>".join(["layer.head %{customdata}", *hover]) + "<extra></extra>",
            )
        )
    return marks
