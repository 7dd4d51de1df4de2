"""A prepared data set: one folder with all sequences in one memory-mapped array.

index.parquet   one line per sequence: who, what, seen from where, and where its joints begin
joints.npy      float32 (sum of m * t, v, c): all sequences one after the other, person by person
present.npy     bool (sum of m * t): whether that person was seen in that frame
score.npy       float32 (sum of m * t, v), only where sequences have scores
dataset.json    name, topology, classes with aliases, units, fps, protocols, skipped files
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence, Units
from tssan.skeletons.topology import Topology

FORMAT = "tssan-dataset"
VERSION = 1

_COUNTED = ("subject", "camera", "setup", "replication")  # what a data set may not know of a video


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Split:
    """Positions in the data set, int64: what trains and what tests."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


class SkeletonDataset:
    """A prepared data set, opened with `SkeletonDataset.open`.

    ``len(dataset)`` is the number of sequences and ``dataset[i]`` the i-th as a `SkeletonSequence`;
    coordinates are read from disk when they are asked for.

    Attributes
    ----------
    path : Path
        The folder.
    name : str
        ``utd-mhad``, ``nw-ucla``, ``ntu-rgbd`` or ``synthetic``.
    topology : Topology
    classes : tuple of ActionClass
        In the order of their labels.
    units : str
        ``"m"`` or ``"image"``.
    fps : float
        Frames per second.
    index : DataFrame
        One line per sequence: sample, label, class_name, class_code, subject, camera, setup,
        replication, split, frames, persons, offset (first line in `joints`), duplicate_of, source.
        `duplicate_of` names the first sequence with the same joints, bit for bit, or is null.
    joints, present, score
        The memory-mapped arrays (sum of m * t, v, c), (sum of m * t), (sum of m * t, v) or None.
    skipped : tuple of Skipped
        What was left out when the data set was prepared.
    """

    def __init__(
        self,
        path: Path,
        meta: dict[str, Any],
        index: pd.DataFrame,
        joints: NDArray[np.float32],
        present: NDArray[np.bool_],
        score: NDArray[np.float32] | None,
    ) -> None:
        self.path = path
        self.name: str = meta["name"]
        self.topology = Topology.from_dict(meta["topology"])
        self.classes = tuple(
            ActionClass(c["label"], c["name"], c["code"], tuple(c["aliases"]))
            for c in meta["classes"]
        )
        self.units: Units = meta["units"]
        self.fps = float(meta["fps"])
        self.skipped = tuple(Skipped(s["name"], s["reason"]) for s in meta["skipped"])
        self.index = index
        self.joints = joints
        self.present = present
        self.score = score
        self._protocols = {
            p["name"]: Protocol(
                p["name"], p["by"], tuple(p["train"]), tuple(p["test"]), p["leaves_out_copies"]
            )
            for p in meta["protocols"]
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SkeletonDataset:
        """Open a folder that `prepare` wrote.

        Raises
        ------
        DataError
            If the folder is not there, is something else, or is damaged.
        """
        folder = Path(path)
        meta = _read_meta(folder)
        try:
            index = _typed(pd.read_parquet(folder / "index.parquet"))
            joints = np.load(folder / "joints.npy", mmap_mode="r", allow_pickle=False)
            present = np.load(folder / "present.npy", mmap_mode="r", allow_pickle=False)
            score = None
            if (folder / "score.npy").exists():
                score = np.load(folder / "score.npy", mmap_mode="r", allow_pickle=False)
            dataset = cls(folder, meta, index, joints, present, score)
        except KeyError as error:
            raise DataError(f"{folder} is damaged: {error} is missing; prepare it again") from None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{folder} is damaged: {error}; prepare it again") from None
        lines = int((index["frames"] * index["persons"]).sum())
        v = len(dataset.topology.joints)
        if joints.shape[:2] != (lines, v) or present.shape != (lines,):
            raise DataError(
                f"{folder} is damaged: joints.npy has shape {joints.shape} and present.npy "
                f"{present.shape}; the index needs {lines} lines of {v} joints; prepare it again"
            )
        return dataset

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> SkeletonSequence:
        """Return a sequence by its position in the index; coordinates are a copy of one's own."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"sequence {position}; {self.path} holds {len(self)}")
        line = self.index.iloc[int(position)]
        m, t = int(line["persons"]), int(line["frames"])
        rows = slice(int(line["offset"]), int(line["offset"]) + m * t)
        v, c = self.joints.shape[1:]
        return SkeletonSequence(
            joints=np.array(self.joints[rows]).reshape(m, t, v, c),
            present=np.array(self.present[rows]).reshape(m, t),
            topology=self.topology,
            units=self.units,
            fps=self.fps,
            sample=line["sample"],
            label=int(line["label"]),
            class_name=line["class_name"],
            class_code=line["class_code"],
            score=None if self.score is None else np.array(self.score[rows]).reshape(m, t, v),
            split=line["split"],
            source=line["source"],
            **{column: _number(line[column]) for column in _COUNTED},
        )

    def __iter__(self) -> Iterator[SkeletonSequence]:
        return (self[position] for position in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A data loader's worker maps the files itself instead of being sent their contents.
        return SkeletonDataset.open, (self.path,)

    def __repr__(self) -> str:
        return f"<SkeletonDataset {self.name}: {len(self)} sequences, {len(self.classes)} classes>"

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocols; the first is the default."""
        return tuple(self._protocols)

    def protocol(self, name: str | None = None) -> Protocol:
        """Return the rule of a protocol; without a name that of the default.

        Raises
        ------
        DataError
            If the data set has no such protocol.
        """
        if not self._protocols:
            raise DataError(f"{self.path} has no protocol: none of {self.name} fits what it holds")
        if name is None:
            return next(iter(self._protocols.values()))
        if name not in self._protocols:
            near = get_close_matches(name, self._protocols, n=1)
            raise DataError(
                f"{self.name} has no protocol {name!r}; it has {', '.join(self._protocols)}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return self._protocols[name]

    def split(self, protocol: str | None = None) -> Split:
        """Return which sequences train and which test.

        Parameters
        ----------
        protocol
            One of `protocols`; without it the first.

        Raises
        ------
        DataError
            If the data set has no such protocol.
        """
        return _split(self.index, self.protocol(protocol))


def prepare(
    sequences: Iterable[SkeletonSequence],
    out: str | os.PathLike[str],
    *,
    name: str,
    classes: Sequence[ActionClass],
    protocols: Sequence[Protocol],
    skipped: Sequence[Skipped] = (),
) -> SkeletonDataset:
    """Write sequences as a prepared data set and open it.

    The folder appears when it is complete and not before: an error or an interruption leaves what
    was there as it was. A prepared data set of the same name is replaced; any other folder with
    something in it is refused.

    Parameters
    ----------
    sequences
        Taken one at a time, so that the whole need not fit into memory.
    out
        The folder to write.
    name
        The data set's name.
    classes
        All its classes, in the order of their labels.
    protocols
        Those that leave sequences on both sides are kept.
    skipped
        Files that were left out; looked at when `sequences` has come to its end.

    Raises
    ------
    DataError
        If `out` cannot be written, there is no sequence, two have the same name, or they differ in
        topology, units, coordinates or frame rate.
    """
    folder = Path(out)
    _refuse_to_overwrite(folder, name)
    with _complete_or_absent(folder) as unfinished:
        meta, index = _write_arrays(sequences, unfinished, name, classes)
        kept = []
        for protocol in protocols:
            split = _split(index, protocol)
            if len(split.train) and len(split.test):
                sizes = {"train_size": len(split.train), "test_size": len(split.test)}
                kept.append({**asdict(protocol), **sizes})
        index.to_parquet(unfinished / "index.parquet", index=False)
        meta |= {
            "classes": [asdict(action) for action in classes],
            "protocols": kept,
            "skipped": [asdict(left_out) for left_out in skipped],
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (unfinished / "dataset.json").write_text(text + "\n", encoding="utf-8")
    return SkeletonDataset.open(folder)


def _write_arrays(
    sequences: Iterable[SkeletonSequence],
    folder: Path,
    name: str,
    classes: Sequence[ActionClass],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Write the arrays; return what they have in common and the index."""
    rows: list[dict[str, Any]] = []
    samples: set[str] = set()
    first_with: dict[bytes, str] = {}
    first: SkeletonSequence | None = None
    offset = 0
    with ExitStack() as stack:
        for sequence in sequences:
            if first is None:
                first = sequence
                v, c = sequence.joints.shape[2:]
                joints = stack.enter_context(_GrowingArray(folder / "joints.npy", "<f4", (v, c)))
                present = stack.enter_context(_GrowingArray(folder / "present.npy", "|b1", ()))
                score: _GrowingArray | None = None
            _check_alike(sequence, first, classes)
            if sequence.sample in samples:
                raise DataError(
                    f"{sequence.source or name}: a second sequence is called {sequence.sample!r}; "
                    "expected every sample once"
                )
            samples.add(sequence.sample)
            m, t = sequence.present.shape
            joints.append(sequence.joints.reshape(m * t, v, c))
            present.append(sequence.present.reshape(m * t))
            if sequence.score is not None and score is None:
                score = stack.enter_context(_GrowingArray(folder / "score.npy", "<f4", (v,)))
                score.append(np.ones((offset, v), np.float32))
            if score is not None:
                certain = np.ones((m, t, v), np.float32)
                given = certain if sequence.score is None else sequence.score
                score.append(given.reshape(m * t, v))
            digest = hashlib.sha256(repr(sequence.joints.shape).encode())
            digest.update(np.ascontiguousarray(sequence.joints).data)
            original = first_with.setdefault(digest.digest(), sequence.sample)
            rows.append(
                {
                    "sample": sequence.sample,
                    "label": sequence.label,
                    "class_name": sequence.class_name,
                    "class_code": sequence.class_code,
                    **{column: getattr(sequence, column) for column in _COUNTED},
                    "split": sequence.split,
                    "frames": t,
                    "persons": m,
                    "offset": offset,
                    "duplicate_of": None if original == sequence.sample else original,
                    "source": sequence.source,
                }
            )
            offset += m * t
    if first is None:
        raise DataError(f"{name}: no sequence could be read, so there is nothing to prepare")
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "units": first.units,
        "fps": first.fps,
        "topology": first.topology.to_dict(),
    }
    return meta, _typed(pd.DataFrame(rows))


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


def _check_alike(
    sequence: SkeletonSequence, first: SkeletonSequence, classes: Sequence[ActionClass]
) -> None:
    where = sequence.source or sequence.sample

    def kind(of: SkeletonSequence) -> tuple[Any, ...]:
        return of.topology, of.units, of.joints.shape[3], of.fps

    if kind(sequence) != kind(first):
        raise DataError(
            f"{where}: {_describe(sequence)}; expected {_describe(first)} as in {first.sample}"
        )
    label = sequence.label
    if label is None or not 0 <= label < len(classes) or classes[label].name != sequence.class_name:
        raise DataError(
            f"{where}: label {label} with class {sequence.class_name!r}; "
            f"expected one of the {len(classes)} classes of the data set"
        )


def _describe(sequence: SkeletonSequence) -> str:
    return (
        f"{sequence.topology.name} in {sequence.joints.shape[3]} coordinates, "
        f"units {sequence.units}, {sequence.fps:g} frames per second"
    )


def _split(index: pd.DataFrame, protocol: Protocol) -> Split:
    value = index[protocol.by]
    train = value.isin(protocol.train).to_numpy(dtype=bool)
    test = value.isin(protocol.test).to_numpy(dtype=bool)
    if protocol.leaves_out_copies:
        original = index["duplicate_of"].fillna(index["sample"])
        test &= ~original.isin(original[train]).to_numpy(dtype=bool)
    return Split(np.flatnonzero(train), np.flatnonzero(test))


def _typed(index: pd.DataFrame) -> pd.DataFrame:
    kinds: dict[str, str] = dict.fromkeys(_COUNTED, "Int64")
    kinds |= dict.fromkeys(("label", "frames", "persons", "offset"), "int64")
    if "split" not in index:  # folders from before there was one
        index.insert(index.columns.get_loc("frames"), "split", None)
    words = {column: index[column].astype("object") for column in ("split", "duplicate_of")}
    return index.astype(kinds).assign(
        **{column: kept.where(kept.notna(), None) for column, kept in words.items()}
    )


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _read_meta(folder: Path) -> dict[str, Any]:
    right = "expected a folder that `tssan-viz prepare` wrote"
    if not folder.exists():
        raise DataError(f"{folder} does not exist; {right}")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; {right}")
    try:
        meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        held = sorted(entry.name for entry in folder.iterdir())
        if not held:
            raise DataError(f"{folder} is empty; {right}") from None
        found = ", ".join(held[:3]) + (", …" if len(held) > 3 else "")
        raise DataError(f"{folder} holds {found} but no dataset.json; {right}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'dataset.json'}: {error}; {right}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{folder / 'dataset.json'} does not say format {FORMAT!r}; {right}")
    if meta.get("version") != VERSION:
        raise DataError(
            f"{folder} is a data set of version {meta.get('version')}; this tssan reads version "
            f"{VERSION}: prepare it again"
        )
    return meta


def _refuse_to_overwrite(folder: Path, name: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; expected the name of a folder to write")
    if any(folder.iterdir()):
        try:
            there = _read_meta(folder)["name"]
        except DataError:
            raise DataError(
                f"{folder} holds something that is not a prepared data set; "
                "expected a new or empty folder, or one to prepare again"
            ) from None
        if there != name:
            raise DataError(
                f"{folder} holds the data set {there}, which {name} does not replace; "
                "expected another folder"
            )


@contextmanager
def _complete_or_absent(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` to write into, which takes its place if all goes well."""
    folder = Path(os.path.realpath(folder))
    mark = uuid.uuid4().hex[:8]
    unfinished = folder.with_name(f".{folder.name}.unfinished-{mark}")
    replaced = folder.with_name(f".{folder.name}.replaced-{mark}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        yield unfinished
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
