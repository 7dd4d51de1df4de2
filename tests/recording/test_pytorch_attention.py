"""PyTorch's own attention in all its ways, against the weights that it returns itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.functional import scaled_dot_product_attention as by_another_name
from torch.utils._python_dispatch import TorchDispatchMode

from tests.recording.watched import Watch, all_equal, assert_near, watch

T, S = 5, 7

CAUSAL = torch.ones(T, T).triu(1).bool()
FLOAT = torch.randn(T, T, generator=torch.Generator().manual_seed(0))
PADDING = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
BY_HEAD = torch.randn(6, T, T, generator=torch.Generator().manual_seed(1)) > 1.5

WAYS = {
    "plain": ({}, {}),
    "batch first": ({"batch_first": True}, {}),
    "without weights": ({"batch_first": True}, {"need_weights": False}),
    "averaged weights": ({"batch_first": True}, {"average_attn_weights": True}),
    "mask": ({"batch_first": True}, {"attn_mask": CAUSAL, "need_weights": False}),
    "mask and weights": ({"batch_first": True}, {"attn_mask": CAUSAL}),
    "mask of each head": ({"batch_first": True}, {"attn_mask": BY_HEAD}),
    "float mask": ({"batch_first": True}, {"attn_mask": FLOAT, "need_weights": False}),
    "causal": (
        {"batch_first": True},
        {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
    ),
    "padding": ({"batch_first": True}, {"key_padding_mask": PADDING, "need_weights": False}),
    "padding and weights": ({"batch_first": True}, {"key_padding_mask": PADDING}),
    "padding and mask": (
        {"batch_first": True},
        {"key_padding_mask": PADDING, "attn_mask": CAUSAL, "need_weights": False},
    ),
    "further keys": ({"add_bias_kv": True, "add_zero_attn": True}, {"need_weights": False}),
    "further keys and weights": ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    "cross": ({"batch_first": True, "kdim": 6, "vdim": 4}, {"need_weights": False}),
    "cross and weights": ({"batch_first": True, "kdim": 6, "vdim": 4}, {}),
    "unbatched": ({}, {"need_weights": False}),
    "unbatched with weights": ({}, {}),
    "no bias": ({"bias": False, "batch_first": True}, {"need_weights": False}),
}


def inputs(way, arguments):
    generator = torch.Generator().manual_seed(2)
    shape = (T, 8) if way.startswith("unbatched") else (3, T, 8)
    query = torch.randn(shape, generator=generator) * 2
    if "kdim" in arguments:
        return (
            query,
            torch.randn(3, S, 6, generator=generator),
            torch.randn(3, S, 4, generator=generator),
        )
    if len(shape) == 3 and not arguments.get("batch_first"):
        query = query.transpose(0, 1)
    return query, query, query


@pytest.mark.parametrize("state", ["training", "evaluation", "inference"])
@pytest.mark.parametrize("way", WAYS)
def test_multihead_attention(way, state):
    made, called = WAYS[way]
    torch.manual_seed(3)
    attention = nn.MultiheadAttention(8, 2, dropout=0.5, **made)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    reference = copy.deepcopy(attention).eval()
    attention.train(state == "training")
    args = inputs(way, made)
    weights = {**called, "need_weights": True, "average_attn_weights": False}
    expected = reference(*args, **weights)[1]
    if expected.ndim == 3:
        expected = expected[None]

    with torch.set_grad_enabled(state != "inference"):
        torch.manual_seed(4)
        plain = attention(*args, **called)
        torch.manual_seed(4)
        output, calls = watch(attention, *args, **called)
    assert all_equal(plain, output)
    (seen,) = calls
    assert (seen.site.name, seen.site.layer) == ("MultiheadAttention", 1)
    assert_near(seen, expected)
    assert (seen.maps.float().sum(-1) - 1).abs().max() < 1e-3


class Operators(TorchDispatchMode):
    """Count the operators that are dispatched."""

    def __init__(self):
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def encoder(norm_first=False, dropout=0.0):
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=dropout, batch_first=True, norm_first=norm_first
    )
    torch.manual_seed(5)
    made = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def explicit(layer, x, masked=None):
    """What a layer attends with, and what it returns, written out."""
    attention = layer.self_attn
    source = layer.norm1(x) if layer.norm_first else x
    q, k, _ = F.linear(source, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (q, k))
    scores = q @ k.mT / 2
    if masked is not None:
        scores = scores.masked_fill(masked, -torch.inf)
    return scores.softmax(-1)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", [None, "causal", "padding"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_fast_path_of_the_encoder_is_taken_and_recorded(norm_first, mask):
    model = encoder(norm_first).eval()
    x = torch.randn(3, T, 8)
    arguments = {
        None: {},
        "causal": {"mask": CAUSAL, "is_causal": True},
        "padding": {"src_key_padding_mask": PADDING},
    }[mask]
    with torch.no_grad():
        plain = model(x, **arguments)
        with Watch(model) as watcher, Operators() as operators:
            output = model(x, **arguments)
        assert torch.equal(plain, output)
        assert operators.counts["_transformer_encoder_layer_fwd"] == 2
        assert watcher.names == ["layers.0.self_attn", "layers.1.self_attn"]
        masked = {None: None, "causal": CAUSAL, "padding": PADDING[:, None, None, :]}[mask]
        expected = explicit(model.layers[0], x, masked)
        if mask == "padding" and not norm_first:
            # A nested batch has no queries where it has no frames.
            expected = expected * ~PADDING[:, None, :, None]
        assert_near(watcher.calls[0], expected)


def test_an_encoder_in_training_keeps_its_fused_call():
    model = encoder().train()
    x = torch.randn(3, T, 8)
    torch.manual_seed(6)
    plain = model(x)
    torch.manual_seed(6)
    with Watch(model) as watcher, Operators() as operators:
        output = model(x)
    assert torch.equal(plain, output)
    assert sum(n for name, n in operators.counts.items() if "scaled_dot_product" in name) == 2
    assert_near(watcher.calls[0], explicit(model.layers[0], x))


@pytest.mark.parametrize("train", [True, False])
def test_a_whole_transformer_has_three_streams(train):
    torch.manual_seed(7)
    model = nn.Transformer(8, 2, 2, 2, 16, dropout=0.2, batch_first=True).train(train)
    source, target = torch.randn(3, S, 8), torch.randn(3, T, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(T)
    with torch.set_grad_enabled(train):
        torch.manual_seed(8)
        plain = model(source, target, tgt_mask=mask, tgt_is_causal=True)
        torch.manual_seed(8)
        output, calls = watch(model, source, target, tgt_mask=mask, tgt_is_causal=True)
    assert torch.equal(plain, output)
    assert [(c.site.stream, c.site.layer, c.maps.shape[2:]) for c in calls] == [
        ("encoder", 1, (S, S)),
        ("encoder", 2, (S, S)),
        ("decoder", 1, (T, T)),
        ("cross", 1, (T, S)),
        ("decoder", 2, (T, T)),
        ("cross", 2, (T, S)),
    ]
    assert (calls[2].maps[..., CAUSAL] == 0).all()
    assert_near(calls[0], explicit(model.encoder.layers[0], source))


# scaled_dot_product_attention ---------------------------------------------------------------------


def by_attribute(*args, **kwargs):
    return F.scaled_dot_product_attention(*args, **kwargs)


class Attention(nn.Module):
    def __init__(self, call, **arguments):
        super().__init__()
        self.call = call
        self.arguments = arguments

    def forward(self, q, k, v):
        return self.attend_by(q, k, v)

    def attend_by(self, q, k, v):
        if self.call == "attribute":
            return F.scaled_dot_product_attention(q, k, v, **self.arguments)
        if self.call == "name":
            return scaled_dot_product_attention(q, k, v, **self.arguments)
        if self.call == "another name":
            return by_another_name(q, k, v, **self.arguments)
        return by_attribute(q, k, v, **self.arguments)


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.fused = F.scaled_dot_product_attention

    def forward(self, q, k, v):
        return self.fused(q, k, v)


class Pair(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, q, k, v):
        return self.second(self.first(q, k, v), k, v) + self.first(q, k, v)


@pytest.mark.parametrize("call", ["attribute", "name", "another name", "helper"])
def test_however_the_function_is_named(call):
    model = Pair(Attention(call), Held())
    q, k, v = torch.randn(3, 2, 2, T, 4)
    plain = model(q, k, v)
    output, calls = watch(model, q, k, v)
    assert torch.equal(plain, output)
    assert [(c.site.name, c.site.layer) for c in calls] == [
        ("first", 1),
        ("second", 2),
        ("first#2", 3),
    ]
    assert_near(calls[0], (q @ k.mT / 2).softmax(-1))
    assert "built-in" in repr(F.scaled_dot_product_attention)
    assert scaled_dot_product_attention is by_another_name is F.scaled_dot_product_attention


BOOL = torch.rand(T, S, generator=torch.Generator().manual_seed(9)) > 0.3
BOOL[:, 0] = True
SDPA_WAYS = {
    "scale": ({"scale": 0.3}, (2, 2, T, 4), (2, 2, S, 4)),
    "bool mask": ({"attn_mask": BOOL}, (2, 2, T, 4), (2, 2, S, 4)),
    "float mask": ({"attn_mask": torch.randn(2, 1, T, S)}, (2, 2, T, 4), (2, 2, S, 4)),
    "smallest number as mask": (
        {"attn_mask": torch.zeros(T, S).masked_fill(~BOOL, torch.finfo(torch.float32).min)},
        (2, 2, T, 4),
        (2, 2, S, 4),
    ),
    "causal": ({"is_causal": True}, (2, 2, T, 4), (2, 2, S, 4)),
    "grouped": ({"enable_gqa": True}, (2, 4, T, 4), (2, 2, S, 4)),
    "broadcast keys": ({}, (3, 2, T, 4), (1, 1, S, 4)),
    "without heads": ({"attn_mask": BOOL}, (3, T, 4), (3, S, 4)),
    "alone": ({}, (T, 4), (S, 4)),
    "more axes": ({"attn_mask": torch.randn(3, 1, T, S)}, (2, 3, 2, T, 4), (2, 3, 2, S, 4)),
}


@pytest.mark.parametrize("way", SDPA_WAYS)
def test_the_arguments_of_the_function(way):
    arguments, query, key = SDPA_WAYS[way]
    torch.manual_seed(10)
    q, k = torch.randn(query), torch.randn(key)
    # With the unit vectors of the keys as values, the output is the probabilities themselves.
    v = torch.eye(S).expand(*key[:-2], S, S)
    expected = F.scaled_dot_product_attention(q, k, v, **arguments)
    output, (seen,) = watch(Attention("attribute", **arguments), q, k, v)
    assert torch.equal(output, expected)
    if expected.ndim == 2:
        expected = expected[None, None]
    if expected.ndim == 3:
        expected = expected[:, None]
    assert_near(seen, expected.reshape(-1, *expected.shape[-3:]))


def test_a_row_that_sees_nothing_is_no_row_and_a_query_that_sees_nothing_is_zeros():
    q, k, v = torch.randn(3, 2, 2, T, 4)
    mask = torch.ones(2, 1, T, T, dtype=torch.bool)
    mask[0] = False
    mask[1, :, 2] = False
    _, (seen,) = watch(Attention("attribute", attn_mask=mask), q, k, v)
    assert seen.row_valid.tolist() == [False, True]
    assert not seen.maps.isnan().any()
    assert (seen.maps[0] == 0).all()
    assert (seen.maps[1, :, 2] == 0).all()
    # Measures are means over the queries that see something.
    rest = watch(Attention("attribute"), q[1:, :, [0, 1, 3, 4]], k[1:], v[1:])[1][0]
    assert torch.allclose(seen.measures[1, :, [0, 3]], rest.measures[0, :, [0, 3]], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_from_the_calls_own_numbers(dtype):
    q, k, v = (torch.randn(3, 2, 2, T, 4) * 3).to(dtype)
    _, (seen,) = watch(Attention("attribute"), q, k, v)
    assert_near(seen, (q.double() @ k.double().mT / 2).softmax(-1))


# Flex attention -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def bias(score, batch, head, query, key):
        return score + (query - key).abs() * 0.1 * (head + 1)

    def causal(batch, head, query, key):
        return query >= key

    class Flex(nn.Module):
        def __init__(self):
            super().__init__()
            self.flex = flex_attention

        def forward(self, q, k, v, mask):
            return self.flex(q, k, v, score_mod=bias, block_mask=mask, scale=0.7)

    q, k, v = torch.randn(3, 2, 2, T, 4)
    mask = create_block_mask(causal, None, None, T, T, device="cpu")
    with torch.no_grad():
        _, (seen,) = watch(Flex(), q, k, v, mask)
    frames = torch.arange(T)
    distance = (frames[:, None] - frames).abs() * 0.1
    scores = q @ k.mT * 0.7 + distance * torch.tensor([1.0, 2.0])[:, None, None]
    assert_near(seen, scores.masked_fill(CAUSAL, -torch.inf).softmax(-1))
