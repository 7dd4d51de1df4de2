"""What is said of a batch before the model sees it, and the rows that come of it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tssan_viz.recording.errors import RecordingError
from tssan_viz.recording.transfer import HostCopy
from tssan_viz.site import SAMPLE_COLUMNS

if TYPE_CHECKING:
    from tssan_viz.store.schema import StoredSample

AXES = ("n", "k", "m")

# What the store's rows have a column for; anything else goes along as further metadata.
DESCRIPTIONS = (*SAMPLE_COLUMNS, "split", "step", "epoch", "phase")
_NUMBERS = {
    "label": "the class's name goes into class_name=",
    "subject": "number the people from 1; their names can go along under another name",
    "camera": "number the cameras from 1; their names can go along under another name",
    "setup": "number them from 1",
    "replication": "number them from 1",
    "step": "it counts the steps taken",
    "epoch": "it counts the epochs finished",
}
_MADE_HERE = (
    "row_id",
    "run",
    "checksum",
    "sample",
    "segment",
    "person",
    "predicted",
    "confidence",
    "correct",
)


@dataclass
class Announcement:
    """What was said of one forward call.

    Attributes
    ----------
    samples
        Names of the n samples; empty for a call that nobody announced, whose rows get their names
        when it is known how many there are.
    columns
        One value per sample for each thing said of them.
    axes, sizes
        How the rows of the attention's batch are made, outermost first, and how long each axis is.
    present
        Which rows are there; None for all.
    kept
        Which samples the policy wants; None for all.
    stored
        What views need of the samples.
    nameless
        Whether nobody said anything: the samples are named after the call.
    """

    samples: list[str]
    columns: dict[str, list[Any]]
    axes: tuple[str, ...] = ("n",)
    sizes: tuple[int, ...] = ()
    present: HostCopy | None = None
    kept: np.ndarray | None = None
    stored: list[StoredSample] = field(default_factory=list)
    nameless: bool = False

    @property
    def rows(self) -> int:
        """How many rows the attention is to have."""
        return math.prod(self.sizes)

    @property
    def named(self) -> str:
        """How many rows there are to be, for a message: by axes, where there are several."""
        axes = [f"{axis} = {size}" for axis, size in zip(self.axes, self.sizes, strict=True)]
        return axes[0] if len(axes) == 1 else f"{' × '.join(axes)} = {self.rows}"


def announce(
    *,
    sample: Sequence[str],
    axes: Sequence[str] = ("n",),
    sizes: Mapping[str, int] | None = None,
    present: Tensor | np.ndarray | None = None,
    stored: Sequence[StoredSample] | None = None,
    **descriptions: Any,
) -> Announcement:
    """Check what `Recorder.samples` was told and bring it into one form."""
    if isinstance(sample, str):
        raise RecordingError(f"sample is {sample!r}; it is a list of names, one for each sample")
    names = [str(_plain(name)) for name in sample]
    return Announcement(
        samples=names,
        columns=_columns(descriptions, len(names)),
        axes=tuple(axes),
        sizes=_sizes(tuple(axes), len(names), sizes, present),
        # A copy: the caller may fill the mask with something else before it has arrived.
        present=None if present is None else HostCopy(torch.as_tensor(present).bool().clone()),
        stored=_checked_stored(stored, names),
    )


def unlabelled(call: int, rows: int, rank: int = 0) -> Announcement:
    """Name the rows of a call that nobody announced after the call and their place in it."""
    # Every process counts its own calls.
    of_process = f"process {rank + 1} " if rank else ""
    names = [f"{of_process}call {call} row {row}" for row in range(1, rows + 1)]
    return Announcement(names, {}, sizes=(rows,), nameless=True)


def rows_of(
    announcement: Announcement,
    keep: np.ndarray,
    constants: Mapping[str, Any],
    predictions: tuple[np.ndarray, np.ndarray] | None,
) -> dict[str, list[Any]]:
    """Describe the rows that are kept, in the order in which the model flattened them."""
    index = np.indices(announcement.sizes).reshape(len(announcement.sizes), -1)[:, keep]
    at = dict(zip(announcement.axes, index, strict=True))
    sample, count = at["n"].tolist(), int(keep.sum())
    person = (at["m"] + 1).tolist() if "m" in at else [None] * count

    rows: dict[str, list[Any]] = {name: [value] * count for name, value in constants.items()}
    for name, values in announcement.columns.items():
        rows[name] = [values[i] for i in sample]
    rows["sample"] = [announcement.samples[i] for i in sample]
    rows["segment"] = (at["k"] + 1).tolist() if "k" in at else [1] * count
    rows["person"] = person
    if "subject" in rows:
        pairs = zip(rows["subject"], person, strict=True)
        rows["subject"] = [None if m is not None and m > 1 else subject for subject, m in pairs]
    if predictions is not None:
        predicted, confidence = predictions
        rows["predicted"] = [int(predicted[i]) for i in sample]
        rows["confidence"] = [float(confidence[i]) for i in sample]
    return rows


def some(names: Sequence[str]) -> str:
    """Return the first names of many, for a message."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _plain(value: Any) -> Any:
    """Make of a value of a table, an array or a tensor what a column of the store takes."""
    if isinstance(value, Tensor | np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in {"NAType", "NaTType"} else value


def _columns(descriptions: Mapping[str, Any], n: int) -> dict[str, list[Any]]:
    columns = {}
    for name, given in descriptions.items():
        if name in _MADE_HERE:
            raise RecordingError(f"samples() was given {name!r}, which the recorder works out")
        # A slip of the pen is told from metadata of the user's own by its likeness.
        near = difflib.get_close_matches(name, DESCRIPTIONS, n=1, cutoff=0.8)
        if near and near[0] != name:
            raise RecordingError(
                f"samples() knows nothing called {name!r}; did you mean {near[0]!r}? It knows "
                f"{', '.join(DESCRIPTIONS)}, and takes other names that are less like these"
            )
        one = given is None or isinstance(given, str) or not hasattr(given, "__len__")
        one = one or (isinstance(given, Tensor | np.ndarray) and given.ndim == 0)
        values = [given] * n if one else list(given)
        if len(values) != n:
            raise RecordingError(f"samples() got {n} samples and {len(values)} values of {name}")
        columns[name] = [_plain(value) for value in values]
        if name in _NUMBERS:
            columns[name] = [_whole(name, value) for value in columns[name]]
    return columns


def _whole(name: str, value: Any) -> int | None:
    """Return a whole number as one, of whatever type or in digits; refuse words and fractions."""
    try:
        if value is None or int(value) == float(value):
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise RecordingError(
        f"samples() was given {value!r} as a {name}, which is a whole number: {_NUMBERS[name]}"
    )


def _sizes(
    axes: tuple[str, ...],
    n: int,
    sizes: Mapping[str, int] | None,
    present: Tensor | np.ndarray | None,
) -> tuple[int, ...]:
    if n == 0:
        raise RecordingError("samples() got no sample")
    if "n" not in axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise RecordingError(
            f"axes {axes} would be some order of 'n' (samples), 'k' (segments) and 'm' (persons), "
            "with 'n' among them"
        )
    known = {"n": n, **(sizes or {})}
    if present is not None:
        shape = tuple(present.shape)
        if len(shape) != len(axes):
            raise RecordingError(f"present has shape {shape}; it would have the axes {axes}")
        for axis, size in zip(axes, shape, strict=True):
            if known.setdefault(axis, size) != size:
                raise RecordingError(
                    f"present has shape {shape} over {axes}, and {axis} is {known[axis]}"
                )
    missing = [axis for axis in axes if axis not in known]
    if missing:
        raise RecordingError(
            f"how long is {' and '.join(missing)}? Give sizes={{'{missing[0]}': …}} or present="
        )
    return tuple(int(known[axis]) for axis in axes)


def _checked_stored(
    stored: Sequence[StoredSample] | None, names: Sequence[str]
) -> list[StoredSample]:
    strangers = [s.sample for s in stored or () if s.sample not in set(names)]
    if strangers:
        raise RecordingError(f"stored= brings {some(strangers)}, which sample= does not announce")
    return list(stored or ())
