"""Every page for who cannot see it well or uses no mouse: axe-core, and the keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tssan_dash.app import create_app
from tssan_dash.pages.charts import names_beside

from tests.conftest import stays_on_this_machine
from tests.dashboard.conftest import listening
from tests.dashboard.test_pages import until, wait_drawn, wait_query, wait_text
from tests.evidence.networks import planted_clips
from tests.evidence.test_ablation import Small, batches
from tests.evidence.test_faithfulness import known
from tests.stores import make_store
from tssan_viz.evidence.ablation import head_importance
from tssan_viz.evidence.kept import FAITHFULNESS, HEADS, keep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

axe = pytest.importorskip("axe_playwright_python")
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

# Each page, and what is there when all of it is.
PAGES = {
    "/": "#overview-heads td a",
    "/explore": "#explore-maps[aria-busy=false] canvas",
    "/compare?class=reading": "#compare-maps[aria-busy=false] canvas",
    "/subjects": "#_pages_content *",
    "/training": "#training-charts *, #_pages_content [role=alert]",
    "/evidence": "#_pages_content *",
    "/explore?run=none": "#_pages_content [role=alert]",
}


@pytest.fixture
def visit(browser: Browser) -> Iterator[Page]:
    pages = []
    strangers: list[str] = []

    def open_(scheme: str, width: int) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.on(
            "request",
            lambda r: None if stays_on_this_machine(r.url) else strangers.append(r.url),
        )
        pages.append(context)
        return page

    yield open_  # type: ignore[misc]
    for context in pages:
        context.close()
    assert not strangers, f"the page asked other machines: {strangers}"


def settled(page: Page) -> None:
    """Wait until nothing is under way and nothing has changed for a while."""
    until(
        page,
        """() => {
            const text = document.body.innerText.length + ":" +
                document.querySelectorAll("*").length;
            const still = window.tssanSeen === text;
            window.tssanSeen = text;
            const busy = document.querySelector("[aria-busy=true], ._dash-loading");
            return still && !busy;
        }""",
    )
    page.wait_for_timeout(300)


def findings(page: Page) -> list[str]:
    """Return what axe-core finds that is serious or critical, each with the place of one."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"] or found["inapplicable"], "axe has looked at nothing"
    return [
        f"{one['impact']} {one['id']}: {one['help']} "
        f"({len(one['nodes'])}, {json.dumps(one['nodes'][0]['html'])[:200]})"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.slow),
        pytest.param("dark", 1440, marks=pytest.mark.slow),
        pytest.param("light", 1440, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious(dashboard: str, visit, scheme: str, width: int) -> None:
    page = visit(scheme, width)
    faults = []
    for path, there in PAGES.items():
        page.goto(dashboard + path)
        page.locator(there).first.wait_for(timeout=30_000)
        settled(page)
        faults += [f"{path}: {words}" for words in findings(page)]
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            faults.append(f"{path}: the page is {wide} px wider than the window")
    assert not faults, "\n".join(faults)


def test_axe_finds_nothing_serious_in_what_was_tested(visit, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=3, cameras=(1,), classes=("reading", "jump"))
    importance = head_importance(Small().eval(), batches(planted_clips(16)))
    told = replace(importance, decodable=np.array([[0.2, 0.4], [0.3, 0.9]]))
    keep(store, "generated", HEADS, None, told.to_dict())
    for label in (None, 1):
        keep(store, "generated", FAITHFULNESS, label, known().to_dict())
    page = visit("dark", 390)
    with listening(create_app(store)) as address:
        page.goto(f"{address}/evidence")
        page.locator("#evidence-table-main .ag-row").first.wait_for(timeout=30_000)
        page.locator("main .js-plotly-plot .legendtext").nth(2).wait_for(timeout=30_000)
        settled(page)
        assert not findings(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto("about:blank")


def focused(page: Page) -> str:
    return page.evaluate(
        """() => {
            const node = document.activeElement;
            return node.id || node.getAttribute("aria-label") || node.innerText;
        }"""
    )


def test_a_video_is_reached_and_changed_with_the_keyboard_alone(page: Page, dashboard: str) -> None:
    page.goto(dashboard)
    wait_text(page, "#overview-cards", "Accuracy")
    way = []
    for _ in range(12):
        page.keyboard.press("Tab")
        way.append(focused(page))
        if way[-1] == "link-explore":
            break
    assert way[-1] == "link-explore", way
    page.keyboard.press("Enter")
    wait_drawn(page, "explore-head")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(focused(page))
        if "explore-next" in seen:
            break
    assert {"explore-class", "explore-subject", "explore-video", "explore-next"} <= seen
    page.keyboard.press("Enter")
    wait_query(page, sample="S001C001P001R002A001")
    wait_drawn(page, "explore-head")


def test_tab_leaves_a_table_in_which_arrows_go(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/compare?class=reading")
    page.locator("#compare-table .ag-row").first.wait_for(timeout=30_000)
    page.locator("#compare-table [row-id='1-2'] [col-id=W]").click()
    page.keyboard.press("ArrowRight")
    at = "document.activeElement.closest('[role=gridcell]')?.getAttribute('col-id')"
    until(page, f"() => {at} === 'B'")
    for _ in range(2):  # the second leaves what AG Grid puts behind its cells
        page.keyboard.press("Tab")
    until(page, "!document.activeElement.closest('.ag-cell')")
    until(page, "document.activeElement.closest('#compare-table') === null")


def test_every_stop_of_the_keyboard_has_a_name_and_can_be_seen(page: Page, dashboard: str) -> None:
    page.goto(f"{dashboard}/explore")
    wait_drawn(page, "explore-maps")
    settled(page)
    nameless = []
    for _ in range(60):
        page.keyboard.press("Tab")
        fault = page.evaluate(
            """() => {
                const node = document.activeElement;
                if (node === document.body) return null;
                const label = node.getAttribute("aria-label") || node.innerText || node.title
                    || (node.labels && node.labels.length && node.labels[0].innerText)
                    || node.getAttribute("aria-labelledby") || node.placeholder;
                const style = getComputedStyle(node);
                const around = getComputedStyle(node.parentElement);
                const marked = [style, around].some((s) =>
                    s.outlineStyle !== "none" || s.boxShadow !== "none" || s.borderColor !== "");
                const grid = node.closest(".ag-root-wrapper");
                return (label || grid) && marked ? null : node.outerHTML.slice(0, 200);
            }"""
        )
        if fault:
            nameless.append(fault)
    assert not nameless


FAINT_IN_CHARTS = """() => {
    const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((value) => {
            const part = Number(value) / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    const words = [...document.querySelectorAll(".js-plotly-plot text")].filter(
        (node) => node.textContent && node.checkVisibility());
    const faint = words.filter((node) => {
        const both = [light(getComputedStyle(node).fill), ground];
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5;
    });
    return [words.length, faint.map((node) => node.textContent)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_of_charts_can_be_read(page: Page, dashboard: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{dashboard}/subjects")
    page.locator("#subjects-decoding .js-plotly-plot .legendtext").first.wait_for(timeout=60_000)
    until(page, f"() => ({FAINT_IN_CHARTS})()[0] > 20")
    assert page.evaluate(FAINT_IN_CHARTS)[1] == []


def test_a_phone_shows_the_link_of_the_page_that_is_open(page: Page, dashboard: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{dashboard}/evidence")
    page.locator("#link-evidence[data-active]").wait_for()
    until(
        page,
        """() => {
            const link = document.querySelector("#link-evidence").getBoundingClientRect();
            const scheme = document.querySelector("#scheme").getBoundingClientRect();
            return link.left > 0 && link.right < scheme.left;
        }""",
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
def test_names_of_marks_do_not_lie_upon_each_other(places: list[tuple[float, float]]) -> None:
    found = names_beside([x for x, _ in places], [y for _, y in places])
    assert len(found) == len(places)
    same = [name for name, place in zip(found, places, strict=True) if place == places[0]]
    named = [name for name in same if name is not None]
    assert len(named) == len(set(named))


def test_marks_that_are_far_apart_are_all_named() -> None:
    corners = names_beside([0, 1, 0, 1], [0, 0, 1, 1])
    assert corners == ["top center"] * 4
