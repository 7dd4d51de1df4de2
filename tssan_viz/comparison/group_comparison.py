"""From a selection to an answer about groups: cameras, subjects, outcomes, steps, durations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import Layout, cell_mean_maps, lay_out, sum_units
from tssan_viz.comparison.choosing import choose_layers, choose_rows, narrow
from tssan_viz.comparison.comparison import Accuracy, Comparison, records, reversals
from tssan_viz.comparison.contrasts import (
    GroupEstimates,
    describe_groups_of_subjects,
    estimate_groups,
    group_deltas,
    subject_similarities,
)
from tssan_viz.comparison.distances import draw_distances
from tssan_viz.comparison.group_cells import GroupCells
from tssan_viz.comparison.group_exchange import Exchange, GroupDesign, design_groups
from tssan_viz.comparison.groups import group_by_condition, group_rows
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import kept_gram, kept_left_out
from tssan_viz.comparison.kept_files import KeptLayer
from tssan_viz.comparison.pairing import pair
from tssan_viz.comparison.pairs import DISTANCES, PairDistances
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import METRICS, check_similarity_or_distance
from tssan_viz.comparison.statistics import MIN_SUBJECTS_FOR_INTERVAL, Gram, p_values
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

# What two maps have in common, or have not, in the words of an answer.
_IN_COMMON = {
    "camera": "are seen by the same camera",
    "subject": "come from the same group of subjects",
    "correct": "are both right or both wrong",
    "predicted": "are taken for the same class",
    "step": "are of the same step of training",
    "duration": "are of the same third of durations",
    "condition": "are of the same group",
}

_EXCHANGED: dict[Exchange | None, tuple[str, str]] = {
    "within": ("the groups over all classes at once", "within each of"),
    "alike": ("groups that occur in the same classes", "within each of"),
    "subjects": ("whole subjects between the groups,", "of"),
    None: ("nothing", "within"),
}

# What moves together of a person, in the words of a note.
_MOVES = {
    "camera": "cameras",
    "correct": "right and wrong videos",
    "predicted": "predictions",
    "duration": "short and long videos",
    "condition": "groups",
}


# The cells of a layer, the maps that were left out, and the description of single subjects.
_Read = tuple[GroupCells, int, GroupEstimates | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupComparison(Comparison):
    """What a comparison of groups found; `Comparison` describes what it shares with others.

    Attributes
    ----------
    by : str
        What the groups are of: one of `tssan_viz.comparison.groups.BY`, or "condition".
    table : DataFrame
        `W` is of the same class and group in two subjects, the mean over groups and classes; `B` of
        the same class in two subjects of different groups. `W_1`, `W_2`, …: W of each group.
    groups : DataFrame
        One line per group: `group`, `videos`, `subjects`, `similarity`: its W, averaged over the
        heads of the table.
    between : (g, g) DataFrame
        Similarity of each two groups, averaged over the heads; within them on the diagonal.
    exchange : "within", "alike", "subjects" or None
        See `tssan_viz.comparison.group_exchange`.
    """

    by: str
    groups: pd.DataFrame
    between: pd.DataFrame
    exchange: Exchange | None
    _layout: Layout = field(repr=False)
    _rows: pd.DataFrame = field(repr=False)
    _group: NDArray[np.intp] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What the groups are called."""
        return tuple(self.groups["group"])

    @property
    def title(self) -> str:
        """What is compared with what, as a heading."""
        names = [str(name) for name in self.names]
        if self.by == "predicted":
            names[1:] = [name.removeprefix("predicted ") for name in names[1:]]
        if len(names) == 2:
            return f"{names[0]} against {names[1]}"
        shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
        return f"{', '.join(shown[:-1])} and {shown[-1]} against each other"

    @property
    def exchange_words(self) -> tuple[str, str]:
        """What the test exchanges, and where."""
        what, where = _EXCHANGED[self.exchange]
        if self.by == "step":
            what = "the two steps"
        elif self.exchange in ("within", "alike") and self._rows["label"].nunique() == 1:
            what = "the groups"
        return what, where

    @property
    def claim(self) -> str:
        """What a significant head shows, as a clause."""
        if self.by == "subject" and self.exchange is None:
            return "maps of one class resemble each other more within a person than across people"
        common = _IN_COMMON[self.by]
        return f"maps of one class in two subjects resemble each other more when they {common}"

    @property
    def sides(self) -> tuple[Selection, Selection] | None:
        """The rows of the two groups, where there are two."""
        if len(self.groups) != 2:
            return None
        first, second = (_only(self._selection, self._rows, self._group == g) for g in (0, 1))
        return first, second

    @property
    def side_names(self) -> tuple[str, ...]:
        """What the groups are called."""
        return self.names

    def group_maps(self, layer: int, head: int) -> NDArray[np.float32]:
        """Return the mean map of each group: (g, q, s).

        Within a group every subject weighs the same, and within a subject every class.

        Parameters
        ----------
        layer, head
            Counted from 1.
        """
        part = self._selection.select(layer=layer, head=head)
        site = site_of(part, layer)
        means = cell_mean_maps(self._layout, map_reader(part), size=(site["query"], site["key"]))
        group = self._layout.label % len(self.groups)
        found = []
        for g in range(len(self.groups)):
            mine, subject = means[group == g], self._layout.subject[group == g]
            found.append(np.mean([mine[subject == s].mean(0) for s in np.unique(subject)], axis=0))
        return np.stack(found).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as plain values for JSON; what is not defined is None."""
        shared = self._described()
        table = shared.pop("table")
        return {
            "schema": 1,
            "by": self.by,
            "groups": records(self.groups),
            **shared,
            "table": table,
            "between": {
                "groups": list(self.names),
                "similarity": [
                    [None if np.isnan(value) else float(value) for value in line]
                    for line in self.between.to_numpy(float)
                ],
            },
            "summary": self.summary,
            "notes": self.notes,
        }


def compare_groups(
    selection: Selection,
    by: str,
    *,
    groups: Sequence[Sequence[str]] | None = None,
    condition: tuple[Selection, Selection] | None = None,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    split: str | None = None,
    person: int = 1,
    permutations: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> GroupComparison:
    """Ask whether maps of a group resemble each other across subjects more than across groups.

    Only maps of the same class and of different subjects are compared, so that neither a class
    nor a person can pass for a group.

    Parameters
    ----------
    selection
        Which rows.
    by
        One of `tssan_viz.comparison.groups.BY` but "run", or "condition".
    groups
        The values of each group, as text; by default every value is a group.
    condition
        With "condition": the rows of either group.
    layer, head, metric, split, person, permutations, seed, alpha, progress
        As in `tssan_viz.compare_class`.

    Raises
    ------
    UserError
        A group is empty or a single video, or fewer than two subjects can be compared.
    """
    check_similarity_or_distance(metric, DISTANCES)
    if metric in DISTANCES and by != "subject":
        raise UserError(
            f"{metric} is drawn between cells of subjects and classes, which {by} cuts through: "
            f"choose one of {', '.join(METRICS)}"
        )
    _check(permutations, seed, alpha)
    notes = selection.notes_of_one_step()
    selection = choose_layers(selection, layer, head)
    selection, chosen_split = choose_rows(selection, split, person, notes, every_step=by == "step")
    rows = selection.rows()
    if condition is not None:
        first, second = (part.rows()["row_id"].to_numpy(np.int64) for part in condition)
        grouping = group_by_condition(rows, first, second)
    else:
        grouping = group_rows(selection, by, groups)
    taking_part, grouping = pair(rows, grouping, named=groups is not None or condition is not None)
    notes += grouping.notes
    exchange, reason = grouping.exchange, grouping.reason
    if not taking_part.all():
        selection = _only(selection, rows, taking_part)
        rows = selection.rows()
    group = grouping.group[taking_part]

    # Cells are of a subject, a class and a group: two numbers in one stand for the latter two.
    n_groups = len(grouping.names)
    layout = lay_out(rows.assign(label=rows["label"].to_numpy(int) * n_groups + group))
    table, between, design = _compare_layers(
        selection,
        layout,
        n_groups,
        exchange,
        metric,
        person,
        (permutations, seed, alpha),
        progress,
        notes,
        single_subjects=by == "subject" and exchange is None,
    )
    subjects = [int(s) for s in np.unique(layout.subjects)]
    if design.exchange is None and reason is None:
        reason = "nothing can be exchanged: there is one way only to form these groups"
    elif (
        reason is None and len(subjects) >= MIN_SUBJECTS_FOR_INTERVAL and table["low"].isna().all()
    ):
        notes.append("no interval: without one of the subjects a group would be without a pair")
    if (
        reason is None
        and exchange in ("within", "alike")
        and by != "step"
        and rows["label"].nunique() > 1
    ):
        notes.append(
            f"a person's {_MOVES[by]} are exchanged in all classes at once, not class by class: "
            "they may differ in a way that is this person's own and the same in every class, and "
            "p would then be too small"
        )
    if len(subjects) < MIN_SUBJECTS_FOR_INTERVAL:
        notes.append(
            f"no interval: {counted(len(subjects), 'subject')}; under "
            f"{MIN_SUBJECTS_FOR_INTERVAL} it would be too short, whatever the method"
        )
    accuracy = Accuracy.of(selection)
    if accuracy is not None and by != "correct":
        notes += accuracy.note()
    videos = rows.assign(group=group).groupby("group")
    described = pd.DataFrame(
        {
            "group": list(grouping.names),
            "videos": videos["sample"].nunique().to_numpy(),
            "subjects": videos["subject"].nunique().to_numpy(),
            "similarity": np.diag(between),
        }
    )
    return GroupComparison(
        by=by,
        table=table,
        groups=described,
        between=pd.DataFrame(between, index=grouping.names, columns=grouping.names),
        exchange=design.exchange if reason is None else None,
        subjects=subjects,
        n_exchanged=len(subjects) if reason is None else 0,
        n_samples=int(rows["sample"].nunique()),
        accuracy=accuracy,
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
        reason=reason,
        notes=notes,
        _selection=selection,
        _layout=layout,
        _rows=rows,
        _group=group,
    )


def _only(selection: Selection, rows: pd.DataFrame, keep: NDArray[np.bool_]) -> Selection:
    """Return some rows of a selection; whole videos by their names, else the rows by number."""
    chosen = set(rows.loc[keep, "sample"])
    if not chosen & set(rows.loc[~keep, "sample"]):
        return narrow(selection, sample=sorted(chosen))
    numbers = rows.loc[keep, "row_id"]
    return narrow(selection, where=f"row_id IN ({', '.join(map(str, numbers))})")


def _check(permutations: int, seed: int, alpha: float) -> None:
    if permutations < 1:
        raise UserError(f"permutations is {permutations}: at least 1 is needed")
    if seed < 0:
        raise UserError(f"seed is {seed}: it is a whole number from 0")
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}: it lies between 0 and 1")


def _compare_layers(
    selection: Selection,
    layout: Layout,
    n_groups: int,
    exchange: Exchange | None,
    metric: str,
    person: int,
    options: tuple[int, int, float],
    progress: Progress | None,
    notes: list[str],
    single_subjects: bool,
) -> tuple[pd.DataFrame, NDArray[np.float64], GroupDesign]:
    """Go through the layers one at a time: the table, the similarity of groups, the test."""
    permutations, seed, alpha = options
    chosen = heads_of_layers(selection)
    # Groups of subjects are made of kept cells; all other groups cut through them.
    kept, drawn = None, None
    if metric in DISTANCES:
        drawn = draw_distances(selection, metric, person, seed, progress, notes)
    elif exchange == "subjects":
        kept = KeptCells.of(selection, person=person, metric=metric, notes=notes, progress=progress)
    if kept is not None:
        kept.prepare([layer for layer, (_, whole) in chosen.items() if whole])
    parts, deltas, between, left_out = [], [], [], []
    design: GroupDesign | None = None
    sign = -1.0 if drawn is not None else 1.0
    for done, (layer, (heads, whole)) in enumerate(chosen.items()):
        found: _Read | None = None
        if drawn is not None:
            found = _from_distances(drawn, layer, layout, n_groups)
        if kept is not None:
            places = kept.places(layer, heads)
            work = partial(_from_kept, layout=layout, n_groups=n_groups, places=places)
            found = kept.answer(layer, work, make=whole)
        if found is None:
            part = selection.select(layer=layer, head=heads)
            found = _from_maps(
                part, layout, n_groups, metric, progress, done, len(chosen), single_subjects
            )
        cells, lost, alone = found
        design = design_groups(cells, exchange, n_permutations=permutations, seed=seed)
        estimates = alone or estimate_groups(cells, exchange, alpha=alpha)
        if design.exchange is not None:
            report = None
            if progress is not None:
                report = _reporter(progress, done, len(chosen))
            deltas.append(group_deltas(cells, design, report))
        else:
            deltas.append(np.full((1, len(heads)), np.nan))
        between.append(sign * estimates.between_each)
        parts.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "head": heads,
                    "W": sign * estimates.within,
                    "B": sign * estimates.between,
                    "delta": estimates.delta,
                    "hedges_g": estimates.hedges_g,
                    "low": estimates.low,
                    "high": estimates.high,
                    "p": np.nan,
                    "p_max_t": np.nan,
                    "q": np.nan,
                    **{f"W_{g + 1}": sign * estimates.within_each[g] for g in range(n_groups)},
                }
            )
        )
        if lost:
            left_out.append(f"{lost} in layer {layer}")
    if left_out:
        notes.append(
            f"maps without a direction under {metric} (uniform ones) were left out: "
            + ", ".join(left_out)
        )
    assert design is not None
    table = pd.concat(parts, ignore_index=True)
    tested = p_values(np.concatenate(deltas, axis=1))
    table["p"], table["p_max_t"], table["q"] = tested.p, tested.p_max_t, tested.q
    notes += reversals(table, alpha)
    every = np.concatenate(between, axis=2)
    there = np.isfinite(every)
    means = np.where(there, every, 0).sum(axis=2) / np.maximum(there.sum(axis=2), 1)
    return table, np.where(there.any(axis=2), means, np.nan), design


def _reporter(progress: Progress, done: int, layers: int) -> Any:
    return lambda part, whole: progress("permuting", done * whole + part, layers * whole)


def _from_kept(
    kept: KeptLayer, at: NDArray[np.intp], *, layout: Layout, n_groups: int, places: list[int]
) -> _Read:
    label, group = np.divmod(layout.label, n_groups)
    # Groups are of whole subjects, so the order of the cells is that of the kept ones.
    blocks = []
    for one in np.unique(label):
        members = np.flatnonzero(label == one)
        blocks.append((members, kept_gram(kept, at[members], places)))
    cells = GroupCells(layout.subject, group, label, blocks, n_groups, len(places))
    return cells, int(kept_left_out(kept, at, places).sum()), None


def _from_distances(drawn: PairDistances, layer: int, layout: Layout, n_groups: int) -> _Read:
    label, group = np.divmod(layout.label, n_groups)
    gram = drawn.gram(layer)
    blocks = []
    for one in np.unique(label):
        members = np.flatnonzero(label == one)
        square = np.ix_(members, members)
        counted = None if gram.counted is None else gram.counted[square]
        blocks.append((members, Gram(gram.values[square], counted)))
    return GroupCells(layout.subject, group, label, blocks, n_groups, gram.values.shape[2]), 0, None


def _from_maps(
    selection: Selection,
    layout: Layout,
    n_groups: int,
    metric: str,
    progress: Progress | None,
    done: int,
    layers: int,
    single_subjects: bool,
) -> _Read:
    """Read the cells of one layer; single subjects are described by their single maps."""
    site = site_of(selection, selection.layers[0])
    # Only single subjects are described by plain sums, so else there is one pile of them.
    piles = (layout.cell, len(layout.subject)) if single_subjects else (layout.cell * 0, 1)
    cells = sum_units(
        layout,
        piles,
        map_reader(selection, progress, done, layers),
        metric,
        heads=len(selection.heads),
        size=(site["query"], site["key"]),
    )
    label, group = np.divmod(layout.label, n_groups)
    found = GroupCells.of(cells.units, cells.present, layout.subject, label, group, n_groups)
    described = None
    if single_subjects:
        total, pairs = subject_similarities(cells.sums, cells.counts, layout.subject, label)
        of_subject = np.zeros(len(total), np.intp)
        of_subject[layout.subject] = group
        described = describe_groups_of_subjects(total, pairs, of_subject, n_groups)
    return found, int(cells.left_out.sum()), described
