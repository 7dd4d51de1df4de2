"""What a call of attention says of its probabilities: from a function's arguments to a `Source`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tssan_viz.recording.probabilities import Products, Scores, Values


def from_products(call: Mapping[str, Any]) -> Products:
    """Read a call of scaled_dot_product_attention.

    Queries (…, q, d) and keys (…, s, d): of the axes before, which broadcast, the last is heads and
    those before are rows, as the model flattens them.
    """
    q, k = _padded(call["query"].detach()), _padded(call["key"].detach())
    mask = call.get("attn_mask")
    mask = None if mask is None else mask.detach()
    batch = q.shape[:-2]
    if batch != k.shape[:-2] and not (call.get("enable_gqa") and q.ndim == 4):
        batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        q, k = (x.expand(*batch, *x.shape[-2:]) for x in (q, k))
    if mask is not None and q.ndim != 4 and mask.ndim > 2:
        mask = _four(mask.expand(*batch, *mask.shape[-2:]))
    return Products(
        _four(q), _four(k), call.get("scale"), mask, causal=bool(call.get("is_causal", False))
    )


def with_all_heads(products: Products, heads: int) -> Products:
    """Undo a packing of single queries: those that share a key head, as queries of that head."""
    r, g, n_q, d = products.q.shape
    if g == heads or g * n_q != heads:
        return products
    mask = products.mask
    if mask is not None:
        mask = _four(mask)
        if mask.shape[2] > 1:
            mask = mask.expand(-1, g, -1, -1).flatten(1, 2).unsqueeze(2)
    return replace(products, q=products.q.reshape(r, heads, 1, d), mask=mask)


def from_flex(call: Mapping[str, Any]) -> Products:
    """Read a call of flex attention, whose functions of indices change and mask the scores."""
    score_mod, block_mask = call.get("score_mod"), call.get("block_mask")
    mask_mod = None if block_mask is None else block_mask.mask_mod

    def modify(scores: Tensor, *indices: Tensor) -> Tensor:
        if score_mod is not None:
            scores = _over_indices(score_mod, scores=True)(scores, *indices)
        if mask_mod is not None:
            seen = _over_indices(mask_mod, scores=False)(*indices)
            scores = scores.masked_fill(~seen, -math.inf)
        return scores

    q, k = call["query"].detach(), call["key"].detach()
    k = k.expand(q.shape[0], *k.shape[1:])
    return Products(q, k, call.get("scale"), modify=modify)


def _over_indices(function: Callable[..., Tensor], *, scores: bool) -> Callable[..., Tensor]:
    """Let a function of single indices take (r,), (h,), (q,), (s,) and return (r, h, q, s)."""
    for axis in (3, 2, 1, 0):
        along: list[int | None] = [None] * 4
        along[axis] = 0
        function = torch.vmap(function, in_dims=(*((0,) if scores else ()), *along))
    return function


def from_softmax(scores: Tensor, heads: int | None) -> Scores:
    """Read a softmax over the last axis; `heads` of a row lie behind each other in the first."""
    scores = scores.detach()
    if heads is not None and scores.ndim == 3:
        scores = scores.unflatten(0, (-1, heads))
    return Scores(_four(scores))


def from_values(values: Tensor) -> Values:
    """Read a map that is there already."""
    return Values(_four(values.detach()))


def from_multihead(args: tuple[Any, ...]) -> Products:
    """Read `torch._native_multi_head_attention`, which projects and attends in one."""
    query, key, _, width, heads, weight, bias = args[:7]
    mask, mask_type = args[9], args[12]
    q = F.linear(_padded(query.detach()), weight[:width].detach(), bias[:width].detach())
    k = _padded(key.detach())
    k = F.linear(k, weight[width : 2 * width].detach(), bias[width : 2 * width].detach())
    seen = _lengths(query)
    return _fused(q, k, heads, mask, mask_type, seen)


def from_encoder_layer(args: tuple[Any, ...], frames: int | None) -> Products:
    """Read `torch._transformer_encoder_layer_fwd`, the whole of a layer in one operator.

    `frames` is the length to which a nested tensor was padded before it was made.
    """
    source, width, heads, weight, bias = args[:5]
    norm_first, eps, norm_weight, norm_bias = args[8:12]
    mask, mask_type = args[18], args[19]
    x = _padded(source.detach(), frames)
    if norm_first:
        x = F.layer_norm(x, (width,), norm_weight.detach(), norm_bias.detach(), eps)
    projected = F.linear(x, weight[: 2 * width].detach(), bias[: 2 * width].detach())
    q, k = projected.chunk(2, dim=-1)
    return _fused(q, k, heads, mask, mask_type, _lengths(source))


def _fused(
    q: Tensor,
    k: Tensor,
    heads: int,
    mask: Tensor | None,
    mask_type: int | None,
    lengths: Tensor | None,
) -> Products:
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))  # (r, h, t, d)
    seen = None
    if mask is not None:
        # These operators take every value but zero as masked.
        seen = mask.detach() == 0
        if mask_type == 1:  # (r, s)
            seen = seen[:, None, None, :]
    elif lengths is not None:
        there = torch.arange(q.shape[2], device=q.device) < lengths[:, None]  # (r, t)
        seen = there[:, None, :, None] & there[:, None, None, :]
    return Products(q, k, None, seen)


def _four(x: Tensor) -> Tensor:
    """Make (r, h, q, s) of (…, h, q, s), (h, q, s) or (q, s)."""
    if x.ndim > 4:
        return x.flatten(0, x.ndim - 4)
    if x.ndim == 3:
        return x.unsqueeze(1)
    return x.reshape((1,) * (4 - x.ndim) + tuple(x.shape))


def _padded(x: Tensor, frames: int | None = None) -> Tensor:
    if not x.is_nested:
        return x
    padded = x.to_padded_tensor(0.0)
    if frames is not None and padded.shape[1] < frames:
        padded = F.pad(padded, (0, 0, 0, frames - padded.shape[1]))
    return padded


def _lengths(x: Tensor) -> Tensor | None:
    if not x.is_nested:
        return None
    return x._nested_tensor_size()[:, 0].to(x.device)
