"""The player lights joints: by attention between them, or by what was found out about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import traitlets
from PIL import Image

import tssan_viz
from tests.stores import JOINTS, make_catalogue, make_poses, make_sites, make_store
from tests.stores import softmax_maps as softmax
from tssan_viz.evidence.kept import keep_joints, kept_evidence, kept_joints
from tssan_viz.store import AttentionStore, StoredSample, open_store
from tssan_viz.views import sample_payload

FRAMES, V = 12, len(JOINTS)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> tuple[AttentionStore, str, np.ndarray]:
    """A video of two persons of which one joint counts: person 2's right hand."""
    path = tmp_path_factory.mktemp("explained") / "store"
    store = make_store(path, subjects=2, cameras=(1,), replications=(1,), persons=2)
    rows = store.select(class_name="reading").rows()
    sample = str(rows["sample"].iloc[0])
    lost = np.random.default_rng(0).normal(0, 0.1, (2, V))
    lost[1, 14] = 1.25
    keep_joints(store, store.latest_run(), int(rows["label"].iloc[0]), {sample: lost.tolist()})
    return store, sample, lost


@pytest.fixture(scope="module")
def spatial(tmp_path_factory: pytest.TempPathFactory) -> tuple[AttentionStore, np.ndarray]:
    """A network whose attention is between the 25 joints of two persons, one after the other."""
    rng = np.random.default_rng(3)
    store = open_store(tmp_path_factory.mktemp("spatial") / "store", create=True)
    sites = make_sites(1, 2, V)
    frames = np.arange(FRAMES, dtype=np.float32)[None]
    maps = softmax(rng, (2, 2, V, V)).astype(np.float16)
    with store.writer("run", sites=sites, catalogue=make_catalogue(["reading"]), info={}) as w:
        poses, there = make_poses(rng, 2, 1, FRAMES), np.ones((2, 1), bool)
        described = ("a", 0, "reading", "A011", 1, 1)
        w.add_samples([StoredSample(*described, frames, frames / 30, poses, there)])
        w.add(
            {"sample": ["a", "a"], "label": 0, "segment": 1, "person": [1, 2]},
            {sites[0].name: maps},
        )
    return store, maps


def test_what_was_kept_of_joints_is_read_and_added_to(explained, tmp_path: Path) -> None:
    store, sample, lost = explained
    run, label = store.latest_run(), int(store.select(sample=sample).rows()["label"].iloc[0])
    np.testing.assert_allclose(kept_joints(store, run, label, sample), lost, atol=1e-4)
    other = str(store.select(class_name="reading").rows()["sample"].iloc[-1])
    assert kept_joints(store, run, label, other) is None
    keep_joints(store, run, label, {other: [[0.5] * V]})
    assert kept_joints(store, run, label, other) == [[0.5] * V]
    assert kept_joints(store, run, label, sample) is not None, "others are left as they are"
    assert kept_joints(store, run, label + 1, sample) is None
    assert kept_joints(store, run, None, sample) is None
    assert kept_evidence(store, run) == [], "which is about the run"


def test_the_player_says_and_shows_which_joint_counts(page, explained, tmp_path: Path) -> None:
    store, sample, _ = explained
    widget = tssan_viz.player(store.select(), sample)
    assert widget.lit == "frames"
    page.goto(widget.save_html(tmp_path / "player.html").as_uri())
    page.get_by_text("on the mean it receives").wait_for()
    picture = "() => document.querySelector('canvas').toDataURL()"
    before = page.evaluate(picture)
    page.get_by_label("what is lit").select_option("joints")
    words = page.get_by_text("Joints lit by what the logit of reading loses when one rests")
    words.wait_for()
    assert f"most {JOINTS[14]} of person 2 1.250" in words.inner_text()
    assert page.evaluate(picture) != before
    with pytest.raises(traitlets.TraitError):
        widget.lit = "bones"


def test_without_an_explanation_frames_are_lit(page, spatial, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=1, classes=("reading",))
    assert "joints_lost" not in sample_payload(store.select()).manifest
    page.goto(tssan_viz.player(store.select()).save_html(tmp_path / "player.html").as_uri())
    page.get_by_text("on the mean it receives").wait_for()
    assert page.get_by_label("what is lit").count() == 0


def test_attention_between_joints_lights_them_and_a_click_locks_one(
    page, spatial, tmp_path: Path
) -> None:
    store, maps = spatial
    payload = sample_payload(store.select())
    assert payload.manifest["token"] == "joint"
    assert payload.manifest["labels"] == [list(JOINTS)]
    widget = tssan_viz.explore(store.select(), layer=1, heads=[2], person=2)
    page.goto(widget.save_html(tmp_path / "joints.html").as_uri())
    words = page.locator(".part.player .reading")
    words.get_by_text("attention that they receive, mean over query joints").wait_for()
    received = maps[1, 1].astype(np.float32).mean(0)
    assert f"most {JOINTS[received.argmax()]} {received.max():.3f}" in words.inner_text()
    assert "even attention, 0.040" in words.inner_text()
    # The left foot is the lowest of person 1, who is drawn faint; a click near it finds a joint.
    canvas = page.locator(".part.player canvas")
    box = canvas.bounding_box()
    for down in range(int(box["height"]) - 60, 60, -6):
        page.mouse.click(box["x"] + 0.62 * box["width"], box["y"] + down)
        if "what query joint" in words.inner_text():
            break
    name = words.inner_text().split("what query joint ")[1].split(" gives them")[0]
    row = maps[1, 1, JOINTS.index(name)].astype(np.float32)
    assert f"most {JOINTS[row.argmax()]} {row.max():.3f}" in words.inner_text()
    said = page.locator(".part.head .reading").inner_text()
    assert said.startswith(f"Query joint {name}"), "what is locked in one is locked in all"


def test_a_film_lights_the_joints_that_the_player_lights(
    explained, spatial, tmp_path: Path
) -> None:
    def yellow(path: Path) -> np.ndarray:
        with Image.open(path) as film:
            film.seek(3)
            picture = np.asarray(film.convert("RGB")).astype(int)
        assert picture.shape[0] > 476, "there is room for the scale"
        skeleton = picture[90:430]
        return np.argwhere(np.abs(skeleton - [253, 231, 37]).sum(axis=-1) < 60)

    store, sample, _ = explained
    player = tssan_viz.player(store.select(), sample, lit="joints")
    (rows, columns) = yellow(player.save(tmp_path / "lost.gif")).T
    assert len(rows) > 40, "a large dot"
    assert np.ptp(rows) < 30
    assert np.ptp(columns) < 30
    store, _ = spatial
    found = yellow(tssan_viz.player(store.select(), heads=[1]).save(tmp_path / "between.gif"))
    assert len(found) > 40
    assert (tmp_path / "lost.gif").read_bytes() == player.save(tmp_path / "b.gif").read_bytes()


def test_a_film_of_weights_that_are_no_numbers_has_no_warning(
    spatial, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    from tssan_viz.views.film import frame_weights, save_film
    from tssan_viz.views.payload import Payload, initial_state

    store = make_store(tmp_path / "store", subjects=1, classes=("reading",))
    payload = sample_payload(store.select())
    maps = np.frombuffer(payload.buffers["maps"], "<f2").reshape(payload.manifest["maps"]["shape"])
    holed = maps.copy()
    holed[0, 0, 1, 0] = np.nan
    holed[0, 0, 1, :, :, 3] = np.nan
    payload = Payload(payload.manifest, payload.buffers | {"maps": holed.tobytes()})
    state = initial_state(payload.manifest)
    weights = frame_weights(payload, state)
    expected = maps[0, 0, 1, 1:].astype(np.float32).mean(axis=(0, 1))
    assert np.isnan(weights[3])
    np.testing.assert_allclose(np.delete(weights, 3), np.delete(expected, 3), rtol=1e-5)
    assert save_film(payload, state, tmp_path / "film.gif").stat().st_size > 1000
    assert not recwarn.list
