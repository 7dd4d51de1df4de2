"""Where a map looks: near or far, ahead or back, along lines, at single frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tssan_viz.errors import UserError
from tssan_viz.measures.rows import as_maps, offsets, over_rows, row_entropies


def distance(maps: ArrayLike, times: ArrayLike | None = None) -> NDArray[np.float64]:
    """Mean attention distance Σ_j a_ij |t_i − t_j| over rows.

    Parameters
    ----------
    maps
        (..., q, s).
    times
        When the frames were, (s,) for all or (..., s) for each map, in seconds; None counts frames.
        The maps are square then.
    """
    a = as_maps(maps)
    return over_rows((a * np.abs(_apart(a, times))).sum(axis=-1), a)


def look_ahead(maps: ArrayLike, times: ArrayLike | None = None) -> NDArray[np.float64]:
    """Mean signed distance Σ_j a_ij (t_j − t_i) over rows: above 0 looks ahead, below 0 back."""
    a = as_maps(maps)
    return over_rows((a * _apart(a, times)).sum(axis=-1), a)


def _apart(maps: NDArray[np.float64], times: ArrayLike | None) -> NDArray[np.float64]:
    if times is None:
        return offsets(maps)
    _square(maps, "distances in time")
    at = np.asarray(times, np.float64)
    if at.shape[-1] != maps.shape[-1]:
        raise UserError(f"{at.shape[-1]} times are given for maps of {maps.shape[-1]} frames")
    return at[..., None, :] - at[..., :, None]


def _square(maps: NDArray[np.float64], what: str) -> None:
    if maps.shape[-1] != maps.shape[-2]:
        raise UserError(
            f"{what} need as many query as key frames; the maps are {maps.shape[-2]} × "
            f"{maps.shape[-1]}"
        )


def globalness(maps: ArrayLike) -> NDArray[np.float64]:
    """Mean row entropy in nats: high where rows look everywhere.

    1/q Σ_i H(a_i), from 0 to ln s (Yang et al. 2020, arXiv 2006.03265, equation 1).
    """
    a = as_maps(maps)
    return over_rows(row_entropies(a), a)


def verticality(maps: ArrayLike) -> NDArray[np.float64]:
    """Minus the entropy of the mean row: high where all rows look at one and the same frame.

    −H(1/q Σ_i a_i), in nats, from −ln s to 0 (Yang et al. 2020, arXiv 2006.03265, equation 2).
    """
    a = as_maps(maps)
    there = a.sum(axis=(-1, -2)) > 0
    return np.where(there, -row_entropies(a.mean(axis=-2)[..., None, :])[..., 0], np.nan)


def diagonality(maps: ArrayLike) -> NDArray[np.float64]:
    """Minus the mean distance in shares of the frames: 0 on the diagonal, lower farther from it.

    −1/s² Σ_i Σ_j |i − j| a_ij for a square map (Yang et al. 2020, arXiv 2006.03265, equation 3).
    """
    a = as_maps(maps)
    return over_rows(-(a * np.abs(offsets(a))).sum(axis=-1) / a.shape[-1], a)


def positional_share(maps: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of rows whose largest value lies at one and the same offset, and that offset.

    A head is called positional from 0.9 on (Voita et al. 2019).

    Returns
    -------
    share : (...) float64
    offset : (...) int64
        Key minus query frame; 0 is the diagonal.
    """
    a = as_maps(maps)
    *lead, q, s = a.shape
    ahead = (a.argmax(axis=-1) - np.arange(q)).reshape(-1, q)
    there = (a.sum(axis=-1) > 0).reshape(-1, q)
    counts = np.zeros((len(ahead), q + s - 1))
    np.add.at(counts, (np.arange(len(ahead))[:, None], ahead + q - 1), there)
    n = there.sum(axis=1)
    share = np.where(n > 0, counts.max(axis=1) / np.maximum(n, 1), np.nan)
    return share.reshape(lead), (counts.argmax(axis=1) - (q - 1)).reshape(lead)


def anchor_mass(maps: ArrayLike, frame: ArrayLike) -> NDArray[np.float64]:
    """Mean attention to one key frame and its neighbours.

    Parameters
    ----------
    maps
        (..., q, s).
    frame
        Key frame from 0, −1 for the last; one for all, or (...) one for each map.
    """
    a = as_maps(maps)
    s = a.shape[-1]
    at = np.broadcast_to(np.asarray(frame), a.shape[:-2]) % s
    near = np.abs(np.arange(s) - at[..., None]) <= 1
    return over_rows((a * near[..., None, :]).sum(axis=-1), a)


def symmetry(maps: ArrayLike) -> NDArray[np.float64]:
    """Cosine of a map and its transpose, ⟨A, Aᵀ⟩ / ‖A‖²: 1 where frames attend to each other."""
    a = as_maps(maps)
    _square(a, "symmetry")
    norm = (a**2).sum(axis=(-1, -2))
    return np.where(
        norm > 0, (a * a.swapaxes(-1, -2)).sum(axis=(-1, -2)) / np.maximum(norm, 1e-300), np.nan
    )


def template_score(maps: ArrayLike, template: ArrayLike) -> NDArray[np.float64]:
    """Share of a map's mass that lies on a template (q, s): Σ(A·M) / ΣA."""
    a = as_maps(maps)
    m = np.asarray(template, np.float64)
    if m.shape != a.shape[-2:]:
        raise UserError(f"the template is {m.shape}, the maps are {a.shape[-2:]}")
    total = a.sum(axis=(-1, -2))
    return np.where(total > 0, (a * m).sum(axis=(-1, -2)) / np.maximum(total, 1e-300), np.nan)


def diagonal_template(query: int, key: int, width: int = 1) -> NDArray[np.float64]:
    """Return 1 within so many frames of the diagonal, 0 elsewhere."""
    return (np.abs(np.arange(key)[None] - np.arange(query)[:, None]) <= width).astype(np.float64)


def block_template(query: int, key: int, blocks: int = 4) -> NDArray[np.float64]:
    """Return 1 where query and key lie in the same part of so many equal parts."""
    of_query = np.arange(query) * blocks // query
    of_key = np.arange(key) * blocks // key
    return (of_query[:, None] == of_key[None]).astype(np.float64)
