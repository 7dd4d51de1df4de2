"""The dashboard's shell: header, pages, theme, errors in words, and the server to run it with."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate
from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler
from werkzeug.serving import make_server as make_werkzeug_server

from tssan_dash import security
from tssan_dash.callbacks import refuse_strange_requests
from tssan_dash.mounting import checked_prefix, first_request_alone, under_prefix
from tssan_dash.pages import (
    PAGE_ADDRESS,
    alert,
    compare,
    evidence,
    explore,
    go_to,
    overview,
    parameters,
    subjects,
    training,
)
from tssan_dash.recordings import Recordings
from tssan_dash.routes import add_routes
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, open_store

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <meta name="color-scheme" content="light dark">
        {%favicon%}
        {%css%}
        <style>
            /* Plotly writes one colour into its words; here they follow light and dark. */
            .js-plotly-plot :is(.xtick, .ytick, .textpoint) text,
            .js-plotly-plot :is(.g-xtitle, .g-ytitle) text, .js-plotly-plot .legendtext
            { fill: var(--mantine-color-dimmed) !important; }
        </style>
    </head>
    <body>
        {%app_entry%}
        <footer>
            {%config%}
            {%scripts%}
            {%renderer%}
        </footer>
    </body>
</html>"""


# Mantine's own, but for what was too pale to read (WCAG 2 asks for a contrast of 4.5): coloured
# words on their own tint, dimmed words (the seventh grey, the third dark) and placeholders (the
# sixth, the fourth), which here say what is chosen.
_THEME: dict[str, Any] = {
    "primaryColor": "indigo",
    "primaryShade": {"light": 9, "dark": 8},
    "autoContrast": True,
    "defaultRadius": "md",
    # Lines of code are wrapped: what scrolls would have to be a stop of the keyboard.
    "components": {
        "Code": {"styles": {"root": {"whiteSpace": "pre-wrap", "overflowWrap": "anywhere"}}}
    },
    "colors": {
        "gray": [
            *("#f8f9fa", "#f1f3f5", "#e9ecef", "#dee2e6", "#ced4da"),
            *("#6a727a", "#5c636a", "#495057", "#343a40", "#212529"),
        ],
        "dark": [
            *("#c9c9c9", "#b8b8b8", "#a8a8a8", "#999999", "#424242"),
            *("#3b3b3b", "#2e2e2e", "#242424", "#1f1f1f", "#141414"),
        ],
    },
}


_FADING = "linear-gradient(to right, #000 calc(100% - 24px), transparent)"

_PAGES = (overview, explore, compare, subjects, training, evidence)


def create_app(
    store: AttentionStore | Path | str,
    *,
    local: bool = True,
    token: str | None = None,
    url_base_pathname: str = "/",
) -> Dash:
    """Make the dashboard of a store.

    Parameters
    ----------
    store
        The store that it shows, or its folder.
    local
        Answer only requests that name this machine (``localhost``, ``127.0.0.1``, ``[::1]``), and
        let only its pages (a notebook's) hold the dashboard in a frame.
    token
        Answer only who shows this token; None asks nobody.
    url_base_pathname
        The path below which browsers find it, such as ``/attention/``. Its server answers there
        by itself, mounted with Werkzeug's ``DispatcherMiddleware``, and behind a proxy that takes
        the path off.

    Returns
    -------
    dash.Dash
        The app; its ``server`` is a Flask application for any WSGI server. In a notebook,
        ``app.run(jupyter_mode="inline")`` shows it below the cell.

    Raises
    ------
    UserError
        If there is no store, or `url_base_pathname` is no path.

    Examples
    --------
    Mounted in a Flask application of one's own::

        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        dashboard = create_app("attention-store", url_base_pathname="/attention/")
        mine.wsgi_app = DispatcherMiddleware(mine.wsgi_app, {"/attention": dashboard.server})
    """
    prefix = checked_prefix(url_base_pathname)
    recordings = Recordings(
        store if isinstance(store, AttentionStore) else open_store(store), prefix=prefix
    )
    app = Dash(
        "tssan_dash",
        requests_pathname_prefix=prefix,
        routes_pathname_prefix="/",
        use_pages=True,
        pages_folder="",
        include_assets_files=False,
        include_pages_meta=False,
        suppress_callback_exceptions=True,
        index_string=_INDEX,
        title="tssan-viz",
        update_title="",
        add_log_handler=False,
        enable_mcp=False,
        on_error=_tell,
    )
    server: Flask = app.server
    recordings.attach(server)
    if local:
        security.refuse_other_names(server)
    if token is not None:
        security.ask_for_token(server, token, prefix)
    refuse_strange_requests(app)
    for page in _PAGES:
        page.register(app, recordings)
    app.layout = _layout(app)
    _register_shell(app, recordings)
    add_routes(server, recordings)
    security.add_headers(server, app.csp_hashes, local=local)
    server.wsgi_app = first_request_alone(server.wsgi_app)  # type: ignore[method-assign]
    if prefix != "/":
        server.wsgi_app = under_prefix(server.wsgi_app, prefix)  # type: ignore[method-assign]
    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port` (0: any free port).

    Raises
    ------
    UserError
        If the address cannot be listened on; says why and what to do.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UserError(f"{host!r} is no address of this machine: {error.strerror}") from None
    listening = socket.socket(family, kind)
    if os.name == "posix":
        # A port of a server that has just ended is free; on Windows this would take others' ports.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        if isinstance(error, PermissionError):
            advice = "ports below 1024 are the system's: take a higher one with --port"
        else:
            advice = "another program may be using it: choose another with --port"
        raise UserError(
            f"cannot listen on {host} port {port} ({error.strerror}); {advice}"
        ) from None
    listening.listen(128)
    return listening


def make_server(app: Dash, host: str, port: int) -> BaseWSGIServer:
    """Make a threaded server in this process that listens on `host` and `port`.

    Raises
    ------
    UserError
        As `listen` does.
    """
    with listen(host, port) as listening:
        return make_werkzeug_server(
            host,
            listening.getsockname()[1],
            app.server,
            threaded=True,
            request_handler=_QuietHandler,
            fd=listening.fileno(),
        )


class _QuietHandler(WSGIRequestHandler):
    """Says nothing of the requests that went well."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code).startswith("5"):
            super().log_request(code, size)


def _tell(error: Exception) -> None:
    """Show what went wrong in a callback as words in the corner of the page."""
    if isinstance(error, UserError):
        title, words = "That does not work", str(error)
    else:
        log.error("A callback of the dashboard failed.", exc_info=error)
        title = "The dashboard met an error of its own"
        words = f"{type(error).__name__}: {error}. The terminal that serves it says where."
    dash.set_props(
        "notices",
        {
            "sendNotifications": [
                {
                    "action": "show",
                    "id": f"error-{abs(hash(words))}",
                    "title": title,
                    "message": words,
                    "color": "red",
                    "autoClose": False,
                    "withBorder": True,
                }
            ]
        },
    )


def _layout(app: Dash) -> dmc.MantineProvider:
    links = [
        dmc.NavLink(
            id=f"link-{page['name'].lower()}",
            label=page["name"],
            href=app.get_relative_path(page["path"]),
            active=False,
            w="auto",
            px="sm",
            py=6,
            bdrs="sm",
            noWrap=True,
        )
        for page in (dash.page_registry[module.__name__] for module in _PAGES)
    ]
    header = dmc.Group(
        [
            dmc.Group(
                [
                    dmc.Title("tssan-viz", order=1, size="h4", visibleFrom="md"),
                    dmc.ScrollArea(
                        html.Nav(dmc.Group(links, gap=4, wrap="nowrap", pr=24)),
                        type="never",
                        # On a phone the last of them fade: there are more.
                        style={"minWidth": 0, "flex": "0 1 auto", "maskImage": _FADING},
                    ),
                ],
                gap="md",
                wrap="nowrap",
                miw=0,
            ),
            dmc.Group(
                [
                    dmc.Select(
                        id="run",
                        data=[],
                        allowDeselect=False,
                        searchable=True,
                        size="xs",
                        maw=220,
                        comboboxProps={"withinPortal": True},
                        style={"display": "none"},
                        **{"aria-label": "Run"},
                    ),
                    dmc.ColorSchemeToggle(
                        id="scheme",
                        lightIcon="☀\ufe0e",
                        darkIcon="☾\ufe0e",
                        variant="default",
                        size="lg",
                        **{"aria-label": "Switch between light and dark"},
                    ),
                ],
                gap="xs",
                wrap="nowrap",
            ),
        ],
        justify="space-between",
        wrap="nowrap",
        h="100%",
        px="md",
    )
    return dmc.MantineProvider(
        [
            dcc.Store(id="go"),
            dmc.NotificationContainer(id="notices", position="bottom-right"),
            dmc.AppShell(
                [
                    dmc.AppShellHeader(header),
                    dmc.AppShellMain(
                        dmc.Container(
                            [html.Div(id="store-notes"), dash.page_container],
                            fluid=True,
                            px=0,
                            maw=1500,
                        )
                    ),
                ],
                header={"height": 56},
                padding="md",
            ),
        ],
        defaultColorScheme="auto",
        theme=_THEME,
    )


def _register_shell(app: Dash, recordings: Recordings) -> None:
    paths = {page: dash.page_registry[page.__name__]["path"] for page in _PAGES}
    names = [dash.page_registry[page.__name__]["name"].lower() for page in _PAGES]

    @app.callback(
        Output("run", "data"),
        Output("run", "value"),
        Output("run", "style"),
        Output("store-notes", "children"),
        *[Output(f"link-{name}", "href") for name in names],
        *[Output(f"link-{name}", "active") for name in names],
        Input(PAGE_ADDRESS, "pathname"),
        Input(PAGE_ADDRESS, "search"),
    )
    def show_where_we_are(pathname: str, search: str | None) -> tuple[Any, ...]:
        query = parameters(search)
        asked = query.get("run")
        runs = recordings.runs()
        kept = {"run": asked} if asked in runs else {}
        of_class = _class_shown(recordings, query)
        # A run that is not there is said in words; choosing another here would lead away from them.
        shown = asked if asked in runs else None if asked or not runs else runs[0]
        here = app.strip_relative_path(pathname) or ""
        addresses = []
        for page, path in paths.items():
            carried = dict(kept)
            if page in (explore, compare, subjects) and of_class is not None:
                carried["class"] = of_class
            suffix = f"?{urlencode(carried)}" if carried else ""
            addresses.append(app.get_relative_path(path) + suffix)
        return (
            runs,
            shown,
            {} if len(runs) > 1 else {"display": "none"},
            [alert(note, title="Part of the store cannot be read") for note in _notes(recordings)],
            *addresses,
            *[here == path.strip("/") for path in paths.values()],
        )

    @app.callback(
        Output("go", "data", allow_duplicate=True),
        Input("run", "value"),
        State(PAGE_ADDRESS, "search"),
        prevent_initial_call=True,
    )
    def change_run(run: str | None, search: str | None) -> dict[str, Any]:
        query = parameters(search)
        if run is None or run == query.get("run", recordings.run(None)):
            raise PreventUpdate
        # A video of one run need not be in another; a class most likely is.
        kept = {name: query[name] for name in ("class", "with", "measure") if name in query}
        return go_to({"run": run} | kept)

    app.clientside_callback(
        ClientsideFunction("tssan_dash", "showLink"),
        *[Input(f"link-{name}", "active") for name in names],
    )
    app.clientside_callback(
        ClientsideFunction("tssan_dash", "goTo"), Input("go", "data"), prevent_initial_call=True
    )


def _notes(recordings: Recordings) -> list[str]:
    """Return what whoever looks at the store should know of its state."""
    try:
        return recordings.store.notes
    except UserError as error:
        return [str(error)]


def _class_shown(recordings: Recordings, query: dict[str, str]) -> str | None:
    """Return the class of which a page shows something, to be carried to the next page."""
    if "class" in query:
        return query["class"]
    if "sample" not in query:
        return None
    try:
        run = recordings.run(query.get("run"))
        name = recordings.samples(run).at[recordings.position(run, query["sample"]), "class_name"]
    except UserError:
        return None
    return name if isinstance(name, str) else None
