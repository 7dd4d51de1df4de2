"""The two kinds of file of the plain format, `.npz` and Parquet, behind one interface.

Both are read a sequence at a time. What a file says of its sizes is checked against its length
before anything is read, since a small file may claim, or unpack to, any amount of numbers.
"""

from __future__ import annotations

import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons import files
from tssan.skeletons.npz import Rows

COORDINATES = ("joints", "present", "score")
LINES = ("label", "sample", "subject", "camera", "setup", "replication", "split", "frames")
CONSTANTS = ("topology", "units", "fps", "name")
KEYS = (*COORDINATES, *LINES, "persons", "class_name", "class_names", *CONSTANTS)
MOST_SEQUENCE_BYTES = 16 * 2**20  # of one sequence: half an hour of two people
SMALL_BYTES = 16 * 2**20  # of everything but coordinates, beside twice the file's own size


class Source(ABC):
    """A file of the plain format.

    Attributes
    ----------
    path : Path
    keys : tuple of str
        What the file holds.
    count : int
        How many sequences.
    """

    path: Path
    keys: tuple[str, ...]
    count: int

    @abstractmethod
    def column(self, key: str) -> NDArray[Any]:
        """Return one value per sequence, numbers or text."""

    @abstractmethod
    def constant(self, key: str) -> Any:
        """Return the value that holds for the whole file."""

    @abstractmethod
    def texts(self, key: str) -> list[str]:
        """Return a list of words that has a length of its own."""

    @abstractmethod
    def check_shapes(self, joints: int) -> None:
        """Refuse a file whose arrays do not fit each other, or so many joints, as far as they tell.

        What only the sequences themselves tell is said when they are read.
        """

    @abstractmethod
    def sequences(self, start: int, joints: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Go through the sequences from one on.

        Each is a dictionary of joints (m, t, v, c), and what there is of present (m, t) and score
        (m, t, v).
        """

    def wrong(self, key: str, found: str, expected: str, row: int | None = None) -> DataError:
        """Return the error that says which key, in which row, is what, and what would be right."""
        where = f"{self.path}: {key}" + ("" if row is None else f", row {row}")
        return DataError(f"{where}: {found}; expected {expected}")

    def check_keys(self) -> None:
        """Refuse a file without joints or label, or with a key that means nothing."""
        for key in self.keys:
            if key not in KEYS:
                near = get_close_matches(key, KEYS, n=1)
                raise DataError(
                    f"{self.path}: unknown key {key!r}"
                    + (f"; did you mean {near[0]!r}?" if near else "")
                    + f" There are {', '.join(KEYS)}"
                )
        for key in ("joints", "label"):
            if key not in self.keys:
                held = ", ".join(self.keys) or "nothing"
                raise DataError(
                    f"{self.path}: the key {key!r} is missing; it holds {held}. A file of "
                    "skeletons has at least joints and label (tssan-viz prepare plain --help)"
                )

    def check_count(self) -> None:
        """Refuse a file that has no sequence, or claims more than its length can hold."""
        if self.count < 1:
            raise DataError(f"{self.path}: joints has no sequence; expected at least one")
        size = self.path.stat().st_size
        if self.count > 10_000 + size // 8:
            raise self.wrong("joints", f"{self.count:,} sequences in {size:,} bytes", "fewer")

    def check_size(self, numbers: int, row: int) -> None:
        """Refuse a sequence that would fill the memory."""
        if numbers * 8 > MOST_SEQUENCE_BYTES:
            raise self.wrong(
                "joints",
                f"{numbers:,} coordinates in one sequence",
                f"at most {MOST_SEQUENCE_BYTES // 8:,}; cut long recordings into sequences",
                row,
            )


class NpzSource(Source):
    """The plain format as NumPy's archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except Exception as error:  # on damaged archives it raises whatever it stumbles over
            raise DataError(f"{path} cannot be read as an .npz archive: {error}") from None
        self.keys = tuple(name.removesuffix(".npy") for name in self._archive.namelist())
        self.check_keys()
        self._budget = SMALL_BYTES + 2 * path.stat().st_size
        self._joints = self._rows("joints")
        self._lines = len(self._joints.shape) == 2
        if len(self._joints.shape) not in (2, 3, 4):
            raise self.wrong(
                "joints",
                f"shape {(self._joints.count, *self._joints.shape)}",
                "(n, t, v, c), (n, m, t, v, c), or (l, v, c) with `frames`",
            )
        if self._lines:
            if "frames" not in self.keys:
                raise DataError(
                    f"{path}: joints has shape {(self._joints.count, *self._joints.shape)}, that "
                    "is all frames one after the other, and `frames` is missing, which says how "
                    "many of them each sequence has"
                )
            self.count = self._rows("frames").count
        else:
            self.count = self._joints.count
        self.check_count()

    def _rows(self, key: str, **options: Any) -> Rows:
        return Rows(self._archive, f"{key}.npy", self.path, **options)

    def column(self, key: str) -> NDArray[Any]:
        """Return one value per sequence, numbers or text."""
        values = self._small(key, "fiubUS")
        if values.ndim != 1 or len(values) != self.count:
            raise self.wrong(key, f"shape {values.shape}", f"({self.count},), one per sequence")
        return values

    def constant(self, key: str) -> Any:
        """Return the value that holds for the whole file."""
        values = self._small(key, "fiuUS", scalar=True)
        if values.size != 1:
            raise self.wrong(key, f"shape {values.shape}", "a single value")
        return values.reshape(-1)[0].item()

    def texts(self, key: str) -> list[str]:
        """Return a list of words that has a length of its own."""
        values = self._small(key, "US")
        if values.ndim != 1:
            raise self.wrong(key, f"shape {values.shape}", "a list of names")
        return [str(value) for value in text(values)]

    def _small(self, key: str, kinds: str, **options: Any) -> NDArray[Any]:
        rows = self._rows(key, kinds=kinds, **options)
        self._budget -= rows.count * math.prod(rows.shape) * rows.dtype.itemsize
        if self._budget < 0:
            raise self.wrong(
                key,
                f"{rows.dtype} {(rows.count, *rows.shape)} takes too much memory beside the rest",
                "one short value per sequence",
            )
        return rows.rows(0, rows.count)

    def check_shapes(self, joints: int) -> None:
        """Refuse a file whose arrays do not fit each other, or so many joints."""
        self._arrays(joints)
        _ = self._lengths

    def sequences(self, start: int, joints: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Go through the sequences from one on."""
        arrays = self._arrays(joints)
        frames, persons = self._lengths
        if not self._lines:
            yield from self._equally_long(arrays, frames, start)
            return
        assert frames is not None
        offset = int((frames * persons)[:start].sum())
        for row in range(start, self.count):
            m, t = int(persons[row]), int(frames[row])
            self.check_size(m * t * math.prod(self._joints.shape), row)
            yield {
                key: rows.rows(offset, m * t).reshape(m, t, *rows.shape)
                for key, rows in arrays.items()
            }
            offset += m * t

    def _arrays(self, joints: int) -> dict[str, Rows]:
        """Return joints, and what there is of present and score, their shapes checked."""
        arrays = {"joints": self._joints}
        for key in ("present", "score"):
            if key in self.keys:
                arrays[key] = self._rows(key)
        v = self._joints.shape[-2]
        if v != joints:
            raise self.wrong("joints", f"{v} joints", f"{joints}, as the topology has")
        short = {"joints": self._joints.shape, "score": self._joints.shape[:-1]}
        short["present"] = self._joints.shape[:-2]
        for key, rows in arrays.items():
            if rows.count != self._joints.count or rows.shape != short[key]:
                raise self.wrong(
                    key,
                    f"shape {(rows.count, *rows.shape)}",
                    f"{(self._joints.count, *short[key])}, as joints is "
                    f"{(self._joints.count, *self._joints.shape)}",
                )
        return arrays

    @cached_property
    def _lengths(self) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Frames, None where all sequences have as many as joints; and persons."""
        frames = whole(self, "frames", 1) if "frames" in self.keys else None
        if not self._lines:
            t = self._joints.shape[0 if len(self._joints.shape) == 3 else 1]
            if frames is not None and (frames > t).any():
                row = int(np.argmax(frames > t))
                raise self.wrong("frames", str(frames[row]), f"at most {t}, as joints has", row)
            return frames, np.ones(self.count, np.int64)
        assert frames is not None
        if "persons" in self.keys:
            persons = whole(self, "persons", 1)
        else:
            persons = np.ones(self.count, np.int64)
        if (total := int((frames * persons).sum())) != self._joints.count:
            raise self.wrong(
                "frames",
                f"{'frames × persons' if 'persons' in self.keys else 'frames'} add up to {total:,}",
                f"{self._joints.count:,}, as joints has",
            )
        return frames, persons

    def _equally_long(
        self, arrays: dict[str, Rows], frames: NDArray[np.int64] | None, start: int
    ) -> Iterator[dict[str, NDArray[Any]]]:
        of_one = len(self._joints.shape) == 3
        t = self._joints.shape[0 if of_one else 1]
        self.check_size(math.prod(self._joints.shape), 0)
        for row in range(start, self.count):
            length = t if frames is None else int(frames[row])
            values = {key: rows.row(row) for key, rows in arrays.items()}
            if of_one:
                values = {key: value[None] for key, value in values.items()}
            yield {key: value[:, :length] for key, value in values.items()}


class ParquetSource(Source):
    """The plain format as a table with one line per sequence."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            # A page at a time, instead of a whole column of a row group.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16)
            self.keys = tuple(self._file.schema_arrow.names)
            self.count = self._file.metadata.num_rows
            self._check_values()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a Parquet file: {_line(error)}") from None
        self.check_keys()
        self.check_count()
        self._budget = SMALL_BYTES + 2 * path.stat().st_size

    def _check_values(self) -> None:
        about = self._file.metadata
        for group in range(about.num_row_groups):
            columns = [about.row_group(group).column(i) for i in range(about.num_columns)]
            values = max((column.num_values for column in columns), default=0)
            if values * 8 > SMALL_BYTES + 8 * self.path.stat().st_size:
                raise DataError(
                    f"{self.path}: row group {group} has {values:,} values, many times the size of "
                    "the file; write it without padding, or with fewer lines in a row group "
                    "(row_group_size=100)"
                )

    def column(self, key: str) -> NDArray[Any]:
        """Return one value per sequence, numbers or text."""
        import pyarrow as pa

        column = self._table(key)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise self.wrong(key, "null", "a value in every row", row)
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=object)
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise self.wrong(key, f"a column of {kind}", "numbers or text")
        return np.asarray(column.to_numpy())

    def constant(self, key: str) -> Any:
        """Return the value that holds for the whole file."""
        values = list(dict.fromkeys(self.column(key).tolist()))
        if len(values) != 1:
            raise self.wrong(key, f"{values[0]!r}, {values[1]!r}, …", "the same value in all rows")
        return values[0]

    def texts(self, key: str) -> list[str]:
        """Return a list of words that has a length of its own."""
        raise self.wrong(key, "a list of names", "in a table a column class_name beside label")

    def _table(self, key: str) -> Any:
        import pyarrow as pa

        try:
            column = self._file.read(columns=[key]).column(key)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.wrong(key, f"cannot be read ({_line(error)})", "an undamaged file") from None
        self._budget -= column.nbytes
        if self._budget < 0:
            raise self.wrong(key, "takes too much memory", "one short value per sequence")
        return column

    def check_shapes(self, joints: int) -> None:
        """Refuse nothing: what shapes there are is in the rows."""

    def sequences(self, start: int, joints: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Go through the sequences from one on."""
        import pyarrow as pa

        keys = [key for key in (*COORDINATES, "frames", "persons") if key in self.keys]
        row = -1
        try:
            for batch in self._file.iter_batches(batch_size=4, columns=keys):
                for at in range(len(batch)):
                    row += 1
                    if row >= start:
                        yield self._sequence(batch, at, row, joints)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise self.wrong(
                "joints", f"cannot be read ({_line(error)})", "an undamaged file", row + 1
            ) from None

    def _sequence(self, batch: Any, at: int, row: int, v: int) -> dict[str, NDArray[Any]]:
        given = {}
        for key in ("frames", "persons"):
            if key in self.keys:
                value = batch.column(key)[at].as_py()
                if not isinstance(value, int) or not 1 <= value <= MOST_SEQUENCE_BYTES:
                    raise self.wrong(key, repr(value), "a whole number from 1", row)
                given[key] = value
        values = self._nested("joints", batch, at, row)
        m = given.get("persons", 1)
        expected = (
            f"(t, {v}, c), (m, t, {v}, c), or all numbers in a row with `frames`; c is 2 or 3"
        )
        if values.ndim == 1:
            t = given.get("frames", 0)
            if not t or values.size not in (m * t * v * 2, m * t * v * 3):
                found = f"{values.size:,} numbers for {m} × {t} frames × {v} joints"
                raise self.wrong("joints", found, expected, row)
            values = values.reshape(m, t, v, -1)
        elif values.ndim == 3:
            values = values[None]
        if values.ndim != 4 or values.shape[2] != v:
            raise self.wrong("joints", f"shape {values.shape}", expected, row)
        arrays = {"joints": values}
        for key, shape in (("present", values.shape[:2]), ("score", values.shape[:3])):
            if key in self.keys:
                value = self._nested(key, batch, at, row)
                if value.size != math.prod(shape):
                    raise self.wrong(key, f"shape {value.shape}", f"{shape}, as joints has", row)
                arrays[key] = value.reshape(shape)
        return arrays

    def _nested(self, key: str, batch: Any, at: int, row: int) -> NDArray[Any]:
        """Return the numbers of lists in lists; those of one depth must be equally long."""
        import pyarrow as pa

        kinds = (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)
        value = batch.column(key)[at]
        if not isinstance(value, kinds) or not value.is_valid:
            raise self.wrong(key, str(value)[:40], "a list of numbers, or of lists", row)
        array, lengths = value.values, [len(value.values)]
        while pa.types.is_nested(array.type) and hasattr(array, "value_lengths"):
            found = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
            if len(found) != 1 or array.null_count:
                raise self.wrong(key, "lists of unlike lengths, or none", "lists all alike", row)
            lengths.append(int(found[0]))
            array = array.flatten()
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if not any(is_kind(array.type) for is_kind in numeric):
            raise self.wrong(key, f"lists of {array.type}", "numbers", row)
        if array.null_count:
            raise self.wrong(key, "a null", "a number, or NaN for a person who is absent", row)
        self.check_size(len(array), row)
        numbers = array.to_numpy(zero_copy_only=False)
        if 0 in lengths:
            raise self.wrong(key, f"shape {tuple(lengths)}", "at least one frame", row)
        return np.asarray(numbers).reshape(lengths)


def open_source(path: Path) -> Source:
    """Open a file of the plain format by what it is, whatever it is called.

    Raises
    ------
    DataError
        If it is neither an .npz archive nor a Parquet file, or holds what it should not.
    """
    begin = files.first_bytes(path)
    if begin == b"PAR1":
        return ParquetSource(path)
    if begin[:2] == b"PK":
        return NpzSource(path)
    raise DataError(f"{path} is neither an .npz archive nor a Parquet file")


def whole(source: Source, key: str, least: int) -> NDArray[np.int64]:
    """Return a column of whole numbers.

    Raises
    ------
    DataError
        If one of them is none, or too small.
    """
    values = source.column(key)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == values.round()).all():
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise source.wrong(key, f"{values[:1].tolist()}, …", f"whole numbers from {least}")
    wrong = (values < least) | (values > 2**31)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise source.wrong(key, str(values[row]), f"a whole number from {least}", row)
    return values.astype(np.int64)


def text(values: NDArray[Any]) -> NDArray[Any]:
    """Return text as str; bytes are taken for UTF-8."""
    if values.dtype.kind == "S":
        return np.array([value.decode("utf-8", "replace") for value in values.tolist()], object)
    return values


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
