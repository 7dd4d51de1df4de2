"""Which rows, layers and subjects a comparison is about, and what is said of those left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tssan_viz.comparison.cells import Layout
from tssan_viz.comparison.statistics import MIN_SUBJECTS_FOR_INTERVAL, Design
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError
from tssan_viz.selection import Selection

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore, ClassEntry

NO_TEST_WITHIN_SUBJECTS = "no subject has two classes, so that nothing can be exchanged"


def resolve(
    source: AttentionStore | Selection, class_name: str | int, with_class: str | int | None
) -> tuple[Selection, ClassEntry, ClassEntry | None]:
    """Return the selection that is asked about, the class, and the one that it is compared with.

    Raises
    ------
    UnknownClass, UserError
        No class goes by a name, both are the same, or there are no rows.
    """
    if isinstance(source, Selection):
        selection = source
    else:
        # The newest run in which the class occurs, with all that it is compared with.
        fitting = source.select(class_name=class_name)
        selection = source.select(run=fitting.run)
        selection.notes[:0] = [note for note in fitting.notes if "run" in note]
    entry = selection.catalogue.resolve(class_name)
    other = None if with_class is None else selection.catalogue.resolve(with_class)
    if other == entry:
        raise UserError(f"{entry} cannot be compared with itself: name another class")
    if not len(selection):
        raise UserError(f"there is nothing to compare: {selection.empty_because}")
    return selection, entry, other


def choose_layers(selection: Selection, layer: int | str, head: int | None) -> Selection:
    """Return the selection with one layer, ``"last"`` or ``"all"``, and one head or all (None)."""
    if layer == "last":
        layer = max(selection.layers)
    if not isinstance(layer, int):
        if layer != "all":
            raise UserError(f"layer is {layer!r}: give a number from 1, 'last' or 'all'")
        return selection if head is None else selection.select(head=head)
    return selection.select(layer=layer, head=head)


def choose_rows(
    selection: Selection,
    split: str | None,
    person: int,
    notes: list[str],
    *,
    every_step: bool = False,
) -> tuple[Selection, str | None]:
    """Return the rows that may be compared with each other: one split, phase, step and person.

    With `every_step` rows of several steps stay; they are of the phase that has most of them.
    """
    rows = selection.rows()
    splits = sorted(rows["split"].dropna().unique())
    chosen: str | None = None
    wanted = split or "test"
    if wanted in splits:
        chosen = wanted
    elif split is not None and len(splits) < 2:
        there = f"all are of {splits[0]!r}" if splits else "they name none"
        raise UserError(f"no row is of split {split!r}; {there}")
    elif len(splits) == 1:
        chosen = str(splits[0])
        notes.append(f"no row is of split {wanted!r}; the comparison is of split {chosen!r}")
    elif splits:
        raise UserError(
            f"no row is of split {wanted!r}; there are {', '.join(splits)}, which are never "
            "pooled: choose one with split= or --split"
        )
    else:
        notes.append("the rows name no split: all of them were taken")
    if chosen is not None:
        selection = narrow(selection, split=chosen)
    phases = list(dict.fromkeys(selection.rows()["phase"].dropna()))
    if len(phases) > 1:
        phase = "inference" if "inference" in phases else phases[-1]
        if every_step:
            phase = str(selection.rows().groupby("phase")["step"].nunique().idxmax())
        selection = narrow(selection, phase=phase)
        notes.append(f"rows of phase {phase!r} were taken, of {', '.join(phases)}")
    steps = selection.rows()["step"].dropna().unique()
    if len(steps) > 1 and not every_step:
        selection = narrow(selection, step=int(max(steps)))
        notes.append(f"rows of step {max(steps)} were taken, the newest of {len(steps)}")
    selection = narrow(selection, person=person)
    rows = selection.rows()
    known = rows["subject"].notna() & rows["label"].notna()
    if rows["label"].isna().all():
        raise UserError(
            "the rows name no class, and only maps of like classes are compared: record them with "
            "recorder.samples(label=…, subject=…)"
        )
    if not known.any():
        raise UserError(
            "the rows name no subject, and a comparison counts subjects: record them with "
            "recorder.samples(subject=…)"
        )
    if not known.all():
        unknown = rows.loc[~known, "sample"].nunique()
        notes.append(f"left out: {counted(unknown, 'video')} without a subject or a class")
    originals = selection.store.duplicates(selection.run)
    if known.all() and not originals:
        return selection, chosen
    samples = rows.loc[known, "sample"].unique().tolist()
    here = set(samples)
    copies = [name for name in samples if originals.get(name) in here]
    if copies:
        notes.append(
            f"left out: {counted(len(copies), 'video')} whose file is that of another one here: "
            + ", ".join(copies[:3])
            + (f" and {len(copies) - 3} more" if len(copies) > 3 else "")
        )
    if copies or not known.all():
        gone = set(copies)
        selection = narrow(selection, sample=[name for name in samples if name not in gone])
    return selection, chosen


def narrow(selection: Selection, **conditions: Any) -> Selection:
    """Return the part that fits further conditions; a `UserError` says which left nothing."""
    narrowed = selection.select(**conditions)
    if not len(narrowed):
        raise UserError(f"there is nothing to compare: {narrowed.empty_because}")
    return narrowed


def check_subjects(
    selection: Selection, layout: Layout, entry: ClassEntry, other: ClassEntry | None
) -> None:
    """Refuse what has nothing to compare: fewer than two subjects, or no other class."""
    for wanted in (entry, other):
        if wanted is None:
            continue
        n = int((layout.label == wanted.label).sum())
        if n == 0:
            names = [str(selection.catalogue.name_of(label)) for label in layout.labels]
            raise UserError(
                f"no video of {wanted} is among those to compare; there are "
                + ", ".join(names[:8])
                + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            )
        if n == 1:
            raise UserError(
                f"only one subject has {wanted}: a comparison is across subjects and needs at "
                "least two; record more subjects, or ask for more with --subjects"
            )
    if len(layout.labels) == 1:
        raise UserError(
            f"there are only videos of {entry}: a comparison needs at least one other class"
        )


def say_who_is_missing(
    layout: Layout,
    design: Design,
    n_subjects: int,
    n_exchanged: int,
    entry: ClassEntry,
    other: ClassEntry | None,
    notes: list[str],
) -> None:
    """Note which subjects lack a class, and what there are too few subjects for."""
    if other is None:
        without = len(layout.subjects) - n_subjects
        if without:
            notes.append(f"{counted(without, 'subject')} without {entry}: part of the others only")
    elif n_exchanged < n_subjects:
        notes.append(
            f"{n_subjects - n_exchanged} of {n_subjects} subjects have only one of the two "
            "classes; their labels are not exchanged"
        )
    if design.n_subjects < MIN_SUBJECTS_FOR_INTERVAL:
        notes.append(
            f"no interval: {counted(design.n_subjects, 'subject')} with {entry}; under "
            f"{MIN_SUBJECTS_FOR_INTERVAL} it would be too short, whatever the method"
        )
    if design.n_assignments == 1:
        notes.append(f"no test: {NO_TEST_WITHIN_SUBJECTS}")
