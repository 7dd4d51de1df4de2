"""Compiled models, by inductor: recorded before and after the first call, without a break."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.recording.support import Model
from tests.recording.watched import Watch, all_equal, assert_near, watch
from tssan_viz.recording import UnrecordableModel


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def models():
    torch.manual_seed(0)
    model = Model(layers=2, fused=False).eval()
    return model, copy.deepcopy(model), torch.randn(3, 6, 8)


@pytest.mark.parametrize(
    ("compiled_by", "attached"),
    [
        ("torch.compile", "after the first call"),
        pytest.param("torch.compile", "before the first call", marks=pytest.mark.slow),
        pytest.param("module.compile", "after the first call", marks=pytest.mark.slow),
        pytest.param("module.compile", "before the first call", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_model(attached, compiled_by):
    eager, model, x = models()
    _, expected = watch(eager, x)
    if compiled_by == "torch.compile":
        model = torch.compile(model, fullgraph=True)
    else:
        model.compile(fullgraph=True)
    if attached == "after the first call":
        model(x)
    output, calls = watch(model, x)
    assert [c.site for c in calls] == [c.site for c in expected]
    for found, other in zip(calls, expected, strict=True):
        assert_near(found, other.exact)
    assert torch.equal(output, model(x))


def test_waking_and_sleeping_compile_nothing_and_the_graph_does_not_break():
    _, model, x = models()
    counter = CompileCounterWithBackend("aot_eager")
    model = torch.compile(model, backend=counter)
    for _ in range(3):
        with Watch(model) as watcher:
            for awake in (True, False, True, False):
                watcher.awake = awake
                model(x)
        assert len(watcher.calls) == 4
        assert counter.frame_count == 2  # one graph with taps, one without
    first, second = watcher.graph_notes
    assert first == "Model: 1 graph was compiled with taps"
    assert "bit for bit" in second
    assert watcher.began == watcher.ended == 4


@pytest.mark.slow
def test_a_training_step_of_a_compiled_model():
    torch.manual_seed(1)
    model = Model(layers=2, dropout=0.2).train()
    compiled = torch.compile(model)
    x = torch.randn(3, 6, 8)

    def step(awake):
        torch.manual_seed(2)
        model.zero_grad()
        with Watch(compiled) as watcher:
            watcher.awake = awake
            loss = compiled(x).square().sum()
            loss.backward()
        return [loss, *(p.grad for p in model.parameters()), torch.get_rng_state()], watcher

    plain, _ = step(False)
    watched, watcher = step(True)
    assert all_equal(plain, watched)
    assert watcher.names == ["layers.0.attend", "layers.1.attend"]
    _, expected = watch(copy.deepcopy(model).eval(), x)
    assert_near(watcher.calls[0], expected[0].exact)
    assert "not compared" in watcher.graph_notes[1]


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x, x, x)[0]
        return x


class Broken(Blocks):
    def forward(self, x):
        x = self.blocks[0](x, x, x)[0]
        torch._dynamo.graph_break()
        return self.inner(x)

    def inner(self, x):
        x = self.blocks[1](x, x, x, need_weights=False)[0]
        torch._dynamo.graph_break()
        return self.blocks[2](x, x, x)[0]


@pytest.mark.parametrize(
    ("parts", "train"),
    [
        ("one block", True),
        ("one block", False),
        ("broken", True),
        ("encoder", False),
        pytest.param("broken", False, marks=pytest.mark.slow),
        pytest.param("encoder", True, marks=pytest.mark.slow),
        pytest.param("whole", True, marks=pytest.mark.slow),
        pytest.param("whole", False, marks=pytest.mark.slow),
    ],
)
def test_parts_of_models(parts, train):
    """With a backend that compiles nothing, so that only the way of the calls is tested."""
    torch.manual_seed(3)
    if parts == "encoder":
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        model = nn.TransformerEncoder(layer, 3)
    else:
        model = Broken() if parts == "broken" else Blocks()
    model.train(train)
    x = torch.randn(2, 5, 8)
    with torch.set_grad_enabled(train):
        _, expected = watch(model, x)
        if parts == "one block":
            model.blocks[1].compile(backend="aot_eager")
        else:
            model = torch.compile(model, backend="aot_eager")
        plain = model(x)
        output, calls = watch(model, x)
    assert all_equal(plain, output)
    assert [c.site for c in calls] == [c.site for c in expected]
    assert len(calls) == 3
    for found, other in zip(calls, expected, strict=True):
        assert_near(found, other.exact)


def test_checkpoints_in_a_compiled_model_are_recorded_once():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Blocks):
        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(lambda x, block=block: block(x, x, x)[0], x, use_reentrant=False)
            return x

    torch.manual_seed(4)
    model = torch.compile(Checkpointed(), backend="aot_eager")
    x = torch.randn(2, 5, 8, requires_grad=True)
    with Watch(model) as watcher:
        model(x).sum().backward()
    assert watcher.names == [f"blocks.{i}" for i in range(3)]


@pytest.mark.slow
def test_a_compiled_client():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(5)
    model = BertModel._from_config(config, attn_implementation="sdpa").eval()
    ids = torch.randint(3, 50, (2, 7))
    with torch.no_grad():
        _, expected = watch(model, ids)
        model = torch.compile(model)
        _, calls = watch(model, ids)
    assert [c.site for c in calls] == [c.site for c in expected]
    for found, other in zip(calls, expected, strict=True):
        assert (found.exact - other.exact).abs().max() <= 1e-6


def test_what_is_no_attention_cannot_be_had_from_a_graph():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model.compile()
    with pytest.raises(UnrecordableModel, match=r"1 is named as a map.*before torch\.compile"):
        Watch(model, softmax={"1": "signed"}).__enter__()


def test_a_captured_graph_is_refused_with_the_remedy():
    # torch.cuda.make_graphed_callables leaves such a function in a module; it needs a GPU to run.
    def make_graphed_callables():
        def make_graphed_forward():
            def new_fwd(x):
                return x

            return new_fwd

        return make_graphed_forward()

    model = Model()
    model.layers[1].forward = make_graphed_callables()
    model.layers[
        1
    ].forward.__qualname__ = "make_graphed_callables.<locals>.make_graphed_forward.<locals>.new_fwd"
    with pytest.raises(UnrecordableModel, match=r"layers\.1 was captured.*reduce-overhead"):
        Watch(model)
