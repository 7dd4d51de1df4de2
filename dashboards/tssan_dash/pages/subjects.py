"""The page on which persons and views are set beside each other, and told from the action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.asked import asked_in, readable
from tssan_dash.bridge import View
from tssan_dash.head_findings import HeadFindings, findings_job
from tssan_dash.pages import (
    alias_filter,
    background,
    class_options,
    files,
    go_to,
    in_words,
)
from tssan_dash.pages.background import findings
from tssan_dash.pages.charts import COLOURS, chart, marks_of_heads
from tssan_dash.pages.missing import too_little_said
from tssan_dash.pages.parts import colour_bar, scrolling, section, small_multiples
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix, buffer_url, module_url
from tssan_dash.subject_maps import (
    FILES,
    SubjectMaps,
    SubjectsAsked,
    export_job,
    large_payload,
    maps_job,
)

# Beyond so many small maps they are no links: a page of thousands of them is slow.
_MOST_LINKED = 800
_EFFECTS = {
    "class": "class",
    "subject": "subject",
    "class × subject": "class × subject",
    "camera": "camera",
    "replication": "repetition",
    "residual": "rest",
}


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/subjects",
        name="Subjects",
        title="Subjects and views · tssan-viz",
        layout=layout,
        order=3,
    )

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("subjects-layer", "value"),
        Input("subjects-head", "value"),
        Input("subjects-class", "value"),
        State("subjects-question", "data"),
        prevent_initial_call=True,
    )
    def choose(
        layer: str | None, head: str | None, name: str | None, question: dict[str, Any]
    ) -> dict[str, Any]:
        old = question["shown"]
        wish = {"layer": layer, "head": head, "class": name}
        wish = {key: value for key, value in wish.items() if value}
        if wish == {key: old[key] for key in wish if key in old} and ("class" in old) == bool(name):
            raise PreventUpdate
        return go_to(({"run": old["run"]} if "run" in old else {}) | wish)

    def show_maps(question: dict[str, Any]) -> Any:
        asked = asked_in(SubjectsAsked.of, recordings.store, question)
        return _maps(recordings, asked, _answer(recordings, asked))

    def show_heads(question: dict[str, Any]) -> Any:
        run = recordings.run(question["query"].get("run"))
        return _heads(findings(recordings, run))

    background.register(app, recordings, "subjects", maps_job, show_maps)
    background.register(app, recordings, "subjects-heads", findings_job, show_heads)

    def numbers(question: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        found = findings(recordings, recordings.run(question["query"].get("run")))
        tables = [
            table.set_index(["layer", "head"])
            for table in (found.shares, found.decoding)
            if table is not None
        ]
        return "subjects", pd.concat(tables, axis=1).reset_index() if tables else pd.DataFrame()

    files.register(
        app,
        recordings,
        "subjects",
        tuple(FILES),
        export_job,
        [State("subjects-question", "data")],
        lambda question: question,
        numbers,
    )


def _answer(recordings: Recordings, asked: SubjectsAsked) -> SubjectMaps:
    answer = recordings.jobs.answer(asked.key(recordings.store))
    if not isinstance(answer, SubjectMaps):
        raise background.NotYet
    return answer


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    given = {name: str(v[-1] if isinstance(v, list) else v) for name, v in query.items() if v}
    run = recordings.run(given.get("run"))
    missing = too_little_said(recordings, run)
    if missing is not None:
        return missing
    asked, wrong = readable(SubjectsAsked.of, recordings.store, run, given)
    shown = asked.query()
    if len(recordings.runs()) == 1:
        del shown["run"]
    # What cannot be read stays in the question, whose answer is then the complaint.
    question = {"query": shown | {name: given[name] for name in wrong}, "shown": shown}
    store = recordings.store
    return dmc.Stack(
        [
            _form(recordings, asked),
            background.frame("subjects", question, "Averaging maps …", height="20rem"),
            background.frame(
                "subjects-heads", question, "Telling person from action …", height="16rem"
            ),
            files.section_of_files(
                "subjects",
                FILES,
                python=asked.python(store),
                command=asked.command(store),
                link=f"{below_prefix('/subjects')}?{urlencode(asked.query())}",
                words="The figure shows the chosen head's mean map of every subject.",
            ),
        ],
        gap="md",
    )


def _form(recordings: Recordings, asked: SubjectsAsked) -> dmc.Paper:
    rows = recordings.store.select(run=asked.run)
    classes = recordings.classes(asked.run)
    options = [{**o, "value": c.name} for o, c in zip(class_options(classes), classes, strict=True)]
    words = alias_filter(classes)["options"]["words"]
    find = {
        "function": "tssan_dash.byAlias",
        "options": {"words": {c.name: words[str(c.label)] for c in classes}},
    }

    def number(name: str, label: str, there: Sequence[int], value: int) -> dmc.Select:
        return dmc.Select(
            id=f"subjects-{name}",
            label=label,
            data=[str(one) for one in there],
            value=str(value),
            allowDeselect=False,
            w=90,
        )

    return dmc.Paper(
        dmc.Group(
            [
                number("layer", "Layer", rows.layers, asked.layer),
                number("head", "Head", rows.select(layer=asked.layer).heads, asked.head),
                dmc.Select(
                    id="subjects-class",
                    label="Class",
                    data=options,
                    filter=find,
                    value=asked.class_name,
                    placeholder="all classes together",
                    searchable=True,
                    clearable=True,
                    nothingFoundMessage="No class of this name was recorded",
                    w={"base": "100%", "xs": 280},
                ),
            ],
            gap="sm",
            align="flex-end",
        ),
        withBorder=True,
        p="lg",
    )


@in_words
def _maps(recordings: Recordings, asked: SubjectsAsked, answer: SubjectMaps) -> Any:
    key = asked.key(recordings.store)
    address = {"run": asked.run} if len(recordings.runs()) > 1 else {}
    scale = colour_bar(answer.low, answer.high, answer.even, "mean attention weight")
    grids = [
        section(
            "Class × subject",
            scale,
            _grid(answer, key, "subjects", answer.subjects, _videos(recordings, asked, address)),
            words="The mean map of each person doing each thing, on one scale: what is alike along "
            "a row is the action, along a column the person. A map leads to its first video.",
            id="subjects-grid",
        )
    ]
    if answer.cameras:
        grids.append(
            section(
                "Class × camera",
                scale,
                _grid(answer, key, "cameras", answer.cameras, None),
                words="The same as each camera saw it, each subject weighing the same.",
                id="subjects-cameras",
            )
        )
    wide = len(grids) > 1 and len(answer.subjects) <= 12
    return dmc.Stack(
        [
            dmc.Grid(
                [
                    dmc.GridCol(grid, span={"base": 12, "lg": span if wide else 12})
                    for grid, span in zip(grids, (7, 5), strict=False)
                ],
                gutter="md",
            ),
            _large(asked, answer, key),
            *[dmc.Text(note, size="sm", c="dimmed") for note in answer.notes],
        ],
        gap="md",
    )


def _large(asked: SubjectsAsked, answer: SubjectMaps, key: str) -> dmc.Paper:
    payload = large_payload(answer, asked.class_name)
    part = "large"
    if asked.class_name is not None:
        part = f"large-{answer.labels[answer.classes.index(asked.class_name)]}"
    return section(
        asked.title,
        View(
            id="subjects-large",
            module=module_url(),
            values={"manifest": payload.manifest},
            buffers={"maps": buffer_url(payload.buffers["maps"], answer=key, part=part)},
            label="Mean map of each subject",
        ),
        words="Each subject's mean map; the exact value is under the pointer.",
    )


def _grid(
    answer: SubjectMaps,
    key: str,
    what: str,
    numbers: list[int],
    address: dict[tuple[str, int], str] | None,
) -> html.Div:
    maps = answer.by_subject if what == "subjects" else answer.by_camera
    one = what.removesuffix("s")
    if address is not None and maps.shape[0] * maps.shape[1] > _MOST_LINKED:
        address = None
    return small_multiples(
        buffer_url(answer.pictures[f"{what}.png"], answer=key, part=f"{what}.png"),
        np.isfinite(maps[:, :, 0, 0]),
        answer.classes,
        [str(n) for n in numbers],
        corner=one.capitalize(),
        label=lambda i, j: f"{answer.classes[i]}, {one} {numbers[j]}",
        address=None
        if address is None
        else lambda i, j: address.get((answer.classes[i], numbers[j])),
        shape=(maps.shape[2], maps.shape[3]),
        id=f"subjects-{what}-maps",
    )


def _videos(
    recordings: Recordings, asked: SubjectsAsked, query: dict[str, str]
) -> dict[tuple[str, int], str]:
    """Return the address of the first video of each class and subject."""
    samples = recordings.samples(asked.run).dropna(subset=["class_name", "subject"])
    first = samples.drop_duplicates(["class_name", "subject"])
    path = below_prefix("/explore")
    place = {"layer": asked.layer, "heads": asked.head}
    return {
        (str(name), int(subject)): f"{path}?{urlencode(query | {'sample': sample} | place)}"
        for name, subject, sample in zip(
            first["class_name"], first["subject"], first["sample"], strict=True
        )
    }


@in_words
def _heads(found: HeadFindings) -> Any:
    parts = []
    if found.shares is not None:
        parts.append(
            section(
                "Shares of variance",
                _shares(found.shares),
                words="How much of what differs between maps goes with the action, the person, "
                "their interaction, the camera. Estimates without bias, which may be negative. "
                f"{found.said}.",
                id="subjects-shares",
            )
        )
    if found.decoding is not None:
        parts.append(
            section(
                "Person or action",
                _decoding(found.decoding),
                words="How well the action (of a person never seen) and the person (in an action "
                "never seen) are read from the map of one head. Right: the action; above: the "
                "person. Dashed: chance. Filled: the action is read better than chance (p ≤ 0.05, "
                "max-T over all heads).",
                id="subjects-decoding",
            )
        )
    notes = [dmc.Text(note, size="sm", c="dimmed") for note in found.notes]
    if not parts:
        parts = [section("Person or action", *notes)]
        notes = []
    return dmc.Stack(
        [
            dmc.SimpleGrid(parts, cols={"base": 1, "md": len(parts)}, spacing="md"),
            *notes,
        ],
        gap="md",
    )


def _shares(table: pd.DataFrame) -> Any:
    names = [f"{int(n)}.{int(h)}" for n, h in zip(table["layer"], table["head"], strict=True)]
    bars = []
    for (effect, words), colour in zip(_EFFECTS.items(), (*COLOURS, "#888888"), strict=False):
        if effect in table and table[effect].notna().any():
            values = table[effect].fillna(0).tolist()
            bars.append(
                go.Bar(
                    y=names,
                    x=values,
                    name=words,
                    orientation="h",
                    marker={"color": colour, "line": {"width": 0}},
                    hovertemplate=f"{words} %{{x:.1%}}<extra>layer.head %{{y}}</extra>",
                )
            )
    figure = chart(bars, height=max(260, 90 + 20 * len(names)), below="share of the variance")
    figure.update_layout(barmode="relative", bargap=0.25)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category", title="layer.head")
    return scrolling(
        dcc.Graph(figure=figure, config={"displayModeBar": False}), name="Shares of variance"
    )


def _decoding(table: pd.DataFrame) -> Any:
    marks = marks_of_heads(
        table,
        "class_accuracy",
        "subject_accuracy",
        "class_p_max_t",
        ["action %{x:.1%}", "person %{y:.1%}"],
    )
    figure = chart(marks, height=420, below="action read rightly")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", title="person read rightly")
    dashed = {"dash": "dash", "color": "rgba(128,128,128,0.8)", "width": 1}
    figure.add_vline(float(table["class_chance"].mean()), line=dashed)
    figure.add_hline(float(table["subject_chance"].mean()), line=dashed)
    return dcc.Graph(figure=figure, config={"displayModeBar": False})
