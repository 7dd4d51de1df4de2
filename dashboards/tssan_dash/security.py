"""What every answer of the dashboard's server promises the browser, and whom it answers at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Flask, Response, request

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


def add_headers(server: Flask, script_hashes: Callable[[], Sequence[str]]) -> None:
    """Let pages run only this server's scripts and reach only this server.

    Parameters
    ----------
    server
        The Flask server.
    script_hashes
        Gives the hashes of Dash's own inline scripts, as they stand in a
        ``Content-Security-Policy``; asked when a page is served, when all of them are known.
    """

    @server.after_request
    def add(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
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
                    "frame-ancestors 'self'",
                ]
            )
        return response
