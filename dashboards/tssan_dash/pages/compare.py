"""The page on which a class is compared with the others, or with one other."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

import dash
import dash_ag_grid as dag
import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.bridge import View
from tssan_dash.pages import alias_filter, class_options, go_to, in_words, one
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import buffer_url, module_url
from tssan_viz.comparison import ClassComparison
from tssan_viz.errors import UserError

_COLUMNS = [
    ("layer", "Layer", "d", "counted from 1"),
    ("head", "Head", "d", "counted from 1"),
    ("W", "W", ".4f", "mean similarity of two subjects' maps within the class"),
    ("B", "B", ".4f", "mean similarity of two subjects' maps between the classes"),
    ("delta", "Δ", ".4f", "W − B: how much more alike the class is within than between"),
    ("low", "Δ from", ".4f", "lower end of Δ's interval (jackknife over subjects)"),
    ("high", "Δ to", ".4f", "upper end of Δ's interval (jackknife over subjects)"),
    ("hedges_g", "g", ".2f", "Hedges' g of the difference over subjects"),
    ("p", "p", ".4f", "permutation p of this head alone"),
    ("p_max_t", "p max-T", ".4f", "p corrected for all layers and heads (max-T)"),
    ("q", "q", ".4f", "false discovery rate over all layers and heads"),
]


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/compare",
        name="Compare",
        title="Compare · tssan-viz",
        layout=layout,
        order=2,
    )

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("compare-class", "value"),
        Input("compare-with", "value"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def choose(
        label: str | None, with_label: str | None, question: dict[str, Any]
    ) -> dict[str, Any]:
        asked = (_number(label), _number(with_label))
        if asked[0] is None or asked == (question["label"], question["with_label"]):
            raise PreventUpdate
        # A class is not compared with itself: choosing the one it is compared with drops the other.
        other = asked[1] if asked[1] != asked[0] else None
        return go_to(_query(recordings, question["run"], asked[0], other))

    @app.callback(Output("compare-result", "children"), Input("compare-question", "data"))
    @in_words
    def answer(question: dict[str, Any]) -> Any:
        return _result(recordings, question)

    @app.callback(
        Output("compare-maps", "values"),
        Output("compare-maps", "buffers"),
        Output("compare-maps-title", "children"),
        Input("compare-table", "selectedRows"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def show_row(rows: list[dict[str, Any]] | None, question: dict[str, Any]) -> tuple[Any, ...]:
        if not rows:
            raise PreventUpdate
        return _maps(recordings, question, int(rows[0]["layer"]), int(rows[0]["head"]))

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "keepRowInAddress"),
        Input("compare-table", "selectedRows"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )


def _number(text: str | None) -> int | None:
    return None if text is None or text == "" else int(text)


def _query(recordings: Recordings, run: str, label: int, with_label: int | None) -> dict[str, str]:
    catalogue = recordings.catalogue(run)
    query = {"class": catalogue.resolve(label).name}
    if with_label is not None:
        query["with"] = catalogue.resolve(with_label).name
    if len(recordings.runs()) > 1:
        query = {"run": run, **query}
    return query


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    run = recordings.run(one(query, "run"))
    catalogue = recordings.catalogue(run)
    classes = recordings.classes(run)
    if not classes:
        raise UserError(f"The run {run!r} was recorded without class names: nothing to compare.")
    asked, other = one(query, "class"), one(query, "with")
    label = classes[0].label if asked is None else catalogue.resolve(asked).label
    with_label = None if other is None else catalogue.resolve(other).label
    question = {
        "run": run,
        "label": label,
        "with_label": with_label,
        "layer": one(query, "layer"),
        "head": one(query, "head"),
        "query": _query(recordings, run, label, with_label),
    }
    return dmc.Stack(
        [
            dcc.Store(id="compare-question", data=question),
            dmc.Group(
                [
                    dmc.Select(
                        id="compare-class",
                        label="Class",
                        data=class_options(classes),
                        filter=alias_filter(classes),
                        value=str(label),
                        searchable=True,
                        allowDeselect=False,
                        nothingFoundMessage="No class of this name was recorded",
                        w={"base": "100%", "xs": 250},
                    ),
                    dmc.Select(
                        id="compare-with",
                        label="Compared with",
                        data=[o for o in class_options(classes) if o["value"] != str(label)],
                        filter=alias_filter(classes),
                        value=None if with_label is None else str(with_label),
                        placeholder="every other class",
                        searchable=True,
                        clearable=True,
                        nothingFoundMessage="No class of this name was recorded",
                        w={"base": "100%", "xs": 250},
                    ),
                ],
                gap="sm",
                align="flex-end",
            ),
            dcc.Loading(
                html.Div(id="compare-result", style={"minHeight": "12rem"}),
                custom_spinner=dmc.Group(
                    [dmc.Loader(size="sm"), dmc.Text("Comparing the subjects' maps …", c="dimmed")]
                ),
                delay_show=150,
                show_initially=True,
            ),
        ],
        gap="md",
    )


def _result(recordings: Recordings, question: dict[str, Any]) -> Any:
    run, label, with_label = question["run"], question["label"], question["with_label"]
    comparison = recordings.comparison(run, label, with_label)
    table = comparison.table.copy()
    table["key"] = table["layer"].astype(str) + "-" + table["head"].astype(str)
    shown = table.sort_values(["p_max_t", "delta"], ascending=[True, False]).iloc[0]
    if question["layer"] is not None or question["head"] is not None:
        wanted = table[table["key"] == f"{question['layer']}-{question['head']}"]
        if wanted.empty:
            raise UserError(
                f"The run {run!r} has no head {question['head']} in a layer {question['layer']}."
            )
        shown = wanted.iloc[0]
    values, buffers, title = _maps(recordings, question, int(shown["layer"]), int(shown["head"]))
    return dmc.Stack(
        [
            _summary(comparison),
            dmc.Paper(
                [
                    dmc.Title(title, id="compare-maps-title", order=2, size="h5", mb="sm"),
                    View(
                        id="compare-maps",
                        module=module_url(),
                        values=values,
                        buffers=buffers,
                        label="Mean maps and their difference",
                    ),
                ],
                withBorder=True,
                p="md",
            ),
            dmc.Paper(
                [
                    dmc.Title("Every layer and head", order=2, size="h5"),
                    dmc.Text("A row shows its maps above.", size="sm", c="dimmed", mb="sm"),
                    _grid(table, str(shown["key"])),
                ],
                withBorder=True,
                p="md",
            ),
            _neighbours(recordings, run, label),
        ],
        gap="md",
    )


def _maps(
    recordings: Recordings, question: dict[str, Any], layer: int, head: int
) -> tuple[dict[str, Any], dict[str, str], str]:
    keys = {name: question[name] for name in ("run", "label", "with_label")}
    payload = recordings.mean_maps(**keys, layer=layer, head=head)
    return (
        {"manifest": payload.manifest},
        {
            name: buffer_url(data, **keys, layer=layer, head=head)
            for name, data in payload.buffers.items()
        },
        f"Mean maps of layer {layer}, head {head}",
    )


def _summary(comparison: ClassComparison) -> dmc.Paper:
    return dmc.Paper(
        [
            dmc.Group(
                [
                    dmc.Badge(f"{len(comparison.subjects)} subjects", variant="light", tt="none"),
                    dmc.Badge(
                        f"{comparison.n_samples} videos", variant="light", color="gray", tt="none"
                    ),
                ],
                gap="xs",
                mb="xs",
            ),
            *[dmc.Text(sentence, size="sm") for sentence in comparison.summary],
            *[dmc.Text(note, size="sm", c="dimmed") for note in comparison.notes],
        ],
        id="compare-summary",
        withBorder=True,
        p="md",
    )


def _grid(table: pd.DataFrame, selected: str) -> dag.AgGrid:
    names = [name for name, *_ in _COLUMNS]
    rows = [
        {"key": row["key"], **{n: None if _missing(row[n]) else row[n] for n in names}}
        for row in table.to_dict("records")
    ]
    columns = [
        {
            "field": field,
            "headerName": title,
            "headerTooltip": words,
            "type": "rightAligned",
            "minWidth": 84,
            "pinned": "left" if form == "d" else None,
            "valueFormatter": {
                "function": f"params.value == null ? '–' : d3.format('{form}')(params.value)"
            },
        }
        for field, title, form, words in _COLUMNS
    ]
    return dag.AgGrid(
        id="compare-table",
        rowData=rows,
        columnDefs=columns,
        getRowId="params.data.key",
        selectedRows={"ids": [selected]},
        scrollTo={"rowId": selected, "rowPosition": "middle"},
        columnSize="responsiveSizeToFit",
        defaultColDef={"sortable": True, "resizable": True, "suppressMovable": True},
        dashGridOptions={
            "theme": "themeQuartz",
            "rowSelection": {
                "mode": "singleRow",
                "checkboxes": False,
                "enableClickSelection": True,
            },
            "rowHeight": 34,
            "headerHeight": 36,
            "domLayout": "autoHeight" if len(rows) <= 20 else "normal",
            "tooltipShowDelay": 300,
            "animateRows": False,
        },
        style={"width": "100%", **({} if len(rows) <= 20 else {"height": "32rem"})},
        className="",
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _neighbours(recordings: Recordings, run: str, label: int) -> dmc.Paper:
    # Among all classes, also while two of them are compared.
    neighbours = recordings.comparison(run, label, None).neighbours
    catalogue = recordings.catalogue(run)

    def line(name: str, similarity: float) -> dmc.Group:
        entry = catalogue.resolve(name)
        query = urlencode(_query(recordings, run, label, entry.label))
        address = f"{dash.get_relative_path('/compare')}?{query}"
        return dmc.Group(
            [
                dmc.Anchor(str(entry), href=address, size="sm"),
                dmc.Text(f"{similarity:.4f}", size="sm", c="dimmed"),
            ],
            justify="space-between",
            wrap="nowrap",
        )

    def lines(part: pd.DataFrame) -> list[dmc.Group]:
        return [line(*pair) for pair in part[["class_name", "similarity"]].to_numpy()]

    columns = [("The other classes, nearest first", neighbours)]
    if len(neighbours) > 5:
        nearest, farthest = neighbours.head(5), neighbours.tail(5)[::-1]
        columns = [("Nearest classes", nearest), ("Farthest classes", farthest)]
    return dmc.Paper(
        dmc.SimpleGrid(
            [
                dmc.Stack([dmc.Title(title, order=2, size="h5"), *lines(part)], gap=6)
                for title, part in columns
            ],
            cols={"base": 1, "sm": len(columns)},
            spacing="xl",
        ),
        id="compare-neighbours",
        withBorder=True,
        p="md",
        maw=None if len(columns) > 1 else 480,
    )
