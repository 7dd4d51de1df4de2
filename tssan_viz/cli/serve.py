"""The command `tssan-viz serve`."""

from __future__ import annotations

import _thread
import os
import secrets
import signal
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from tssan_viz.cli.common import StoreArgument, console, open_store
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

    from tssan_viz.store import AttentionStore

# What the extra `dash` brings.
_EXTRA = {"dash", "dash_mantine_components", "dash_ag_grid", "gunicorn", "waitress"}
_SHORTEST_TOKEN = 12


def serve(
    store: StoreArgument = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes any free one.")
    ] = 8050,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="The address to listen on. The default serves this machine only."
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="Answer only who shows this token. Another address than this machine's needs it.",
            envvar="TSSAN_TOKEN",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            max=64,
            help="How many processes answer: one for yourself, one per core for a group.",
        ),
    ] = 1,
    trust_proxy: Annotated[
        bool,
        typer.Option(
            "--trust-proxy", help="A proxy in front asks for passwords: serve without a token."
        ),
    ] = False,
) -> None:
    """Open the dashboard: what was recorded, one video's attention, classes compared."""
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise UserError(
            f"a token of {len(token)} characters can be guessed: give at least {_SHORTEST_TOKEN}, "
            f"for instance --token {secrets.token_urlsafe(16)}"
        )
    opened = open_store(store)
    try:
        from tssan_dash.app import create_app, listen, make_server
        from tssan_dash.security import is_local
        from tssan_dash.workers import check_server, serve_with_threads, serve_with_workers

        if workers > 1:
            check_server()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise UserError(
            f"the dashboard needs the package {error.name!r}, which is not installed: "
            "pip install 'tssan-viz[dash]'"
        ) from None

    local = is_local(host)
    if not (local or token or trust_proxy):
        raise UserError(
            f"{host} can be reached from other machines: let them show a token with "
            f"--token {secrets.token_urlsafe(16)}, or say --trust-proxy where a proxy asks for "
            "passwords"
        )
    if workers > 1:
        served = {"store": opened.url, "local": local, "token": token}
        listening = listen(host, port)
        _say(opened, host, listening.getsockname()[1], token)
        if os.name == "posix":
            serve_with_workers(listening, workers, served)
        serve_with_threads(listening, workers, served)
        return
    server = make_server(create_app(opened, local=local, token=token), host, port)
    _say(opened, host, server.port, token)
    _answer_until_ctrl_c(server)


def _answer_until_ctrl_c(server: BaseWSGIServer) -> None:
    # Raised between two steps of the server, Ctrl-C would close a connection under who answers it.
    def end(*_: object) -> None:
        _thread.start_new_thread(server.shutdown, ())

    before = signal.signal(signal.SIGINT, end)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        signal.signal(signal.SIGINT, before)
        server.server_close()


def _say(store: AttentionStore, host: str, port: int, token: str | None) -> None:
    shown = f"[{host}]" if ":" in host else host
    way = f"/?token={quote(token)}" if token else ""
    console.print(f"{store.url} is at http://{shown}:{port}{way} (Ctrl-C ends it)", soft_wrap=True)
