"""Attention probabilities from a call's own queries and keys, and the measures of each map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MEASURES = ("entropy", "distance", "look_ahead", "peak")

# Bounds the float32 probabilities that exist at one time; rows are independent and go in turns.
# On a CPU a turn that stays in the cache takes half the time; a GPU wants few and large ones.
CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**27}


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in plain float32: no autocast, no TF32 or bfloat16 products, nothing for autograd."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _ieee_products():
        yield


@contextmanager
def _ieee_products() -> Iterator[None]:
    """Switch reduced float32 products off, and afterwards back to what the user had chosen."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    if not hasattr(backends[0], "fp32_precision"):  # before torch 2.9
        chosen = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(chosen)
        return
    # Set per backend: the general setter of older days refuses to be read once both were used.
    precisions = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


def attention_probabilities(q: Tensor, k: Tensor, scale: float | Tensor | None = None) -> Tensor:
    """Compute softmax(q kᵀ · scale) in float32.

    Parameters
    ----------
    q
        Queries (r, h, q, d).
    k
        Keys (r, h, s, d).
    scale
        What the scores are multiplied by; 1/√d when None (Vaswani et al. 2017, equation 1).

    Returns
    -------
    Tensor
        float32 (r, h, q, s); every row sums to 1.
    """
    with exact_float32(q.device):
        scores = torch.matmul(q.float(), k.float().transpose(-1, -2))
        return torch.softmax(scores * (q.shape[-1] ** -0.5 if scale is None else scale), dim=-1)


def map_measures(p: Tensor) -> Tensor:
    """Measure maps, each as the mean over its query frames.

    entropy
        −Σ_s p ln p / ln n over the n key frames: 0 looks at one frame, 1 at all of them alike.
    distance
        Σ_s p |s − q| in frames.
    look_ahead
        Σ_s p (s − q) in frames: positive looks ahead, negative looks back.
    peak
        max_s p, the confidence of the head (Voita et al. 2019).

    Parameters
    ----------
    p
        float32 probabilities (r, h, q, s).

    Returns
    -------
    Tensor
        float32 (r, h, 4), in the order of `MEASURES`. Distances are NaN when query and key are not
        the same frames.
    """
    n_q, n_s = p.shape[-2:]
    with exact_float32(p.device):
        entropy = torch.special.entr(p).sum(-1).mean(-1) / math.log(max(n_s, 2))
        peak = p.amax(-1).mean(-1)
        if n_q == n_s:
            frames = torch.arange(n_s, device=p.device, dtype=torch.float32)
            offset = frames[None, :] - frames[:, None]
            weights = torch.stack([offset.abs(), offset], dim=-1).reshape(-1, 2) / n_q
            distance, look_ahead = torch.matmul(p.flatten(-2), weights).unbind(-1)
        else:
            distance = look_ahead = torch.full_like(peak, math.nan)
        return torch.stack([entropy, distance, look_ahead, peak], dim=-1)


def maps_and_measures(q: Tensor, k: Tensor, scale: float | Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute what is stored of one call: float16 maps (r, h, q, s), float32 measures (r, h, 4).

    The measures are had from the float32 probabilities; the cast is done on the device.
    """
    r, h, n_q, _ = q.shape
    n_s = k.shape[-2]
    q, k = q.detach(), k.detach()
    scale = scale.detach() if isinstance(scale, Tensor) else scale
    maps = torch.empty((r, h, n_q, n_s), dtype=torch.float16, device=q.device)
    measures = torch.empty((r, h, len(MEASURES)), dtype=torch.float32, device=q.device)
    budget = CHUNK_BYTES.get(q.device.type, 2**24)
    step = max(1, budget // max(1, 4 * h * n_q * n_s))
    for start in range(0, r, step):
        rows = slice(start, start + step)
        p = attention_probabilities(q[rows], k[rows], scale)
        maps[rows] = p
        measures[rows] = map_measures(p)
    return maps, measures
