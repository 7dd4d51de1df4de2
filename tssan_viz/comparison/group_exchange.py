"""Which groups of cells are exchanged with each other, so that only what is asked about moves.

=========== ==================================== ==============================================
exchange    for                                  what moves
=========== ==================================== ==============================================
"within"    camera, correct, duration, step,     the groups of a subject, in all its classes at
            a condition                          once
"alike"     predicted                            the same, among the groups that the subject has
                                                 in the same classes
"subjects"  groups of subjects                   whole subjects
None        single subjects, runs                nothing: there is no test
=========== ==================================== ==============================================

The groups of a subject move in all its classes at once, because the subject is the unit. Exchanging
them in each class by itself takes the classes of one person for independent: where each person
looks different to each camera in a way of their own, the same in all classes and as large as the
noise, that rejects in 11 of 100 data sets without any difference of cameras, instead of 5.

Which cameras are missing has little to do with the class. What is predicted has: a jump is taken
for a hop, never for reading. Renaming all groups of a subject would then make patterns of cells
that do not occur, and rejects in 8 to 9 of 100. So two groups are exchanged only where the subject
has both in the same classes: then which cells there are stays as it is, and the exchange is exact
whatever differs from person to person. `in_the_same_classes` leaves out what is in the way of
that, before anything is estimated.

Axis letters: r cells, p assignments, u units (whatever moves at once).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.group_cells import GroupCells
from tssan_viz.comparison.statistics import list_or_draw

Exchange = Literal["within", "alike", "subjects"]

_Groups = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class GroupDesign:
    """The exchanges that a test compares the observed groups with. Made by `design_groups`.

    Attributes
    ----------
    exchange : "within", "alike", "subjects" or None
        None when nothing can be exchanged.
    groups : (p, r) int16
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
    total, mirrors, groups = 1, 1, cells.group.astype(np.int16)[None]
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


def in_the_same_classes(
    subject: NDArray[np.integer], label: NDArray[np.integer], group: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Choose cells so that each group of a subject has others in just the same classes.

    The groups of a subject are parted into sets, each with the classes in which the subject has all
    of them: first the set whose cells most other subjects have too, then the best of what is left.
    It depends on which cells there are and not on what is in them.

    Parameters
    ----------
    subject, label, group : (r,) int
        Of each cell, or of each of its rows.

    Returns
    -------
    (r,) bool
        Which take part.
    """
    of_subject, of_label, of_group = (
        np.unique(numbers, return_inverse=True)[1].reshape(-1)
        for numbers in (subject, label, group)
    )
    size = [int(numbers.max(initial=-1)) + 1 for numbers in (of_subject, of_label, of_group)]
    there = np.zeros(size, np.float32)
    there[of_subject, of_label, of_group] = 1
    others = there.sum(axis=0) - 1
    chosen = np.zeros(size, bool)
    first, second = np.triu_indices(size[2], 1)
    for mine, found in zip(there, chosen, strict=True):
        # Every two groups with the classes that have both, every class with its groups; and what
        # can join them.
        classes = np.concatenate([(mine[:, first] * mine[:, second]).T, _have_all(mine, mine)])
        groups = np.concatenate([_have_all(classes[: len(first)], mine.T), mine])
        worth = classes @ (mine * others)
        while groups.size:
            value = (worth * groups).sum(axis=1) * (groups.sum(axis=1) > 1)
            best = int(value.argmax())
            if value[best] <= 0:
                break
            taken = groups[best] > 0
            found |= np.outer(classes[best] > 0, taken)
            groups[:, taken] = 0
    return chosen[of_subject, of_label, of_group]


def _have_all(wanted: NDArray[np.float32], there: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each line of what is wanted which lines of what is there have all of it."""
    all_there = np.equal(wanted @ (1 - there).T, 0) & wanted.any(axis=1, keepdims=True)
    return np.asarray(all_there, np.float32)


def _alike(cells: GroupCells) -> NDArray[np.intp]:
    """Give cells of one subject one number where their groups are in the same classes."""
    places = list(zip(cells.subject.tolist(), cells.group.tolist(), strict=True))
    classes: dict[tuple[int, int], set[int]] = {}
    for place, label in zip(places, cells.label.tolist(), strict=True):
        classes.setdefault(place, set()).add(label)
    keys = [(place[0], frozenset(classes[place])) for place in places]
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
    mirrors = _renamings([tuple(names.tolist()) for names, _ in named])
    orders = _orders([len(names) for names, _ in named], total, draws, seed)
    groups = np.tile(group.astype(np.int16), (len(orders[0]), 1))
    for cells, (names, place), order in zip(members, named, orders, strict=True):
        groups[:, cells] = names[order[:, place.reshape(-1)]]
    return total, mirrors, groups


def _renamings(kinds: Sequence[tuple[int, ...]]) -> int:
    """Count the assignments that name groups anew everywhere, which changes no answer.

    Such a renaming takes the groups of each unit to themselves, so that it exchanges groups that
    are in the same units.
    """
    units: dict[int, list[int]] = {}
    for unit, names in enumerate(kinds):
        for name in names:
            units.setdefault(name, []).append(unit)
    return math.prod(math.factorial(n) for n in Counter(map(tuple, units.values())).values())


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
    of_subject = np.zeros(len(names), np.int16)
    of_subject[subject] = cells.group
    sizes = np.bincount(of_subject, minlength=cells.n_groups)
    groups, total = divided(of_subject, draws, seed)
    mirrors = math.prod(
        math.factorial(int((sizes == n).sum())) for n in np.unique(sizes[sizes > 0])
    )
    return total, mirrors, groups[:, subject]


def divided(group: _Groups, draws: int, seed: int) -> tuple[_Groups, int]:
    """Divide units into groups of the sizes that they have: all ways if few, else a seeded sample.

    Parameters
    ----------
    group : (u,) int16
        The observed group of each unit, from 0.
    draws
        Up to so many ways are all listed; else so many are drawn.
    seed
        Of the draw.

    Returns
    -------
    groups : (p, u) int16
        The observed one first.
    total : int
        How many ways there are.
    """
    sizes = np.bincount(group).tolist()
    total = math.factorial(len(group)) // math.prod(math.factorial(n) for n in sizes)
    if total > draws:
        drawn = np.random.default_rng(seed).permuted(np.tile(group, (draws, 1)), axis=1)
        return np.concatenate([group[None], drawn]), total
    rows = np.full((1, len(group)), -1, np.int16)
    for number, size in enumerate(sizes):
        # Each way so far, with each choice of the units that are left.
        free = np.stack([np.flatnonzero(row < 0) for row in rows])
        chosen = np.array(list(combinations(range(free.shape[1]), size)), np.intp)
        chosen = chosen.reshape(-1, size)
        places = free[:, chosen].reshape(-1, size)
        rows = np.repeat(rows, len(chosen), axis=0)
        np.put_along_axis(rows, places, np.int16(number), axis=1)
    others = rows[(rows != group).any(axis=1)]
    return np.concatenate([group[None], others]), total
