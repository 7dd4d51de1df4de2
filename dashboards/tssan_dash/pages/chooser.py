"""Which video the page Explore shows: its selects and arrows, and the answer to a click on them."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import numpy as np
import pandas as pd
from dash import Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from tssan_dash.filtering import Question
from tssan_dash.pages import alias_filter, class_options
from tssan_dash.pages.video import buffer_urls, view_state, views_of
from tssan_dash.pages.videos import ends
from tssan_dash.recordings import Recordings

# Without a label there is no class to choose; so many videos before and after it are offered.
_NEXT_TO_IT = 500


def register(app: Dash, recordings: Recordings) -> None:
    """Add the callback that shows another video in place, without drawing the page anew."""

    @app.callback(
        Output("explore-shown", "data"),
        Output("explore-head", "values"),
        Output("explore-head", "buffers"),
        Output("explore-head", "state"),
        Output("explore-view", "data"),
        Output("explore-view", "value"),
        Output("explore-class", "value"),
        Output("explore-subject", "data"),
        Output("explore-subject", "value"),
        Output("explore-subject", "disabled"),
        Output("explore-video", "data"),
        Output("explore-video", "value"),
        Output("explore-badges", "children"),
        Output("explore-complaints", "children"),
        Output("explore-previous", "disabled", allow_duplicate=True),
        Output("explore-next", "disabled", allow_duplicate=True),
        Input("explore-class", "value"),
        Input("explore-subject", "value"),
        Input("explore-video", "value"),
        Input("explore-previous", "n_clicks"),
        Input("explore-next", "n_clicks"),
        Input("explore-row", "data"),
        State("explore-shown", "data"),
        State("explore-head", "state"),
        State("explore-view", "value"),
        State("explore-question", "data"),
        prevent_initial_call=True,
    )
    def show(
        label: str | None,
        subject: str | None,
        video: str | None,
        back: int | None,
        forth: int | None,
        row: str | None,
        shown: dict[str, Any],
        state: dict[str, Any],
        view: str,
        question: dict[str, Any] | None,
    ) -> tuple[Any, ...]:
        run = shown["run"]
        videos = recordings.videos(run)
        here = recordings.position(run, shown["sample"])
        found = recordings.found(run, Question.of(question or {}))
        clicks = (forth or 0) - (back or 0)
        if ctx.triggered_id in ("explore-previous", "explore-next"):
            # From the video in the select, and all clicks since the last answer: one may be under
            # way.
            chosen = here if video is None else recordings.position(run, video)
            goal = _steps(found, chosen, clicks - shown["clicks"])
        elif ctx.triggered_id == "explore-row" and row is not None:
            goal = recordings.position(run, row)
        elif label is not None and label != _text(videos.labels[here]):
            goal = _like(recordings.samples(run), here, label=int(label))
        elif subject is not None and subject != _text(videos.subjects[here]):
            wanted = {"label": videos.labels[here], "subject": int(subject)}
            goal = _like(recordings.samples(run), here, **wanted)
        elif video is not None:
            goal = recordings.position(run, video)
        else:
            raise PreventUpdate
        if goal == here:
            raise PreventUpdate
        sample = videos.names[goal]
        payload = recordings.head_view(run, sample)
        views = views_of(payload)
        there = [option["value"] for option in views]
        shows = view if view in there else "head"
        class_value, subjects, subject_value, names = _offered(recordings, run, goal)
        return (
            {"run": run, "sample": sample, "clicks": clicks, "class": _class_name(payload)},
            {"manifest": payload.manifest | {"view": shows}},
            buffer_urls(payload, run, sample),
            view_state(payload.manifest, {"layer": str(state["layer"])})[0],
            views,
            no_update if shows == view else shows,
            class_value,
            subjects,
            subject_value,
            not subjects,
            names,
            sample,
            _badges(recordings, run, goal),
            [],
            *ends(found, goal),
        )


def shown(recordings: Recordings, run: str, sample: str) -> dict[str, Any]:
    """Return what the page remembers of the video that it shows when it is drawn."""
    name = _class_name(recordings.head_view(run, sample))
    return {"run": run, "sample": sample, "clicks": 0, "class": name}


def _class_name(payload: Any) -> str | None:
    return payload.manifest["class_name"]


def _steps(found: pd.Index, here: int, steps: int) -> int:
    """Return the place of the video so many steps on among those found; at an end it stays there.

    From a video that is not among them the first step leads to the first one found.
    """
    if not len(found):
        raise PreventUpdate
    places = np.flatnonzero(found == here)
    if not len(places):
        return int(found[0])
    return int(found[min(max(places[0] + steps, 0), len(found) - 1)])


def _text(value: int | None) -> str | None:
    """Return a number as the selects hold it."""
    return None if value is None else str(value)


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


def _offered(
    recordings: Recordings, run: str, here: int
) -> tuple[str | None, list[dict[str, str]], str | None, list[dict[str, str]]]:
    """Return the class, the subjects that do the same, the subject, and its videos of the class."""
    videos = recordings.videos(run)
    label, subject = videos.labels[here], videos.subjects[here]
    if label is None:
        like = list(range(len(videos.names)))[max(0, here - _NEXT_TO_IT) : here + _NEXT_TO_IT]
    else:
        like = videos.of_label[label]
    subjects = sorted({s for place in like if (s := videos.subjects[place]) is not None})
    mine = [
        videos.names[place]
        for place in like
        if subject is None or videos.subjects[place] == subject
    ]
    return (
        _text(label),
        [{"value": str(s), "label": str(s)} for s in subjects],
        _text(subject),
        [{"value": name, "label": name} for name in mine],
    )


def chooser(recordings: Recordings, run: str, here: int) -> dmc.Group:
    """Return the selects and arrows that stand at a video."""
    classes = recordings.classes(run)
    names = recordings.videos(run).names
    label, subjects, subject, of_subject = _offered(recordings, run, here)
    return dmc.Group(
        [
            dmc.Select(
                id="explore-class",
                label="Class",
                data=class_options(classes),
                filter=alias_filter(classes),
                value=label,
                searchable=True,
                allowDeselect=False,
                nothingFoundMessage="No class of this name was recorded",
                w={"base": "100%", "xs": 230},
            ),
            dmc.Select(
                id="explore-subject",
                label="Subject",
                data=subjects,
                value=subject,
                searchable=True,
                allowDeselect=False,
                disabled=not subjects,
                nothingFoundMessage="This subject does not do this",
                w=110,
            ),
            dmc.Select(
                id="explore-video",
                label="Video",
                data=of_subject,
                value=names[here],
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
                        ("next", "›", here == len(names) - 1),
                    )
                ]
            ),
            dmc.Group(_badges(recordings, run, here), id="explore-badges", gap="xs", mih=36),
        ],
        gap="sm",
        align="flex-end",
    )


def _badges(recordings: Recordings, run: str, here: int) -> list[dmc.Badge]:
    """Return what the network took a video for, and whether its file is another one's."""
    videos = recordings.videos(run)
    predicted = videos.predicted[here]
    duplicate_of = recordings.store.duplicates(run).get(videos.names[here])
    badges = []
    if predicted is not None:
        name = recordings.catalogue(run).name_of(predicted)
        right = predicted == videos.labels[here]
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
