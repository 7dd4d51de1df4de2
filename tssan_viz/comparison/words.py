"""Numbers in the words of an answer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def counted(n: int, what: str) -> str:
    """Write a number of things, in the plural but for one: ``1 class``, ``2 classes``."""
    plural = {"class": "classes"}.get(what, f"{what}s")
    return f"{n:,} {what if n == 1 else plural}"


def decimals(deltas: ArrayLike) -> int:
    """Return how many decimals the largest Δ needs for two digits that say something.

    Parameters
    ----------
    deltas
        One or several; NaN is left out.

    Returns
    -------
    int
        From 3 to 6.
    """
    sizes = np.abs(np.asarray(deltas, np.float64))
    largest = float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
    if largest == 0:
        return 3
    return int(np.clip(1 - math.floor(math.log10(largest)), 3, 6))


def format_p(p: float) -> str:
    """Write a p-value with two significant digits, never as zero."""
    if np.isnan(p):
        return "—"
    return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
