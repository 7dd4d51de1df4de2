"""Where attention is computed in eager mode, and who hears of it.

Attention goes through a handful of functions of PyTorch, however it is written: the fused
`scaled_dot_product_attention`, the softmax of a product written out, the two operators into which
`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` vanish in evaluation, and flex attention.
While a watched forward call runs, these names lead to functions that tell the listener of the
running thread what they were called with and then call the one that was asked for. No hook and no
mode is needed inside the model, either of which would switch the encoder's fast path off.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SDPA = F.scaled_dot_product_attention


class Listener(Protocol):
    """Who is told of the calls of one watched forward call."""

    def products(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        """Hear of scaled_dot_product_attention."""

    def softmax(self, module: nn.Module | None, scores: Tensor, dim: int | None) -> None:
        """Hear of a softmax, before it is taken."""

    def fused(self, module: nn.Module | None, operator: str, args: tuple[Any, ...]) -> None:
        """Hear of an operator that projects and attends in one."""

    def flex(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        """Hear of flex attention."""

    def named(self, module: nn.Module) -> bool:
        """Whether a module is one of the watched model."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.busy = False


_thread = _Thread()


@contextmanager
def listening(listener: Listener, extra: list[Name]) -> Iterator[None]:
    """Tell `listener` of this thread's attention calls; `extra` names what else leads to SDPA."""
    _thread.listeners.append(listener)
    _names.install(extra)
    try:
        yield
    finally:
        _names.remove(extra)
        _thread.listeners.remove(listener)


@contextmanager
def not_listening() -> Iterator[None]:
    """Hear nothing for a while."""
    before, _thread.busy = _thread.busy, True
    try:
        yield
    finally:
        _thread.busy = before


def calling_module(listener: Listener) -> nn.Module | None:
    """Find the innermost module of the watched model that is running.

    A function that attends for a module takes the module first, as its own methods do.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_flags & inspect.CO_OPTIMIZED:
            variables = frame.f_locals
            first = variables.get(code.co_varnames[0])
            if isinstance(variables, dict):
                # Before Python 3.13 this is a copy that would keep tensors alive.
                variables.clear()
            if isinstance(first, nn.Module) and listener.named(first):
                return first
        frame = frame.f_back
    return None


def _tell(hear: str, *what: Any) -> None:
    if _thread.busy or not _thread.listeners or torch.compiler.is_compiling():
        return
    with not_listening():
        for listener in _thread.listeners:
            getattr(listener, hear)(calling_module(listener), *what)


@functools.wraps(SDPA)
def _sdpa(*args: Any, **kwargs: Any) -> Tensor:
    _tell("products", bound_products(args, kwargs))
    return SDPA(*args, **kwargs)


def bound_products(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give the arguments of scaled_dot_product_attention their names."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return dict(zip(names, args, strict=False)) | kwargs


_tensor_softmax = Tensor.softmax
_torch_softmax = torch.softmax


def _dimension(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    dim = kwargs.get("dim", args[0] if args else None)
    return dim if isinstance(dim, int) else None


@functools.wraps(_tensor_softmax)
def _method_softmax(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    _tell("softmax", self, _dimension(args, kwargs))
    return _tensor_softmax(self, *args, **kwargs)


@functools.wraps(_torch_softmax)
def _function_softmax(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    _tell("softmax", input, _dimension(args, kwargs))
    return _torch_softmax(input, *args, **kwargs)


def _around_operator(name: str) -> Callable[..., Any]:
    operator = getattr(torch, name)

    @functools.wraps(operator)
    def around(*args: Any) -> Any:
        _tell("fused", name, args)
        return operator(*args)

    return around


Name = tuple[MutableMapping[str, Any], str]


class _Names:
    """Which names lead elsewhere at the moment, for how many watched forward calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str], int] = {}
        self._before: dict[tuple[int, str], Any] = {}
        self._common: list[tuple[Any, str, Any]] = [
            (F, "scaled_dot_product_attention", _sdpa),
            (Tensor, "softmax", _method_softmax),
            (torch, "softmax", _function_softmax),
            (
                torch,
                "_native_multi_head_attention",
                _around_operator("_native_multi_head_attention"),
            ),
            (
                torch,
                "_transformer_encoder_layer_fwd",
                _around_operator("_transformer_encoder_layer_fwd"),
            ),
        ]
        self._users = 0

    def install(self, extra: list[Name]) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                for holder, name, replacement in self._common:
                    self._before[id(holder), name] = vars(holder).get(name)
                    setattr(holder, name, replacement)
            for variables, name in extra:
                key = (id(variables), name)
                self._counts[key] = self._counts.get(key, 0) + 1
                variables[name] = _sdpa

    def remove(self, extra: list[Name]) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for holder, name, _ in self._common:
                    before = self._before.pop((id(holder), name))
                    if before is None:  # it came from a base class
                        delattr(holder, name)
                    else:
                        setattr(holder, name, before)
            for variables, name in extra:
                key = (id(variables), name)
                self._counts[key] -= 1
                if self._counts[key] == 0:
                    del self._counts[key]
                    variables[name] = SDPA


_names = _Names()
