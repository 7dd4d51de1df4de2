"""The page on which classes or groups are compared, and the answer taken away."""

from __future__ import annotations

import base64
import math
import secrets
from typing import Any
from urllib.parse import urlencode

import dash
import dash_ag_grid as dag
import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from tssan_dash.asked import GROUPED, Asked
from tssan_dash.bridge import View
from tssan_dash.comparing import FILES, Answer, compare_job, export_job, key_of
from tssan_dash.pages import alert, alias_filter, class_options, go_to, in_words
from tssan_dash.pages.parts import section, shaded_table
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import buffer_url, module_url
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


# What the form asks, in the order of its parameters in the address.
_FORM = ("by", "class", "with", "a", "b", "subjects", "cameras", "correct", "step", "where")
_HIDDEN = {"display": "none"}
# Beyond so many classes the matrix is a picture instead of a table with links.
_MOST_LINKED = 20


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
        *[Input(f"compare-{name}", "value") for name in _FORM],
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def choose(*given: Any) -> dict[str, Any]:
        *values, question = given
        old = question["query"]
        wish = {name: _said(value) for name, value in zip(_FORM, values, strict=True)}
        wish = {name: value for name, value in wish.items() if value and value != "classes"}
        if wish == {name: value for name, value in old.items() if name in _FORM}:
            raise PreventUpdate
        if wish.get("by") != old.get("by"):
            wish = {name: value for name, value in wish.items() if name not in ("a", "b", "with")}
            if "by" in wish:
                wish.pop("class", None)
                wish |= _first_group(recordings, question["run"], wish["by"])
        # A class is not compared with itself: choosing the one it is compared with drops the other.
        if wish.get("with") == wish.get("class"):
            wish.pop("with", None)
        return go_to(({"run": old["run"]} if "run" in old else {}) | wish)

    @app.callback(
        Output("compare-result", "children"),
        Output("compare-wish", "data"),
        Input("compare-question", "data"),
    )
    def begin(question: dict[str, Any]) -> tuple[Any, Any]:
        try:
            asked = _asked(recordings, question)
        except UserError as error:
            return alert(str(error)), no_update
        if recordings.jobs.answer(key_of(recordings.store, asked)) is None:
            return None, question
        return _result(recordings, question), no_update

    app.callback(
        Output("compare-found", "data"),
        Input("compare-wish", "data"),
        background=True,
        manager=recordings.jobs,
        interval=300,
        running=[(Output("compare-working", "style"), {}, _HIDDEN)],
        progress=[Output("compare-bar", "value"), Output("compare-doing", "children")],
        cancel=[Input("compare-cancel", "n_clicks")],
        prevent_initial_call=True,
    )(compare_job)

    @app.callback(
        Output("compare-result", "children", allow_duplicate=True),
        Input("compare-found", "data"),
        Input("compare-cancel", "n_clicks"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def show(found: dict[str, str] | None, _: int | None, question: dict[str, Any]) -> Any:
        if ctx.triggered_id == "compare-cancel":
            return alert(
                "Ask something else above, or reload the page to ask the same again.",
                title="Cancelled",
                color="gray",
            )
        if not found:
            raise PreventUpdate
        return alert(found["error"]) if "error" in found else _result(recordings, question)

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "showRow"),
        Output("compare-maps", "state"),
        Input("compare-table", "selectedRows"),
        State("compare-maps", "state"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("tssan_dash", "keepHeadInAddress"),
        Input("compare-maps", "state"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    _register_export(app, recordings)


def _register_export(app: Dash, recordings: Recordings) -> None:
    @app.callback(
        Output("compare-export-wish", "data"),
        *[Input(f"compare-save-{ending}", "n_clicks") for ending in FILES],
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def wish(*given: Any) -> dict[str, Any]:
        *clicks, question = given
        if not any(clicks):
            raise PreventUpdate
        ending = str(ctx.triggered_id).removeprefix("compare-save-")
        return question | {"ending": ending, "nonce": secrets.token_hex(8)}

    app.callback(
        Output("compare-exported", "data"),
        Input("compare-export-wish", "data"),
        background=True,
        manager=recordings.jobs,
        interval=300,
        running=[
            (Output("compare-writing", "style"), {}, _HIDDEN),
            *[(Output(f"compare-save-{ending}", "disabled"), True, False) for ending in FILES],
        ],
        prevent_initial_call=True,
    )(export_job)

    @app.callback(
        Output("compare-download", "data"),
        Input("compare-exported", "data"),
        prevent_initial_call=True,
    )
    def download(written: dict[str, str] | None) -> dict[str, Any]:
        if not written:
            raise PreventUpdate
        if "error" in written:
            raise UserError(written["error"])
        data = recordings.jobs.answer(written["key"])
        if not isinstance(data, bytes):
            raise UserError("The file is no longer there: ask for it again.")
        return {
            "content": base64.b64encode(data).decode(),
            "filename": written["name"],
            "base64": True,
        }

    @app.callback(
        Output("compare-download", "data", allow_duplicate=True),
        Input("compare-save-csv", "n_clicks"),
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def table(clicks: int | None, question: dict[str, Any]) -> dict[str, Any]:
        if not clicks:
            raise PreventUpdate
        answer = _answer(recordings, _asked(recordings, question))
        return {"content": answer.table.to_csv(index=False), "filename": "comparison.csv"}


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value).strip()


def _asked(recordings: Recordings, question: dict[str, Any]) -> Asked:
    # The question has been in the browser: it is read as an address is.
    query = {str(name): str(value) for name, value in question["query"].items()}
    return Asked.of(recordings.store, recordings.run(query.get("run")), query)


def _answer(recordings: Recordings, asked: Asked) -> Answer:
    answer = recordings.jobs.answer(key_of(recordings.store, asked))
    if not isinstance(answer, Answer):
        raise UserError("The store has changed since this page was opened: reload the page.")
    return answer


def _values(recordings: Recordings, run: str, column: str) -> list[str]:
    values = recordings.store.rows(run)[column].dropna().unique().tolist()
    if column == "correct":
        return [str(bool(value)).lower() for value in sorted(values, reverse=True)]
    return [str(value) for value in sorted(values)]


def _first_group(recordings: Recordings, run: str, by: str) -> dict[str, str]:
    values = _values(recordings, run, by)
    # Single subjects are not tested, so that the first half of them is a beginning.
    return {"a": ",".join(values[: max(1, len(values) // 2)] if by == "subject" else values[:1])}


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    given = {name: str(v[-1] if isinstance(v, list) else v) for name, v in query.items() if v}
    run = recordings.run(given.get("run"))
    asked = Asked.of(recordings.store, run, given)
    kept = asked.query()
    if len(recordings.runs()) == 1:
        del kept["run"]
    question = {
        "run": run,
        "query": kept,
        "place": {name: given[name] for name in ("layer", "head") if name in given},
        # Two pages that ask the same at the same time each get an answer.
        "nonce": secrets.token_hex(8),
    }
    return dmc.Stack(
        [
            dcc.Store(id="compare-question", data=question),
            dcc.Store(id="compare-wish"),
            dcc.Store(id="compare-found"),
            dcc.Store(id="compare-export-wish"),
            dcc.Store(id="compare-exported"),
            dcc.Download(id="compare-download"),
            _form(recordings, asked),
            dmc.Paper(
                [
                    dmc.Group(
                        [
                            dmc.Text("Comparing the subjects' maps …", id="compare-doing"),
                            dmc.Button(
                                "Cancel", id="compare-cancel", variant="default", size="compact-sm"
                            ),
                        ],
                        justify="space-between",
                        mb="sm",
                    ),
                    dmc.Progress(
                        id="compare-bar", value=2, animated=True, **{"aria-label": "Progress"}
                    ),
                ],
                id="compare-working",
                withBorder=True,
                p="lg",
                style=_HIDDEN,
            ),
            html.Div(id="compare-result", style={"minHeight": "12rem"}),
        ],
        gap="md",
    )


def _form(recordings: Recordings, asked: Asked) -> dmc.Paper:
    run = asked.run
    classes = recordings.classes(run)
    options = [{**o, "value": c.name} for o, c in zip(class_options(classes), classes, strict=True)]
    words = alias_filter(classes)["options"]["words"]
    find = {
        "function": "tssan_dash.byAlias",
        "options": {"words": {c.name: words[str(c.label)] for c in classes}},
    }
    offered = [by for by in GROUPED if len(_values(recordings, run, by)) > 1 or by == asked.by]
    values = _values(recordings, run, asked.by) if asked.by else []
    wide = {"base": "100%", "xs": 250}
    by_class, by_group = ({}, _HIDDEN) if asked.by is None else (_HIDDEN, {})
    filters = {
        "subjects": [str(s) for s in asked.subjects],
        "cameras": [str(c) for c in asked.cameras],
        "correct": None if asked.correct is None else str(asked.correct).lower(),
        "step": None if asked.step is None else str(asked.step),
        "where": asked.where,
    }
    chosen = sum(bool(value) for value in filters.values())

    def several(name: str, label: str, data: list[str], value: Any, none: str, **p: Any) -> Any:
        return dmc.MultiSelect(
            id=f"compare-{name}",
            label=label,
            data=data,
            value=value,
            placeholder="" if value else none,
            searchable=True,
            clearable=True,
            debounce=700,
            **p,
        )

    return dmc.Paper(
        [
            dmc.Group(
                [
                    dmc.Select(
                        id="compare-by",
                        label="Compare",
                        data=[
                            *([{"value": "classes", "label": "Classes"}] if classes else []),
                            *[{"value": by, "label": GROUPED[by]} for by in offered],
                        ],
                        value=asked.by or "classes",
                        allowDeselect=False,
                        w={"base": "100%", "xs": 160},
                    ),
                    dmc.Select(
                        id="compare-class",
                        label="Class" if asked.by is None else "Of the class",
                        data=options,
                        filter=find,
                        value=asked.class_name,
                        searchable=True,
                        allowDeselect=asked.by is not None,
                        clearable=asked.by is not None,
                        placeholder="all classes",
                        nothingFoundMessage="No class of this name was recorded",
                        w=wide,
                    ),
                    dmc.Select(
                        id="compare-with",
                        label="Compared with",
                        data=[o for o in options if o["value"] != asked.class_name],
                        filter=find,
                        value=asked.with_class,
                        placeholder="every other class",
                        searchable=True,
                        clearable=True,
                        nothingFoundMessage="No class of this name was recorded",
                        w=wide,
                        style=by_class,
                    ),
                    several(
                        "a", "First group", values, list(asked.a), "each", w=wide, style=by_group
                    ),
                    several(
                        "b",
                        "Second group",
                        values,
                        list(asked.b),
                        "all others",
                        w=wide,
                        style=by_group,
                    ),
                ],
                gap="sm",
                align="flex-end",
            ),
            dmc.Accordion(
                dmc.AccordionItem(
                    [
                        dmc.AccordionControl(
                            "Which videos take part"
                            + (f" ({chosen} conditions)" if chosen else ""),
                            px=0,
                        ),
                        dmc.AccordionPanel(
                            dmc.SimpleGrid(
                                [
                                    several(
                                        "subjects",
                                        "Subjects",
                                        _values(recordings, run, "subject"),
                                        filters["subjects"],
                                        "all",
                                    ),
                                    several(
                                        "cameras",
                                        "Cameras",
                                        _values(recordings, run, "camera"),
                                        filters["cameras"],
                                        "all",
                                    ),
                                    dmc.Select(
                                        id="compare-correct",
                                        label="Prediction",
                                        data=[
                                            {"value": "true", "label": "right"},
                                            {"value": "false", "label": "wrong"},
                                        ],
                                        value=filters["correct"],
                                        placeholder="right or wrong",
                                        clearable=True,
                                    ),
                                    dmc.Select(
                                        id="compare-step",
                                        label="Step of training",
                                        data=_values(recordings, run, "step"),
                                        value=filters["step"],
                                        placeholder="as recorded",
                                        clearable=True,
                                    ),
                                    dmc.TextInput(
                                        id="compare-where",
                                        label="Condition",
                                        value=filters["where"],
                                        placeholder="confidence > 0.9",
                                        debounce=True,
                                    ),
                                ],
                                cols={"base": 1, "xs": 2, "md": 5},
                            ),
                        ),
                    ],
                    value="filters",
                ),
                value="filters" if chosen else None,
                variant="default",
                mt="xs",
                styles={"item": {"borderBottom": "none"}, "content": {"paddingInline": 0}},
            ),
        ],
        withBorder=True,
        px="lg",
        pt="md",
        pb=0,
    )


@in_words
def _result(recordings: Recordings, question: dict[str, Any]) -> Any:
    asked = _asked(recordings, question)
    answer = _answer(recordings, asked)
    table = answer.table.copy()
    table["key"] = (
        table["layer"].astype(int).astype(str) + "-" + table["head"].astype(int).astype(str)
    )
    shown = answer.strongest
    place = question["place"]
    if place:
        key = f"{place.get('layer')}-{place.get('head')}"
        if key not in set(table["key"]):
            raise UserError(
                f"The run {asked.run!r} has no head {place.get('head')} in a layer "
                f"{place.get('layer')}."
            )
        shown = (int(place["layer"]), int(place["head"]))
    return dmc.Stack(
        [
            _summary(answer),
            _maps(recordings, asked, answer, shown),
            section(
                "Every layer and head",
                _grid(table, None if shown is None else f"{shown[0]}-{shown[1]}"),
                words="A row shows its maps above.",
            ),
            *_classes(recordings, asked, answer),
            _export(recordings, asked),
        ],
        gap="md",
    )


def _summary(answer: Answer) -> dmc.Paper:
    return dmc.Paper(
        [
            dmc.Group(
                [
                    dmc.Title(answer.title, order=2, size="h4"),
                    dmc.Badge(f"{answer.n_subjects} subjects", variant="light", tt="none"),
                    dmc.Badge(
                        f"{answer.n_samples:,} videos", variant="light", color="gray", tt="none"
                    ),
                ],
                gap="xs",
                mb="xs",
            ),
            *[dmc.Text(sentence, size="sm") for sentence in answer.summary],
            *[dmc.Text(note, size="sm", c="dimmed") for note in answer.notes],
        ],
        id="compare-summary",
        withBorder=True,
        p="lg",
    )


def _maps(
    recordings: Recordings, asked: Asked, answer: Answer, shown: tuple[int, int] | None
) -> dmc.Paper:
    if answer.maps is None:
        return section(
            "Mean maps and their difference",
            *[dmc.Text(note, size="sm", c="dimmed") for note in answer.maps_notes],
        )
    key = key_of(recordings.store, asked)
    layer, head = shown or tuple(answer.maps.manifest["places"][0])
    return section(
        "Mean maps and their difference",
        View(
            id="compare-maps",
            module=module_url(),
            values={"manifest": answer.maps.manifest},
            buffers={
                name: buffer_url(data, answer=key, part=name)
                for name, data in answer.maps.buffers.items()
            },
            state={"layer": layer, "head": head},
            label="Mean maps and their difference",
        ),
        words="Outlined where the difference holds for all cells of all heads together "
        f"(p max-T ≤ {answer.alpha:g}).",
    )


def _grid(table: pd.DataFrame, selected: str | None) -> dag.AgGrid:
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
        selectedRows={"ids": [] if selected is None else [selected]},
        scrollTo=None if selected is None else {"rowId": selected, "rowPosition": "middle"},
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


def _classes(recordings: Recordings, asked: Asked, answer: Answer) -> list[Any]:
    names, similarity = answer.class_names, answer.similarity
    if similarity is None or len(names) < 2:
        return []

    def address(one: str, other: str) -> str:
        query = {**asked.query(), "class": one, "with": other}
        for name in ("by", "a", "b"):
            query.pop(name, None)
        if one == other:
            del query["with"]
        if len(recordings.runs()) == 1:
            del query["run"]
        return f"{dash.get_relative_path('/compare')}?{urlencode(query)}"

    if len(names) <= _MOST_LINKED:
        picture: Any = shaded_table(
            similarity,
            names,
            names,
            corner="",
            form=".2f",
            label=lambda i, j: f"{names[i]} and {names[j]}",
            address=lambda i, j: address(names[i], names[j]),
            id="compare-matrix",
        )
    else:
        payload = answer.matrix
        assert payload is not None
        key = key_of(recordings.store, asked)
        picture = View(
            id="compare-matrix",
            module=module_url(),
            values={"manifest": payload.manifest},
            buffers={"maps": buffer_url(payload.buffers["maps"], answer=key, part="matrix")},
            label="Similarity of every class with every other",
        )
    parts = [
        section(
            "Class × class",
            picture,
            words="How alike the maps of two classes are in two different subjects, over all "
            "heads; on the diagonal a class with itself. Like stands by like.",
        )
    ]
    if asked.by is None and asked.class_name in names:
        parts.append(_neighbours(asked, answer, address))
    return parts


def _neighbours(asked: Asked, answer: Answer, address: Any) -> dmc.Paper:
    assert asked.class_name is not None
    assert answer.similarity is not None
    here = answer.class_names.index(asked.class_name)
    found = [
        (name, float(value))
        for name, value in zip(answer.class_names, answer.similarity[here], strict=True)
        if name != asked.class_name and not math.isnan(value)
    ]
    found.sort(key=lambda pair: -pair[1])

    def lines(part: list[tuple[str, float]]) -> list[Any]:
        return [
            dmc.Group(
                [
                    dmc.Anchor(name, href=address(asked.class_name, name), size="sm"),
                    dmc.Text(f"{similarity:.3f}", size="sm", c="dimmed"),
                ],
                justify="space-between",
                wrap="nowrap",
            )
            for name, similarity in part
        ]

    columns = [("Classes, the nearest first", found)]
    if len(found) > 5:
        columns = [("Nearest classes", found[:5]), ("Farthest classes", found[::-1][:5])]
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
        p="lg",
        maw=None if len(columns) > 1 else 480,
    )


def _export(recordings: Recordings, asked: Asked) -> dmc.Paper:
    def code(title: str, text: str, name: str) -> dmc.Stack:
        return dmc.Stack(
            [
                dmc.Group(
                    [
                        dmc.Text(title, size="sm", fw=500),
                        dcc.Clipboard(content=text, title=f"Copy: {title}"),
                    ],
                    gap="xs",
                ),
                dmc.Code(text, block=True, id=f"compare-{name}"),
            ],
            gap=4,
        )

    link = f"{dash.get_relative_path('/compare')}?{urlencode(asked.query())}"
    buttons = [
        dmc.Button(words, id=f"compare-save-{ending}", variant="default", size="xs")
        for ending, words in {"csv": "Table (CSV)", **FILES}.items()
    ]
    return section(
        "Take it away",
        dmc.Group(
            [
                *buttons,
                dmc.Anchor("Permanent link", href=link, id="compare-link", size="sm"),
                dmc.Group(
                    [dmc.Loader(size="xs"), dmc.Text("Writing …", size="sm")],
                    id="compare-writing",
                    gap="xs",
                    style=_HIDDEN,
                ),
            ],
            gap="xs",
            mb="md",
        ),
        dmc.Stack(
            [
                code("The same numbers in Python", asked.python(recordings.store), "python"),
                code("The same numbers from a shell", asked.command(recordings.store), "command"),
            ]
        ),
        id="compare-export",
    )
