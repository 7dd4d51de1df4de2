"""Two persons who touch, or stand at one place, are told apart wherever poses are drawn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.stores import make_catalogue, make_poses, make_sites
from tests.stores import softmax_maps as softmax
from tssan_viz.store import StoredSample, open_store
from tssan_viz.views import page as page_of
from tssan_viz.views import sample_payload

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tssan_viz.views import Payload

T = 8


def touching(path: Path, view: Any, *, apart: float, person: list[int | None]) -> Payload:
    """Return a video of two persons whose hands meet, or, 0 apart, who stand in each other."""
    rng = np.random.default_rng(2)
    store = open_store(path, create=True)
    sites = make_sites(1, 2, T)
    frames = np.arange(T, dtype=np.float32)[None]
    poses = make_poses(rng, 1, 1, T)
    # The other faces the first.
    other = poses * np.array([-1, 1, 1], np.float32) + np.array([apart, 0, 0], np.float32)
    both = np.concatenate([poses, other if apart else poses])
    with store.writer("run", sites=sites, catalogue=make_catalogue(["reading"]), info={}) as writer:
        described = ("a", 0, "reading", "A011", 1, 1)
        there = np.ones((2, 1), bool)
        writer.add_samples([StoredSample(*described, frames, frames / 30, both, there)])
        many = len(person)
        maps = softmax(rng, (many, 2, T, T)).astype(np.float16)
        columns = {"sample": ["a"] * many, "label": 0, "segment": 1, "person": person}
        writer.add(columns, {sites[0].name: maps})
    return sample_payload(store.select(), view=view)


def colours_of(picture: bytes) -> tuple[int, int]:
    """Return how many pixels are of the first person's ink and how many of the second's.

    The second's is orange on any paper; the first's is grey or blue.
    """
    red, _, blue = np.moveaxis(
        np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=int), -1, 0
    )
    paper = np.bincount(red.ravel()).argmax()
    first = (red - blue <= 6) & (np.abs(red - paper) > 70)
    return int(first.sum()), int((red - blue > 40).sum())


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("apart", [0.0, 0.5])
@pytest.mark.parametrize(
    ("view", "person"), [("head", [1, 2]), ("head", [None]), ("strip", [1, 2]), ("player", [1, 2])]
)
def test_both_persons_are_seen_where_they_touch(
    browser: Browser, tmp_path: Path, view: str, person: list[int | None], apart: float, theme: Any
) -> None:
    kind = "head" if view == "strip" else view
    payload = touching(tmp_path / "store", kind, apart=apart, person=person)
    path = tmp_path / "view.html"
    locked = {"side": "query", "frame": 3} if view == "strip" else None
    path.write_text(page_of(payload, {"locked": locked, "orientation": "horizontal"}))
    context = browser.new_context(viewport={"width": 900, "height": 900}, color_scheme=theme)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
        page.evaluate(
            "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
        )
        canvas = page.locator("canvas.strip" if view == "strip" else ".stage canvas").first
        box = canvas.bounding_box()
        assert box is not None
        clip = dict(box)
        if view == "head":  # the queries' poses alone: no line, no colour of a head
            clip |= {"x": box["x"] + 48, "width": box["width"] - 48}
            clip |= {"y": box["y"] + 44, "height": 44}
        elif view == "player":
            clip["height"] = box["height"] - 46
        first, second = colours_of(page.screenshot(clip=clip))
    finally:
        context.close()
    assert first > 100, "pixels of the first person"
    assert second > 100, "pixels of the second"
