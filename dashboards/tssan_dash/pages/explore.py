"""The page on which one video is looked at: its head view, and the maps of one layer's heads."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc
from dash.exceptions import PreventUpdate

from tssan_dash.bridge import View
from tssan_dash.filtering import Question, find
from tssan_dash.pages import (
    alert,
    alias_filter,
    class_options,
    files,
    go_to,
    in_words,
    one,
    videos,
)
from tssan_dash.recordings import Recordings, current
from tssan_dash.routes import below_prefix, buffer_url, module_url
from tssan_dash.sample_files import FILES, SampleAsked, export_job
from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.views.payload import heatmaps_payload, initial_state

_VIEWS = {
    "head": "Head view",
    "model": "Layers × heads",
    "heat": "Heat map",
    "player": "Skeleton",
    "explore": "All, linked",
}
# Beside the others there is the heat map of one head already.
_WITH_MAPS = ("head", "model", "player")


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

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("explore-class", "value"),
        Input("explore-subject", "value"),
        Input("explore-video", "value"),
        Input("explore-previous", "n_clicks"),
        Input("explore-next", "n_clicks"),
        State("explore-shown", "data"),
        State("explore-head", "state"),
        State("explore-view", "value"),
        State("explore-question", "data"),
        prevent_initial_call=True,
    )
    def choose(
        label: str | None,
        subject: str | None,
        video: str | None,
        back: int | None,
        forth: int | None,
        shown: dict[str, Any],
        state: dict[str, Any],
        view: str,
        question: dict[str, Any] | None,
    ) -> dict[str, Any]:
        samples = recordings.samples(shown["run"])
        here = recordings.position(shown["run"], shown["sample"])
        present = samples.loc[here]
        # Dash also calls when the page has been drawn: then nothing differs from what is shown.
        if ctx.triggered_id in ("explore-previous", "explore-next") and (back or forth):
            # From the video in the select, and all clicks since the page was drawn: it may be just
            # about to be drawn anew.
            chosen = here if video is None else recordings.position(shown["run"], video)
            found = find(
                samples, recordings.catalogue(shown["run"]), Question.of(question or {})
            ).index
            goal = _steps(found, chosen, (forth or 0) - (back or 0))
        elif label is not None and label != _text(present["label"]):
            goal = _like(samples, here, label=int(label))
        elif subject is not None and subject != _text(present["subject"]):
            goal = _like(samples, here, label=present["label"], subject=int(subject))
        elif video is not None and video != shown["sample"]:
            goal = recordings.position(shown["run"], video)
        else:
            raise PreventUpdate
        query = {"sample": samples.at[goal, "sample"], "layer": state["layer"]}
        if len(recordings.runs()) > 1:
            query = {"run": shown["run"], **query}
        return go_to(query | videos.kept_in_address(view, question))

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


def _steps(found: pd.Index, here: int, steps: int) -> int:
    """Return the place of the video so many steps on among those found; at an end it stays there.

    From a video that is not among them the first step leads to the first one found.
    """
    if not len(found):
        raise PreventUpdate
    if here not in found:
        return int(found[0])
    place = list(found).index(here)
    return int(found[min(max(place + steps, 0), len(found) - 1)])


def _text(value: Any) -> str | None:
    """Return a number of the table as the selects hold it."""
    return None if pd.isna(value) else str(int(value))


def _like(samples: pd.DataFrame, here: int, **wanted: Any) -> int:
    """Return the place of the video that fits and shares most else with the present one."""
    fits = samples
    for column, value in wanted.items():
        fits = fits[fits[column] == value]
    if fits.empty:
        raise PreventUpdate
    for column in ("subject", "camera", "replication"):
        same = fits[fits[column] == samples.at[here, column]]
        if not same.empty:
            fits = same
    return int(fits.index[0])


@in_words
def layout(**query: Any) -> Any:
    """Return the page as the address asks for it."""
    recordings = current()
    run = recordings.run(one(query, "run"))
    samples = recordings.samples(run)
    if samples.empty:
        return alert(f"The run {run!r} holds no video.")
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
        asked_for = find(samples, recordings.catalogue(run), question).index
        here = int(asked_for[0]) if len(asked_for) else 0
    sample = str(samples.at[here, "sample"])
    payload = recordings.head_view(run, sample)
    state, complaints = view_state(payload.manifest, query)
    views = [
        {"value": name, "label": title}
        for name, title in _VIEWS.items()
        if name != "player" or "poses" in payload.buffers
    ]
    view = one(query, "view") or "head"
    if view not in [option["value"] for option in views]:
        complaints.append(
            f"There is no view {view!r} of this video; there are "
            f"{', '.join(option['value'] for option in views)}."
        )
        view = "head"
    manifest = payload.manifest | {"view": view}
    buffers = {
        name: buffer_url(data, run=run, sample=sample, part=name)
        for name, data in payload.buffers.items()
    }
    maps_manifest = heatmaps_payload(
        np.zeros((len(manifest["heads"]), *manifest["maps"]["shape"][-2:]), np.float16),
        titles=[f"Head {head}" for head in manifest["heads"]],
        kinds=["seq"] * len(manifest["heads"]),
    ).manifest
    return dmc.Stack(
        [
            dcc.Store(id="explore-lines-wish"),
            dcc.Store(id="explore-shown", data={"run": run, "sample": sample}),
            _chooser(recordings, run, here),
            *[
                alert(words, title="The address asks for more than there is", color="yellow")
                for words in complaints
            ],
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
                        buffers=buffers,
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


def _chooser(recordings: Recordings, run: str, here: int) -> dmc.Group:
    samples = recordings.samples(run)
    catalogue = recordings.catalogue(run)
    video = samples.loc[here]
    duplicate_of = recordings.store.duplicates(run).get(str(video["sample"]))
    classes = recordings.classes(run)
    # Without a label there is no class to choose; those next to it are offered.
    of_class = samples.iloc[max(0, here - 500) : here + 500]
    if not pd.isna(video["label"]):
        of_class = samples.loc[samples["label"] == video["label"], ["sample", "subject"]]
    subjects = sorted(of_class["subject"].dropna().astype(int).unique())
    of_subject = of_class
    if not pd.isna(video["subject"]):
        of_subject = of_class[of_class["subject"] == video["subject"]]
    return dmc.Group(
        [
            dmc.Select(
                id="explore-class",
                label="Class",
                data=class_options(classes),
                filter=alias_filter(classes),
                value=_text(video["label"]),
                searchable=True,
                allowDeselect=False,
                nothingFoundMessage="No class of this name was recorded",
                w={"base": "100%", "xs": 230},
            ),
            dmc.Select(
                id="explore-subject",
                label="Subject",
                data=[{"value": str(s), "label": str(s)} for s in subjects],
                value=_text(video["subject"]),
                searchable=True,
                allowDeselect=False,
                disabled=not subjects,
                nothingFoundMessage="This subject does not do this",
                w=110,
            ),
            dmc.Select(
                id="explore-video",
                label="Video",
                data=[{"value": s, "label": s} for s in of_subject["sample"]],
                value=video["sample"],
                searchable=True,
                allowDeselect=False,
                nothingFoundMessage="No video of this name for class and subject",
                w={"base": 220, "sm": 260},
            ),
            dmc.ActionIconGroup(
                [
                    dmc.ActionIcon(
                        sign,
                        id=f"explore-{name}",
                        variant="default",
                        size="input-sm",
                        disabled=disabled,
                        **{"aria-label": f"{name.capitalize()} video"},
                    )
                    for name, sign, disabled in (
                        ("previous", "‹", here == 0),
                        ("next", "›", here == len(samples) - 1),
                    )
                ]
            ),
            dmc.Group(_badges(catalogue, video, duplicate_of), gap="xs", mih=36),
        ],
        gap="sm",
        align="flex-end",
    )


def _badges(catalogue: Catalogue, video: pd.Series, duplicate_of: str | None) -> list[dmc.Badge]:
    badges = []
    if not pd.isna(video["predicted"]):
        name = catalogue.name_of(int(video["predicted"]))
        right = bool(video["predicted"] == video["label"])
        badges.append(
            dmc.Badge(
                f"recognised as {name}" if right else f"taken for {name}",
                color="cyan" if right else "red",
                variant="light",
                size="lg",
                tt="none",
                id="explore-verdict",
            )
        )
    if duplicate_of is not None:
        badges.append(
            dmc.Badge(f"the same file as {duplicate_of}", color="yellow", size="lg", tt="none")
        )
    return badges


def view_state(manifest: dict[str, Any], query: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the state in which the address wants the head view, and what it asks in vain.

    Parameters
    ----------
    manifest
        Of the head view's payload.
    query
        The address's parameters: ``layer``, ``heads`` (``1-3-8``), ``locked`` (``query-12``),
        ``segment``, ``person``.

    Returns
    -------
    state : dict
        ``layer``, ``heads``, ``locked``, ``segment``, ``person``, ``orientation``.
    complaints : list of str
        One sentence for each thing that is not there.
    """
    state = initial_state(manifest)
    complaints = []
    for name in ("layer", "segment", "person"):
        asked, there = one(query, name), manifest[f"{name}s"]
        if asked is None:
            continue
        if asked in map(str, there):
            state[name] = int(asked)
        else:
            complaints.append(
                f"There is no {name} {asked!r}; this video has {', '.join(map(str, there))}."
            )
    threshold = one(query, "threshold")
    if threshold is not None:
        if re.fullmatch(r"0?\.\d{1,6}|[01](\.0{1,6})?", threshold, re.ASCII):
            state["threshold"] = float(threshold)
        else:
            complaints.append(f"The threshold {threshold!r} is no share from 0 to 1.")
    heads = one(query, "heads")
    if heads is not None:
        wanted = [head for head in manifest["heads"] if str(head) in heads.split("-")]
        if wanted:
            state["heads"] = wanted
        else:
            complaints.append(f"There are no heads {heads!r}; write them as 1-3-8.")
    locked = one(query, "locked")
    if locked is not None:
        sizes = dict(zip(("query", "key"), manifest["maps"]["shape"][-2:], strict=True))
        match = re.fullmatch(r"(query|key)-(\d{1,6})", locked)
        if match and int(match[2]) < sizes[match[1]]:
            state["locked"] = {"side": match[1], "frame": int(match[2])}
        else:
            complaints.append(
                f"No frame can be locked by {locked!r}; write it as query-0 to "
                f"query-{sizes['query'] - 1}, or key-0 to key-{sizes['key'] - 1}."
            )
    return state, complaints
