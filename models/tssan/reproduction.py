"""A table of the paper, run row by row, with its numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tssan.errors import DataError, LostLoss
from tssan.recipe import Recipe, load_recipe, override
from tssan.run_folder import RESULTS, RESUME, differences
from tssan.tables import PaperRow, PaperTable, paper_tables

if TYPE_CHECKING:
    from tssan.dataset import SkeletonDataset


@dataclass(frozen=True)
class Planned:
    """One run that a table needs.

    Attributes
    ----------
    rows
        The rows that it stands for.
    recipe
        As it will be run.
    seed
        Of the run.
    path
        Its folder.
    """

    rows: tuple[PaperRow, ...]
    recipe: Recipe
    seed: int
    path: Path


def find_table(name: str) -> PaperTable:
    """Return a table of the paper by its name, ``table3`` or ``3``.

    Raises
    ------
    DataError
        There is no such table; names the nearest.
    """
    tables = paper_tables()
    wanted = f"table{name}" if name.isdigit() else name.lower()
    if wanted not in tables:
        near = get_close_matches(wanted, tables, n=1)
        raise DataError(
            f"the paper has no {name!r}; there are {', '.join(tables)}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return tables[wanted]


def find_rows(table: PaperTable, names: Sequence[str]) -> tuple[PaperRow, ...]:
    """Return rows of a table, in its order, by what the paper calls them or by their recipes.

    Raises
    ------
    DataError
        There is no such row; names the nearest.
    """
    if not names:
        return table.rows
    known = {name.lower(): row for row in table.rows for name in (row.recipe, row.name, row.row)}
    for name in names:
        if name.lower() not in known:
            near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
            raise DataError(
                f"{table.name} has no row {name!r}; it has {', '.join(r.row for r in table.rows)}"
                + (f"; did you mean {known[near[0]].row}?" if near else "")
            )
    chosen = {known[name.lower()].row for name in names}
    return tuple(row for row in table.rows if row.row in chosen)


def plan(
    rows: Sequence[PaperRow],
    protocol: str,
    out: Path,
    *,
    seeds: Sequence[int],
    settings: Sequence[str] = (),
) -> list[Planned]:
    """Return the runs that rows need, each once, seed by seed.

    Parameters
    ----------
    rows
        Of one table; rows that are the same run under other names share it.
    protocol
        Which division into training and test part.
    out
        The folder above the runs' folders.
    seeds
        One run each.
    settings
        As in `tssan.recipe.override`, for every row.
    """
    runs = []
    for name in dict.fromkeys(row.recipe for row in rows):
        recipe = replace(override(load_recipe(name), settings), protocol=protocol)
        sharing = tuple(row for row in rows if row.recipe == name)
        runs += [
            Planned(sharing, recipe, seed, out / f"{name}-{protocol}-seed{seed}") for seed in seeds
        ]
    return runs


def run_planned(
    planned: Planned,
    dataset: SkeletonDataset,
    *,
    progress: bool = True,
    devices: int = 1,
    precision: str = "32",
    command: str | None = None,
) -> dict[str, Any]:
    """Train one run of a table, or go on with it, or take it as it is if it is finished.

    Returns
    -------
    dict
        What the run's results.json holds.

    Raises
    ------
    DataError
        The folder holds a run with other settings, of other data or in another precision.
    """
    from tssan.training import train

    path = planned.path
    if (path / RESULTS).is_file():
        results: dict[str, Any] = json.loads((path / RESULTS).read_text(encoding="utf-8"))
        _refuse_other(planned, dataset, results, precision)
        return results
    return train(
        planned.recipe,
        dataset,
        path,
        seed=planned.seed,
        progress=progress,
        resume=(path / RESUME).exists(),
        devices=devices,
        precision=precision,
        command=command,
    ).results


def _refuse_other(
    planned: Planned, dataset: SkeletonDataset, results: dict[str, Any], precision: str
) -> None:
    found = load_recipe(planned.path / "recipe.yaml").to_dict()
    other = differences(found, planned.recipe.to_dict())
    if other is None and results.get("fingerprint") != dataset.fingerprint:
        other = "its data are not the ones given"
    if other is None and results.get("precision") != precision:
        other = f"precision {results.get('precision')} there, {precision} now"
    if other is not None:
        raise DataError(
            f"{planned.path} holds a finished run with another recipe, data or precision: {other}; "
            "give another --out, or remove that folder"
        )


def reproduce(
    rows: Sequence[PaperRow],
    runs: Sequence[Planned],
    run: Callable[[Planned], dict[str, Any]],
) -> pd.DataFrame:
    """Do the runs one after another and lay what they reach beside what the paper reports.

    Parameters
    ----------
    rows
        Of one table.
    runs
        As `plan` returns them.
    run
        Does one of them and returns its results, such as `run_planned`.

    Returns
    -------
    DataFrame
        One line per row: row, recipe, measure (top-1 or top-5), paper, ours (mean over seeds),
        spread (standard deviation over seeds; NaN of one), difference, in per cent; seeds, failed
        (seeds whose loss was lost), selection, minutes (of training, per seed).
    """
    reached: dict[str, list[dict[str, Any]]] = {row.recipe: [] for row in rows}
    lost: dict[str, list[int]] = {row.recipe: [] for row in rows}
    for planned in runs:
        recipe = planned.rows[0].recipe
        try:
            reached[recipe].append(run(planned))
        except LostLoss:
            lost[recipe].append(planned.seed)
    lines = []
    for row in rows:
        results = reached[row.recipe]
        protocol = runs[0].recipe.protocol or ""
        for measure, theirs, key in (
            ("top-1", row.top1, "test_accuracy"),
            ("top-5", row.top5, "test_top5"),
        ):
            if measure == "top-5" and not theirs:
                continue
            ours = np.array([100 * one[key] for one in results if one[key] is not None])
            paper = theirs.get(protocol, np.nan)
            mean = ours.mean() if len(ours) else np.nan
            lines.append(
                {
                    "row": row.row,
                    "recipe": row.name,
                    "measure": measure,
                    "paper": paper,
                    "ours": mean,
                    "spread": ours.std(ddof=1) if len(ours) > 1 else np.nan,
                    "difference": mean - paper,
                    "seeds": len(ours),
                    "failed": ",".join(map(str, lost[row.recipe])),
                    "selection": results[0]["selection"] if results else "",
                    "minutes": np.mean([one["seconds"] for one in results]) / 60
                    if results
                    else np.nan,
                }
            )
    return pd.DataFrame(lines)
