"""Recording changes nothing: outputs, gradients and random state are bit for bit the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.recording.support import CATALOGUE, MemoryStore, Model
from tssan_viz.recording import record

PRECISIONS = ["highest", "medium"]


def training_step(model, x, recorder=None, autocast=False):
    torch.manual_seed(11)
    if recorder:
        recorder.samples(sample=["a", "b", "c"], axes=("n", "k"), sizes={"k": 2})
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2]))
    if recorder:
        recorder.predictions(logits)
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    return logits.detach(), gradients, torch.get_rng_state()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_step_is_bitwise_the_same(fused, autocast, precision):
    torch.manual_seed(3)
    plain = Model(dropout=0.3, fused=fused).train()
    watched = copy.deepcopy(plain)
    x = torch.randn(3, 2, 6, 8)
    torch.set_float32_matmul_precision(precision)
    try:
        expected = training_step(plain, x, autocast=autocast)
        with record(watched, MemoryStore(), run="r", catalogue=CATALOGUE) as recorder:
            found = training_step(watched, x, recorder, autocast)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(expected[0], found[0])
    assert all(torch.equal(a, b) for a, b in zip(expected[1], found[1], strict=True))
    assert torch.equal(expected[2], found[2])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inference_is_bitwise_the_same(mode):
    torch.manual_seed(4)
    model = Model().eval()
    x = torch.randn(2, 5, 8)
    with mode():
        expected = model(x)
        state = torch.get_rng_state()
        with record(model, MemoryStore(), run="r", catalogue=CATALOGUE) as recorder:
            recorder.samples(sample=["a", "b"])
            found = model(x)
    assert torch.equal(expected, found)
    assert torch.equal(state, torch.get_rng_state())
    assert expected.requires_grad == found.requires_grad


def traces_of_watching(model):
    return [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


def fail_after_a_call(model):
    with record(model, MemoryStore(), run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"])
        model(torch.randn(1, 4, 8))
        raise ZeroDivisionError


def test_nothing_is_left_on_the_model_after_the_block_and_after_an_exception():
    model = Model()
    with record(model, MemoryStore(), run="r", catalogue=CATALOGUE):
        assert traces_of_watching(model)
    assert not traces_of_watching(model)
    with pytest.raises(ZeroDivisionError):
        fail_after_a_call(model)
    assert not traces_of_watching(model)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_gives_one_record_per_forward_call(reentrant):
    class Checkpointed(Model):
        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant)
            return self.classifier(x.mean(1))

    torch.manual_seed(5)
    model = Checkpointed(dropout=0.2).train()
    x = torch.randn(2, 5, 8, requires_grad=True)
    torch.manual_seed(6)
    model(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    store = MemoryStore()
    torch.manual_seed(6)
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        for _ in range(2):
            recorder.samples(sample=["a", "b"])
            model.zero_grad()
            torch.manual_seed(6)
            model(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(expected, model.parameters(), strict=True))
    assert recorder.report().maps_recorded == recorder.report().maps_due == 4
    assert store.maps("layers.0.attend").shape == (4, 2, 5, 5)
