"""The page of what was tested about attention as an explanation, as it is kept beside the maps."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, State, dcc

from tssan_dash.evidence_files import FILES, chosen, command, curves, export_job, python
from tssan_dash.pages import files, in_words, one
from tssan_dash.pages.charts import COLOURS, DASHES, chart
from tssan_dash.pages.parts import scrolling, section, shaded_table
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix
from tssan_viz.evidence.kept import FAITHFULNESS, kept_evidence


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page to the app."""
    dash.register_page(
        __name__,
        path="/evidence",
        name="Evidence",
        title="Evidence · tssan-viz",
        layout=layout,
        order=5,
    )

    def numbers(shown: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        finding = chosen(recordings.store, recordings.run(shown.get("run")), shown.get("class"))
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
    run = recordings.run(one(query, "run"))
    findings = kept_evidence(recordings.store, run)
    title = dmc.Title("Does attention point at what matters?", order=2, size="h3")
    if not findings:
        return dmc.Stack([title, _how(run)], gap="md")
    name = one(query, "class")
    store = recordings.store
    taken = []
    given = chosen(store, run, name)
    if given is not None:
        address = {"run": run} | ({} if name is None else {"class": name})
        taken = [
            dcc.Store(id="evidence-shown", data=address),
            files.section_of_files(
                "evidence",
                FILES,
                python=python(store, run, given["label"]),
                command=command(store, run, given["label"]),
                link=f"{below_prefix('/evidence')}?{urlencode(address)}",
                words="DIR is the folder of the prepared data.",
            ),
        ]
    parts = [_finding(recordings, run, found) for found in findings]
    return dmc.Stack([title, *parts, *taken], gap="md")


def _how(run: str) -> dmc.Paper:
    return section(
        "Nothing was tested yet",
        dmc.Text(
            "A map shows where the network looks, not whether its answer rests on it. Frames are "
            "taken away in the order of their attention (deletion) or put back (insertion), and "
            "the class's probability is followed; a random order is what it has to beat.",
            size="sm",
            maw=720,
            mb="md",
        ),
        dmc.Code(f"tssan-viz faithfulness --run {run} --data DIR", block=True),
        dmc.Text(
            "RUN is the folder of the trained network. What is found is kept beside the maps and "
            "shown here.",
            size="sm",
            c="dimmed",
            mt="sm",
        ),
    )


def _finding(recordings: Recordings, run: str, found: dict[str, Any]) -> dmc.Paper:
    label = found["label"]
    of = "all classes" if label is None else recordings.catalogue(run).name_of(label)
    if found["kind"] == FAITHFULNESS:
        return _curves(found, str(of))
    return _heads(found, str(of))


def _curves(found: dict[str, Any], of: str) -> dmc.Paper:
    lines = [
        [line["method"], *[_interval(line, name) for name in ("deletion", "insertion")]]
        for line in found["table"]
    ]
    drawn = curves(found)
    charts = []
    if {"method", "share", "deletion", "insertion"} <= set(drawn.columns):
        charts = [_curve(drawn, "deletion"), _curve(drawn, "insertion")]
    return section(
        f"Deletion and insertion, {of}",
        *([dmc.SimpleGrid(charts, cols={"base": 1, "md": 2}, mb="md")] if charts else []),
        scrolling(
            dmc.Table(
                [
                    dmc.TableThead(
                        dmc.TableTr(
                            [
                                dmc.TableTh(words)
                                for words in ("Order of frames", "Deletion AUC", "Insertion AUC")
                            ]
                        )
                    ),
                    dmc.TableTbody(
                        [dmc.TableTr([dmc.TableTd(cell) for cell in line]) for line in lines]
                    ),
                ]
            ),
            name="Deletion and insertion",
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


def _interval(line: dict[str, Any], name: str) -> str:
    value, low, high = (line.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "–"
    return (
        f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
    )


def _heads(found: dict[str, Any], of: str) -> dmc.Paper:
    table = pd.DataFrame(found["table"])
    name = next(n for n in table.columns if n.endswith("_loss"))
    grid = table.pivot_table(index="layer", columns="head", values=name, aggfunc="first")
    layers, heads = grid.index.tolist(), grid.columns.tolist()
    return section(
        f"Heads taken out, {of}",
        shaded_table(
            grid.to_numpy(np.float64),
            [f"Layer {layer}" for layer in layers],
            [str(head) for head in heads],
            corner="Head",
            form="z.3f",
            label=lambda i, j: f"{name} of layer {layers[i]}, head {heads[j]}",
            id=f"evidence-heads-{found['label']}",
        ),
        words=f"How much the loss rises when a head is set to {name.removesuffix('_loss')}, "
        f"{found['videos']} videos.",
    )
