"""What all measures share: maps as numbers, and means over the rows that attend to anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tssan_viz.errors import UserError

# A row whose sum is below this is masked in full.
_NOTHING = 1e-6


def as_maps(maps: ArrayLike) -> NDArray[np.float64]:
    """Return maps (..., q, s) as float64.

    Raises
    ------
    UserError
        They have fewer than two dimensions, or values that are negative or no numbers.
    """
    a = np.asarray(maps, dtype=np.float64)
    if a.ndim < 2:
        raise UserError(f"a map has two dimensions, query and key frames; given was {a.shape}")
    if not np.isfinite(a).all():
        raise UserError("the maps have values that are no numbers")
    if a.size and a.min() < 0:
        raise UserError(
            "the maps have negative values: these measures are of attention probabilities"
        )
    return a


def over_rows(values: NDArray[np.float64], maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (..., q) over the rows of maps that attend to anything; NaN where none does."""
    there = maps.sum(axis=-1) > _NOTHING
    n = there.sum(axis=-1)
    total = np.where(there, values, 0.0).sum(axis=-1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def row_entropies(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return −Σ p ln p of each row, made to sum to 1: (..., q), in nats."""
    from scipy.special import entr

    total = maps.sum(axis=-1, keepdims=True)
    return entr(maps / np.where(total > _NOTHING, total, 1.0)).sum(axis=-1)


def offsets(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return key minus query frame (q, s)."""
    q, s = maps.shape[-2:]
    return (np.arange(s)[None, :] - np.arange(q)[:, None]).astype(np.float64)
