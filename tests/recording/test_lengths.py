"""Sequences of several lengths in one recording."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from tests.recording.support import Model
from tssan_viz.recording import RecordingError, record
from tssan_viz.store import open_store
from tssan_viz.store.verification import verify


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
        attn_implementation="eager",
    )
    return BertModel(config).eval()


def test_shorter_texts_are_filled_up_and_read_back(tmp_path):
    model = bert()
    with record(model, tmp_path / "s", pad_to=9) as recorder:
        expected = []
        for n in (6, 9, 4):
            recorder.samples(sample=[f"{n} words"])
            expected.append(model(input_ids=torch.arange(n)[None], output_attentions=True))
    store = open_store(tmp_path / "s")
    maps = store.select().maps().to_numpy()
    assert maps.shape == (3, 2, 2, 9, 9)
    for row, n in enumerate((6, 9, 4)):
        own = torch.cat(expected[row].attentions).detach().numpy()  # (l, h, q, s)
        np.testing.assert_allclose(maps[row, :, :, :n, :n], own, atol=2.5e-4)
        assert not maps[row, :, :, n:].any()
        assert not maps[row, :, :, :, n:].any()
        entropy = -(own * np.log(own)).sum(-1).mean(-1) / np.log(n)
        measures = store.select(sample=f"{n} words").measures()["entropy"].to_numpy()
        np.testing.assert_allclose(measures.reshape(2, 2), entropy, rtol=1e-4)
    assert verify(store).damaged == []


@pytest.mark.parametrize(
    ("pad_to", "lengths", "why"),
    [
        (None, (5, 4), r"\(2, 4, 4\), after \(2, 5, 5\) before.*pad_to="),
        (5, (6,), "maps of 6 × 6, and pad_to=5: give the length"),
        (0, (6,), "pad_to is 0"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_with_the_remedy(pad_to, lengths, why):
    def record_all():
        with record(Model(), unlabelled=True, pad_to=pad_to) as recorder:
            for n in lengths:
                recorder.model(torch.randn(1, n, 8))

    with pytest.raises(RecordingError, match=why):
        record_all()


def test_compiled_models_take_several_lengths_too():
    model = torch.compile(Model().eval(), backend="eager", dynamic=True)
    with record(model, unlabelled=True, pad_to=7) as recorder, torch.no_grad():
        for n in (7, 5, 6):
            model(torch.randn(2, n, 8))
    maps = recorder.maps()
    assert maps.shape == (6, 2, 2, 7, 7)
    assert (maps.sum("key") > 0.99).sum(("layer", "head", "query")).to_numpy().tolist() == [
        2 * 2 * n for n in (7, 7, 5, 5, 6, 6)
    ]
