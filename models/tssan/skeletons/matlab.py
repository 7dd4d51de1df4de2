"""The numeric arrays in a MATLAB file of version 5 (what `save` writes but for `-v7.3`).

SciPy reads such files too, but sets aside as much memory as a file says that it holds, which a
damaged one may put at gigabytes. Here nothing is larger than what is there.

The format is that of MathWorks' "MAT-File Format", chapter 1: a header of 128 bytes, then elements,
each with its type and size in front; a matrix is an element of elements: flags, dimensions, name,
numbers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEADER = 128  # bytes
MATRIX, COMPRESSED, FLAGS, DIMENSIONS, NAME = 14, 15, 6, 5, 1  # types of elements
COMPLEX, LOGICAL = 0x0800, 0x0200  # flags
MOST_AXES = 8

_STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
"""By the type of an element: how its numbers are stored."""

_NUMERIC = {
    **{6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"},
    **{12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
}
_DTYPES = {"double": "float64", "single": "float32"}
_OTHER = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}


class Damaged(ValueError):
    """The file is no MATLAB file of version 5, or not a whole one."""


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable in a file.

    Parameters
    ----------
    kind
        ``double``, ``single``, ``int8``, … for what can be read; else ``cell``, ``complex``, ….
    shape
        As MATLAB gives it: at least two axes.
    numbers
        As they are stored, column by column; None where they cannot be read.
    """

    kind: str
    shape: tuple[int, ...]
    numbers: NDArray[np.generic] | None

    def array(self) -> NDArray[np.generic]:
        """Return the numbers in their type and shape.

        Raises
        ------
        Damaged
            If they are not as many as the shape has.
        """
        if self.numbers is None:
            raise Damaged(f"a variable of type {self.kind} has no numbers")
        if len(self.numbers) != math.prod(self.shape):
            raise Damaged(
                f"{' × '.join(map(str, self.shape))} numbers are stated "
                f"and {len(self.numbers)} are there"
            )
        dtype = np.dtype(_DTYPES.get(self.kind, self.kind))
        if dtype.kind != "f" and self.numbers.dtype.kind == "f":
            raise Damaged(f"{self.kind} numbers that are stored as {self.numbers.dtype}")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite
            return self.numbers.reshape(self.shape, order="F").astype(dtype)


def read_variables(data: bytes, most_bytes: int) -> dict[str, Variable]:
    """Read what variables a file holds.

    Parameters
    ----------
    data
        The contents of the file.
    most_bytes
        How many its compressed variables may have together when they are decompressed.

    Raises
    ------
    Damaged
        If it is no MATLAB file of version 5, or cut off, or damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise Damaged("it does not begin as one")
    variables = {}
    for kind, payload in _elements(memoryview(data)[HEADER:], order):
        if kind == COMPRESSED:
            try:
                unpacked = zlib.decompressobj().decompress(payload, most_bytes + 1)
            except zlib.error as error:
                raise Damaged(str(error)) from None
            most_bytes -= len(unpacked)
            if most_bytes < 0:
                raise Damaged("it holds too much")
            kind, payload = next(_elements(memoryview(unpacked), order), (0, payload))
        if kind != MATRIX:
            raise Damaged(f"an element of type {kind} in place of a matrix")
        if payload:
            name, variable = _matrix(payload, order)
            variables[name] = variable
    return variables


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and contents of elements that follow each other."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise Damaged("the file ends within an element")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        begin, after = at + 8, at + 8 + size
        if kind >> 16:  # four bytes at most stand in place of the size
            kind, size = kind & 0xFFFF, kind >> 16
            begin, after = at + 4, at + 8
        elif kind != COMPRESSED:
            after += -size % 8
        payload = data[begin : begin + size]
        if len(payload) < size or begin + size > after:
            raise Damaged("the file ends within an element")
        yield kind, payload
        at = after


def _matrix(data: memoryview, order: str) -> tuple[str, Variable]:
    """Return the name of a matrix and what it is."""
    elements = _elements(data, order)
    about = [next(elements, (0, data[:0])) for _ in range(3)]
    flags, dimensions, name = (payload for _, payload in about)
    if [kind for kind, _ in about] != [FLAGS, DIMENSIONS, NAME] or len(flags) != 8:
        raise Damaged("a matrix without flags, dimensions and name")
    if not 8 <= len(dimensions) <= 4 * MOST_AXES or len(dimensions) % 4:
        raise Damaged(f"a matrix of {len(dimensions) / 4:g} axes")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if min(shape) < 0:
        raise Damaged(f"a matrix of {' × '.join(map(str, shape))}")
    (flag,) = struct.unpack_from(f"{order}I", flags)
    said = bytes(name[:64]).decode("ascii", errors="replace")
    if flag & 0xFF not in _NUMERIC:
        return said, Variable(_OTHER.get(flag & 0xFF, "an unknown kind"), shape, None)
    if flag & (COMPLEX | LOGICAL):
        return said, Variable("complex" if flag & COMPLEX else "logical", shape, None)
    kind, payload = next(elements, (0, data[:0]))
    if kind not in _STORED:
        raise Damaged(f"numbers of type {kind}")
    stored = np.dtype(order + _STORED[kind])
    if len(payload) % stored.itemsize:
        raise Damaged("numbers that end within one")
    return said, Variable(_NUMERIC[flag & 0xFF], shape, np.frombuffer(payload, stored))
