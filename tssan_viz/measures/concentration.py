"""How concentrated the rows of a map are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tssan_viz.measures.rows import as_maps, over_rows, row_entropies


def entropy(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean row entropy over ln s: 0 where each row attends to one frame, 1 where to all alike."""
    a = as_maps(maps)
    return over_rows(row_entropies(a) / max(math.log(a.shape[-1]), 1e-30), a)


def effective_frames(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean over rows of exp(H): to how many frames a row attends, from 1 to s."""
    a = as_maps(maps)
    return over_rows(np.exp(row_entropies(a)), a)


def gini(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean Gini index of the rows: 0 where all keys get the same, 1 − 1/s where one gets all.

    1 − 2 Σ_k p_(k) (s − k + ½) / s with p sorted upwards (Hurley & Rickard 2009, arXiv 0811.4706).
    """
    a = as_maps(maps)
    s = a.shape[-1]
    ordered = np.sort(a, axis=-1)
    total = np.maximum(ordered.sum(axis=-1), 1e-30)
    rank = (s - np.arange(1, s + 1) + 0.5) / s
    return over_rows(1 - 2 * (ordered @ rank) / total, a)


def hoyer(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean Hoyer sparsity of the rows, (√s − ‖p‖₁/‖p‖₂) / (√s − 1): 0 uniform, 1 a single frame.

    Hoyer (2004), Journal of Machine Learning Research 5.
    """
    a = as_maps(maps)
    root = math.sqrt(a.shape[-1])
    norm = np.maximum(np.sqrt((a**2).sum(axis=-1)), 1e-30)
    return over_rows((root - a.sum(axis=-1) / norm) / max(root - 1, 1e-30), a)


def top_mass(maps: ArrayLike, k: int | None = None) -> NDArray[np.float64]:
    """Mean share of a row that its k largest values hold; by default a tenth of the frames."""
    a = as_maps(maps)
    s = a.shape[-1]
    k = min(max(1, math.ceil(s / 10) if k is None else k), s)
    largest = np.partition(a, s - k, axis=-1)[..., s - k :].sum(axis=-1)
    return over_rows(largest / np.maximum(a.sum(axis=-1), 1e-30), a)


def confidence(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean over rows of the largest value (Voita et al. 2019, arXiv 1905.09418)."""
    a = as_maps(maps)
    return over_rows(a.max(axis=-1), a)
