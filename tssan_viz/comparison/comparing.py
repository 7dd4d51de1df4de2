"""The one question that all comparisons are: what is compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tssan_viz.comparison.alignment import ALIGNMENTS, aligned
from tssan_viz.comparison.class_comparison import compare_class
from tssan_viz.comparison.comparison import Comparison
from tssan_viz.comparison.group_comparison import compare_groups
from tssan_viz.comparison.groups import check_by, parse_groups
from tssan_viz.comparison.reading import Progress
from tssan_viz.comparison.run_comparison import RunComparison, compare_runs
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore

# By what two selections can differ, each with its own exchange.
_COLUMNS = ("label", "subject", "camera", "step", "correct", "predicted")


def compare(
    a: AttentionStore | Selection,
    b: Selection | None = None,
    *,
    class_name: str | int | None = None,
    with_class: str | int | None = None,
    by: str | None = None,
    groups: str | Sequence[str] = (),
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    align: str = "none",
    split: str | None = None,
    person: int = 1,
    permutations: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> Comparison:
    """Compare maps: a class with others, groups with each other, or two selections.

    ============================================ ==============================================
    question                                     call
    ============================================ ==============================================
    a class against all others                   ``compare(store, class_name="reading")``
    two classes                                  ``… with_class="put on jacket"``
    cameras, outcomes, durations, steps          ``compare(store, by="camera")``
    the same of one class                        ``compare(store, class_name="…", by="camera")``
    groups of subjects                           ``compare(store, groups=["subject:1,3"])``
    two selections of one run                    ``compare(run.select(camera=1), …(camera=2))``
    two runs                                     ``compare(store, by="run")``
    ============================================ ==============================================

    What is exchanged in the test follows from what is compared, and the answer says what it was;
    where nothing can be, it describes, and says why. Every number holds for the recorded network.

    Parameters
    ----------
    a
        A store (its newest run in which anything fits) or a selection.
    b
        A selection: what sets it apart from `a` (one class, subjects, camera, step, outcome or
        run; else a condition of your own) is what is compared.
    class_name, with_class
        By name, code, alias or label; with `by` or `groups` the class that is looked at.
    by
        ``subject``, ``camera``, ``correct``, ``predicted``, ``step``, ``duration`` (thirds within
        each class) or ``run``.
    groups
        Each like ``"subject:1,3"``; one group is compared with all others.
    align
        ``none``: in phase; ``seconds`` or ``dtw``: in phase and aligned, side by side; see
        `tssan_viz.comparison.alignment.aligned`.
    layer, head, metric, split, person, permutations, seed, alpha, progress
        As in `tssan_viz.compare_class`.

    Returns
    -------
    Comparison
        With `table`, `summary`, `notes`, `plot()` and `to_dict()`.

    Raises
    ------
    UserError
        What is asked for does not exist, is empty, or would pool what must not be pooled.

    Examples
    --------
    >>> tssan_viz.compare(store, class_name="put on jacket").summary  # doctest: +SKIP
    """
    check_alignment(align)
    question: dict[str, Any] = {
        "class_name": class_name,
        "with_class": with_class,
        "by": by,
        "groups": groups,
        "layer": layer,
        "head": head,
        "metric": metric,
        "split": split,
        "person": person,
        "permutations": permutations,
        "seed": seed,
        "alpha": alpha,
        "progress": progress,
    }
    if align == "none":
        return _compare(a, b, **question)
    if b is not None:
        raise UserError(
            "two selections are aligned together: ask compare(aligned(a | b, align), by=…), or a "
            "class, so that there is one reference"
        )
    in_phase = _compare(a, None, **question)
    if isinstance(in_phase, RunComparison):
        raise UserError("runs are compared in phase: leave out align (--align)")
    rows = aligned(in_phase.selection, align)
    return beside_each_other(in_phase, _compare(rows, None, **question), align)


def beside_each_other(in_phase: Comparison, other: Comparison, align: str) -> Comparison:
    """Put what is found in aligned maps beside what is found in phase.

    Parameters
    ----------
    in_phase, other
        The same question, of the maps as they are and aligned.
    align
        How they were aligned.
    """
    names = ["delta", "low", "high", "p_max_t"]
    columns = other.table[["layer", "head", *names]]
    renamed = columns.rename(columns={name: f"{name}_aligned" for name in names})
    table = in_phase.table.merge(renamed, on=["layer", "head"], how="left")
    added = [note for note in other.notes if note not in in_phase.notes]
    both = ((table["p_max_t"] <= in_phase.alpha) & (table["p_max_t_aligned"] <= other.alpha)).sum()
    if in_phase.tested:
        added.append(
            f"of {len(in_phase.significant)} heads that are significant in phase and "
            f"{len(other.significant)} in {align}, {both} are so in both"
        )
    return replace(in_phase, table=table, aligned=other, notes=[*in_phase.notes, *added])


def _compare(
    a: AttentionStore | Selection,
    b: Selection | None,
    *,
    class_name: str | int | None,
    with_class: str | int | None,
    by: str | None,
    groups: str | Sequence[str],
    layer: int | str,
    head: int | None,
    metric: str,
    split: str | None,
    person: int,
    permutations: int,
    seed: int,
    alpha: float,
    progress: Progress | None,
) -> Comparison:
    """Find out what kind of question it is, and ask it."""
    shared: dict[str, Any] = {
        "layer": layer,
        "head": head,
        "metric": metric,
        "split": split,
        "person": person,
        "seed": seed,
        "alpha": alpha,
        "progress": progress,
    }
    permuted = {**shared, "permutations": permutations}
    members = None
    chosen = [groups] if isinstance(groups, str) else list(groups)
    if chosen:
        column, members = parse_groups(chosen)
        if by is not None and by != column:
            raise UserError(f"by is {by!r} and the groups are of {column!r}: leave one out")
        by = column
    if b is not None:
        if by is not None or class_name is not None:
            raise UserError("two selections are compared as they are: leave out class, by, groups")
        if not isinstance(a, Selection) or not isinstance(b, Selection):
            raise UserError("compare two selections, or one store with class_name= or by=")
        return _compare_selections(a, b, shared, permuted)
    if by is None:
        if class_name is None:
            raise UserError(
                "what is to be compared? Name a class (class_name=, --class), or groups "
                "(by=, --by camera; groups=, --group subject:1,3)"
            )
        return compare_class(a, class_name, with_class=with_class, **permuted)
    if with_class is not None:
        raise UserError(
            "two classes are compared, or groups within one class: leave out with_class (--with) "
            f"or by={by!r}"
        )
    if check_by(by) == "run":
        return compare_runs(*_two_runs(a, class_name, members), **shared)
    selection = a if isinstance(a, Selection) else a.select(class_name=class_name)
    if isinstance(a, Selection) and class_name is not None:
        selection = a.select(class_name=class_name)
    _refuse_empty(selection)
    return compare_groups(selection, by, groups=members, **permuted)


def check_alignment(align: str) -> None:
    """Refuse an alignment that there is not.

    Raises
    ------
    UserError
        It is none of `tssan_viz.comparison.alignment.ALIGNMENTS`.
    """
    if align not in ALIGNMENTS:
        raise UserError(f"align is {align!r}: choose one of {', '.join(ALIGNMENTS)}")


def _refuse_empty(selection: Selection) -> None:
    if not len(selection):
        raise UserError(f"there is nothing to compare: {selection.empty_because}")


def _two_runs(
    source: AttentionStore | Selection,
    class_name: str | int | None,
    members: list[list[str]] | None,
) -> tuple[Selection, Selection]:
    """Return the rows of the two runs that are meant."""
    store = source.store if isinstance(source, Selection) else source
    names = store.run_names()
    if members is not None:
        chosen = [name for group in members for name in group]
        for name in chosen:
            store.checked_run(name)
        if len(chosen) == 1:
            chosen += [name for name in names if name not in chosen]
        names = chosen
    if len(store.run_names()) == 1:
        raise UserError(
            f"there is one run only, {names[0]}, and runs are compared two at a time: record "
            "another network into this store, tssan-viz record --run …"
        )
    if len(names) != 2:
        raise UserError(
            f"runs are compared two at a time, and there are {', '.join(names)}: name two, "
            "--group run:… --group run:…"
        )
    first, second = (store.select(run=name, class_name=class_name) for name in names)
    for selection in (first, second):
        _refuse_empty(selection)
    return first, second


def _compare_selections(
    a: Selection, b: Selection, shared: dict[str, Any], permuted: dict[str, Any]
) -> Comparison:
    """Compare two selections by what sets them apart."""
    for selection in (a, b):
        _refuse_empty(selection)
    if a.run != b.run or a.store.url != b.store.url:
        return compare_runs(a, b, **shared)
    rows_a, rows_b = a.rows(), b.rows()
    both = rows_a["row_id"].isin(rows_b["row_id"]).sum()
    if both:
        raise UserError(f"the selections share {both} rows: what is in both belongs to neither")
    if not set(rows_a["split"].dropna()) & set(rows_b["split"].dropna()) and (
        rows_a["split"].notna().any() and rows_b["split"].notna().any()
    ):
        raise UserError(
            "one selection is of training subjects and the other of test subjects, which are "
            "never pooled: select the same split of both"
        )
    apart = [
        name
        for name in _COLUMNS
        if rows_a[name].notna().all()
        and rows_b[name].notna().all()
        and not set(rows_a[name]) & set(rows_b[name])
    ]
    if "label" in apart and "predicted" in apart:
        # A network that is right says the same of both.
        apart.remove("predicted")
    if len(apart) > 1:
        named = ["class" if name == "label" else name for name in apart]
        raise UserError(
            f"the selections differ by {' and '.join(named)} at once, and nobody could tell which "
            "of them a difference comes from: let them differ by one"
        )
    together = a | b
    if apart == ["label"]:
        labels = [sorted(set(rows["label"])) for rows in (rows_a, rows_b)]
        if len(labels[0]) == 1:
            other = int(labels[1][0]) if len(labels[1]) == 1 else None
            return compare_class(together, int(labels[0][0]), with_class=other, **permuted)
        if len(labels[1]) == 1:
            return compare_class(together, int(labels[1][0]), **permuted)
        raise UserError(
            f"one selection has {len(labels[0])} classes and the other {len(labels[1])} others: "
            "one of them is to be a single class"
        )
    if apart in (["subject"], ["camera"], ["step"]):
        column = apart[0]
        members = [[str(v) for v in sorted(set(rows[column]))] for rows in (rows_a, rows_b)]
        return compare_groups(together, column, groups=members, **permuted)
    if apart == ["correct"]:
        members = [[str(bool(rows["correct"].iloc[0])).lower()] for rows in (rows_a, rows_b)]
        return compare_groups(together, "correct", groups=members, **permuted)
    if apart == ["predicted"]:
        members = [[str(v) for v in sorted(set(rows["predicted"]))] for rows in (rows_a, rows_b)]
        return compare_groups(together, "predicted", groups=members, **permuted)
    return compare_groups(together, "condition", condition=(a, b), **permuted)
