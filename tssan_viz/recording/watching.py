"""Watching a model: every attention call of every forward call, handed on while it runs."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from tssan_viz.recording.calls import AttentionCall, WatchedSite
from tssan_viz.recording.compiled import (
    NOT_COMPARED,
    Region,
    compiled_modules,
    deviation,
    repeatable,
)
from tssan_viz.recording.errors import RecordingError, UnrecordableModel
from tssan_viz.recording.interception import (
    listening,
    not_listening,
    over_keys,
    padded_frames,
    true_names,
)
from tssan_viz.recording.probabilities import Products, Scores, Source
from tssan_viz.recording.sites import Attention, find_attentions, find_sites, named_modules
from tssan_viz.recording.sources import (
    from_encoder_layer,
    from_flex,
    from_multihead,
    from_products,
    from_softmax,
    from_values,
    with_all_heads,
)

__all__ = ["Watcher", "find_sites"]


class Watcher:
    """Watches one model for the length of a `with` block.

    Each forward call of the model is announced by `forward_began`, which may wake the watcher or
    send it to sleep for this call, and, if it returned, by `forward_ended`; a call that raises has
    no end. In between, while `awake`, every attention call comes to `deliver` in the order and in
    the thread in which the model makes it. What autograd computes a second time in its backward
    pass (activation checkpoints) is not delivered.

    The first call of a site has the site that `find_sites` listed; a module that attends again in
    the same forward call has the site ``name#2``, a new one. Modules whose attention only shows
    when it is called come as new sites too, unless sites were chosen.

    Parameters
    ----------
    model
        The module that is called.
    sites
        From `find_sites` of the same model.
    deliver
        Is given an `AttentionCall`, whose `compute` it calls at once or not at all.
    forward_began, forward_ended
        Called without arguments around every forward call, asleep or awake.
    softmax
        As given to `find_sites`.

    Attributes
    ----------
    awake
        Whether attention is delivered. Asleep, nothing inside the model is touched.
    fault
        The first thing that went wrong in the watcher itself while the model ran; a model's forward
        call is never broken by it. Whoever reads it sets it back to None.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[WatchedSite],
        deliver: Callable[[AttentionCall], None],
        *,
        forward_began: Callable[[], None],
        forward_ended: Callable[[], None],
        softmax: Any = None,
    ) -> None:
        every = find_attentions(model, softmax=softmax)
        chosen = {site.name for site in sites}
        self.awake = True
        self.fault: Exception | None = None
        self._model = model
        self._deliver = deliver
        self._began, self._ended = forward_began, forward_ended
        self._modules = named_modules(model)
        self._names = {id(module): name for name, module in self._modules.items()}
        self._watched = {id(a.module): a for a in every if a.site.name in chosen}
        self._known = {id(a.module) for a in every}
        self._all_chosen = len(self._watched) == len(every)
        self._extra_names = [name for a in self._watched.values() for name in a.names]
        self._further: dict[str, WatchedSite] = {}
        self._layers: dict[str, int] = {}
        for attention in every:
            stream = attention.site.stream
            self._layers[stream] = max(self._layers.get(stream, 0), attention.site.layer)
        self._installed: list[_InPlace] = []
        self._regions: list[Region] = []
        self._deviations: dict[str, str] = {}
        self._thread = threading.local()
        self._running: list[int] = []

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What this thread calls the model with, while `forward_began` is called: args, kwargs."""
        return getattr(self._thread, "arguments", None)

    @property
    def threads(self) -> int:
        """How many threads are in a forward call of the model."""
        return len(self._running)

    @property
    def graph_notes(self) -> list[str]:
        """What is to be known of compiled models: what was compiled, and deviations of outputs."""
        notes = []
        for region in self._regions:
            name = self._name_of(region)
            graphs = region.backend.graphs
            if graphs:
                notes.append(
                    f"{name}: {graphs} graph{'s were' if graphs > 1 else ' was'} compiled with taps"
                )
                notes.append(f"{name}: {self._deviations.get(name, NOT_COMPARED)}")
        return notes

    # The block ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._installed:
            raise RecordingError("this watcher is already watching; make another")
        root = "forward"
        by_softmax = frozenset(
            type(a.module) for a in self._watched.values() if a.by_softmax or a.how == "attend"
        )
        self._regions = []
        for module in compiled_modules(self._model):
            self._refuse_watched_twice(module)
            self._regions.append(Region(module, by_softmax))
        for region in self._regions:
            self._refuse_in_graph(region.inside)
            if region.module is self._model:
                root = region.attribute
        self._installed = [_Compiled(self, region) for region in self._regions]
        self._installed.append(_Around(self, self._model, root))
        return self

    def __exit__(self, *_: object) -> None:
        for installed in reversed(self._installed):
            installed.remove()
        self._installed = []

    def _refuse_watched_twice(self, module: nn.Module) -> None:
        if any(isinstance(attribute, _InPlace) for attribute in vars(module).values()):
            raise RecordingError(
                f"{type(module).__name__} is compiled and is being recorded already: one recorder "
                "at a time can watch a compiled model"
            )

    def _refuse_in_graph(self, inside: nn.Module) -> None:
        within = {id(module) for module in inside.modules()}
        for attention in self._watched.values():
            if attention.how == "values" and id(attention.module) in within:
                raise UnrecordableModel(
                    f"{attention.site.name} is named as a map, and lies in a compiled graph, where "
                    "only attention and softmax are seen: record the model before torch.compile"
                )

    def run(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run one forward call of the model, watched while awake."""
        if _recomputing() or self._forward() is not None:
            return forward(*args, **kwargs)
        thread = threading.get_ident()
        self._running.append(thread)
        try:
            self._thread.arguments = args, kwargs
            try:
                self._began()
            finally:
                self._thread.arguments = None
            if self.awake:
                self._thread.forward = _Forward(self)
                try:
                    with self._watching(self._thread.forward):
                        output = forward(*args, **kwargs)
                finally:
                    self._thread.forward = None
            else:
                output = forward(*args, **kwargs)
            self._ended()
            return output
        finally:
            self._running.remove(thread)

    def run_compiled(self, region: Region, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a compiled callable, with its taps if this thread's forward call is watched."""
        forward = self._forward()
        if forward is None or _recomputing():
            return region.plain(*args, **kwargs)
        before, forward.region = forward.region, region
        try:
            compared = self._name_of(region) in self._deviations
            if compared or not repeatable(region, args, kwargs):
                return region.twin(*args, **kwargs)
            versions = [buffer._version for buffer in region.inside.buffers()]
            output = region.twin(*args, **kwargs)
            if versions == [buffer._version for buffer in region.inside.buffers()]:
                with true_names(self._extra_names), not_listening():
                    found = deviation(region, args, kwargs, output)
                self._deviations[self._name_of(region)] = found
            return output
        finally:
            forward.region = before

    def _name_of(self, region: Region) -> str:
        return self._names[id(region.inside)] or type(region.inside).__name__

    def _forward(self) -> _Forward | None:
        return getattr(self._thread, "forward", None)

    @contextmanager
    def _watching(self, listener: _Forward) -> Iterator[None]:
        # Inside a compiled graph taps listen; a hook there would be compiled in, again and again.
        compiled = {id(m) for region in self._regions for m in region.inside.modules()}
        handles = []
        for attention in self._watched.values():
            if id(attention.module) in compiled:
                continue
            if attention.how == "attend":
                hook = functools.partial(listener.attend, attention)
                handles.append(attention.module.register_forward_pre_hook(hook, with_kwargs=True))
            elif attention.how == "values":
                after = functools.partial(listener.values, attention)
                handles.append(attention.module.register_forward_hook(after))
        try:
            with listening(listener, self._extra_names):
                yield
        finally:
            for handle in handles:
                handle.remove()

    # What a listener asks -------------------------------------------------------------------------

    def site_of_call(self, attention: Attention, count: int) -> WatchedSite:
        """Return the site of a module's count-th call within one forward call."""
        if count == 1:
            return attention.site
        name = f"{attention.site.name}#{count}"
        if name not in self._further:
            self._further[name] = self._next_layer(replace(attention.site, name=name))
        return self._further[name]

    def _next_layer(self, site: WatchedSite) -> WatchedSite:
        self._layers[site.stream] = self._layers.get(site.stream, 0) + 1
        return replace(site, layer=self._layers[site.stream])

    def attention_of(self, module: nn.Module | None) -> Attention | None:
        """Return what is known of a module that attends; a new one, if it had not shown itself."""
        if module is None:
            return None
        if id(module) in self._known:
            return self._watched.get(id(module))
        if not self._all_chosen:
            return None
        name = self._names[id(module)]
        site = self._next_layer(WatchedSite(name or type(module).__name__, name, 0))
        self._watched[id(module)] = Attention(site, module, "sdpa")
        self._known.add(id(module))
        return self._watched[id(module)]

    def watched(self, module: nn.Module | None) -> Attention | None:
        """Return what is known of a module among the chosen sites."""
        return self._watched.get(id(module))

    def module_at(self, place: str, caller: nn.Module | None, region: Region) -> nn.Module | None:
        """Find the module that a graph calls `variable:path`."""
        variable, path = place.split(":")
        # Compiled modules of torch.nn are the variable `fn` of a frame that has no module.
        start = region.inside if variable == "fn" or caller is None else caller
        name = ".".join(part for part in (self._names[id(start)], path) if part)
        return self._modules.get(name)

    def named(self, module: nn.Module) -> bool:
        """Whether a module is one of the model's."""
        return id(module) in self._names

    def hand_on(self, site: WatchedSite, source: Callable[[], Source]) -> None:
        """Deliver a call; keep what goes wrong from the model."""
        try:
            with torch.no_grad(), not_listening():
                self._deliver(AttentionCall(site, source()))
        except Exception as fault:
            if self.fault is None:
                self.fault = fault


class _Forward:
    """The listener of one forward call: it counts how often each module attends."""

    tracing = False

    def __init__(self, watcher: Watcher) -> None:
        self.region: Region | None = None
        self._watcher = watcher
        self._counts: dict[int, int] = {}

    def named(self, module: nn.Module) -> bool:
        return self._watcher.named(module)

    def _call(self, attention: Attention, source: Callable[[], Source]) -> None:
        if _recomputing():
            return
        key = id(attention.module)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._watcher.hand_on(self._watcher.site_of_call(attention, self._counts[key]), source)

    def attend(
        self, attention: Attention, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        q, k, _ = inspect.signature(module.forward).bind(*args, **kwargs).args
        scale = getattr(module, "scale", None)
        self._call(attention, lambda: from_products({"query": q, "key": k, "scale": scale}))

    def values(
        self, attention: Attention, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        self._call(attention, lambda: from_values(output))

    def products(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        attention = self._watcher.attention_of(module)
        if attention is None or attention.how in ("attend", "values"):
            return
        self._call(attention, lambda: _unpacked(attention, from_products(call)))

    def softmax(self, module: nn.Module | None, scores: Tensor, dim: int | None) -> None:
        attention = self._watcher.watched(module)
        if attention is None or not attention.by_softmax or attention.how == "values":
            return
        if over_keys(scores, dim):
            self._call(attention, lambda: from_softmax(scores, _heads(attention)))

    def fused(self, module: nn.Module | None, operator: str, args: tuple[Any, ...]) -> None:
        if operator == "_transformer_encoder_layer_fwd":
            module = getattr(module, "self_attn", None)
        attention = self._watcher.watched(module)
        if attention is None:
            return

        def source() -> Products:
            if operator == "_transformer_encoder_layer_fwd":
                return from_encoder_layer(args, padded_frames() if args[0].is_nested else None)
            return from_multihead(args)

        self._call(attention, source)

    def flex(self, module: nn.Module | None, call: dict[str, Any]) -> None:
        attention = self._watcher.watched(module)
        if attention is not None and attention.how not in ("attend", "values"):
            self._call(attention, lambda: from_flex(call))

    def compiled(self, module: nn.Module | None, place: str, source: Source) -> None:
        if self.region is None:
            return
        attention = self._watcher.attention_of(self._watcher.module_at(place, module, self.region))
        if attention is None:
            return
        if isinstance(source, Scores) and not (attention.by_softmax or attention.how == "attend"):
            return
        heads = _heads(attention)
        if isinstance(source, Scores) and heads is not None and source.shape[1] == 1:
            source = from_softmax(source.scores.squeeze(1), heads)
        self._call(attention, lambda: _unpacked(attention, source))


def _unpacked(attention: Attention, source: Source) -> Source:
    """Undo how transformers packs the single queries of generation by their key heads."""
    config = getattr(attention.module, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if attention.how != "transformers" or heads is None or not isinstance(source, Products):
        return source
    return with_all_heads(source, heads)


def _heads(attention: Attention) -> int | None:
    module = attention.module
    return module.num_heads if isinstance(module, nn.MultiheadAttention) else None


class _InPlace:
    """Stands in the place of one attribute of one module, and leaves a copy of the module alone."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module = module
        self._name = name
        self._own = vars(module).get(name)
        self._before = getattr(module, name)
        self._removed = False
        functools.update_wrapper(self, self._before, updated=())
        vars(module)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._removed or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._before(*args, **kwargs)
        return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def remove(self) -> None:
        """Put back what was there, unless somebody has put something else there since."""
        self._removed = True
        if vars(self._module).get(self._name) is not self:
            return
        own = self._own
        # A watcher that came before this one may have gone before it, too.
        while isinstance(own, _InPlace) and own._removed:
            own = own._own
        if own is None:
            del vars(self._module)[self._name]
        else:
            vars(self._module)[self._name] = own

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self._module))
        if self._own is None and copied is not None:
            return _method(copied, self._name)
        return copy.deepcopy(self._before, memo)

    def __reduce__(self) -> Any:
        if self._own is None:
            return _method, (self._module, self._name)
        return self._before.__reduce__()


def _method(module: nn.Module, name: str) -> types.MethodType:
    """Bind a method of a module's class, whatever stands in its place on the module."""
    return types.MethodType(getattr(type(module), name), module)


class _Around(_InPlace):
    """A model's forward call, watched."""

    def __init__(self, watcher: Watcher, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self._watcher = watcher

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._watcher.run(self._before, args, kwargs)


class _Compiled(_InPlace):
    """A compiled callable of the model, or its twin with taps."""

    def __init__(self, watcher: Watcher, region: Region) -> None:
        super().__init__(region.module, region.attribute)
        self._watcher = watcher
        self._region = region

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._watcher.run_compiled(self._region, args, kwargs)


def _recomputing() -> bool:
    """Whether autograd runs this: activation checkpoints call modules a second time in backward."""
    return torch._C._current_graph_task_id() != -1
