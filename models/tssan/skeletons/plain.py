"""Skeletons of one's own in one file: an `.npz` archive or a Parquet table.

What it holds, one entry (npz) or column (Parquet) each; n sequences, m persons, t frames, v joints,
c = 2 or 3 coordinates::

    joints     npz: (n, t, v, c), or (n, m, t, v, c), all sequences equally long; or, where they are
               not, (l, v, c) with `frames`: the frames of each person of each sequence in turn.
               Parquet: in each row nested lists (t, v, c) or (m, t, v, c), or all numbers in a
               row with `frames`.
    label      (n,) whole numbers from 0, or the names of the classes
    topology   the name of a known skeleton (kinect-v2-25, openpose-18, …), or of a file beside this
               one that describes it; may be given when the file is read instead

    class_names  npz: the names of all classes, where label has numbers
    class_name   Parquet: the name of each row's class, where label has numbers
    frames     (n,) how many frames each sequence has; what an npz holds beyond is padding
    persons    (n,) how many persons, where the numbers do not tell; default 1
    sample     (n,) a name for each sequence, all different; default 000000, 000001, …
    subject    (n,) who acts: numbers, or names
    camera, setup, replication   (n,) whole numbers
    split      (n,) train, val or test
    present    who is seen in which frame: as joints without the axes v, c; by default every frame
               that is neither all zeros nor all NaN
    score      how sure each joint is, 0 to 1: as joints without the axis c
    units      m (metres) or image (parts of the image's width and height); default m in three
               coordinates, image in two
    fps        frames per second; default 30
    name       what the data set is called; default as the file

Nothing in the file is executed: Python objects (pickles) are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons.annotations import Annotations
from tssan.skeletons.arrays import FARTHEST
from tssan.skeletons.classes import named_classes
from tssan.skeletons.plain_sources import open_source, text, whole
from tssan.skeletons.protocols import Protocol, first_half_trains
from tssan.skeletons.sequence import SkeletonSequence, Units
from tssan.skeletons.topology import TOPOLOGIES, Topology, find_topology

SPLITS = ("train", "val", "test")
FARTHEST_IN_IMAGE = 10.0  # widths; tells parts of the image from pixels
MOST_CLASSES = 10_000


def open_annotations(
    path: str | os.PathLike[str], *, topology: Topology | None = None
) -> PlainAnnotations:
    """Open a file of one's own skeletons.

    Parameters
    ----------
    path
        The `.npz` or Parquet file.
    topology
        Instead of what the file says.

    Raises
    ------
    DataError
        If it is no such file; says which key, and in which row, is wrong.
    """
    return PlainAnnotations(Path(path), topology)


class PlainAnnotations(Annotations):
    """The sequences of such a file, made by `open_annotations`."""

    def __init__(self, path: Path, topology: Topology | None) -> None:
        self._source = source = open_source(path)
        self.name = self._word("name", path.stem)
        self.topology = topology or self._topology()
        source.check_shapes(len(self.topology.joints))
        self.fps = self._fps()
        self._units: str | None = self._word("units", None)
        if self._units not in (None, "m", "image"):
            raise source.wrong("units", repr(self._units), "m or image")
        self._label, names = self._labels()
        self.classes = named_classes(names)
        self.samples = self._samples()
        self._subject, self.subject_names = self._subjects()
        self._counted = {
            key: whole(source, key, 0)
            for key in ("camera", "setup", "replication")
            if key in source.keys
        }
        self._split = self._splits()
        self.protocols = self._protocols()
        if not self.protocols:
            self.remarks = (
                f"{path.name} has neither a split with train and test nor two subjects, so nothing "
                "says what trains and what tests",
            )
        self._ahead: Iterator[dict[str, NDArray[Any]]] = iter(())
        self._next = -1

    def read(self, position: int) -> SkeletonSequence:
        """Return the sequence at a position from 0; quickest one after the other.

        Raises
        ------
        DataError
            If its numbers are not those of a skeleton.
        """
        if position != self._next:
            self._ahead = self._source.sequences(position, len(self.topology.joints))
        self._next = -1
        try:
            arrays = next(self._ahead)
        except StopIteration:
            raise self._source.wrong("joints", "ends early", "a row", position) from None
        self._next = position + 1
        joints, present = self._checked(arrays, position)
        score = arrays.get("score")
        if score is not None:
            score = self._score(score, position)
        action = self.classes[self._label[position]]
        return SkeletonSequence(
            joints=joints,
            present=present,
            topology=self.topology,
            units=self._units_of(joints.shape[3]),
            fps=self.fps,
            sample=self.samples[position],
            label=action.label,
            class_name=action.name,
            subject=None if self._subject is None else int(self._subject[position]),
            split=None if self._split is None else self._split[position],
            score=score,
            source=f"{self._source.path.name}, row {position}",
            camera=self._count("camera", position),
            setup=self._count("setup", position),
            replication=self._count("replication", position),
        )

    def _count(self, key: str, row: int) -> int | None:
        return int(self._counted[key][row]) if key in self._counted else None

    def _units_of(self, c: int) -> Units:
        return cast(Units, self._units or ("m" if c == 3 else "image"))

    def _checked(
        self, arrays: Mapping[str, NDArray[Any]], row: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return joints and who is present, or say which number is wrong."""
        joints = arrays["joints"]
        c = joints.shape[3]
        if c not in (2, 3):
            raise self._source.wrong("joints", f"{c} coordinates", "2 or 3", row)
        nobody = np.isnan(joints).all(axis=(2, 3)) | (joints == 0).all(axis=(2, 3))
        present = arrays["present"].astype(bool) if "present" in arrays else ~nobody
        limit = FARTHEST if self._units_of(c) == "m" else FARTHEST_IN_IMAGE
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(joints) < limit) & present[:, :, None, None]
        if wrong.any():
            m, t, v, axis = (int(i) for i in np.argwhere(wrong)[0])
            value = joints[m, t, v, axis]
            right = (
                f"metres, less than {FARTHEST:g} away"
                if self._units_of(c) == "m"
                else "parts of the image's width and height, not pixels"
            )
            raise self._source.wrong(
                "joints",
                f"frame {t}, person {m + 1}, joint {self.topology.joints[v]}: "
                f"{'xyz'[axis]} is {value:g}",
                f"{right}; NaN in all joints of a frame where the person is absent",
                row,
            )
        if not present.any():
            raise self._source.wrong("joints", "nobody in any frame", "somebody", row)
        joints = np.where(present[:, :, None, None], joints, 0).astype(np.float32)
        return joints, np.asarray(present, np.bool_)

    def _score(self, score: NDArray[Any], row: int) -> NDArray[np.float32]:
        score = np.nan_to_num(score.astype(np.float32), nan=0.0)
        if not ((score >= 0) & (score <= 1)).all():
            found = f"from {score.min():g} to {score.max():g}"
            raise self._source.wrong("score", found, "0 to 1", row)
        return score

    def _word(self, key: str, default: Any) -> Any:
        if key not in self._source.keys:
            return default
        value = self._source.constant(key)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str) or value == "":
            raise self._source.wrong(key, repr(value), "a word")
        return value

    def _fps(self) -> float:
        fps = self._source.constant("fps") if "fps" in self._source.keys else 30.0
        if not isinstance(fps, int | float) or not (math.isfinite(fps) and 0 < fps <= 10_000):
            raise self._source.wrong("fps", str(fps), "frames per second, such as 30")
        return float(fps)

    def _topology(self) -> Topology:
        path = self._source.path
        said = self._word("topology", None)
        if said is None:
            raise DataError(
                f"{path}: the key 'topology' is missing, which says what the joints are; there are "
                f"{', '.join(TOPOLOGIES)}; or describe your own skeleton in a file and name that "
                "(--topology skeleton.yaml)"
            )
        return find_topology(said, folder=path.parent)

    def _labels(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return the labels, and the names of the classes."""
        source = self._source
        values = source.column("label")
        if values.dtype.kind in "USO":
            words = [str(word) for word in text(values).tolist()]
            if empty := [row for row, word in enumerate(words) if not word.strip()]:
                raise source.wrong("label", "an empty name", "the name of a class", empty[0])
            # Names in the file's own order of classes where it has one, else by the alphabet.
            given = self._class_names() if "class_names" in source.keys else None
            names = given or sorted(set(words))
            numbers = {name: label for label, name in enumerate(names)}
            for row, word in enumerate(words):
                if word not in numbers:
                    raise source.wrong("label", repr(word), "one of class_names", row)
            return np.array([numbers[word] for word in words], np.int64), names
        labels = whole(source, "label", 0)
        if labels.max() >= MOST_CLASSES:
            row = int(labels.argmax())
            raise source.wrong("label", str(labels[row]), f"less than {MOST_CLASSES:,}", row)
        if "class_name" in source.keys:
            return labels, self._names_by_row(labels)
        if "class_names" not in source.keys:
            return labels, [f"class {label}" for label in range(int(labels.max()) + 1)]
        names = self._class_names()
        if labels.max() >= len(names):
            row = int(labels.argmax())
            raise source.wrong(
                "label", str(labels[row]), f"0 to {len(names) - 1}, as class_names has", row
            )
        return labels, names

    def _class_names(self) -> list[str]:
        names = self._source.texts("class_names")
        if len(names) > MOST_CLASSES:
            raise self._source.wrong("class_names", f"{len(names):,}", f"at most {MOST_CLASSES:,}")
        seen: set[str] = set()
        for i, name in enumerate(names):
            if not name.strip() or name in seen:
                raise self._source.wrong(
                    "class_names", f"{name!r} at {i}", "names that are all different"
                )
            seen.add(name)
        return names

    def _names_by_row(self, labels: NDArray[np.int64]) -> list[str]:
        names = [f"class {label}" for label in range(int(labels.max()) + 1)]
        seen: dict[int, str] = {}
        for row, (label, word) in enumerate(
            zip(labels.tolist(), text(self._source.column("class_name")).tolist(), strict=True)
        ):
            if seen.setdefault(label, str(word)) != str(word):
                raise self._source.wrong(
                    "class_name", repr(word), f"{seen[label]!r}, as label {label} had before", row
                )
            names[label] = str(word)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._source.wrong("class_name", f"{twice!r} with two labels", "one label each")
        return names

    def _samples(self) -> Sequence[str]:
        if "sample" not in self._source.keys:
            return [f"{row:06d}" for row in range(self._source.count)]
        names = [str(name) for name in text(self._source.column("sample")).tolist()]
        seen: set[str] = set()
        for row, name in enumerate(names):
            if not name or name in seen:
                found = f"{name!r} a second time" if name else "an empty name"
                raise self._source.wrong("sample", found, "names that are all different", row)
            seen.add(name)
        return names

    def _subjects(self) -> tuple[NDArray[np.int64] | None, dict[int, str]]:
        """Return the subjects' numbers, and who they are where the file has names."""
        if "subject" not in self._source.keys:
            return None, {}
        values = self._source.column("subject")
        if values.dtype.kind not in "USO":
            return whole(self._source, "subject", 0), {}
        words = [str(word).strip() for word in text(values).tolist()]
        for row, word in enumerate(words):
            if not re.fullmatch(r"\w[\w .'-]{0,59}", word):
                raise self._source.wrong(
                    "subject",
                    repr(word[:60]),
                    "a number, or a short name of letters and digits",
                    row,
                )
        names = sorted(set(words))
        # P001 is 1: people are numbered as their names are, where these end in unlike numbers.
        ends = [re.fullmatch(r"[^\W\d]*0*(\d{1,6})", name) for name in names]
        numbers = [int(end.group(1)) for end in ends if end]
        if len(set(numbers)) < len(names):
            numbers = list(range(1, len(names) + 1))
        of_name = dict(zip(names, numbers, strict=True))
        who = {number: name for name, number in of_name.items() if name != str(number)}
        return np.array([of_name[word] for word in words], np.int64), who

    def _splits(self) -> list[str] | None:
        if "split" not in self._source.keys:
            return None
        words = [str(word) for word in text(self._source.column("split")).tolist()]
        for row, word in enumerate(words):
            if word not in SPLITS:
                raise self._source.wrong("split", repr(word[:40]), "train, val or test", row)
        return words

    def _protocols(self) -> tuple[Protocol, ...]:
        protocols = []
        parts = set(self._split or ())
        for other in ("test", "val"):
            if {"train", other} <= parts:
                protocols.append(Protocol(f"train-{other}", "split", ("train",), (other,)))
        if self._subject is not None and len(people := sorted(set(self._subject.tolist()))) > 1:
            protocols += first_half_trains(people)
        return tuple(protocols)
