"""Northwestern-UCLA Multiview Action3D as JSON (`all_sqe.zip`): one person, Kinect v1, three views.

`all_sqe/a{action}_s{subject}_e{trial}_v{view}.json` holds `file_name`, `label` from 1 and
`skeletons`, frames × 20 joints × 3 coordinates in metres.

Two clips have a single frame and stay as they are. A frame whose joints are all zero is marked as
not present. Where single joints are exactly zero, that is in the sensor itself, they were lost:
their places are taken from the frames before and after, and their score is 0.

J. Wang et al.: Cross-view action modeling, learning and recognition. CVPR 2014.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons import arrays, files
from tssan.skeletons.classes import NW_UCLA
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import NW_UCLA_20

FPS = 30.0
# The longest real file has 127 kB; JSON of empty lists takes thirty times its length in memory.
MOST_BYTES = 2 * 2**20


def find_files(source: str | os.PathLike[str]) -> list[SkeletonFile]:
    """Find the sequences in `all_sqe.zip` or where it was unpacked.

    Raises
    ------
    DataError
        If the source cannot be read or holds none.
    """
    return files.find(source, files.NW_UCLA)


def read_file(data: bytes | Path, name: str) -> SkeletonSequence:
    """Read one sequence.

    Parameters
    ----------
    data
        The file, or its contents.
    name
        What the file is called; class, subject, trial and view are taken from it.

    Returns
    -------
    SkeletonSequence
        One person, ``(1, t, 20, 3)``; `camera` is the view, `replication` the trial (from 0).

    Raises
    ------
    DataError
        If the name or the contents are not those of a Northwestern-UCLA file, or contradict each
        other.
    """
    sample, numbers = files.parse_name(name, files.NW_UCLA)
    code = f"A{numbers['action']:02d}"
    action = next((action for action in NW_UCLA if action.code == code), None)
    if action is None:
        known = ", ".join(action.code[1:] for action in NW_UCLA)
        raise DataError(f"{name}: action {code[1:]}; expected one of {known}")
    record = _record(files.content(data, name), name)
    if record.get("file_name", sample) != sample:
        raise DataError(f"{name}: says file_name {record['file_name']!r}; expected {sample!r}")
    if record.get("label", action.label + 1) != action.label + 1:
        raise DataError(
            f"{name}: says label {record['label']!r}; expected {action.label + 1} for {action.name}"
        )
    joints = arrays.metres(_skeletons(record["skeletons"], name), NW_UCLA_20, name)
    joints, lost = _fill_lost(joints)
    return SkeletonSequence(
        joints=joints[None],
        present=arrays.any_joint(joints)[None],
        topology=NW_UCLA_20,
        units="m",
        fps=FPS,
        sample=sample,
        label=action.label,
        class_name=action.name,
        class_code=action.code,
        subject=numbers["subject"],
        camera=numbers["view"],
        replication=numbers["trial"],
        score=np.where(lost, 0, 1).astype(np.float32)[None] if lost.any() else None,
        source=name,
    )


def _record(data: bytes, name: str) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise DataError(f"{name}: more than {MOST_BYTES >> 20} MB; expected a sequence as JSON")
    try:
        record = json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({error})") from None
    if not isinstance(record, dict) or "skeletons" not in record:
        found = (
            f"entries {', '.join(record)}" if isinstance(record, dict) else type(record).__name__
        )
        raise DataError(f"{name}: holds {found}; expected file_name, skeletons and label")
    return record


def _skeletons(frames: Any, name: str) -> NDArray[np.float64]:
    """Return the frames as ``(t, 20, 3)``."""
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{name}: skeletons is {_short(frames)}; expected a list of frames")
    for t, frame in enumerate(frames):
        if not isinstance(frame, list) or len(frame) != 20:
            raise DataError(f"{name}: frame {t} is {_short(frame)}; expected a list of 20 joints")
        for joint, place in zip(NW_UCLA_20.joints, frame, strict=True):
            if (
                not isinstance(place, list)
                or len(place) != 3
                or not all(type(number) in (int, float) for number in place)
            ):
                raise DataError(
                    f"{name}: frame {t}, joint {joint} is {_short(place)}; expected three numbers"
                )
    try:
        return np.array(frames, dtype=np.float64)
    except OverflowError:
        raise DataError(f"{name}: a coordinate has too many digits; expected metres") from None


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}" if len(value) > 3 else repr(value)[:60]
    return repr(value)[:60]


def _fill_lost(
    joints: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Replace joints at exactly zero, in frames that have others, by those before and after.

    Returns the joints ``(t, v, c)`` and which were replaced, ``(t, v)``.
    """
    found = np.asarray(np.any(joints != 0, axis=2), dtype=np.bool_)
    seen = arrays.any_joint(joints)
    lost = ~found & seen[:, None] & np.any(found, axis=0)
    filled = joints.copy()
    for v in np.flatnonzero(np.any(lost, axis=0)):
        at, known = np.flatnonzero(lost[:, v]), np.flatnonzero(found[:, v])
        for c in range(joints.shape[2]):
            filled[at, v, c] = np.interp(at, known, joints[known, v, c])
    return filled, lost
