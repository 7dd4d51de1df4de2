"""Attention of any model between tokens that are no frames: words, patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.payload import SCHEMA, Payload, SampleView
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
    """
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
    layers = [_layer(values, number) for number, values in enumerate(attention, start=1)]
    if not layers:
        raise UserError("there is no layer: attention is a tensor (1, h, t, t) per layer")
    if len({layer.shape for layer in layers}) > 1:
        shapes = ", ".join(str(layer.shape) for layer in layers)
        raise UserError(f"the layers differ in shape: {shapes}")
    maps = np.stack(layers)[None, None].astype("<f2")
    heads, queries, keys = layers[0].shape
    if not len(tokens) == queries == keys:
        raise UserError(f"the maps are {queries} × {keys}, and {len(tokens)} tokens were given")
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
