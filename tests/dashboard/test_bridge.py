"""The component that runs a module of the anywidget shape inside Dash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from dash import Dash, Input, Output, State, html
from flask import Response
from tssan_dash.bridge import View

from tests.dashboard.conftest import listening
from tests.dashboard.test_pages import PATIENCE_SECONDS, comes_to

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MODULE = """
let mounts = 0;
export default {
  render({ model, el }) {
    const mount = ++mounts;
    const button = document.createElement("button");
    const words = document.createElement("output");
    const bytes = model.get("numbers");
    const show = () => {
      words.textContent = [
        mount, model.get("title"), model.get("count"), model.get("colour"),
        bytes.byteLength, bytes.getUint8(0),
      ].join(" ");
    };
    button.textContent = "more";
    button.addEventListener("click", () => {
      model.set("count", model.get("count") + 1);
      model.save_changes();
    });
    model.on("change:count", show);
    model.on("change:colour", show);
    el.append(button, words);
    show();
    return () => { window.ended = [...(window.ended ?? []), mount]; };
  },
};
"""


def make_app() -> Dash:
    app = Dash("bridge_test", include_assets_files=False, update_title="")

    @app.server.get("/module.mjs")
    def module() -> Response:
        return Response(MODULE, mimetype="text/javascript")

    @app.server.get("/numbers")
    def numbers() -> Response:
        return Response(bytes(range(64)), mimetype="application/octet-stream")

    @app.server.get("/gone")
    def gone() -> Response:
        return Response("the <b>store</b> has changed", status=409, mimetype="text/plain")

    app.layout = html.Div(
        [
            View(
                id="view",
                module="/module.mjs",
                values={"title": "first"},
                buffers={"numbers": {"url": "/numbers", "offset": 16, "length": 8}},
                state={"count": 0, "colour": "red"},
            ),
            View(id="other", module="/module.mjs", values={"title": "other"}, state={"count": 5}),
            html.P(id="said"),
            *[html.Button(name, id=name) for name in ("paint", "change", "fill", "break")],
        ]
    )

    @app.callback(Output("said", "children"), Input("view", "state"))
    def say(state: dict) -> str:
        return f"count {state['count']}, {state['colour']}"

    @app.callback(
        Output("view", "state"),
        Input("paint", "n_clicks"),
        State("view", "state"),
        prevent_initial_call=True,
    )
    def paint(_clicks: int, state: dict) -> dict:
        return state | {"colour": "blue"}

    @app.callback(
        Output("view", "values"),
        Output("view", "buffers"),
        Input("change", "n_clicks"),
        prevent_initial_call=True,
    )
    def change(_clicks: int) -> tuple[dict, dict]:
        return {"title": "second"}, {"numbers": "/numbers"}

    @app.callback(Output("other", "buffers"), Input("fill", "n_clicks"), prevent_initial_call=True)
    def fill(_clicks: int) -> dict:
        return {"numbers": "/numbers"}

    @app.callback(
        Output("view", "buffers", allow_duplicate=True),
        Input("break", "n_clicks"),
        prevent_initial_call=True,
    )
    def break_it(_clicks: int) -> dict:
        return {"numbers": "/gone"}

    return app


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(make_app()) as address:
        yield address


def expect_text(page: Page, selector: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text, timeout=1000 * PATIENCE_SECONDS)


def test_state_goes_both_ways_without_a_new_mount(page: Page, address: str) -> None:
    page.goto(address)
    expect_text(page, "#view output", "1 first 0 red 8 16")
    page.click("#view button")
    expect_text(page, "#view output", "1 first 1 red 8 16")
    expect_text(page, "#said", "count 1, red")
    page.click("#paint")
    expect_text(page, "#view output", "1 first 1 blue 8 16")
    page.click("#view button")
    expect_text(page, "#said", "count 2, blue")


def test_new_data_mounts_anew_with_the_state_of_now(page: Page, address: str) -> None:
    page.goto(address)
    page.click("#view button")
    page.click("#change")
    expect_text(page, "#view output", "2 second 1 red 64 0")
    comes_to(page, lambda: page.evaluate("window.ended"), [1])


def test_a_view_waits_until_it_is_said_what_to_show(page: Page, address: str) -> None:
    page.goto(address)
    expect_text(page, "#view output", "1 first 0 red 8 16")
    expect_text(page, "#other", "")
    page.click("#fill")
    expect_text(page, "#other output", "2 other 5  64 0")


def test_one_address_is_fetched_once(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect_text(page, "#view output", "1 first 0 red 8 16")
    page.click("#fill")
    expect_text(page, "#other output", "2 other 5  64 0")
    comes_to(page, lambda: asked.count(f"{address}/numbers"), 1)


def test_a_failure_is_said_as_text(browser: Browser, address: str) -> None:
    # Not the fixture `page`: Chromium itself reports the refused request as an error.
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    expect_text(page, "#view output", "1 first 0 red 8 16")
    page.click("#break")
    expect_text(
        page, "#view [role=alert]", "This picture cannot be drawn: the <b>store</b> has changed"
    )
    page.click("#change")
    expect_text(page, "#view output", "2 second 0 red 64 0")
    context.close()
