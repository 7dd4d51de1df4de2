"""One video as the views of the page Explore have it."""

from __future__ import annotations

import re
from typing import Any

from tssan_dash.pages import one
from tssan_dash.routes import buffer_url
from tssan_viz.views.payload import Payload, initial_state

_VIEWS = {
    "head": "Head view",
    "model": "Layers × heads",
    "heat": "Heat map",
    "player": "Skeleton",
    "explore": "All, linked",
}


def views_of(payload: Payload) -> list[dict[str, str]]:
    """Return the views that there are of a video, as a control offers them."""
    return [
        {"value": name, "label": title}
        for name, title in _VIEWS.items()
        if name != "player" or "poses" in payload.buffers
    ]


def buffer_urls(payload: Payload, run: str, sample: str) -> dict[str, str]:
    """Return the addresses of a video's maps and poses."""
    return {
        name: buffer_url(data, run=run, sample=sample, part=name)
        for name, data in payload.buffers.items()
    }


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
