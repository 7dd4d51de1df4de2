"""Parts of a data set on the way to being prepared: some sequences laid one after the other.

A part is what one process reads at a time, what is kept when preparing is interrupted, and what the
prepared arrays are put together from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError, LeftOut
from tssan.skeletons.files import SkeletonFile, Skipped
from tssan.skeletons.sequence import Reader, SkeletonSequence, Units
from tssan.skeletons.topology import Topology

COUNTED = ("subject", "camera", "setup", "replication")  # what a data set may not know of a video


@dataclass(frozen=True)
class Kind:
    """What all sequences of a data set have in common."""

    topology: Topology
    units: Units
    coordinates: int
    fps: float

    @classmethod
    def of(cls, sequence: SkeletonSequence) -> Kind:
        """Return what a sequence is."""
        return cls(sequence.topology, sequence.units, sequence.joints.shape[3], sequence.fps)

    def __str__(self) -> str:
        return (
            f"{self.topology.name} in {self.coordinates} coordinates, units {self.units}, "
            f"{self.fps:g} frames per second"
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Sequences laid one after the other, and files that could not be read.

    Attributes
    ----------
    lines
        One per sequence: what the index says of it, its offset apart, and `digest`, the SHA-256 of
        its joints.
    joints, present, score
        float32 (l, v, c), bool (l,), float32 (l, v) or None, where l goes over the frames of each
        person of each sequence in turn.
    kind
        What the sequences have in common; None when there is none.
    left_out, bad
        Files that the data set itself says to leave out, and files that cannot be read.
    """

    lines: list[dict[str, Any]]
    joints: NDArray[np.float32]
    present: NDArray[np.bool_]
    score: NDArray[np.float32] | None
    kind: Kind | None
    left_out: tuple[Skipped, ...] = ()
    bad: tuple[Skipped, ...] = ()

    def save(self, path: Path) -> None:
        """Write the part; the file appears when it is complete."""
        about = {
            "lines": self.lines,
            "kind": None if self.kind is None else asdict(self.kind),
            "left_out": [asdict(skipped) for skipped in self.left_out],
            "bad": [asdict(skipped) for skipped in self.bad],
        }
        arrays: dict[str, NDArray[Any]] = {
            "joints": self.joints,
            "present": self.present,
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        }
        if self.score is not None:
            arrays["score"] = self.score
        unfinished = path.with_suffix(f".{os.getpid()}")
        with open(unfinished, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Part:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            kind = about["kind"]
            if kind is not None:
                kind = Kind(**(kind | {"topology": Topology.from_dict(kind["topology"])}))
            return cls(
                lines=about["lines"],
                joints=arrays["joints"],
                present=arrays["present"],
                score=arrays.get("score"),
                kind=kind,
                left_out=tuple(Skipped(**skipped) for skipped in about["left_out"]),
                bad=tuple(Skipped(**skipped) for skipped in about["bad"]),
            )


def lay_out(
    sequences: Sequence[SkeletonSequence],
    left_out: Sequence[Skipped] = (),
    bad: Sequence[Skipped] = (),
) -> Part:
    """Lay sequences one after the other.

    Raises
    ------
    DataError
        If they differ in topology, units, coordinates or frame rate.
    """
    kind = Kind.of(sequences[0]) if sequences else None
    lines, joints, present, score = [], [], [], []
    scored = any(sequence.score is not None for sequence in sequences)
    for sequence in sequences:
        check_alike(
            Kind.of(sequence), kind, sequence.source or sequence.sample, sequences[0].sample
        )
        m, t, v, c = sequence.joints.shape
        joints.append(np.ascontiguousarray(sequence.joints).reshape(m * t, v, c))
        present.append(sequence.present.reshape(m * t))
        if scored:
            certain = np.ones((m, t, v), np.float32)
            score.append((certain if sequence.score is None else sequence.score).reshape(m * t, v))
        lines.append(
            {
                "sample": sequence.sample,
                "label": sequence.label,
                "class_name": sequence.class_name,
                "class_code": sequence.class_code,
                **{column: getattr(sequence, column) for column in COUNTED},
                "split": sequence.split,
                "frames": t,
                "persons": m,
                "source": sequence.source,
                "digest": digest(sequence.joints),
            }
        )
    nothing = np.zeros((0, 0, 0), np.float32)
    return Part(
        lines=lines,
        joints=np.concatenate(joints) if joints else nothing,
        present=np.concatenate(present) if present else np.zeros(0, np.bool_),
        score=np.concatenate(score) if score else None,
        kind=kind,
        left_out=tuple(left_out),
        bad=tuple(bad),
    )


def check_alike(kind: Kind, first: Kind | None, where: str, first_sample: str) -> None:
    """Refuse a sequence that is of another kind than the first one.

    Raises
    ------
    DataError
        Says what it is and what the first one was.
    """
    if kind != first:
        raise DataError(f"{where}: {kind}; expected {first} as in {first_sample}")


def digest(joints: NDArray[np.float32]) -> str:
    """Return the SHA-256 of a sequence's joints (m, t, v, c) and their shape."""
    sha = hashlib.sha256(repr(joints.shape).encode())
    sha.update(np.ascontiguousarray(joints, dtype="<f4").data)
    return sha.hexdigest()


def read_part(files: Sequence[SkeletonFile], read: Reader, path: Path) -> list[Skipped]:
    """Read some files and keep them as a part; return those that could not be read.

    They are noted in the part too: whether they end the work is decided where parts come together.
    """
    sequences: list[SkeletonSequence] = []
    left_out: list[Skipped] = []
    bad: list[Skipped] = []
    for file in files:
        try:
            sequences.append(read(file.read(), file.name))
        except LeftOut as error:
            left_out.append(Skipped(file.name, str(error)))
        except DataError as error:
            bad.append(Skipped(file.name, str(error)))
    lay_out(sequences, left_out, bad).save(path)
    return bad
