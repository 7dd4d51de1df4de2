"""Put the arrays of a prepared data set together, part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.parts import Kind, Part, check_alike
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.protocols import Protocol


class DatasetWriter:
    """Write joints.npy, present.npy and score.npy into a folder, and gather the index.

    Parameters
    ----------
    folder
        An empty folder.
    name
        The data set's name, for messages.
    classes
        All its classes, in the order of their labels.

    Attributes
    ----------
    lines : list of dict
        The index so far, one per sequence, in its columns' order.
    digests : list of str
        The SHA-256 of the joints of each.
    """

    def __init__(self, folder: Path, name: str, classes: Sequence[ActionClass]) -> None:
        self.lines: list[dict[str, Any]] = []
        self.digests: list[str] = []
        self._folder, self._name, self._classes = folder, name, classes
        self._first_with: dict[str, str] = {}
        self._samples: set[str] = set()
        self._kind: Kind | None = None
        self._rows = 0
        self._score: _GrowingArray | None = None

    def __enter__(self) -> DatasetWriter:
        self._files = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def kind(self) -> Kind:
        """What all sequences have in common.

        Raises
        ------
        DataError
            If there is none.
        """
        if self._kind is None:
            raise DataError(
                f"{self._name}: no sequence could be read, so there is nothing to prepare"
            )
        return self._kind

    def append(self, part: Part) -> None:
        """Add sequences after those that are there.

        Raises
        ------
        DataError
            If one is of another kind, has a name that came before, or a class that there is not.
        """
        if part.kind is None:
            return
        where = part.lines[0]["source"] or part.lines[0]["sample"]
        if self._kind is None:
            self._kind = part.kind
            v, c = part.joints.shape[1:]
            self._joints = self._array("joints.npy", "<f4", (v, c))
            self._present = self._array("present.npy", "|b1", ())
        check_alike(part.kind, self._kind, where, self.lines[0]["sample"] if self.lines else where)
        rows = self._rows
        for line in part.lines:
            self._add_line(line)
        self._joints.append(part.joints)
        self._present.append(part.present)
        v = part.joints.shape[1]
        if part.score is not None and self._score is None:
            self._score = self._array("score.npy", "<f4", (v,))
            self._score.append(np.ones((rows, v), np.float32))
        if self._score is not None:
            certain = np.ones((len(part.joints), v), np.float32)
            self._score.append(certain if part.score is None else part.score)

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> _GrowingArray:
        return self._files.enter_context(_GrowingArray(self._folder / name, dtype, shape))

    def _add_line(self, line: dict[str, Any]) -> None:
        sample, label, classes = line["sample"], line["label"], self._classes
        where = line["source"] or sample
        if (
            label is None
            or not 0 <= label < len(classes)
            or classes[label].name != line["class_name"]
        ):
            raise DataError(
                f"{where}: label {label} with class {line['class_name']!r}; "
                f"expected one of the {len(classes)} classes of the data set"
            )
        if sample in self._samples:
            raise DataError(
                f"{where}: a second sequence is called {sample!r}; expected every sample once"
            )
        self._samples.add(sample)
        of_sequence = dict(line)
        digest, source = of_sequence.pop("digest"), of_sequence.pop("source")
        original = self._first_with.setdefault(digest, sample)
        self.digests.append(digest)
        self.lines.append(
            of_sequence
            | {
                "offset": self._rows,
                "duplicate_of": None if original == sample else original,
                "source": source,
            }
        )
        self._rows += line["frames"] * line["persons"]


def fingerprint(
    samples: Iterable[str],
    labels: Iterable[int],
    digests: Iterable[str],
    protocols: Iterable[Protocol],
) -> str:
    """Return the SHA-256 by which a data set is told from every other.

    Parameters
    ----------
    samples, labels, digests
        Of each sequence in turn: its name, its label, and what `tssan.parts.digest` says of its
        joints.
    protocols
        The data set's protocols.
    """
    sha = hashlib.sha256()
    for line in zip(samples, labels, digests, strict=True):
        sha.update(json.dumps(line).encode())
    sha.update(json.dumps([asdict(protocol) for protocol in protocols], sort_keys=True).encode())
    return sha.hexdigest()


class _GrowingArray:
    """An .npy file of (rows, *shape) whose number of rows is known when it is closed."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._path, self._dtype, self._shape = path, dtype, shape
        self._rows = 0

    def __enter__(self) -> _GrowingArray:
        self._file: BinaryIO = open(self._path, "wb")
        self._write_header()
        return self

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self._rows += len(rows)

    def __exit__(self, *_: object) -> None:
        # NumPy pads the header so that it keeps its length while the first axis grows.
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self._dtype, "fortran_order": False, "shape": (self._rows, *self._shape)}
        np.lib.format.write_array_header_1_0(cast(Any, self._file), header)
