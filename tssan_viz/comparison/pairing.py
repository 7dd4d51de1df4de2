"""Which rows take part in a comparison of groups: those that something can be exchanged for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.group_exchange import Exchange, in_the_same_classes
from tssan_viz.comparison.groups import Grouping
from tssan_viz.comparison.words import counted
from tssan_viz.errors import UserError


def pair(
    rows: pd.DataFrame, grouping: Grouping, *, named: bool
) -> tuple[NDArray[np.bool_], Grouping]:
    """Choose the rows that take part, and the groups that are left.

    What is exchanged within a subject needs several groups in one of its classes; a subject and
    class with one group only would bring in how subjects and classes differ. What is exchanged
    among groups in the same classes needs more: see
    `tssan_viz.comparison.group_exchange.in_the_same_classes`.

    Parameters
    ----------
    rows
        With `sample`, `subject` and `label`.
    grouping
        The group of each row.
    named
        Whether somebody asked for these groups, so that none may be dropped.

    Returns
    -------
    taking_part : (n,) bool
    grouping
        With the groups that are left, `group` of all rows, and what was left out in its notes;
        without an exchange, and with the reason, where nothing can be exchanged.

    Raises
    ------
    UserError
        There is one subject, or a group without a video or with one only.
    """
    there = grouping.group >= 0
    if grouping.exchange not in ("within", "alike"):
        _refuse_small(rows[there], grouping.group[there], grouping)
        return there, grouping
    group, notes = grouping.group.copy(), list(grouping.notes)
    n_groups = len(grouping.names)
    while True:
        chosen, tangled = _several_groups(rows, group, grouping)
        videos = _videos(rows[chosen], group[chosen], n_groups)
        if named or (videos > 1).sum() < 2 or not (videos == 1).any():
            break
        group[np.isin(group, np.flatnonzero(videos == 1))] = -1
    shared = rows[chosen].groupby(["label", group[chosen]])["subject"].nunique()
    exchange: Exchange | None = grouping.exchange
    reason = None
    if shared.empty or shared.max() < 2:
        exchange, reason = None, _untestable(grouping)
        chosen, group = there.copy(), grouping.group
        videos = _videos(rows[chosen], group[chosen], n_groups)
        if not named and (videos > 1).sum() > 1:
            chosen &= ~np.isin(group, np.flatnonzero(videos == 1))
    else:
        notes += _left_out(rows, there, chosen, tangled, grouping)
    if not named and n_groups > 2:
        grouping, group = _without_small(grouping, group, videos, notes)
    _refuse_small(rows[chosen], group[chosen], grouping)
    return chosen, replace(grouping, group=group, exchange=exchange, reason=reason, notes=notes)


def _untestable(grouping: Grouping) -> str:
    more = ", …" if len(grouping.names) > 4 else ""
    return (
        f"no two subjects have several of the groups ({', '.join(grouping.names[:4])}{more}) in "
        "one class, so that groups cannot be told from subjects and classes"
    )


def _left_out(
    rows: pd.DataFrame,
    there: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    tangled: NDArray[np.bool_],
    grouping: Grouping,
) -> list[str]:
    """Say how many videos take no part, and why."""
    left = set(rows.loc[there & ~chosen, "sample"]) - set(rows.loc[chosen, "sample"])
    elsewhere = left & set(rows.loc[tangled, "sample"])
    notes = []
    if left - elsewhere:
        unit = "subject" if grouping.by == "step" else "subject and class"
        notes.append(
            f"left out: {counted(len(left - elsewhere), 'video')} whose {unit} is in one of the "
            "groups only"
        )
    if elsewhere:
        notes.append(
            f"left out: {counted(len(elsewhere), 'video')} of predictions that a person has in "
            "other classes than those they could be exchanged with"
        )
    return notes


def _several_groups(
    rows: pd.DataFrame, group: NDArray[np.intp], grouping: Grouping
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the rows that are exchanged, and those that are not for other classes' sake."""
    there = group >= 0
    keys = ["subject"] if grouping.by == "step" else ["subject", "label"]
    part = rows[there].assign(group=group[there])
    several = there.copy()
    several[there] = (part.groupby(keys)["group"].transform("nunique") > 1).to_numpy(bool)
    if grouping.exchange != "alike" or not several.any():
        return several, np.zeros_like(several)
    chosen = several.copy()
    part = rows[several]
    chosen[several] = in_the_same_classes(
        part["subject"].to_numpy(int), part["label"].to_numpy(int), group[several]
    )
    return chosen, several & ~chosen


def _videos(rows: pd.DataFrame, group: NDArray[np.intp], n_groups: int) -> NDArray[np.intp]:
    """Count the videos of each group."""
    found = rows["sample"].groupby(group).nunique()
    return np.asarray(found.reindex(range(n_groups), fill_value=0), np.intp)


def _without_small(
    grouping: Grouping, group: NDArray[np.intp], videos: NDArray[np.intp], notes: list[str]
) -> tuple[Grouping, NDArray[np.intp]]:
    """Drop the groups that nobody asked for and that have no two videos."""
    kept = np.flatnonzero(videos > 1)
    if len(kept) == len(videos):
        return grouping, group
    if len(kept) < 2:
        only = f"only {grouping.names[kept[0]]!r} has" if len(kept) else "no group has"
        raise UserError(
            f"{only} two videos that could be compared, and a comparison needs two such groups: "
            "filter less, or compare something else"
        )
    gone = [name for name, n in zip(grouping.names, videos, strict=True) if n < 2]
    notes.append(
        f"left out: {counted(len(gone), 'group')} without two videos that could be compared: "
        + ", ".join(gone[:4])
        + (f" and {len(gone) - 4} more" if len(gone) > 4 else "")
    )
    number = np.full(len(videos) + 1, -1, np.intp)
    number[kept] = np.arange(len(kept))
    return replace(grouping, names=tuple(grouping.names[g] for g in kept)), number[group]


def _refuse_small(rows: pd.DataFrame, group: NDArray[np.intp], grouping: Grouping) -> None:
    if rows["subject"].nunique() < 2:
        raise UserError(
            "there is one subject only: a comparison is across subjects and needs at least two; "
            "record more subjects, or ask for more with --subjects"
        )
    for name, videos in zip(
        grouping.names, _videos(rows, group, len(grouping.names)).tolist(), strict=True
    ):
        if videos == 0:
            raise UserError(
                f"no video is left in group {name!r}: ask for other groups, or filter less"
            )
        if videos == 1:
            raise UserError(
                f"group {name!r} is a single video, and a similarity needs two: name groups with "
                "more videos, or filter less"
            )
