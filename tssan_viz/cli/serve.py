"""The command `tssan-viz serve`."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import quote

import typer

from tssan_viz.cli.common import StoreArgument, console, open_store
from tssan_viz.errors import UserError

# What the extra `dash` brings.
_EXTRA = {"dash", "dash_mantine_components", "dash_ag_grid"}
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
        from tssan_dash.app import create_app, make_server
        from tssan_dash.security import is_local
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
    server = make_server(create_app(opened, local=local, token=token), host, port)
    shown = f"[{host}]" if ":" in host else host
    way = f"/?token={quote(token)}" if token else ""
    console.print(
        f"{opened.url} is at http://{shown}:{server.port}{way} (Ctrl-C ends it)",
        soft_wrap=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print()
    finally:
        server.server_close()
