"""Attention inside a running model, in reach of autograd, and changed if that is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tssan_viz.errors import UserError

_SDPA = F.scaled_dot_product_attention
_METHOD_SOFTMAX = Tensor.softmax
_TORCH_SOFTMAX = torch.softmax

# Names are the whole process's: whoever else wants to tap waits.
_ONE_AT_A_TIME = threading.RLock()

Edit = Callable[[int, Tensor], Tensor]
"""Takes the number of the call, from 0, and a tensor of it; returns what goes on instead."""


@dataclass(frozen=True, eq=False)
class Call:
    """One attention call of a forward pass, its tensors still in the graph.

    Attributes
    ----------
    probabilities
        (r, h, q, s).
    values
        (r, h, s, d); None where a model multiplies by its values itself.
    gathered
        (r, h, q, d): the probabilities times the values; None likewise.
    """

    probabilities: Tensor
    values: Tensor | None
    gathered: Tensor | None


class Tap:
    """Writes the attention of this thread's forward passes out, so that it can be had and changed.

    While it is entered, `scaled_dot_product_attention`, and every softmax over the last of three or
    more axes, is computed step by step: the same numbers to rounding. The model has to reach them
    under PyTorch's own names, as `nn.MultiheadAttention` does.

    Parameters
    ----------
    probabilities
        Changes the probabilities (r, h, q, s) before they meet the values.
    gathered
        Changes what each head gathers (r, h, q, d) before the heads are joined.
    keep
        Whether `calls` is filled.

    Attributes
    ----------
    calls : list of Call
        In the order of the forward pass.
    """

    def __init__(
        self,
        *,
        probabilities: Edit | None = None,
        gathered: Edit | None = None,
        keep: bool = True,
    ) -> None:
        self.calls: list[Call] = []
        self.count = 0
        self._edit_probabilities, self._edit_gathered, self._keep = probabilities, gathered, keep
        self._inside = False

    def __enter__(self) -> Tap:
        _ONE_AT_A_TIME.acquire()
        self._thread = threading.get_ident()
        # A recorder may have put its own there, and gets it back.
        self._before = F.scaled_dot_product_attention, Tensor.softmax, torch.softmax
        # The fast path of nn.TransformerEncoderLayer is one kernel, which shows nothing.
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        F.scaled_dot_product_attention = self._products
        Tensor.softmax = self._softmax_of(_METHOD_SOFTMAX)  # type: ignore[method-assign]
        torch.softmax = self._softmax_of(_TORCH_SOFTMAX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        products, Tensor.softmax, torch.softmax = self._before  # type: ignore[method-assign]
        F.scaled_dot_product_attention = products
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        _ONE_AT_A_TIME.release()

    def _products(self, *args: Any, **kwargs: Any) -> Tensor:
        if threading.get_ident() != self._thread:
            return _SDPA(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        call = dict(zip(names, args, strict=False)) | kwargs
        q, k, v, mask = call["query"], call["key"], call["value"], call.get("attn_mask")
        if call.get("enable_gqa"):
            k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
        scale = q.shape[-1] ** -0.5 if call.get("scale") is None else call["scale"]
        scores = q @ k.transpose(-2, -1) * scale  # (r, h, q, s)
        if call.get("is_causal"):
            mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is not None:
            scores = (
                scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
            )
        # A query that may see nothing would be NaN, in the backward pass too.
        blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
        a = _METHOD_SOFTMAX(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
        a = self._edited(a)
        gathered = a @ v  # (r, h, q, d)
        if self._edit_gathered is not None:
            gathered = self._edit_gathered(self.count, gathered)
        self._remember(a, v, gathered)
        return gathered

    def _softmax_of(self, softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def tapped(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            a = softmax(scores, *args, **kwargs)
            dim = kwargs.get("dim", args[0] if args else None)
            another = threading.get_ident() != self._thread
            if another or scores.ndim < 3 or dim not in (-1, scores.ndim - 1):
                return a
            if self._edit_gathered is not None:
                raise UserError(
                    "this model multiplies probabilities and values itself, so that what a head "
                    "gathers is not in reach; let it call scaled_dot_product_attention"
                )
            a = self._edited(a)
            self._remember(a, None, None)
            return a

        return tapped

    def _edited(self, a: Tensor) -> Tensor:
        if self._edit_probabilities is not None:
            a = self._edit_probabilities(self.count, a)
        if torch.is_grad_enabled() and not a.requires_grad:
            a.requires_grad_()  # frozen weights leave no graph, and its gradient is wanted
        return a

    def _remember(self, a: Tensor, v: Tensor | None, gathered: Tensor | None) -> None:
        if self._keep:
            self.calls.append(Call(a, v, gathered))
        self.count += 1
