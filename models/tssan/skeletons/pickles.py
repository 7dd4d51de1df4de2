"""Pickle files read as data: nothing in them is imported, called or executed.

A pickle is a programme for a stack machine, whose instructions may call any function there is. The
machine here knows those instructions that build numbers, texts, containers and NumPy arrays, and
stops with an error at every other. The numbers of arrays stay in the file, which is mapped into
memory, until `PickledArray.array` asks for them; so a file of gigabytes is read with little memory,
and a file that lies about its sizes allocates nothing.

The instructions are documented in Python's `pickletools`, which also takes them apart here.
"""

from __future__ import annotations

import math
import mmap
import os
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError

# What is longer than this stays in the file until it is asked for.
LONGEST_KEPT = 4096
# A list of one byte in the file takes 72 in memory. An instruction is reckoned at what it may cost,
# and a file whose instructions cost much more than its length holds no arrays to speak of.
COST_OF_OBJECT, COST_OF_STEP = 100, 24
ALLOWED_COST, ALLOWED_COST_PER_BYTE = 20 * 2**20, 5

MOST_AXES = 8

_NUMERIC = re.compile(r"[<>|=]?([fiu][1248]|b1|U\d{1,3})", re.ASCII)
_EXPECTED = "expected numbers, texts, lists, dictionaries and NumPy arrays of numbers"


class PickledArray:
    """A NumPy array in a pickle; its numbers are read when they are asked for."""

    __slots__ = ("_data", "_fortran", "dtype", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype: np.dtype[Any] = np.dtype(np.int8)
        self._data: bytes | bytearray | _Stored = b""
        self._fortran = False

    def fill(self, shape: Any, dtype: Any, fortran: bool, data: Any) -> PickledArray:
        """Take what a pickle states; see that data, shape and type fit each other."""
        if not isinstance(dtype, _DType):
            raise _Unfit(f"an array whose type is {describe(dtype)}")
        if not isinstance(shape, tuple) or not all(
            type(n) is int and 0 <= n < 2**40 for n in shape[:MOST_AXES]
        ):
            raise _Unfit(f"an array whose shape is {describe(shape)}")
        if isinstance(data, list):
            raise _Unfit("an array of objects")
        if not isinstance(data, bytes | bytearray | _Stored):
            raise _Unfit(f"an array whose numbers are {describe(data)}")
        if len(shape) > MOST_AXES:
            raise _Unfit(f"an array of {len(shape)} axes")
        due = math.prod(shape) * dtype.dtype.itemsize
        if len(data) != due:
            raise _Unfit(
                f"an array of shape {shape} and type {dtype.dtype}, which takes {due} bytes, "
                f"with {len(data)}"
            )
        self.shape, self.dtype = shape, dtype.dtype
        self._data, self._fortran = data, fortran
        return self

    def array(self) -> NDArray[Any]:
        """Return the array; it may be a view of the file and cannot be written to."""
        data = self._data if isinstance(self._data, bytes | bytearray) else self._data.read()
        flat = np.frombuffer(data, self.dtype)
        if self._fortran:
            return flat.reshape(self.shape[::-1]).T
        return flat.reshape(self.shape)


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle that holds numbers, texts, containers and NumPy arrays, of any protocol.

    Parameters
    ----------
    path
        The file. It must stay as it is for as long as arrays are read from it.

    Returns
    -------
    object
        What was pickled; instead of every NumPy array a `PickledArray`.

    Raises
    ------
    DataError
        If the file cannot be read, is no pickle, is cut off, or holds anything else; with the byte
        at which it does.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise DataError(f"{path} is empty; expected a pickle")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return _Machine(data, os.fspath(path)).run()


def describe(value: Any) -> str:
    """Name what a pickle holds in a few words, however large or nested it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of many digits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str | bytes):
        return repr(value[:40]) + ("…" if len(value) > 40 else "")
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, PickledArray):
        return f"a {value.dtype} array {value.shape}"
    return "a long text" if isinstance(value, _Stored) and value.is_text else "something else"


class _Unfit(ValueError):
    """What a pickle holds is not data, or not data that fit together."""


class _Stored:
    """Bytes, or text that stands for bytes, which stay in the file."""

    __slots__ = ("_count", "_data", "_start", "_stop", "is_text")

    def __init__(self, data: mmap.mmap, start: int, stop: int, count: int, is_text: bool) -> None:
        self._data, self._start, self._stop, self._count = data, start, stop, count
        self.is_text = is_text

    def __len__(self) -> int:
        return self._count

    def read(self) -> bytes | memoryview:
        part = memoryview(self._data)[self._start : self._stop]
        return str(part, "utf-8", "surrogatepass").encode("latin-1") if self.is_text else part


class _DType:
    """A NumPy type under construction."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise _Unfit(f"NumPy type {describe(code)}")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def set_byte_order(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise _Unfit(f"a NumPy type whose state is {describe(state)}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Named:
    """What a pickle may name as if to call it, and what stands for that here."""

    def __init__(self, build: Callable[..., Any]) -> None:
        self.build = build


_MARKER = object()  # stands for numpy.ndarray itself, which only _reconstruct takes


def _reconstruct(kind: Any = None, *_: Any) -> PickledArray:
    if kind is not _MARKER:
        raise _Unfit("an array of a class of its own")
    return PickledArray()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> PickledArray:
    return PickledArray().fill(shape, dtype, order == "F", data)


def _scalar(dtype: Any, data: Any) -> Any:
    return PickledArray().fill((), dtype, False, data).array().item()


def _encode(text: Any, encoding: Any = None) -> bytes | _Stored:
    """Return bytes that protocols 0 to 2 write as text, for want of an instruction for them."""
    if encoding not in ("latin1", "latin-1"):
        raise _Unfit(f"text to encode as {describe(encoding)}")
    if isinstance(text, _Stored) and text.is_text:
        return text
    if not isinstance(text, str):
        raise _Unfit(f"{describe(text)} to encode")
    return text.encode("latin-1")


def _dictionary(items: Any = (), *_: Any) -> dict[Any, Any]:
    if isinstance(items, _Named):  # defaultdict(list)
        return {}
    return {_key(key): value for key, value in items}


def _frozen(items: Any = ()) -> frozenset[Any]:
    return frozenset(_key(item) for item in items)


def _plain(kind: Callable[..., Any]) -> Callable[..., Any]:
    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple | set | frozenset | bytes | bytearray):
            raise _Unfit(f"{kind.__name__} of {describe(items)}")
        return kind(items)

    return build


_PYTHON: dict[str, Callable[..., Any]] = {
    "list": _plain(list),
    "tuple": _plain(tuple),
    "bytes": _plain(bytes),
    "bytearray": _plain(bytes),
    "set": _frozen,
    "frozenset": _frozen,
    "dict": _dictionary,
}
_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _MARKER,
    ("numpy", "dtype"): _Named(_DType),
    ("_codecs", "encode"): _Named(_encode),
    ("collections", "OrderedDict"): _Named(_dictionary),
    ("collections", "defaultdict"): _Named(_dictionary),
}
for _module in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _NAMES[f"{_module}.multiarray", "_reconstruct"] = _Named(_reconstruct)
    _NAMES[f"{_module}.multiarray", "scalar"] = _Named(_scalar)
    _NAMES[f"{_module}.numeric", "_frombuffer"] = _Named(_from_buffer)
for _module in ("builtins", "__builtin__"):
    _NAMES |= {(_module, name): _Named(build) for name, build in _PYTHON.items()}


def _key(value: Any) -> Any:
    """Return a key if it is a plain one: to hash tuples of tuples of tuples may take for ever."""
    if not isinstance(value, str | int | float | bytes | None):
        raise _Unfit(f"{describe(value)} as a key")
    return value


class _Machine:
    """The stack machine, without any instruction that could do harm."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data, self._name = data, name
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}
        self._cost = 0
        self._steps: dict[str, Callable[[Any], None]] = {
            name.removeprefix("_do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_do_")
        }

    def run(self) -> Any:
        """Return what the pickle builds."""
        at = 0
        allowed = ALLOWED_COST + ALLOWED_COST_PER_BYTE * len(self._data)
        try:
            # A file in memory is read like any other file, which its type does not say.
            for instruction, argument, position in pickletools.genops(cast(BinaryIO, self._data)):
                at = position or 0
                name = instruction.name
                if name == "STOP":
                    return self._stack.pop()
                self._cost += COST_OF_STEP if name in _CHEAP else COST_OF_OBJECT
                if self._cost > allowed:
                    raise _Unfit("more objects than a file with arrays of this size has")
                if name in _KEPT and argument is not None and len(argument) > LONGEST_KEPT:
                    self._stack.append(self._stored(name, argument, at))
                elif name in _CONSTANTS:
                    self._stack.append(_CONSTANTS[name])
                elif name in _VALUES:
                    self._stack.append(argument)
                elif name in self._steps:
                    self._steps[name](argument)
                elif name not in ("PROTO", "FRAME"):
                    raise _Unfit(f"the instruction {name}")
        except _Unfit as error:
            said = f"{error}; {_EXPECTED}"
        except IndexError:  # from the stack
            said = "takes from an empty stack, so the file is damaged"
        except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            said = f"{error or type(error).__name__}, so the file is damaged, cut off, or no pickle"
        raise DataError(f"{self._name}, byte {at}: {said}") from None

    def _stored(self, name: str, argument: Any, at: int) -> _Stored:
        start = at + 1 + _KEPT[name]
        if isinstance(argument, str):
            argument.encode("latin-1")  # raises an error if it does not stand for bytes
        length = int.from_bytes(self._data[at + 1 : start], "little")
        return _Stored(self._data, start, start + length, len(argument), isinstance(argument, str))

    def _to_mark(self) -> list[Any]:
        """Return what lies above the last mark, and take the mark away."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise _Unfit(f"{describe(self._stack[-1])} in place of a {kind.__name__}")
        return self._stack[-1]

    def _do_MARK(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _do_POP(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _do_POP_MARK(self, _: Any) -> None:
        self._to_mark()

    def _do_EMPTY_LIST(self, _: Any) -> None:
        self._stack.append([])

    def _do_LIST(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _do_APPEND(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _do_APPENDS(self, _: Any) -> None:
        items = self._to_mark()
        self._top(list).extend(items)

    def _do_TUPLE(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _do_TUPLE1(self, _: Any) -> None:
        self._tuple_of(1)

    def _do_TUPLE2(self, _: Any) -> None:
        self._tuple_of(2)

    def _do_TUPLE3(self, _: Any) -> None:
        self._tuple_of(3)

    def _tuple_of(self, number: int) -> None:
        if len(self._stack) < number:
            raise IndexError
        items = tuple(self._stack[-number:])
        del self._stack[-number:]
        self._stack.append(items)

    def _do_EMPTY_DICT(self, _: Any) -> None:
        self._stack.append({})

    def _do_DICT(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._set_items(items)

    def _do_SETITEM(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _do_SETITEMS(self, _: Any) -> None:
        items = self._to_mark()
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _do_EMPTY_SET(self, _: Any) -> None:
        self._stack.append(set())

    def _do_ADDITEMS(self, _: Any) -> None:
        items = self._to_mark()
        self._top(set).update(map(_key, items))

    def _do_FROZENSET(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(_frozen(items))

    def _do_GLOBAL(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name_something(module, name)

    def _do_STACK_GLOBAL(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name_something(module, name)

    def _name_something(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Unfit("a name that is no text")
        if (module, name) not in _NAMES:
            raise _Unfit(f"{module[:60]}.{name[:60]}, which is code and not data, and was not run")
        self._stack.append(_NAMES[module, name])

    def _do_REDUCE(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Named) or not isinstance(arguments, tuple):
            raise _Unfit(f"a call of {describe(function)}")
        for argument in arguments:  # they may be copied
            if isinstance(argument, list | tuple | set | frozenset):
                self._cost += COST_OF_OBJECT * len(argument)
            elif isinstance(argument, str | bytes):
                self._cost += len(argument)
        self._stack.append(function.build(*arguments))

    def _do_BUILD(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _DType):
            target.set_byte_order(state)
        elif isinstance(target, PickledArray) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            target.fill(shape, dtype, bool(fortran), data)
        else:
            raise _Unfit(f"a state for {describe(target)}")

    def _do_PUT(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _do_MEMOIZE(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_GET(self, key: int) -> None:
        self._stack.append(self._memo[key])

    _do_BINPUT = _do_LONG_BINPUT = _do_PUT
    _do_BINGET = _do_LONG_BINGET = _do_GET


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_KEPT = {"BINUNICODE": 4, "BINUNICODE8": 8, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Instructions whose bytes or text may stay in the file: how many bytes state the length."""
_CHEAP = {
    *_CONSTANTS,
    *("BININT1", "GET", "BINGET", "LONG_BINGET", "POP", "POP_MARK", "APPEND", "APPENDS"),
    *("SETITEM", "SETITEMS", "BUILD", "PROTO", "FRAME"),
}
