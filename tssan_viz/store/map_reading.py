"""Maps out of a Lance dataset: where rows lie, which process they are of, and their checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa

from tssan_viz.store.codes import Code, decode_lines

# Reading a stretch as a whole is cheaper than picking, as long as it holds less than this many
# times what is wanted, and fits in memory.
_STRETCH = 5
_STRETCH_BYTES = 256 << 20
# So few rows are picked, wherever they lie.
_FEW = 16
# Lines that are worked on while the next ones are read.
_LINES = 256


class Differing(Exception):
    """A map differs from its checksum: which of the rows that are read, which column."""

    def __init__(self, row: int, column: str) -> None:
        super().__init__(row, column)
        self.row = row
        self.column = column


@dataclass(frozen=True)
class Ranks:
    """Which process each row is of: row numbers, sorted, and their ranks."""

    numbers: np.ndarray
    ranks: np.ndarray

    def of(self, row_ids: np.ndarray) -> np.ndarray:
        """Return the ranks of rows; −1 for rows that are not there."""
        at = np.minimum(np.searchsorted(self.numbers, row_ids), len(self.numbers) - 1)
        return np.where(self.numbers[at] == row_ids, self.ranks[at], -1)


@dataclass(frozen=True)
class RowIndex:
    """Where a dataset's rows lie: row numbers, sorted, and the position of each.

    With the checksums (r, columns) of all its maps in the order of positions, 4 bytes for each map:
    picked a few at a time, they would cost more than the maps. The first format has none.
    """

    numbers: np.ndarray
    order: np.ndarray
    columns: list[str]
    checksums: np.ndarray | None

    @classmethod
    def of(cls, dataset: lance.LanceDataset) -> RowIndex:
        """Return the index of a dataset."""
        columns = dataset.schema.names
        read = [name for name in ("row_id", "checksums") if name in columns]
        table = dataset.to_table(columns=read)
        numbers = table["row_id"].to_numpy()
        checksums = None
        if "checksums" in read and len(numbers):
            checksums = fixed_size_values(table["checksums"], len(numbers))
        order = np.argsort(numbers, kind="stable")
        return cls(numbers[order], order, columns, checksums)

    def positions(self, row_ids: np.ndarray) -> np.ndarray | None:
        """Return where rows lie; None if any is not there."""
        if not len(self.numbers):
            return None
        at = np.minimum(np.searchsorted(self.numbers, row_ids), len(self.numbers) - 1)
        return self.order[at] if (self.numbers[at] == row_ids).all() else None


def fixed_size_values(column: pa.ChunkedArray, lines: int) -> np.ndarray:
    """Return fixed-size lists as an array (lines, values)."""
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return values.reshape(lines, -1)


def read_into(
    dataset: lance.LanceDataset,
    index: RowIndex,
    positions: np.ndarray,
    columns: dict[str, Code],
    out: np.ndarray,
    compared: np.ndarray,
) -> None:
    """Fill `out` (r, columns, q, s) with the lines at `positions`, as they are stored or decoded.

    They stay as they are stored where `out` is of their type.

    Raises
    ------
    Differing
        A map of the rows `compared` is not as recorded.
    """
    if lie_together(positions):
        start = 0
        for piece in stretch(dataset, index, positions, columns, compared):
            for c, (lines, code) in enumerate(zip(piece, columns.values(), strict=True)):
                out[start : start + len(lines), c] = _as(out.dtype, lines, code, *out.shape[2:])
            start += len(piece[0])
        return
    first, last = int(positions.min()), int(positions.max())
    span = last - first + 1
    dense = span <= _STRETCH * len(positions) and span * out[0].nbytes <= _STRETCH_BYTES
    checked = _Compared(index, positions, compared)
    if len(positions) > _FEW and dense:
        table = dataset.to_table(columns=[*columns], offset=first, limit=span, batch_size=_LINES)
        wanted = positions - first
    else:
        unique, wanted = np.unique(positions, return_inverse=True)
        table = dataset.take(unique.tolist(), columns=[*columns])
    as_they_lie = len(wanted) == table.num_rows and (wanted == np.arange(len(wanted))).all()
    for c, (column, code) in enumerate(columns.items()):
        lines = fixed_size_values(table[column], table.num_rows)
        if not as_they_lie:
            lines = lines[wanted]
        checked.compare(column, lines, 0)
        out[:, c] = _as(out.dtype, lines, code, *out.shape[2:])


def lie_together(positions: np.ndarray) -> bool:
    """Return whether lines lie one behind the other, and are too many to be picked."""
    return len(positions) > _FEW and bool((np.diff(positions) == 1).all())


def stretch(
    dataset: lance.LanceDataset,
    index: RowIndex,
    positions: np.ndarray,
    columns: Iterable[str],
    compared: np.ndarray,
) -> Iterator[list[np.ndarray]]:
    """Go through lines that lie one behind the other as they come from the disk, uncopied.

    Yields
    ------
    For each column the lines (n, values) as they are stored; all pieces together are all lines.

    Raises
    ------
    Differing
        A map of the rows `compared` is not as recorded.
    """
    checked = _Compared(index, positions, compared)
    names = [*columns]
    start = 0
    for batch in dataset.to_batches(
        columns=names, offset=int(positions[0]), limit=len(positions), batch_size=_LINES
    ):
        piece = []
        for column in names:
            lines = batch[column].flatten().to_numpy().reshape(batch.num_rows, -1)
            checked.compare(column, lines, start)
            piece.append(lines)
        yield piece
        start += batch.num_rows


def _as(dtype: np.dtype, lines: np.ndarray, code: Code, query: int, key: int) -> np.ndarray:
    if lines.dtype == dtype:
        return lines.reshape(-1, query, key)
    return decode_lines(lines, code, query, key)


class _Compared:
    """The checksums of some of the rows that are read."""

    def __init__(self, index: RowIndex, positions: np.ndarray, compared: np.ndarray) -> None:
        self._columns = index.columns
        self._rows = compared[:0]
        if index.checksums is not None:
            self._rows = compared
            self._stored = index.checksums[positions[compared]]

    def compare(self, column: str, lines: np.ndarray, start: int) -> None:
        """Raise Differing where one of the rows from `start` on, whose lines these are, does."""
        low, high = np.searchsorted(self._rows, [start, start + len(lines)])
        if low == high:
            return
        # Columns lie in the order of the checksums, behind the row's number.
        stored = self._stored[low:high, self._columns.index(column) - 1]
        for row, checksum in zip(self._rows[low:high].tolist(), stored.tolist(), strict=True):
            if zlib.crc32(lines[row - start]) != checksum:
                raise Differing(row, column)
