"""Kinetics-skeleton as released with ST-GCN: OpenPose's 18 joints in the image, one JSON per clip.

The release has two folders of clips and a file that lists each::

    kinetics_train/<video>.json        kinetics_train_label.json
    kinetics_val/<video>.json          kinetics_val_label.json

    <video>.json: {"data": [{"frame_index": 1,
                             "skeleton": [{"pose": [x0, y0, …, x17, y17], "score": [s0, …, s17]},
                                          …]}, …],
                   "label": "flipping pancake", "label_index": 129}
    label file:   {"<video>": {"has_skeleton": true, "label": …, "label_index": …}, …}

Coordinates are parts of the image's width and height. What is made of a clip follows ST-GCN's
feeder: the first 5 people of a frame are looked at, and the 2 with the highest summed score are
kept; coordinates count from the middle of the image; a joint with score 0 lies there, at zero. One
thing differs. The feeder puts the better scored of the two first, frame by frame, so that two
people change places whenever their scores cross. Here each is put where they are nearest to whom
that place held last, by the mean distance between joints that both poses have, and the person with
the highest score over the whole clip comes first.

`frame_index` counts from 1 in the release; a clip in which a frame 0 comes is counted from 0.

This is not the data set of the same name in PYSKL, which has the 17 joints of COCO found by HRNet.

S. Yan, Y. Xiong, D. Lin: Spatial temporal graph convolutional networks for skeleton-based action
recognition. AAAI 2018.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError, LeftOut
from tssan.skeletons import files
from tssan.skeletons.classes import KINETICS
from tssan.skeletons.files import SkeletonFile, Skipped
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import OPENPOSE_18

NAME = "kinetics-openpose18"
FPS = 30.0
JOINTS = len(OPENPOSE_18.joints)
LOOKED_AT = 5  # persons of each frame
KEPT = 2
MIDDLE = 0.5
MOST_FRAMES = 36_000  # twenty minutes; the release's clips have at most 300
MOST_BYTES = 8 * 2**20  # twenty people in each of 300 frames
BYTES_PER_BRACKET = 15  # at least; an empty frame has two in 33, {"frame_index":9,"skeleton":[]},
# A label file has an entry of about 120 bytes, ten of them quotes, for each of 240,000 videos.
MOST_LABEL_BYTES = 48 * 2**20
LABEL_BYTES_PER_BRACKET, LABEL_BYTES_PER_QUOTE = 50, 5  # at least

LABEL_FILES = {
    "train": "kinetics_train_label.json",
    "val": "kinetics_val_label.json",
}


@dataclass(frozen=True)
class Clips:
    """What there is to read: the files, and what the label files say has no skeleton."""

    files: list[SkeletonFile]
    skipped: list[Skipped]


def find_clips(source: str | os.PathLike[str]) -> Clips:
    """Find the clips in a folder at any depth, or in a tar or zip archive.

    Raises
    ------
    DataError
        If the source cannot be read, holds no clip, or a label file is damaged.
    """
    found = files.find(source, files.KINETICS)
    labels = {PurePosixPath(file.name).name: file for file in found}
    without: set[tuple[str, str]] = set()
    for split, name in LABEL_FILES.items():
        if name in labels:
            without |= {(split, video) for video in _without_skeleton(labels[name])}
    clips, skipped = [], []
    for file in found:
        path = PurePosixPath(file.name)
        if path.name in LABEL_FILES.values():
            continue
        if (split_of(file.name), path.stem) in without:
            skipped.append(
                Skipped(file.name, f"{file.name}: its label file says has_skeleton: false")
            )
        else:
            clips.append(file)
    if not clips:
        raise DataError(f"{source} holds label files of Kinetics-skeleton, but none of its clips")
    return Clips(clips, skipped)


def split_of(name: str) -> str | None:
    """Return whether a clip lies in kinetics_train or kinetics_val; None if in neither."""
    folders = {part.lower() for part in PurePosixPath(name).parts[:-1]}
    return next((split for split in LABEL_FILES if f"kinetics_{split}" in folders), None)


def read_file(data: bytes | Path, name: str) -> SkeletonSequence:
    """Read one clip.

    Parameters
    ----------
    data
        The file, or its contents.
    name
        Where it lies; the sample is called as the file, and the folder tells train from val.

    Returns
    -------
    SkeletonSequence
        One or two persons, ``(m, t, 18, 2)``, in parts of the image's width and height from its
        middle; y points down. `score` is OpenPose's.

    Raises
    ------
    LeftOut
        If nobody is in any frame.
    DataError
        If the contents are not those of a clip.
    """
    record = _record(files.content(data, name), name)
    label = _label(record, name)
    poses, scores = _frames(record["data"], name)
    joints, score = link(poses, scores)
    present = np.asarray(score.any(axis=2), dtype=np.bool_)
    if not present.any():
        raise LeftOut(f"{name}: nobody is in any of its {len(poses)} frames")
    # The person who is seen best comes first; who is never seen does not come at all.
    order = [int(m) for m in np.argsort(-score.sum(axis=(1, 2)), kind="stable") if present[m].any()]
    action = KINETICS[label]
    return SkeletonSequence(
        joints=joints[order],
        present=present[order],
        topology=OPENPOSE_18,
        units="image",
        fps=FPS,
        sample=PurePosixPath(name.replace("\\", "/")).stem,
        label=action.label,
        class_name=action.name,
        split=split_of(name),
        score=score[order],
        source=name,
    )


def link(
    poses: Sequence[NDArray[np.float32]], scores: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keep the two best people of each frame, each in the place of whom they are nearest to.

    Parameters
    ----------
    poses, scores
        For each frame ``(m', v, 2)`` and ``(m', v)``; a joint that was not found has score 0.

    Returns
    -------
    joints, score
        float32 ``(2, t, v, 2)`` and ``(2, t, v)``; zeros where nobody is, and where a joint was not
        found.
    """
    v = JOINTS
    joints = np.zeros((KEPT, len(poses), v, 2), np.float32)
    score = np.zeros((KEPT, len(poses), v), np.float32)
    last: list[tuple[NDArray[np.float32], NDArray[np.bool_]] | None] = [None] * KEPT
    for t, (here, sure) in enumerate(zip(poses, scores, strict=True)):
        here, sure = here[:LOOKED_AT], sure[:LOOKED_AT]
        best = np.argsort(-sure.sum(axis=1), kind="stable")[:KEPT]
        best = best[sure[best].any(axis=1)]
        for place, person in _places(here, sure, best, last):
            found = sure[person] > 0
            joints[place, t] = np.where(found[:, None], here[person], 0)
            score[place, t] = sure[person]
            last[place] = (here[person], found)
    return joints, score


def _places(
    here: NDArray[np.float32],
    sure: NDArray[np.float32],
    best: NDArray[np.int64],
    last: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]] | None],
) -> list[tuple[int, int]]:
    """Return (place, person) such that the persons move least in all."""

    def cost(person: int, place: int) -> float:
        before = last[place]
        if before is None:
            # A place that nobody has had yet is for whom no other place is nearer to.
            return 0.0 if len(best) > 1 or all(pose is None for pose in last) else math.inf
        both = before[1] & (sure[person] > 0)
        if not both.any():
            return 1.0  # the width of the image
        return float(np.linalg.norm(here[person][both] - before[0][both], axis=1).mean())

    if len(best) == 1:
        person = int(best[0])
        return [(min(range(KEPT), key=lambda place: cost(person, place)), person)]
    if len(best) < 2:
        return []
    one, two = (int(person) for person in best)
    straight = cost(one, 0) + cost(two, 1)
    crossed = cost(one, 1) + cost(two, 0)
    return [(0, one), (1, two)] if straight <= crossed else [(1, one), (0, two)]


def _record(data: bytes, name: str) -> dict[str, Any]:
    """Return what a clip's JSON holds."""
    # A small file of nothing but brackets would take up two dozen times its size when parsed.
    brackets = data.count(b"[") + data.count(b"{")
    if len(data) > MOST_BYTES or brackets * BYTES_PER_BRACKET > len(data) + 4096:
        raise DataError(
            f"{name}: {len(data):,} bytes with {brackets:,} brackets; expected a clip of "
            f"Kinetics-skeleton, at most {MOST_BYTES >> 20} MB"
        )
    record = _json(data, name)
    if not isinstance(record, dict) or "data" not in record:
        found = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise DataError(
            f"{name}: holds {_short(found)}; expected the entries data, label and label_index"
        )
    return record


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({error})") from None


def _label(record: dict[str, Any], name: str) -> int:
    label, said = record.get("label_index"), record.get("label")
    if type(label) is not int or not 0 <= label < len(KINETICS):
        raise DataError(
            f"{name}: label_index is {_short(label)}; expected 0 to {len(KINETICS) - 1}"
        )
    if said is not None and said != KINETICS[label].name:
        near = get_close_matches(str(said), [action.name for action in KINETICS], n=1)
        hint = f" ({near[0]!r} is nearest to it)" if near else ""
        raise DataError(
            f"{name}: label is {_short(said)}{hint}; expected {KINETICS[label].name!r}, which "
            f"label_index {label} stands for"
        )
    return label


def _frames(frames: Any, name: str) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Return for each frame the poses ``(m', v, 2)`` from the middle of the image, and scores."""
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{name}: data is {_short(frames)}; expected a list of frames")
    numbers = [_frame_number(frame, at, name) for at, frame in enumerate(frames)]
    first = 0 if 0 in numbers else 1
    nobody = np.zeros((0, JOINTS, 2), np.float32), np.zeros((0, JOINTS), np.float32)
    length = max(numbers) - first + 1
    poses, scores = [nobody[0]] * length, [nobody[1]] * length
    seen: set[int] = set()
    for number, frame in zip(numbers, frames, strict=True):
        if number in seen:
            raise DataError(f"{name}: frame {number} comes twice; expected each frame once")
        seen.add(number)
        people = frame.get("skeleton", [])
        if not isinstance(people, list):
            raise DataError(
                f"{name}: frame {number}: skeleton is {_short(people)}; expected a list of people"
            )
        if people:
            read = [
                _person(p, f"{name}: frame {number}, person {m + 1}")
                for m, p in enumerate(people[:LOOKED_AT])
            ]
            poses[number - first] = np.stack([pose for pose, _ in read])
            scores[number - first] = np.stack([score for _, score in read])
    return poses, scores


def _frame_number(frame: Any, at: int, name: str) -> int:
    number = frame.get("frame_index") if isinstance(frame, dict) else None
    if type(number) is not int or not 0 <= number <= MOST_FRAMES:
        found = _short(number if isinstance(frame, dict) else frame)
        raise DataError(
            f"{name}: entry {at} of data: frame_index is {found}; expected a whole number up to "
            f"{MOST_FRAMES}"
        )
    return number


def _person(person: Any, where: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if not isinstance(person, dict):
        raise DataError(f"{where} is {_short(person)}; expected entries pose and score")
    pose = _numbers(person.get("pose"), 2 * JOINTS, f"{where}: pose").reshape(JOINTS, 2)
    score = _numbers(person.get("score"), JOINTS, f"{where}: score")
    if not ((score >= 0) & (score <= 2)).all():  # OpenPose's lie a little above 1 at times
        raise DataError(
            f"{where}: score goes from {score.min():g} to {score.max():g}; expected 0 to 1"
        )
    found = score > 0
    if not (np.abs(pose[found]) <= 10).all():
        raise DataError(
            f"{where}: coordinates up to {np.abs(pose[found]).max():g}; expected parts of the "
            "image's width and height, from 0 to 1"
        )
    return pose - np.float32(MIDDLE), score


def _numbers(values: Any, count: int, where: str) -> NDArray[np.float32]:
    if not isinstance(values, list) or len(values) != count:
        found = f"a list of {len(values)}" if isinstance(values, list) else _short(values)
        raise DataError(f"{where} is {found}; expected {count} numbers")
    if not all(type(number) in (int, float) for number in values):
        wrong = next(number for number in values if type(number) not in (int, float))
        raise DataError(f"{where} holds {_short(wrong)}; expected {count} numbers")
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        raise DataError(f"{where} holds a number with too many digits") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"{where} holds a number that is not finite; expected {count} numbers")
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _without_skeleton(file: SkeletonFile) -> list[str]:
    """Return the names of the videos of which a label file says that they have no skeleton."""
    data = file.read(most_bytes=MOST_LABEL_BYTES)
    brackets, quotes = data.count(b"[") + data.count(b"{"), data.count(b'"')
    least = max(LABEL_BYTES_PER_BRACKET * brackets, LABEL_BYTES_PER_QUOTE * quotes)
    if least > len(data) + 4096:  # as for a clip
        raise DataError(
            f"{file.name}: {len(data):,} bytes with {brackets:,} brackets and {quotes:,} quotes; "
            "expected an entry per video"
        )
    record = _json(data, file.name)
    if not isinstance(record, dict):
        raise DataError(
            f"{file.name}: holds a {type(record).__name__}; expected an entry per video"
        )
    without = []
    for video, about in record.items():
        if not isinstance(about, dict) or not isinstance(about.get("has_skeleton"), bool):
            raise DataError(
                f"{file.name}: {_short(video)} is {_short(about)}; expected has_skeleton, label "
                "and label_index"
            )
        if not about["has_skeleton"]:
            without.append(str(video))
    return without


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:60]
