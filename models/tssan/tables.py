"""The paper's tables: which recipe is which row, and what the paper reports for it.

They stand in `recipes/index.yaml`. A row that repeats another row's configuration under a name of
its own is an alias, so that every row can be asked for by name and no run is described twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tssan.yaml_text import parse_yaml

INDEX = Path(__file__).parent / "recipes" / "index.yaml"


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes
    ----------
    row
        As the paper calls it.
    name
        What `tssan.recipe.load_recipe` takes for it: the recipe, or an alias of it.
    recipe
        The recipe that runs it.
    top1, top5
        What the paper reports, in per cent, by protocol; `top5` is empty but for Kinetics.
    """

    row: str
    name: str
    recipe: str
    top1: Mapping[str, float]
    top5: Mapping[str, float]

    @property
    def is_alias(self) -> bool:
        """Whether another row is the same run."""
        return self.name != self.recipe


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes
    ----------
    name
        ``table3``.
    title
        What it compares.
    dataset
        The data set as `tssan-viz prepare` names it.
    rows
        Its rows of SAN and TS-SAN, in order; those of other networks are left out.
    """

    name: str
    title: str
    dataset: str
    rows: tuple[PaperRow, ...]

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that it reports, in order."""
        return tuple(self.rows[0].top1)


@cache
def paper_tables() -> dict[str, PaperTable]:
    """Return tables 1 to 6 of the paper (Cho et al., WACV 2020) by name, ``table1`` and so on."""
    return {
        name: PaperTable(
            name=name,
            title=table["title"],
            dataset=table["dataset"],
            rows=tuple(
                PaperRow(
                    row=row["row"],
                    name=row.get("alias", row["recipe"]),
                    recipe=row["recipe"],
                    top1=row["top1"],
                    top5=row.get("top5", {}),
                )
                for row in table["rows"]
            ),
        )
        for name, table in _index()["tables"].items()
    }


@cache
def recipe_aliases() -> dict[str, str]:
    """Return the other names of shipped recipes, and what each stands for."""
    rows = [row for table in paper_tables().values() for row in table.rows]
    return {row.name: row.recipe for row in rows if row.is_alias} | _index()["aliases"]


def skeletons_of(recipe: str) -> dict[str, int]:
    """Return the joints, coordinates and classes of the data that a shipped recipe is for.

    Parameters
    ----------
    recipe
        Its own name; one that is not known is taken to be for NTU RGB+D 60.
    """
    ntu60 = {"joints": 25, "coordinates": 3, "classes": 60}
    found: dict[str, int] = _index()["skeletons"].get(recipe, ntu60)
    return dict(found)


@cache
def _index() -> dict[str, Any]:
    index = parse_yaml(INDEX.read_text(encoding="utf-8"))
    assert isinstance(index, dict)
    return index
