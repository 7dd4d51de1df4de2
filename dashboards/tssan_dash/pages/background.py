"""What takes long: begun where its answer is not there yet, with a bar, and it can be ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from tssan_dash.head_findings import HeadFindings, key_of
from tssan_dash.pages import alert
from tssan_dash.recordings import Recordings
from tssan_viz.errors import UserError

HIDDEN = {"display": "none"}


class NotYet(UserError):
    """An answer that has not been worked out, or not of what the store holds now."""

    def __init__(self) -> None:
        super().__init__("The store has changed since this page was opened: reload the page.")


def register(
    app: Dash,
    recordings: Recordings,
    name: str,
    job: Callable[..., dict[str, str]],
    show: Callable[[dict[str, Any]], Any],
    first: Callable[[dict[str, Any]], Any] = lambda _: no_update,
) -> None:
    """Add the callbacks of one question that a page asks.

    Parameters
    ----------
    app, recordings
        As a page's `register` has them.
    name
        What the ids of its parts begin with, as in `frame`.
    job
        What `tssan_dash.work` runs; it is given the question, and keeps the answer.
    show
        Makes of a question what the page shows of its answer; `NotYet` where there is none.
    first
        What the page shows of a question while its answer is worked out; by default what is there.
    """

    @app.callback(
        Output(f"{name}-result", "children"),
        Output(f"{name}-wish", "data"),
        Input(f"{name}-question", "data"),
    )
    def begin(question: dict[str, Any] | None) -> tuple[Any, Any]:
        if question is None:
            raise PreventUpdate
        try:
            return show(question), no_update
        except NotYet:
            return first(question), question
        except UserError as error:
            return alert(str(error)), no_update

    app.callback(
        Output(f"{name}-found", "data"),
        Input(f"{name}-wish", "data"),
        background=True,
        manager=recordings.jobs,
        interval=300,
        running=[(Output(f"{name}-working", "style"), {}, HIDDEN)],
        progress=[Output(f"{name}-bar", "value"), Output(f"{name}-doing", "children")],
        cancel=[Input(f"{name}-cancel", "n_clicks")],
        prevent_initial_call=True,
    )(job)

    @app.callback(
        Output(f"{name}-result", "children", allow_duplicate=True),
        Input(f"{name}-found", "data"),
        Input(f"{name}-cancel", "n_clicks"),
        State(f"{name}-question", "data"),
        prevent_initial_call=True,
    )
    def finish(found: dict[str, str] | None, _: int | None, question: dict[str, Any]) -> Any:
        if ctx.triggered_id == f"{name}-cancel":
            return alert(
                "Ask something else above, or reload the page to ask the same again.",
                title="Cancelled",
                color="gray",
            )
        if not found:
            raise PreventUpdate
        if "error" in found:
            return alert(found["error"])
        try:
            return show(question)
        except UserError as error:
            return alert(str(error))


def frame(name: str, question: dict[str, Any] | None, words: str, *, height: str = "12rem") -> Any:
    """Return the place where a question's answer is shown, with its bar until it is there.

    Parameters
    ----------
    name
        As in `register`.
    question
        Plain values; None: nothing is asked yet.
    words
        What is said beside the bar before anything is reported.
    height
        Kept free for the answer until it is there, as CSS has it.
    """
    # Two pages that ask the same at the same time each get an answer.
    asked = None if question is None else question | {"nonce": secrets.token_hex(8)}
    return html.Div(
        [
            dcc.Store(id=f"{name}-question", data=asked),
            dcc.Store(id=f"{name}-wish"),
            dcc.Store(id=f"{name}-found"),
            dmc.Paper(
                [
                    dmc.Group(
                        [
                            dmc.Text(words, id=f"{name}-doing"),
                            dmc.Button(
                                "Cancel", id=f"{name}-cancel", variant="default", size="compact-sm"
                            ),
                        ],
                        justify="space-between",
                        mb="sm",
                    ),
                    dmc.Progress(
                        id=f"{name}-bar", value=2, animated=True, **{"aria-label": "Progress"}
                    ),
                ],
                id=f"{name}-working",
                withBorder=True,
                p="lg",
                style=HIDDEN,
            ),
            html.Div(html.Div(style={"minHeight": height}), id=f"{name}-result"),
        ]
    )


def findings(recordings: Recordings, run: str) -> HeadFindings:
    """Return what was found about all heads; `NotYet` where it was not worked out."""
    answer = recordings.jobs.answer(key_of(recordings.store, run))
    if not isinstance(answer, HeadFindings):
        raise NotYet
    return answer
