"""NTU RGB+D and NTU RGB+D 120: raw `.skeleton` text files, several bodies, Kinect v2.

A file is called `SsssCcccPpppRrrrAaaa.skeleton` (set-up, camera, performer, replication, action)
and holds, line by line::

    number of frames
    for each frame:    number of bodies
      for each body:   bodyID and nine further fields
                       number of joints (25)
        for each joint:  x y z in metres, and nine further fields

A. Shahroudy et al.: NTU RGB+D: a large scale dataset for 3D human activity analysis. CVPR 2016;
J. Liu et al.: NTU RGB+D 120. TPAMI 2020.

Which bodies are the actors
---------------------------
The sensor also reports chairs and passers-by as bodies, and gives a person that it lost a new
bodyID. The rule is that of SGN (Zhang et al., CVPR 2020), which most published results rest on,
except that every body keeps the frames in which it was seen, so that one that vanishes and returns
is not shifted in time, and frames without any body stay in their place:

1. A track is all frames with the same bodyID. A single track is the actor.
2. Tracks of at most 11 frames are noise, unless all are that short.
3. Bodies wider than 0.8 of their height are noise: a track with at least 0.69754 of such frames is
   dropped, as long as another is left. The first to go are those that move least.
4. The motion of a track is the variance of x, y and z over all its joints and frames, summed; or
   over its frames that are not too wide, if that is less.
5. The track with the most motion is the first actor. Each further one, by motion: if it shares no
   frame with the first actor, it is the first actor under a new bodyID; else if it shares none with
   the second actor, it is or becomes the second; else it is dropped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons import arrays, files
from tssan.skeletons.classes import NTU_RGBD, ActionClass
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25

FPS = 30.0
JOINTS = len(KINECT_V2_25.joints)
BODY_FIELDS = 10
JOINT_FIELDS = 12
SHORTEST_TRACK = 12  # frames
WIDEST = 0.8  # of the height
MOST_TOO_WIDE = 0.69754  # of the frames

Tracks = dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]
"""For each bodyID its frames ``(t',)`` in rising order and its joints ``(t', v, c)`` in them."""


def find_files(source: str | os.PathLike[str]) -> list[SkeletonFile]:
    """Find the sequences in an archive, a folder with both archives, or where they were unpacked.

    Raises
    ------
    DataError
        If the source cannot be read or holds none.
    """
    return files.find(source, files.NTU_RGBD)


def classes_of(names: Iterable[str]) -> tuple[ActionClass, ...]:
    """Return the 60 classes of NTU RGB+D if the files have no other, else all 120."""
    last = max((files.parse_name(name, files.NTU_RGBD)[1]["action"] for name in names), default=0)
    return NTU_RGBD[:60] if last <= 60 else NTU_RGBD


def read_file(data: bytes | Path, name: str) -> SkeletonSequence:
    """Read one sequence and choose its actors by the rule above.

    Parameters
    ----------
    data
        The file, or its contents.
    name
        What the file is called; set-up, camera, subject, replication and class are taken from it.

    Returns
    -------
    SkeletonSequence
        One or two persons, ``(m, t, 25, 3)``, t being the number of frames that the file states.
        `subject` is the performer that the name states and belongs to the first person.

    Raises
    ------
    DataError
        If the name or the contents are not those of an NTU RGB+D file, or no body is in any frame.
    """
    sample, numbers = files.parse_name(name, files.NTU_RGBD)
    if not 1 <= numbers["action"] <= len(NTU_RGBD):
        raise DataError(f"{name}: action {numbers['action']}; expected 1 to {len(NTU_RGBD)}")
    frames, tracks = read_tracks(files.content(data, name), name)
    if not tracks:
        raise DataError(f"{name}: no body in any of its {frames} frames; expected at least one")
    actors = choose_actors(tracks)
    joints = np.zeros((len(actors), frames, JOINTS, 3), np.float32)
    present = np.zeros((len(actors), frames), np.bool_)
    for m, bodies in enumerate(actors):
        for body in bodies:
            at, places = tracks[body]
            joints[m, at] = places
            present[m, at] = True
    action = NTU_RGBD[numbers["action"] - 1]
    return SkeletonSequence(
        joints=joints,
        present=present,
        topology=KINECT_V2_25,
        units="m",
        fps=FPS,
        sample=sample,
        label=action.label,
        class_name=action.name,
        class_code=action.code,
        subject=numbers["subject"],
        camera=numbers["camera"],
        setup=numbers["setup"],
        replication=numbers["replication"],
        source=name,
    )


def read_tracks(data: bytes, name: str) -> tuple[int, Tracks]:
    """Read all bodies of a file, each under its bodyID.

    A body whose joints are all at zero in a frame was not seen in it.

    Parameters
    ----------
    data
        The contents of the file.
    name
        The file, for messages.

    Returns
    -------
    frames : int
        How many frames the file has, with or without bodies.
    tracks : dict of int to (frames, joints)
        By bodyID: the frames in which it was seen ``(t',)`` and its joints in them, in metres,
        ``(t', 25, 3)``.

    Raises
    ------
    DataError
        Where the file departs from the format, with the line.
    """
    lines = _Lines(data, name)
    frames = lines.count("the number of frames", 1)
    seen: dict[int, tuple[list[int], list[NDArray[np.float64]]]] = {}
    for t in range(frames):
        bodies = lines.count(f"the number of bodies in frame {t}", 0)
        here: set[int] = set()
        for _ in range(bodies):
            body = lines.body(t)
            if body in here:
                raise lines.wrong(f"body {body} comes twice in frame {t}", "each body once")
            here.add(body)
            joints = lines.count(f"the number of joints of body {body} in frame {t}", 0)
            if joints != JOINTS:
                raise lines.wrong(f"{joints} joints", f"{JOINTS}")
            places = np.array([lines.joint(t) for _ in range(JOINTS)])
            if places.any():
                at, all_places = seen.setdefault(body, ([], []))
                at.append(t)
                all_places.append(places)
    lines.end(frames)
    tracks = {
        body: (np.array(at), np.array(places, dtype=np.float32))
        for body, (at, places) in seen.items()
    }
    return frames, tracks


def choose_actors(tracks: Tracks) -> list[list[int]]:
    """Choose one or two actors among the bodies of a file, by the rule at the head of this module.

    Parameters
    ----------
    tracks
        By bodyID: frames ``(t',)`` and joints ``(t', v, 3)``; at least one.

    Returns
    -------
    list of list of int
        For each actor its bodyIDs.
    """
    long_enough = {b: track for b, track in tracks.items() if len(track[0]) >= SHORTEST_TRACK}
    left = long_enough or dict(tracks)
    motion = {body: _motion(joints) for body, (_, joints) in left.items()}
    for body in sorted(left, key=motion.__getitem__):
        if len(left) == 1:
            break
        joints = left[body][1]
        width = np.ptp(joints[:, :, 0], axis=1)
        height = np.ptp(joints[:, :, 1], axis=1)
        upright = width <= WIDEST * height
        if np.mean(~upright) >= MOST_TOO_WIDE:
            del left[body]
        else:
            motion[body] = min(motion[body], _motion(joints[upright]))
    by_motion = sorted(left, key=motion.__getitem__, reverse=True)
    actors: list[list[int]] = [[], []]
    taken: list[set[int]] = [set(), set()]
    for body in by_motion:
        at = set(left[body][0].tolist())
        for m in range(2):
            if not taken[m] & at:
                actors[m].append(body)
                taken[m] |= at
                break
    return [bodies for bodies in actors if bodies]


def _motion(joints: NDArray[np.float32]) -> float:
    """Return the variance of x, y and z over all joints and frames, summed, in m²."""
    return float(joints.reshape(-1, 3).astype(np.float64).var(axis=0).sum())


class _Lines:
    """The lines of a file, taken one after the other; messages count them from 1."""

    def __init__(self, data: bytes, name: str) -> None:
        text = data.decode("ascii", errors="replace").rstrip()
        self._lines = text.split("\n") if text else []
        self._name = name
        self._at = 0

    def wrong(self, found: str, expected: str) -> DataError:
        return DataError(f"{self._name}, line {self._at}: {found}; expected {expected}")

    def _next(self, expected: str) -> str:
        self._at += 1
        if self._at > len(self._lines):
            raise self.wrong("the file ends", expected)
        return self._lines[self._at - 1]

    def count(self, what: str, least: int) -> int:
        line = self._next(what).strip()
        if not (line.isdecimal() and len(line) <= 9) or int(line) < least:
            raise self.wrong(_short(line), f"{what}, an integer from {least}")
        return int(line)

    def body(self, frame: int) -> int:
        expected = f"a body of frame {frame}: {BODY_FIELDS} fields that begin with its bodyID"
        fields = self._next(expected).split()
        # A bodyID has 64 bits; a float would lose the last of them and mix bodies up.
        if len(fields) != BODY_FIELDS or not (fields[0].isdecimal() and len(fields[0]) <= 20):
            raise self.wrong(_short(" ".join(fields)), expected)
        return int(fields[0])

    def joint(self, frame: int) -> tuple[float, float, float]:
        expected = f"a joint of frame {frame}: {JOINT_FIELDS} numbers that begin with x y z"
        fields = self._next(expected).split()
        if len(fields) != JOINT_FIELDS:
            raise self.wrong(f"{len(fields)} fields ({_short(' '.join(fields))})", expected)
        try:
            x, y, z = float(fields[0]), float(fields[1]), float(fields[2])
        except ValueError:
            raise self.wrong(_short(" ".join(fields[:3])), expected) from None
        for value in (x, y, z):
            if not (math.isfinite(value) and abs(value) < arrays.FARTHEST):
                limit = f"metres, less than {arrays.FARTHEST:g} away"
                raise self.wrong(f"coordinate {value:g} in frame {frame}", limit)
        return x, y, z

    def end(self, frames: int) -> None:
        if self._at < len(self._lines):
            line = self._next("")
            raise self.wrong(
                f"{_short(line.strip())} after the last frame",
                f"the end, since line 1 says {frames} frames",
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
