"""Charts that stand in light and dark alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
