"""The addresses from which a page fetches the view module and the float16 buffers.

A buffer's address says what it is (run and video or answer, part) and the hash of its bytes. The
keys are looked up in the store, none of them is a path; the hash makes the answer immutable, so
that a browser asks once. When the store has gone on and the bytes are others, the answer says so
instead of giving bytes that the page's manifest does not describe.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, has_app_context, request

from tssan_dash.recordings import Recordings, current
from tssan_viz.errors import UserError
from tssan_viz.views.payload import module_path

_MODULE = "/_dash-tssan-views.mjs"
_BUFFER = "/_dash-tssan-buffer"
_FOREVER = "private, max-age=31536000, immutable"


def content_hash(data: bytes) -> str:
    """Return the name of some bytes: the first 32 digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


@cache
def _module() -> bytes:
    return module_path().read_bytes()


def below_prefix(path: str) -> str:
    """Return the address of a page or route of the server that answers the present request.

    `dash.get_relative_path` knows one prefix for all apps of a process.
    """
    return (current().prefix if has_app_context() else "/") + path.lstrip("/")


def module_url() -> str:
    """Return the address of the view module, which changes with its content."""
    return f"{below_prefix(_MODULE)}?{urlencode({'hash': content_hash(_module())})}"


def buffer_url(data: bytes, **keys: Any) -> str:
    """Return the address of `data`, which the route finds again by `keys`."""
    given = {name: value for name, value in keys.items() if value is not None}
    return f"{below_prefix(_BUFFER)}?{urlencode({**given, 'hash': content_hash(data)})}"


def add_routes(server: Flask, recordings: Recordings) -> None:
    """Serve the view module and the buffers of `recordings`."""

    @server.get(_MODULE)
    def module() -> Response:
        return _answer(_module(), "text/javascript")

    @server.after_request
    def keep_icon(response: Response) -> Response:
        # A browser asks for it at every address that is laid upon its history.
        if request.path == "/_favicon.ico":
            response.headers["Cache-Control"] = "private, max-age=86400"
        return response

    @server.get(_BUFFER)
    def buffer() -> Response:
        try:
            data = _find(recordings)
        except UserError as error:
            return Response(str(error), status=404, mimetype="text/plain")
        picture = data.startswith(b"\x89PNG\r\n")
        return _answer(data, "image/png" if picture else "application/octet-stream")


def _answer(data: bytes, mimetype: str) -> Response:
    name = content_hash(data)
    if request.args.get("hash") != name:
        return Response(
            "the store has changed since this page was opened: reload the page.",
            status=409,
            mimetype="text/plain",
            headers={"Cache-Control": "no-store"},
        )
    response = Response(data, mimetype=mimetype, headers={"Cache-Control": _FOREVER})
    response.set_etag(name)
    response.make_conditional(request)
    return response


def _find(recordings: Recordings) -> bytes:
    """Return the bytes that the query names."""
    if "answer" in request.args:
        return _of_answer(recordings, request.args["answer"], request.args.get("part", "maps"))
    run = recordings.run(request.args.get("run"))
    if "sample" in request.args:
        buffers = recordings.head_view(run, request.args["sample"]).buffers
        part = request.args.get("part", "maps")
        if part not in buffers:
            raise UserError(f"A video has no part {part!r}; it has {', '.join(buffers)}.")
        return buffers[part]
    raise UserError("A buffer is asked for by sample and part, or by answer and part.")


def _of_answer(recordings: Recordings, key: str, part: str) -> bytes:
    """Return a part of what was worked out in the background."""
    answer = recordings.jobs.answer(key)
    buffers = getattr(answer, "buffers", {})
    if part not in buffers:
        raise UserError("This answer is no longer kept: reload the page.")
    return buffers[part]
