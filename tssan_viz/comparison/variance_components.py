"""Sums of squares and variance components of vectors, by class, subject, camera and replication.

Sums of squares of vectors are traces, so that everything follows from the sums of vectors of each
class × subject × camera × replication. Axis letters: n observations, g groups (class × subject ×
camera × replication), d length of a vector, h heads, e effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

EFFECTS = ("class", "subject", "class × subject", "camera", "replication", "residual")

# Directions whose squared length is less than this share of the data's are rounding.
_RANK = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Sequential sums of squares and variance components, in the order of `EFFECTS`.

    Attributes
    ----------
    df : (e,) float64
    ss, component : (h, e) float64
        `component` is NaN where the design cannot tell the effect.
    """

    df: Floats
    ss: Floats
    component: Floats

    @property
    def eta2(self) -> Floats:
        """Sums of squares over the total: (h, e)."""
        return _over(self.ss, self.ss.sum(axis=1, keepdims=True))

    @property
    def omega2(self) -> Floats:
        """ω² = (SS − df · MS_residual) / (SS_total + MS_residual): (h, e), NaN without a residual.

        Of the effects as they are here, not as a sample of subjects and classes (Hays 1963).
        """
        if not self.df[5]:
            return np.full(self.ss.shape, np.nan)
        error = self.ss[:, 5:] / self.df[5]
        found = _over(self.ss - self.df * error, self.ss.sum(axis=1, keepdims=True) + error)
        found[:, 5] = np.nan
        return found

    @property
    def share(self) -> Floats:
        """Components over their sum: (h, e)."""
        return _over(self.component, np.nansum(self.component, axis=1, keepdims=True))


def _over(values: Floats, total: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(total) > 0, values / total, np.nan)


@dataclass(frozen=True, eq=False)
class Model:
    """The fitted spaces of one order, and what each sum of squares is expected to be.

    Sequential (type I) sums of squares of class and subject (or the other way round), class ×
    subject, camera, replication. Components equate them to their expectations under random
    effects, E[SS_i] = Σ_j σ_j² tr(P_i Z_j Z_jᵀ) + df_i σ² (Henderson 1953; Searle, Casella &
    McCulloch 1992, chapter 5). In a balanced design these are the textbook's estimates.

    Made by `model`.
    """

    counts: Floats
    cell: NDArray[np.intp]
    mains: tuple[Floats, Floats]
    later: tuple[Floats, Floats]
    class_first: bool
    df: Floats
    expected: Floats

    def sums_of_squares(self, sums: Floats, squares: float) -> Floats:
        """Return (e,) from sums of unit vectors (g, d) and the total of their squared norms."""
        scaled = sums / np.sqrt(self.counts)[:, None]
        mean = (sums.sum(axis=0) ** 2).sum() / self.counts.sum()
        first, second = (((basis.T @ scaled) ** 2).sum() for basis in self.mains)
        of_cell = _sum_by(self.cell, sums)
        cells = ((of_cell**2).sum(axis=1) / np.bincount(self.cell, self.counts)).sum() - mean
        crossed = max(cells - first - second, 0.0) if self.df[2] else 0.0
        camera, replication = (((basis.T @ scaled) ** 2).sum() for basis in self.later)
        by_class, by_subject = (first, second) if self.class_first else (second, first)
        found = [by_class, by_subject, crossed, camera, replication]
        residual = max(squares - mean - sum(found), 0.0) if self.df[5] else 0.0
        return np.array([*found, residual])


def model(
    counts: NDArray[np.number],
    label: NDArray[np.integer],
    subject: NDArray[np.integer],
    camera: NDArray[np.integer],
    replication: NDArray[np.integer],
    *,
    class_first: bool = True,
) -> Model:
    """Lay out the decomposition of groups with so many observations each.

    Parameters
    ----------
    counts : (g,)
        Observations of each group, at least 1.
    label, subject, camera, replication : (g,) int
        Of each group.
    class_first
        Whether class is fitted before subject.

    Returns
    -------
    Model
    """
    n = np.asarray(counts, np.float64)
    root = np.sqrt(n)
    factors = [label, subject] if class_first else [subject, label]
    dummies = [_dummies(factor) * root[:, None] for factor in factors]
    mean = (root / np.sqrt(n.sum()))[:, None]
    first = _basis(dummies[0], [mean])
    second = _basis(dummies[1], [mean, first])
    _, cell = np.unique(np.stack([label, subject], 1), axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    of_camera = _dummies(camera) * root[:, None]
    of_replication = _dummies(replication) * root[:, None]
    third = _basis(_within(of_camera, cell, n), [])
    fourth = _basis(_within(of_replication, cell, n), [third])
    n_cells = int(cell.max()) + 1
    mains = np.array([first.shape[1], second.shape[1]], np.float64)
    by_class, by_subject = mains if class_first else mains[::-1]
    crossed_df = n_cells - 1 - mains.sum()
    df = np.array(
        [by_class, by_subject, crossed_df, third.shape[1], fourth.shape[1], 0.0], np.float64
    )
    df[5] = n.sum() - 1 - df.sum()

    effects = [
        _dummies(label) * root[:, None],
        _dummies(subject) * root[:, None],
        None,
        of_camera,
        of_replication,
    ]
    expected = np.zeros((6, 6))
    for j, z in enumerate(effects):
        if z is None:
            traces = _cell_traces(cell, n, mean, first, second, third, fourth)
        else:
            a, b = ((first.T @ z) ** 2).sum(), ((second.T @ z) ** 2).sum()
            per_cell = _sum_by(cell, z * root[:, None])
            cells = ((per_cell**2).sum(axis=1) / np.bincount(cell, n)).sum()
            zero = ((mean.T @ z) ** 2).sum()
            traces = [
                a, b, cells - zero - a - b, ((third.T @ z) ** 2).sum(), ((fourth.T @ z) ** 2).sum()
            ]  # fmt: skip
        if not class_first:
            traces[0], traces[1] = traces[1], traces[0]
        expected[:5, j] = traces
    expected[:, 5] = df
    return Model(n, cell, (first, second), (third, fourth), class_first, df, expected)


def _cell_traces(
    cell: NDArray[np.intp],
    n: Floats,
    mean: Floats,
    first: Floats,
    second: Floats,
    third: Floats,
    fourth: Floats,
) -> list[float]:
    """tr(P Z Zᵀ) of the class × subject cells, whose columns are too many to be laid out."""
    root = np.sqrt(n)

    def trace(basis: Floats) -> float:
        return float((_sum_by(cell, basis * root[:, None]) ** 2).sum())

    a, b = trace(first), trace(second)
    # The projection on the cells leaves their columns as they are.
    return [a, b, float(n.sum()) - trace(mean) - a - b, trace(third), trace(fourth)]


def _sum_by(group: NDArray[np.integer], values: Floats) -> Floats:
    """Sum lines (n, d) over the members of each group: (groups, d)."""
    n = len(group)
    adder = sparse.csr_array((np.ones(n), (group, np.arange(n))), shape=(int(group.max()) + 1, n))
    return adder @ values


def _dummies(codes: NDArray[np.integer]) -> Floats:
    levels, of = np.unique(codes, return_inverse=True)
    return (of.reshape(-1)[:, None] == np.arange(len(levels))).astype(np.float64)


def _within(columns: Floats, cell: NDArray[np.intp], n: Floats) -> Floats:
    """Take off each column its weighted projection on the cells."""
    root = np.sqrt(n)
    total = _sum_by(cell, columns * root[:, None])
    return columns - (total / np.bincount(cell, n)[:, None])[cell] * root[:, None]


def _basis(columns: Floats, before: Sequence[Floats]) -> Floats:
    """Return an orthonormal basis of what columns add to those before: (g, rank)."""
    size = (columns**2).sum()
    left = columns
    for _ in range(2):  # once more, as the first time leaves rounding
        for basis in before:
            left = left - basis @ (basis.T @ left)
    values, vectors = np.linalg.eigh(left.T @ left)
    real = values > _RANK * max(size, 1.0)
    return (left @ vectors[:, real]) / np.sqrt(values[real])


def components(models: Sequence[Model], ss: Floats) -> Decomposition:
    """Estimate variance components from sums of squares that are summed over parts.

    Parameters
    ----------
    models
        One per part of the vectors (segments).
    ss : (h, e)
        Sums over the parts.

    Returns
    -------
    Decomposition
    """
    df = np.sum([m.df for m in models], axis=0)
    expected = np.sum([m.expected for m in models], axis=0)
    told = df > 0.5
    values = np.full(ss.shape, np.nan)
    if told.any():
        matrix = expected[np.ix_(told, told)]
        if np.linalg.matrix_rank(matrix) == len(matrix):
            values[:, told] = np.linalg.solve(matrix, ss[:, told].T).T
    return Decomposition(df, ss, values)


def shares_of_variance(
    values: NDArray[np.floating],
    label: NDArray[np.integer],
    subject: NDArray[np.integer],
    camera: NDArray[np.integer] | None = None,
    replication: NDArray[np.integer] | None = None,
    *,
    class_first: bool = True,
) -> Decomposition:
    """Decompose the variance of vectors, or of one number.

    Parameters
    ----------
    values : (n, d)
        One vector per observation.
    label, subject, camera, replication : (n,) int
        Of each; None where all have the same.
    class_first
        Whether class is fitted before subject.

    Returns
    -------
    Decomposition
        With h = 1.
    """
    nothing = np.zeros(len(values), np.int64)
    keys = np.stack(
        [label, subject, nothing if camera is None else camera,
         nothing if replication is None else replication], axis=1
    )  # fmt: skip
    groups, group = np.unique(keys, axis=0, return_inverse=True)
    flat = np.asarray(values, np.float64)
    sums = _sum_by(group.reshape(-1), flat)
    made = model(np.bincount(group.reshape(-1)), *groups.T, class_first=class_first)
    return components([made], made.sums_of_squares(sums, float((flat**2).sum()))[None])
