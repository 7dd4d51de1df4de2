"""Which videos a search, the filters of a grid's columns and its order find, and in what order."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from tssan_viz.store import Catalogue

_TEXT = ("sample", "class_name", "predicted_name", "correct")
_NUMBERS = ("subject", "camera", "confidence")


@dataclass(frozen=True)
class Question:
    """What is asked of the videos of a run.

    Attributes
    ----------
    find
        Words, all of which have to be in a video's name or its class's name, code or aliases.
    confused
        Only videos that were taken for another class.
    filter
        AG Grid's filter model: a condition, or two joined, by column.
    sort
        AG Grid's sort model: ``{"colId": ..., "sort": "asc" | "desc"}``, the most important first.
    """

    find: str = ""
    confused: bool = False
    filter: dict[str, Any] = field(default_factory=dict)
    sort: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Question:
        """Return the question that a browser or an address gives, without what is none."""
        words = given.get("find")
        conditions = given.get("filter")
        order = given.get("sort")
        return cls(
            words[:200] if isinstance(words, str) else "",
            given.get("confused") is True,
            {
                column: model
                for column, model in conditions.items()
                if column in (*_TEXT, *_NUMBERS) and isinstance(model, dict)
            }
            if isinstance(conditions, dict)
            else {},
            [
                {"colId": part["colId"], "sort": part["sort"]}
                for part in order
                if isinstance(part, dict)
                and part.get("colId") in (*_TEXT, *_NUMBERS)
                and part.get("sort") in ("asc", "desc")
            ]
            if isinstance(order, list)
            else [],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the question as JSON has it."""
        return {
            "find": self.find,
            "confused": self.confused,
            "filter": self.filter,
            "sort": self.sort,
        }

    def in_address(self) -> dict[str, str]:
        """Return the parameters by which an address asks it; none for all videos."""
        kept = {}
        if self.find:
            kept["find"] = self.find
        if self.confused:
            kept["confused"] = "1"
        if self.filter:
            kept["filter"] = json.dumps(self.filter, separators=(",", ":"))
        if self.sort:
            kept["sort"] = json.dumps(self.sort, separators=(",", ":"))
        return kept


def find(samples: pd.DataFrame, catalogue: Catalogue, question: Question) -> pd.DataFrame:
    """Return the videos that a question finds, in its order.

    Parameters
    ----------
    samples
        One line per video.
    catalogue
        Knows the codes and aliases of the classes.
    question
        What is asked. A condition that cannot be understood narrows nothing.
    """
    found = samples
    if question.confused:
        found = found[found["correct"].eq(False).fillna(False).astype(bool)]
    words = _folded(question.find).split()
    if words:
        of_class = {
            c.label: _folded(" ".join([c.name, c.code or "", *c.aliases]))
            for c in catalogue.classes
        }
        text = pd.Series(
            [
                f"{_folded(sample)} {'' if pd.isna(label) else of_class.get(int(label), '')}"
                for sample, label in zip(found["sample"], found["label"], strict=True)
            ],
            index=found.index,
            dtype=object,
        )
        for word in words:
            found = found[text.loc[found.index].str.contains(word, regex=False).astype(bool)]
    for column, model in question.filter.items():
        found = found[_fits(_values(found, column), model, number=column in _NUMBERS)]
    if question.sort:
        keys = pd.DataFrame(
            {str(i): _values(found, part["colId"]) for i, part in enumerate(question.sort)},
            index=found.index,
        )
        ordered = keys.sort_values(
            list(keys.columns),
            ascending=[part["sort"] == "asc" for part in question.sort],
            kind="stable",
        )
        found = found.loc[ordered.index]
    return found


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _values(samples: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as the grid shows it: floats with NaN, or text with None."""
    values = samples[column]
    if column in _NUMBERS:
        return values.astype("Float64").astype(float)
    if column == "correct":
        return values.astype(object).map({True: "yes", False: "no"})
    return values.astype(object).where(values.notna(), None)


def _fits(values: pd.Series, model: Mapping[str, Any], *, number: bool) -> pd.Series:
    """Tell for each value whether it fits one column's filter."""
    conditions = model.get("conditions")
    if isinstance(conditions, list):
        fits = [
            _fits(values, one, number=number)
            for one in conditions[:2]
            if isinstance(one, dict) and "conditions" not in one
        ]
        if not fits:
            return pd.Series(True, index=values.index)
        if len(fits) == 1:
            return fits[0]
        return fits[0] | fits[1] if model.get("operator") == "OR" else fits[0] & fits[1]
    kind, wanted = model.get("type"), model.get("filter")
    everything = pd.Series(True, index=values.index)
    if kind in ("blank", "notBlank"):
        missing = values.isna()
        return missing if kind == "blank" else ~missing
    if number:
        return _number_fits(values, kind, wanted, model.get("filterTo"), everything)
    if not isinstance(wanted, str):
        return everything
    text = values.map(lambda value: _folded(value) if isinstance(value, str) else "")
    wanted = _folded(wanted)
    match kind:
        case "contains":
            return text.map(lambda value: wanted in value).astype(bool)
        case "notContains":
            return ~text.map(lambda value: wanted in value).astype(bool)
        case "equals":
            return text.eq(wanted)
        case "notEqual":
            return text.ne(wanted)
        case "startsWith":
            return text.map(lambda value: value.startswith(wanted)).astype(bool)
        case "endsWith":
            return text.map(lambda value: value.endswith(wanted)).astype(bool)
    return everything


def _number_fits(
    values: pd.Series, kind: Any, wanted: Any, upto: Any, everything: pd.Series
) -> pd.Series:
    if not isinstance(wanted, (int, float)):
        return everything
    match kind:
        case "equals":
            return values.eq(wanted)
        case "notEqual":
            return values.ne(wanted)
        case "greaterThan":
            return values.gt(wanted)
        case "greaterThanOrEqual":
            return values.ge(wanted)
        case "lessThan":
            return values.lt(wanted)
        case "lessThanOrEqual":
            return values.le(wanted)
        case "inRange" if isinstance(upto, (int, float)):
            return values.gt(wanted) & values.lt(upto)
    return everything
