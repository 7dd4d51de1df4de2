"""How a map goes along with the motion that it was computed from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tssan_viz.measures.rows import as_maps


def joint_speed(poses: ArrayLike, seconds: ArrayLike | None = None) -> NDArray[np.float64]:
    """Mean speed of the joints at each frame.

    Parameters
    ----------
    poses
        (..., t, v, c), in metres or any unit.
    seconds
        When the frames were, (t,) or (..., t); None gives units per frame.

    Returns
    -------
    (..., t) float64
        Central differences, one-sided at the ends; NaN where no joint is there.
    """
    p = np.asarray(poses, np.float64)
    t = p.shape[-3]
    if t < 2:
        return np.full(p.shape[:-2], np.nan)
    at = np.arange(t, dtype=np.float64) if seconds is None else np.asarray(seconds, np.float64)
    before = np.maximum(np.arange(t) - 1, 0)
    after = np.minimum(np.arange(t) + 1, t - 1)
    moved = p[..., after, :, :] - p[..., before, :, :]
    took = at[..., after] - at[..., before]
    lengths = np.sqrt((moved**2).sum(axis=-1))
    there = np.isfinite(lengths)
    n = there.sum(axis=-1)
    mean = np.where(there, lengths, 0.0).sum(axis=-1) / np.maximum(n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((n > 0) & (took > 0), mean / took, np.nan)


def received_attention(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean attention that each key frame gets, r_j = mean_i a_ij: (..., s)."""
    return as_maps(maps).mean(axis=-2)


def coupling_to_motion(maps: ArrayLike, speed: ArrayLike) -> NDArray[np.float64]:
    """Spearman correlation of received attention and joint speed over the key frames.

    Parameters
    ----------
    maps
        (..., q, s).
    speed
        (..., s), from `joint_speed`; broadcast to the maps.

    Returns
    -------
    (...) float64
        NaN where either is the same at all frames, or speed is not known.
    """
    received = received_attention(maps)
    moved = np.broadcast_to(np.asarray(speed, np.float64), received.shape)
    known = np.asarray(np.isfinite(moved).all(axis=-1))
    a = _ranks(received)
    b = _ranks(np.where(known[..., None], moved, 0.0))
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    defined = known & (size > 0)
    return np.where(defined, (a * b).sum(axis=-1) / np.where(defined, size, 1.0), np.nan)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank along the last axis, ties at their mean rank.

    As `scipy.stats.rankdata` does; all of `scipy.stats` takes longer to import than this takes.
    """
    lines = pd.DataFrame(values.reshape(-1, values.shape[-1]))
    return lines.rank(axis=1).to_numpy().reshape(values.shape)
