"""From a selection to an answer: do maps of a class resemble each other more than others do."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import (
    PLAIN,
    Layout,
    ReadMaps,
    Sides,
    cell_mean_maps,
    lay_out,
    sides_of,
    single_pair_means,
    sum_units,
)
from tssan_viz.comparison.choosing import (
    NO_TEST_WITHIN_SUBJECTS,
    check_subjects,
    choose_layers,
    choose_rows,
    narrow,
    resolve,
    say_who_is_missing,
)
from tssan_viz.comparison.comparison import (
    Accuracy,
    Comparison,
    intervals_without_p,
    records,
    reversals,
)
from tssan_viz.comparison.distances import as_distances, draw_distances
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import (
    kept_gram,
    kept_left_out,
    kept_mean_maps,
    kept_sides,
)
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.comparison.pairs import DISTANCES
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import check_similarity_or_distance
from tssan_viz.comparison.statistics import (
    Design,
    Gram,
    class_similarities,
    estimate,
    gram_matrix,
    make_design,
    null_deltas,
    p_values,
)
from tssan_viz.comparison.views import view_table
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore, ClassEntry


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassComparison(Comparison):
    """What `compare_class` found; `Comparison` describes what it shares with other answers.

    Attributes
    ----------
    entry : ClassEntry
        The class.
    other : ClassEntry or None
        The class that it was compared with; None for all others.
    table : DataFrame
        `W` is of the same class in two subjects (for two classes the mean of both, which are
        `W_class` and `W_other`); `B` of the class in one subject and another class in another.
    neighbours : DataFrame
        `class_name`, `class_code`, `similarity`: the other classes from nearest to farthest; the
        similarity is B with that class alone, averaged over the heads of the table.
    views : DataFrame
        The class's maps across cameras, over all single pairs of videos. One line per layer and
        head; `same_view`, `other_view`: of two subjects seen by one camera, or by two;
        `subject_same_view`, `subject_other_view`: of one subject. Empty with one camera.
    subjects : list of int
        Subjects that have the class (for two classes: either of them).
    n_class_samples : int
        Videos of the class.
    n_other_classes : int
        Classes that it was compared with.
    """

    entry: ClassEntry
    other: ClassEntry | None
    neighbours: pd.DataFrame
    views: pd.DataFrame
    n_class_samples: int
    n_other_classes: int
    _layout: Layout = field(repr=False)

    @property
    def title(self) -> str:
        """What is compared with what, as a heading."""
        against = "all other classes" if self.other is None else str(self.other)
        return f"{self.entry} against {against}"

    @property
    def exchange_words(self) -> tuple[str, str]:
        """What the test exchanges, and where."""
        return "class means" if self.other is None else "the two labels", "within each of"

    @property
    def claim(self) -> str:
        """What a significant head shows, as a clause."""
        name = f"“{self.entry.name}”"
        if self.other is not None:
            # What is tested is the mean of both: one class may well be alike no more than that.
            return (
                "maps of two subjects resemble each other more when both are of the same class, "
                f"{name} or “{self.other.name}” (the mean of both), than when one is of each"
            )
        many = self.n_other_classes
        others = "the other class" if many == 1 else f"the {many} other classes"
        return (
            f"maps of {name} resemble each other across subjects more, on average, than they "
            f"resemble maps of {others}"
        )

    @property
    def sides(self) -> tuple[Selection, Selection]:
        """The rows of the class, and the others."""
        of_class = self._selection.select(label=self.entry.label)
        return of_class, self._selection - of_class

    @property
    def side_names(self) -> tuple[str, ...]:
        """The class, and what it is compared with."""
        return self.entry.name, "the others" if self.other is None else self.other.name

    def group_maps(self, layer: int, head: int) -> NDArray[np.float32]:
        """Return the mean map of the class and of the others, (2, q, s); see `mean_maps`."""
        return np.stack(self.mean_maps(layer, head)[:2])

    def mean_maps(
        self, layer: int, head: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Average the maps of one head over subjects, each subject weighing the same.

        Within a subject videos weigh as in the comparison (cameras, then replications, then
        segments); the other classes of a subject weigh the same.

        Parameters
        ----------
        layer, head
            Counted from 1.

        Returns
        -------
        of_class, of_other, difference : (q, s) float32
            The difference is class minus other.

        Raises
        ------
        UserError
            The run has no such layer or head.
        """
        part = self._selection.select(layer=layer, head=head)
        means = _cell_means(part, self._layout, self._kept_maps, layer, head)
        own = self._layout.label == self.entry.label
        of_class = means[own].mean(axis=0)
        rest, subject = means[~own], self._layout.subject[~own]
        of_other = np.mean([rest[subject == s].mean(axis=0) for s in np.unique(subject)], axis=0)
        return (
            of_class.astype(np.float32),
            of_other.astype(np.float32),
            (of_class - of_other).astype(np.float32),
        )

    @cached_property
    def _kept_maps(self) -> KeptCells | None:
        return KeptCells.of(self._selection, person=self.person, metric=PLAIN, notes=[])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as plain values for JSON; what is not defined is None."""
        shared = self._described()
        table = shared.pop("table")
        return {
            "schema": 1,
            "class": _entry_dict(self.entry),
            "with": None if self.other is None else _entry_dict(self.other),
            **shared,
            "n_class_samples": self.n_class_samples,
            "n_other_classes": self.n_other_classes,
            "table": table,
            "neighbours": records(self.neighbours),
            "views": records(self.views),
            "summary": self.summary,
            "notes": self.notes,
        }


def _entry_dict(entry: ClassEntry) -> dict[str, Any]:
    return {"label": entry.label, "name": entry.name, "code": entry.code}


def compare_class(
    source: AttentionStore | Selection,
    class_name: str | int,
    *,
    with_class: str | int | None = None,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    split: str | None = None,
    person: int = 1,
    permutations: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> ClassComparison:
    """Ask whether a class's maps resemble each other across subjects more than other classes'.

    Per layer and head: W, B and Δ = W − B (see `tssan_viz.comparison.statistics`), effect size,
    jackknife interval, and a one-sided permutation test in which class means are exchanged within
    each subject; corrected over all heads of the table. With `with_class` the two classes are
    compared with each other and their labels exchanged within each subject. Every number holds
    for the recorded network, not for others of its kind.

    Parameters
    ----------
    source
        A store (its newest run in which the class occurs) or a selection.
    class_name, with_class
        By name, code, alias or label.
    layer
        One, counted from 1; ``"last"``; or ``"all"``.
    head
        One, counted from 1; None for all.
    metric
        ``cosine``, ``pearson``, ``hellinger`` or ``cka``; or a distance, from pairs of maps that
        are drawn: ``jsd``, ``wasserstein`` or ``tv``.
    split
        Which split; subjects of different splits are never pooled. None: ``"test"``, or where that
        was not recorded the only other one, which `notes` then name.
    person
        From 1. Single-actor annotations name the subject of person 1 only.
    permutations
        How many exchanges to draw; when there are no more than that, all are gone through.
    seed
        Of the draw.
    alpha
        Level at which sentences call a head significant; intervals cover 1 − alpha.
    progress
        Called with (what, done, total).

    Returns
    -------
    ClassComparison

    Raises
    ------
    UnknownClass
        No class goes by that name; `suggestions` holds the nearest.
    UserError
        Fewer than two subjects, nothing to compare with, or options that do not exist.
    """
    check_similarity_or_distance(metric, DISTANCES)
    if permutations < 1:
        raise UserError(f"permutations is {permutations}: at least 1 is needed")
    if seed < 0:
        raise UserError(f"seed is {seed}: it is a whole number from 0")
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}: it lies between 0 and 1")
    selection, entry, other = resolve(source, class_name, with_class)
    notes = selection.notes_of_one_step()
    selection = choose_layers(selection, layer, head)
    selection, chosen_split = choose_rows(selection, split, person, notes)
    if other is not None:
        selection = narrow(selection, label=[entry.label, other.label])
    layout = lay_out(selection.rows())
    check_subjects(selection, layout, entry, other)
    design = make_design(
        layout.subject,
        layout.label == entry.label,
        two_classes=other is not None,
        n_permutations=permutations,
        seed=seed,
    )

    table, neighbours, views = _compare_layers(
        selection, layout, design, entry, metric, person, alpha, seed, progress, notes
    )
    rows = selection.rows()
    videos = rows.drop_duplicates("sample")
    taking_part = layout.subject if other is not None else layout.subject[design.of_class]
    subjects = [layout.subjects[s] for s in np.unique(taking_part)]
    with_both = np.intersect1d(layout.subject[design.of_class], layout.subject[~design.of_class])
    say_who_is_missing(layout, design, len(subjects), len(with_both), entry, other, notes)
    accuracy = Accuracy.of(selection)
    if accuracy is not None:
        notes += accuracy.note()
    return ClassComparison(
        entry=entry,
        other=other,
        table=table,
        neighbours=neighbours,
        views=views,
        accuracy=accuracy,
        reason=None if design.n_assignments > 1 else NO_TEST_WITHIN_SUBJECTS,
        subjects=subjects,
        n_exchanged=len(with_both),
        n_samples=len(videos),
        n_class_samples=int((videos["label"] == entry.label).sum()),
        n_other_classes=len(layout.labels) - 1,
        run=selection.run,
        store=selection.store.url,
        split=chosen_split,
        metric=metric,
        person=person,
        layers=tuple(selection.layers),
        heads=tuple(selection.heads),
        n_permutations=design.n_drawn,
        n_assignments=design.n_assignments,
        enumerated=design.enumerated,
        smallest_p=design.smallest_p,
        seed=seed,
        alpha=alpha,
        notes=notes,
        _selection=selection,
        _layout=layout,
    )


def _compare_layers(
    selection: Selection,
    layout: Layout,
    design: Design,
    entry: ClassEntry,
    metric: str,
    person: int,
    alpha: float,
    seed: int,
    progress: Progress | None,
    notes: list[str],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Go through the layers one at a time, so that memory holds the cells of one layer only."""
    parts: list[pd.DataFrame] = []
    deltas: list[NDArray[np.float64]] = []
    near: list[NDArray[np.float64]] = []
    others: list[int] = []
    views: list[pd.DataFrame] = []
    left_out: list[str] = []
    chosen = heads_of_layers(selection)
    kept, drawn = None, None
    if metric in DISTANCES:
        drawn = draw_distances(selection, metric, person, seed, progress, notes)
    else:
        kept = KeptCells.of(selection, person=person, metric=metric, notes=notes, progress=progress)
    if kept is not None:
        kept.prepare([layer for layer, (_, whole) in chosen.items() if whole])
    for done, (layer, (heads, whole)) in enumerate(chosen.items()):
        compared = None
        if drawn is not None:
            nobody = np.zeros(len(heads), np.intp)
            compared = _Compared(drawn.gram(layer), None, nobody)
        if kept is not None:
            places = kept.places(layer, heads)
            work = partial(_from_kept, layout=layout, label=entry.label, places=places)
            compared = kept.answer(layer, work, make=whole)
        if compared is None:
            part = selection.select(layer=layer, head=heads)
            read = map_reader(part, progress, done, len(chosen))
            compared = _from_maps(part, layout, read, metric, entry.label)
        gram = compared.gram
        found = estimate(gram, design, alpha=alpha)
        deltas.append(null_deltas(gram, design))
        others, similarity = class_similarities(gram, layout.subject, layout.label, entry.label)
        near.append(similarity)
        w_pairs = b_pairs = np.full(len(heads), np.nan)
        if compared.sides is not None:
            w_pairs, b_pairs = single_pair_means(compared.sides, two_classes=design.two_classes)
        columns = {
            "layer": layer,
            "head": heads,
            "W": found.within,
            "B": found.between,
            "delta": found.delta,
            "hedges_g": found.hedges_g,
            "low": found.low,
            "high": found.high,
            "p": np.nan,
            "p_max_t": np.nan,
            "q": np.nan,
            "W_pairs": w_pairs,
            "B_pairs": b_pairs,
        }
        if design.two_classes:
            columns |= {"W_class": found.within_each[0], "W_other": found.within_each[1]}
        if drawn is not None:
            columns |= as_distances(columns, drawn, layer, design)
        parts.append(pd.DataFrame(columns))
        if drawn is None:
            views.append(view_table(selection, layout, kept, layer, heads, metric, entry.label))
        if compared.left_out.any():
            left_out.append(f"{int(compared.left_out.sum())} in layer {layer}")
    if left_out:
        notes.append(
            f"maps without a direction under {metric} (uniform ones) were left out: "
            + ", ".join(left_out)
        )
    table = pd.concat(parts, ignore_index=True)
    if progress is not None:
        progress("permuting", 0, 1)
    tested = p_values(np.concatenate(deltas, axis=1))
    table["p"], table["p_max_t"], table["q"] = tested.p, tested.p_max_t, tested.q
    notes += intervals_without_p(table, alpha) + reversals(table, alpha)
    if progress is not None:
        progress("permuting", 1, 1)
    entries = selection.catalogue.by_label
    neighbours = pd.DataFrame(
        {
            "class_name": [selection.catalogue.name_of(label) for label in others],
            "class_code": [entries[label].code if label in entries else None for label in others],
            "similarity": np.nanmean(np.concatenate(near, axis=1), axis=1),
        }
    )
    neighbours = neighbours.sort_values("similarity", ascending=False, kind="stable")
    return (
        table,
        neighbours.reset_index(drop=True),
        (pd.concat(views, ignore_index=True) if views else pd.DataFrame()),
    )


# ---- cells, kept or from maps


@dataclass(frozen=True, eq=False)
class _Compared:
    """What the statistics need of a layer; left_out is (h,), sides are not known of distances."""

    gram: Gram
    sides: Sides | None
    left_out: NDArray[np.intp]


def _from_kept(
    kept: KeptLayer, at: NDArray[np.intp], *, layout: Layout, label: int, places: list[int]
) -> _Compared:
    sides = kept_sides(kept, at, layout.subject, layout.label == label, places)
    return _Compared(kept_gram(kept, at, places), sides, kept_left_out(kept, at, places))


def _from_maps(
    selection: Selection, layout: Layout, read: ReadMaps, metric: str, label: int
) -> _Compared:
    site = site_of(selection, selection.layers[0])
    cells = sum_units(
        layout,
        sides_of(layout, label),
        read,
        metric,
        heads=len(selection.heads),
        size=(site["query"], site["key"]),
    )
    return _Compared(gram_matrix(cells.units, cells.present), cells.sides, cells.left_out)


def _cell_means(
    selection: Selection, layout: Layout, kept: KeptCells | None, layer: int, head: int
) -> NDArray[np.float64]:
    """Return the mean maps (r, q, s) of the cells of one layer and head."""
    site = site_of(selection, layer)
    size = (site["query"], site["key"])
    if kept is not None:
        (place,) = kept.places(layer, [head])
        found = kept.answer(
            layer, lambda cells, at: kept_mean_maps(cells, at, place, size), make=True
        )
        if found is not None:
            return found
    return cell_mean_maps(layout, map_reader(selection), size=size)
