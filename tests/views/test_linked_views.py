"""Model view, heat map, player and the page of them all, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tssan_viz
from tests.stores import make_store
from tssan_viz.errors import UserError
from tssan_viz.views import page as page_of
from tssan_viz.views import sample_payload

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("linked") / "store"
    return make_store(path, subjects=2, cameras=(1,), replications=(1,), segments=2, persons=2)


@pytest.fixture
def shown(page: Page, tmp_path: Path) -> Callable[..., Page]:
    """Write a payload as a page, open it from the disk and wait until it is drawn."""

    def show(payload: Any, state: dict[str, Any] | None = None) -> Page:
        path = tmp_path / "view.html"
        path.write_text(page_of(payload, state), encoding="utf-8")
        page.goto(path.as_uri())
        settled(page)
        return page

    return show


def settled(page: Page) -> None:
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    page.evaluate(
        "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    )


def reading(page: Page, part: str) -> str:
    settled(page)
    return page.locator(f".part.{part} .reading").inner_text()


def weights(payload: Any) -> np.ndarray:
    return np.frombuffer(payload.buffers["maps"], "<f2").reshape(payload.manifest["maps"]["shape"])


def test_a_head_opened_in_the_model_view_is_open_in_all(shown, store) -> None:
    page = shown(sample_payload(store.select()))
    box = page.locator(".part.model canvas").bounding_box()
    # four columns of thumbnails right of 30 px: the third head of the first layer
    cell = (box["width"] - 30) / 4
    page.mouse.click(box["x"] + 30 + 2.4 * cell, box["y"] + 20 + 0.4 * cell)
    page.mouse.move(2, 2)
    assert page.locator(".part.head .heads button[aria-pressed=true]").all_inner_texts() == ["3"]
    assert reading(page, "head").startswith("Layer 1, 1 of 4 heads")
    assert reading(page, "heat").startswith("Layer 1, head 3.")


def test_the_heat_map_reads_the_stores_value_and_locks_for_all(shown, store) -> None:
    payload = sample_payload(store.select())
    page = shown(payload, {"layer": 2, "heads": [2]})
    stage = page.locator(".part.heat .stage")
    stage.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    row, column = 2, 2  # the first key goes to the first cell
    value = float(weights(payload)[0, 0, 1, 1, row, column])
    words = reading(page, "heat")
    labels = payload.manifest["labels"][0]
    assert words.startswith(f"Query frame {labels[row]} → key frame {labels[column]}: ")
    assert float(words.split(": ")[1].split(" ")[0]) == pytest.approx(value, rel=1e-4)
    page.keyboard.press("Enter")
    assert reading(page, "head").startswith(f"Query frame {labels[row]} ")
    assert "locked" in reading(page, "head")
    assert f"query frame {labels[row]} gives it" in reading(page, "player")
    stage.focus()
    page.keyboard.press("Escape")
    assert "locked" not in reading(page, "head")


def test_the_player_plays_turns_and_stops(shown, store) -> None:
    page = shown(sample_payload(store.select(), view="player"), {"locked": None})
    canvas = page.locator("canvas")
    picture = "() => document.querySelector('canvas').toDataURL()"
    before = page.evaluate(picture)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 110)
    page.mouse.up()
    settled(page)
    assert page.evaluate(picture) != before, "dragging turns it"
    page.get_by_label("speed").select_option("2")
    page.get_by_role("button", name="play").click()
    page.wait_for_function("() => Number(document.querySelector('input[type=range]').value) > 2")
    page.get_by_role("button", name="pause").click()
    at = page.get_by_role("slider").input_value()
    page.wait_for_timeout(200)
    assert page.get_by_role("slider").input_value() == at
    page.get_by_text("loop").click()
    page.get_by_role("button", name="play").click()
    page.get_by_role("button", name="play").wait_for()
    assert page.get_by_role("slider").input_value() == "15", "without the loop it ends at the end"


def test_a_threshold_leaves_the_strong_lines(shown, store) -> None:
    page = shown(sample_payload(store.select(), view="head"))
    every = page.locator(".reading").inner_text()
    page.get_by_label("threshold").select_option("0.5")
    settled(page)
    fewer = page.locator(".reading").inner_text()
    assert "50 % of the strongest" in fewer
    count = [int(words.split("the ")[1].split(" ")[0]) for words in (every, fewer)]
    assert 0 < count[1] < count[0]


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("view", ["head", "model", "heat", "player", "explore"])
def test_every_view_fits_its_page(shown, store, view: str, width: int) -> None:
    page = shown(sample_payload(store.select(), view=view))
    page.set_viewport_size({"width": width, "height": 800})
    settled(page)
    page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_one_frame_many_frames_and_no_poses(shown, tmp_path: Path) -> None:
    for frames, poses in ((1, True), (300, False)):
        store = make_store(
            tmp_path / f"of-{frames}",
            subjects=1,
            cameras=(1,),
            replications=(1,),
            layers=1,
            heads=1,
            frames=frames,
            poses=poses,
            classes=("reading", "drink water"),
        )
        page = shown(sample_payload(store.select()))
        assert page.locator(".part.player").count() == poses
        assert "Layer 1" in reading(page, "heat")
        if not poses:
            with pytest.raises(UserError, match="without poses"):
                sample_payload(store.select(), view="player")


def test_a_page_of_all_views_keeps_its_bound(store, tmp_path: Path) -> None:
    path = tssan_viz.save_html(store.select(), tmp_path / "view.html", view="explore")
    payload = sample_payload(store.select())
    poses = 4 * len(payload.buffers["poses"]) / 3
    assert path.stat().st_size - poses <= 2.8 * weights(payload).size + 60_000


def test_widgets_have_a_state_both_ways_and_a_page(store) -> None:
    for show in (
        tssan_viz.model_view,
        tssan_viz.heat_map,
        tssan_viz.player,
        tssan_viz.explore,
    ):
        widget = show(store.select(), layer=1, threshold=0.25)
        widget.frame = 3
        assert widget.state["frame"] == 3
        assert (widget.layer, widget.threshold) == (1, 0.25)
        assert "<iframe" in widget._repr_html_()
        assert '"threshold":0.25' in widget.to_html()
