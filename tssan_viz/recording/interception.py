"""Where attention is computed, and who hears of it.

Attention goes through a handful of functions of PyTorch, however it is written: the fused
`scaled_dot_product_attention`, flex attention, the softmax of a product written out, and the two
operators into which `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` vanish in evaluation.
While a watched
forward call runs, these names lead to functions that tell the listeners of the running thread what
they were called with and then call the one that was asked for. No hook and no mode is needed inside
the model, either of which would switch the encoder's fast path off.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn import functional as F

from tssan_viz.recording.probabilities import Source

SDPA = F.scaled_dot_product_attention


class Name(NamedTuple):
    """A name by which a model's code reaches attention, and the variables that hold it."""

    variables: MutableMapping[str, Any]
    name: str
    # Whether it leads to flex attention, compiled or not, or to SDPA.
    flex: bool = False


class Listener(Protocol):
    """Who is told of the calls of one watched forward call."""

    # Whether this listens to a graph being traced, whose tensors hold nothing, or to a model.
    tracing: bool

    def products(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        """Hear of scaled_dot_product_attention."""

    def softmax(self, module: nn.Module | None, scores: Tensor, dim: int | None) -> None:
        """Hear of a softmax, before it is taken."""

    def fused(self, module: nn.Module | None, operator: str, args: tuple[Any, ...]) -> None:
        """Hear of an operator that projects and attends in one."""

    def flex(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        """Hear of flex attention."""

    def compiled(self, module: nn.Module | None, place: str, source: Source) -> None:
        """Hear of a call within a compiled graph, at `place` as seen from the calling module."""

    def named(self, module: nn.Module) -> bool:
        """Whether a module is one of the watched model."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.busy = False


_thread = _Thread()


@contextmanager
def listening(listener: Listener, extra: Sequence[Name] = ()) -> Iterator[None]:
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


@contextmanager
def true_names(extra: Sequence[Name] = ()) -> Iterator[None]:
    """Let the names lead where they did, around a compiler that looks at them."""
    _names.remove(extra)
    try:
        yield
    finally:
        _names.install(extra)


def compiled_call(place: str, source: Source) -> None:
    """Tell who listens of a call that a compiled graph makes."""
    _tell("compiled", source.tensor, place, source)


def _tell(hear: str, tensor: Tensor, *what: Any) -> None:
    if _thread.busy or not _thread.listeners:
        return
    tracing = isinstance(tensor, FakeTensor | FunctionalTensor)
    with not_listening():
        for listener in _thread.listeners:
            if listener.tracing == tracing:
                module = None if tracing else _calling_module(listener)
                getattr(listener, hear)(module, *what)


def _calling_module(listener: Listener) -> nn.Module | None:
    """Find the innermost module of the watched model that is running.

    A function that attends for a module takes the module first, as its own methods do.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount:
            first = _local(frame, code.co_varnames[0])
            if isinstance(first, nn.Module) and listener.named(first):
                return first
        frame = frame.f_back
    return None


def padded_frames() -> int | None:
    """Find the length of the batch that the running nn.TransformerEncoder has made nested."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is nn.TransformerEncoder.forward.__code__:
            return int(_local(frame, "src").shape[1])
        frame = frame.f_back
    return None


def _local(frame: FrameType, name: str) -> Any:
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return None
    variables = frame.f_locals
    value = variables.get(name)
    if isinstance(variables, dict):
        # Before Python 3.13 this is a copy that would keep tensors alive.
        variables.clear()
    return value


# What an argument list says -----------------------------------------------------------------------


def bound_products(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give the arguments of scaled_dot_product_attention their names."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return dict(zip(names, args, strict=False)) | kwargs


def dimension(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Find over which axis a softmax goes, in the arguments behind its tensor."""
    dim = kwargs.get("dim", args[0] if args else None)
    return dim if isinstance(dim, int) else None


def over_keys(scores: Tensor, dim: int | None) -> bool:
    """Whether a softmax could be one over the keys of (…, q, s)."""
    return scores.ndim >= 3 and dim in (-1, scores.ndim - 1)


# Where the names lead -----------------------------------------------------------------------------
# A compiler that follows one of them finds the true function alone.


@functools.wraps(SDPA)
def _sdpa(*args: Any, **kwargs: Any) -> Tensor:
    if not torch.compiler.is_dynamo_compiling():
        call = bound_products(args, kwargs)
        _tell("products", call["query"], call)
    return SDPA(*args, **kwargs)


_tensor_softmax = Tensor.softmax
_torch_softmax = torch.softmax


@functools.wraps(_tensor_softmax)
def _method_softmax(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not torch.compiler.is_dynamo_compiling():
        _tell("softmax", self, self, dimension(args, kwargs))
    return _tensor_softmax(self, *args, **kwargs)


@functools.wraps(_torch_softmax)
def _function_softmax(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not torch.compiler.is_dynamo_compiling():
        _tell("softmax", input, input, dimension(args, kwargs))
    return _torch_softmax(input, *args, **kwargs)


def _around_operator(name: str) -> tuple[Any, str, Callable[..., Any]]:
    operator = getattr(torch, name)

    @functools.wraps(operator)
    def around(*args: Any) -> Any:
        if not torch.compiler.is_dynamo_compiling():
            _tell("fused", args[0], name, args)
        return operator(*args)

    return torch, name, around


def _around_flex(attend: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(attend, updated=())
    def around(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_dynamo_compiling():
            names = ("value", "score_mod", "block_mask", "scale", "enable_gqa")
            call = dict(zip(names, args, strict=False)) | kwargs | {"query": query, "key": key}
            _tell("flex", query, call)
        return attend(query, key, *args, **kwargs)

    return around


class _Names:
    """Which names lead elsewhere at the moment, for how many watched forward calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._common: list[tuple[Any, str, Callable[..., Any]]] = [
            (F, "scaled_dot_product_attention", _sdpa),
            (Tensor, "softmax", _method_softmax),
            (torch, "softmax", _function_softmax),
            _around_operator("_native_multi_head_attention"),
            _around_operator("_transformer_encoder_layer_fwd"),
        ]
        self._true = [vars(holder).get(name) for holder, name, _ in self._common]
        # How many use a name of a model's own, and where it led before.
        self._extra: dict[tuple[int, str], tuple[int, Any]] = {}

    def install(self, extra: Sequence[Name]) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                for holder, name, replacement in self._common:
                    setattr(holder, name, replacement)
            for variables, name, flex in extra:
                key = (id(variables), name)
                users, true = self._extra.get(key, (0, variables[name]))
                self._extra[key] = users + 1, true
                if users == 0:
                    variables[name] = _around_flex(true) if flex else _sdpa

    def remove(self, extra: Sequence[Name]) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for (holder, name, _), true in zip(self._common, self._true, strict=True):
                    if true is None:  # the name comes from a base class
                        delattr(holder, name)
                    else:
                        setattr(holder, name, true)
            for variables, name, _ in extra:
                key = (id(variables), name)
                users, true = self._extra.pop(key)
                if users > 1:
                    self._extra[key] = users - 1, true
                else:
                    variables[name] = true


_names = _Names()
