"""Which classes are near each other: a class × class similarity over different subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cell_layers import (
    Chosen,
    choose,
    enough_classes_and_subjects,
    iter_grams,
    records,
)
from tssan_viz.comparison.reading import Progress
from tssan_viz.comparison.statistics import Gram
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection


@dataclass(frozen=True, eq=False)
class ClassMatrix:
    """What `class_matrix` found. Axis letters: c classes, h layers × heads.

    Attributes
    ----------
    names : list of str
    labels : list of int
        The classes, in the order of `similarity`.
    similarity : (c, c) float64
        Mean over s ≠ s′ of ⟨ū_cs, ū_c′s′⟩, averaged over all layers and heads. On the diagonal
        stands W, the similarity of one class in two subjects. NaN where no two subjects have them.
    per_head : (h, c, c) float64
        The same for each layer and head, in the order of `sites`.
    sites : DataFrame
        ``layer``, ``head`` of each.
    order : (c,) int
        The classes as the leaves of the clustering stand, so that like lies by like.
    linkage : (c − 1, 4) float64
        Average linkage of 1 − similarity, in the form of `scipy.cluster.hierarchy.linkage`.
    table : DataFrame
        One line per class: ``W``; the ``nearest`` and the ``farthest`` other class with their
        similarity; ``margin``, W minus the similarity with the nearest: where it is negative, maps
        of another class are more alike those of this one than its own in other subjects are.
    n_subjects : int
    metric : str
    notes : list of str
    """

    names: list[str]
    labels: list[int]
    similarity: NDArray[np.float64]
    per_head: NDArray[np.float64]
    sites: pd.DataFrame
    order: NDArray[np.intp]
    linkage: NDArray[np.float64]
    table: pd.DataFrame
    n_subjects: int
    metric: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not defined is None."""

        def plain(values: NDArray[np.float64]) -> list[list[float | None]]:
            return [[None if np.isnan(v) else float(v) for v in line] for line in values]

        return {
            "names": self.names,
            "labels": self.labels,
            "similarity": plain(self.similarity),
            "per_head": [
                {**{str(k): v for k, v in site.items()}, "similarity": plain(values)}
                for site, values in zip(
                    self.sites.to_dict(orient="records"), self.per_head, strict=True
                )
            ],
            "order": self.order.tolist(),
            "linkage": self.linkage.tolist(),
            "table": records(self.table),
            "n_subjects": self.n_subjects,
            "metric": self.metric,
            "notes": self.notes,
        }


def class_similarity_matrix(
    gram: Gram, subject: NDArray[np.integer], label: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Average the similarities of each two classes over all pairs of different subjects.

    Parameters
    ----------
    gram
        Similarities of the cells.
    subject, label : (r,) int
        Of each cell.

    Returns
    -------
    (h, c, c) float64
        Classes in the order of their labels; NaN where there is no pair.
    """
    labels, of = np.unique(label, return_inverse=True)
    belongs = (of.reshape(-1) == np.arange(len(labels))[:, None]).astype(np.float64)
    apart = subject[:, None] != subject
    found = np.empty((gram.values.shape[2], len(labels), len(labels)))
    for head in range(len(found)):
        there = apart if gram.counted is None else apart & gram.counted[:, :, head]
        total = belongs @ np.where(there, gram.values[:, :, head], 0.0) @ belongs.T
        count = belongs @ there.astype(np.float64) @ belongs.T
        with np.errstate(invalid="ignore", divide="ignore"):
            found[head] = np.where(count > 0, total / count, np.nan)
    return found


def cluster(similarity: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Cluster classes by average linkage of 1 − similarity.

    Parameters
    ----------
    similarity : (c, c)
        Symmetric, no NaN beside the diagonal.

    Returns
    -------
    linkage : (c − 1, 4)
        As SciPy's, with leaves ordered so that neighbours are as alike as can be
        (Bar-Joseph et al. 2001).
    order : (c,) int
        The leaves from left to right.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(similarity) < 2:
        return np.zeros((0, 4)), np.arange(len(similarity))
    distance = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(
        squareform(np.maximum(distance, 0), checks=False), "average", optimal_ordering=True
    )
    return tree, leaves_list(tree).astype(np.intp)


def class_matrix(
    selection: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    split: str | None = None,
    person: int = 1,
    progress: Progress | None = None,
) -> ClassMatrix:
    """Compare every class with every other, over different subjects.

    Parameters
    ----------
    selection
        What is asked about.
    layer, head, split, person
        As in `tssan_viz.compare_class`.
    metric
        ``cosine``, ``pearson``, ``hellinger`` or ``cka``.
    progress
        Called with (what, done, total).

    Returns
    -------
    ClassMatrix

    Raises
    ------
    UserError
        Fewer than two classes or subjects, or two classes that no two subjects have.
    """
    chosen = choose(selection, layer=layer, head=head, split=split, person=person)
    enough_classes_and_subjects(chosen)
    parts, sites = [], []
    for number, heads, gram in iter_grams(chosen, metric, progress):
        parts.append(class_similarity_matrix(gram, chosen.subject, chosen.label))
        sites += [{"layer": number, "head": h} for h in heads]
    return _class_matrix(chosen, np.concatenate(parts), pd.DataFrame(sites), metric)


def _class_matrix(
    chosen: Chosen, per_head: NDArray[np.float64], sites: pd.DataFrame, metric: str
) -> ClassMatrix:
    labels = chosen.layout.labels
    names = chosen.names(labels)
    similarity = per_head.mean(axis=0)
    beside = ~np.eye(len(labels), dtype=bool)
    missing = np.argwhere(np.isnan(similarity) & beside)
    if len(missing):
        a, b = missing[0]
        raise UserError(
            f"no two subjects have {names[a]!r} and {names[b]!r}, which cannot be compared then; "
            "leave one of them out"
        )
    tree, order = cluster(similarity)
    others = np.where(beside, similarity, np.nan)
    nearest, farthest = np.nanargmax(others, axis=1), np.nanargmin(others, axis=1)
    lines = np.arange(len(labels))
    own = similarity.diagonal()
    table = pd.DataFrame(
        {
            "class_name": names,
            "W": own,
            "nearest": [names[i] for i in nearest],
            "nearest_similarity": others[lines, nearest],
            "farthest": [names[i] for i in farthest],
            "farthest_similarity": others[lines, farthest],
            "margin": own - others[lines, nearest],
        }
    )
    notes = list(chosen.notes)
    alone = [name for name, value in zip(names, own, strict=True) if np.isnan(value)]
    if alone:
        notes.append(f"only one subject has {', '.join(alone)}: no similarity with itself")
    return ClassMatrix(
        names=names,
        labels=[int(label) for label in labels],
        similarity=similarity,
        per_head=per_head,
        sites=sites,
        order=order,
        linkage=tree,
        table=table,
        n_subjects=len(chosen.layout.subjects),
        metric=metric,
        notes=notes,
    )
