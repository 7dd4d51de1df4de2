"""The table of all videos below the one that is looked at; it travels a hundred rows at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from tssan_dash.filtering import Question
from tssan_dash.pages import one
from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings

_COLUMNS = [
    ("sample", "Video", "agTextColumnFilter", 210),
    ("class_name", "Class", "agTextColumnFilter", 150),
    ("subject", "Subject", "agNumberColumnFilter", 100),
    ("camera", "Camera", "agNumberColumnFilter", 100),
    ("predicted_name", "Recognised as", "agTextColumnFilter", 150),
    ("correct", "Correct", "agTextColumnFilter", 100),
    ("confidence", "Confidence", "agNumberColumnFilter", 115),
]


def register(app: Dash, recordings: Recordings) -> None:
    """Add the table's callbacks to the app."""
    # Keeps the question in the address, and lets the grid ask anew when the search is another.
    app.clientside_callback(
        ClientsideFunction("tssan_dash", "askVideos"),
        Output("explore-question", "data"),
        Input("explore-grid", "getRowsRequest"),
        Input("explore-search", "value"),
        Input("explore-confused", "checked"),
        State("explore-question", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("explore-grid", "getRowsResponse"),
        Output("explore-found", "children"),
        Output("explore-previous", "disabled"),
        Output("explore-next", "disabled"),
        Input("explore-grid", "getRowsRequest"),
        Input("explore-question", "data"),
        State("explore-search", "value"),
        State("explore-confused", "checked"),
        State("explore-shown", "data"),
    )
    def fill(
        request: dict[str, Any] | None,
        _question: dict[str, Any] | None,
        search: str | None,
        confused: bool | None,
        shown: dict[str, Any],
    ) -> tuple[Any, ...]:
        if request is None:
            raise PreventUpdate
        question = Question.of(
            {
                "find": search,
                "confused": confused,
                "filter": request.get("filterModel"),
                "sort": request.get("sortModel"),
            }
        )
        run = shown["run"]
        samples = recordings.samples(run)
        found = recordings.found(run, question)
        asked = "explore-grid.getRowsRequest" in ctx.triggered_prop_ids
        rows: Any = no_update
        if asked:
            first, last = _bounds(request)
            rows = {"rowData": lines(samples.loc[found[first:last]]), "rowCount": len(found)}
        count = f"{len(samples):,} videos"
        if len(found) < len(samples):
            count = f"{len(found):,} of {count}"
        return rows, count, *ends(found, recordings.position(run, shown["sample"]))

    # A click on a row; what the page itself marks there, or a row of before, is none.
    app.clientside_callback(
        ClientsideFunction("tssan_dash", "chooseRow"),
        Output("explore-row", "data"),
        Input("explore-grid", "selectedRows"),
        State("explore-shown", "data"),
        prevent_initial_call=True,
    )


def ends(found: pd.Index, here: int) -> tuple[bool, bool]:
    """Return whether the arrows lead no further back and no further on from a video."""
    if not len(found):
        return True, True
    return here == found[0], here == found[-1]


def _bounds(request: Mapping[str, Any]) -> tuple[int, int]:
    """Return the first row and the one after the last of a request, of at most 500 rows."""
    first, last = request.get("startRow"), request.get("endRow")
    if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last):
        return 0, 100
    return first, min(last, first + 500)


def lines(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one line per video, as JSON has it."""
    # Column by column: a table of objects would take ten times as long.
    columns = []
    for name, *_ in _COLUMNS:
        values = [None if pd.isna(value) else value for value in samples[name].tolist()]
        if name == "correct":
            values = [None if value is None else "yes" if value else "no" for value in values]
        columns.append(values)
    names = [name for name, *_ in _COLUMNS]
    return [dict(zip(names, line, strict=True)) for line in zip(*columns, strict=True)]


def asked_in(query: Mapping[str, Any]) -> Question:
    """Return the question that an address holds; what it cannot hold is left out."""
    given: dict[str, Any] = {"find": one(dict(query), "find")}
    given["confused"] = one(dict(query), "confused") == "1"
    for name in ("filter", "sort"):
        try:
            given[name] = json.loads(one(dict(query), name) or "null")
        except (ValueError, RecursionError):
            continue
    return Question.of(given)


def table(question: Question) -> dmc.Paper:
    """Return the table, still empty, with its search, as `question` asks."""
    order = {part["colId"]: (place, part["sort"]) for place, part in enumerate(question.sort)}
    columns: list[dict[str, Any]] = []
    for field, title, kind, width in _COLUMNS:
        column = {"field": field, "headerName": title, "filter": kind, "minWidth": width}
        if field in order:
            column |= {"sortIndex": order[field][0], "sort": order[field][1]}
        columns.append(column)
    columns[-1]["valueFormatter"] = {
        "function": "params.value == null ? '–' : d3.format('.3f')(params.value)"
    }
    return section(
        "All videos",
        dcc.Store(id="explore-question", data=question.to_dict()),
        dcc.Store(id="explore-row"),
        dmc.Group(
            [
                dmc.TextInput(
                    id="explore-search",
                    placeholder="Search by name, class, alias or code",
                    value=question.find,
                    debounce=300,
                    w={"base": "100%", "xs": 320},
                    inputProps={"aria-label": "Search videos"},
                ),
                dmc.Switch(id="explore-confused", label="Confused only", checked=question.confused),
                html.Span(id="explore-found", role="status"),
            ],
            mb="sm",
        ),
        dag.AgGrid(
            id="explore-grid",
            rowModelType="infinite",
            columnDefs=columns,
            filterModel=question.filter,
            getRowId="params.data.sample",
            columnSize="responsiveSizeToFit",
            defaultColDef={
                "sortable": True,
                "resizable": True,
                "suppressMovable": True,
                "filterParams": {"maxNumConditions": 2, "buttons": ["reset"]},
            },
            dashGridOptions={
                "theme": "themeQuartz",
                "rowSelection": {
                    "mode": "singleRow",
                    "checkboxes": False,
                    "enableClickSelection": True,
                },
                # Arrows go from cell to cell; Tab leaves the table.
                "tabToNextCell": {"function": "false"},
                "tabToNextHeader": {"function": "false"},
                "cacheBlockSize": 100,
                "maxBlocksInCache": 10,
                "rowHeight": 34,
                "headerHeight": 36,
                "animateRows": False,
            },
            style={"width": "100%", "height": "26rem"},
            className="",
        ),
        words="A row shows its video above; a column's menu filters. The arrows above follow "
        "what is found here.",
    )
