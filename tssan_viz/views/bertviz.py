"""Recorded attention in the form that BertViz takes, and BertViz's own page without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.html import write_page
from tssan_viz.views.payload import head_view_payload

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

# BertViz's page asks a CDN for require.js, and through it for jQuery and d3 5. Packages hold
# both libraries; of require.js the page uses two calls.
_LIBRARIES = (("XStatic-jQuery", "jquery.min.js"), ("mpld3", "d3.v5.min.js"))
_LOADER = """
window.require = { config() {} };
window.requirejs = (names, use) => use(...names.map((name) => ({ jquery: jQuery, d3 })[name]));
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
{body}
</body>
</html>
"""


def to_bertviz(
    selection: Selection,
    sample: str | None = None,
    *,
    segment: int | None = None,
    person: int | None = None,
) -> dict[str, Any]:
    """Return what ``bertviz.head_view`` and ``bertviz.model_view`` take.

    Parameters
    ----------
    selection
        Where to look; conditions on layer and head choose those that are handed over.
    sample
        The sample's name; by default the selection's first.
    segment, person
        Which of them, from 1; by default the first that was recorded.

    Returns
    -------
    dict
        ``attention``: per layer a float32 tensor ``(1, h, q, s)``; ``tokens``: one text per frame,
        such as ``"frame 12 · 0.40 s"``, or the words of a text from `record_attentions`.

    Raises
    ------
    UserError
        If the sample, the segment or the person was not recorded, or queries and keys are not the
        same frames.

    Examples
    --------
    >>> bertviz.head_view(**tssan_viz.to_bertviz(store.select(sample=name)))  # doctest: +SKIP
    """
    import torch

    payload = head_view_payload(selection, sample)
    manifest = payload.manifest
    shape = manifest["maps"]["shape"]
    if shape[-1] != shape[-2]:
        raise UserError(
            f"the maps are {shape[-2]} × {shape[-1]}: "
            "BertViz shows attention of frames to the same frames"
        )
    k, m = _place(manifest, segment, person)
    maps = np.frombuffer(payload.buffers["maps"], dtype="<f2").reshape(shape)[k, m]
    attention = tuple(torch.from_numpy(layer.astype(np.float32))[None] for layer in maps)
    labels = manifest["labels"][k] or [str(frame) for frame in range(shape[-1])]
    if "token" in manifest:
        tokens = list(labels)
    elif manifest["seconds"] is None:
        tokens = [f"frame {label}" for label in labels]
    else:
        seconds = manifest["seconds"][k]
        tokens = [f"frame {label} · {at:.2f} s" for label, at in zip(labels, seconds, strict=True)]
    return {"attention": attention, "tokens": tokens}


def _place(manifest: dict[str, Any], segment: int | None, person: int | None) -> tuple[int, int]:
    """Return the indices of the first recorded segment and person that fit."""
    for k, of_segment in enumerate(manifest["segments"]):
        for m, of_person in enumerate(manifest["persons"]):
            fits = segment in (None, of_segment) and person in (None, of_person)
            if fits and manifest["present"][k][m]:
                return k, m
    raise UserError(
        f"sample {manifest['sample']} has segments {manifest['segments']} and persons "
        f"{manifest['persons']}; segment {segment} of person {person} was not recorded"
    )


def save_bertviz(
    selection: Selection,
    path: str | os.PathLike[str],
    sample: str | None = None,
    *,
    view: Literal["head", "model"] = "head",
    segment: int | None = None,
    person: int | None = None,
) -> Path:
    """Write BertViz's own page of a sample, with the scripts in it that it else loads from CDNs.

    Parameters
    ----------
    selection, sample, segment, person
        As for `to_bertviz`.
    path
        The file to write.
    view
        BertViz's ``"head"`` view or its ``"model"`` view.

    Returns
    -------
    pathlib.Path
        The file written: it asks no other address, and a Content-Security-Policy holds it to that.

    Raises
    ------
    UserError
        As `to_bertviz`; or BertViz, jQuery or d3 is not installed (``tssan-viz[bertviz]``), or the
        file cannot be written.
    """
    given = to_bertviz(selection, sample, segment=segment, person=person)
    # BertViz gives a token 110 pixels and cuts off what is longer.
    given["tokens"] = [token.removeprefix("frame ") for token in given["tokens"]]
    name = sample if sample is not None else str(selection.rows()["sample"].iloc[0])
    try:
        import bertviz
    except ModuleNotFoundError as error:
        raise _missing("BertViz") from error
    show = {"head": bertviz.head_view, "model": bertviz.model_view}[view]
    return write_page(_offline(show(**given, html_action="return").data, title=name), path)


def _offline(page: str, *, title: str) -> str:
    """Put into BertViz's page the scripts that it asks for."""
    body, asked = re.subn(r'<script src="https://[^"]*/require\.min\.js"></script>', "", page)
    parts = re.fullmatch(r"(.*?)<script[^>]*>(.*)</script>\s*", body, re.DOTALL)
    if asked != 1 or parts is None:
        raise UserError(
            f"BertViz {importlib.metadata.version('bertviz')} writes another page than is known "
            "here; pip install 'tssan-viz[bertviz]' gives one that is"
        )
    markup, own = parts.groups()
    # What stands in the page's script as text must neither end it nor open another.
    own = re.sub(r"<(?=/|!--|script)", r"<\\", own, flags=re.IGNORECASE)
    scripts = [*(_library(*library) for library in _LIBRARIES), _LOADER, own]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return _PAGE.format(
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'",
        title=html.escape(title),
        body=markup + "\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _library(package: str, name: str) -> str:
    """Return a script that an installed package holds."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(package) from error
    for file in files:
        if file.name == name:
            # Browsers read \r\n as \n, and the hash is of what they read.
            return Path(str(file.locate())).read_text(encoding="utf-8").replace("\r\n", "\n")
    raise _missing(f"{name} of {package}")


def _missing(what: str) -> UserError:
    return UserError(
        f"{what} is not installed, and BertViz's page needs it: pip install 'tssan-viz[bertviz]'"
    )
