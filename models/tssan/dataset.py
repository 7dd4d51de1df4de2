"""A prepared data set: one folder with all sequences in one memory-mapped array.

index.parquet   one line per sequence: who, what, seen from where, and where its joints begin
joints.npy      float32 (sum of m * t, v, c): all sequences one after the other, person by person
present.npy     bool (sum of m * t): whether that person was seen in that frame
score.npy       float32 (sum of m * t, v), only where sequences have scores
dataset.json    name, fingerprint, topology, classes, units, fps, protocols, skipped files
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan.dataset_writer import DatasetWriter, fingerprint
from tssan.errors import DataError
from tssan.parts import COUNTED, Part, digest, lay_out
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.files import Skipped
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence, Units
from tssan.skeletons.topology import Topology

FORMAT = "tssan-dataset"
VERSION = 1


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
        ``utd-mhad``, ``nw-ucla``, ``ntu60``, … or what its maker called it.
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
    subject_names : dict of int to str
        Who the subjects are, where the data set has names for them.
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
        self.subject_names = {int(n): str(w) for n, w in meta.get("subject_names", {}).items()}
        self._fingerprint: str | None = meta.get("fingerprint")

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
        line = self._line(position)
        m, t = int(line["persons"]), int(line["frames"])
        rows = slice(int(line["offset"]), int(line["offset"]) + m * t)
        v = self.joints.shape[1]
        return SkeletonSequence(
            joints=self._joints_of(line),
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
            **{column: _number(line[column]) for column in COUNTED},
        )

    def __iter__(self) -> Iterator[SkeletonSequence]:
        return (self[position] for position in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A data loader's worker maps the files itself instead of being sent their contents.
        return SkeletonDataset.open, (self.path,)

    def __repr__(self) -> str:
        return f"<SkeletonDataset {self.name}: {len(self)} sequences, {len(self.classes)} classes>"

    def _line(self, position: int) -> dict[str, Any]:
        return {column: values[position] for column, values in self._columns.items()}

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        # A line of a DataFrame takes longer to fetch than the joints that it leads to.
        return {column: self.index[column].to_numpy(object) for column in self.index.columns}

    @property
    def fingerprint(self) -> str:
        """What tells this data set from every other: a SHA-256 of names, labels, joints, protocols.

        Folders that were prepared before there was one are read through for it, once.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(
                self.index["sample"],
                self.index["label"],
                (digest(self._joints_of(self._line(i))) for i in range(len(self))),
                self._protocols.values(),
            )
        return self._fingerprint

    def _joints_of(self, line: Mapping[str, Any]) -> NDArray[np.float32]:
        m, t, start = int(line["persons"]), int(line["frames"]), int(line["offset"])
        return np.array(self.joints[start : start + m * t]).reshape(m, t, *self.joints.shape[1:])

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
                + (f"; did you mean {near[0]!r}?" if near else ": give --protocol with one of them")
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
    something in it is refused. To read many files with all cores, and to go on after an
    interruption, see `tssan.preparing.prepare_files`.

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
    parts = (lay_out([sequence]) for sequence in sequences)
    return prepare_parts(
        parts, out, name=name, classes=classes, protocols=protocols, skipped=skipped
    )


def prepare_parts(
    parts: Iterable[Part],
    out: str | os.PathLike[str],
    *,
    name: str,
    classes: Sequence[ActionClass],
    protocols: Sequence[Protocol],
    skipped: Sequence[Skipped] = (),
    subject_names: Mapping[int, str] | None = None,
    unfinished: Path | None = None,
) -> SkeletonDataset:
    """Write parts as a prepared data set and open it: `prepare` for what is laid out already.

    Parameters
    ----------
    parts
        In the order of the data set.
    out, name, classes, protocols, skipped
        As in `prepare`.
    subject_names
        Who the numbers of the subjects are, where that is known and may be kept.
    unfinished
        The folder to write into until all is there, on the same file system as `out`; by default
        one beside `out` that does not outlive an error.

    Raises
    ------
    DataError
        As in `prepare`.
    """
    folder = Path(out)
    refuse_to_overwrite(folder, name)
    with _complete_or_absent(folder, unfinished) as begun:
        with DatasetWriter(begun, name, classes) as writer:
            for part in parts:
                writer.append(part)
            kind = writer.kind
        index = _typed(pd.DataFrame(writer.lines))
        kept, described = [], []
        for protocol in protocols:
            split = _split(index, protocol)
            if len(split.train) and len(split.test):
                sizes = {"train_size": len(split.train), "test_size": len(split.test)}
                kept.append(protocol)
                described.append({**asdict(protocol), **sizes})
        index.to_parquet(begun / "index.parquet", index=False)
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "name": name,
            "fingerprint": fingerprint(index["sample"], index["label"], writer.digests, kept),
            "units": kind.units,
            "fps": kind.fps,
            "topology": kind.topology.to_dict(),
            "classes": [asdict(action) for action in classes],
            "protocols": described,
            "subject_names": {str(n): who for n, who in (subject_names or {}).items()},
            "skipped": [asdict(left_out) for left_out in skipped],
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (begun / "dataset.json").write_text(text + "\n", encoding="utf-8")
    return SkeletonDataset.open(folder)


def same_data(results: Mapping[str, Any], dataset: SkeletonDataset) -> None:
    """Refuse a data set that is not the one that a run was trained on.

    Parameters
    ----------
    results
        What the run keeps of itself; its `fingerprint` is looked at, and runs from before
        there was one are let pass.
    dataset
        The data set that is to be used with the run.

    Raises
    ------
    DataError
        If the fingerprints differ.
    """
    trained_on = results.get("fingerprint")
    if trained_on is not None and trained_on != dataset.fingerprint:
        raise DataError(
            f"{dataset.path} is not the data set that the run was trained on: its fingerprint is "
            f"{dataset.fingerprint[:12]}…, and the run's is {str(trained_on)[:12]}…; give the same "
            "folder, or prepare the same files again in the same way (the same readers, subjects, "
            "classes and protocols)"
        )


def _split(index: pd.DataFrame, protocol: Protocol) -> Split:
    value = index[protocol.by]
    train = value.isin(protocol.train).to_numpy(dtype=bool)
    test = value.isin(protocol.test).to_numpy(dtype=bool)
    if protocol.leaves_out_copies:
        original = index["duplicate_of"].fillna(index["sample"])
        test = test & ~original.isin(original[train]).to_numpy(dtype=bool)
    return Split(np.flatnonzero(train), np.flatnonzero(test))


def _typed(index: pd.DataFrame) -> pd.DataFrame:
    kinds: dict[str, str] = dict.fromkeys(COUNTED, "Int64")
    kinds |= dict.fromkeys(("label", "frames", "persons", "offset"), "int64")
    if "split" not in index:  # folders from before there was one
        index.insert(index.columns.tolist().index("frames"), "split", None)
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


def refuse_to_overwrite(folder: Path, name: str) -> None:
    """Refuse a folder that holds anything but the prepared data set of the same name.

    Raises
    ------
    DataError
        Says what it holds.
    """
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
def _complete_or_absent(folder: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """Give a folder beside `folder` to write into, which takes its place if all goes well."""
    folder = Path(os.path.realpath(folder))
    mark = uuid.uuid4().hex[:8]
    begun = unfinished or folder.with_name(f".{folder.name}.unfinished-{mark}")
    replaced = folder.with_name(f".{folder.name}.replaced-{mark}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun.mkdir()
        yield begun
        if folder.exists():
            folder.rename(replaced)
        begun.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        for leftover in (begun, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
