"""CTR-GCN's archives `NTU60_CS.npz`, `NTU60_CV.npz`, `NTU120_CSub.npz`, `NTU120_CSet.npz`.

Each holds one division of NTU RGB+D: `x_train` and `x_test`, float32 ``(n, 300, 150)``, that is in
every frame two persons × 25 joints × 3 coordinates in metres from the first actor's middle of the
spine in its first frame, with frames of zeros at the end; and `y_train`, `y_test`, one-hot
``(n, classes)``. Many later projects (Hyperformer, BlockGCN, SkateFormer, …) read the same files.

What they do not hold is the samples' names, and with them subject, camera and set-up: samples are
called train_000000, … here, and nothing can be compared between people. NTU RGB+D 120's archives
repeat a single actor as the second person, where those of NTU RGB+D 60 have zeros; such a second
person is dropped.

The arrays take gigabytes. They are read a sequence at a time, from the first to the last::

    annotations = open_annotations("NTU60_CS.npz")
    for position in range(len(annotations)):
        sequence = annotations[position]

Y. Chen et al.: Channel-wise topology refinement graph convolution for skeleton-based action
recognition. ICCV 2021.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons import arrays
from tssan.skeletons.annotations import Annotations
from tssan.skeletons.npz import MissingMember, Rows
from tssan.skeletons.ntu_rgbd import FPS, NTU60, NTU120
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25

PARTS = ("train", "test")
PERSONS, JOINTS, COORDINATES = 2, len(KINECT_V2_25.joints), 3
NUMBERS = PERSONS * JOINTS * COORDINATES  # in a frame
MOST_FRAMES = 10_000  # the files have 300
MOST_SEQUENCES = 250_000  # the longest part has 63,026

# What the files are called, and the protocol that they divide by.
_NAMED = ((r"csub|cs|xsub", "xsub"), (r"cset|xset", "xset"), (r"cv|xview", "xview"))


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an .npz that holds the four arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{axis}_{part}.npy" for axis in "xy" for part in PARTS} <= set(
                archive.namelist()
            )
    except Exception:  # on damaged archives it raises whatever it stumbles over
        return False


def open_annotations(path: str | os.PathLike[str]) -> CtrGcnAnnotations:
    """Open an archive; the labels are read, the coordinates are not.

    Raises
    ------
    DataError
        If it cannot be read or is no such archive.
    """
    return CtrGcnAnnotations(Path(path))


class CtrGcnAnnotations(Annotations):
    """The sequences of an archive, made by `open_annotations`."""

    topology = KINECT_V2_25

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; expected an archive of CTR-GCN") from None
        except Exception as error:  # as above
            raise DataError(
                f"{path} cannot be read as an .npz archive: {error}; if it was downloaded, "
                "it may be cut off: fetch it again"
            ) from None
        self._class_count = 0
        try:
            labels = [self._labels(part) for part in PARTS]
            self._coordinates = [Rows(self._archive, f"x_{part}.npy", path) for part in PARTS]
        except MissingMember:
            held = ", ".join(self._archive.namelist()[:6]) or "nothing"
            raise DataError(
                f"{path} holds {held}; expected x_train.npy, y_train.npy, x_test.npy and "
                "y_test.npy, as CTR-GCN writes them"
            ) from None
        for part, rows, known in zip(PARTS, self._coordinates, labels, strict=True):
            if rows.count != len(known):
                raise DataError(
                    f"{path}: x_{part} has {rows.count:,} sequences and y_{part} {len(known):,} "
                    "labels; expected as many"
                )
            t, *frame = rows.shape
            if frame != [NUMBERS] or not 1 <= t <= MOST_FRAMES or rows.dtype.kind != "f":
                raise DataError(
                    f"{path}: x_{part} is {rows.dtype} {(rows.count, *rows.shape)}; "
                    f"expected float32 (sequences, 300, {NUMBERS})"
                )
        self._label = np.concatenate(labels)
        self._first_of_test = len(labels[0])
        if len(self._label) == 0:
            raise DataError(f"{path} holds no sequence")
        edition = NTU60 if self._class_count == NTU60.actions else NTU120
        self.name, self.classes = edition.name, edition.classes
        self.samples = [
            f"{part}_{i:06d}"
            for part, known in zip(PARTS, labels, strict=True)
            for i in range(len(known))
        ]
        self.protocols = (Protocol(self._protocol_name(), "split", ("train",), ("test",)),)
        self.remarks = (
            f"{path.name} does not name its samples: they are called {self.samples[0]}, …, and "
            "their subjects and cameras are not known",
        )

    def read(self, position: int) -> SkeletonSequence:
        """Return the sequence at a position from 0; quickest one after the other.

        Returns
        -------
        SkeletonSequence
            One or two persons ``(m, t, 25, 3)`` in metres, without the empty frames at the end.

        Raises
        ------
        DataError
            If its numbers are damaged or all zero, or the archive is.
        """
        part = int(position >= self._first_of_test)
        at = position - part * self._first_of_test
        where = f"{self._path.name}, {self.samples[position]}"
        row = self._coordinates[part].row(at)
        t = len(row)
        persons = row.reshape(t, PERSONS, JOINTS, COORDINATES).swapaxes(0, 1)  # (m, t, v, c)
        joints = np.stack([arrays.metres(person, KINECT_V2_25, where) for person in persons])
        present = np.stack([arrays.any_joint(person) for person in joints])
        if np.array_equal(joints[0], joints[1]) or not present[1].any():
            joints, present = joints[:1], present[:1]
        seen = np.flatnonzero(present.any(axis=0))
        if len(seen) == 0:
            raise DataError(f"{where}: all its coordinates are zero; expected somebody")
        frames = int(seen[-1]) + 1
        action = self.classes[self._label[position]]
        return SkeletonSequence(
            joints=joints[:, :frames],
            present=present[:, :frames],
            topology=KINECT_V2_25,
            units="m",
            fps=FPS,
            sample=self.samples[position],
            label=action.label,
            class_name=action.name,
            class_code=action.code,
            split=PARTS[part],
            source=where,
        )

    def _labels(self, part: str) -> NDArray[np.int64]:
        rows = Rows(self._archive, f"y_{part}.npy", self._path)
        known = {NTU60.actions, NTU120.actions}
        if len(rows.shape) != 1 or rows.shape[0] not in known or rows.dtype.kind not in "fiub":
            raise DataError(
                f"{self._path}: y_{part} is {rows.dtype} {(rows.count, *rows.shape)}; "
                "expected a 1 among 60 or 120 numbers for each sequence"
            )
        if self._class_count not in (0, rows.shape[0]):
            raise DataError(
                f"{self._path}: y_train and y_test have {self._class_count} and {rows.shape[0]} "
                "classes; expected the same"
            )
        if rows.count > MOST_SEQUENCES:
            raise DataError(
                f"{self._path}: y_{part} has {rows.count:,} sequences; "
                f"expected at most {MOST_SEQUENCES:,}"
            )
        self._class_count = rows.shape[0]
        labels = []
        for i in range(rows.count):
            row = rows.row(i)
            (ones,) = np.nonzero(row == 1)
            if len(ones) != 1 or np.count_nonzero(row) != 1:
                raise DataError(
                    f"{self._path}: y_{part}[{i}] has {len(ones)} ones and "
                    f"{np.count_nonzero(row) - len(ones)} other numbers; expected a single 1"
                )
            labels.append(int(ones[0]))
        return np.array(labels, np.int64)

    def _protocol_name(self) -> str:
        words = re.split(r"[^a-z]+", self._path.stem.lower())
        return next(
            (name for called, name in _NAMED if any(re.fullmatch(called, w) for w in words)),
            "train-test",
        )
