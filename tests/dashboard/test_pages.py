"""The dashboard in a real browser."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from dash import Dash
from tssan_dash.app import create_app
from tssan_dash.recordings import Recordings

from tests.dashboard.conftest import listening
from tests.stores import make_sites, make_store
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

SAMPLE = "S001C001P002R001A014"

INK = """canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3]) colours.add((pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2]);
    }
    return colours.size;
}"""


# So long a test waits for what it has asked for; a busy machine may need most of it.
PATIENCE_SECONDS = 90


def until(page: Page, question: str, argument: object = None) -> None:
    """Wait until a function of the page says yes.

    Not Playwright's `wait_for_function`: that evaluates text in the page, which the page forbids.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not page.evaluate(question, argument):
        assert time.monotonic() < deadline, f"{question} stayed false at {page.url}"
        page.wait_for_timeout(50)


def comes_to(page: Page, look: Callable[[], object], wanted: object) -> None:
    """Wait until what is seen is what is wanted: what a click does comes piece by piece."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (seen := look()) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert seen == wanted


def wait_text(page: Page, selector: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=1000 * PATIENCE_SECONDS)


def wait_drawn(page: Page, view: str) -> None:
    canvas = page.locator(f"#{view}[aria-busy=false] canvas").first
    canvas.wait_for(timeout=1000 * PATIENCE_SECONDS)
    comes_to(page, lambda: canvas.evaluate(INK) > 3, True)


@contextmanager
def visiting(page: Page, app: Dash) -> Iterator[str]:
    """Serve an app for one page, which leaves before the server does."""
    with listening(app) as address:
        yield address
        page.goto("about:blank")


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    wait_drawn(page, "compare-maps" if "/compare" in address else "explore-head")


def query_of(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_query(page: Page, **wanted: str) -> None:
    for name, value in wanted.items():
        until(
            page,
            "([name, value]) => new URLSearchParams(location.search).get(name) === value",
            [name, value],
        )


def options(page: Page) -> Locator:
    """What the open select offers (the head view has selects of the browser's own)."""
    return page.locator(".mantine-Select-option:visible")


def choose(page: Page, select: str, search: str, option: str) -> None:
    page.click(f"#{select}")
    page.fill(f"#{select}", search)
    options(page).filter(has_text=option).first.click()


def state_of(page: Page) -> dict:
    """The head view's state as it stands in the controls."""
    return page.evaluate("dash_component_api.getLayout('explore-head').props.state")


def test_the_first_video_is_shown_with_the_maps_of_its_heads(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore")
    wait_drawn(page, "explore-maps")
    comes_to(page, page.title, "Explore · tssan-viz")
    comes_to(page, lambda: page.locator("#explore-maps canvas").count() >= 4, True)
    words = "Layer 2, each head, segment 1, person 1"
    comes_to(page, page.locator("#explore-maps-title").inner_text, words)
    comes_to(page, page.locator("#explore-class").input_value, "drink water (A001)")
    comes_to(page, page.locator("#explore-verdict").count, 1)


def test_a_class_is_found_by_its_alias_and_its_code(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore")
    page.click("#explore-class")
    page.fill("#explore-class", "Wear-Jacket")
    comes_to(page, options(page).all_inner_texts, ["put on jacket (A014)"])
    page.fill("#explore-class", "a023")
    comes_to(page, options(page).all_inner_texts, ["hand waving (A023)"])
    options(page).click()
    wait_query(page, sample="S001C001P001R001A023")
    wait_drawn(page, "explore-head")
    wait_text(page, "#explore-head", "hand waving")


def test_subject_video_and_the_next_one_are_chosen(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample={SAMPLE}")
    choose(page, "explore-subject", "5", "5")
    wait_query(page, sample="S001C001P005R001A014")
    wait_text(page, "#explore-head", "S001C001P005R001A014")
    choose(page, "explore-video", "R002", "R002")
    wait_query(page, sample="S001C001P005R002A014")
    wait_text(page, "#explore-head", "S001C001P005R002A014")
    page.click("#explore-next")
    wait_query(page, sample="S001C001P006R001A014")
    wait_text(page, "#explore-head", "S001C001P006R001A014")
    page.click("#explore-previous")
    wait_query(page, sample="S001C001P005R002A014")
    wait_text(page, "#explore-head", "S001C001P005R002A014")
    page.go_back()
    wait_query(page, sample="S001C001P006R001A014")
    wait_text(page, "#explore-head", "S001C001P006R001A014")
    comes_to(page, page.locator("#explore-subject").input_value, "6")


def test_back_leads_to_where_one_came_from(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore")
    first = page.locator("#explore-video").input_value()
    page.click("#explore-next")
    wait_text(page, "#explore-head", "S001C001P001R002A001")
    page.locator("#explore-head input[type=range]").fill("0")
    until(page, "() => new URLSearchParams(location.search).get('layer') === '1'")
    page.click("#explore-next")
    third = "S001C001P002R001A001"
    wait_text(page, "#explore-head", third)
    page.click("#link-compare")
    wait_drawn(page, "compare-maps")
    page.go_back()
    wait_text(page, "#explore-head", third)
    comes_to(page, lambda: state_of(page)["layer"], 1)
    page.go_back()
    page.go_back()
    wait_text(page, "#explore-head", first)


def test_who_clicks_twice_goes_two_steps(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample=S001C001P003R001A014")
    page.locator("#explore-next").dblclick()
    wait_text(page, "#explore-head", "S001C001P004R001A014")
    wait_query(page, sample="S001C001P004R001A014")


def test_the_verdict_is_the_stores(page: Page, dashboard: str, two_runs: AttentionStore) -> None:
    samples = two_runs.select(run="wide").samples()
    wrong, right = samples[~samples["correct"]].iloc[0], samples[samples["correct"]].iloc[0]
    open_page(page, f"{dashboard}/explore?sample={wrong['sample']}")
    words = f"taken for {wrong['predicted_name']}"
    comes_to(page, page.locator("#explore-verdict").inner_text, words)
    open_page(page, f"{dashboard}/explore?sample={right['sample']}")
    words = f"recognised as {right['class_name']}"
    comes_to(page, page.locator("#explore-verdict").inner_text, words)


def test_a_click_locks_a_frame_in_state_and_address(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample={SAMPLE}")
    canvas = page.locator("#explore-head .stage canvas").first
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] / 2, "y": 30})
    until(page, "() => new URLSearchParams(location.search).has('locked')")
    side, frame = query_of(page)["locked"].split("-")
    locked = {"side": side, "frame": int(frame)}
    comes_to(page, lambda: state_of(page)["locked"], locked)
    wait_text(page, "#explore-head", "locked")
    of_the_maps = "dash_component_api.getLayout('explore-maps').props.state.locked"
    comes_to(page, lambda: page.evaluate(of_the_maps), locked)
    # The address is enough for somebody else to see the same.
    open_page(page, page.url)
    comes_to(page, lambda: state_of(page)["locked"], locked)
    wait_text(page, "#explore-head", "locked")


def test_layer_and_person_are_shared_by_the_views(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    open_page(page, f"{dashboard}/explore?sample={SAMPLE}")
    wait_drawn(page, "explore-maps")
    fetched: list[str] = []
    page.on(
        "request",
        lambda request: fetched.append(request.url) if "favicon" not in request.url else None,
    )
    page.locator("#explore-head input[type=range]").fill("0")
    page.locator("#explore-head select[aria-label=person]").select_option("2")
    wait_query(page, layer="1", person="2", segment="1")
    wait_text(page, "#explore-maps-title", "Layer 1, each head, segment 1, person 2")
    wait_drawn(page, "explore-maps")
    assert not fetched, "what is there already is not asked for again"
    # Under the pointer stands the very value that the store holds.
    maps = two_runs.select(run="wide", sample=SAMPLE, layer=1, person=2, segment=1).maps()
    canvas = page.locator("#explore-maps canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.hover()
    reading = page.locator("#explore-maps .reading")
    comes_to(page, lambda: bool(re.search(r"Head 1 [\d.e-]+", reading.inner_text())), True)
    found = re.search(r"Head 1 ([\d.e-]+)", reading.inner_text())
    assert found
    assert abs(maps[0, 0, 0] - float(found[1])).min() < 1e-3


def test_a_deep_link_shows_what_it_says(page: Page, dashboard: str) -> None:
    link = f"{dashboard}/explore?sample={SAMPLE}&layer=1&locked=key-3&heads=1-3&segment=2&person=2"
    open_page(page, link)
    state = state_of(page)
    assert state["layer"] == 1
    assert state["locked"] == {"side": "key", "frame": 3}
    assert state["heads"] == [1, 3]
    assert (state["segment"], state["person"]) == (2, 2)
    pressed = page.locator("#explore-head .heads button[aria-pressed=true]")
    comes_to(page, pressed.all_inner_texts, ["1", "3"])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/explore?sample=S001C001P002R001A01", SAMPLE),
        (
            "/explore?sample=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
            "<img src=x onerror=alert(1)>",
        ),
        ("/explore?run=wild", "no run 'wild'"),
        ("/compare?class=put+on+jackett", "put on jacket"),
        ("/compare?layer=7&head=1", "no head 1 in a layer 7"),
        ("/nothing-here", "404"),
    ],
)
def test_what_is_not_there_is_said_in_words(
    page: Page, dashboard: str, path: str, words: str
) -> None:
    page.goto(dashboard + path)
    wait_text(page, "body", words)
    page.wait_for_timeout(1500)  # and nothing leads away from the words
    assert words in page.locator("body").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert "Traceback" not in page.locator("body").inner_text()


@pytest.mark.parametrize(
    ("path", "words", "control", "name"),
    [
        ("/compare?class=put+on+jackett&with=reading", "put on jackett", "compare-class", "class"),
        ("/compare?class=reading&with=jackett", "jackett", "compare-with", "with"),
        ("/subjects?class=put+on+jackett", "put on jackett", "subjects-class", "class"),
    ],
)
def test_beside_the_complaint_stands_the_form_that_mends_it(
    page: Page, dashboard: str, path: str, words: str, control: str, name: str
) -> None:
    page.goto(dashboard + path)
    wait_text(page, "[role=alert]", words)
    assert page.locator(f"#{control}").input_value() == ""
    choose(page, control, "wave", "hand waving")
    wait_query(page, **{name: "hand waving"})
    comes_to(page, page.locator("[role=alert]").count, 0)


def test_part_of_an_address_may_be_wrong(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample={SAMPLE}&layer=9")
    assert "There is no layer '9'" in page.locator("[role=alert]").inner_text()
    comes_to(page, lambda: state_of(page)["layer"], 2)


def test_the_run_is_chosen_in_the_header(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore")
    comes_to(page, page.locator("#run").input_value, "wide")
    page.click("#run")
    options(page).filter(has_text="narrow").click()
    wait_query(page, run="narrow")
    wait_drawn(page, "explore-head")
    wait_text(page, "#explore-maps-title", "Layer 2, each head")
    page.click("#link-compare")
    page.wait_for_selector("#compare-table .ag-row")
    wait_query(page, run="narrow")
    wait_text(page, "#compare-summary", "3 subjects")


def test_one_run_needs_no_choice(page: Page, small_store: AttentionStore) -> None:
    with visiting(page, create_app(small_store)) as address:
        open_page(page, f"{address}/explore")
        assert not page.locator("#run").is_visible()


def background(page: Page, selector: str) -> float:
    """The lightness (0 to 255) of what lies behind an element."""
    return page.evaluate(
        """selector => {
            for (let e = document.querySelector(selector); e; e = e.parentElement) {
                const colour = getComputedStyle(e).backgroundColor;
                const [r, g, b, a] = colour.match(/[\\d.]+/g).map(Number);
                if (a === undefined || a > 0) return (r + g + b) / 3;
            }
            return 255;
        }""",
        selector,
    )


def test_page_views_and_grid_follow_the_theme_which_is_kept(page: Page, dashboard: str) -> None:
    page.emulate_media(color_scheme="dark")
    open_page(page, f"{dashboard}/compare")
    page.wait_for_selector("#compare-table .ag-row")
    parts = ("body", "#compare-maps .tssan-view", "#compare-table .ag-row")
    for part in parts:
        page.locator(part).first.wait_for()
        comes_to(page, lambda part=part: (part, background(page, part) < 90), (part, True))
    page.click("#scheme")
    until(page, "() => document.documentElement.dataset.mantineColorScheme === 'light'")
    for part in parts:
        comes_to(page, lambda part=part: (part, background(page, part) > 200), (part, True))
    view = page.locator("#compare-maps .tssan-view").first
    comes_to(page, lambda: view.get_attribute("data-theme"), "light")
    open_page(page, f"{dashboard}/explore")
    comes_to(page, lambda: background(page, "#explore-head .tssan-view") > 200, True)


FAINT_WORDS = """() => {
    const rgba = (text) => {
        const numbers = text.match(/[\\d.]+/g).map(Number);
        const unit = text.startsWith("color(") ? 255 : 1;
        return [...numbers.slice(0, 3).map((n) => n * unit), numbers[3] ?? 1];
    };
    const over = (top, low) => [0, 1, 2].map((i) => top[i] * top[3] + low[i] * (1 - top[3]));
    const ground = (node) => {
        if (!node) return [255, 255, 255];
        return over(rgba(getComputedStyle(node).backgroundColor), ground(node.parentElement));
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const faint = [];
    for (const node of document.querySelectorAll("#_pages_content *, header *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        const words = own ? node.innerText : node.value ? "" : node.placeholder;
        const seen = node.checkVisibility({ checkOpacity: true });
        if (!words || !seen || node.closest("[disabled]")) continue;
        const below = ground(node);
        const style = getComputedStyle(node, own ? null : "::placeholder");
        const both = [light(over(rgba(style.color), below)), light(below)];
        const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (contrast < 4.5) faint.push(`${words}: ${contrast.toFixed(2)}`);
    }
    return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_words_can_be_read(page: Page, dashboard: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in (f"/explore?sample={SAMPLE}&layer=99", "/compare", "/compare?class=nonsense"):
        page.goto(dashboard + path)
        page.locator("#compare-table .ag-row, #explore-head canvas, [role=alert]").first.wait_for()
        comes_to(page, lambda path=path: (path, page.evaluate(FAINT_WORDS)), (path, []))


def test_nothing_runs_over_the_edge_of_a_narrow_page(page: Page, dashboard: str) -> None:
    page.set_viewport_size({"width": 500, "height": 900})
    for path in ("/explore", "/compare"):
        open_page(page, dashboard + path)
        until(page, "document.documentElement.scrollWidth <= 500")
        comes_to(page, page.locator("#scheme").is_visible, True)
        comes_to(page, page.locator("#link-compare").is_visible, True)


def test_an_error_of_a_callback_is_shown_as_a_notice(
    page: Page, two_runs: AttentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with visiting(page, create_app(two_runs)) as address:
        open_page(page, f"{address}/explore?sample={SAMPLE}")

        def fail(*_: object) -> None:
            raise ZeroDivisionError("nothing <i>left</i>")

        monkeypatch.setattr(Recordings, "position", fail)
        page.click("#explore-next")
        notice = page.locator(".mantine-Notification-root")
        notice.wait_for()
        wait_text(page, ".mantine-Notification-root", "ZeroDivisionError: nothing <i>left</i>")
        assert "Traceback" not in notice.inner_text()


def test_names_in_the_data_are_text_never_markup(page: Page, tmp_path: Path) -> None:
    markup = "<img src=x onerror=alert(1)>"
    store = make_store(tmp_path / "store", subjects=3, cameras=(1,), classes=(markup, "reading"))
    with visiting(page, create_app(store)) as address:
        open_page(page, f"{address}/explore")
        wait_text(page, "#explore-head", markup)
        open_page(page, f"{address}/compare")
        comes_to(page, page.locator("#compare-maps figcaption").first.inner_text, markup)
        assert page.locator("img[src=x]").count() == 0


def test_the_address_always_says_what_is_shown(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore")
    wait_query(page, sample="S001C001P001R001A001", layer="2")
    open_page(page, f"{dashboard}/compare")
    wait_query(page, **{"class": "put on jacket", "layer": "2", "head": "1"})


def test_one_question_is_worked_out_once_and_keeps_nobody_else_waiting(
    two_runs: AttentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = Recordings(two_runs)
    asked: list[str] = []
    go_on = threading.Event()

    def slow(_: object, sample: str) -> str:
        asked.append(sample)
        assert go_on.wait(PATIENCE_SECONDS)
        if sample == other:
            raise UserError("too few subjects")
        return sample

    other = SAMPLE.replace("P002", "P003")
    monkeypatch.setattr("tssan_dash.recordings.head_view_payload", slow)
    with ThreadPoolExecutor() as pool:
        same = [pool.submit(recordings.head_view, "wide", SAMPLE) for _ in range(3)]
        refused = pool.submit(recordings.head_view, "wide", other)
        assert len(recordings.samples("wide"))
        go_on.set()
        assert [future.result() for future in same] == [SAMPLE] * 3
        with pytest.raises(UserError, match="too few"):
            refused.result()
    assert sorted(asked) == [SAMPLE, other]
    with pytest.raises(UserError, match="too few"):
        recordings.head_view("wide", other)
    assert asked.count(other) == 2, "an error is not remembered"


def test_what_was_recorded_meanwhile_is_there_at_the_next_question(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    make_store(folder, subjects=2, cameras=(1,), classes=("reading",))
    store = open_store(folder)
    recordings = Recordings(store)
    before = recordings.samples("generated")
    assert recordings.samples("generated") is before
    catalogue, sites = store.catalogue("generated"), make_sites(2, 4, 16)
    with open_store(folder).writer(
        "generated", sites=sites, catalogue=catalogue, info=store.info("generated")
    ) as writer:
        maps = {site.name: np.full((1, 4, 16, 16), 1 / 16, np.float16) for site in sites}
        row = {"sample": "S001C001P009R001A011", "label": 0, "class_name": "reading", "subject": 9}
        row |= {"segment": 1, "person": 1, "step": 0, "phase": "inference"}
        writer.add({name: [value] for name, value in row.items()}, maps)
    assert len(recordings.samples("generated")) == len(before) + 1
    assert recordings.head_view("generated", "S001C001P009R001A011").manifest["subject"] == 9


def test_an_empty_store_says_so(page: Page, tmp_path: Path) -> None:
    with visiting(page, create_app(open_store(tmp_path / "empty", create=True))) as address:
        page.goto(address)
        wait_text(page, "body", "holds no run yet")


def test_two_windows_ask_at_the_same_time(browser: Browser, app: Dash) -> None:
    with listening(app) as address:
        context = browser.new_context()
        first, second = context.new_page(), context.new_page()
        first.goto(f"{address}/compare?class=reading")
        second.goto(f"{address}/compare?class=reading")
        for page in (first, second):
            wait_drawn(page, "compare-maps")
        context.close()
