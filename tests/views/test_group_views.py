"""The compare view and the evolution view: what they are given, and what a browser shows of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import traitlets

import tssan_viz
from tests.stores import make_catalogue, make_sites, make_store, softmax_maps
from tssan_viz.comparison.difference import difference_maps
from tssan_viz.errors import UserError
from tssan_viz.store import open_store
from tssan_viz.views import difference_payload, evolution_payload


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory):
    """Two classes of which one is planted in the last layer's head 1."""
    store = make_store(
        tmp_path_factory.mktemp("groups") / "store",
        cameras=(1,),
        frames=8,
        planted="reading",
        classes=("reading", "drink water"),
    )
    return store.select(class_name="reading"), store.select(class_name="drink water")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """One video at three steps."""
    rng = np.random.default_rng(1)
    sites = make_sites(1, 2, 6)
    maps = softmax_maps(rng, (3, 2, 6, 6)).astype(np.float16)
    maps[2] = 1 / 6
    store = open_store(tmp_path_factory.mktemp("steps") / "store", create=True)
    catalogue = make_catalogue(["reading"])
    with store.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        for i, step in enumerate((0, 10, 50)):
            row = {"sample": "a", "label": 0, "class_name": "reading", "segment": 1, "person": 1}
            writer.add(
                {name: [value] for name, value in {**row, "step": step}.items()},
                {sites[0].name: maps[i : i + 1]},
            )
    return store.select(), maps


def test_the_compare_view_is_given_the_analysis(groups) -> None:
    difference = difference_maps(*groups, permutations=200)
    payload = difference_payload(difference, ("reading", "drink water"))
    manifest = payload.manifest
    maps = np.frombuffer(payload.buffers["maps"], "<f4").reshape(manifest["maps"]["shape"])
    outlined = np.frombuffer(payload.buffers["outlined"], bool)
    outlined = outlined.reshape(manifest["outlined"]["shape"])
    place = manifest["places"].index([2, 1])
    assert (maps[place, 0] == difference.mean_a[place]).all()
    assert (maps[place, 2] == difference.difference[place]).all()
    assert (outlined == difference.significant).all()
    assert outlined[place].any(), "what was planted is found"


def test_the_compare_view_names_classes_and_counts_all_assignments(groups) -> None:
    few = [group.select(subject=[1, 2, 3, 4, 5, 6]) for group in groups]
    manifest = tssan_viz.compare_view(*few, permutations=200).manifest
    assert manifest["titles"][:2] == ["reading", "drink water"]
    assert "64 assignments (all)" in manifest["test"]
    with pytest.raises(UserError, match=r"no state 'heads'; did you mean 'head'\?"):
        tssan_viz.compare_view(*few, permutations=200, heads=[1])


def test_the_compare_view_outlines_and_changes_head(page, groups, tmp_path: Path) -> None:
    widget = tssan_viz.compare_view(*groups, permutations=200, names=("reading", "</script>"))
    assert (widget.layer, widget.head) == (2, 1)
    page.goto(widget.save_html(tmp_path / "compare.html").as_uri())
    page.get_by_text("are outlined").wait_for()
    assert page.locator("figcaption").all_inner_texts() == ["reading", "</script>", "difference"]
    picture = "() => document.querySelectorAll('figure canvas')[2].toDataURL()"
    page.wait_for_timeout(200)
    before = page.evaluate(picture)
    page.get_by_label("head").select_option("3")
    page.wait_for_function(f"before => ({picture})() !== before", arg=before)
    assert page.locator("figure").count() == 3
    with pytest.raises(traitlets.TraitError):
        widget.head = 9


def test_the_compare_view_shows_subjects_one_by_one(page, groups, tmp_path: Path) -> None:
    widget = tssan_viz.compare_view(*groups, permutations=200, names=("a", "b"), by="subject")
    shape = widget.manifest["parts"]["shape"]
    parts = np.frombuffer(widget.parts, "<f4").reshape(shape)
    assert shape[1] == 16, "eight subjects in each group"
    place = widget.manifest["places"].index([1, 3])
    mean = groups[1].select(subject=2).mean().sel(layer=1, head=3).values
    assert parts[place, 8 + 1] == pytest.approx(mean, abs=1e-6)
    page.goto(widget.save_html(tmp_path / "compare.html").as_uri())
    page.get_by_text("n = 8 subjects").wait_for()
    titles = page.locator("figcaption").all_inner_texts()
    assert titles[3:5] == ["a · subject 1", "a · subject 2"]
    assert page.locator("figure").count() == 3 + 16
    marks = page.get_by_text(f"▾ even attention, {1 / 8:.3f}")
    assert marks.count() == 2, "on the scale of the means and on that of the single maps"
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(
        """() => {
            const places = [...document.querySelectorAll("figure canvas")].map(
                (canvas) => Math.round(canvas.getBoundingClientRect().x));
            return new Set(places.slice(0, 3)).size === 1
                && document.documentElement.scrollWidth <= 390;
        }"""
    )
    boxes = [canvas.bounding_box() for canvas in page.locator("figure canvas").all()]
    assert len({round(box["x"]) for box in boxes[:3]}) == 1
    assert len({round(box["x"]) for box in boxes[3:]}) == 2, "many small ones stand in two columns"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_the_evolution_view_has_the_stores_means(trained) -> None:
    selection, stored = trained
    payload = evolution_payload(selection, layer=1, head=2)
    assert payload.manifest["steps"] == [0, 10, 50]
    maps = np.frombuffer(payload.buffers["maps"], "<f4").reshape(3, 6, 6)
    assert (maps == stored[:, 1].astype(np.float32)).all()
    (entropy,) = payload.manifest["lines"]
    assert entropy["values"][2] == pytest.approx(1, abs=1e-3), "even attention"
    assert entropy["values"][0] < 0.95
    with pytest.raises(UserError):
        evolution_payload(selection, layer=1, head=7)


def test_the_evolution_view_goes_through_the_steps(page, trained, tmp_path: Path) -> None:
    widget = tssan_viz.evolution_view(trained[0], layer=1, head=2)
    assert widget.step == 50
    page.goto(widget.save_html(tmp_path / "evolution.html").as_uri())
    page.get_by_text("Step 50:").wait_for()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("Step 10:").wait_for()
    assert page.locator("figcaption").inner_text() == "step 10"
    page.get_by_role("button", name="play").click()
    page.get_by_text("Step 50:").wait_for()
    page.get_by_text("Step 0:").wait_for()
