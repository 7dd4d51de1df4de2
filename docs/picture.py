"""Make the README's picture from the demo's page: `python docs/picture.py demo/head-view.html`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

QUERY = 14  # of the 32 frames of a segment: an arm is on its way into the sleeve


def take(page_file: Path, picture: Path) -> None:
    """Open the head view, lock one query frame and photograph it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 690})
        page.goto(page_file.resolve().as_uri())
        stage = page.get_by_role("application")
        stage.focus()
        page.keyboard.press("Home")
        for _ in range(QUERY):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        stage.blur()
        page.wait_for_timeout(500)
        page.screenshot(path=picture, full_page=True)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/picture.py demo/head-view.html")
    take(Path(sys.argv[1]), Path(__file__).with_name("head-view.png"))
