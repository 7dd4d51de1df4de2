"""The page on which a run is followed while it is recorded: its heads along the steps."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.pages import in_words, one
from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings, current

_SECONDS = 5
# Okabe and Ito's, without black and yellow, which cannot be seen in the dark or in the light.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_DASHES = ("solid", "dot", "dash", "longdash")


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/training",
        name="Training",
        title="Training · tssan-viz",
        layout=layout,
        order=3,
    )

    @app.callback(
        Output("training-charts", "children"),
        Output("training-rows", "data"),
        Input("training-clock", "n_intervals"),
        State("training-run", "data"),
        State("training-rows", "data"),
        prevent_initial_call=True,
    )
    def follow(_n: int | None, run: str, before: int) -> tuple[Any, int]:
        rows = len(recordings.store.rows(run))
        if rows == before:
            raise PreventUpdate
        return _charts(recordings, run), rows


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    run = recordings.run(one(query, "run"))
    return dmc.Stack(
        [
            dmc.Title("The heads along the steps", order=2, size="h3"),
            dmc.Text(
                f"New steps of a run that is being recorded appear here every {_SECONDS} seconds.",
                size="sm",
                c="dimmed",
            ),
            dcc.Store(id="training-run", data=run),
            dcc.Store(id="training-rows", data=len(recordings.store.rows(run))),
            dcc.Interval(id="training-clock", interval=_SECONDS * 1000),
            html.Div(_charts(recordings, run), id="training-charts"),
        ],
        gap="md",
    )


@in_words
def _charts(recordings: Recordings, run: str) -> Any:
    table = recordings.steps(run)
    if table["step"].nunique() < 2:
        return dmc.Alert(
            [
                dmc.Text(
                    f"The run {run!r} was recorded at one step. Maps of several steps come from a "
                    "training that is watched:",
                    size="sm",
                    mb="xs",
                ),
                dmc.Code("tssan-viz train --config RECIPE --data DIR --watch", block=True),
            ],
            title="One step only",
            color="blue",
            variant="light",
            styles={"title": {"color": "var(--mantine-color-text)"}},
        )
    measures = [n for n in table.columns if n not in ("step", "layer", "head", "accuracy")]
    charts = [_measure(table, name) for name in measures]
    if table["accuracy"].notna().any():
        by_step = table.groupby("step")[["accuracy"]].first().reset_index()
        charts.insert(0, _chart("Accuracy", [("videos of the step", by_step, "accuracy", 0)]))
    return dmc.SimpleGrid(charts, cols={"base": 1, "md": 2}, spacing="md")


def _measure(table: pd.DataFrame, name: str) -> dmc.Paper:
    by_layer = table.groupby(["step", "layer"])[[name]].mean().reset_index()
    lines = [
        (f"layer {layer}", by_layer.loc[by_layer["layer"].eq(layer), :], name, place)
        for place, layer in enumerate(sorted(by_layer["layer"].unique()))
    ]
    return _chart(name.replace("_", " ").capitalize(), lines)


def _chart(title: str, lines: list[tuple[str, pd.DataFrame, str, int]]) -> dmc.Paper:
    figure = go.Figure(
        [
            go.Scatter(
                x=part["step"].tolist(),
                y=part[column].tolist(),
                name=name,
                mode="lines+markers",
                line={
                    "color": _COLOURS[place % len(_COLOURS)],
                    "dash": _DASHES[place // len(_COLOURS) % len(_DASHES)],
                },
            )
            for name, part, column, place in lines
        ]
    )
    grey = "#888"
    figure.update_layout(
        template="none",
        height=260,
        margin={"l": 48, "r": 12, "t": 8, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": grey},
        legend={"orientation": "h", "y": 1.15},
        showlegend=len(lines) > 1,
    )
    figure.update_xaxes(title="step", gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    return section(title, dcc.Graph(figure=figure, config={"displayModeBar": False}))
