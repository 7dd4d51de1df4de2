"""Attention of any model between tokens that are no frames: words, patches of an image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.schema import SCHEMA, Payload, SampleView

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore
    from tssan_viz.views.widget import Explore

_DIMENSIONS = 4  # (1, h, q, s), as Hugging Face's models and BertViz have it


def from_attentions(
    attention: Sequence[Any], tokens: Sequence[str], *, name: str = "attention", **state: Any
) -> Explore:
    """Show what BertViz takes, a tensor per layer and a text per token, in these views.

    Parameters
    ----------
    attention
        Per layer a tensor or array ``(1, h, t, t)`` or ``(h, t, t)``.
    tokens
        t texts; they are shown as text, whatever they hold.
    name
        What stands above the views.
    **state
        With what the views begin; see `tssan_viz.head_view`.

    Raises
    ------
    UserError
        The layers differ in shape, hold several inputs or values that are not finite, or there are
        not as many tokens as keys.

    Examples
    --------
    >>> tssan_viz.from_attentions(model(**inputs).attentions, tokens)  # doctest: +SKIP

    See Also
    --------
    tssan_viz.record_attentions : keeps the same in a store.
    """
    from tssan_viz.views.widget import Explore

    payload = tokens_payload(attention, tokens, name=name)
    return Explore(payload, **{"orientation": "vertical", **state})


def tokens_payload(
    attention: Sequence[Any],
    tokens: Sequence[str],
    *,
    name: str = "attention",
    view: SampleView = "explore",
) -> Payload:
    """Collect attention between tokens for a view; see `from_attentions`."""
    if view == "player":
        raise UserError("tokens have no poses: there is nothing to play")
    layers = _layers(attention, tokens)
    maps = layers[None, None].astype("<f2")
    heads = layers.shape[1]
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": view,
        "token": "token",
        "sample": name,
        "layers": list(range(1, len(layers) + 1)),
        "heads": list(range(1, heads + 1)),
        "segments": [1],
        "persons": [1],
        "fused": True,
        "present": [[True]],
        "maps": {"dtype": "f2", "shape": list(maps.shape)},
        "poses": None,
        "labels": [[str(token) for token in tokens]],
        "seconds": None,
    }
    return Payload(manifest, {"maps": maps.tobytes()})


def record_attentions(
    store: AttentionStore,
    texts: Mapping[str, tuple[Sequence[Any], Sequence[str]]],
    *,
    run: str,
    classes: Mapping[str, str] | None = None,
) -> Selection:
    """Keep in a store what BertViz takes, for every view, comparison and figure to read.

    Parameters
    ----------
    store
        Opened with ``create=True``, or one that is there.
    texts
        By a name for each text (or image): its attention, per layer (1, h, t, t) or (h, t, t), and
        its t tokens. Shorter ones are padded with rows of zeros; views leave the padding out, and
        means over texts of unlike lengths are refused.
    run
        The name of a run that the store does not hold.
    classes
        The class of each name, to be compared by; by default all are of the class "text".

    Returns
    -------
    Selection
        What was recorded: float16, each token beside its maps in the column ``tokens``.

    Raises
    ------
    UserError
        As `from_attentions`; or the run is there, there is no text, texts differ in layers or
        heads, or one has no class.

    Examples
    --------
    >>> texts = {"cat": (model(**inputs).attentions, tokens)}  # doctest: +SKIP
    >>> chosen = tssan_viz.record_attentions(store, texts, run="bert")  # doctest: +SKIP
    >>> tssan_viz.explore(chosen, "cat")  # doctest: +SKIP
    """
    from tssan_viz.store import Catalogue, ClassEntry, Site, StoredSample

    if not texts:
        raise UserError("there is nothing to record: texts is empty")
    if run in store.run_names():
        raise UserError(f"{store.url} holds a run {run!r} already; give another name")
    named = dict.fromkeys(texts, "text") if classes is None else dict(classes)
    if without := [name for name in texts if name not in named]:
        raise UserError(f"classes names no class of {without[0]!r}")
    read = {name: _layers(attention, tokens) for name, (attention, tokens) in texts.items()}
    if len({layers.shape[:2] for layers in read.values()}) > 1:
        found = ", ".join(f"{name} {layers.shape[:2]}" for name, layers in read.items())
        raise UserError(f"the texts differ in (layers, heads): {found}")
    number, heads = next(iter(read.values())).shape[:2]
    longest = max(layers.shape[-1] for layers in read.values())
    maps = np.zeros((len(read), number, heads, longest, longest), np.float16)
    for row, layers in enumerate(read.values()):
        maps[row, ..., : layers.shape[-2], : layers.shape[-1]] = layers
    kinds = sorted({named[name] for name in texts})
    catalogue = Catalogue(
        dataset="tokens",
        classes=tuple(ClassEntry(label, kind, f"C{label}", ()) for label, kind in enumerate(kinds)),
    )
    sites = tuple(Site(f"layer {n}", n, heads, longest, longest) for n in range(1, number + 1))
    labels = [kinds.index(named[name]) for name in texts]
    with store.writer(run, sites=sites, catalogue=catalogue, info={"source": "tokens"}) as writer:
        writer.add_samples(
            [
                StoredSample(
                    name, label, kinds[label], f"C{label}", None, None,
                    frames=np.arange(longest, dtype=np.float32)[None],
                )
                for name, label in zip(texts, labels, strict=True)
            ]
        )  # fmt: skip
        writer.add(
            {
                "sample": list(texts),
                "label": labels,
                "tokens": [
                    json.dumps([str(token) for token in tokens], ensure_ascii=False)
                    for _, tokens in texts.values()
                ],
            },
            {site.name: maps[:, n] for n, site in enumerate(sites)},
        )
    return store.select(run=run)


def _layers(attention: Sequence[Any], tokens: Sequence[str]) -> np.ndarray:
    """Return all layers' maps (layer, h, t, t)."""
    layers = [_layer(values, number) for number, values in enumerate(attention, start=1)]
    if not layers:
        raise UserError("there is no layer: attention is a tensor (1, h, t, t) per layer")
    if len({layer.shape for layer in layers}) > 1:
        shapes = ", ".join(str(layer.shape) for layer in layers)
        raise UserError(f"the layers differ in shape: {shapes}")
    queries, keys = layers[0].shape[-2:]
    if not len(tokens) == queries == keys:
        raise UserError(f"the maps are {queries} × {keys}, and {len(tokens)} tokens were given")
    if not len(tokens):
        raise UserError("there is no token: give the maps of at least one")
    return np.stack(layers)


def _layer(values: Any, number: int) -> np.ndarray:
    """Return one layer's maps (h, t, t)."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    array = np.asarray(values)
    if array.ndim == _DIMENSIONS:
        if len(array) != 1:
            raise UserError(f"layer {number} holds {len(array)} inputs: give one")
        array = array[0]
    if array.ndim != _DIMENSIONS - 1:
        raise UserError(f"layer {number} has shape {array.shape}, and (1, h, t, t) is expected")
    if not np.isfinite(array).all():
        raise UserError(f"layer {number} holds values that are not finite numbers")
    return array
