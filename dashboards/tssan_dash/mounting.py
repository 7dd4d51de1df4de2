"""What stands around the app's WSGI application: its prefix, and its first request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def checked_prefix(prefix: str) -> str:
    """Return a prefix of addresses if it is one, such as ``/`` or ``/attention/``.

    Raises
    ------
    UserError
        If it does not begin and end with a slash, or has more than plain names between them.
    """
    names = prefix.strip("/").split("/") if prefix != "/" else []
    plain = all(name.replace("-", "").replace("_", "").isalnum() for name in names)
    if not (prefix.startswith("/") and prefix.endswith("/") and plain and prefix.isascii()):
        raise UserError(
            f"url_base_pathname is {prefix!r}; it begins and ends with a slash and has plain names "
            "between, for instance /attention/"
        )
    return prefix


def first_request_alone(application: WSGIApplication) -> Callable[..., Iterable[bytes]]:
    """Return an application that begins to answer others when its first request is answered.

    Dash completes its tables of scripts and callbacks during the first request, and does not hold
    back a second one that comes meanwhile: it would find half of them.
    """
    lock = threading.Lock()
    ready = False

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal ready
        if ready:
            return application(environ, start_response)
        with lock:
            answered = application(environ, start_response)
            ready = True
        return answered

    return answer


def under_prefix(application: WSGIApplication, prefix: str) -> Callable[..., Iterable[bytes]]:
    """Return an application that answers below `prefix` as `application` does below ``/``.

    A server of its own gets whole addresses; one that is mounted (Werkzeug's
    ``DispatcherMiddleware``) or stands behind a proxy may get them without the prefix. Both are
    answered.
    """
    mount = prefix.rstrip("/")

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == mount or path.startswith(prefix):
            changed: dict[str, Any] = {
                "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + mount,
                "PATH_INFO": path[len(mount) :] or "/",
            }
            environ = environ | changed
        return application(environ, start_response)

    return answer
