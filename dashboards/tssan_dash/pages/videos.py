"""The table of all videos below the one that is looked at."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, Patch, State
from dash.exceptions import PreventUpdate

from tssan_dash.pages import go_to
from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings

_COLUMNS = [
    ("sample", "Video", "agTextColumnFilter", 210),
    ("class_name", "Class", "agTextColumnFilter", 150),
    ("subject", "Subject", "agNumberColumnFilter", 100),
    ("camera", "Camera", "agNumberColumnFilter", 100),
    ("predicted_name", "Recognised as", "agTextColumnFilter", 150),
    ("confidence", "Confidence", "agNumberColumnFilter", 115),
]


def register(app: Dash, recordings: Recordings) -> None:
    """Add the table's callbacks to the app."""

    @app.callback(
        Output("explore-grid", "rowData"),
        Input("explore-shown", "data"),
        Input("explore-confused", "checked"),
    )
    def fill(shown: dict[str, Any], confused: bool | None) -> list[dict[str, Any]]:
        return lines(recordings, shown["run"], confused=bool(confused))

    @app.callback(
        Output("explore-grid", "dashGridOptions"),
        Input("explore-search", "value"),
        prevent_initial_call=True,
    )
    def search(words: str | None) -> Patch:
        options = Patch()
        options["quickFilterText"] = words or ""
        return options

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("explore-grid", "selectedRows"),
        State("explore-shown", "data"),
        State("explore-head", "state"),
        prevent_initial_call=True,
    )
    def choose(
        rows: list[dict[str, Any]] | None, shown: dict[str, Any], state: dict[str, Any]
    ) -> dict[str, Any]:
        if not rows or rows[0]["sample"] == shown["sample"]:
            raise PreventUpdate
        query = {"sample": rows[0]["sample"], "layer": state["layer"]}
        return go_to(({"run": shown["run"]} if len(recordings.runs()) > 1 else {}) | query)


def lines(recordings: Recordings, run: str, *, confused: bool) -> list[dict[str, Any]]:
    """Return one line per video, or per video that was taken for another class.

    Besides the columns each has ``words``: by what else its class may be searched.
    """
    samples = recordings.samples(run)
    if confused:
        samples = samples[samples["correct"].eq(False).fillna(False)]
    words = {
        c.label: " ".join([c.code or "", *c.aliases]) for c in recordings.catalogue(run).classes
    }
    kept = samples[[name for name, *_ in _COLUMNS]].astype(object)
    kept = kept.where(kept.notna(), None)
    kept["words"] = ["" if pd.isna(v) else words.get(int(v), "") for v in samples["label"]]
    return [{str(k): v for k, v in line.items()} for line in kept.to_dict("records")]


def table() -> dmc.Paper:
    """Return the table, still empty, with its search."""
    columns: list[dict[str, Any]] = [
        {"field": field, "headerName": title, "filter": kind, "minWidth": width}
        for field, title, kind, width in _COLUMNS
    ]
    columns[-1]["valueFormatter"] = {
        "function": "params.value == null ? '–' : d3.format('.3f')(params.value)"
    }
    columns.append({"field": "words", "hide": True})
    return section(
        "All videos",
        dmc.Group(
            [
                dmc.TextInput(
                    id="explore-search",
                    placeholder="Search by name, class, alias or code",
                    debounce=300,
                    w={"base": "100%", "xs": 320},
                    inputProps={"aria-label": "Search videos"},
                ),
                dmc.Switch(id="explore-confused", label="Confused only"),
            ],
            mb="sm",
        ),
        dag.AgGrid(
            id="explore-grid",
            rowData=[],
            columnDefs=columns,
            getRowId="params.data.sample",
            columnSize="responsiveSizeToFit",
            defaultColDef={"sortable": True, "resizable": True, "suppressMovable": True},
            dashGridOptions={
                "theme": "themeQuartz",
                "rowSelection": {
                    "mode": "singleRow",
                    "checkboxes": False,
                    "enableClickSelection": True,
                },
                "includeHiddenColumnsInQuickFilter": True,
                "quickFilterText": "",
                "rowHeight": 34,
                "headerHeight": 36,
                "animateRows": False,
            },
            style={"width": "100%", "height": "26rem"},
            className="",
        ),
        words="A row shows its video above; a column's menu filters.",
    )
