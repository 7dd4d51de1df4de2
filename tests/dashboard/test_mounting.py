"""The dashboard below a prefix, in somebody else's server, and in a notebook."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import tssan_dash
from dash import Dash
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from tests.dashboard.test_pages import wait_drawn, wait_query, wait_text
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def below(two_runs: AttentionStore) -> Dash:
    return tssan_dash.create_app(two_runs, url_base_pathname="/lab/attention/")


@pytest.fixture(scope="module")
def mounted(below: Dash, two_runs: AttentionStore) -> Iterator[str]:
    """A Flask application of one's own with two dashboards in it; gives its address."""
    mine = Flask("mine")
    mine.add_url_rule("/", view_func=lambda: "mine")
    other = tssan_dash.create_app(two_runs.url, url_base_pathname="/other/")
    mine.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        mine.wsgi_app, {"/lab/attention": below.server, "/other": other.server}
    )
    server = make_server("127.0.0.1", 0, mine, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def addresses(html: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]*)"', html)


def test_what_a_page_names_lies_below_the_prefix(below: Dash) -> None:
    client: FlaskClient = below.server.test_client()
    for path in ("/lab/attention/", "/lab/attention/explore", "/"):
        page = client.get(path)
        assert page.status_code == 200
        assert addresses(page.text)
        for address in addresses(page.text):
            assert address.startswith("/lab/attention/")
            assert client.get(address).status_code == 200


@pytest.mark.parametrize("prefix", ["/lab/attention/", "/other/"])
def test_every_page_works_where_it_is_mounted(page: Page, mounted: str, prefix: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(mounted)))
    page.goto(f"{mounted}{prefix}")
    wait_text(page, "#overview-cards", "Accuracy")
    page.click("#link-explore")
    wait_drawn(page, "explore-head")
    page.click("#explore-next")
    wait_query(page, sample="S001C001P001R002A001")
    wait_drawn(page, "explore-head")
    page.click("#link-compare")
    wait_drawn(page, "compare-maps")
    page.goto(f"{mounted}{prefix}")
    page.locator("#overview-heads td a").first.click()
    wait_text(page, "#_pages_content", "head 1")
    page.goto("about:blank")
    # Chromium asks for /favicon.ico of its own accord.
    strangers = [path for path in asked if not path.startswith((prefix, "about:", "/favicon"))]
    assert not strangers


def test_the_token_leads_back_below_the_prefix(two_runs: AttentionStore) -> None:
    app = tssan_dash.create_app(
        two_runs, token="correct horse battery", url_base_pathname="/lab/attention/"
    )
    answer = app.server.test_client().get("/lab/attention/compare?token=correct+horse+battery")
    assert answer.headers["Location"] == "/lab/attention/compare"
    assert "Path=/lab/attention/" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("prefix", ["", "lab", "/lab", "lab/", "//evil.example/", "/a b/", "/<x>/"])
def test_a_prefix_that_is_none_is_said(two_runs: AttentionStore, prefix: str) -> None:
    with pytest.raises(UserError, match="/attention/"):
        tssan_dash.create_app(two_runs, url_base_pathname=prefix)


NOTEBOOK = """
import tssan_dash
app = tssan_dash.create_app({store!r})
app.run(jupyter_mode="inline", port={port}, jupyter_height=700)
"""


@pytest.mark.slow
def test_it_runs_in_a_notebook(small_store: AttentionStore, tmp_path) -> None:
    nbclient = pytest.importorskip("nbclient")
    import socket

    import nbformat

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check = f"""
import urllib.request
answer = urllib.request.urlopen("http://127.0.0.1:{port}/explore", timeout=60)
print(answer.status, answer.headers["Content-Security-Policy"])
"""
    cells = [NOTEBOOK.format(store=small_store.url, port=port), check]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = str([output.get("data") for output in notebook.cells[0].outputs])
    assert f"http://127.0.0.1:{port}/" in shown
    said = notebook.cells[1].outputs[0]["text"]
    assert said.startswith("200 ")
    assert "frame-ancestors 'self' http://localhost:*" in said
