"""The table of all videos on the page Explore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.dashboard.test_pages import open_page, until, wait_query, wait_text
from tssan_viz.store import AttentionStore

if TYPE_CHECKING:
    from playwright.sync_api import Page


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
    first = page.locator("#explore-grid .ag-row [col-id=sample]").first
    sample = first.inner_text()
    first.click()
    wait_query(page, sample=sample)
    wait_text(page, "#explore-head", sample)
