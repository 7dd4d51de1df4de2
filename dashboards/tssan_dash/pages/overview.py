"""The page that opens first: what was recorded, and what each head looks at."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.head_findings import findings_job
from tssan_dash.overview_files import FILES, command, export_job, python
from tssan_dash.pages import background, files, go_to, in_words, one, parameters
from tssan_dash.pages.background import findings
from tssan_dash.pages.parts import card, scrolling, section, shaded_table
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix
from tssan_viz.errors import UserError

_WORDS = {
    "entropy": "How widely a head looks: 0 at one frame only, 1 at all frames alike.",
    "distance": "How many frames away a head looks, on average.",
    "look_ahead": "Whether a head looks at later frames (positive) or at earlier ones (negative).",
    "peak": "How much weight the strongest frame gets, on average.",
    "class_share": "How much of what differs between a head's maps goes with the action (variance "
    "component over the sum of all; an estimate, which may be negative).",
    "subject_share": "How much of what differs between a head's maps goes with the person.",
    "class_accuracy": "How often the action is read from one map of a person never seen.",
    "subject_accuracy": "How often the person is read from one map of an action never seen.",
}
# What takes long to find out, and how a person calls it.
_FOUND = {
    "class_share": "class share of the variance",
    "subject_share": "subject share of the variance",
    "class_accuracy": "decodability of the action",
    "subject_accuracy": "decodability of the person",
}


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__, path="/", name="Overview", title="Overview · tssan-viz", layout=layout, order=0
    )

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("overview-measure", "value"),
        State("overview-shown", "data"),
        prevent_initial_call=True,
    )
    def choose(measure: str | None, shown: dict[str, Any]) -> dict[str, Any]:
        if measure is None or measure == shown["measure"]:
            raise PreventUpdate
        return go_to(parameters(shown["search"]) | {"measure": measure})

    def show(question: dict[str, Any]) -> Any:
        query = question["query"]
        run = recordings.run(query.get("run"))
        found = findings(recordings, run)
        table = found.measures()
        measure = str(query.get("measure"))
        if measure not in table:
            return [dmc.Text(note, size="sm", c="dimmed") for note in found.notes]
        address = {"run": run} if len(recordings.runs()) > 1 else {}
        return _cells(table, measure, address)

    background.register(app, recordings, "overview-found", findings_job, show)

    def numbers(shown: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        run = recordings.run(parameters(shown["search"]).get("run"))
        table = recordings.head_measures(run)
        try:
            found = findings(recordings, run).measures()
        except background.NotYet:
            return "heads", table
        return "heads", table.merge(found, on=["layer", "head"], how="outer")

    files.register(
        app,
        recordings,
        "overview",
        tuple(FILES),
        export_job,
        [State("overview-shown", "data")],
        lambda shown: {**shown, "query": parameters(shown["search"])},
        numbers,
    )


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    run = recordings.run(one(query, "run"))
    samples = recordings.samples(run)
    if samples.empty:
        raise UserError(
            f"The run {run!r} holds no video yet. While it is being recorded they come by "
            "themselves: reload the page."
        )
    address = {"run": run} if len(recordings.runs()) > 1 else {}
    offered = _offered(recordings, run)
    recorded = [name for name in offered if name not in _FOUND]
    measure = _measure(run, offered, one(query, "measure"))
    return dmc.Stack(
        [
            dcc.Store(
                id="overview-shown", data={"measure": measure, "search": "?" + urlencode(address)}
            ),
            dmc.Title("What was recorded", order=2, size="h3"),
            _cards(recordings, run, samples, address),
            dmc.Grid(
                [
                    dmc.GridCol(
                        _heads(recordings, run, address, offered, measure),
                        span={"base": 12, "md": 7},
                    ),
                    dmc.GridCol(_runs(recordings, run), span={"base": 12, "md": 5}),
                ],
                gutter="md",
            ),
            _classes(samples, address),
            files.section_of_files(
                "overview",
                FILES,
                python=python(recordings.store, run, recorded),
                command=command(recordings.store, run, recorded),
                link=f"{below_prefix('/')}?{urlencode(_kept(run, query))}",
                missing=() if offered else ("csv",),
                words="The figure and the page show the mean map of every head"
                + ("; the numbers are the measures." if offered else "."),
            ),
        ],
        gap="md",
    )


def _kept(run: str, query: dict[str, Any]) -> dict[str, str]:
    measure = one(query, "measure")
    return {"run": run} | ({} if measure is None else {"measure": measure})


def _cards(
    recordings: Recordings, run: str, samples: pd.DataFrame, address: dict[str, str]
) -> dmc.SimpleGrid:
    correct = samples["correct"].dropna().astype(float)
    sites = recordings.store.sites(run)
    frames = f"maps of {sites['query'].iloc[0]} × {sites['key'].iloc[0]}"
    classes = samples["label"].nunique()
    return dmc.SimpleGrid(
        [
            card(
                "Accuracy",
                "–" if correct.empty else f"{correct.mean():.1%}",
                "no prediction recorded" if correct.empty else _confused(correct, address),
            ),
            card("Videos", f"{len(samples):,}", _named(samples["split"])),
            card("Classes", str(classes) if classes else "–", recordings.catalogue(run).dataset),
            card("Subjects", _count(samples["subject"]), "people recorded"),
            card("Views", _count(samples["camera"]), "cameras"),
            card("Layers × heads", f"{sites['layer'].nunique()} × {sites['heads'].max()}", frames),
        ],
        cols={"base": 2, "sm": 3, "lg": 6},
        spacing="md",
        id="overview-cards",
    )


def _confused(correct: pd.Series, address: dict[str, str]) -> Any:
    wrong = int((1 - correct).sum())
    words = f"{wrong:,} videos confused"
    if not wrong:
        return words
    goal = f"{below_prefix('/explore')}?{urlencode(address | {'confused': 1})}"
    return dmc.Anchor(words, href=goal, size="sm", underline="always")


def _count(values: pd.Series) -> str:
    return str(values.nunique()) if values.notna().any() else "–"


def _named(values: pd.Series) -> str:
    names = sorted(values.dropna().astype(str).unique())
    return f"of {', '.join(names[:3])}" if names else ""


def _offered(recordings: Recordings, run: str) -> list[str]:
    """Return the measures by which the heads can be coloured: those recorded, then the others."""
    names = [n for n in recordings.head_measures(run).columns if n not in ("layer", "head")]
    samples = recordings.samples(run).dropna(subset=["label", "subject"])
    if samples["label"].nunique() > 1 and samples["subject"].nunique() > 1:
        names += _FOUND
    return names


def _measure(run: str, offered: list[str], asked: str | None) -> str | None:
    """Return the measure that is shown, None where there is none."""
    if asked is None or not offered:
        return "entropy" if "entropy" in offered else next(iter(offered), None)
    if asked not in offered:
        raise UserError(
            f"The run {run!r} was recorded without a measure {asked!r}; "
            f"it has {', '.join(offered)}."
        )
    return asked


def _heads(
    recordings: Recordings,
    run: str,
    address: dict[str, str],
    offered: list[str],
    measure: str | None,
) -> dmc.Paper:
    if measure is None:
        return section(
            "Layers and heads",
            dmc.Text("The run was recorded without measures of its maps.", c="dimmed", size="sm"),
            h="100%",
        )
    table = recordings.head_measures(run)
    question = {"query": {"run": run, "measure": measure}} if measure in _FOUND else None
    return section(
        "Layers and heads",
        dmc.Select(
            id="overview-measure",
            label="Measure",
            data=[{"value": n, "label": _FOUND.get(n, n.replace("_", " "))} for n in offered],
            value=measure,
            allowDeselect=False,
            w=280,
            mb="xs",
        ),
        dmc.Text(_WORDS.get(measure, "Mean over all videos."), size="sm", c="dimmed", mb="md"),
        background.frame(
            "overview-found", question, "Asking all heads …", height="8rem" if question else "0"
        ),
        *([] if question else [_cells(table, measure, address)]),
        words="A cell leads to what the head does in each class.",
        h="100%",
    )


def _cells(table: pd.DataFrame, measure: str, address: dict[str, str]) -> Any:
    grid = table.pivot(index="layer", columns="head", values=measure).sort_index()
    layers, heads = grid.index.tolist(), grid.columns.tolist()
    values = grid.to_numpy(float)
    size = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    form = "z.1f" if size >= 10 else "z.2f"
    return shaded_table(
        values,
        [f"Layer {layer}" for layer in layers],
        [str(head) for head in heads],
        corner="Head",
        form=".0%" if measure in _FOUND else form,
        label=lambda i, j: f"{_FOUND.get(measure, measure)} of layer {layers[i]}, head {heads[j]}",
        address=lambda i, j: (
            below_prefix("/compare")
            + "?"
            + urlencode(address | {"layer": layers[i], "head": heads[j]})
        ),
        id="overview-heads",
    )


def _classes(samples: pd.DataFrame, address: dict[str, str]) -> dmc.Paper:
    labelled = samples.dropna(subset=["class_name"])
    if labelled.empty:
        return section(
            "Classes",
            dmc.Text("The run was recorded without class names.", size="sm", c="dimmed"),
        )
    by_class = labelled.groupby("class_name", sort=True)
    lines = []
    for name, part in by_class:
        correct = part["correct"].dropna().astype(float)
        query = urlencode(address | {"class": name})
        lines.append(
            [
                dmc.Text(str(name), size="sm"),
                f"{len(part):,}",
                _count(part["subject"]),
                "–" if correct.empty else f"{correct.mean():.0%}",
                dmc.Group(
                    [
                        dmc.Anchor(
                            words,
                            href=f"{below_prefix(path)}?{query}",
                            size="sm",
                            **{"aria-label": f"{words} {name}"},
                        )
                        for words, path in (("Explore", "/explore"), ("Compare", "/compare"))
                    ],
                    gap="sm",
                    wrap="nowrap",
                ),
            ]
        )
    return section(
        "Classes",
        _table(["Class", "Videos", "Subjects", "Accuracy", "Look at"], lines, "Classes"),
        id="overview-classes",
    )


def _runs(recordings: Recordings, run: str) -> dmc.Paper:
    lines = []
    for line in recordings.store.runs()[::-1].to_dict("records"):
        address = f"{below_prefix('/')}?{urlencode({'run': line['run']})}"
        name = line["run"]
        lines.append(
            [
                dmc.Text(name, size="sm", fw=600)
                if name == run
                else dmc.Anchor(name, href=address, size="sm"),
                f"{line['created']:%Y-%m-%d %H:%M}",
                f"{line['rows']:,}",
                str(line["steps"]),
            ]
        )
    return section(
        "Runs",
        _table(["Run", "Begun (UTC)", "Rows", "Steps"], lines, "Runs"),
        h="100%",
        id="overview-runs",
    )


def _table(head: list[str], lines: list[list[Any]], name: str) -> html.Div:
    table = dmc.Table(
        [
            dmc.TableThead(
                dmc.TableTr([dmc.TableTh(h, style={"whiteSpace": "nowrap"}) for h in head])
            ),
            dmc.TableTbody([dmc.TableTr([dmc.TableTd(c) for c in line]) for line in lines]),
        ],
        verticalSpacing=6,
        highlightOnHover=True,
    )
    return scrolling(table, name=name)
