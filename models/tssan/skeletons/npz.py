"""The arrays in an .npz archive, read a row at a time, so that no array need fit into memory."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError

LONGEST_HEADER = 10_000  # bytes


class MissingMember(DataError):
    """An archive has no array of that name."""


class Rows:
    """The rows of an array in an archive, read one after the other.

    Parameters
    ----------
    archive
        The open archive.
    member
        The name of the array's file, with .npy.
    path
        The archive, for messages.
    kinds
        The kinds of numbers that are taken, as in `numpy.dtype.kind`; "U" and "S" are text. Python
        objects are never among them: to read one is to run what it says.
    scalar
        Whether a single value without axes may stand for a row.

    Attributes
    ----------
    count, shape, dtype
        How many rows, the shape of one, and of what.

    Raises
    ------
    DataError
        If the archive has no such array, it is damaged, or of another kind. `MissingMember` if it
        is not there.
    """

    def __init__(
        self,
        archive: zipfile.ZipFile,
        member: str,
        path: Path,
        *,
        kinds: str = "fiub",
        scalar: bool = False,
    ) -> None:
        self._archive, self._member, self._path = archive, member, path
        self._kinds, self._scalar = kinds, scalar
        try:
            self._file: IO[bytes] = archive.open(member)
        except KeyError:
            held = ", ".join(archive.namelist()[:6]) or "nothing"
            raise MissingMember(f"{path} holds {held}; expected {member}") from None
        except Exception as error:  # locked, or packed by a method that is not there
            raise DataError(f"{path}: {member} cannot be read: {error}") from None
        shape, self.dtype = self._header()
        self.count, self.shape = shape[0], shape[1:]
        self.row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self._first = self._next = 0
        self._first = self._file.tell()

    def row(self, position: int) -> NDArray[Any]:
        """Return a row; the file is read on to it, or again from its beginning."""
        return self.rows(position, 1)[0]

    def rows(self, position: int, count: int) -> NDArray[Any]:
        """Return some rows that follow each other, `(count, *shape)`.

        Raises
        ------
        DataError
            If the file ends before, or is damaged.
        """
        size = count * self.row_bytes
        try:
            if position != self._next:
                self._file.seek(self._first + position * self.row_bytes)
            self._next = position + count
            data = self._file.read(size)
        except Exception as error:
            self._next = -1
            raise self._wrong(f"cannot be read: {error}") from None
        if len(data) < size:
            self._next = -1
            ends = position + len(data) // max(self.row_bytes, 1)
            raise self._wrong(f"ends before row {ends} of {self.count:,}")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def _wrong(self, what: str) -> DataError:
        return DataError(
            f"{self._path}: {self._member} {what}; if it was downloaded, it may be cut off: "
            "fetch it again"
        )

    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Read what precedes the numbers, if it is no longer than a header is."""
        try:
            magic = self._file.read(8)
            version = np.lib.format.read_magic(io.BytesIO(magic))
            size = self._file.read(2 if version == (1, 0) else 4)
            length = int.from_bytes(size, "little")
            if length > LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = io.BytesIO(size + self._file.read(length))
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(header)
        except Exception as error:  # NumPy raises whatever it stumbles over
            raise self._wrong(f"is no array: {error}") from None
        if dtype.hasobject:
            raise DataError(
                f"{self._path}: {self._member} holds Python objects, which are not read, since "
                "they may run anything; expected numbers or text, as of np.array(…, dtype=str)"
            )
        if self._scalar and shape == ():
            shape = (1,)
        wrong_order = fortran and len(shape) > 1
        if wrong_order or not shape or min(shape) < 0 or dtype.kind not in self._kinds:
            what = "text" if self._kinds == "US" else "numbers"
            raise DataError(
                f"{self._path}: {self._member} is {dtype} {shape}"
                f"{', in Fortran order' if wrong_order else ''}; expected rows of {what}"
            )
        return shape, dtype
