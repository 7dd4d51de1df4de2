"""Maps as unit vectors, so that the similarity of two maps is one dot product.

The mean similarity over all pairs of two groups is then the dot product of two sums, and no pair is
ever formed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tssan_viz.errors import UserError

Metric = Literal["cosine", "pearson", "hellinger", "cka"]
METRICS: tuple[str, ...] = get_args(Metric)

# What centring leaves of a constant map is rounding: float32 keeps about seven digits.
_NOTHING_LEFT = 1e-6


def check_metric(metric: str) -> None:
    """Refuse a metric that has no unit-vector form here.

    Raises
    ------
    UserError
        The metric is none of `METRICS`.
    """
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")


def check_similarity_or_distance(metric: str, distances: Sequence[str]) -> None:
    """Refuse a metric that is neither of `METRICS` nor one of the distances.

    Raises
    ------
    UserError
        It names the nearest, and all that there are.
    """
    if metric in METRICS or metric in distances:
        return
    near = difflib.get_close_matches(metric, [*METRICS, *distances], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown metric {metric!r}: {hint}choose a similarity ({', '.join(METRICS)}) or a "
        f"distance ({', '.join(distances)})"
    )


def unit_vectors(
    maps: NDArray[np.floating], metric: str = "cosine"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Make unit vectors of maps, whose dot products are the metric's similarities.

    ========== =============================================== ==================================
    metric     unit vector of a map A (q × s)                  dot product of two
    ========== =============================================== ==================================
    cosine     vec(A) / ‖A‖                                    cosine similarity
    pearson    the same after taking off the map's mean        Pearson correlation over the cells
    hellinger  √A / √ΣA (ΣA is q, as rows sum to 1)            Bhattacharyya affinity Σ√(p q)
    cka        vec(K) / ‖K‖, K = A_c A_cᵀ, columns centred     linear CKA (Kornblith et al. 2019)
    ========== =============================================== ==================================

    Parameters
    ----------
    maps
        (..., q, s), any float type.
    metric
        One of `METRICS`.

    Returns
    -------
    units : (..., d) float32
        Zero where the map has no direction: d is q·s, for CKA q·q.
    usable : (...) bool
        False where the norm is zero (Pearson of a uniform map, CKA of a map with equal rows).

    Raises
    ------
    UserError
        Unknown metric, values that are not finite, or Hellinger on maps with negative values.
    """
    vectors, norm, usable = vectors_and_norms(maps, metric)
    units = vectors / norm[..., None]
    units[~usable] = 0.0
    return units, usable


def vectors_and_norms(
    maps: NDArray[np.floating], metric: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return what `unit_vectors` divides, for sums that divide as they add.

    Parameters
    ----------
    maps, metric
        As there.

    Returns
    -------
    vectors : (..., d) float32
        May be the maps themselves.
    norms : (...) float32
        1 where the map has no direction.
    usable : (...) bool
        Where it has one.

    Raises
    ------
    UserError
        As there.
    """
    check_metric(metric)
    a = np.asarray(maps, dtype=np.float32)
    *lead, q, s = a.shape
    flat = a.reshape(*lead, q * s)
    size = _norm(flat)
    if not np.isfinite(size).all():
        raise UserError(
            "a map holds values that are not finite numbers, and a mean over it would hide that: "
            "`tssan-viz verify` names the rows; record them again, or leave them out with --where"
        )
    if metric == "cosine":
        vectors, left = flat, size
    elif metric == "pearson":
        vectors = flat - flat.mean(axis=-1, keepdims=True)
        left = _norm(vectors)
    elif metric == "hellinger":
        if flat.size and flat.min() < 0:
            raise UserError(
                "metric 'hellinger' compares probabilities, and these maps have negative values: "
                "use cosine or pearson"
            )
        vectors = np.sqrt(flat)
        left = size
    else:
        centred = a - a.mean(axis=-2, keepdims=True)
        vectors = (centred @ np.swapaxes(centred, -1, -2)).reshape(*lead, q * q)
        left = _norm(centred.reshape(*lead, q * s))
    usable = left > _NOTHING_LEFT * size
    norm = left.copy() if metric in ("cosine", "pearson") else _norm(vectors)
    norm[~usable] = 1.0
    return vectors, norm, usable


def _norm(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
