"""From numbers per video to statements: subjects are the units, and few give no interval."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.statistics import (
    MIN_SUBJECTS_FOR_INTERVAL,
    PValues,
    jackknife_interval,
    p_values,
)

Floats = NDArray[np.float64]

_ENUMERATED = 12
"""Up to so many subjects all 2ⁿ sign flips are gone through."""


def subject_means(values: Floats, subjects: NDArray[np.integer]) -> tuple[NDArray, Floats]:
    """Return the subjects, sorted, and their means (s, …) of values (n, …) of their videos."""
    who, place = np.unique(subjects, return_inverse=True)
    sums = np.zeros((len(who), *values.shape[1:]))
    np.add.at(sums, place, values)
    counts = np.bincount(place).reshape(-1, *(1,) * (values.ndim - 1))
    return who, sums / counts


def interval(means: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the mean over subjects, of means (s, …).

    Student's t, which is what leaving out one subject at a time comes to for a mean. NaN under six
    subjects.
    """
    flat = means.reshape(len(means), -1)
    if len(means) < MIN_SUBJECTS_FOR_INTERVAL:
        low = np.full(flat.shape[1], np.nan)
        high = low.copy()
    else:
        left = (flat.sum(axis=0) - flat) / (len(flat) - 1)
        low, high = jackknife_interval(flat.mean(axis=0), left, len(flat))
    return low.reshape(means.shape[1:]), high.reshape(means.shape[1:])


def sign_flips(means: Floats, *, draws: int = 10_000, seed: int = 0) -> PValues:
    """Test whether differences (s, tests) are above zero, by changing the signs of whole subjects.

    Returns
    -------
    PValues
        One-sided, each test alone, all together (max-T), and false discovery rate. With few
        subjects the least p is 1/2ˢ.
    """
    count = len(means)
    if count <= _ENUMERATED:
        signs = np.array(list(product((1.0, -1.0), repeat=count)))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(draws, count))
        signs = np.vstack([np.ones(count), drawn])
    return p_values(signs @ means / count)
