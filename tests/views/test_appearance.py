"""What every view looks like and how it reads: accessibility, and pictures kept for comparison."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.stores import make_store
from tssan_viz.views import heatmaps_payload, sample_payload
from tssan_viz.views import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWS = ("head", "model", "heat", "player", "explore", "heatmaps")
ALONE = tuple(view for view in VIEWS if view != "explore")  # which begins with the head view
PICTURES = Path(__file__).parent / "pictures"
SIDE = 64


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("appearance") / "store"
    store = make_store(path, subjects=1, cameras=(1,), replications=(1,), classes=("reading",))
    found = {view: sample_payload(store.select(), view=view) for view in VIEWS[:-1]}
    maps = np.random.default_rng(0).dirichlet(np.full(16, 0.3), (3, 16))
    titles = ["reading", "drink water", "difference"]
    shown = np.stack([maps[0], maps[1], maps[0] - maps[1]])
    found["heatmaps"] = heatmaps_payload(shown, titles, ["seq", "seq", "div"])
    return found


def opened(browser: Browser, payload: Any, path: Path, theme: Any, **state: Any) -> Page:
    context = browser.new_context(viewport={"width": 1200, "height": 800}, color_scheme=theme)
    page = context.new_page()
    path.write_text(page_of(payload, state), encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    page.evaluate(
        "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    )
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(
    browser, payloads, tmp_path: Path, view: str, theme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    locked = {"locked": {"side": "query", "frame": 4}}
    page = opened(browser, payloads[view], tmp_path / "view.html", theme, **locked)
    try:
        assert page.locator("h1").count() == page.locator("main").count() == 1
        found = Axe().run(page).response["violations"]
    finally:
        page.context.close()
    serious = [
        (rule["id"], node["html"], node["failureSummary"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious


def coarse(picture: bytes) -> np.ndarray:
    """Return a picture's greys, so few that the fonts of a machine do not show in them."""
    image = Image.open(io.BytesIO(picture)).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)


def unlike(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far two coarse pictures are apart: a share of white, where they differ most.

    The mean over blocks of 8 × 8 is compared, so that what moves by a pixel does not count.
    """
    blocks = (one - other).reshape(8, SIDE // 8, 8, SIDE // 8).mean(axis=(1, 3))
    return float(np.abs(blocks).max()) / 255


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ALONE)
def test_views_look_as_they_were_kept(
    browser, payloads, tmp_path: Path, view: str, theme: str
) -> None:
    """To keep a new picture, delete the old one, run this test, look at the new one, commit it."""
    locked = {"locked": {"side": "query", "frame": 4}, "orientation": "horizontal"}
    page = opened(browser, payloads[view], tmp_path / "view.html", theme, **locked)
    try:
        parts = page.locator(".stage canvas, .maps canvas")
        seen = coarse(parts.nth(0).screenshot())
    finally:
        page.context.close()
    kept = PICTURES / f"{view}-{theme}.png"
    if not kept.exists():
        PICTURES.mkdir(exist_ok=True)
        Image.fromarray(seen.astype(np.uint8)).save(kept, optimize=True)
        pytest.fail(f"{kept} was not there and has been written: look at it and commit it")
    assert unlike(seen, coarse(kept.read_bytes())) < 0.06


def test_the_comparison_tells_pictures_apart() -> None:
    """The tolerance passes other fonts and fails what is missing, mirrored or of another theme."""
    kept = {path.stem: coarse(path.read_bytes()) for path in sorted(PICTURES.glob("*.png"))}
    assert len(kept) == 2 * len(ALONE)
    for name, picture in kept.items():
        assert unlike(picture, np.full_like(picture, np.median(picture))) > 0.06, name
        if "head" in name or "heat-" in name:
            assert unlike(picture, picture[:, ::-1]) > 0.06, name
    for view in VIEWS[:4]:
        assert unlike(kept[f"{view}-light"], kept[f"{view}-dark"]) > 0.06
