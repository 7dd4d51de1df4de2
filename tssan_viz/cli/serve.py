"""The command `tssan-viz serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from tssan_viz.cli.common import StoreArgument, console, err_console, open_store
from tssan_viz.errors import UserError

# What the extra `dash` brings.
_EXTRA = {"dash", "dash_mantine_components", "dash_ag_grid"}


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
) -> None:
    """Open the dashboard: choose a video and see its attention, compare classes."""
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

    server = make_server(create_app(opened, local=is_local(host)), host, port)
    shown = f"[{host}]" if ":" in host else host
    console.print(
        f"{opened.url} is at http://{shown}:{server.port} (Ctrl-C ends it)", soft_wrap=True
    )
    if not is_local(host):
        err_console.print(
            f"{host} can be reached from other machines; the dashboard asks nobody for a password."
        )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print()
    finally:
        server.server_close()
