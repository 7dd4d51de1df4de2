"""What a comparison is grouped by: the group of each row, and what may be exchanged between them.

The exchange follows from what the groups are, and nobody chooses it:

* camera, correct, duration, a condition: the groups of a subject, in all its classes at once, over
  what is in several of them;
* predicted: the same, among the groups that a subject has in the same classes;
* step: both labels of a subject, within one run;
* groups of subjects: whole subjects;
* single subjects: nothing; they are described.

`tssan_viz.comparison.group_exchange` says why.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.group_exchange import Exchange
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

BY = ("subject", "camera", "correct", "predicted", "step", "duration", "run")

TERCILES = ("short", "middle", "long")

_EXCHANGE: dict[str, Exchange] = {
    "camera": "within",
    "correct": "within",
    "predicted": "alike",
    "duration": "within",
    "condition": "within",
    "subject": "subjects",
    "step": "within",
}

_SINGLE = (
    "single subjects are described and not tested: nothing can be exchanged between two people, "
    "and what differs between two differs between any two; name groups of at least two subjects, "
    "for instance --group subject:1,3"
)


@dataclass(frozen=True, eq=False)
class Grouping:
    """The group of each row of a selection.

    Attributes
    ----------
    by : str
        One of `BY`, or "condition".
    names : tuple of str
        What the groups are called.
    group : (n,) int
        The group of each row, from 0; −1 where it is in none.
    exchange : "within", "alike", "subjects" or None
        What the test exchanges.
    reason : str or None
        Why nothing is exchanged.
    notes : list of str
        What was decided without being asked.
    """

    by: str
    names: tuple[str, ...]
    group: NDArray[np.intp]
    exchange: Exchange | None
    reason: str | None
    notes: list[str]


def parse_groups(texts: Sequence[str]) -> tuple[str, list[list[str]]]:
    """Read groups as the command line has them, ``subject:1,3``: of what, and the values of each.

    Raises
    ------
    UserError
        A group is written otherwise, is of something else, or two are of different things.
    """
    columns, groups = [], []
    for text in texts:
        column, colon, values = text.partition(":")
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if not colon or not chosen:
            raise UserError(f"a group is written like subject:1,3 or camera:2; this is {text!r}")
        columns.append(check_by(column.strip()))
        groups.append(chosen)
    if len(set(columns)) > 1:
        raise UserError(
            f"groups are of one thing: these are of {' and '.join(dict.fromkeys(columns))}; "
            "what is to be the same for all goes into --subjects or --where"
        )
    return columns[0], groups


def check_by(by: str) -> str:
    """Return what is grouped by, or refuse it.

    Raises
    ------
    UserError
        It is none of `BY`; the nearest is named.
    """
    if by not in BY:
        near = difflib.get_close_matches(by, BY, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"cannot group by {by!r}: {hint}choose one of {', '.join(BY)}")
    return by


def group_rows(
    selection: Selection, by: str, groups: Sequence[Sequence[str]] | None = None
) -> Grouping:
    """Find the group of each row.

    Parameters
    ----------
    selection
        Its rows have a subject and a class; of step they have several, where `by` is "step".
    by
        One of `BY` but "run".
    groups
        The values of each group; one group is compared with all others. By default every value is
        a group; of steps the first and the last; durations are terciles within each class.

    Raises
    ------
    UserError
        The rows lack the column, a value does not occur or occurs twice, or there is one group.
    """
    rows = selection.rows()
    notes: list[str] = []
    values = _values(selection, rows, by, notes)
    there = sorted(set(values[~pd.isna(values)]), key=_order)
    if groups is None:
        names, members = _default_groups(selection, by, there, notes)
    else:
        names, members = _named_groups(selection, by, groups, there)
    if len(members) < 2 and by == "correct":
        raise UserError(
            f"the network is {_say(selection, by, there[0])} on all these videos: there is "
            "nothing to compare right with wrong"
        )
    if by == "predicted" and (rows["predicted"] == rows["label"]).all():
        raise UserError(
            "the network is right on all these videos: those of one class are all taken for it, "
            "and there is nothing to compare them with"
        )
    if len(members) < 2 and by == "duration":
        raise UserError(
            "in each class all videos are equally long: there are no short and long ones to compare"
        )
    if len(members) < 2 and by == "step":
        raise UserError(
            f"all rows are of step {there[0]}, and two are compared: record while the network is "
            "trained, tssan-viz train … --record STORE --probe 64"
        )
    if len(members) < 2:
        raise UserError(
            f"there is only one group: all rows have {by} {_say(selection, by, there[0])}; "
            "a comparison needs two"
        )
    group = np.full(len(rows), -1, np.intp)
    for number, chosen in enumerate(members):
        group[np.isin(values.astype(object), np.array(chosen, object))] = number
    left = int(rows.loc[group < 0, "sample"].nunique())
    if left and groups is None and by != "step":
        notes.append(f"left out: {counted(left, 'video')} without {by}")
    exchange: Exchange | None = _EXCHANGE[by]
    reason = None
    if by == "subject" and any(len(chosen) == 1 for chosen in members):
        exchange, reason = None, _SINGLE
    if by == "step" and len(members) > 2:
        exchange, reason = None, "signs are flipped between two steps; name two, --group step:…"
    return Grouping(by, names, group, exchange, reason, notes)


def group_by_condition(
    rows: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64]
) -> Grouping:
    """Make two groups of rows given by their numbers."""
    group = np.full(len(rows), -1, np.intp)
    numbers = rows["row_id"].to_numpy(np.int64)
    group[np.isin(numbers, first)] = 0
    group[np.isin(numbers, second)] = 1
    return Grouping("condition", ("first", "second"), group, "within", None, [])


def _values(
    selection: Selection, rows: pd.DataFrame, by: str, notes: list[str]
) -> NDArray[np.object_]:
    """Return what rows are grouped by; None where that is not known."""
    if by == "duration":
        return _terciles(selection, rows, notes)
    column = rows[by].astype(object)
    values = column.where(column.notna(), None).to_numpy(object)
    if not rows[by].notna().any():
        advice = {
            "correct": "record what the network predicted: recorder.samples(predicted=…)",
            "predicted": "record what the network predicted: recorder.samples(predicted=…)",
        }.get(by, f"record it with recorder.samples({by}=…)")
        raise UserError(f"the rows have no {by}; {advice}")
    return values


def _terciles(selection: Selection, rows: pd.DataFrame, notes: list[str]) -> NDArray[np.object_]:
    """Call each video short, middle or long for its class, by thirds of the class's durations."""
    names = list(dict.fromkeys(rows["sample"]))
    seconds, frames = {}, {}
    for stored in selection.store.stored_samples(selection.run, names):
        if stored.frames.size:
            frames[stored.sample] = float(np.nanmax(stored.frames) - np.nanmin(stored.frames))
        if stored.seconds is not None and stored.seconds.size:
            seconds[stored.sample] = float(np.nanmax(stored.seconds) - np.nanmin(stored.seconds))
    known = seconds if len(seconds) == len(frames) else frames
    if not known:
        raise UserError(
            "the run knows no frames of its videos, so their durations are not known: "
            "record with recorder.samples(frames=…)"
        )
    unit = "seconds" if known is seconds else "frames"
    notes.append(
        f"durations ({unit} of the source) are in thirds within each class, so that a long class "
        "is not taken for a slow one"
    )
    videos = rows.drop_duplicates("sample").set_index("sample")
    length = pd.Series(known).reindex(videos.index)
    third: dict[str, str | None] = dict.fromkeys(names)
    for _, mine in length.dropna().groupby(videos["label"]):
        limits = mine.quantile([1 / 3, 2 / 3]).to_numpy()
        for name, place in zip(
            mine.index, np.searchsorted(limits, mine.to_numpy(), "left"), strict=True
        ):
            third[name] = TERCILES[place]
    return rows["sample"].map(third).to_numpy(object)


def _default_groups(
    selection: Selection, by: str, there: list[Any], notes: list[str]
) -> tuple[tuple[str, ...], list[list[Any]]]:
    if by == "step" and len(there) > 2:
        notes.append(
            f"steps {there[0]} and {there[-1]} are compared, the first and the last of "
            f"{len(there)}; --group step:… names others"
        )
        there = [there[0], there[-1]]
    return tuple(_name(selection, by, value) for value in there), [[value] for value in there]


def _named_groups(
    selection: Selection, by: str, groups: Sequence[Sequence[str]], there: list[Any]
) -> tuple[tuple[str, ...], list[list[Any]]]:
    members = [[_value(selection, by, text, there) for text in group] for group in groups]
    taken: set[Any] = set()
    for chosen in members:
        for value in chosen:
            if value in taken:
                raise UserError(f"{by} {_say(selection, by, value)} is in two groups, or twice")
            taken.add(value)
    names = [
        f"{by} {', '.join(_say(selection, by, value) for value in chosen)}" for chosen in members
    ]
    if len(members) == 1:
        rest = [value for value in there if value not in taken]
        if not rest:
            raise UserError(f"{names[0]} is all there is: no other {by} to compare with")
        members.append(rest)
        names.append(
            f"{by} {_say(selection, by, rest[0])}"
            if len(rest) == 1
            else f"the other {by}s"
            if by != "correct"
            else "the others"
        )
    return tuple(names), members


def _value(selection: Selection, by: str, text: str, there: list[Any]) -> Any:
    """Turn a value as it was typed into one that occurs."""
    value: Any = text
    if by == "predicted":
        value = selection.catalogue.resolve(text).label
    elif by == "correct":
        words: Mapping[str, bool] = {
            **dict.fromkeys(("true", "yes", "right", "1"), True),
            **dict.fromkeys(("false", "no", "wrong", "0"), False),
        }
        if text.lower() not in words:
            raise UserError(f"correct is true or false, not {text!r}")
        value = words[text.lower()]
    elif by in ("subject", "camera", "step"):
        if not text.lstrip("-").isdecimal():
            raise UserError(f"{by} is a number, not {text!r}")
        value = int(text)
    if value not in there:
        known = ", ".join(_say(selection, by, one) for one in there[:12])
        more = f" and {len(there) - 12} more" if len(there) > 12 else ""
        raise UserError(f"no video has {by} {text}; there is {known}{more}")
    return value


def _say(selection: Selection, by: str, value: Any) -> str:
    if by == "predicted":
        return str(selection.catalogue.name_of(int(value)))
    if by == "correct":
        return "right" if value else "wrong"
    return str(value)


def _name(selection: Selection, by: str, value: Any) -> str:
    said = _say(selection, by, value)
    return said if by in ("correct", "duration") else f"{by} {said}"


def _order(value: Any) -> Any:
    return TERCILES.index(value) if value in TERCILES else value
