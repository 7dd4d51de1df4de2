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

Which of the bodies are the actors is decided in `tssan.skeletons.actors`. Some samples have no
skeleton, or none that belongs to the performer; their authors list them, and so does
`ntu_rgbd_without_skeleton.txt` beside this file.

The two editions share their files: NTU RGB+D 60 is what of NTU RGB+D 120 was recorded in the first
17 set-ups. To read one of them::

    edition = edition_of(file.name for file in find_files(source))     # or NTU60, NTU120
    for file in edition.select(find_files(source)):
        sequence = read_file(file.read(), file.name)
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError, LeftOut
from tssan.skeletons import actors, arrays, files, protocols
from tssan.skeletons.actors import Tracks
from tssan.skeletons.classes import NTU_RGBD, ActionClass
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25

FPS = 30.0
JOINTS = len(KINECT_V2_25.joints)
BODY_FIELDS = 10
JOINT_FIELDS = 12
LONGEST_LINE = 1000  # characters; real ones have at most 200
MOST_BODIES = 1000  # a sensor tracks six
MOST_FRAMES = 20_000  # eleven minutes; the longest real file has 300


@dataclass(frozen=True)
class Edition:
    """One of the two data sets: which files are in it, and what they are divided into.

    Parameters
    ----------
    name, title
        What the data set is called in commands and in sentences.
    setups, subjects, actions
        The highest number of each; all count from 1.
    protocols
        Those that its authors define; the first is the default.
    """

    name: str
    title: str
    setups: int
    subjects: int
    actions: int
    protocols: tuple[Protocol, ...]

    @property
    def classes(self) -> tuple[ActionClass, ...]:
        """Its action classes, in the order of their labels."""
        return NTU_RGBD[: self.actions]

    def holds(self, name: str) -> bool:
        """Return whether a file of this name belongs to the data set."""
        _, numbers = files.parse_name(name, files.NTU_RGBD)
        return (
            1 <= numbers["setup"] <= self.setups
            and 1 <= numbers["subject"] <= self.subjects
            and 1 <= numbers["action"] <= self.actions
        )

    def select(self, found: Iterable[SkeletonFile]) -> list[SkeletonFile]:
        """Return those files that belong to the data set.

        Raises
        ------
        DataError
            If none does.
        """
        found = list(found)
        own = [file for file in found if self.holds(file.name)]
        if found and not own:
            raise DataError(
                f"none of the {len(found)} files, such as {found[0].name}, is of {self.title}; "
                f"expected set-ups 1 to {self.setups} and actions 1 to {self.actions}"
            )
        return own


NTU60 = Edition("ntu60", "NTU RGB+D 60", 17, 40, 60, protocols.NTU60)
NTU120 = Edition("ntu120", "NTU RGB+D 120", 32, 106, 120, protocols.NTU120)


def edition_of(names: Iterable[str]) -> Edition:
    """Return NTU RGB+D 60 if all files of these names belong to it, else NTU RGB+D 120."""
    return NTU60 if all(map(NTU60.holds, names)) else NTU120


@cache
def without_skeleton() -> frozenset[str]:
    """Return the 535 samples of which the authors say that they lack (usable) skeletons.

    302 of them are in NTU RGB+D 60.
    """
    listed = resources.files("tssan.skeletons") / "ntu_rgbd_without_skeleton.txt"
    return frozenset(listed.read_text(encoding="ascii").split())


def find_files(source: str | os.PathLike[str]) -> list[SkeletonFile]:
    """Find the sequences in an archive, a folder with both archives, or where they were unpacked.

    Raises
    ------
    DataError
        If the source cannot be read or holds none.
    """
    return files.find(source, files.NTU_RGBD)


def read_file(data: bytes | Path, name: str, *, denoise: bool = True) -> SkeletonSequence:
    """Read one sequence and choose its actors.

    Parameters
    ----------
    data
        The file, or its contents.
    name
        What the file is called; set-up, camera, subject, replication and class are taken from it.
    denoise
        Whether bodies that are seen too shortly or are too wide to be a person are left out, as
        `tssan.skeletons.actors` says.

    Returns
    -------
    SkeletonSequence
        One or two persons, ``(m, t, 25, 3)``, t being the number of frames that the file states.
        `subject` is the performer that the name states and belongs to the first person.

    Raises
    ------
    LeftOut
        If the authors list the sample as one without skeleton.
    DataError
        If the name or the contents are not those of an NTU RGB+D file, or no body is in any frame.
    """
    sample, numbers = files.parse_name(name, files.NTU_RGBD)
    if not 1 <= numbers["action"] <= len(NTU_RGBD):
        raise DataError(f"{name}: action {numbers['action']}; expected 1 to {len(NTU_RGBD)}")
    if sample in without_skeleton():
        raise LeftOut(f"{name}: on its authors' list of samples without skeleton")
    frames, tracks = read_tracks(files.content(data, name), name)
    if not tracks:
        raise DataError(f"{name}: no body in any of its {frames} frames; expected at least one")
    joints, present = actors.join(tracks, actors.choose_actors(tracks, denoise=denoise), frames)
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
    frames = lines.count("the number of frames", 1, MOST_FRAMES)
    seen: dict[int, tuple[list[int], list[NDArray[np.float64]]]] = {}
    for t in range(frames):
        bodies = lines.count(f"the number of bodies in frame {t}", 0, MOST_BODIES)
        here: set[int] = set()
        for _ in range(bodies):
            body = lines.body(t)
            if body in here:
                raise lines.wrong(f"body {body} comes twice in frame {t}", "each body once")
            here.add(body)
            joints = lines.count(f"the number of joints of body {body} in frame {t}", 0, 1000)
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


class _Lines:
    """The lines of a file, taken one after the other; messages count them from 1."""

    def __init__(self, data: bytes, name: str) -> None:
        self._rest = io.BytesIO(data.rstrip())
        self._name = name
        self._at = 0

    def wrong(self, found: str, expected: str) -> DataError:
        return DataError(f"{self._name}, line {self._at}: {found}; expected {expected}")

    def _next(self, expected: str) -> bytes:
        self._at += 1
        line = self._rest.readline(LONGEST_LINE + 1)
        if not line:
            raise self.wrong("the file ends", expected)
        if len(line) > LONGEST_LINE:
            raise self.wrong(f"more than {LONGEST_LINE} characters ({_short(line)})", expected)
        return line

    def count(self, what: str, least: int, most: int) -> int:
        line = self._next(what).strip()
        if not (line.isdigit() and len(line) <= 9 and least <= int(line) <= most):
            raise self.wrong(_short(line), f"{what}, an integer from {least} to {most:,}")
        return int(line)

    def body(self, frame: int) -> int:
        expected = f"a body of frame {frame}: {BODY_FIELDS} fields that begin with its bodyID"
        line = self._next(expected)
        fields = line.split()
        # A bodyID has 64 bits; a float would lose the last of them and mix bodies up.
        if len(fields) != BODY_FIELDS or not (fields[0].isdigit() and len(fields[0]) <= 20):
            raise self.wrong(_short(line), expected)
        return int(fields[0])

    def joint(self, frame: int) -> tuple[float, float, float]:
        expected = f"a joint of frame {frame}: {JOINT_FIELDS} numbers that begin with x y z"
        line = self._next(expected)
        fields = line.split()
        if len(fields) != JOINT_FIELDS:
            raise self.wrong(f"{len(fields)} fields ({_short(line)})", expected)
        try:
            x, y, z = float(fields[0]), float(fields[1]), float(fields[2])
        except ValueError:
            raise self.wrong(_short(b" ".join(fields[:3])), expected) from None
        for value in (x, y, z):
            if not (math.isfinite(value) and abs(value) < arrays.FARTHEST):
                limit = f"metres, less than {arrays.FARTHEST:g} away"
                raise self.wrong(f"coordinate {value:g} in frame {frame}", limit)
        return x, y, z

    def end(self, frames: int) -> None:
        line = self._rest.readline(LONGEST_LINE)
        if line:
            self._at += 1
            raise self.wrong(
                f"{_short(line)} after the last frame",
                f"the end, since line 1 says {frames} frames",
            )


def _short(line: bytes) -> str:
    text = line.strip().decode("ascii", errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "…")
