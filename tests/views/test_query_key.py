"""Queries and keys: what the view is given, and what a browser shows of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tssan_viz
from tests.stores import SKELETON, make_catalogue, make_poses, make_sites
from tssan_viz.errors import UserError
from tssan_viz.store import StoredSample, open_store
from tssan_viz.views import keep_queries, query_key_payload, sample_payload
from tssan_viz.views.vectors import copy_queries


def attention(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Two segments of one person, 2 layers, 3 heads, 10 frames, and what made their maps."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 2, 1, 2, 3, 10, 6)).astype(np.float32)
    sites, catalogue = make_sites(2, 3, 10), make_catalogue(["reading"])
    assert catalogue.skeleton is SKELETON
    store = open_store(tmp_path_factory.mktemp("query-key") / "store", create=True)
    frames = np.arange(20, dtype=np.float32).reshape(2, 10)
    there = np.ones((1, 2), bool)
    poses = make_poses(rng, 1, 2, 10)
    with store.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        sample = ("a", 0, "reading", "A011", 1, 1)
        writer.add_samples([StoredSample(*sample, frames, frames / 30, poses, there)])
        maps = attention(q, k)[:, 0].astype(np.float16)
        rows = {"sample": ["a", "a"], "label": 0, "segment": [1, 2], "person": 1}
        writer.add(rows, {site.name: maps[:, n] for n, site in enumerate(sites)})
    return store.select(), q, k


def test_the_plane_is_that_of_scikit_learn(made) -> None:
    from sklearn.decomposition import PCA

    selection, q, k = made
    payload = query_key_payload(selection, q, k)
    manifest = payload.manifest
    kept = np.frombuffer(payload.buffers["key_vectors"], "<f2").reshape(
        manifest["key_vectors"]["shape"]
    )
    assert (kept == k.astype(np.float16)).all()
    plane = np.frombuffer(payload.buffers["plane"], "<f4").reshape(manifest["plane"]["shape"])
    one_q, one_k = q[1, 0, 1, 2].astype(float), k[1, 0, 1, 2].astype(float)
    one_q, one_k = one_q - one_q.mean(0), one_k - one_k.mean(0)
    ratio = np.sqrt(np.linalg.norm(one_k) / np.linalg.norm(one_q))
    pca = PCA(2).fit(np.concatenate([one_q * ratio, one_k / ratio]))
    expected = np.stack([pca.transform(one_q * ratio), pca.transform(one_k / ratio)])
    found = plane[1, 0, 1, 2]
    for axis in range(2):
        sign = np.sign((found[..., axis] * expected[..., axis]).sum())
        assert found[..., axis] == pytest.approx(sign * expected[..., axis], abs=1e-4)
    share = manifest["explained"][1][0][1][2]
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)


def test_other_queries_and_shapes_are_refused(made) -> None:
    selection, q, k = made
    with pytest.raises(UserError, match="not what made them"):
        query_key_payload(selection, q, -k)
    with pytest.raises(UserError, match="they are"):
        query_key_payload(selection, q[:, :, :, :2], k[:, :, :, :2])
    flat = np.zeros_like(q)
    with pytest.raises(UserError, match="not what made them"):
        query_key_payload(selection, flat, flat)


@pytest.mark.parametrize("width", [1200, 390])
def test_a_token_is_pointed_at_locked_and_told(page, made, tmp_path: Path, width: int) -> None:
    selection, q, k = made
    view = tssan_viz.query_key_view(selection, q, k, layer=2, heads=[3])
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(view.save_html(tmp_path / "query-key.html").as_uri())
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    words = page.locator(".reading")
    words.get_by_text("Layer 2, head 3. The plane holds").wait_for()
    picture = "() => document.querySelector('canvas').toDataURL()"
    before = page.evaluate(picture)
    page.locator(".stage").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    weights = attention(q, k)[0, 0, 1, 2, 2]
    best = int(weights.argmax())
    words.get_by_text(f"Query of frame 2 attends most to the key of frame {best}").wait_for()
    score = float(q[0, 0, 1, 2, 2] @ k[0, 0, 1, 2, best] / np.sqrt(6))
    assert f"score {score:.2f}, weight {np.float16(weights[best]):.3f}" in words.inner_text()
    assert page.evaluate(picture) != before
    page.get_by_label("segment").select_option("2")
    page.get_by_label("head").select_option("1")
    best = int(attention(q, k)[1, 0, 1, 0, 2].argmax())
    words.get_by_text(f"attends most to the key of frame {10 + best}").wait_for()
    page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Escape")


def test_kept_queries_stand_among_the_linked_views(page, made, tmp_path: Path) -> None:
    selection, q, k = made
    assert "query_vectors" not in tssan_viz.explore(selection).manifest
    with pytest.raises(UserError, match="no queries and keys were recorded of a"):
        tssan_viz.query_key_view(selection)
    with pytest.raises(UserError, match="not what made them"):
        keep_queries(selection, q, -k)
    assert "query_vectors" not in tssan_viz.explore(selection).manifest
    keep_queries(selection, q, k)
    payload = tssan_viz.query_key_view(selection).payload
    assert payload.buffers["plane"] == query_key_payload(selection, q, k).buffers["plane"]
    part = query_key_payload(selection.select(layer=2, head=[1, 3], segment=2)).buffers
    expected = k[1:, :, 1:, [0, 2]].astype(np.float16)
    assert part["key_vectors"] == expected.tobytes()

    widget = tssan_viz.explore(selection, layer=1, heads=[2])
    page.goto(widget.save_html(tmp_path / "explore.html").as_uri())
    words = page.locator(".part.query-key .reading")
    words.get_by_text("Layer 1, head 2. The plane holds").wait_for()
    heat = page.locator(".part.heat .stage")
    heat.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    words.get_by_text("Query of frame 2, locked, attends most").wait_for()
    plane = page.locator(".part.query-key .stage")
    plane.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator(".part.head .reading").get_by_text("Key frame 3").wait_for()


def test_kept_queries_of_other_maps_are_left_out(made, tmp_path: Path) -> None:
    """Maps recorded anew, by the same name, are not those that the queries made."""
    selection, q, k = made
    other = open_store(tmp_path / "store", create=True)
    sites, catalogue = make_sites(2, 3, 10), make_catalogue(["reading"])
    frames = np.arange(20, dtype=np.float32).reshape(2, 10)
    with other.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        sample = ("a", 0, "reading", "A011", 1, 1)
        writer.add_samples([StoredSample(*sample, frames, frames / 30)])
        maps = attention(q, -k)[:, 0].astype(np.float16)
        rows = {"sample": ["a", "a"], "label": 0, "segment": [1, 2], "person": 1}
        writer.add(rows, {site.name: maps[:, n] for n, site in enumerate(sites)})
    keep_queries(selection, q, k)
    assert copy_queries(selection.store, other, "run") == 1
    assert "query_vectors" not in sample_payload(other.select()).manifest
    with pytest.raises(UserError, match="not what made them"):
        query_key_payload(other.select())
