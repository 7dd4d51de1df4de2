"""What every answer of the dashboard's server promises the browser, and whom it answers at all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

_COOKIE = "tssan_viz"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_local(host: str) -> bool:
    """Tell whether a server bound to `host` can be reached from this machine only."""
    return host in {"localhost", "127.0.0.1", "::1"}


def refuse_other_names(server: Flask) -> None:
    """Answer only requests that name this machine.

    A page elsewhere can point a name of its own at 127.0.0.1 and then read this server's answers
    as if they were its own (DNS rebinding). The `Host` that the browser sends still says that name.
    """

    @server.before_request
    def check() -> Response | None:
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if name.lower() in _LOCAL_NAMES:
            return None
        return Response(
            f"This dashboard serves its own machine only, not {name!r}: open it as "
            "http://127.0.0.1 or http://localhost with its port.",
            status=403,
            mimetype="text/plain",
        )


def ask_for_token(server: Flask, token: str, prefix: str = "/") -> None:
    """Answer only who has shown the token, once, as ``?token=…`` of any address.

    The browser then keeps a cookie made from it, which no script can read and no other site's
    request carries, and is led to the same address without the token, so that it stays out of
    links that are passed on.

    Parameters
    ----------
    server
        The Flask server.
    token
        What has to be shown; compared in constant time.
    prefix
        The path below which browsers find the server.
    """
    wanted = token.encode()
    # Not the token itself: what lies in a browser's profile does not open another dashboard.
    kept = hmac.new(wanted, b"tssan-viz dashboard", hashlib.sha256).hexdigest()

    @server.before_request
    def check() -> AnyResponse | None:
        shown = request.args.get("token")
        if shown is not None and hmac.compare_digest(shown.encode("utf-8", "replace"), wanted):
            rest = [(k, v) for k, v in request.args.items(multi=True) if k != "token"]
            # A path that begins with two slashes would be another machine's address.
            path = prefix + request.path.lstrip("/\\")
            answer = redirect(path + (f"?{urlencode(rest)}" if rest else ""))
            answer.set_cookie(
                _COOKIE,
                kept,
                path=prefix,
                httponly=True,
                samesite="Strict",
                secure=request.is_secure,
            )
            answer.headers["Cache-Control"] = "no-store"
            return answer
        cookie = request.cookies.get(_COOKIE, "")
        if hmac.compare_digest(cookie.encode("utf-8", "replace"), kept.encode()):
            return None
        return Response(
            "This dashboard asks for its token: open the address that `tssan-viz serve` printed, "
            "which ends in ?token=….",
            status=401,
            mimetype="text/plain",
            headers={"Cache-Control": "no-store"},
        )


def add_headers(
    server: Flask, script_hashes: Callable[[], Sequence[str]], *, local: bool = False
) -> None:
    """Let pages run only this server's scripts and reach only this server.

    Parameters
    ----------
    server
        The Flask server.
    script_hashes
        Gives the hashes of Dash's own inline scripts, as they stand in a
        ``Content-Security-Policy``; asked when a page is served, when all of them are known.
    local
        Let pages of this machine's other servers hold it in a frame, as a notebook does.
    """
    frames = "'self'"
    if local:
        frames = " ".join([frames, *(f"http://{name}:*" for name in ("localhost", "127.0.0.1"))])

    @server.after_request
    def add(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        if not local:
            # It knows no list, and older browsers hold to it rather than to frame-ancestors.
            response.headers["X-Frame-Options"] = "SAMEORIGIN"
        response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if response.mimetype == "text/html":
            scripts = " ".join(["'self'", *script_hashes()])
            response.headers["Content-Security-Policy"] = "; ".join(
                [
                    "default-src 'none'",
                    f"script-src {scripts}",
                    # Mantine and AG Grid write their style sheets into the page.
                    "style-src 'self' 'unsafe-inline'",
                    "img-src 'self' data: blob:",
                    "font-src 'self' data:",
                    "connect-src 'self'",
                    "base-uri 'none'",
                    "form-action 'none'",
                    f"frame-ancestors {frames}",
                ]
            )
        return response
