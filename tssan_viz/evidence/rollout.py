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

# Capacities and sums of SciPy's maximum flow are int32; what leaves a frame adds up to a unit.
_UNIT = 2**24
_SIDE_BY_SIDE = 32


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
    """Return attention flow: how much can flow from each frame of a layer to each input frame.

    Each maximum flow as a share of those from the same frame, as the authors' own code has it, so
    that rows sum to 1.

    Parameters
    ----------
    maps
        As for `rollout`.

    Returns
    -------
    list of Tensor
        (r, q, s) after each layer.
    """
    return [layer / layer.sum(dim=-1, keepdim=True) for layer in maximum_flows(maps)]


def maximum_flows(maps: Sequence[Tensor]) -> list[Tensor]:
    """Let as much as possible flow from each frame of a layer down to each input frame.

    Edges are the entries of Â. Between two frames one layer apart the flow is that entry; two
    layers apart each frame k between them carries min(Â₂[i, k], Â₁[k, j]); from three layers on it
    is a maximum flow by itself for each pair of frames (SciPy's Dinic, which counts in units of
    2⁻²⁴): about a tenth of a second per row and layer at 32 frames.

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
                _through_layers([step[r].double().cpu().numpy() for step in steps[:depth]])
                for r in range(steps[0].shape[0])
            ]
            layers.append(torch.as_tensor(np.stack(rows)).to(steps[0]))
    return layers


def _through_layers(steps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the maximum flow (q, s) from each top frame to each bottom frame of three layers up.

    A pair's graph is the top frame's edges, all edges of the layers between, and the bottom frame's
    edges. Several of them hang side by side between one source and one sink: they share no edge, so
    that each carries its own maximum, and SciPy is called once for all.
    """
    t = len(steps[0])
    *below, top = (np.rint(step * _UNIT).astype(np.int32) for step in steps)
    bottom, inner = below[0], below[:0:-1]
    size = t * (len(inner) + 1)  # nodes of one graph
    between = np.concatenate([layer.ravel() for layer in inner])
    leads_to = np.concatenate(
        [np.tile(np.arange(t * (depth + 1), t * (depth + 2)), t) for depth in range(len(inner))]
    )
    edges_out = np.repeat((t, 1), (t * len(inner), t))  # of each node of one graph
    found = []
    for part in np.array_split(np.arange(t * t), np.ceil(t * t / _SIDE_BY_SIDE)):
        i, j = np.divmod(part, t)
        first = 1 + size * np.arange(len(part))[:, None]  # after the source, node 0
        sink = 1 + size * len(part)
        tops = first + np.arange(t)
        heads = [first + leads_to, np.full((len(part), t), sink)]
        capacities = [np.broadcast_to(between, (len(part), len(between))), bottom[:, j].T]
        counts = np.concatenate([[tops.size], np.tile(edges_out, len(part)), [0]])
        graph = csr_array(
            (
                np.concatenate([top[i].ravel(), np.hstack(capacities).ravel()]),
                np.concatenate([tops.ravel(), np.hstack(heads).ravel()]).astype(np.int32),
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            ),
            shape=(sink + 1, sink + 1),
        )
        from_source = maximum_flow(graph, 0, sink).flow[[0]].toarray()[0]
        found.append(from_source[tops].sum(axis=1))
    return np.concatenate(found).reshape(t, t) / _UNIT


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
