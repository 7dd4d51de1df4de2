"""The table of all videos on the page Explore, and the views of the one that is looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tssan_dash.app import create_app
from tssan_dash.filtering import Question, find
from tssan_dash.pages.videos import asked_in

from tests.dashboard.test_pages import (
    comes_to,
    open_page,
    query_of,
    until,
    visiting,
    wait_drawn,
    wait_query,
    wait_text,
)
from tests.stores import make_catalogue, make_store
from tssan_viz.store import AttentionStore

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page, Response

CELL = "#explore-grid .ag-row [col-id=sample]"
CATALOGUE = make_catalogue(("put on jacket", "reading"))
VIDEOS = pd.DataFrame(
    {
        "sample": ["a1", "a2", "b1", "b2"],
        "label": pd.array([0, 0, 1, None], "Int64"),
        "class_name": ["put on jacket", "put on jacket", "reading", None],
        "subject": pd.array([1, 2, 3, None], "Int64"),
        "camera": pd.array([1, 1, 2, None], "Int64"),
        "predicted_name": ["put on jacket", "reading", "reading", None],
        "correct": pd.array([True, False, True, None], "boolean"),
        "confidence": pd.array([0.9, 0.4, 0.6, None], "Float32"),
    }
)


def test_videos_are_found_by_alias_and_confused_ones_by_one_click(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    open_page(page, f"{dashboard}/explore")
    page.wait_for_selector("#explore-grid .ag-row")
    page.fill("#explore-search", "wear jacket")
    classes = "#explore-grid .ag-row [col-id=class_name]"
    until(
        page,
        """selector => {
            const shown = [...document.querySelectorAll(selector)].map(cell => cell.textContent);
            return shown.length > 0 && shown.every(name => name === "put on jacket");
        }""",
        classes,
    )
    page.fill("#explore-search", "")
    samples = two_runs.select(run="wide").samples()
    confused = sorted(samples.loc[~samples["correct"].astype(bool), "sample"])
    assert confused
    page.locator("#explore-confused").click()
    until(
        page,
        """names => {
            const rows = document.querySelectorAll("#explore-grid .ag-row [col-id=sample]");
            const shown = [...new Set([...rows].map(cell => cell.textContent))];
            return shown.length > 0 && shown.every(name => names.includes(name));
        }""",
        confused,
    )
    wait_text(page, "#explore-found", f"{len(confused)} of {len(samples)} videos")
    first = page.locator(CELL).first
    sample = first.inner_text()
    first.click()
    wait_query(page, sample=sample, confused="1")
    wait_text(page, "#explore-head", sample)
    # The arrows go through the confused ones only, in the order of the table.
    order = [
        name
        for name in samples.sort_values(["class_name", "subject", "camera", "replication"])[
            "sample"
        ]
        if name in confused
    ]
    page.click("#explore-next")
    wait_query(page, sample=order[order.index(sample) + 1], confused="1")
    wait_text(page, "#explore-head", order[order.index(sample) + 1])


def test_an_address_holds_the_filters_and_the_order(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    samples = two_runs.select(run="wide").samples()
    rule = {"confidence": {"filterType": "number", "type": "greaterThan", "filter": 0.8}}
    order = [{"colId": "confidence", "sort": "desc"}]
    sure = samples[samples["confidence"] > 0.8].sort_values("confidence", ascending=False)
    open_page(page, f"{dashboard}/explore?filter={json.dumps(rule)}&sort={json.dumps(order)}")
    wait_text(page, "#explore-found", f"{len(sure)} of {len(samples)} videos")
    until(
        page,
        """([cell, first]) =>
            document.querySelector(`[row-index='0'] ${cell}`)?.textContent === first""",
        ["[col-id=sample]", sure["sample"].iloc[0]],
    )
    assert json.loads(query_of(page)["filter"]) == rule


@pytest.mark.parametrize("view", ["model", "heat", "player", "explore"])
def test_another_view_shows_the_same_video_and_is_in_the_address(
    page: Page, dashboard: str, view: str
) -> None:
    titles = {
        "model": "Layers × heads",
        "heat": "Heat map",
        "player": "Skeleton",
        "explore": "All, linked",
    }
    open_page(page, f"{dashboard}/explore")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#explore-view label", has_text=titles[view]).click()
    wait_query(page, view=view)
    until(page, "document.querySelector('#explore-head').getAttribute('aria-busy') === 'false'")
    wait_drawn(page, "explore-head")
    assert not [url for url in asked if "buffer" in url], "the maps were there already"
    drawn = page.locator("#explore-head").inner_text()
    assert drawn
    open_page(page, page.url)
    wait_drawn(page, "explore-head")
    comes_to(page, page.locator("#explore-head").inner_text, drawn)
    comes_to(page, page.locator("#explore-maps-frame").is_visible, view in ("model", "player"))


def rows(**given: Any) -> list[str]:
    return list(find(VIDEOS, CATALOGUE, Question.of(given))["sample"])


def test_conditions_are_those_of_the_grid() -> None:
    assert rows() == ["a1", "a2", "b1", "b2"]
    assert rows(find="JACKET wear") == ["a1", "a2"]
    assert rows(find="A011") == ["b1"]
    assert rows(confused=True) == ["a2"]
    assert rows(filter={"correct": {"type": "equals", "filter": "yes"}}) == ["a1", "b1"]
    assert rows(filter={"confidence": {"type": "inRange", "filter": 0.5, "filterTo": 0.8}}) == [
        "b1"
    ]
    assert rows(filter={"subject": {"type": "blank"}}) == ["b2"]
    either = [{"type": "equals", "filter": 1}, {"type": "equals", "filter": 3}]
    assert rows(filter={"subject": {"operator": "OR", "conditions": either}}) == ["a1", "b1"]
    assert rows(sort=[{"colId": "confidence", "sort": "asc"}]) == ["a2", "b1", "a1", "b2"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
CONDITION = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["contains", "equals", "inRange", "blank", "lessThan", "x"])
        | ANYTHING,
        "filter": ANYTHING,
        "filterTo": ANYTHING,
        "conditions": ANYTHING,
        "operator": ANYTHING,
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "find": ANYTHING,
            "confused": ANYTHING,
            "filter": st.dictionaries(st.sampled_from(list(VIDEOS.columns)), CONDITION) | ANYTHING,
            "sort": st.lists(
                st.fixed_dictionaries(
                    {"colId": st.sampled_from(list(VIDEOS.columns)), "sort": st.just("asc")}
                )
            )
            | ANYTHING,
        },
    )
)
def test_no_question_of_a_browser_breaks_the_table(given_: dict[str, Any]) -> None:
    found = find(VIDEOS, CATALOGUE, Question.of(given_))
    assert set(found["sample"]) <= set(VIDEOS["sample"])


@given(st.dictionaries(st.sampled_from(["find", "confused", "filter", "sort"]), st.text()))
def test_no_address_breaks_the_question(query: dict[str, str]) -> None:
    assert asked_in(query) == Question.of(asked_in(query).to_dict())


def test_the_table_travels_a_hundred_rows_at_a_time(page: Page, tmp_path: Path) -> None:
    store = make_store(
        tmp_path / "store", subjects=8, replications=(1, 2, 3, 4), layers=1, heads=1, frames=8
    )
    blocks: list[tuple[int, int]] = []

    def look(response: Response) -> None:
        if "explore-grid.getRowsResponse" in (response.request.post_data or ""):
            sent = response.json().get("response", {}).get("explore-grid", {})
            block = sent.get("getRowsResponse")
            if block:
                blocks.append((len(block["rowData"]), block["rowCount"]))

    with visiting(page, create_app(store)) as address:
        page.on("response", look)
        open_page(page, f"{address}/explore")
        page.wait_for_selector("#explore-grid .ag-row")
        comes_to(page, lambda: blocks, [(100, 256)])
        page.evaluate("dash_ag_grid.getApi('explore-grid').ensureIndexVisible(230)")
        page.wait_for_selector("#explore-grid [row-index='230'] [col-id=sample]:not(:empty)")
        comes_to(page, lambda: set(blocks), {(100, 256), (56, 256)})


def test_one_click_leads_from_the_overview_to_the_confused_videos(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    samples = two_runs.select(run="wide").samples()
    confused = set(samples.loc[~samples["correct"].astype(bool), "sample"])
    page.goto(dashboard)
    page.get_by_role("link", name=f"{len(confused)} videos confused").click()
    wait_drawn(page, "explore-head")
    wait_query(page, confused="1")
    comes_to(page, lambda: query_of(page).get("sample") in confused, True)
    wait_text(page, "#explore-verdict", "taken for")


def test_another_video_takes_its_place_on_the_page(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample=S001C001P002R001A014&locked=key-3&layer=9")
    page.wait_for_selector(CELL)
    comes_to(page, page.locator("#explore-complaints [role=alert]").count, 1)
    page.evaluate("document.querySelector('#explore-grid .ag-root').id = 'the-same'")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(CELL).nth(1).click()
    sample = page.locator(CELL).nth(1).inner_text()
    wait_query(page, sample=sample, layer="2")
    wait_text(page, "#explore-head", sample)
    assert page.locator("#the-same").count() == 1, "the table was drawn anew"
    assert [url for url in asked if "_dash-update-component" in url][1:] == []
    assert "locked" not in query_of(page)
    comes_to(page, page.locator("#explore-complaints [role=alert]").count, 0)
    # The table marks the video that is shown, and the other pages are asked about its class.
    page.click("#explore-next")
    following = page.locator(CELL).nth(2).inner_text()
    wait_text(page, "#explore-head", following)
    until(
        page,
        """sample => document.querySelector("#explore-grid .ag-row-selected")
            ?.textContent.includes(sample)""",
        following,
    )
    link = page.locator("#link-compare")
    comes_to(page, lambda: "class=drink+water" in str(link.get_attribute("href")), True)
    # Dash knows of the first address only; the arrow leads back to it nevertheless.
    page.go_back()
    wait_text(page, "#explore-head", sample)
    page.go_back()
    wait_text(page, "#explore-head", "S001C001P002R001A014")
    comes_to(page, page.locator("#explore-video").input_value, "S001C001P002R001A014")


def test_back_to_the_address_that_dash_knows_draws_its_video(page: Page, dashboard: str) -> None:
    first = "S001C001P002R001A014"
    open_page(page, f"{dashboard}/explore?sample={first}&layer=2&segment=1&person=1")
    page.click("#explore-next")
    wait_text(page, "#explore-head", "S001C001P002R002A014")
    page.go_back()
    wait_text(page, "#explore-head", first)
    wait_query(page, sample=first)
    page.go_forward()
    wait_text(page, "#explore-head", "S001C001P002R002A014")


def test_a_row_is_chosen_again_after_the_arrow_has_led_away(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/explore?sample=S001C001P002R001A014")
    page.wait_for_selector(CELL)
    chosen = page.locator(CELL).nth(3).inner_text()
    for _ in range(2):
        page.locator(CELL).nth(3).click()
        wait_text(page, "#explore-head", chosen)
        page.click("#explore-next")
        wait_text(page, "#explore-head", page.locator(CELL).nth(4).inner_text())
