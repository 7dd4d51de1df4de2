"""The queries and keys of a video's frames: where they lie, and what each dimension adds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.html import page
from tssan_viz.views.payload import Payload, head_view_payload
from tssan_viz.views.widget import SampleView, traitlets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from tssan_viz.selection import Selection

# float16 keeps three digits of a weight, and rounding of the products adds as much.
_TOLERANCE = 4e-3


def query_key_payload(
    selection: Selection, queries: ArrayLike, keys: ArrayLike, sample: str | None = None
) -> Payload:
    """Collect one sample's queries and keys beside its maps and poses.

    They are drawn in a plane that is as true to both as a plane can be, as AttentionViz has it
    (Yeh et al. 2023): keys are moved onto the queries' centre and scaled against them, neither of
    which changes attention; then the two first principal components of all of them.

    Parameters
    ----------
    selection, sample
        Where the maps are; see `head_view_payload`.
    queries, keys
        What attended: float (k, m, layer, h, t, d), for the segments, persons, layers and heads
        that the selection has, in their order.

    Returns
    -------
    Payload
        Of `head_view_payload`, and ``query_vectors``, ``key_vectors`` float16
        (k, m, layer, h, t, d), ``plane`` float32 (k, m, layer, h, 2, t, 2): queries, then keys;
        ``explained`` in the manifest: the share (k, m, layer, h) of the variance in the plane.

    Raises
    ------
    UserError
        The arrays have another shape than the maps ask for, or softmax(q kᵀ / √d) does not give
        the maps.
    """
    payload = head_view_payload(selection, sample)
    manifest = payload.manifest
    shape = manifest["maps"]["shape"]
    q, k = (np.asarray(values, dtype=np.float32) for values in (queries, keys))
    if q.shape[:-1] != tuple(shape[:-1]) or k.shape != q.shape or shape[-1] != shape[-2]:
        raise UserError(
            f"queries are {q.shape} and keys {k.shape}; for maps {tuple(shape)} of segments, "
            f"persons, layers, heads, queries and keys they are {(*shape[:-1], 'd')}"
        )
    there = np.asarray(manifest["present"])
    maps = np.frombuffer(payload.buffers["maps"], "<f2").reshape(shape)[there]
    scores = q[there] @ np.swapaxes(k[there], -1, -2) / math.sqrt(q.shape[-1])
    made = np.exp(scores - scores.max(axis=-1, keepdims=True))
    made /= made.sum(axis=-1, keepdims=True)
    worst = float(np.abs(made - maps).max(initial=0.0))
    if not worst <= _TOLERANCE:
        raise UserError(
            f"softmax(q kᵀ / √d) is up to {worst:.3f} away from the recorded maps: these queries "
            "and keys are not what made them"
        )
    plane, explained = _plane(q, k)
    changed = {
        "view": "query-key",
        "query_vectors": {"dtype": "f2", "shape": list(q.shape)},
        "key_vectors": {"dtype": "f2", "shape": list(k.shape)},
        "plane": {"dtype": "f4", "shape": list(plane.shape)},
        "explained": np.round(explained, 4).tolist(),
    }
    dropped = {"steps", "earlier"}  # the queries are those of one state of the network
    buffers = {name: buffer for name, buffer in payload.buffers.items() if name not in dropped}
    buffers |= {
        "query_vectors": q.astype("<f2").tobytes(),
        "key_vectors": k.astype("<f2").tobytes(),
        "plane": plane.astype("<f4").tobytes(),
    }
    kept = {name: value for name, value in manifest.items() if name not in dropped}
    return Payload({**kept, **changed}, buffers)


def _plane(
    q: NDArray[np.float32], k: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return where queries and keys lie (…, 2, t, 2), and the share of the variance (…)."""
    centre = q.mean(axis=-2, keepdims=True)
    k = k - k.mean(axis=-2, keepdims=True)
    spread = [np.sqrt(((x - x.mean(-2, keepdims=True)) ** 2).sum((-1, -2))) for x in (q, k)]
    # q · k stays what it is where one grows as the other shrinks.
    ratio = np.sqrt(spread[1] / np.maximum(spread[0], 1e-12))
    ratio = np.where(ratio > 0, ratio, 1.0)[..., None, None]
    both = np.concatenate([(q - centre) * ratio, k / ratio], axis=-2).astype(np.float64)
    u, s, _ = np.linalg.svd(both, full_matrices=False)
    planar = np.zeros((*both.shape[:-1], 2))
    count = min(2, s.shape[-1])
    planar[..., :count] = u[..., :count] * s[..., None, :count]
    total = (s**2).sum(axis=-1)
    explained = (s[..., :2] ** 2).sum(axis=-1) / np.where(total > 0, total, 1.0)
    t = q.shape[-2]
    return np.stack([planar[..., :t, :], planar[..., t:, :]], axis=-3).astype("<f4"), explained


class QueryKeyView(SampleView):
    """Queries and keys of one head in a plane, and what each dimension adds to their product."""

    query_vectors = traitlets.Bytes(read_only=True).tag(sync=True)
    key_vectors = traitlets.Bytes(read_only=True).tag(sync=True)
    plane = traitlets.Bytes(read_only=True).tag(sync=True)

    def __init__(self, payload: Payload, **state: Any) -> None:
        for name in ("query_vectors", "key_vectors", "plane"):
            self.set_trait(name, payload.buffers[name])
        super().__init__(payload, **state)

    def to_html(self) -> str:
        """Return the view in its present state as a stand-alone page."""
        names = ("maps", "poses", "query_vectors", "key_vectors", "plane")
        buffers = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return page(Payload(self.manifest, buffers), self.state)


def query_key_view(
    selection: Selection,
    queries: ArrayLike,
    keys: ArrayLike,
    sample: str | None = None,
    **state: Any,
) -> QueryKeyView:
    """Show the queries and keys of one sample, head by head.

    Parameters
    ----------
    selection, queries, keys, sample
        As for `query_key_payload`.
    **state
        With what the view begins; see `tssan_viz.head_view`. Of the heads that are on, the first
        is shown.

    Returns
    -------
    QueryKeyView
        A widget whose state can be read and set; `save_html` keeps it as a page.

    Raises
    ------
    UserError
        As `query_key_payload`.
    """
    payload = query_key_payload(selection, queries, keys, sample)
    return QueryKeyView(payload, **{"heads": payload.manifest["heads"][:1], **state})
