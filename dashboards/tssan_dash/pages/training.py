"""The page on which a run is followed while it is recorded: loss, accuracy and its heads."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.asked import asked_in
from tssan_dash.bridge import View
from tssan_dash.evolving import FILES, EvolutionAsked, evolution_job, export_job
from tssan_dash.head_findings import step_key, steps_job
from tssan_dash.pages import background, files, go_to, in_words
from tssan_dash.pages.charts import COLOURS, DASHES, chart
from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix, buffer_url, module_url
from tssan_viz.views.payload import Payload

_SECONDS = 5
# What a training may have said of itself beside the maps, by chart: columns of the rows.
_CURVES = {
    "Loss": {"train_loss": "training", "validation_loss": "validation", "loss": "training"},
    "Accuracy": {
        "train_accuracy": "training",
        "validation_accuracy": "validation",
        "recorded": "recorded videos",
    },
}


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/training",
        name="Training",
        title="Training · tssan-viz",
        layout=layout,
        order=4,
    )

    @app.callback(
        Output("training-charts", "children"),
        Output("training-rows", "data"),
        Output("training-share-question", "data"),
        Output("training-head-question", "data"),
        Output("training-one-head", "style"),
        Output("training-taken", "style"),
        Input("training-clock", "n_intervals"),
        State("training-shown", "data"),
        State("training-rows", "data"),
        prevent_initial_call=True,
    )
    def follow(_n: int | None, shown: dict[str, Any], before: int) -> tuple[Any, ...]:
        asked = asked_in(EvolutionAsked.of, recordings.store, shown)
        rows = len(recordings.store.rows(asked.run))
        if rows == before:
            raise PreventUpdate
        again, look = None, background.HIDDEN
        if len(_steps(recordings, asked.run)) > 1:
            again = {"query": shown["query"], "nonce": secrets.token_hex(8)}
            look = {}
        return _charts(recordings, asked.run), rows, again, again, look, look

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("training-layer", "value"),
        Input("training-of-head", "value"),
        State("training-shown", "data"),
        prevent_initial_call=True,
    )
    def choose(layer: str | None, head: str | None, shown: dict[str, Any]) -> dict[str, Any]:
        old = shown["query"]
        wish = old | {"layer": layer, "head": head}
        if not (layer and head) or wish == old:
            raise PreventUpdate
        return go_to(wish)

    def show_share(question: dict[str, Any]) -> Any:
        run = recordings.run(question["query"].get("run"))
        known, missing = _shares(recordings, run)
        if missing:
            raise background.NotYet
        return _share_chart(known, _steps(recordings, run))

    def show_head(question: dict[str, Any]) -> Any:
        asked = asked_in(EvolutionAsked.of, recordings.store, question)
        key = asked.key(recordings.store)
        payload = recordings.jobs.answer(key)
        if not isinstance(payload, Payload):
            raise background.NotYet
        return _evolution(asked, payload, key)

    background.register(app, recordings, "training-share", steps_job, show_share)
    background.register(app, recordings, "training-head", evolution_job, show_head)

    def numbers(shown: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        run = recordings.run(shown["query"].get("run"))
        table = recordings.steps(run)
        known, _ = _shares(recordings, run)
        shares = [one for one in known if isinstance(one, pd.DataFrame)]
        if shares:
            every = pd.concat(shares).rename(columns={"class": "class_share"})
            table = table.merge(every, on=["step", "layer", "head"], how="left")
        curves = _curves(recordings, run).drop(columns="recorded", errors="ignore")
        return "training", table.merge(curves.reset_index(), on="step", how="left")

    files.register(
        app,
        recordings,
        "training",
        tuple(FILES),
        export_job,
        [State("training-shown", "data")],
        lambda shown: shown,
        numbers,
    )


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    given = {name: str(v[-1] if isinstance(v, list) else v) for name, v in query.items() if v}
    run = recordings.run(given.get("run"))
    asked = EvolutionAsked.of(recordings.store, run, given)
    kept = asked.query()
    if len(recordings.runs()) == 1:
        del kept["run"]
    several = len(_steps(recordings, run)) > 1
    question = {"query": kept} if several else None
    store = recordings.store
    measures = _measures(recordings.steps(run))
    link = f"{below_prefix('/training')}?{urlencode(asked.query())}"
    taken = files.section_of_files(
        "training",
        FILES,
        python=asked.python(store, measures),
        command=asked.command(store, measures),
        link=link,
        words="The figure and the page show the chosen head along the steps.",
    )
    return dmc.Stack(
        [
            dmc.Title("The training, and the heads along it", order=2, size="h3"),
            dmc.Text(
                f"New steps of a run that is being recorded appear here every {_SECONDS} seconds.",
                size="sm",
                c="dimmed",
            ),
            dcc.Store(id="training-shown", data={"query": kept}),
            dcc.Store(id="training-rows", data=len(store.rows(run))),
            dcc.Interval(id="training-clock", interval=_SECONDS * 1000),
            html.Div(_charts(recordings, run), id="training-charts"),
            background.frame("training-share", question, "Class share of each step …", height="0"),
            html.Div(
                [
                    _form(recordings, asked),
                    background.frame("training-head", question, "Averaging maps …", height="0"),
                ],
                id="training-one-head",
                style={} if several else background.HIDDEN,
            ),
            html.Div(taken, id="training-taken", style={} if several else background.HIDDEN),
        ],
        gap="md",
    )


def _steps(recordings: Recordings, run: str) -> list[int]:
    return sorted(int(n) for n in recordings.store.rows(run)["step"].dropna().unique())


def _form(recordings: Recordings, asked: EvolutionAsked) -> dmc.Group:
    rows = recordings.store.select(run=asked.run)

    def number(name: str, label: str, there: Sequence[int], value: int) -> dmc.Select:
        return dmc.Select(
            id=f"training-{name}",
            label=label,
            data=[str(one) for one in there],
            value=str(value),
            allowDeselect=False,
            w=90,
        )

    return dmc.Group(
        [
            number("layer", "Layer", rows.layers, asked.layer),
            number("of-head", "Head", rows.select(layer=asked.layer).heads, asked.head),
        ],
        gap="sm",
        mb="sm",
    )


@in_words
def _charts(recordings: Recordings, run: str) -> Any:
    table = recordings.steps(run)
    if table["step"].nunique() < 2:
        command = ["tssan-viz", "train", "RECIPE", "--data", "DIR", "--out", "RUN"]
        return dmc.Alert(
            [
                dmc.Text(
                    f"The run {run!r} was recorded at one step. Maps of several steps come from a "
                    "training that is watched:",
                    size="sm",
                    mb="xs",
                ),
                dmc.Code(shlex.join([*command, "--record", recordings.store.url]), block=True),
            ],
            title="One step only",
            color="blue",
            variant="light",
            styles={"title": {"color": "var(--mantine-color-text)"}},
        )
    curves = _curves(recordings, run)
    steps = _steps(recordings, run)
    parts = []
    for title, columns in _CURVES.items():
        lines = [
            (words, curves[column].dropna(), place)
            for place, (column, words) in enumerate(columns.items())
            if column in curves and curves[column].notna().any()
        ]
        if lines:
            parts.append(_chart(title, lines, steps, share=title == "Accuracy"))
    for name in _measures(table):
        means = table.groupby(["layer", "step"])[name].mean()
        title = name.replace("_", " ").capitalize()
        parts.append(_chart(title, _by_layer(means), steps))
    return dmc.SimpleGrid(parts, cols={"base": 1, "md": 2}, spacing="md")


def _measures(table: pd.DataFrame) -> list[str]:
    """Return the measures among the columns of `Recordings.steps`."""
    return [n for n in table.columns if n not in ("step", "layer", "head", "accuracy")]


def _curves(recordings: Recordings, run: str) -> pd.DataFrame:
    """Return per step what the training said of itself, and the recorded videos' accuracy."""
    rows = recordings.store.rows(run)
    said = [name for columns in _CURVES.values() for name in columns if name in rows]
    by_step = rows.groupby("step")[said].first().apply(pd.to_numeric, errors="coerce")
    accuracy = recordings.steps(run).groupby("step")["accuracy"].first()
    return by_step.assign(recorded=accuracy).astype(float)


def _by_layer(values: pd.Series) -> list[tuple[str, pd.Series, int]]:
    """Return the lines of a chart from values by layer and step."""
    layers = sorted(values.index.get_level_values("layer").unique())
    return [(f"layer {n}", values.loc[n], place) for place, n in enumerate(layers)]


def _chart(
    title: str,
    lines: list[tuple[str, pd.Series, int]],
    steps: list[int],
    *,
    share: bool = False,
    words: str = "",
) -> dmc.Paper:
    figure = chart(
        [
            go.Scatter(
                x=values.index.tolist(),
                y=values.tolist(),
                name=name,
                mode="lines+markers",
                line={
                    "color": COLOURS[place % len(COLOURS)],
                    "dash": DASHES[place // len(COLOURS) % len(DASHES)],
                },
            )
            for name, values, place in lines
        ],
        below="step",
    )
    # One extent in all charts, so that what happened at a step stands under each other.
    rim = 0.03 * (steps[-1] - steps[0])
    figure.update_xaxes(range=[steps[0] - rim, steps[-1] + rim])
    if share:
        figure.update_yaxes(tickformat=".0%")
    graph = dcc.Graph(figure=figure, config={"displayModeBar": False})
    return section(title, graph, words=words)


def _shares(recordings: Recordings, run: str) -> tuple[list[pd.DataFrame | str], list[int]]:
    """Return the class shares that are known, or why there are none, and the steps without."""
    known, missing = [], []
    for step in _steps(recordings, run):
        answer = recordings.jobs.answer(step_key(recordings.store, run, step))
        if answer is None:
            missing.append(step)
        else:
            known.append(answer)
    return known, missing


def _share_chart(known: list[pd.DataFrame | str], steps: list[int]) -> Any:
    tables = [one for one in known if isinstance(one, pd.DataFrame)]
    if not tables:
        why = next(iter(known), "")
        return dmc.Text(f"No class share is shown: {why}", size="sm", c="dimmed")
    means = pd.concat(tables).groupby(["layer", "step"])["class"].mean()
    return _chart(
        "Class share",
        _by_layer(means),
        steps,
        share=True,
        words="How much of what differs between the maps goes with the action: variance component "
        "over the sum of all, the mean over a layer's heads. An estimate, which may be negative.",
    )


def _evolution(asked: EvolutionAsked, payload: Payload, key: str) -> dmc.Paper:
    return section(
        "One head along the steps",
        View(
            id="training-evolution",
            module=module_url(),
            values={"manifest": payload.manifest},
            buffers={
                name: buffer_url(data, answer=key, part=name)
                for name, data in payload.buffers.items()
            },
            label=f"Mean map of layer {asked.layer}, head {asked.head} along the steps",
        ),
    )
