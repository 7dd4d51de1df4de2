"""Cells of several groups, and how alike those of one class are.

Axis letters: r cells, n cells of a class, h heads, k segments, d length of a unit vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.statistics import Gram, gram_matrix


@dataclass(frozen=True, eq=False)
class GroupCells:
    """Cells of several groups, and the similarities of those that are of one class.

    Attributes
    ----------
    subject, group : (r,) int
        The subject and the group of each cell, counted from 0.
    label : (r,) int
        Its class.
    blocks : list of (members (n,) int, Gram (n, n, h))
        The cells of each class and their similarities.
    n_groups, n_heads : int
    """

    subject: NDArray[np.intp]
    group: NDArray[np.intp]
    label: NDArray[np.intp]
    blocks: list[tuple[NDArray[np.intp], Gram]]
    n_groups: int
    n_heads: int

    @classmethod
    def of(
        cls,
        units: NDArray[np.float32],
        present: NDArray[np.bool_],
        subject: NDArray[np.intp],
        label: NDArray[np.intp],
        group: NDArray[np.intp],
        n_groups: int,
    ) -> GroupCells:
        """Compare the cells (r, h, k, d) of each class, where they are `present` (r, h, k)."""
        blocks = []
        for one in np.unique(label):
            members = np.flatnonzero(label == one)
            blocks.append((members, gram_matrix(units[members], present[members])))
        return cls(subject, group, label, blocks, n_groups, units.shape[1])

    @property
    def n_subjects(self) -> int:
        """How many subjects have a cell."""
        return len(np.unique(self.subject))
