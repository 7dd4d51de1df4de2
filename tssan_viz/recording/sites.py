"""Which modules of a model are attention.

`attend`
    A submodule that its parent holds as `attend`, that owns no parameters, and whose `forward`
    takes exactly (q, k, v), each (r, h, t, d_head). If it has an attribute `scale`, that is what
    q kᵀ is multiplied by; else it is 1/√d_head. Nothing else is asked of it: it may call a fused
    kernel, drop out probabilities, or spell the product out.
`nn.MultiheadAttention`
    And what is made of it: `nn.Transformer`, its encoders and decoders.
`scaled_dot_product_attention`, flex attention
    A module whose `forward`, or what it calls, names one of these functions.
Hugging Face transformers
    A module whose `forward` asks the registry of attention functions.
a softmax that the user names
    The module that is a softmax, or whose `forward` takes one.
"""

from __future__ import annotations

import difflib
import fnmatch
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from tssan_viz.recording.calls import WatchedSite
from tssan_viz.recording.errors import UnrecordableModel
from tssan_viz.recording.interception import SDPA, Name

LOOKED_FOR = (
    "the recorder looks for submodules named `attend`, without parameters, whose forward takes "
    "(q, k, v), each of shape (rows, heads, frames, width of a head); for nn.MultiheadAttention; "
    "for modules that call F.scaled_dot_product_attention; and for the attention of transformers. "
    "Of attention that is written out, name the softmax: softmax=['path.of.the.module']"
)
KINDS = ("softmax", "signed", "adjacency")

# The functions of transformers that the recorder can see into.
SEEN_IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention")

CROSS = ("cross", "encoder_attn", "encdecattention", "multihead_attn")

PROVENANCE = {
    "attend": "recomputed from the call's own q and k",
    "sdpa": "recomputed from the call's own q, k, scale and mask",
    "multihead": (
        "recomputed from the call's own q, k and mask; where a fused operator projects and attends "
        "in one, from its input, projected once more"
    ),
    "transformers": "recomputed from the call's own q, k, scale and mask, or from its scores",
    "softmax": "recomputed from the scores that the named softmax was given",
    "values": "the named module's output",
}


@dataclass
class Attention:
    """One attention module: its site, and how its calls are noticed."""

    site: WatchedSite
    module: nn.Module
    how: str
    # Whether a softmax taken by this module is attention.
    by_softmax: bool = False
    # Names by which its code reaches scaled_dot_product_attention, besides torch's own.
    names: list[Name] = field(default_factory=list)


def find_sites(
    model: nn.Module,
    *,
    only: str | Sequence[str] | None = None,
    softmax: Mapping[str, str] | Sequence[str] | None = None,
) -> list[WatchedSite]:
    """Find the attention of a model.

    Parameters
    ----------
    model
        Any module, compiled or not; it is only looked at.
    only
        Patterns of names, as of files (``"encoder.*"``): the sites to keep. A pattern that keeps
        none is an error.
    softmax
        Attention that is written out: paths or patterns of the modules that are its softmax, or
        whose forward takes it. A mapping gives the kind of each: ``softmax``, or for a module whose
        output is a map but no probability ``signed`` or ``adjacency``.

    Returns
    -------
    list of WatchedSite
        In the order in which the model holds them, which is the order in which layers are counted.

    Raises
    ------
    UnrecordableModel
        There is none, or one that cannot be recorded; the message says what would help.
    """
    return [found.site for found in find_attentions(model, only=only, softmax=softmax)]


def find_attentions(
    model: nn.Module,
    *,
    only: str | Sequence[str] | None = None,
    softmax: Mapping[str, str] | Sequence[str] | None = None,
) -> list[Attention]:
    """Find the attention of a model, with how each is noticed; see `find_sites`."""
    if not isinstance(model, nn.Module):
        raise UnrecordableModel(f"a model is a torch.nn.Module, and this is {model!r}")
    _refuse_captured(model)
    named = named_modules(model)
    kinds = _named_softmax(named, softmax)
    found: list[Attention] = []
    for name, module in named.items():
        if any(
            parent.how == "attend" and name.startswith(f"{parent.site.name}.") for parent in found
        ):
            continue
        attention = _recognise(name, module, kinds)
        if attention is not None:
            found.append(attention)
    if not found:
        raise UnrecordableModel(
            f"{type(model).__name__} has no attention to record: {LOOKED_FOR}{_written_out(named)}"
        )
    return _chosen(_with_layers(found), only)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by their path, as if the model were neither compiled nor wrapped for several GPUs."""
    prefix = "module." if isinstance(model, nn.parallel.DistributedDataParallel) else ""
    named: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule":
            continue
        name = ".".join(part for part in path.split(".") if part != "_orig_mod")
        named[name.removeprefix(prefix)] = module
    return named


def _recognise(name: str, module: nn.Module, kinds: Mapping[str, str]) -> Attention | None:
    def attention(how: str, **more: Any) -> Attention:
        kind = kinds.get(name, "softmax")
        provenance = PROVENANCE["values" if kind != "softmax" else how]
        site = WatchedSite(name or type(module).__name__, name, 0, kind=kind, provenance=provenance)
        return Attention(site, module, how, **more)

    if name in kinds:
        return attention("softmax" if kinds[name] == "softmax" else "values", by_softmax=True)
    if name.rpartition(".")[2] == "attend":
        if fault := _what_is_wrong(module):
            raise UnrecordableModel(f"{name} ({type(module).__name__}) {fault}; {LOOKED_FOR}")
        return attention("attend")
    if isinstance(module, nn.MultiheadAttention):
        return attention("multihead", by_softmax=True)
    mentions = _mentions(module)
    if mentions.registry:
        _refuse_implementation(name, module)
        return attention("transformers", by_softmax=True, names=_flex_of_transformers(module))
    if mentions.sdpa or mentions.flex:
        return attention("sdpa", by_softmax=mentions.softmax, names=mentions.names)
    return None


# What a module's code says ------------------------------------------------------------------------


@dataclass
class _Mentions:
    sdpa: bool = False
    softmax: bool = False
    flex: bool = False
    registry: bool = False
    names: list[Name] = field(default_factory=list)

    def name(self, variables: dict[str, Any], name: str, flex: bool = False) -> None:
        if not any(n.variables is variables and n.name == name for n in self.names):
            self.names.append(Name(variables, name, flex))


def _mentions(module: nn.Module) -> _Mentions:
    """Read in a module's forward, and in what it calls of its own file, how it attends."""
    found = _Mentions()
    seen: set[CodeType] = set()
    for attribute, value in vars(module).items():
        if value is SDPA:
            found.sdpa = True
            found.names.append(Name(vars(module), attribute))
        elif _is_flex(value):
            found.flex = True
            found.names.append(Name(vars(module), attribute, flex=True))
    forward = vars(module).get("forward")
    waiting = [forward] if forward is not None else _definitions(type(module), "forward")
    while waiting:
        function = _plain_function(waiting.pop())
        if function is None or function.__code__ in seen:
            continue
        seen.add(function.__code__)
        variables = function.__globals__
        for name in _names_in(function.__code__):
            value = variables.get(name)
            if value is SDPA:
                found.sdpa = True
                found.name(variables, name)
            elif _is_flex(value):
                found.flex = True
                found.name(variables, name, flex=True)
            elif name == "scaled_dot_product_attention":
                found.sdpa = True
            elif name == "softmax":
                found.softmax = True
            elif type(value).__name__ == "AttentionInterface":
                found.registry = True
            elif inspect.isfunction(value) and value.__module__ == function.__module__:
                waiting.append(value)
            waiting.extend(_definitions(type(module), name))
    return found


def _is_flex(value: Any) -> bool:
    """Whether a value is flex attention, or what torch.compile has made of it."""
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    return flex is not None and (
        getattr(value, "_torchdynamo_orig_callable", value) is flex.flex_attention
    )


def _flex_of_transformers(module: nn.Module) -> list[Name]:
    if _implementation(module) != "flex_attention":
        return []
    from transformers.integrations import flex_attention

    return [Name(vars(flex_attention), "compile_friendly_flex_attention", flex=True)]


def _definitions(kind: type, name: str) -> list[Any]:
    """Methods of this name in a module's own classes, not in PyTorch's."""
    return [
        vars(base)[name]
        for base in kind.__mro__
        if not base.__module__.startswith("torch.") and base is not object and name in vars(base)
    ]


def _plain_function(value: Any) -> FunctionType | None:
    value = getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return value if inspect.isfunction(value) else None


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


# What cannot be recorded --------------------------------------------------------------------------


def _what_is_wrong(module: nn.Module) -> str | None:
    if any(True for _ in module.parameters()):
        return "has parameters of its own, so what it attends with is not its arguments alone"
    names = list(inspect.signature(module.forward).parameters)
    if len(names) != 3:
        return f"takes ({', '.join(names)})"
    return None


def _refuse_captured(model: nn.Module) -> None:
    for name, module in model.named_modules():
        made_by = getattr(module.forward, "__qualname__", "")
        if made_by.startswith("make_graphed_callables"):
            raise UnrecordableModel(
                f"{name or type(model).__name__} was captured in a CUDA graph by "
                "torch.cuda.make_graphed_callables, and its replays run no Python that could "
                'record: record the model uncaptured, or use torch.compile(mode="reduce-overhead")'
            )
        if isinstance(module, nn.DataParallel):
            raise UnrecordableModel(
                "nn.DataParallel calls copies of the model, which nobody watches: record its "
                ".module on one device, or train with DistributedDataParallel"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise UnrecordableModel(
                f"{name or type(model).__name__} is TorchScript, which calls attention out of "
                "Python's sight: record the module that it was made of"
            )


def _refuse_implementation(name: str, module: nn.Module) -> None:
    implementation = _implementation(module)
    if implementation is not None and implementation not in SEEN_IMPLEMENTATIONS:
        raise UnrecordableModel(
            f"{name} attends by {implementation!r}, which shows neither q and k nor probabilities: "
            'say model.set_attn_implementation("sdpa") before recording; "eager" and '
            '"flex_attention" can be recorded as well'
        )


def _implementation(module: nn.Module) -> str | None:
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


def _written_out(named: Mapping[str, nn.Module]) -> str:
    candidates = [
        name
        for name, module in named.items()
        if name and (isinstance(module, nn.Softmax) or _mentions(module).softmax)
    ]
    if not candidates:
        return ""
    shown = ", ".join(candidates[:3]) + (" …" if len(candidates) > 3 else "")
    return f". A softmax is taken by: {shown}"


# What the user says -------------------------------------------------------------------------------


def _named_softmax(
    named: Mapping[str, nn.Module], softmax: Mapping[str, str] | Sequence[str] | None
) -> dict[str, str]:
    if isinstance(softmax, str):
        softmax = [softmax]
    asked = softmax if isinstance(softmax, Mapping) else dict.fromkeys(softmax or (), "softmax")
    kinds: dict[str, str] = {}
    for pattern, kind in asked.items():
        if kind not in KINDS:
            raise UnrecordableModel(f"the kind of {pattern} is {kind!r}; it would be {_or(KINDS)}")
        matching = fnmatch.filter(named, pattern)
        if not matching:
            raise UnrecordableModel(
                f"softmax names {pattern!r}, and the model has no such module"
                f"{_nearest(pattern, named)}"
            )
        kinds.update(dict.fromkeys(matching, kind))
    return kinds


def _chosen(found: list[Attention], only: str | Sequence[str] | None) -> list[Attention]:
    if only is None:
        return found
    patterns = [only] if isinstance(only, str) else list(only)
    names = [attention.site.name for attention in found]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UnrecordableModel(
                f"no attention is called {pattern!r}{_nearest(pattern, names)}; there are "
                f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
            )
    return [
        attention
        for attention in found
        if any(fnmatch.fnmatchcase(attention.site.name, pattern) for pattern in patterns)
    ]


def _nearest(name: str, names: Mapping[str, Any] | Sequence[str]) -> str:
    near = difflib.get_close_matches(name, [n for n in names if n], n=1, cutoff=0.3)
    return f" (the nearest is {near[0]!r})" if near else ""


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


# Streams and layers -------------------------------------------------------------------------------


def _with_layers(found: list[Attention]) -> list[Attention]:
    """Give every site its stream, and count its layer within it."""
    streams = [_stream(attention.site.name) for attention in found]
    if not {"encoder", "decoder"} <= set(streams):
        # One tower alone is the main stream, whatever its parts are called.
        streams = ["main" if s in ("encoder", "decoder") else s for s in streams]
    layers: dict[str, int] = {}
    for attention, stream in zip(found, streams, strict=True):
        layers[stream] = layers.get(stream, 0) + 1
        site = attention.site
        attention.site = WatchedSite(
            site.name, site.module, layers[stream], stream, site.kind, site.provenance
        )
    return found


def _stream(name: str) -> str:
    parts = name.lower().split(".")
    for stream in ("position", "motion"):
        if any(part.startswith(stream) for part in parts):
            return stream
    if any(word in part for part in parts for word in CROSS):
        return "cross"
    for stream in ("decoder", "encoder"):
        if any(part.startswith(stream) for part in parts):
            return stream
    return "main"
