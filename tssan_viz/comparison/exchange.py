"""What is exchanged for which contrast of two groups of rows, and what the test then says.

A contrast is linear in the means of *units* (subjects, or the classes of a subject), so that every
assignment is one line of weights and its statistics one product with the values, be they the cells
of a map or measures. Axis letters: a assignments, u units, f values (cells of maps, measures),
s subjects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from tssan_viz.comparison.cell_layers import Chosen
from tssan_viz.comparison.group_exchange import divided
from tssan_viz.comparison.statistics import list_or_draw, t_quantile
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError

Floats = NDArray[np.floating]

# Statistics are tied when they differ by rounding only.
_TIE = 1e-5
# A value does not move whose spread is below this share of the largest value.
_STILL = 1e-6


@dataclass(frozen=True, eq=False)
class Exchange:
    """Two groups, what each unit is made of, and the assignments that a test compares.

    Made by `plan_exchange`.

    Attributes
    ----------
    what : str
        What is exchanged, in words.
    of_a, of_b : (s, c) float64
        For each subject that takes part the weights of its cells in its mean of either group; a
        line of zeros where it is in the other group only.
    subjects : tuple of int
        Who takes part.
    to_units : (u, c) csr
        Makes the units from the cells.
    weights : (a, u) csr or None
        The assignments, the observed one first; None where there is no test.
    n_assignments, enumerated, smallest_p
        How many there are in all, whether all were gone through, and the least p they can give.
    reason : str or None
        Why there is no test.
    notes : tuple of str
        Who and what takes no part.
    """

    what: str
    of_a: Floats
    of_b: Floats
    subjects: tuple[int, ...]
    to_units: sparse.csr_array
    weights: sparse.csr_array | None
    n_assignments: int
    enumerated: bool
    smallest_p: float
    reason: str | None
    notes: tuple[str, ...]
    _kind: str
    _blocks: tuple[NDArray[np.intp], ...]
    _sizes: tuple[int, int]

    @property
    def paired(self) -> bool:
        """Whether each subject is in both groups."""
        return self._kind != "subjects"

    @property
    def n_drawn(self) -> int:
        """Assignments that are compared with the observed one, itself not among them."""
        return 0 if self.weights is None else self.weights.shape[0] - 1

    def means(self, cells: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each subject's mean of either group from values (c, f): two (s, f), NaN if none.

        Each subject weighs the same in what follows, whatever the number of its videos.
        """
        flat = np.asarray(cells, np.float64)
        found = []
        for weights in (self.of_a, self.of_b):
            means = weights @ flat
            means[~weights.any(axis=1)] = np.nan
            found.append(means)
        return found[0], found[1]

    def spread(self, units: Floats) -> NDArray[np.float64]:
        """Return the standard deviation of the statistic over all assignments: (f,).

        It is known without drawing any: independent signs, independent choices within subjects,
        or groups drawn without replacement.
        """
        if self._kind == "flips":
            return np.sqrt((units.astype(np.float64) ** 2).sum(axis=0)) / len(units)
        if self._kind == "classes":
            variances = [units[block].var(axis=0, dtype=np.float64) for block in self._blocks]
            return np.sqrt(np.sum(variances, axis=0)) / len(self._blocks)
        n = len(units)
        a, b = self._sizes
        variance = units.var(axis=0, dtype=np.float64, ddof=1) if n > 1 else 0.0
        return np.sqrt(variance * n / (a * b))

    def threshold(self, p: float) -> float:
        """Return the |statistic| that one value passes with this two-sided p, by Student's t.

        The statistic is bounded when few units are exchanged (√n for n signs), so that t, which is
        not, is turned into it.
        """
        if self._kind == "classes":
            return float(-special.ndtri(p / 2))
        n = self.to_units.shape[0]
        free, scale = (n - 1, n) if self._kind == "flips" else (n - 2, n - 1)
        if free < 1:
            return np.inf
        t = t_quantile(1 - p / 2, free)
        return t * math.sqrt(scale / (free + t * t))


def plan_exchange(
    a: Chosen, b: Chosen, *, permutations: int = 5000, seed: int = 0
) -> tuple[Exchange, NDArray[np.intp]]:
    """Choose the exchange that fits how two groups of rows differ.

    ======================================== ====================================================
    the groups differ by                     exchanged is
    ======================================== ====================================================
    one class against several                which class mean of each subject plays the class
    classes, otherwise                       the sign of each subject's difference
    subjects (no subject is in both)         whole subjects
    camera, correctness, step …              the sign of each subject's difference, over the
                                             classes that it has in both groups
    ======================================== ====================================================

    Parameters
    ----------
    a, b
        The groups. Their cells are counted through: first those of a, then those of b.
    permutations
        Assignments to draw; when there are no more than that, all are gone through.
    seed
        Of the draw.

    Returns
    -------
    Exchange
    cells : (c, 2) int
        Subject and class of each cell, of a and then of b.

    Raises
    ------
    UserError
        The groups share rows, come from different runs or splits, or there is no subject to
        compare.
    """
    if permutations < 1:
        raise UserError(f"permutations is {permutations}: at least 1 is needed")
    if seed < 0:
        raise UserError(f"seed is {seed}: it is a whole number from 0")
    if a.selection.run != b.selection.run or a.selection.store.url != b.selection.store.url:
        raise UserError(
            f"maps of two runs ({a.selection.run!r}, {b.selection.run!r}) are not compared head by "
            "head: head 6 of one network is not head 6 of another"
        )
    ids_a = a.selection.rows()["row_id"]
    shared = ids_a.isin(b.selection.rows()["row_id"]).sum()
    if shared:
        raise UserError(
            f"the two groups share {shared} of {len(ids_a)} rows: a row belongs to one of them"
        )
    splits = [sorted(g.selection.rows()["split"].dropna().unique()) for g in (a, b)]
    if splits[0] != splits[1]:
        raise UserError(
            f"one group is of split {', '.join(splits[0])}, the other of {', '.join(splits[1])}: "
            "what the network was trained with is never compared with what it had not seen"
        )
    cells = np.concatenate([_cells(a), _cells(b)])
    in_a = np.arange(len(cells)) < len(a.subject)
    subjects_a, subjects_b = set(cells[in_a, 0].tolist()), set(cells[~in_a, 0].tolist())
    labels_a, labels_b = set(cells[in_a, 1].tolist()), set(cells[~in_a, 1].tolist())
    if not subjects_a & subjects_b:
        return _whole_subjects(cells, in_a, permutations, seed), cells
    if not labels_a & labels_b:
        if len(labels_a) == 1 and len(labels_b) > 1:
            return _class_means(cells, in_a, permutations, seed), cells
        if len(labels_b) == 1 and len(labels_a) > 1:
            made = _class_means(cells, ~in_a, permutations, seed)
            return replace(made, of_a=made.of_b, of_b=made.of_a, to_units=-made.to_units), cells
        return _sign_flips(cells, in_a, permutations, seed), cells
    return _paired(cells, in_a, permutations, seed), cells


def _cells(chosen: Chosen) -> NDArray[np.int64]:
    subjects = np.array(chosen.layout.subjects, np.int64)
    return np.stack([subjects[chosen.subject], chosen.label], axis=1).astype(np.int64)


def _group_weights(
    cells: NDArray[np.int64], chosen: NDArray[np.bool_], subjects: list[int]
) -> NDArray[np.float64]:
    """Weights (s, c) of each subject's cells in its mean over the chosen ones."""
    of = (cells[:, 0] == np.array(subjects)[:, None]) & chosen
    return of / np.maximum(of.sum(axis=1, keepdims=True), 1)


def _left_out(cells: NDArray[np.int64], subjects: list[int]) -> tuple[str, ...]:
    """Say how many subjects are in one group only."""
    alone = len(set(cells[:, 0].tolist()) - set(subjects))
    if not alone:
        return ()
    are = "is" if alone == 1 else "are"
    return (f"left out: {counted(alone, 'subject')} that {are} in one of the groups only",)


def _sign_flips(
    cells: NDArray[np.int64], in_a: NDArray[np.bool_], permutations: int, seed: int
) -> Exchange:
    both = sorted(set(cells[in_a, 0].tolist()) & set(cells[~in_a, 0].tolist()))
    of_a = _group_weights(cells, in_a, both)
    of_b = _group_weights(cells, ~in_a, both)
    return _flipped(
        "the sign of the difference of each subject", of_a, of_b, both, of_a - of_b,
        permutations, seed, _left_out(cells, both),
    )  # fmt: skip


def _in_both(
    cells: NDArray[np.int64], in_a: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the cells of a and b (p, 2) of each subject × class in both, and what is left out."""
    of_a = {tuple(c): i for i, c in enumerate(cells.tolist()) if in_a[i]}
    of_b = {tuple(c): i for i, c in enumerate(cells.tolist()) if not in_a[i]}
    shared = sorted(of_a.keys() & of_b.keys())
    if not shared:
        raise UserError(
            "no class of any subject has rows in both groups, so that there is nothing that could "
            "be exchanged between them"
        )
    alone = len(of_a.keys() ^ of_b.keys())
    are = "is" if alone == 1 else "are"
    left = f"left out: {counted(alone, 'class')} of a subject that {are} in one of the groups only"
    return np.array([(of_a[key], of_b[key]) for key in shared]), (left,) if alone else ()


def _paired(
    cells: NDArray[np.int64], in_a: NDArray[np.bool_], permutations: int, seed: int
) -> Exchange:
    """Flip subjects as a whole, over the classes that each has in both groups.

    Each class of a subject by itself would take the classes of a person for independent; see
    `tssan_viz.comparison.group_exchange`.
    """
    pairs, left = _in_both(cells, in_a)
    paired = np.isin(np.arange(len(cells)), pairs)
    subjects = sorted(set(cells[pairs[:, 0], 0].tolist()))
    of_a = _group_weights(cells, in_a & paired, subjects)
    of_b = _group_weights(cells, ~in_a & paired, subjects)
    return _flipped(
        "the sign of the difference of each subject", of_a, of_b, subjects, of_a - of_b,
        permutations, seed, left,
    )  # fmt: skip


def _flipped(
    what: str,
    of_a: Floats,
    of_b: Floats,
    subjects: list[int],
    to_units: Floats,
    permutations: int,
    seed: int,
    notes: tuple[str, ...],
) -> Exchange:
    n = len(to_units)
    bits, enumerated, total = list_or_draw([2] * n, permutations, seed)
    weights = sparse.csr_array((1.0 - 2 * bits) / n)
    return Exchange(
        what=what,
        of_a=of_a,
        of_b=of_b,
        subjects=tuple(subjects),
        to_units=sparse.csr_array(to_units),
        weights=weights if len(subjects) > 1 else None,
        n_assignments=total,
        enumerated=enumerated,
        # Both signs of everything give the same |statistic|.
        smallest_p=min(2 / total, 1.0) if enumerated else 1 / len(bits),
        reason=None if len(subjects) > 1 else "only one subject is in both groups",
        notes=notes,
        _kind="flips",
        _blocks=(),
        _sizes=(0, 0),
    )


def _class_means(
    cells: NDArray[np.int64], in_a: NDArray[np.bool_], permutations: int, seed: int
) -> Exchange:
    both = sorted(set(cells[in_a, 0].tolist()) & set(cells[~in_a, 0].tolist()))
    of_a = _group_weights(cells, in_a, both)
    of_b = _group_weights(cells, ~in_a, both)
    blocks, lines = [], []
    start = 0
    for s in both:
        own = np.flatnonzero(cells[:, 0] == s)
        own = own[np.argsort(~in_a[own], kind="stable")]
        n = len(own)
        # The difference if this cell plays the class, and the others are the rest.
        line = np.zeros((n, len(cells)))
        line[:, own] = -1 / (n - 1)
        line[np.arange(n), own] = 1
        lines.append(line)
        blocks.append(np.arange(start, start + n))
        start += n
    sizes = [len(block) for block in blocks]
    choice, enumerated, total = list_or_draw(sizes, permutations, seed)
    # With two classes of each subject, exchanging all of them gives the same |statistic|.
    ties = 2 if set(sizes) == {2} else 1
    columns = choice + np.array([block[0] for block in blocks])
    indptr = np.arange(0, columns.size + 1, len(both))
    weights = sparse.csr_array(
        (np.full(columns.size, 1 / len(both)), columns.reshape(-1), indptr),
        shape=(len(choice), start),
    )
    return Exchange(
        what="the class means within each subject",
        of_a=of_a,
        of_b=of_b,
        subjects=tuple(both),
        to_units=sparse.csr_array(np.concatenate(lines)),
        weights=weights if len(both) > 1 else None,
        n_assignments=total,
        enumerated=enumerated,
        smallest_p=ties / total if enumerated else 1 / len(choice),
        reason=None if len(both) > 1 else "only one subject has the class",
        notes=_left_out(cells, both),
        _kind="classes",
        _blocks=tuple(blocks),
        _sizes=(0, 0),
    )


def _whole_subjects(
    cells: NDArray[np.int64], in_a: NDArray[np.bool_], permutations: int, seed: int
) -> Exchange:
    first = sorted(set(cells[in_a, 0].tolist()))
    second = sorted(set(cells[~in_a, 0].tolist()))
    # Subjects must be compared in the same classes, or a contrast of subjects is one of classes.
    wanted: set[int] | None = None
    for s in first + second:
        mine = set(cells[cells[:, 0] == s, 1].tolist())
        wanted = mine if wanted is None else wanted & mine
    if not wanted:
        raise UserError(
            "the subjects of the two groups have no class in common: whatever differs may be the "
            "classes; choose classes that all of them have"
        )
    common = np.isin(cells[:, 1], list(wanted))
    left = len(set(cells[:, 1].tolist()) - wanted)
    subjects = first + second
    a, b = len(first), len(second)
    groups, total = divided(np.repeat(np.array([0, 1], np.int16), (a, b)), permutations, seed)
    enumerated = total <= permutations
    reason = None
    if min(a, b) < 2:
        reason = "a single subject cannot be tested: nobody else is like it, or unlike"
    # With groups of one size, exchanging both gives the same |statistic|.
    ties = 2 if a == b else 1
    weights = sparse.csr_array(np.where(groups == 0, 1 / a, -1 / b))
    return Exchange(
        what="whole subjects",
        of_a=_group_weights(cells, in_a & common, subjects),
        of_b=_group_weights(cells, ~in_a & common, subjects),
        subjects=tuple(subjects),
        to_units=sparse.csr_array(_group_weights(cells, common, subjects)),
        weights=None if reason else weights,
        n_assignments=total,
        enumerated=enumerated,
        smallest_p=ties / total if enumerated else 1 / len(groups),
        reason=reason,
        notes=(f"left out: {counted(left, 'class')} that not all of these subjects have",)
        if left
        else (),
        _kind="subjects",
        _blocks=(),
        _sizes=(a, b),
    )


@dataclass(frozen=True, eq=False)
class MaxT:
    """What assignments say of many values together; pieces are `add`-ed, then `finish`-ed.

    Attributes
    ----------
    observed : list of (f,) float64
        |difference| / its standard deviation over assignments, signed, piece by piece.
    largest : (a,) float64
        The largest |·| over all values so far, for each assignment.
    hits : list of (f,) int
        Assignments that reach the observed one, for each value alone.
    """

    exchange: Exchange
    largest: NDArray[np.float64]
    observed: list[NDArray[np.float64]]
    hits: list[NDArray[np.int64]]

    @classmethod
    def of(cls, exchange: Exchange) -> MaxT:
        """Begin with nothing added."""
        n = 0 if exchange.weights is None else exchange.weights.shape[0]
        return cls(exchange, np.zeros(n), [], [])

    def add(
        self, units: Floats, watch: Callable[[int, NDArray[np.float32]], None] | None = None
    ) -> None:
        """Add values (u, f) of the units.

        Parameters
        ----------
        units
            Their values.
        watch
            Called with each piece of the assignments, from which one on and their z (a, f).
        """
        weights = self.exchange.weights
        assert weights is not None
        for start, z in standardised(self.exchange, units):
            if start == 0:
                self.observed.append(z[0].astype(np.float64))
                self.hits.append(np.zeros(z.shape[1], np.int64))
            if watch is not None:
                watch(start, z)
            size = np.abs(z)
            self.hits[-1] += (size >= np.abs(self.observed[-1]) - _TIE).sum(axis=0)
            stop = start + len(z)
            np.maximum(
                self.largest[start:stop], size.max(axis=1, initial=0), out=self.largest[start:stop]
            )

    def finish(self) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Return p of each value alone, and p max-T over all of them, piece by piece.

        p = hits / assignments, the observed one among them, so that p is never zero: all of them
        when they are enumerated, else (hits + 1) / (B + 1).
        """
        n = len(self.largest)
        ordered = np.sort(self.largest)
        alone = [hits / n for hits in self.hits]
        together = [(n - np.searchsorted(ordered, np.abs(z) - _TIE)) / n for z in self.observed]
        return alone, together


def standardised(exchange: Exchange, units: Floats) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Go through the assignments: the difference over its standard deviation, in pieces.

    Parameters
    ----------
    exchange
        With assignments.
    units : (u, f)
        Values of the units.

    Yields
    ------
    start : int
        Of the piece, among those that are gone through.
    z : (a, f) float32
        Zero where nothing moves.
    """
    assert exchange.weights is not None
    weights = exchange.weights
    spread = exchange.spread(units)
    moves = spread > _STILL * max(float(np.abs(units).max(initial=0)), 1e-30)
    scaled = np.where(moves, units / np.where(moves, spread, 1.0), 0.0).astype(np.float32)
    n = weights.shape[0]
    piece = max(1, (1 << 23) // max(scaled.shape[1], 1))
    lines = weights.astype(np.float32)
    dense = exchange._kind != "classes"
    for start in range(0, n, piece):
        part = lines[start : start + piece]
        yield start, (part.toarray() @ scaled if dense else part @ scaled)
