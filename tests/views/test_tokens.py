"""What BertViz takes, in these views: words as tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tssan_viz
from tssan_viz.errors import UserError
from tssan_viz.views import sample_payload

TOKENS = ["[CLS]", "</script>", 'a "quote"', "שלום", "x" * 300, "<img src=x onerror=1>"]


@pytest.fixture
def attention() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 3, 6, 6).softmax(-1) for _ in range(2)]


def test_words_are_drawn_as_text(page, attention, tmp_path: Path) -> None:
    view = tssan_viz.from_attentions(
        attention, TOKENS, layer=2, heads=[2], locked={"side": "query", "frame": 1}
    )
    page.goto(view.save_html(tmp_path / "tokens.html").as_uri())
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    words = page.locator(".part.head .reading")
    words.get_by_text("Query token </script>, locked").wait_for()
    row = attention[1][0, 1, 1].numpy()
    best = int(row.argmax())
    assert f"key tokens {TOKENS[best]}: {np.float16(row[best]):.3f}" in words.inner_text()
    assert page.locator(".part.player, #view img").count() == 0
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_what_does_not_fit_is_said(attention) -> None:
    for given, tokens, words in (
        ([], TOKENS, "no layer"),
        (attention, TOKENS[:3], "3 tokens"),
        ([attention[0], attention[1][:, :2]], TOKENS, "differ in shape"),
        ([torch.cat(attention)], TOKENS, "2 inputs"),
        ([attention[0] * torch.nan], TOKENS, "not finite"),
        ([attention[0][0, 0]], TOKENS, "is expected"),
    ):
        with pytest.raises(UserError, match=words):
            tssan_viz.from_attentions(given, tokens)


def test_words_go_through_a_store(page, attention, tmp_path: Path) -> None:
    store = tssan_viz.open_store(tmp_path / "store", create=True)
    short = [layer[..., :4, :4] / layer[..., :4, :4].sum(-1, keepdim=True) for layer in attention]
    texts = {"long": (attention, TOKENS), "short": (short, TOKENS[:4])}
    chosen = tssan_viz.record_attentions(
        store, texts, run="words", classes={"long": "one", "short": "other"}
    )
    assert sorted(chosen.samples()["class_name"]) == ["one", "other"]
    for name, (layers, tokens) in texts.items():
        payload = sample_payload(store.select(run="words", sample=name))
        assert payload.manifest["labels"] == [list(tokens)]
        kept = np.frombuffer(payload.buffers["maps"], "<f2")
        exact = np.stack([layer[0].numpy() for layer in layers]).astype(np.float16)
        assert (kept.reshape(payload.manifest["maps"]["shape"])[0, 0] == exact).all()
    assert chosen.mean("class_name").shape == (2, 2, 3, 6, 6)
    with pytest.raises(UserError, match="4 to 6 tokens"):
        chosen.mean()
    assert tssan_viz.to_bertviz(chosen, "short")["tokens"] == TOKENS[:4]
    path = tssan_viz.save_html(chosen, tmp_path / "short.html", "short")
    page.goto(path.as_uri())
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    page.locator(".stage").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".reading").get_by_text("Query token [CLS]").wait_for()
    with pytest.raises(UserError, match="already"):
        tssan_viz.record_attentions(store, texts, run="words")
    with pytest.raises(UserError, match="differ in"):
        tssan_viz.record_attentions(store, {**texts, "b": (short[:1], TOKENS[:4])}, run="b")
    with pytest.raises(UserError, match="'short'"):
        tssan_viz.record_attentions(store, texts, run="c", classes={"long": "one"})
    assert store.run_names() == ["words"]


def test_a_text_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="there is no token"):
        tssan_viz.from_attentions([np.zeros((1, 2, 0, 0), np.float32)], [])


def test_words_read_from_right_to_left_keep_their_weights(page, attention, tmp_path: Path) -> None:
    words = ["שלום", "عالم", "the", "cat", "sat", "."]
    view = tssan_viz.from_attentions(attention, words, locked={"side": "query", "frame": 3})
    page.goto(view.save_html(tmp_path / "words.html").as_uri())
    reading = page.locator(".part.head .reading")
    reading.get_by_text("Query token cat, locked").wait_for()
    said = reading.inner_text()
    assert "\u2068שלום\u2069: 0." in said
    assert "\u2068عالم\u2069: 0." in said
    assert said.count("\u2068") == 2, "words read from left to right stand as they are"
