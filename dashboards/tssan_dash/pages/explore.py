"""The page on which one video is looked at: its head view, and the maps of one layer's heads."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tssan_dash.bridge import View
from tssan_dash.filtering import Question
from tssan_dash.pages import alert, chooser, files, in_words, one, videos
from tssan_dash.pages.video import buffer_urls, view_state, views_of
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix, module_url
from tssan_dash.sample_files import FILES, SampleAsked, export_job
from tssan_viz.errors import UserError
from tssan_viz.views.payload import heatmaps_payload

# Beside the others there is the heat map of one head already.
_WITH_MAPS = ("head", "model", "player")
# The pages to which the class of the video that is looked at is carried.
_CARRIED = ("explore", "compare", "subjects")


def register(app: Dash, recordings: Recordings) -> None:
    """Add the page and its callbacks to the app."""
    dash.register_page(
        __name__,
        path="/explore",
        name="Explore",
        title="Explore · tssan-viz",
        layout=layout,
        order=1,
    )

    chooser.register(app, recordings)
    videos.register(app, recordings)

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "chooseView"),
        Output("explore-head", "values"),
        Output("explore-maps-frame", "display"),
        Input("explore-view", "value"),
        State("explore-head", "values"),
        prevent_initial_call=True,
    )

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "followHeadView"),
        Output("explore-maps", "values"),
        Output("explore-maps", "buffers"),
        Output("explore-maps", "state"),
        Output("explore-maps-title", "children"),
        Input("explore-head", "state"),
        State("explore-shown", "data"),
        State("explore-head", "values"),
        State("explore-head", "buffers"),
        State("explore-maps", "values"),
        State("explore-maps", "buffers"),
    )

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "carryClass"),
        *[Output(f"link-{page}", "href", allow_duplicate=True) for page in _CARRIED],
        Input("explore-shown", "data"),
        *[State(f"link-{page}", "href") for page in _CARRIED],
        prevent_initial_call=True,
    )

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "askForLines"),
        Output("explore-lines-wish", "data"),
        Input("explore-taking", "value"),
        Input("explore-maps", "state"),
        Input("explore-view", "value"),
        State("explore-head", "state"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("explore-python", "children"),
        Output("explore-command", "children"),
        Input("explore-lines-wish", "data"),
        State("explore-shown", "data"),
        prevent_initial_call=True,
    )
    def say(wish: dict[str, Any] | None, shown: dict[str, Any]) -> tuple[str, str]:
        if not wish:
            raise PreventUpdate
        asked = SampleAsked.of(recordings.store, _wish(shown, wish["state"], wish["view"]))
        return asked.python(recordings.store), asked.command(recordings.store)

    files.register(
        app,
        recordings,
        "explore",
        tuple(FILES),
        export_job,
        [
            State("explore-shown", "data"),
            State("explore-head", "state"),
            State("explore-view", "value"),
        ],
        _wish,
        lambda wish: (
            str(wish["sample"]),
            SampleAsked.of(recordings.store, wish).numbers(recordings.store),
        ),
    )


def _wish(shown: dict[str, Any], state: dict[str, Any] | None, view: str | None) -> dict[str, Any]:
    """Return what is shown as `SampleAsked.of` reads it."""
    names = ("layer", "heads", "segment", "person")
    return {**shown, **{name: (state or {}).get(name) for name in names}, "view": view}


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    run = recordings.run(one(query, "run"))
    samples = recordings.samples(run)
    if samples.empty:
        raise UserError(f"The run {run!r} holds no video yet.")
    named = one(query, "sample")
    question = videos.asked_in(query)
    of_class = one(query, "class")
    here = 0
    if named is not None:
        here = recordings.position(run, named)
    elif of_class is not None:
        entry = recordings.catalogue(run).resolve(of_class)
        found = samples.index[(samples["label"] == entry.label).fillna(False)]
        if not len(found):
            raise UserError(f"The run {run!r} has no video of the class {entry}.")
        here = int(found[0])
    elif question != Question():
        asked_for = recordings.found(run, question)
        here = int(asked_for[0]) if len(asked_for) else 0
    sample = str(samples.at[here, "sample"])
    payload = recordings.head_view(run, sample)
    state, complaints = view_state(payload.manifest, query)
    views = views_of(payload)
    view = one(query, "view") or "head"
    if view not in [option["value"] for option in views]:
        complaints.append(
            f"There is no view {view!r} of this video; there are "
            f"{', '.join(option['value'] for option in views)}."
        )
        view = "head"
    manifest = payload.manifest | {"view": view}
    maps_manifest = heatmaps_payload(
        np.zeros((len(manifest["heads"]), *manifest["maps"]["shape"][-2:]), np.float16),
        titles=[f"Head {head}" for head in manifest["heads"]],
        kinds=["seq"] * len(manifest["heads"]),
    ).manifest
    return dmc.Stack(
        [
            dcc.Store(id="explore-lines-wish"),
            dcc.Store(id="explore-shown", data=chooser.shown(recordings, run, sample)),
            chooser.chooser(recordings, run, here),
            html.Div(
                [
                    alert(words, title="The address asks for more than there is", color="yellow")
                    for words in complaints
                ],
                id="explore-complaints",
                style={"display": "contents"},
            ),
            dmc.Paper(
                [
                    dmc.ScrollArea(
                        dmc.SegmentedControl(
                            id="explore-view",
                            data=views,
                            value=view,
                            size="sm",
                            **{"aria-label": "View"},
                        ),
                        type="never",
                        mb="sm",
                    ),
                    View(
                        id="explore-head",
                        module=module_url(),
                        values={"manifest": manifest},
                        buffers=buffer_urls(payload, run, sample),
                        state=state,
                        label="Views of the video",
                    ),
                ],
                withBorder=True,
                p="md",
            ),
            dmc.Paper(
                id="explore-maps-frame",
                display=None if view in _WITH_MAPS else "none",
                children=[
                    dmc.Title(id="explore-maps-title", children="", order=2, size="h5", mb="sm"),
                    View(
                        id="explore-maps",
                        module=module_url(),
                        values={"manifest": maps_manifest},
                        state={},
                        label="Heat maps of the layer's heads",
                    ),
                ],
                withBorder=True,
                p="md",
            ),
            videos.table(question),
            files.section_of_files(
                "explore",
                FILES,
                python="",
                command="",
                link=f"{below_prefix('/explore')}?{urlencode({'sample': sample})}",
                words="The figure shows what the view above shows: links between poses, maps, or "
                "poses along time; the page holds all views of the video.",
                folded=True,
            ),
        ],
        gap="md",
    )
