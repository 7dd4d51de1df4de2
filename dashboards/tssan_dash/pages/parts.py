"""Pieces that several pages are made of: figures in cards, and tables whose cells are shaded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
from dash import dcc, html
from numpy.typing import NDArray
from plotly.colors import sample_colorscale


def card(title: str, value: str, words: Any = "") -> dmc.Paper:
    """Return one figure of a page's first row: what it is, the figure, and a word about it."""
    return dmc.Paper(
        [
            dmc.Text(title, size="sm", c="dimmed"),
            dmc.Text(value, fz=28, fw=600, lh=1.3),
            dmc.Text(words, size="sm", c="dimmed", mih=20),
        ],
        withBorder=True,
        p="md",
    )


def section(title: str, *content: Any, words: str = "", **props: Any) -> dmc.Paper:
    """Return a framed part of a page under its heading."""
    return dmc.Paper(
        [
            dmc.Title(title, order=2, size="h5", mb=4 if words else "sm"),
            *([dmc.Text(words, size="sm", c="dimmed", mb="md")] if words else []),
            *content,
        ],
        withBorder=True,
        p="lg",
        **props,
    )


def shades(values: NDArray[np.floating]) -> list[tuple[str, str] | None]:
    """Return a background and a readable ink for each value, from the least to the greatest.

    Parameters
    ----------
    values
        Any shape, read in C order; NaN has no shade.

    Returns
    -------
    list of (str, str) or None
        CSS colours of viridis and, upon it, black or white, whichever has more contrast (WCAG 2).
    """
    flat = np.asarray(values, float).ravel()
    known = np.isfinite(flat)
    if not known.any():
        return [None] * len(flat)
    low, high = flat[known].min(), flat[known].max()
    places = np.where(known, (flat - low) / (high - low) if high > low else 0.5, 0.0)
    colours = sample_colorscale("Viridis", places.tolist())
    return [(c, _ink(c)) if there else None for c, there in zip(colours, known, strict=True)]


def _ink(background: str) -> str:
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", background)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#fff"


def shaded_table(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    corner: str,
    form: str,
    label: Callable[[int, int], str],
    address: Callable[[int, int], str] | None = None,
    id: str,
    name: str = "",
) -> html.Div:
    """Return numbers as a table whose cells are shaded by them.

    Parameters
    ----------
    values
        (rows, columns); NaN leaves a cell empty.
    rows, columns
        Their names, shown as text.
    corner
        What the names are, in the upper left cell.
    form
        How a number is written, such as ``.2f``.
    label
        What a cell is, by its row and column, for a tool-tip and who cannot see it.
    address
        Where a click on a cell leads, by its row and column.
    id
        The table's id.
    name
        What the table is called to who cannot see it; by default its id.
    """
    colours = shades(values)
    n = values.shape[1]

    def cell(row: int, column: int) -> html.Td:
        value, colour = float(values[row, column]), colours[row * n + column]
        if colour is None or not math.isfinite(value):
            return html.Td("", style={"minWidth": 44, "height": 36})
        look = {
            "display": "block",
            "minWidth": 44,
            "padding": "8px 4px",
            "textAlign": "center",
            "textDecoration": "none",
            "borderRadius": 4,
            "fontVariantNumeric": "tabular-nums",
            "fontSize": 13,
            "background": colour[0],
            "color": colour[1],
        }
        words = f"{label(row, column)}: {value:{form}}"
        text = f"{value:{form}}"
        if address is None:
            return html.Td(html.Span(text, style=look, title=words))
        return html.Td(
            dcc.Link(
                html.Span(text, style=look),
                href=address(row, column),
                title=words,
                style={"textDecoration": "none"},
            )
        )

    named: dict[str, object] = {
        "fontWeight": 500,
        "fontSize": 13,
        "padding": "2px 8px",
        "whiteSpace": "nowrap",
    }
    above = named
    if max(map(len, columns), default=0) > 4:
        # Names of classes: broken, so that all columns are of one width.
        above = {
            **named,
            "whiteSpace": "normal",
            "overflowWrap": "anywhere",
            "fontSize": 12,
            "minWidth": 80,
            "maxWidth": 80,
            "padding": "2px 4px",
            "verticalAlign": "bottom",
        }
    head = html.Tr(
        [html.Th(corner, scope="col", style={**named, "textAlign": "left"})]
        + [html.Th(c, scope="col", style=above) for c in columns]
    )
    body = [
        html.Tr(
            [html.Th(r, scope="row", style={**named, "textAlign": "left"})]
            + [cell(i, j) for j in range(n)]
        )
        for i, r in enumerate(rows)
    ]
    table = html.Table(
        [html.Thead(head), html.Tbody(body)],
        id=id,
        style={"borderCollapse": "separate", "borderSpacing": 3},
    )
    return scrolling(table, name=name or id.replace("-", " "), height=760)


def head_grid(
    table: pd.DataFrame,
    columns: Sequence[tuple[str, str, str, str]],
    *,
    selected: str | None = None,
    id: str,
) -> dag.AgGrid:
    """Return a table of numbers with a line per layer and head, which can be sorted.

    Parameters
    ----------
    table
        ``layer``, ``head`` and further numbers.
    columns
        Of each column its name in `table`, its title, how it is written (``.4f``; ``d`` for those
        that stay at the left), and what it is.
    selected
        ``layer-head`` of the line that is chosen.
    id
        The table's id.
    """
    names = [name for name, *_ in columns]
    rows = [
        {
            "key": f"{int(row['layer'])}-{int(row['head'])}",
            **{name: None if pd.isna(row[name]) else row[name] for name in names},
        }
        for row in table.to_dict("records")
    ]
    shown = [
        {
            "field": field,
            "headerName": title,
            "headerTooltip": words,
            "type": "rightAligned",
            "minWidth": 68 if form == "d" else 84,
            **({"pinned": "left", "lockPinned": True} if form == "d" else {}),
            "valueFormatter": {
                "function": f"params.value == null ? '–' : d3.format('{form}')(params.value)"
            },
        }
        for field, title, form, words in columns
    ]
    # As high as its lines and the bar below them; beyond twenty it scrolls.
    height = 36 + 34 * min(len(rows), 20) + 18
    return dag.AgGrid(
        id=id,
        rowData=rows,
        columnDefs=shown,
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
            # Arrows go from cell to cell; Tab leaves the table.
            "tabToNextCell": {"function": "false"},
            "tabToNextHeader": {"function": "false"},
            "tooltipShowDelay": 300,
            "animateRows": False,
        },
        style={"width": "100%", "height": height},
        className="",
    )


def scrolling(content: Any, *, name: str, height: int = 480) -> html.Div:
    """Return something that scrolls where it is too large, also from the keyboard."""
    named: dict[str, Any] = {"role": "region", "aria-label": name}
    look = {"overflow": "auto", "maxHeight": height, "maxWidth": "100%"}
    return html.Div(content, style=look, tabIndex=0, **named)


def colour_bar(low: float, high: float, even: float | None, name: str) -> dmc.Group:
    """Return the scale of small maps, with a mark at even attention where that is on it."""
    stops = ", ".join(sample_colorscale("Viridis", [i / 16 for i in range(17)]))
    bar: dict[str, Any] = {
        "position": "relative",
        "width": 160,
        "height": 12,
        "background": f"linear-gradient(to right, {stops})",
    }
    mark = {
        "position": "absolute",
        "left": f"{100 * ((even or low) - low) / (high - low):.1f}%",
        "top": -3,
        "width": 2,
        "height": 18,
        "marginLeft": -1,
        "background": "currentColor",
    }
    return dmc.Group(
        [
            dmc.Text(name, size="sm"),
            dmc.Group(
                [
                    dmc.Text(f"{low:.3g}", size="sm"),
                    html.Div([] if even is None else html.Div(style=mark), style=bar),
                    dmc.Text(f"{high:.3g}", size="sm"),
                ],
                gap="xs",
                wrap="nowrap",
            ),
            *([] if even is None else [dmc.Text(f"▏even attention {even:.3g}", size="sm")]),
        ],
        gap="xs",
        mb="md",
    )


def small_multiples(
    picture: str,
    there: NDArray[np.bool_],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    corner: str,
    label: Callable[[int, int], str],
    address: Callable[[int, int], str | None] | None,
    shape: tuple[int, int],
    id: str,
) -> html.Div:
    """Return small maps as a table; all of them are parts of one picture.

    Parameters
    ----------
    picture
        Address of the picture: the maps of a row beside each other, the rows under each other.
    there
        (rows, columns); where it is False the cell is empty.
    rows, columns, corner, label, address, id
        As in `shaded_table`; a cell without an address is no link.
    shape
        Queries and keys of a map.
    """
    wide = 64
    tall = min(max(round(wide * shape[0] / shape[1]), 24), 160)

    def cell(row: int, column: int) -> html.Td:
        if not there[row, column]:
            return html.Td("")
        look: dict[str, Any] = {
            "display": "block",
            "width": wide,
            "height": tall,
            "backgroundImage": f"url('{picture}')",
            "backgroundSize": f"{wide * len(columns)}px {tall * len(rows)}px",
            "backgroundPosition": f"-{wide * column}px -{tall * row}px",
            "imageRendering": "pixelated",
        }
        words = label(row, column)
        goal = None if address is None else address(row, column)
        named: dict[str, Any] = {"role": "img", "aria-label": words}
        tile = html.Span(style=look, title=words, **named)
        return html.Td(tile if goal is None else dcc.Link(tile, href=goal), style={"padding": 0})

    name = {"fontWeight": 500, "fontSize": 13, "padding": "2px 8px"}
    side: dict[str, Any] = {
        **name,
        "textAlign": "left",
        "position": "sticky",
        "left": 0,
        "zIndex": 1,
        "minWidth": 72,
        "maxWidth": 160,
        "background": "var(--mantine-color-body)",
    }
    head = html.Tr(
        [html.Th(corner, scope="col", style=side)]
        + [html.Th(c, scope="col", style=name) for c in columns]
    )
    body = [
        html.Tr([html.Th(r, scope="row", style=side)] + [cell(i, j) for j in range(len(columns))])
        for i, r in enumerate(rows)
    ]
    table = html.Table(
        [html.Thead(head), html.Tbody(body)],
        id=id,
        style={"borderCollapse": "separate", "borderSpacing": 3},
    )
    return scrolling(table, name=id.replace("-", " "), height=960)
