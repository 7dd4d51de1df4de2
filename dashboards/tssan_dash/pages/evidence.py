"""The page of what was tested about attention as an explanation, as it is kept beside the maps."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc
from dash.exceptions import PreventUpdate

from tssan_dash.evidence_files import (
    FILES,
    chosen,
    command,
    curves,
    export_job,
    of_class,
    of_kind,
    python,
    tested,
)
from tssan_dash.pages import files, go_to, in_words, one
from tssan_dash.pages.charts import COLOURS, DASHES, chart, marks_of_heads
from tssan_dash.pages.parts import head_grid, scrolling, section, shaded_table
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix
from tssan_viz.evidence.kept import FAITHFULNESS, HEADS

# What stands for no class in the select.
_ALL = "*"
# What is done to heads, by its name in a finding.
_EDITS = {
    "zero": "Set to zero",
    "mean": "Set to their means",
    "uniform": "Attending to all frames alike",
    "rows": "Rows exchanged within each map",
}
_COLUMNS = [
    ("layer", "Layer", "d", "counted from 1"),
    ("head", "Head", "d", "counted from 1"),
    ("zero_loss", "To zero", "+.3f", "rise of the loss when what the head gathers is nothing"),
    ("zero_low", "from", "+.3f", "lower end of its interval over subjects"),
    ("zero_high", "to", "+.3f", "upper end of its interval over subjects"),
    ("zero_p", "p", ".3f", "one-sided, sign flips of subjects, max-T over all heads"),
    ("zero_accuracy", "Accuracy", "+.1%", "change of the accuracy when it is set to zero"),
    ("mean_loss", "To mean", "+.3f", "rise of the loss when the head gathers its mean"),
    ("uniform_loss", "Uniform", "+.3f", "rise of the loss when it attends to all frames alike"),
    ("rows_loss", "Rows", "+.3f", "rise of the loss when its rows change places"),
    ("gradient", "Gradient", ".2f", "Michel's score, each layer at unit length"),
    ("decodable", "Decodable", ".1%", "how often the class is read from one map of the head"),
]


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/evidence",
        name="Evidence",
        title="Evidence · tssan-viz",
        layout=layout,
        order=5,
    )

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("evidence-class", "value"),
        State("evidence-shown", "data"),
        prevent_initial_call=True,
    )
    def choose(name: str | None, shown: dict[str, Any]) -> dict[str, Any]:
        if name is None or name == (shown.get("class") or _ALL):
            raise PreventUpdate
        kept = {"run": shown["run"]} if len(recordings.runs()) > 1 else {}
        return go_to(kept if name == _ALL else kept | {"class": name})

    def numbers(shown: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        found = chosen(recordings.store, recordings.run(shown.get("run")), shown.get("class"))
        finding = of_kind(found, FAITHFULNESS)
        return "curves", pd.DataFrame() if finding is None else curves(finding)

    files.register(
        app,
        recordings,
        "evidence",
        tuple(FILES),
        export_job,
        [State("evidence-shown", "data")],
        lambda shown: shown,
        numbers,
    )


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    store, run = recordings.store, recordings.run(one(query, "run"))
    title = dmc.Title("Does attention point at what matters?", order=2, size="h3")
    labels = tested(store, run)
    if not labels:
        return dmc.Stack([title, _how(store.url, run)], gap="md")
    name = one(query, "class")
    findings = chosen(store, run, name)
    label = findings[0]["label"]
    of = of_class(store, run, label)
    drawn, heads = of_kind(findings, FAITHFULNESS), of_kind(findings, HEADS)
    address = {"run": run} | ({} if label is None else {"class": of})
    parts = []
    if len(labels) > 1:
        parts.append(
            dmc.Select(
                id="evidence-class",
                label="Tested about",
                data=[
                    {
                        "value": _ALL if one is None else of_class(store, run, one),
                        "label": of_class(store, run, one),
                    }
                    for one in labels
                ],
                value=_ALL if label is None else of,
                allowDeselect=False,
                searchable=True,
                w={"base": "100%", "xs": 280},
            )
        )
    if drawn is not None:
        parts.append(_curves(drawn, of))
    if heads is not None:
        parts.append(_heads(heads, of))
        if heads.get("together"):
            parts.append(_together(heads))
        parts.append(_head_table(heads))
    no_curves = () if drawn else ("pdf", "svg", "png", "html", "csv")
    return dmc.Stack(
        [
            title,
            dcc.Store(id="evidence-shown", data=address),
            *parts,
            files.section_of_files(
                "evidence",
                FILES,
                python=python(store, run, label),
                command=command(store, run, label),
                link=f"{below_prefix('/evidence')}?{urlencode(address)}",
                words="DIR is the folder of the prepared data; --run is the folder of the trained "
                "network, which is called as the run is.",
                missing=no_curves if heads else (*no_curves, "heads"),
            ),
        ],
        gap="md",
    )


def _how(store: str, run: str) -> dmc.Paper:
    words = ["tssan-viz", "faithfulness", "--run", run, "--data", "DIR", "--heads"]
    return section(
        "Nothing was tested yet",
        dmc.Text(
            "A map shows where the network looks, not whether its answer rests on it. Frames are "
            "taken away in the order of their attention (deletion) or put back (insertion), and "
            "the class's probability is followed; a random order is what it has to beat. Each head "
            "is taken out in turn, and all at once.",
            size="sm",
            maw=720,
            mb="md",
        ),
        dmc.Code(shlex.join([*words, "--store", store]), block=True),
        dmc.Text(
            "--run is the folder of the trained network, DIR that of the prepared data. What is "
            "found is kept beside the maps and shown here.",
            size="sm",
            c="dimmed",
            mt="sm",
        ),
    )


def _curves(found: dict[str, Any], of: str) -> dmc.Paper:
    lines = [
        [line["method"], *[_signed(line, name, ".3f") for name in ("deletion", "insertion")]]
        for line in found["table"]
    ]
    drawn = curves(found)
    charts = []
    if {"method", "share", "deletion", "insertion"} <= set(drawn.columns):
        charts = [_curve(drawn, "deletion"), _curve(drawn, "insertion")]
    return section(
        f"Deletion and insertion, {of}",
        *([dmc.SimpleGrid(charts, cols={"base": 1, "md": 2}, mb="md")] if charts else []),
        _table(
            ["Order of frames", "Deletion AUC", "Insertion AUC"], lines, "Areas under the curves"
        ),
        words="Deletion: lower is better. Insertion: higher is better. Means over subjects with "
        f"their intervals, {len(found['videos'])} videos.",
    )


def _curve(table: pd.DataFrame, name: str) -> dcc.Graph:
    """Return one kind of curve of every order of frames, random ones grey with their band."""
    traces = []
    chance = table[table["method"] == "random"]
    grey = "#888888"
    if len(chance) and f"{name}_low" in chance:
        around = [*chance[f"{name}_high"].astype(float), *chance[f"{name}_low"].astype(float)[::-1]]
        share = [*chance["share"], *chance["share"][::-1]]
        traces.append(
            go.Scatter(
                x=share,
                y=around,
                mode="lines",
                fill="toself",
                fillcolor="rgba(128,128,128,0.2)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    methods = [m for m in dict.fromkeys(table["method"]) if m != "random"]
    for method in [*methods, *(["random"] if len(chance) else [])]:
        part = table[table["method"] == method]
        line = {"color": grey, "dash": "dash"}
        if method != "random":
            place = methods.index(method)
            line = {
                "color": COLOURS[place % len(COLOURS)],
                "dash": DASHES[place // len(COLOURS) % len(DASHES)],
            }
        traces.append(
            go.Scatter(x=part["share"].tolist(), y=part[name].tolist(), name=str(method), line=line)
        )
    what = "taken away" if name == "deletion" else "put back"
    figure = chart(traces, below=f"share of the frames {what}", height=420)
    figure.update_xaxes(tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(range=[-0.01, 1.02], title=f"probability of the class, {name}")
    return dcc.Graph(figure=figure, config={"displayModeBar": False})


def _heads(found: dict[str, Any], of: str) -> dmc.Paper:
    table = pd.DataFrame(found["table"])
    grid = table.pivot_table(index="layer", columns="head", values="zero_loss", aggfunc="first")
    layers, heads = grid.index.tolist(), grid.columns.tolist()
    shaded = shaded_table(
        grid.to_numpy(np.float64),
        [f"Layer {layer}" for layer in layers],
        [str(head) for head in heads],
        corner="Head",
        form="z.3f",
        label=lambda i, j: f"rise of the loss without layer {layers[i]}, head {heads[j]}",
        id=f"evidence-heads-{found['label']}",
        name="Heads taken out",
    )
    title = f"Heads taken out, {of}"
    words = f"How much the loss rises when a head is set to zero, {found['videos']} videos."
    if "decodable" not in table or table["decodable"].isna().all():
        return section(title, shaded, words=words)
    rho = found.get("goes_with_decodability")
    return section(
        title,
        dmc.Grid(
            [
                dmc.GridCol(shaded, span={"base": 12, "lg": 5}),
                dmc.GridCol(_needed_and_told(table), span={"base": 12, "lg": 7}),
            ]
        ),
        words=f"{words} Beside it, whether the heads that are needed are those whose maps tell the "
        "class to who has only the maps"
        + ("." if rho is None else f": rank correlation {rho:+.2f} over these {len(table)} heads.")
        + " A description of this network; its heads are no sample. Filled: p ≤ 0.05.",
    )


def _needed_and_told(table: pd.DataFrame) -> dcc.Graph:
    """Return a mark per head: how well its maps tell the class, how much it is needed."""
    marks = marks_of_heads(
        table,
        "decodable",
        "zero_loss",
        "zero_p",
        ["class read rightly %{x:.1%}", "rise of the loss %{y:.3f}"],
    )
    figure = chart(marks, below="class read from one map", height=340)
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(title="rise of the loss without the head")
    return dcc.Graph(figure=figure, config={"displayModeBar": False})


def _together(found: dict[str, Any]) -> dmc.Paper:
    """Return what it costs to change all heads at once."""
    lines = [
        [
            _EDITS.get(line["edit"], line["edit"]),
            _signed(line, "loss", "+.3f"),
            f"{line['p']:.3f}",
            _signed(line, "accuracy", "+.1%"),
        ]
        for line in found["together"]
    ]
    return section(
        "All heads changed at once",
        _table(
            ["What is done", "Rise of the loss", "p max-T", "Change of the accuracy"],
            lines,
            "All heads changed at once",
        ),
        words="A network that is as good when all its heads attend uniformly, or when their rows "
        "change places, does not need what its maps show. Means over subjects with their "
        "intervals.",
    )


def _head_table(found: dict[str, Any]) -> dmc.Paper:
    table = pd.DataFrame(found["table"])
    # A network of several streams has a table for each.
    streams = list(table.groupby("stream", sort=False))
    parts: list[Any] = []
    for stream, lines in streams:
        if len(streams) > 1:
            parts.append(dmc.Text(f"Stream {stream}", fw=500, size="sm", my="xs"))
        there = lines.dropna(axis="columns", how="all")
        columns = [column for column in _COLUMNS if column[0] in there]
        parts.append(head_grid(there, columns, id=f"evidence-table-{stream}"))
    return section(
        "Every head changed alone",
        *parts,
        words="By how much the loss rises. A click on a title sorts.",
    )


def _signed(line: dict[str, Any], name: str, form: str) -> str:
    value, low, high = (line.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "–"
    words = f"{value:{form}}"
    return words if low is None or high is None else f"{words} ({low:{form}} to {high:{form}})"


def _table(head: list[str], lines: list[list[str]], name: str) -> Any:
    return scrolling(
        dmc.Table(
            [
                dmc.TableThead(dmc.TableTr([dmc.TableTh(words) for words in head])),
                dmc.TableTbody(
                    [dmc.TableTr([dmc.TableTd(cell) for cell in line]) for line in lines]
                ),
            ]
        ),
        name=name,
    )
