"""Cells on the disk: one layer's sums, how they are written, read, and checked when they are read.

Below ``cells/<run>/<rows>/<metric>/`` of a store lies for each layer a small JSON, which names the
files of that layer and is put in their place last, and beside it::

    …units.npy    (h, r, k·d)  float32  mean unit vectors of each subject × class
    …sums.npy     (h, g, k·d)  float32  plain sums of each subject × class × camera
    …totals.npy   (h, s, k·d)  float32  plain sums of each subject
    …gram.npy     (r, r, h)    float32  similarities of the subject × class cells
    …index.npz                          which cells and groups these are, counts, and checksums

Files never change: a later version has other names. Axis letters: r cells, g groups (a cell and a
camera), s subjects, h heads, k segments, d length of a unit vector.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tssan_viz.store.durable import write_atomically
from tssan_viz.store.places import Place, beside
from tssan_viz.store.schema import run_folder

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore

FORMAT = 1
BY_HEAD = ("units", "sums", "totals")


class DamagedCells(Exception):
    """A file of kept cells is not what was written."""


@dataclass(frozen=True, eq=False)
class Index:
    """What the sums of a layer are sums of.

    Attributes
    ----------
    cells : (r, 2) int64
        Subject and label of each cell, sorted.
    digests : (r,) uint64
        Of the rows that each cell was made of.
    rows : (r,) int64
        How many these are.
    segments : (k,) int64
    groups : (g, 2) int64
        The cell, as a position, and the camera (−1: none) of each sum, sorted.
    present : (h, r, k) bool
        Where a cell has a unit vector.
    counts : (h, g, k) int32
        How many unit vectors are in each sum.
    units, sums, totals : (h, …) uint32
        Checksums of each head's lines.
    gram : (r,) uint32
        Checksums of the lines of the Gram matrix; empty where there is none.
    """

    cells: NDArray[np.int64]
    digests: NDArray[np.uint64]
    rows: NDArray[np.int64]
    segments: NDArray[np.int64]
    groups: NDArray[np.int64]
    present: NDArray[np.bool_]
    counts: NDArray[np.int32]
    units: NDArray[np.uint32]
    sums: NDArray[np.uint32]
    totals: NDArray[np.uint32]
    gram: NDArray[np.uint32]

    @property
    def subjects(self) -> NDArray[np.int64]:
        """The subjects of `totals`, sorted."""
        return np.unique(self.cells[:, 0])


def layer_name(stream: str, layer: int) -> str:
    """Return what the files of a layer are called by."""
    return f"{stream}-layer{layer}"


def cells_folder(store: Place, run: str) -> Path:
    """Return where the kept cells of a run lie: in the store, or for a bucket on this machine."""
    return beside(store) / "cells" / run_folder(run)


@dataclass(frozen=True, eq=False)
class KeptLayer:
    """The kept cells of one layer; what is read of them is compared with its checksums.

    Attributes
    ----------
    described : dict
        The JSON: what the cells are of.
    index : Index
    """

    described: dict[str, Any]
    index: Index
    _files: dict[str, Path]
    _arrays: dict[str, NDArray[np.float32]]

    @property
    def length(self) -> int:
        """How long a unit vector is."""
        return self._arrays["units"].shape[2] // len(self.index.segments)

    def read(
        self, what: str, heads: Sequence[int], lines: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Return lines of ``units``, ``sums`` or ``totals`` of heads (from 0): (h, lines, k, d).

        Raises
        ------
        DamagedCells
            One of them is not what was written.
        """
        array, checksums = self._arrays[what], getattr(self.index, what)
        out = np.empty((len(heads), len(lines), array.shape[2]), np.float32)
        for i, head in enumerate(heads):
            out[i] = array[head, lines]
            for values, checksum in zip(out[i], checksums[head, lines].tolist(), strict=True):
                if zlib.crc32(values) != checksum:
                    raise _damaged(self._files[what])
        return out.reshape(len(heads), len(lines), len(self.index.segments), self.length)

    def gram(
        self, lines: NDArray[np.integer], columns: NDArray[np.integer], heads: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return the similarities of some cells with others: (lines, columns, h).

        Raises
        ------
        DamagedCells
            They are not what was written.
        """
        array = self._arrays["gram"]
        for i, checksum in zip(lines.tolist(), self.index.gram[lines].tolist(), strict=True):
            if zlib.crc32(array[i].data) != checksum:
                raise _damaged(self._files["gram"])
        if not _is_all(lines, array.shape[0]):
            array = array[lines]
        if not _is_all(columns, array.shape[1]):
            array = array[:, columns]
        return array if _is_all(heads, array.shape[2]) else array[..., list(heads)]

    def release(self) -> None:
        """Give back the pages that were read: the system keeps them, and no process counts them.

        Who answers for hours would otherwise hold the greatest part of the files.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for array in self._arrays.values():
                if isinstance(array.base, np.memmap):
                    array.base._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def check(self) -> list[Path]:
        """Return the files that are not what was written, all of them read."""
        damaged = []
        heads = range(self.index.present.shape[0])
        for what in self._arrays:
            try:
                if what == "gram":
                    every = np.arange(len(self.index.cells))
                    self.gram(every, every, heads)
                else:
                    for head in heads:
                        lines = getattr(self.index, what).shape[1]
                        self.read(what, [head], np.arange(lines))
            except DamagedCells:
                damaged.append(self._files[what])
        return damaged


def _is_all(chosen: Any, n: int) -> bool:
    return len(chosen) == n and bool((np.asarray(chosen) == np.arange(n)).all())


def _damaged(file: Path) -> DamagedCells:
    return DamagedCells(f"{file} is not what was written")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def open_layer(folder: Path, name: str) -> KeptLayer | None:
    """Return the kept cells of a layer; None where there are none, or of another format.

    Raises
    ------
    DamagedCells
        What is there is not what was written.
    """
    for attempt in (1, 2, 3):
        described = _described(folder / f"{name}.json")
        if described is None:
            return None
        files = {what: folder / file for what, file in described["files"].items()}
        try:
            return _opened(described, files)
        except FileNotFoundError as error:
            # Another process may just have put a newer version in its place.
            if attempt == 3:
                raise DamagedCells(f"{error.filename} is gone") from None
    return None


def _described(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        described = json.loads(text)
        digest = described.pop("digest")
        if digest != _digest(_as_json(described).encode()):
            raise _damaged(path)
        return described if described["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None


def _as_json(described: dict[str, Any]) -> str:
    return json.dumps(described, indent=1, sort_keys=True)


def _opened(described: dict[str, Any], files: dict[str, Path]) -> KeptLayer:
    data = files["index"].read_bytes()
    if _digest(data) != described["index_digest"]:
        raise _damaged(files["index"])
    with np.load(io.BytesIO(data)) as stored:
        index = Index(**{field.name: stored[field.name] for field in fields(Index)})
    arrays = {}
    for what, file in files.items():
        if what == "index":
            continue
        try:
            arrays[what] = np.asarray(np.load(file, mmap_mode="r"))
        except (ValueError, EOFError, zipfile.BadZipFile):
            raise _damaged(file) from None
        h, r = index.present.shape[:2]
        expected = (r, r, h) if what == "gram" else getattr(index, what).shape
        if arrays[what].shape[: len(expected)] != expected or arrays[what].dtype != np.float32:
            raise _damaged(file)
    return KeptLayer(described, index, files, arrays)


class LayerWriter:
    """Writes the cells of a layer, head by head, from several threads at once.

    Nothing of it is seen by others before `finish`; `abandon` leaves nothing behind.

    Parameters
    ----------
    folder, name
        Where, and what the layer is called.
    cells, digests, rows, segments, groups
        As in `Index`.
    heads, length
        How many heads, and the length of a unit vector.
    compared
        Whether there is a Gram matrix.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        cells: NDArray[np.int64],
        digests: NDArray[np.uint64],
        rows: NDArray[np.int64],
        segments: NDArray[np.int64],
        groups: NDArray[np.int64],
        heads: int,
        length: int,
        compared: bool,
    ) -> None:
        r, g, k = len(cells), len(groups), len(segments)
        lines = {"units": r, "sums": g, "totals": len(np.unique(cells[:, 0]))}
        checksums = {what: np.zeros((heads, n), np.uint32) for what, n in lines.items()}
        self._index = Index(
            cells=cells,
            digests=digests,
            rows=rows,
            segments=segments,
            groups=groups,
            present=np.zeros((heads, r, k), bool),
            counts=np.zeros((heads, g, k), np.int32),
            gram=np.zeros(r if compared else 0, np.uint32),
            **checksums,
        )
        self._folder, self._name = folder, name
        self._gram = np.empty((r, r, heads), np.float32) if compared else None
        token = os.urandom(4).hex()
        kinds = {"index": "npz", **dict.fromkeys(lines, "npy")}
        if compared:
            kinds["gram"] = "npy"
        self._paths = {
            what: folder / f"{name}-{token}-{what}.{kind}" for what, kind in kinds.items()
        }
        self._files: dict[str, BinaryIO] = {}
        self._starts: dict[str, int] = {}
        self._width = k * length
        try:
            for what, n in lines.items():
                file = self._files[what] = self._paths[what].open("wb")
                shape = (heads, n, self._width)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.flush()
                self._starts[what] = file.tell()
        except BaseException:
            self.abandon()
            raise

    def put(
        self,
        head: int,
        *,
        units: NDArray[np.float32],
        sums: NDArray[np.float32],
        totals: NDArray[np.float32],
        present: NDArray[np.bool_],
        counts: NDArray[np.number],
        gram: NDArray[np.float32] | None,
    ) -> None:
        """Write one head (from 0): (r, k, d), (g, k, d), (s, k, d), (r, k), (g, k), (r, r)."""
        for what, values in (("units", units), ("sums", sums), ("totals", totals)):
            lines = np.ascontiguousarray(values.reshape(len(values), -1))
            getattr(self._index, what)[head] = [zlib.crc32(line.data) for line in lines]
            self._write(what, self._starts[what] + head * lines.nbytes, lines)
        self._index.present[head] = present
        self._index.counts[head] = counts
        if self._gram is not None:
            self._gram[:, :, head] = gram

    def _write(self, what: str, offset: int, values: NDArray[np.float32]) -> None:
        rest = values.data.cast("B")
        while rest:
            written = os.pwrite(self._files[what].fileno(), rest, offset)
            rest, offset = rest[written:], offset + written

    def finish(self, described: dict[str, Any]) -> None:
        """Put the version in its place, and drop the files of the one before.

        Nothing waits for the disk: what a power loss takes of it does not fit its checksums when it
        is read, and is made anew.
        """
        if self._gram is not None:
            self._index.gram[:] = [zlib.crc32(line.data) for line in self._gram]
            with self._paths["gram"].open("wb") as file:
                np.save(file, self._gram)
            self._gram = None
        stored = io.BytesIO()
        np.savez(
            stored, **{field.name: getattr(self._index, field.name) for field in fields(Index)}
        )
        self._paths["index"].write_bytes(stored.getvalue())
        self._close()
        whole = {
            **described,
            "format": FORMAT,
            "files": {what: path.name for what, path in self._paths.items()},
            "index_digest": _digest(stored.getvalue()),
        }
        whole["digest"] = _digest(_as_json(whole).encode())
        # From here on they may be in use; what is left of an interruption goes with the next one.
        paths, self._paths = self._paths, {}
        write_atomically(self._folder / f"{self._name}.json", _as_json(whole))
        for other in self._folder.glob(f"{self._name}-*"):
            if other not in paths.values():
                other.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Take away what was written, unless it was put in its place."""
        self._close()
        for path in self._paths.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()


def kept_layers(store: Place, run: str) -> Iterator[tuple[Path, str]]:
    """Go through the layers of a run that are kept: their folders and names."""
    for described in sorted(cells_folder(store, run).glob("*/*/*.json")):
        yield described.parent, described.stem


def kept_cells_faults(store: AttentionStore, run: str) -> list[str]:
    """Compare all kept cells of a run with their digests.

    Returns
    -------
    list of str
        What is damaged, each with its place. A comparison does not use it and makes it anew.
    """
    found = []
    anew = "it is not used, and made anew at the next comparison"
    for folder, name in kept_layers(store.path, run):
        try:
            kept = open_layer(folder, name)
        except DamagedCells as error:
            found.append(f"{error}; {anew}")
            continue
        if kept is not None:
            found += [f"{file} is not what was written; {anew}" for file in kept.check()]
    return found
