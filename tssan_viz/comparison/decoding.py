"""Is a head about the action or about the person: how well either can be read from its map.

What is decoded are cells (the mean map of one class of one subject), so that no video of the tested
subject, or class, is ever among those that it is compared with. All of it is computed from the
similarities of cells, labels that are permuted too. Axis letters: r cells, h heads, c targets
(classes, or subjects), g groups that are left out in turn (subjects, or classes), a assignments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from tssan_viz.comparison.cell_layers import (
    Chosen,
    choose,
    enough_classes_and_subjects,
    iter_complete_grams,
    records,
)
from tssan_viz.comparison.label_permutation import (
    PermutedLabels,
    permuted_within,
    sampled_within,
)
from tssan_viz.comparison.reading import Progress, heads_of_layers
from tssan_viz.comparison.statistics import p_values
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

Method = Literal["nearest mean", "nearest neighbour", "logistic"]
METHODS: tuple[str, ...] = get_args(Method)

# Notes are about this level.
_LEVEL = 0.05
# Directions whose squared length is less than this share of the largest are rounding.
_RANK = 1e-6


@dataclass(frozen=True, eq=False)
class Decodability:
    """What `decodability` found.

    Attributes
    ----------
    table : DataFrame
        One line per layer and head. ``class_accuracy``: share of cells whose class is read
        rightly when their subject is left out; ``class_chance``: the mean over permuted labels;
        ``class_p``, ``class_p_max_t``, ``class_q``: of this head alone, corrected for all lines,
        and false discovery rate. The same for ``subject_…``, with the class left out.
    class_null, subject_null : (a, h) float64
        Accuracies with permuted labels, without the observed one.
    n_cells, n_subjects, n_classes, seed : int
    n_permutations, smallest_p
        Of the class: permutations that it was compared with, and the least p that they can give.
    subject_permutations, subject_smallest_p
        The same of the subject.
    method, metric : str
    notes : list of str
    """

    table: pd.DataFrame
    class_null: NDArray[np.float64]
    subject_null: NDArray[np.float64]
    n_cells: int
    n_subjects: int
    n_classes: int
    n_permutations: int
    subject_permutations: int
    seed: int
    smallest_p: float
    subject_smallest_p: float
    method: str
    metric: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not defined is None."""
        return {
            "table": records(self.table),
            "n_cells": self.n_cells,
            "n_subjects": self.n_subjects,
            "n_classes": self.n_classes,
            "test": {
                "class": "left out is one subject at a time; permuted are the classes within each "
                "subject",
                "subject": "left out is one class at a time; permuted are the subjects within "
                "each class",
                "alternative": "greater",
                "permutations": self.n_permutations,
                "smallest_p": self.smallest_p,
                "subject_permutations": self.subject_permutations,
                "subject_smallest_p": self.subject_smallest_p,
                "seed": self.seed,
            },
            "method": self.method,
            "metric": self.metric,
            "notes": self.notes,
        }


def check_method(method: str) -> str:
    """Return the name of a way to decode, also where it was written with hyphens.

    Raises
    ------
    UserError
        It is none of `METHODS`.
    """
    name = method.replace("-", " ")
    if name not in METHODS:
        raise UserError(f"cannot decode by {method!r}: choose one of {', '.join(METHODS)}")
    return name


def decode_left_out(
    gram: NDArray[np.floating],
    target: NDArray[np.integer],
    group: NDArray[np.integer],
    *,
    method: str = "nearest mean",
    permutations: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Read targets from vectors whose group is left out, and again with permuted targets.

    With the cell's group left out, the nearest mean is that of the target with the smallest
    Euclidean distance to the cell; the nearest neighbour is the nearest single cell; logistic is
    scikit-learn's multinomial regression, which takes some milliseconds for each group, head and
    permutation. Targets are permuted within each group.

    Parameters
    ----------
    gram : (r, r, h)
        Dot products of the vectors.
    target, group : (r,) int
        No two cells of a group have one target.
    method
        ``nearest mean``, ``nearest neighbour`` or ``logistic``.
    permutations
        How many to draw; where there are no more than that, all are gone through.
    seed
        Of the draw.

    Returns
    -------
    (a, h) float64
        Share of cells read rightly, the observed one first. A cell whose target no other group has
        counts as wrong.

    Raises
    ------
    UserError
        Unknown method, fewer than two groups or targets, or values that are no numbers.
    """
    _, targets = np.unique(target, return_inverse=True)
    return _decode(gram, permuted_within(targets, group, permutations, seed).labels, group, method)


def _decode(
    gram: NDArray[np.floating], drawn: NDArray[np.intp], group: NDArray[np.integer], method: str
) -> NDArray[np.float64]:
    """Return the accuracies (a, h) with each line of targets (a, r), counted from 0."""
    check_method(method)
    if not np.isfinite(gram).all():
        raise UserError("the similarities have values that are no numbers")
    _, groups = np.unique(group, return_inverse=True)
    if drawn[0].max() < 1 or groups.max() < 1:
        raise UserError("decoding needs at least two things to tell apart, and two groups")
    decode = {
        "nearest mean": _nearest_mean,
        "nearest neighbour": _nearest_neighbour,
        "logistic": _logistic,
    }[method]
    return decode(np.asarray(gram), drawn, groups)


def _nearest_mean(
    gram: NDArray[np.floating], drawn: NDArray[np.intp], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    r, _, h = gram.shape
    c, n_groups = int(drawn.max()) + 1, int(group.max()) + 1
    values = np.ascontiguousarray(gram, np.float32)
    flat = values.reshape(r, r * h)
    square = np.ascontiguousarray(values[np.arange(r), np.arange(r)])
    accuracy = np.empty((len(drawn), h))
    lines = np.arange(r)
    counts = np.bincount(drawn[0], minlength=c)
    for a, target in enumerate(drawn):
        # Sums over the cells of each target, then without those of the cell's own group.
        belongs = sparse.csr_array(
            (np.ones(r, np.float32), (target, lines)), shape=(c, r), dtype=np.float32
        )
        with_target = (belongs @ flat).reshape(c, r, h)
        norm = np.zeros((c, h))
        np.add.at(norm, target, with_target[target, lines])
        cell_of = np.full((n_groups, c), -1)
        cell_of[group, target] = lines
        there = cell_of >= 0
        own = np.where(there, cell_of, 0)
        without = with_target.swapaxes(0, 1) - np.where(
            there[group][..., None], values[lines[:, None], own[group]], 0
        )
        of_own = with_target[np.arange(c), own]
        norms = norm - np.where(there[..., None], 2 * of_own - square[own], 0)
        n = (counts - there)[..., None].astype(np.float64)
        scale = np.maximum(n, 1)
        score = 2 * without / scale[group] - (norms / scale**2)[group]
        score[np.broadcast_to((n < 0.5)[group], score.shape)] = -np.inf
        accuracy[a] = (score.argmax(axis=1) == target[:, None]).mean(axis=0)
    return accuracy


def _nearest_neighbour(
    gram: NDArray[np.floating], drawn: NDArray[np.intp], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    r, _, h = gram.shape
    same = group[:, None] == group
    nearest = np.empty((r, h), np.intp)
    for head in range(h):
        values = gram[:, :, head]
        closeness = 2 * values - values.diagonal()
        nearest[:, head] = np.where(same, -np.inf, closeness).argmax(axis=1)
    # Who is nearest does not depend on labels, so that permuting them costs a look-up.
    accuracy = np.empty((len(drawn), h))
    for a, target in enumerate(drawn):
        accuracy[a] = (target[nearest] == target[:, None]).mean(axis=0)
    return accuracy


def _logistic(
    gram: NDArray[np.floating], drawn: NDArray[np.intp], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Fit a multinomial logistic regression without each group.

    The cells are given to it by coordinates that have their dot products. Its penalty is
    scikit-learn's (C = 1), which is for features of variance 1: so the coordinates have that on
    average.
    """
    from sklearn.linear_model import LogisticRegression

    accuracy = np.zeros((len(drawn), gram.shape[2]))
    for head in range(gram.shape[2]):
        values, vectors = np.linalg.eigh(gram[:, :, head].astype(np.float64))
        real = values > _RANK * values.max(initial=0)
        features = vectors[:, real] * np.sqrt(values[real])
        for left_out in np.unique(group):
            tested = group == left_out
            own = features[~tested]
            spread = np.sqrt(own.var(axis=0).mean()) or 1.0
            scaled = (features - own.mean(axis=0)) / spread
            for a, target in enumerate(drawn):
                if len(np.unique(target[~tested])) < 2:
                    continue
                model = LogisticRegression(max_iter=1000, tol=1e-3)
                model.fit(scaled[~tested], target[~tested])
                accuracy[a, head] += (model.predict(scaled[tested]) == target[tested]).sum()
    return accuracy / len(group)


def decodability(
    selection: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    method: str = "nearest mean",
    split: str | None = None,
    person: int = 1,
    permutations: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Decodability:
    """Ask of each head how well it tells classes, and how well it tells persons.

    Parameters
    ----------
    selection
        What is asked about.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    metric
        ``cosine``, ``pearson``, ``hellinger`` or ``cka``.
    method
        ``nearest mean``, ``nearest neighbour`` or ``logistic``.
    permutations
        How many permuted labels to compare with; all of them where there are no more.
    seed
        Of the draw.
    progress
        Called with (what, done, total).

    Returns
    -------
    Decodability

    Raises
    ------
    UserError
        Fewer than two classes or subjects, or an unknown method.
    """
    method = check_method(method)
    chosen = choose(selection, layer=layer, head=head, split=split, person=person)
    enough_classes_and_subjects(chosen)
    n = sum(len(heads) for heads, _ in heads_of_layers(chosen.selection).values())
    found: dict[str, list[NDArray[np.float64]]] = {"class": [], "subject": []}
    sites, done = [], 0
    _, label = np.unique(chosen.label, return_inverse=True)
    roles = {"class": (label, chosen.subject), "subject": (chosen.subject, label)}
    permuted = {
        what: permuted_within(target, group, permutations, seed)
        for what, (target, group) in roles.items()
    }
    for number, heads, gram, keep in iter_complete_grams(chosen, metric, progress):
        for what, (target, group) in roles.items():
            drawn = permuted[what].labels
            if not keep.all():
                _, left = np.unique(target[keep], return_inverse=True)
                drawn = sampled_within(left, group[keep], permuted[what].n_drawn, seed)
            parts = []
            for at in _at_once(len(heads), method):
                parts.append(_decode(gram[:, :, at], drawn, group[keep], method))
                done += gram[:, :, at].shape[2]
                if progress is not None:
                    progress("decoding", done, 2 * n)
            found[what].append(np.concatenate(parts, axis=1))
        sites += [{"layer": number, "head": h} for h in heads]
    return _decodability(chosen, found, pd.DataFrame(sites), permuted, method, metric, seed)


def _at_once(heads: int, method: str) -> list[slice]:
    """Return the heads that are decoded between two words on how far it is."""
    together = 1 if method == "logistic" else heads
    return [slice(start, start + together) for start in range(0, heads, together)]


def _decodability(
    chosen: Chosen,
    found: dict[str, list[NDArray[np.float64]]],
    table: pd.DataFrame,
    permuted: dict[str, PermutedLabels],
    method: str,
    metric: str,
    seed: int,
) -> Decodability:
    nulls = {}
    for what, parts in found.items():
        accuracy = np.concatenate(parts, axis=1)
        nulls[what] = accuracy[1:]
        tested = p_values(accuracy)
        table[f"{what}_accuracy"] = accuracy[0]
        table[f"{what}_chance"] = accuracy[1:].mean(axis=0) if len(accuracy) > 1 else np.nan
        table[f"{what}_p"] = tested.p
        table[f"{what}_p_max_t"] = tested.p_max_t
        table[f"{what}_q"] = tested.q
    notes = list(chosen.notes)
    layout = chosen.layout
    if len(layout.subject) < len(layout.subjects) * len(layout.labels):
        notes.append(
            f"{len(layout.subject)} of {len(layout.subjects)} × {len(layout.labels)} subject × "
            "class cells are there"
        )
    for what, made in permuted.items():
        if made.smallest_p > _LEVEL:
            notes.append(
                f"the smallest possible p of the {what} is {made.smallest_p:.2g}, so that p ≤ "
                f"{_LEVEL:g} is out of reach with so few cells"
            )
    return Decodability(
        table=table,
        class_null=nulls["class"],
        subject_null=nulls["subject"],
        n_cells=len(layout.subject),
        n_subjects=len(layout.subjects),
        n_classes=len(layout.labels),
        n_permutations=permuted["class"].n_drawn,
        subject_permutations=permuted["subject"].n_drawn,
        seed=seed,
        smallest_p=permuted["class"].smallest_p,
        subject_smallest_p=permuted["subject"].smallest_p,
        method=method,
        metric=metric,
        notes=notes,
    )
