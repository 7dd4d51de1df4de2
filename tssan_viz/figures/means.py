"""Mean maps of what is asked about, each subject weighing the same, and the words that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.figures.data import considered
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore


@dataclass(frozen=True, eq=False)
class Asked:
    """The rows that a figure is about, and what was decided without being asked."""

    rows: Selection
    what: str
    notes: tuple[str, ...]

    def said(self) -> str:
        """Return of how many videos and subjects, run and seed, as a caption has to."""
        return f"{counted(self.rows)}; {provenance(self.rows)}"


@dataclass(frozen=True, eq=False)
class MeanMap:
    """One map: the mean over subjects of each subject's mean over videos."""

    layer: int
    head: int
    map: NDArray[np.float32]


def ask(
    source: AttentionStore | Selection,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    every_step: bool = False,
) -> Asked:
    """Choose the rows of a figure: of a store the test videos, without copies, of the newest step.

    Raises
    ------
    UserError
        Nothing fits, or a class, subject or run does not exist; the message says what there is.
    """
    chosen, notes = considered(source, run, subject)
    what = "all classes"
    if class_name is not None:
        names = [class_name] if isinstance(class_name, str | int | np.integer) else list(class_name)
        entries = list(dict.fromkeys(chosen.catalogue.resolve(name) for name in names))
        chosen = chosen.select(class_name=[entry.label for entry in entries])
        what = ", ".join(map(str, entries))
    chosen = chosen.select(person=person)
    if not len(chosen):
        raise UserError(f"there is nothing to draw: {chosen.empty_because}")
    copies = chosen.store.duplicates(chosen.run)
    there = set(chosen.samples()["sample"])
    if there & set(copies):
        kept = sorted(there - set(copies))
        if not kept:
            raise UserError("every video asked for is a copy of another")
        notes.append(f"{len(there) - len(kept)} copies of other videos are left out")
        chosen = chosen.select(sample=kept)
    steps = sorted(chosen.rows()["step"].dropna().unique().tolist())
    kept_notes = [*chosen.notes_of_one_step(), *notes]
    if len(steps) > 1 and not every_step:
        chosen = chosen.select(step=int(steps[-1]))
        kept_notes.append(f"of {len(steps)} steps the newest, {int(steps[-1])}, is drawn")
    return Asked(chosen, what, tuple(dict.fromkeys(kept_notes)))


def mean_maps(rows: Selection) -> list[MeanMap]:
    """Return the mean map of every layer and head, each subject weighing the same."""
    found = []
    for number in rows.layers:
        part = rows.select(
            layer=number, head=[h for h in rows.heads if h <= heads_of(rows, number)]
        )
        maps = over_subjects(part)
        for head, values in zip(part.heads, maps, strict=True):
            found.append(MeanMap(number, head, values))
    return found


def over_subjects(part: Selection) -> NDArray[np.float32]:
    """Return the mean maps (h, q, s) of a selection of one layer."""
    by_subject = bool(part.rows()["subject"].notna().any())
    values = part.mean("subject" if by_subject else ()).values[..., 0, :, :, :]
    return np.nanmean(values, axis=0) if by_subject else values


def heads_of(rows: Selection, layer: int) -> int:
    """Return how many heads a layer has."""
    sites = rows.store.sites(rows.run)
    sites = sites[(sites["stream"] == rows.stream) & (sites["layer"] == layer)]
    return int(sites["heads"].iloc[0])


def map_table(maps: Sequence[MeanMap], rows: Selection, **columns: object) -> pd.DataFrame:
    """Return one line per map, query and key: run, further columns, layer, head and weight."""
    tables = []
    for one in maps:
        q, s = (index.ravel() for index in np.indices(one.map.shape))
        tables.append(
            pd.DataFrame(
                {
                    "run": rows.run,
                    **columns,
                    "layer": one.layer,
                    "head": one.head,
                    "query": q,
                    "key": s,
                    "weight": one.map.ravel(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def counted(rows: Selection) -> str:
    """Return of how many videos and subjects the rows are."""
    samples = rows.samples()
    subjects = samples["subject"].nunique()
    videos = f"{len(samples)} video{'s' * (len(samples) != 1)}"
    if not subjects:
        return f"n = {videos}, subjects not recorded"
    splits = ", ".join(sorted(samples["split"].dropna().unique()))
    of = f" ({splits})" if splits else ""
    return f"n = {videos} of {subjects} subject{'s' * (subjects != 1)}{of}"


def provenance(rows: Selection) -> str:
    """Return which run, and with which seed it was trained or recorded."""
    seed = rows.store.info(rows.run).get("seed")
    return f"run {rows.run}" + (f", seed {seed}" if seed is not None else "")


def named_heads(heads: Sequence[int], rows: Selection, layer: int) -> str:
    """Return which heads of a layer are meant, "all 8 heads" where none was left out."""
    sites = rows.store.sites(rows.run)
    of_layer = sites[(sites["stream"] == rows.stream) & (sites["layer"] == layer)]
    there = {number for numbers in of_layer["numbers"] for number in numbers}
    if len(heads) > 1 and set(heads) == there:
        return f"all {len(heads)} heads"
    return f"head{'s' * (len(heads) > 1)} {', '.join(map(str, heads))}"
