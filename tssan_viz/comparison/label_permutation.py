"""Labels permuted within blocks: every way to do it where there are few, else a seeded sample.

Axis letters: r cells, a assignments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations as orders

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.statistics import list_or_draw
from tssan_viz.errors import UserError


@dataclass(frozen=True, eq=False)
class PermutedLabels:
    """Labels of cells, permuted. Made by `permuted_within`.

    Attributes
    ----------
    labels : (a, r) int
        The observed ones first.
    enumerated : bool
        These are all that there are, instead of the observed ones and a sample.
    smallest_p : float
        The least p that they can give to a statistic that does not know the labels by name.
    """

    labels: NDArray[np.intp]
    enumerated: bool
    smallest_p: float

    @property
    def n_drawn(self) -> int:
        """Assignments that the test compares with the observed one, itself not among them."""
        return len(self.labels) - 1


def permuted_within(
    label: NDArray[np.integer], block: NDArray[np.integer], permutations: int, seed: int
) -> PermutedLabels:
    """Permute labels within blocks.

    Parameters
    ----------
    label, block : (r,) int
        No two cells of a block have one label.
    permutations
        How many to draw; where there are no more than that, all are listed.
    seed
        Of the draw.

    Raises
    ------
    UserError
        Fewer than one is asked for.
    """
    if permutations < 1:
        raise UserError(f"permutations is {permutations}: at least 1 is needed")
    observed = np.asarray(label, np.intp)
    members = [np.flatnonzero(block == b) for b in np.unique(block)]
    total = math.prod(math.factorial(len(own)) for own in members)
    n_labels = len(np.unique(label))
    # Where every block has every label, other names for the labels are among the assignments.
    complete = len(observed) == len(members) * n_labels
    least = min(1.0, (math.factorial(n_labels) if complete else 1) / total)
    if total > permutations:
        labels = sampled_within(label, block, permutations, seed)
        return PermutedLabels(labels, False, max(least, 1 / len(labels)))
    labels = np.tile(observed, (total, 1))
    movable = [own for own in members if len(own) > 1]
    each = [np.array(list(orders(range(len(own))))) for own in movable]
    which, _, _ = list_or_draw([len(e) for e in each], total, seed)
    for own, order, nth in zip(movable, each, which.T, strict=True):
        labels[:, own] = observed[own][order[nth]]
    return PermutedLabels(labels, True, least)


def sampled_within(
    label: NDArray[np.integer], block: NDArray[np.integer], permutations: int, seed: int
) -> NDArray[np.intp]:
    """Return labels (1 + permutations, r), the observed first, the rest drawn within blocks."""
    rng = np.random.default_rng(seed)
    drawn = np.tile(np.asarray(label, np.intp), (permutations + 1, 1))
    for b in np.unique(block):
        own = np.flatnonzero(block == b)
        drawn[1:, own] = rng.permuted(drawn[1:, own], axis=1)
    return drawn
