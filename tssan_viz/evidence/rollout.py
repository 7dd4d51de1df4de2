"""What attention adds up to over layers: rollout and flow (Abnar, Zuidema, ACL 2020).

Both see a layer as half attention, averaged over its heads, and half its residual connection:
Â = ½ mean_h A + ½ I. They know nothing of the class that was asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

# Capacities of SciPy's maximum flow are int32; what leaves a frame adds up to this.
_UNIT = 2**24


def with_residual(maps: Tensor) -> Tensor:
    """Return Â = ½ mean_h A + ½ I, its rows summing to 1, of maps (r, h, q, s): (r, q, s).

    A query that attends to nothing keeps its residual connection alone.
    """
    mean = maps.mean(dim=1)  # (r, q, s)
    both = mean + torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    return both / both.sum(dim=-1, keepdim=True)


def rollout(maps: Sequence[Tensor]) -> list[Tensor]:
    """Multiply the layers up: R_l = Â_l … Â_1.

    Parameters
    ----------
    maps
        One (r, h, q, s) per layer, the first layer first; q = s.

    Returns
    -------
    list of Tensor
        (r, q, s) after each layer: of what input frames s a frame q of that layer is made. Rows sum
        to 1.
    """
    layers: list[Tensor] = []
    for one in maps:
        step = with_residual(one)
        layers.append(step @ layers[-1] if layers else step)
    return layers


def flow(maps: Sequence[Tensor]) -> list[Tensor]:
    """Let as much as possible flow from each frame of a layer down to each input frame.

    Edges are the entries of Â. Between two frames one layer apart the flow is that entry; two
    layers apart each frame k between them carries min(Â₂[i, k], Â₁[k, j]); from three layers on it
    is a maximum flow by itself for each pair of frames (SciPy's Dinic), which takes seconds per
    row.

    Parameters
    ----------
    maps
        As for `rollout`.

    Returns
    -------
    list of Tensor
        (r, q, s) after each layer: the greatest flow from q to s, at most 1.
    """
    steps = [with_residual(one) for one in maps]
    layers: list[Tensor] = []
    for depth in range(1, len(steps) + 1):
        if depth == 1:
            layers.append(steps[0])
        elif depth == 2:
            # One column at a time: all at once would be (r, q, k, s).
            columns = [
                torch.minimum(steps[1], steps[0][:, None, :, j]).sum(dim=-1)
                for j in range(steps[0].shape[-1])
            ]
            layers.append(torch.stack(columns, dim=-1))
        else:
            rows = [
                _maximum_flows([step[r].double().cpu().numpy() for step in steps[:depth]])
                for r in range(steps[0].shape[0])
            ]
            layers.append(torch.as_tensor(np.stack(rows)).to(steps[0]))
    return layers


def _maximum_flows(steps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the maximum flow (q, s) from each top node to each bottom node of a layered graph."""
    t = len(steps[0])
    top = len(steps) * t
    rows, columns, capacities = [], [], []
    for layer, step in enumerate(steps):
        query, key = np.nonzero(step)
        rows.append((layer + 1) * t + query)
        columns.append(layer * t + key)
        capacities.append(np.rint(step[query, key] * _UNIT).astype(np.int32))
    graph = csr_array(
        (np.concatenate(capacities), (np.concatenate(rows), np.concatenate(columns))),
        shape=(top + t, top + t),
    )
    flows = [[maximum_flow(graph, top + i, j).flow_value for j in range(t)] for i in range(t)]
    return np.asarray(flows) / _UNIT


def averaged(layers: Sequence[Tensor]) -> Tensor:
    """Return what the frames of all layers together draw from each input frame.

    A TS-SAN joins the outputs of all its layers and takes the mean over frames, so that every layer
    and every query frame counts the same (a network with a class token would take that one row of
    the last layer).

    Parameters
    ----------
    layers
        (r, q, s) per layer.

    Returns
    -------
    Tensor
        (r, s).
    """
    return torch.stack([layer.mean(dim=1) for layer in layers]).mean(dim=0)
