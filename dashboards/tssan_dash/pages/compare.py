"""The page on which classes or groups are compared, and the answer taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate

from tssan_dash.asked import Asked, asked_in, readable
from tssan_dash.comparing import FILES, compare_job, export_job
from tssan_dash.pages import background, files, go_to, in_words
from tssan_dash.pages.compare_answer import answer_of, known_already, shown
from tssan_dash.pages.compare_form import FORM, first_group, first_groups, form
from tssan_dash.pages.missing import too_little_said
from tssan_dash.recordings import Recordings, current


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
        *[Input(f"compare-{name}", "value") for name in FORM],
        State("compare-question", "data"),
        prevent_initial_call=True,
    )
    def choose(*given: Any) -> dict[str, Any]:
        *values, question = given
        old = question["shown"]
        wish = {name: _said(value) for name, value in zip(FORM, values, strict=True)}
        wish = {name: value for name, value in wish.items() if value and value != "classes"}
        if wish == {name: value for name, value in old.items() if name in FORM}:
            raise PreventUpdate
        if wish.get("by") != old.get("by"):
            wish = {name: value for name, value in wish.items() if name not in ("a", "b", "with")}
            if "by" in wish:
                wish.pop("class", None)
                wish |= first_group(recordings, question["run"], wish["by"])
        # A class is not compared with itself: choosing the one it is compared with drops the other.
        if wish.get("with") == wish.get("class"):
            wish.pop("with", None)
        return go_to(({"run": old["run"]} if "run" in old else {}) | wish)

    def show(question: dict[str, Any]) -> Any:
        asked = _asked(recordings, question)
        return shown(recordings, asked, answer_of(recordings, asked), question["place"])

    def first(question: dict[str, Any]) -> Any:
        found = known_already(recordings, _asked(recordings, question))
        return no_update if found is None else found

    background.register(app, recordings, "compare", compare_job, show, first)

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
    files.register(
        app,
        recordings,
        "compare",
        tuple(FILES),
        export_job,
        [State("compare-question", "data")],
        lambda question: question,
        lambda question: (
            "comparison",
            answer_of(recordings, _asked(recordings, question)).table,
        ),
    )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value).strip()


def _asked(recordings: Recordings, question: dict[str, Any]) -> Asked:
    return asked_in(Asked.of, recordings.store, question)


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    given = {name: str(v[-1] if isinstance(v, list) else v) for name, v in query.items() if v}
    run = recordings.run(given.get("run"))
    missing = too_little_said(recordings, run)
    if missing is not None:
        return missing
    if not (recordings.classes(run) or "by" in given):
        given |= first_groups(recordings, run)
    asked, wrong = readable(Asked.of, recordings.store, run, given)
    if "class" in wrong:
        asked = replace(asked, class_name=None)
    on_the_form = asked.query()
    if len(recordings.runs()) == 1:
        del on_the_form["run"]
    question = {
        "run": run,
        # What cannot be read stays in the question, whose answer is then the complaint.
        "query": on_the_form | {name: given[name] for name in wrong},
        "shown": on_the_form,
        "place": {name: given[name] for name in ("layer", "head") if name in given},
    }
    return dmc.Stack(
        [
            form(recordings, asked),
            background.frame("compare", question, "Comparing the subjects' maps …"),
        ],
        gap="md",
    )
