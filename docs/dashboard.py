"""Make the README's pictures of the dashboard: `python docs/dashboard.py demo/attention-store`."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright
from tssan_dash.app import create_app, make_server

# Name, colour scheme, height, address, and what has to be there before the picture is taken.
PICTURES: list[tuple[str, Literal["dark", "light"], int, str, list[str]]] = [
    (
        "dashboard-explore",
        "dark",
        1000,
        "/explore?class=put+on+jacket&view=explore&locked=query-14",
        ["#explore-head canvas"],
    ),
    (
        "dashboard-subjects",
        "light",
        1150,
        "/subjects?class=put+on+jacket&layer=1&head=7",
        ["#subjects-grid table", "#subjects-large canvas", "#subjects-decoding .js-plotly-plot"],
    ),
]


def take(store: Path, folder: Path) -> None:
    """Serve a store, and photograph some of its pages."""
    server = make_server(create_app(store), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, scheme, height, address, there in PICTURES:
            page = browser.new_page(viewport={"width": 1440, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{server.port}{address}")
            for part in there:
                page.locator(part).first.wait_for(timeout=300_000)
            page.wait_for_timeout(1500)
            picture = Image.open(io.BytesIO(page.screenshot()))
            # A palette is a third of the size, and nobody sees the difference.
            colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            colours.save(folder / f"{name}.png", optimize=True)
            page.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/dashboard.py demo/attention-store")
    take(Path(sys.argv[1]), Path(__file__).parent)
