"""Compiled models: what a compiled graph attends with is told by an opaque operator within it.

A graph that is compiled already hears of no hook and of no name that leads elsewhere. A watched
call therefore runs a twin of the compiled callable: the same code, compiled by the same backend,
whose graphs hold one more operator behind each attention, `tssan_viz::tap`. There is no Python in
the graph and no break. The user's own callable is left as it is, and runs whenever nobody watches:
falling asleep and waking up compile nothing.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from tssan_viz.recording import interception
from tssan_viz.recording.errors import UnrecordableModel
from tssan_viz.recording.interception import SDPA, bound_products, compiled_call, listening
from tssan_viz.recording.probabilities import Products, Scores, Source
from tssan_viz.recording.sources import (
    from_encoder_layer,
    from_multihead,
    from_products,
    from_softmax,
)

COUNTER = "_tssan_viz_counter"
NATIVE = torch._native_multi_head_attention
ENCODER_LAYER = torch._transformer_encoder_layer_fwd
SOFTMAX = (F.softmax, torch.softmax, torch.special.softmax)


# CUDA graphs leave this operator out: inductor cuts the graph there and runs it between the parts,
# each time. The counter is what the operator is said to change, so that it is not taken for dead.
@torch.library.custom_op(
    "tssan_viz::tap", mutates_args={"counter"}, tags=(torch.Tag.cudagraph_unsafe,)
)
def tap(
    counter: Tensor,
    place: str,
    q: Tensor,
    k: Tensor | None,
    mask: Tensor | None,
    scale: Tensor | None,
    factor: float | None,
    causal: bool,
) -> None:
    """Tell who listens in this thread of an attention call; without keys, `q` are its scores."""
    source: Source
    if k is None:
        source = Scores(q)
    else:
        source = Products(q, k, factor if scale is None else scale, mask, causal)
    compiled_call(place, source)


@tap.register_fake
def _tap_of_shapes(
    counter: Tensor,
    place: str,
    q: Tensor,
    k: Tensor | None,
    mask: Tensor | None,
    scale: Tensor | None,
    factor: float | None,
    causal: bool,
) -> None:
    return None


def _emit(counter: Tensor, place: str, source: Source) -> None:
    if isinstance(source, Scores):
        tap(counter, place, source.scores, None, None, None, None, False)
    elif isinstance(source, Products):
        tensor = isinstance(source.scale, Tensor)
        tap(
            counter,
            place,
            source.q,
            source.k,
            source.mask,
            source.scale if tensor else None,
            None if tensor else source.scale,
            source.causal,
        )


class Tapped:
    """A backend that puts taps into every graph, and then asks the backend that the user chose.

    Parameters
    ----------
    inner
        The user's backend.
    by_softmax
        Classes of modules whose softmax is attention.
    """

    def __init__(self, inner: Callable[..., Any], by_softmax: frozenset[type]) -> None:
        self._inner = inner
        self._by_softmax = by_softmax
        self.graphs = 0
        if hasattr(inner, "backend_ctx_ctor"):
            self.backend_ctx_ctor = inner.backend_ctx_ctor

    def __call__(self, graph: GraphModule, inputs: Sequence[Any], **kwargs: Any) -> Any:
        """Compile a graph with its taps."""
        self.graphs += 1
        # The compiler asks where every tensor that a graph holds was found.
        sources = getattr(graph, "_param_name_to_source", {})
        for path, part in graph.named_modules():  # activation checkpoints are graphs in the graph
            if isinstance(part, GraphModule) and self._tap(part):
                name = f"{path}.{COUNTER}" if path else COUNTER
                sources[name] = torch._dynamo.source.LocalSource(name)
        return self._inner(graph, inputs, **kwargs)

    def _tap(self, graph: GraphModule) -> bool:
        attention = [(n, self._replacement(n)) for n in graph.graph.nodes]
        for node, replacement in attention:
            if replacement is not None:
                _replace(graph, node, replacement)
        graph.recompile()
        return hasattr(graph, COUNTER)

    def _replacement(self, node: Node) -> Callable[..., Any] | None:
        if node.op == "call_function":
            if node.target is SDPA:
                return tapped_products
            if node.target is F.multi_head_attention_forward:
                return tapped_multi_head_attention_forward
            if node.target is NATIVE:
                return tapped_native_multi_head_attention
            if node.target is ENCODER_LAYER:
                return tapped_encoder_layer
        # A frame of its own may be a function that a module calls; whose, shows when it runs.
        if not _stack(node) or _stack(node)[-1][1] in self._by_softmax:
            if node.op == "call_method" and node.target == "softmax":
                return tapped_method_softmax
            if node.op == "call_function" and node.target in SOFTMAX:
                return tapped_softmax
        return None


def _replace(graph: GraphModule, node: Node, replacement: Callable[..., Any]) -> None:
    if not hasattr(graph, COUNTER):
        zero = torch.zeros((), dtype=torch.int64, device=_device_of(node))
        graph.register_buffer(COUNTER, zero, persistent=False)
    with graph.graph.inserting_before(node):
        held = graph.graph.get_attr(COUNTER)
        held.meta["example_value"] = getattr(graph, COUNTER)
        args = (held, _place_of(node), *node.args)
        new = graph.graph.call_function(replacement, args, node.kwargs)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)


def _device_of(node: Node) -> torch.device | None:
    values = (n.meta.get("example_value") for n in node.all_input_nodes)
    return next((value.device for value in values if isinstance(value, Tensor)), None)


def _stack(node: Node) -> list[tuple[str, type]]:
    return list(node.meta.get("nn_module_stack", {}).values())


def _place_of(node: Node) -> str:
    """Give the place of a node: `variable:path`, the path as seen from that variable of a frame."""
    stack = _stack(node)
    if not stack:
        return "self:"
    source = re.sub(r"\._modules\b", "", stack[-1][0])
    source = re.sub(r"\[['\"]?([^\]'\"]*)['\"]?\]", r".\1", source)  # L['self'].a[0] -> L.self.a.0
    _, variable, *path = source.split(".")
    return f"{variable}:{'.'.join(path)}"


# What the nodes become. They run once, while the graph is traced on, with tensors without values.


def tapped_products(counter: Tensor, place: str, *args: Any, **kwargs: Any) -> Tensor:
    """Attend, and tell of it."""
    with torch.no_grad():
        _emit(counter, place, from_products(bound_products(args, kwargs)))
    return SDPA(*args, **kwargs)


def tapped_softmax(counter: Tensor, place: str, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Take a softmax, and tell of it."""
    _emit_softmax(counter, place, input, args, kwargs)
    kwargs.pop("_stacklevel", None)
    return SOFTMAX[1](input, *args[:1], **kwargs)


def tapped_method_softmax(
    counter: Tensor, place: str, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """Take a softmax, and tell of it."""
    _emit_softmax(counter, place, input, args, kwargs)
    return input.softmax(*args, **kwargs)


def _emit_softmax(
    counter: Tensor, place: str, scores: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if interception.over_keys(scores, interception.dimension(args, kwargs)):
        with torch.no_grad():
            _emit(counter, place, from_softmax(scores, None))


def tapped_multi_head_attention_forward(
    counter: Tensor, place: str, *args: Any, **kwargs: Any
) -> Any:
    """Attend as nn.MultiheadAttention does, and tell of what is attended with inside."""
    bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    with listening(_Tracing(counter, place, bound.arguments["num_heads"]), []):
        return F.multi_head_attention_forward(*args, **kwargs)


def tapped_native_multi_head_attention(counter: Tensor, place: str, *args: Any) -> Any:
    """Run the fused operator, and tell of it."""
    with torch.no_grad():
        _emit(counter, place, from_multihead(args))
    return NATIVE(*args)


def tapped_encoder_layer(counter: Tensor, place: str, *args: Any) -> Any:
    """Run the fused operator, and tell of the attention in it."""
    with torch.no_grad():
        path = f"{place}.self_attn" if not place.endswith(":") else f"{place}self_attn"
        _emit(counter, path, from_encoder_layer(args, None))
    return ENCODER_LAYER(*args)


class _Tracing:
    """Hears the functions inside F.multi_head_attention_forward while a graph is traced."""

    tracing = True

    def __init__(self, counter: Tensor, place: str, heads: int) -> None:
        self._counter = counter
        self._place = place
        self._heads = heads

    def products(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        _emit(self._counter, self._place, from_products(call))

    def softmax(self, module: nn.Module | None, scores: Tensor, dim: int | None) -> None:
        _emit(self._counter, self._place, from_softmax(scores, self._heads))

    def fused(self, module: nn.Module | None, operator: str, args: tuple[Any, ...]) -> None:
        raise AssertionError("the fused operators are no part of F.multi_head_attention_forward")

    def flex(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        raise AssertionError("flex attention is no part of F.multi_head_attention_forward")

    def compiled(self, module: nn.Module | None, place: str, source: Source) -> None:
        raise AssertionError("no graph is called while one is traced")

    def named(self, module: nn.Module) -> bool:
        return False


# Twins --------------------------------------------------------------------------------------------


class Region:
    """One compiled callable of a model: the user's own, and its twin with taps.

    Parameters
    ----------
    module
        The module that calls it: an OptimizedModule, or one that was compiled in place.
    by_softmax
        As in `Tapped`.
    """

    def __init__(self, module: nn.Module, by_softmax: frozenset[type]) -> None:
        optimized = type(module).__name__ == "OptimizedModule"
        self.attribute = "forward" if optimized else "_compiled_call_impl"
        self.module = module
        self.inside: nn.Module = module._orig_mod if optimized else module  # type: ignore[assignment]
        self.plain = vars(module)[self.attribute]
        self.twin, self.backend = self._twin(by_softmax)

    def _twin(self, by_softmax: frozenset[type]) -> tuple[Callable[..., Any], Tapped]:
        """Make the twin, or take the one of an earlier watch: it is compiled but once."""
        made = _twins.setdefault(self.module, {})
        key = (id(self.plain), by_softmax)
        if key not in made:
            context = self._context()
            inner = torch._dynamo.eval_frame.innermost_backend(context.callback)
            backend = Tapped(inner, by_softmax)
            options: dict[str, Any] = {"fullgraph": context.fullgraph, "dynamic": context._dynamic}
            if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
                options["isolate_recompiles"] = True
            inside = self.inside if self.attribute == "forward" else self.inside._call_impl
            twin = torch.compile(inside, backend=backend, **options)
            made[key] = (getattr(twin, "forward", twin), backend)
        return made[key]

    def _context(self) -> Any:
        context = getattr(self.module, "dynamo_ctx", None)
        if context is None:
            context = inspect.getclosurevars(self.plain).nonlocals.get("self")
        if not callable(getattr(context, "callback", None)):
            raise UnrecordableModel(
                f"{type(self.inside).__name__} was compiled in a way that cannot be repeated with "
                "taps in its graph: record the model as it was before torch.compile"
            )
        return context


_twins: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[Callable[..., Any], Tapped]]] = (
    weakref.WeakKeyDictionary()
)


def compiled_modules(model: nn.Module) -> list[nn.Module]:
    """Find the outermost compiled modules of a model."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        if type(module).__name__ == "OptimizedModule" or vars(module).get("_compiled_call_impl"):
            found.append(module)
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found


# Whether taps show in the outputs -----------------------------------------------------------------

NOT_COMPARED = (
    "its outputs were not compared with those of the graph without taps, since a second call "
    "could change the model or its arguments (it trains, or is given more than tensors and numbers)"
)


def repeatable(region: Region, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a second call with the same arguments would leave everything as it is."""
    modules, buffers = region.inside.modules(), region.inside.buffers()
    still = not any(m.training for m in modules) and not any(b.is_inference() for b in buffers)
    return still and _plain(args) and _plain(kwargs)


def _plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(_plain(v) for v in value)
    if type(value) is dict:
        return all(_plain(v) for v in value.values())
    return value is None or isinstance(value, Tensor | bool | int | float | str)


def deviation(region: Region, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> str:
    """Call the user's own graph as well, and say by how much the outputs of the twin deviate."""
    devices = {t.device for t in _tensors([output, args, kwargs]) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        expected = region.plain(*args, **kwargs)
    pairs = [
        (a.detach(), b.detach())
        for a, b in zip(_tensors(output), _tensors(expected), strict=True)
        if a.is_floating_point()
    ]
    if all(bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs):
        return "its outputs are bit for bit those of the graph without taps"
    furthest = max(float((a - b).abs().max()) for a, b in pairs if a.numel())
    largest = max(float(b.abs().max()) for _, b in pairs if b.numel())
    return (
        f"its outputs deviate from those of the graph without taps by up to {furthest:.2g}, where "
        f"the largest is {largest:.3g}: the compiler fuses the two in different ways"
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []
