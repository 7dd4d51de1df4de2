"""The real BertViz takes what it is given."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import tssan_viz
from tssan_viz.errors import UserError

bertviz = pytest.importorskip("bertviz")


def test_bertviz_shows_the_stores_maps(small_store) -> None:
    selection = small_store.select(class_name="put on jacket")
    given = tssan_viz.to_bertviz(selection)
    _, stored = next(selection.iter_maps())
    assert len(given["attention"]) == stored.shape[1]
    for layer, tensor in enumerate(given["attention"]):
        assert (tensor.numpy()[0] == stored[0, layer].astype(np.float32)).all()
    assert given["tokens"][:2] == ["frame 0 · 0.00 s", "frame 3 · 0.08 s"]
    page = bertviz.head_view(**given, html_action="return").data
    params = json.JSONDecoder().raw_decode(page, page.index("const params = ") + 15)[0]
    shown = np.array(params["attention"][0]["attn"], dtype=np.float32)
    assert shown.shape == stored.shape[1:]
    assert (shown == stored[0].astype(np.float32)).all()
    assert params["attention"][0]["left_text"] == given["tokens"]


def test_layers_and_heads_are_those_of_the_selection(small_store) -> None:
    given = tssan_viz.to_bertviz(small_store.select(layer=2, head=[1, 3]))
    assert [tuple(tensor.shape) for tensor in given["attention"]] == [(1, 2, 16, 16)]


def test_an_absent_person_is_refused(small_store) -> None:
    with pytest.raises(UserError, match="person 2 was not recorded"):
        tssan_viz.to_bertviz(small_store.select(), person=2)


@pytest.mark.parametrize("view", ["head", "model"])
def test_bertvizs_own_page_is_drawn_without_a_network(
    page, small_store, tmp_path: Path, view: str
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    path = tssan_viz.save_bertviz(small_store.select(), tmp_path / "page.html", view=view)
    page.goto(path.as_uri())
    page.locator("#vis svg line").first.wait_for(state="attached")
    lines = page.locator("#vis svg line").count()
    if view == "head":
        assert lines == 4 * 16 * 16, "a line per head, query and key"
        tokens = page.locator("#vis svg #left text").all_text_contents()
        assert tokens[:2] == ["0 · 0.00 s", "3 · 0.08 s"]
        before = page.locator("#vis svg").inner_html()
        page.locator("#layer").select_option("1")
        assert page.locator("#vis svg").inner_html() != before
    else:
        assert lines >= 2 * 4 * 16
    assert asked == [path.as_uri()], "the page asked for nothing but itself"


def test_a_token_may_look_like_markup(page, tmp_path: Path) -> None:
    tokens = ["</script><script>alert(1)</script>", "<!--<script>", "cat"]
    store = tssan_viz.open_store(str(tmp_path / "store"), create=True)
    texts = {"cat": ([np.full((1, 2, 3, 3), 1 / 3, np.float32)], tokens)}
    chosen = tssan_viz.record_attentions(store, texts, run="words")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(tssan_viz.save_bertviz(chosen, tmp_path / "page.html").as_uri())
    page.locator("#vis svg line").first.wait_for(state="attached")
    shown = page.locator("#vis svg #left text").all_text_contents()
    assert [text.strip() for text in shown] == tokens
    assert errors == []


def test_a_library_that_is_not_there_names_the_extra(
    small_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(UserError, match=r"pip install 'tssan-viz\[bertviz\]'"):
        tssan_viz.save_bertviz(small_store.select(), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
