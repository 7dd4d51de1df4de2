"""Which groups of cells are exchanged with each other, so that only what is asked about moves.

=========== ==================================== ==============================================
exchange    for                                  what moves
=========== ==================================== ==============================================
"within"    camera, correct, duration, step,     the groups of a subject, in all its classes at
            a condition                          once
"alike"     predicted                            the same, over the classes of a subject that
                                                 have the same groups
"subjects"  groups of subjects                   whole subjects
None        single subjects, runs                nothing: there is no test
=========== ==================================== ==============================================

The groups of a subject move in all its classes at once, because the subject is the unit. Exchanging
them in each class by itself takes the classes of one person for independent: where each person
looks different to each camera in a way of their own, the same in all classes and as large as the
noise, that rejects in 11 of 100 data sets without any difference of cameras, instead of 5. Of what
was predicted, other groups occur in other classes, so that only those with the same can move
together. Where a third of the cells are missing and each person looks different under each
prediction, as much as the noise, that still rejects in 7 to 8 of 100.

Axis letters: r cells, p assignments, u units (whatever moves at once).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.statistics import list_or_draw

if TYPE_CHECKING:
    from tssan_viz.comparison.contrasts import GroupCells

Exchange = Literal["within", "alike", "subjects"]

_Groups = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class GroupDesign:
    """The exchanges that a test compares the observed groups with. Made by `design_groups`.

    Attributes
    ----------
    exchange : "within", "alike", "subjects" or None
        None when nothing can be exchanged.
    groups : (p, r) int8
        The group of each cell in each assignment, the observed one first.
    enumerated : bool
        All assignments stand in `groups`, instead of the observed one and a seeded sample.
    n_assignments : int
        How many there are in all.
    smallest_p : float
        The smallest p-value that the design can give; 1 when nothing can be exchanged.
    """

    exchange: Exchange | None
    groups: _Groups
    enumerated: bool
    n_assignments: int
    smallest_p: float

    @property
    def n_drawn(self) -> int:
        """Assignments that the test compares with the observed one, itself not among them."""
        return len(self.groups) - 1


def design_groups(
    cells: GroupCells,
    exchange: Exchange | None,
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> GroupDesign:
    """Lay out the test: groups are exchanged as their kind allows, and in no other way.

    All assignments are enumerated when there are no more of them than `n_permutations`; else that
    many are drawn, with replacement.

    Parameters
    ----------
    cells
        The cells; of one subject and class at most one in each group.
    exchange
        See the table of this module.
    n_permutations, seed
        How many assignments to draw, and with what.

    Returns
    -------
    GroupDesign
    """
    total, mirrors, groups = 1, 1, cells.group.astype(np.int8)[None]
    draws = max(n_permutations, 1)
    if exchange == "subjects":
        total, mirrors, groups = _whole_subjects(cells, draws, seed)
    elif exchange is not None:
        unit = cells.subject if exchange == "within" else _alike(cells)
        total, mirrors, groups = _within(cells.group, unit, draws, seed)
    enumerated = total <= draws
    smallest = mirrors / total if enumerated else 1 / len(groups)
    return GroupDesign(
        exchange=exchange if total > 1 else None,
        groups=groups,
        enumerated=enumerated,
        n_assignments=total,
        smallest_p=min(1.0, smallest) if total > 1 else 1.0,
    )


def _alike(cells: GroupCells) -> NDArray[np.intp]:
    """Give cells of one subject one number where their classes have the same groups."""
    places = list(zip(cells.subject.tolist(), cells.label.tolist(), strict=True))
    groups: dict[tuple[int, int], set[int]] = {}
    for place, group in zip(places, cells.group.tolist(), strict=True):
        groups.setdefault(place, set()).add(group)
    keys = [(subject, frozenset(groups[subject, label])) for subject, label in places]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.intp)


# How many assignments there are, how many of them give the same answer as the observed one
# whatever the data, and the assignments: all of them, or the observed one and a draw.
_Made = tuple[int, int, _Groups]


def _within(group: NDArray[np.intp], unit: NDArray[np.intp], draws: int, seed: int) -> _Made:
    """Give other names to the groups of each unit, in all its cells at once."""
    members = [np.flatnonzero(unit == u) for u in np.unique(unit)]
    named = [np.unique(group[cells], return_inverse=True) for cells in members]
    total = math.prod(math.factorial(len(names)) for names, _ in named)
    # Where all units have the same groups, naming these anew everywhere changes nothing.
    kinds = {tuple(names.tolist()) for names, _ in named}
    mirrors = math.factorial(len(named[0][0])) if len(kinds) == 1 else 1
    orders = _orders([len(names) for names, _ in named], total, draws, seed)
    groups = np.tile(group.astype(np.int8), (len(orders[0]), 1))
    for cells, (names, place), order in zip(members, named, orders, strict=True):
        groups[:, cells] = names[order[:, place.reshape(-1)]]
    return total, mirrors, groups


def _orders(sizes: Sequence[int], total: int, draws: int, seed: int) -> list[NDArray[np.intp]]:
    """Return orders (p, n) of the n groups of each unit, the observed one first."""
    if total <= draws:
        each = [np.array(list(permutations(range(n))), np.intp) for n in sizes]
        which, _, _ = list_or_draw([len(orders) for orders in each], draws, seed)
        return [orders[nth] for orders, nth in zip(each, which.T, strict=True)]
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        drawn = rng.random((draws + 1, n)).argsort(axis=1)
        drawn[0] = np.arange(n)
        found.append(drawn)
    return found


def _whole_subjects(cells: GroupCells, draws: int, seed: int) -> _Made:
    """Exchange whole subjects between groups."""
    names, subject = np.unique(cells.subject, return_inverse=True)
    of_subject = np.zeros(len(names), np.int8)
    of_subject[subject] = cells.group
    sizes = np.bincount(of_subject, minlength=cells.n_groups)
    groups, total = divided(of_subject, draws, seed)
    mirrors = math.prod(
        math.factorial(int((sizes == n).sum())) for n in np.unique(sizes[sizes > 0])
    )
    return total, mirrors, groups[:, subject]


def divided(group: NDArray[np.int8], draws: int, seed: int) -> tuple[_Groups, int]:
    """Divide units into groups of the sizes that they have: all ways if few, else a seeded sample.

    Parameters
    ----------
    group : (u,) int8
        The observed group of each unit, from 0.
    draws
        Up to so many ways are all listed; else so many are drawn.
    seed
        Of the draw.

    Returns
    -------
    groups : (p, u) int8
        The observed one first.
    total : int
        How many ways there are.
    """
    sizes = np.bincount(group).tolist()
    total = math.factorial(len(group)) // math.prod(math.factorial(n) for n in sizes)
    if total > draws:
        drawn = np.random.default_rng(seed).permuted(np.tile(group, (draws, 1)), axis=1)
        return np.concatenate([group[None], drawn]), total
    rows = np.full((1, len(group)), -1, np.int8)
    for number, size in enumerate(sizes):
        # Each way so far, with each choice of the units that are left.
        free = np.stack([np.flatnonzero(row < 0) for row in rows])
        chosen = np.array(list(combinations(range(free.shape[1]), size)), np.intp)
        chosen = chosen.reshape(-1, size)
        places = free[:, chosen].reshape(-1, size)
        rows = np.repeat(rows, len(chosen), axis=0)
        np.put_along_axis(rows, places, np.int8(number), axis=1)
    others = rows[(rows != group).any(axis=1)]
    return np.concatenate([group[None], others]), total
