"""Gradient-weighted relevance and value norms: by hand, and by definitions written out."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.evidence.networks import Small, planted_clips
from tssan_viz.errors import UserError
from tssan_viz.evidence.attributions import watch
from tssan_viz.evidence.relevance import attention_times_gradient, relevance, value_norms
from tssan_viz.evidence.tapping import Call, Tap


def test_relevance_by_hand() -> None:
    first = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]])
    second = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    # Ā1 = [[1, 0], [1, 0]] (the negative part is cut), Ā2 = [[0, 2], [1, 0]]
    gradients = [
        torch.tensor([[[[2.0, -4.0], [1.0, 3.0]]]]),
        torch.tensor([[[[7.0, 2.0], [2.0, -1.0]]]]),
    ]
    layers = relevance([first, second], gradients)
    assert torch.equal(layers[0], torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    # R2 = R1 + Ā2 R1 with R1 = I + Ā1; less I: [[3, 2], [3, 0]]
    assert torch.equal(layers[1], torch.tensor([[[3.0, 2.0], [3.0, 0.0]]]))
    assert torch.equal(
        attention_times_gradient([first, second], gradients), torch.tensor([[3.0, 1.5 - 2.0 + 2.0]])
    ) or torch.allclose(
        attention_times_gradient([first, second], gradients),
        torch.tensor([[1.0 + 1.0 + 1.0, -2.0 + 2.0 - 0.5]]),
    )


def test_relevance_is_the_rule_as_its_authors_write_it() -> None:
    watched = watch(Small(), (planted_clips(),), torch.tensor([0, 1, 2]))
    maps = [call.probabilities for call in watched.calls]
    r = torch.eye(32).expand(3, 32, 32)
    for a, gradient in zip(maps, watched.gradients, strict=True):
        r = r + (gradient * a).clamp(min=0).mean(dim=1) @ r
    ours = relevance(maps, watched.gradients)[-1]
    assert torch.allclose(ours, r - torch.eye(32), atol=1e-6)


def test_gradients_are_those_of_the_attention_itself() -> None:
    """A finite difference: change one probability, and look what the logit does."""
    model, clips, target = Small().double(), planted_clips(1).double(), torch.tensor([1])
    watched = watch(model, (clips,), target)
    for layer, h, q, s in ((0, 0, 3, 9), (0, 1, 30, 0), (1, 1, 12, 12)):

        def nudged(size: float, layer=layer, h=h, q=q, s=s) -> float:
            def edit(call: int, a: torch.Tensor) -> torch.Tensor:
                if call == layer:
                    a = a.clone()
                    a[0, h, q, s] += size
                return a

            with torch.no_grad(), Tap(probabilities=edit):
                return float(model(clips)[0, 1])

        slope = (nudged(1e-4) - nudged(-1e-4)) / 2e-4
        assert slope == pytest.approx(float(watched.gradients[layer][0, h, q, s]), abs=1e-7)


@pytest.mark.parametrize("projected", [False, True])
def test_value_norms_are_those_of_the_vectors(projected: bool) -> None:
    torch.manual_seed(0)
    a = torch.randn(2, 3, 5, 5).softmax(dim=-1)
    v = torch.randn(2, 3, 5, 4)
    weight = torch.randn(7, 12) if projected else torch.eye(12)
    vectors = torch.einsum("rhqs,rhsd->rqshd", a, v).flatten(-2) @ weight.T
    found = value_norms(Call(a, v, a @ v), weight if projected else None)
    assert torch.allclose(found, vectors.norm(dim=-1), atol=1e-5)


@pytest.mark.parametrize("masked", [None, "bool", "causal"])
def test_the_tapped_model_says_what_it_says_untapped(masked: str | None) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 4) for _ in range(3))
    options = {
        None: {},
        "bool": {"attn_mask": torch.rand(6, 6) > 0.2},
        "causal": {"is_causal": True, "scale": 0.3},
    }[masked]
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    with Tap() as tap:
        found = F.scaled_dot_product_attention(q, k, v, **options)
    assert torch.allclose(found, expected, atol=1e-6)
    assert len(tap.calls) == 1
    assert F.scaled_dot_product_attention.__name__ == "scaled_dot_product_attention"


def test_a_recorder_around_it_goes_on_and_other_threads_are_left_alone() -> None:
    q = torch.randn(1, 2, 4, 4)
    expected = F.scaled_dot_product_attention(q, q, q)
    heard, elsewhere = [], []

    def recorder(*args, **kwargs):
        heard.append(1)
        return torch.zeros_like(q)

    before, F.scaled_dot_product_attention = F.scaled_dot_product_attention, recorder
    try:
        with Tap() as tap:
            F.scaled_dot_product_attention(q, q, q)
            attend = lambda: elsewhere.append(F.scaled_dot_product_attention(q, q, q))  # noqa: E731
            thread = threading.Thread(target=attend)
            thread.start()
            thread.join()
        assert len(tap.calls) == 1
        F.scaled_dot_product_attention(q, q, q)
        assert len(heard) == 1, "the recorder's name is back"
    finally:
        F.scaled_dot_product_attention = before
    assert torch.equal(elsewhere[0], expected), "another thread computes as ever"


def test_attention_of_pytorch_s_encoder_is_in_reach_in_evaluation() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = layer(x)
        with Tap() as tap:
            found = layer(x)
    assert torch.allclose(found, expected, atol=1e-5)
    assert [tuple(call.probabilities.shape) for call in tap.calls] == [(2, 2, 5, 5)]


def test_written_out_attention_is_in_reach_but_its_values_are_not() -> None:
    class Written(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((x @ x.transpose(-1, -2)).softmax(dim=-1) @ x).mean(dim=1)

    x = torch.randn(2, 5, 3)
    watched = watch(Written(), (x,), torch.tensor([0, 1]))
    (call,) = watched.calls
    assert torch.allclose(call.probabilities, (x @ x.transpose(-1, -2)).softmax(dim=-1))
    with pytest.raises(UserError, match="values are not in reach"):
        value_norms(call)


def test_a_model_without_attention_is_told_so() -> None:
    with pytest.raises(UserError, match="attended to nothing"):
        watch(nn.Linear(3, 2), (torch.randn(2, 3),), torch.tensor([0, 1]))
