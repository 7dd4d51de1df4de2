"""Rollout and flow: by hand, against NetworkX, and what must not change them."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from tssan_viz.evidence.rollout import averaged, flow, maximum_flows, rollout, with_residual


def random_maps(layers: int, *, r: int = 2, h: int = 3, t: int = 5, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(layers, r, h, t, t, generator=generator, dtype=torch.float64)
    return list((2 * scores).softmax(dim=-1))


def test_rollout_by_hand() -> None:
    first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    second = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    # Â1 = [[1, 0], [½, ½]], Â2 = [[½, ½], [¼, ¾]]
    layers = rollout([first, second])
    assert torch.equal(layers[0], torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
    assert torch.equal(layers[1], torch.tensor([[[0.75, 0.25], [0.625, 0.375]]]))
    assert torch.equal(averaged(layers), torch.tensor([[0.71875, 0.28125]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_the_rollout_sum_to_one(dtype: torch.dtype) -> None:
    for layer in rollout([one.to(dtype) for one in random_maps(8, t=32)]):
        assert torch.allclose(layer.sum(dim=-1), torch.ones((), dtype=dtype), atol=1e-6)


def test_a_query_that_sees_nothing_keeps_itself() -> None:
    maps = random_maps(1)[0].clone()
    maps[0, :, 2] = 0.0
    assert torch.equal(with_residual(maps)[0, 2], torch.eye(5, dtype=torch.float64)[2])


@pytest.mark.parametrize("measure", [rollout, flow])
def test_the_order_of_heads_does_not_count(measure) -> None:
    maps = random_maps(2)
    turned = [one[:, [2, 0, 1]] for one in maps]
    for a, b in zip(measure(maps), measure(turned), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_duplicated_frames_share_what_their_frame_had() -> None:
    """Every frame twice, each copy with half the attention: attention to both is what it was."""
    maps = random_maps(3)
    doubled = [one.repeat_interleave(2, -2).repeat_interleave(2, -1) / 2 for one in maps]
    # The residual connection knows copies apart; what both draw together is the same.
    for once, twice in zip(rollout(maps), rollout(doubled), strict=True):
        joined = twice.unflatten(-1, (-1, 2)).sum(-1).unflatten(-2, (-1, 2)).mean(-2)
        assert torch.allclose(once, joined, atol=1e-12)


@pytest.mark.parametrize("t", [5, 32])
def test_rows_of_the_flow_sum_to_one(t: int) -> None:
    maps = random_maps(4, r=1, t=t)
    maps[0] = maps[0].clone()
    maps[0][0, :, 2] = 0.0  # a frame that sees nothing
    for layer in flow(maps):
        assert torch.allclose(layer.sum(dim=-1), torch.ones((), dtype=layer.dtype), atol=1e-6)
        assert (layer >= 0).all()


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
def test_flow_is_the_maximum_flow_of_networkx(layers: int) -> None:
    maps = random_maps(layers, r=1, t=4)
    ours = maximum_flows(maps)[-1][0].numpy()
    graph = nx.DiGraph()
    for layer, one in enumerate(maps):
        step = with_residual(one)[0].numpy()
        for i in range(4):
            for j in range(4):
                graph.add_edge((layer + 1, i), (layer, j), capacity=float(step[i, j]))
    theirs = [
        [nx.maximum_flow_value(graph, (layers, i), (0, j)) for j in range(4)] for i in range(4)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
