"""What is taken away from a page: files, the lines that give the same, and the permanent link."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, State, ctx, dcc
from dash.exceptions import PreventUpdate

from tssan_dash.pages.background import HIDDEN
from tssan_dash.pages.parts import section
from tssan_dash.recordings import Recordings
from tssan_viz.errors import UserError


def register(
    app: Dash,
    recordings: Recordings,
    name: str,
    endings: Sequence[str],
    job: Callable[..., dict[str, str]],
    question: Sequence[State],
    wish: Callable[..., dict[str, Any]],
    numbers: Callable[[dict[str, Any]], tuple[str, pd.DataFrame]],
) -> None:
    """Add the callbacks of `section_of_files`.

    Parameters
    ----------
    app, recordings
        As a page's `register` has them.
    name
        What the ids of its parts begin with.
    endings
        Of the files that the page writes beside the numbers (``csv``); each is written by `job` in
        a process of its own.
    job
        What `tssan_dash.work` runs; it is given the wish with an ``ending``, keeps the bytes, and
        returns their ``key`` and ``name``.
    question
        What of the page the wish is made of.
    wish
        Makes the wish of the values of `question`.
    numbers
        Gives the numbers behind the page for a wish, and the name of their file without its ending.
    """

    @app.callback(
        Output(f"{name}-export-wish", "data"),
        *[Input(f"{name}-save-{ending}", "n_clicks") for ending in endings],
        *question,
        prevent_initial_call=True,
    )
    def begin(*given: Any) -> dict[str, Any]:
        clicks, values = given[: len(endings)], given[len(endings) :]
        if not any(clicks):
            raise PreventUpdate
        ending = str(ctx.triggered_id).removeprefix(f"{name}-save-")
        return wish(*values) | {"ending": ending, "nonce": secrets.token_hex(8)}

    app.callback(
        Output(f"{name}-exported", "data"),
        Input(f"{name}-export-wish", "data"),
        background=True,
        manager=recordings.jobs,
        interval=300,
        running=[
            (Output(f"{name}-writing", "style"), {}, HIDDEN),
            *[(Output(f"{name}-save-{ending}", "disabled"), True, False) for ending in endings],
        ],
        prevent_initial_call=True,
    )(job)

    @app.callback(
        Output(f"{name}-download", "data"),
        Input(f"{name}-exported", "data"),
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
        Output(f"{name}-download", "data", allow_duplicate=True),
        Input(f"{name}-save-csv", "n_clicks"),
        *question,
        prevent_initial_call=True,
    )
    def table(clicks: int | None, *values: Any) -> dict[str, Any]:
        if not clicks:
            raise PreventUpdate
        stem, found = numbers(wish(*values))
        return {"content": found.to_csv(index=False), "filename": f"{stem}.csv"}


def section_of_files(
    name: str,
    files: Mapping[str, str],
    *,
    python: str,
    command: str,
    link: str,
    words: str = "",
    folded: bool = False,
    missing: Collection[str] = (),
) -> dmc.Paper:
    """Return the part of a page from which things are taken away.

    Parameters
    ----------
    name
        What the ids of its parts begin with: ``name-save-ENDING``, ``name-python``,
        ``name-command``, ``name-link``.
    files
        What each button says, by the ending of its file.
    python, command
        Lines that give the same.
    link
        The address of the page as it is shown.
    words
        What the files show.
    missing
        Endings of files for which there is nothing to write: their buttons are not shown.
    folded
        Whether it is shown after a click only: the value of ``name-taking`` is then ``open``.
    """

    def code(title: str, text: str, kind: str) -> dmc.Stack:
        return dmc.Stack(
            [
                dmc.Group(
                    [
                        dmc.Text(title, size="sm", fw=500),
                        dcc.Clipboard(target_id=f"{name}-{kind}", title=f"Copy: {title}"),
                    ],
                    gap="xs",
                ),
                dmc.Code(text, block=True, id=f"{name}-{kind}"),
            ],
            gap=4,
        )

    content = [
        dcc.Store(id=f"{name}-export-wish"),
        dcc.Store(id=f"{name}-exported"),
        dcc.Download(id=f"{name}-download"),
        dmc.Group(
            [
                *[
                    dmc.Button(
                        says,
                        id=f"{name}-save-{ending}",
                        variant="default",
                        size="xs",
                        display="none" if ending in missing else None,
                    )
                    for ending, says in {**files, "csv": "Numbers (CSV)"}.items()
                ],
                dmc.Anchor("Permanent link", href=link, id=f"{name}-link", size="sm"),
                dmc.Group(
                    [dmc.Loader(size="xs"), dmc.Text("Writing …", size="sm")],
                    id=f"{name}-writing",
                    gap="xs",
                    style=HIDDEN,
                ),
            ],
            gap="xs",
            mb="md",
        ),
        dmc.Stack(
            [
                code("The same in Python", python, "python"),
                code("The same from a shell", command, "command"),
            ]
        ),
    ]
    if not folded:
        return section("Take it away", *content, words=words, id=f"{name}-export")
    return dmc.Paper(
        dmc.Accordion(
            dmc.AccordionItem(
                [
                    dmc.AccordionControl(dmc.Title("Take it away", order=2, size="h5"), px="lg"),
                    dmc.AccordionPanel(
                        [dmc.Text(words, size="sm", c="dimmed", mb="md"), *content], px="xs"
                    ),
                ],
                value="open",
            ),
            id=f"{name}-taking",
            styles={"item": {"borderBottom": "none"}},
        ),
        withBorder=True,
        id=f"{name}-export",
    )
