"""What every view looks like and how it reads: accessibility, and pictures kept for comparison."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from tests.stores import JOINTS, make_catalogue, make_poses, make_sites, make_store
from tssan_viz.comparison.difference import difference_maps
from tssan_viz.store import StoredSample, open_store
from tssan_viz.views import (
    difference_payload,
    evolution_payload,
    heatmaps_payload,
    query_key_payload,
    sample_payload,
)
from tssan_viz.views import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tssan_viz.selection import Selection
    from tssan_viz.views import Payload

VIEWS = (
    *("head", "model", "heat", "player", "explore", "heatmaps"),
    *("joints", "compare", "evolution", "query-key"),
)
ALONE = tuple(view for view in VIEWS if view != "explore")  # which begins with the head view
PICTURES = Path(__file__).parent / "pictures"
SIDE = 64


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("appearance") / "store"
    store = make_store(path, subjects=1, cameras=(1,), replications=(1,), classes=("reading",))
    found = {view: sample_payload(store.select(), view=view) for view in VIEWS[:5]}
    maps = np.random.default_rng(0).dirichlet(np.full(16, 0.3), (3, 16))
    titles = ["reading", "drink water", "difference"]
    shown = np.stack([maps[0], maps[1], maps[0] - maps[1]])
    found["heatmaps"] = heatmaps_payload(shown, titles, ["seq", "seq", "div"])
    lost = np.linspace(-0.2, 1, len(JOINTS)).tolist()
    found["joints"] = replace(
        found["player"], manifest={**found["player"].manifest, "joints_lost": [lost]}
    )
    pair = ("reading", "drink water")
    planted = make_store(
        tmp_path_factory.mktemp("groups") / "store",
        cameras=(1,),
        frames=8,
        planted="reading",
        classes=pair,
    )
    groups = [planted.select(class_name=name) for name in pair]
    difference = difference_maps(*groups, permutations=200)
    found["compare"] = difference_payload(difference, pair)
    found["evolution"] = evolution_payload(trained(tmp_path_factory), layer=1, head=2)
    found["query-key"] = attending(tmp_path_factory)
    return found


def trained(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """Return videos of two classes whose maps grow apart over four steps."""
    rng = np.random.default_rng(1)
    sites = make_sites(1, 2, 12)
    pattern = rng.normal(size=(12, 12))
    store = open_store(tmp_path_factory.mktemp("steps") / "store", create=True)
    catalogue = make_catalogue(["reading", "drink water"])
    names = [entry.name for entry in catalogue.classes]
    with store.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        for grown, step in enumerate((0, 10, 50, 100)):
            for n in range(8):
                scores = 0.8 * grown * pattern * (1 if n % 2 else -1)
                row = {"sample": f"v{n}", "label": n % 2, "class_name": names[n % 2]}
                row |= {"segment": 1, "person": 1, "step": step, "subject": n // 2}
                maps = softmax(scores + 0.3 * rng.normal(size=(1, 2, 12, 12)), axis=-1)
                columns = {name: [value] for name, value in row.items()}
                writer.add(columns, {sites[0].name: maps.astype(np.float16)})
    return store.select()


def attending(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Return a video's queries and keys, beside the maps that they made."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 1, 2, 12, 6)).astype(np.float32)
    maps = softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(6), axis=-1)
    frames = np.arange(12, dtype=np.float32)[None]
    sites = make_sites(1, 2, 12)
    store = open_store(tmp_path_factory.mktemp("queries") / "store", create=True)
    with store.writer("run", sites=sites, catalogue=make_catalogue(["reading"]), info={}) as writer:
        poses, there = make_poses(rng, 1, 1, 12), np.ones((1, 1), bool)
        described = ("a", 0, "reading", "A011", 1, 1)
        writer.add_samples([StoredSample(*described, frames, frames / 30, poses, there)])
        row = {"sample": ["a"], "label": 0, "segment": [1], "person": 1}
        writer.add(row, {sites[0].name: maps[0, 0].astype(np.float16)})
    return query_key_payload(store.select(), q, k)


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

    locked = {"locked": {"side": "query", "frame": 4}, "lit": "joints"}
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
    if view == "joints":
        locked["lit"] = "joints"
    if view == "compare":
        locked |= {"layer": 2, "head": 1}
    page = opened(browser, payloads[view], tmp_path / "view.html", theme, **locked)
    try:
        parts = page.locator(".stage canvas, .maps canvas")
        # Of a comparison it is the difference that is kept.
        seen = coarse(parts.nth(2 if view == "compare" else 0).screenshot())
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
