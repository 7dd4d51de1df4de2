"""Maps and labels out of the common, in a real browser: said in words, never blank, never run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import traitlets

import tssan_viz
from tests.stores import make_catalogue, make_sites, make_store
from tssan_viz.store import StoredSample, open_store
from tssan_viz.views import page as page_of
from tssan_viz.views import sample_payload
from tssan_viz.views.payload import Payload

if TYPE_CHECKING:
    from playwright.sync_api import Page

LABELS = (
    "</script><script>window.taken = true</script>",
    "\"quoted\" & 'so'",
    "\u0634\u0631\u0628 \u0627\u0644\u0645\u0627\u0621",
    "very long " * 40,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("unusual") / "store"
    return make_store(path, subjects=1, cameras=(1,), replications=(1,), persons=2)


@pytest.fixture
def shown(page: Page, tmp_path: Path) -> Callable[..., Page]:
    def show(payload: Payload, **state: Any) -> Page:
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


def reading(page: Page, part: str = "head") -> str:
    settled(page)
    return page.locator(f".part.{part} .reading").inner_text()


def changed(payload: Payload, change: Callable[[np.ndarray], None]) -> Payload:
    """Return a payload whose maps (k, m, layer, h, q, s) were changed in place."""
    shape = payload.manifest["maps"]["shape"]
    maps = np.frombuffer(payload.buffers["maps"], "<f2").reshape(shape).copy()
    change(maps)
    return dataclasses.replace(payload, buffers={**payload.buffers, "maps": maps.tobytes()})


def test_rows_that_are_no_numbers_are_said_and_not_ranked(shown, store) -> None:
    def spoil(maps: np.ndarray) -> None:
        maps[0, 0, 1, :, 5] = np.nan
        maps[0, 0, 1, 0, 6, :4] = np.nan

    payload = changed(sample_payload(store.select()), spoil)
    page = shown(payload, locked={"side": "query", "frame": 5})
    assert "has no weight that is a number (NaN) in layer 2" in reading(page)
    assert page.locator(".strip").count() == 0
    page.locator(".part.head .stage").focus()
    page.keyboard.press("ArrowRight")
    words = reading(page)
    row = np.frombuffer(payload.buffers["maps"], "<f2").reshape(payload.manifest["maps"]["shape"])
    mean = np.nanmean(row[0, 0, 1, :, 6].astype(np.float32), axis=0)
    best = int(mean.argmax())
    label = payload.manifest["labels"][0][best]
    assert f"attends to key frames {label}: {mean[best]:.3f}" in words
    assert "68 of 1024 weights are no numbers (NaN) and are left out" in words
    page.keyboard.press("Escape")
    assert "(NaN) and are left out" in reading(page)
    assert "68 of 1024 weights are no numbers (NaN)" in reading(page, "heat")


def test_a_map_without_a_number_is_explained_in_every_view(shown, store) -> None:
    def spoil(maps: np.ndarray) -> None:
        maps[0, 0, 1] = np.nan

    page = shown(changed(sample_payload(store.select()), spoil))
    assert "not one weight is a number (NaN)" in reading(page)
    assert "1024 of 1024 weights are no numbers (NaN)" in reading(page, "heat")
    page.locator(".part.model .stage").focus()
    page.keyboard.press("ArrowRight")
    assert reading(page, "model") == "Layer 2, head 1: not one weight is a number (NaN)."


@pytest.mark.parametrize("keys", [7, 12, 15, 30])
def test_even_attention_is_called_even_whatever_float16_makes_of_it(
    shown, tmp_path: Path, keys: int
) -> None:
    store = make_store(
        tmp_path / "store",
        subjects=1,
        cameras=(1,),
        replications=(1,),
        classes=("reading", "drink water"),
        frames=keys,
    )

    def even(maps: np.ndarray) -> None:
        maps[:] = np.float16(1 / keys)

    page = shown(changed(sample_payload(store.select()), even))
    assert f"no weight lies above even attention (1/{keys})" in reading(page)


def test_labels_of_any_kind_are_text_and_repeat(shown, store) -> None:
    payload = sample_payload(store.select())
    labels = [LABELS[frame % 4] for frame in range(16)]
    manifest = payload.manifest | {"labels": [labels], "class_name": LABELS[0], "sample": LABELS[2]}
    page = shown(dataclasses.replace(payload, manifest=manifest))
    stage = page.locator(".part.head .stage")
    stage.focus()
    for label in LABELS:
        page.keyboard.press("ArrowRight")
        assert " ".join(label.split()) in " ".join(reading(page).split())
    page.keyboard.press("Enter")
    settled(page)
    assert page.evaluate("() => window.taken") is None
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 800})
        settled(page)
        page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_thousand_frames_scroll_and_say_what_is_drawn(shown, tmp_path: Path) -> None:
    store = make_store(
        tmp_path / "store",
        subjects=1,
        cameras=(1,),
        replications=(1,),
        classes=("reading", "drink water"),
        layers=1,
        heads=1,
        frames=1000,
    )
    page = shown(sample_payload(store.select(), view="head"))
    words = page.locator(".reading").inner_text()
    assert "the 1000 strongest of the" in words
    assert "There is room for the pose of every 6th frame." in words
    stage, page_width = page.evaluate(
        "() => [document.querySelector('.stage').scrollWidth, document.body.scrollWidth]"
    )
    assert stage > 4000 > page_width, "the stage scrolls, the page does not"


def test_a_locked_frames_strongest_frames_are_a_strip(shown, store) -> None:
    page = shown(sample_payload(store.select(), view="head"))
    assert page.locator(".strip").count() == 0
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settled(page)
    strip = page.locator(".strip")
    assert "12 that have most to do with it" in str(strip.get_attribute("aria-label"))
    before = strip.evaluate("(canvas) => canvas.toDataURL()")
    page.keyboard.press("End")
    settled(page)
    assert strip.evaluate("(canvas) => canvas.toDataURL()") != before
    page.keyboard.press("Escape")
    settled(page)
    assert strip.count() == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """One video at four steps, of which the second was recorded of one segment more."""
    store = open_store(tmp_path_factory.mktemp("trained") / "store", create=True)
    rng = np.random.default_rng(0)
    names = ("sample", "label", "class_name", "class_code", "subject", "camera")
    video = dict(zip(names, ("video", 0, "reading", "A011", 1, 1), strict=True))
    with store.writer(
        "run", sites=make_sites(2, 2, 8), catalogue=make_catalogue(("reading",))
    ) as writer:
        for step, segment in ((0, 1), (10, 1), (10, 2), (20, 1), (50, 1)):
            row = {**video, "segment": segment, "person": 1, "split": "test", "phase": "probe"}
            maps = rng.dirichlet(np.ones(8), (2, 1, 2, 8)).astype(np.float16)
            sites = {site.name: maps[i] for i, site in enumerate(make_sites(2, 2, 8))}
            writer.add({name: [value] for name, value in {**row, "step": step}.items()}, sites)
        times = np.arange(8, dtype=np.float32)[None]
        writer.add_samples(
            [
                StoredSample(
                    sample="video", label=0, class_name="reading", class_code="A011", subject=1,
                    camera=1, frames=np.repeat(times, 2, 0), seconds=None, poses=None, present=None,
                )
            ]
        )  # fmt: skip
    return store


def test_the_steps_of_a_video_are_chosen_by_a_slider(shown, trained) -> None:
    payload = sample_payload(trained.select())
    assert payload.manifest["steps"] == [0, 20, 50], "step 10 holds a segment more"
    earlier = np.frombuffer(payload.buffers["earlier"], "<f2")
    earlier = earlier.reshape(payload.manifest["earlier"]["shape"])
    for i, step in enumerate((0, 20)):
        [(_, stored)] = trained.select(step=step).iter_maps()
        assert np.array_equal(earlier[i, 0, 0], stored[0])
    page = shown(payload, locked={"side": "query", "frame": 3})
    slider = page.get_by_label("step", exact=True)
    assert slider.get_attribute("aria-valuetext") == "step 50"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "step 0"
    mean = earlier[0, 0, 0, 1, :, 3].astype(np.float32).mean(axis=0)
    assert f"{mean.argmax()}: {mean.max():.3f}" in reading(page)
    page.locator(".part.heat .stage").focus()
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    value = earlier[0, 0, 0, 1, :, 3, 1].astype(np.float32).mean()
    assert float(reading(page, "heat").split(": ")[1].split(" ")[0]) == pytest.approx(value, 1e-4)


def test_the_step_is_a_python_value(trained) -> None:
    widget = tssan_viz.head_view(trained.select())
    assert widget.step == 50
    widget.step = 20
    assert widget.state["step"] == 20
    assert '"step":20' in widget.to_html()
    with pytest.raises(traitlets.TraitError, match=r"step is one of \[0, 20, 50\]"):
        widget.step = 10


def test_many_steps_are_thinned(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from tssan_viz.views import payload

    size = len(sample_payload(trained.select(step=50)).buffers["maps"])
    monkeypatch.setattr(payload, "_EARLIER_BYTES", size)
    assert sample_payload(trained.select()).manifest["steps"] == [0, 50]
