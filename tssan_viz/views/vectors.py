"""The queries and keys of a video's tokens: kept beside its maps, and laid into a plane for a view.

Below ``maps/<run>/queries/`` of a store lies one ``.npz`` per video and stream. Removing the run
removes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.store.durable import write_atomically
from tssan_viz.store.schema import run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore
    from tssan_viz.store.places import Place
    from tssan_viz.views.schema import Payload

    Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]

# float16 keeps three digits of a weight, and rounding of the products adds as much.
_TOLERANCE = 4e-3
AXES = ("segments", "persons", "layers", "heads")


def write_queries(
    store: AttentionStore,
    run: str,
    stream: str,
    sample: str,
    vectors: Vectors,
    at: dict[str, Sequence[int]],
) -> None:
    """Write, unchecked, what `tssan_viz.keep_queries` keeps; ``at`` gives the numbers of `AXES`."""
    path = _path(store, run, stream, sample)
    packed = io.BytesIO()
    numbers = {name: np.asarray(at[name], np.int32) for name in AXES}
    np.savez(packed, queries=vectors[0], keys=vectors[1], **numbers)  # type: ignore[arg-type]
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, packed.getvalue())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _path(store: AttentionStore, run: str, stream: str, sample: str) -> Place:
    # A sample's name may hold what no file's name can.
    name = hashlib.sha256(json.dumps([stream, sample]).encode()).hexdigest()[:32]
    return store.path / "maps" / run_folder(run) / "queries" / f"{name}.npz"


def is_kept(store: AttentionStore, run: str, stream: str, sample: str) -> bool:
    """Whether queries and keys of a sample were kept."""
    return _path(store, run, stream, sample).exists()


def kept_queries(selection: Selection, manifest: dict[str, Any]) -> Vectors | None:
    """Return the queries and keys (k, m, layer, h, t, d) of what a payload shows.

    Parameters
    ----------
    selection
        Where the maps are.
    manifest
        Of `tssan_viz.views.head_view_payload`.

    Returns
    -------
    tuple or None
        None where none were kept, or not of all that is shown.
    """
    path = _path(selection.store, selection.run, selection.stream, manifest["sample"])
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as packed:
        places = []
        for name in AXES:
            known = packed[name].tolist()
            if not set(manifest[name]) <= set(known):
                return None
            places.append([known.index(number) for number in manifest[name]])
        q, k = (packed[name][np.ix_(*places)] for name in ("queries", "keys"))
    return q, k


def with_kept_queries(payload: Payload, selection: Selection) -> Payload:
    """Add the queries and keys that were kept of a payload's video; without any, the payload."""
    kept = kept_queries(selection, payload.manifest)
    # They are those of one state of the network.
    if kept is None or "steps" in payload.manifest:
        return payload
    try:
        return with_queries(payload, *kept)
    except UserError:  # the maps were recorded anew since
        return payload


def copy_queries(source: AttentionStore, into: AttentionStore, run: str) -> int:
    """Copy a run's queries and keys to where the run was copied to; return of how many videos."""
    folder = source.path / "maps" / run_folder(run) / "queries"
    files: list[Place] = [*folder.glob("*.npz")]
    target = into.path / "maps" / run_folder(run) / "queries"
    for path in files:
        target.mkdir(exist_ok=True)
        write_atomically(target / path.name, path.read_bytes())
    return len(files)


def with_queries(payload: Payload, queries: ArrayLike, keys: ArrayLike) -> Payload:
    """Add queries and keys to a payload, and the plane in which they are drawn.

    Parameters
    ----------
    payload
        Of `tssan_viz.views.head_view_payload`.
    queries, keys
        float (k, m, layer, h, t, d).

    Returns
    -------
    Payload
        With what `tssan_viz.views.query_key_payload` describes.

    Raises
    ------
    UserError
        As `keep_queries`.
    """
    q, k = checked(payload, queries, keys)
    plane, explained = _plane(q, k)
    manifest = {
        **payload.manifest,
        "query_vectors": {"dtype": "f2", "shape": list(q.shape)},
        "key_vectors": {"dtype": "f2", "shape": list(k.shape)},
        "plane": {"dtype": "f4", "shape": list(plane.shape)},
        "explained": np.round(explained, 4).tolist(),
    }
    buffers = {
        **payload.buffers,
        "query_vectors": q.astype("<f2").tobytes(),
        "key_vectors": k.astype("<f2").tobytes(),
        "plane": plane.astype("<f4").tobytes(),
    }
    return type(payload)(manifest, buffers)


def checked(payload: Payload, queries: ArrayLike, keys: ArrayLike) -> Vectors:
    """Return queries and keys as float32, if their softmax is what the payload shows."""
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
    return q, k


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
