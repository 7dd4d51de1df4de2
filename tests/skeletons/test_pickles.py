"""Pickles are read as data: everything that is data comes back, nothing else happens."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from tssan.errors import DataError
from tssan.skeletons.pickles import LONGEST_KEPT, PickledArray, describe, read_pickle

from tests.skeletons.damage import damaged

ANY_FILE = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "some.pkl"
    path.write_bytes(data)
    return path


def read(folder: Path, data: bytes) -> object:
    return read_pickle(written(folder, data))


def filled(value: object) -> object:
    """Replace what stays in the file by what it is there."""
    if isinstance(value, PickledArray):
        return value.array()
    if isinstance(value, list | tuple):
        return type(value)(filled(item) for item in value)
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    return value


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and (one == other or one != one)


# The instructions for NumPy's little-endian float64.
DOUBLE = (
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR"
    b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
KEYS = st.text(max_size=5) | st.integers() | st.booleans() | st.none() | st.binary(max_size=5)
DTYPES = st.sampled_from(["<f2", "<f4", "<f8", "|i1", "<i8", "<u2", "|b1", "<U4", ">f4", ">i2"])
ARRAYS = DTYPES.flatmap(lambda dtype: some.arrays(dtype, some.array_shapes(min_side=0, max_side=4)))
DATA = st.recursive(
    KEYS | st.floats() | ARRAYS | ARRAYS.map(np.asfortranarray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@ANY_FILE
@given(DATA, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_data_of_any_protocol_come_back(tmp_path, data, protocol):
    # U+0000 to U+FFFF apart from surrogates: what NumPy's fixed-width text can hold and compare.
    assert same(data, filled(read(tmp_path, pickle.dumps(data, protocol))))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_long_arrays_stay_in_the_file_until_they_are_asked_for(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 300, 25, 3)).astype(np.float16) for _ in range(20)]
    path = written(
        tmp_path, pickle.dumps([*arrays, arrays[0], np.asfortranarray(arrays[1])], protocol)
    )
    tracemalloc.start()
    held = read_pickle(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if protocol:  # protocol 0 is text, which is kept
        assert kept < 100_000
    for array, found in zip(arrays, held, strict=False):
        assert found.shape == array.shape
        np.testing.assert_array_equal(found.array(), array)
        assert not found.array().flags.writeable
    assert held[20] is held[0]
    np.testing.assert_array_equal(held[21].array(), arrays[1])


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_names_of_numpy_before_and_since_version_2(tmp_path, module):
    array = np.arange(3.0)
    values = [array, np.float32(2), np.int64(7), np.str_("ab")]
    data = pickle.dumps(values, 3).replace(b"numpy._core", b"numpy.core")
    held = read(tmp_path, data.replace(b"numpy.core", module.encode()))
    np.testing.assert_array_equal(held[0].array(), array)
    assert held[1:] == [2.0, 7, "ab"]
    # What protocol 5 calls: _frombuffer(bytes, dtype, shape, order).
    name = f"c{module}.numeric\n_frombuffer\n(".encode()
    numbers = b"C\x18" + array.tobytes()
    held = read(tmp_path, name + numbers + DOUBLE + b"K\x03\x85X\x01\x00\x00\x00CtR.")
    np.testing.assert_array_equal(held.array(), array)


def test_containers_of_the_standard_library(tmp_path):
    by_default = collections.defaultdict(list, {"b": [1]})
    data = [collections.OrderedDict(a=1), by_default, {1, 2}, frozenset({3}), bytearray(b"xy"), b""]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert read(tmp_path, pickle.dumps(data, protocol)) == data


# ------------------------------------------------------------------------ what would do something


class Doing:
    """Does what it is told when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, __import__, open, getattr, np.load, np.fromfile, print]
)
def test_nothing_is_executed(tmp_path, protocol, function):
    mark = tmp_path / "done"
    command = f"open({str(mark)!r}, 'w').close()" if function in (eval, exec) else f"touch {mark}"
    data = pickle.dumps({"annotations": [Doing(function, command)]}, protocol)
    with pytest.raises(
        DataError, match="which is code and not data, and was not run; expected num"
    ):
        read(tmp_path, data)
    assert not mark.exists()
    assert os.listdir(tmp_path) == ["some.pkl"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system, which is code"),
        (b"cnumpy\nndarray\n((I1000000000000\nttR.", "a call of something else"),
        (b"cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
        (b"(ios\nsystem\n.", "the instruction INST"),
        (b"(cos\nsystem\no.", "os.system, which is code"),
        (b"Ptrue\n.", "the instruction PERSID"),
        (b"\x82\x01.", "the instruction EXT1"),
        (b"cbuiltins\nbytearray\n(I1000000000000\ntR.", "bytes of 1000000000000"),
        (b"cbuiltins\nlist\n(K\x05tR.", "list of 5"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zliptR.", "encode as 'zlip'"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", "NumPy type 'O'"),
        (b"cnumpy\ndtype\n(X\x05\x00\x00\x00V9999tR.", "NumPy type 'V9999'"),
        (b"K\x01}bK\x01.", "a state for 1"),
    ],
)
def test_instructions_that_could_do_harm_are_refused(tmp_path, data, said):
    with pytest.raises(DataError, match=said) as raised:
        read(tmp_path, data)
    assert "some.pkl, byte " in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([{}, None]), "NumPy type 'O8'"),
        (np.array(["2020-01-01"], "M8[D]"), "NumPy type 'M8'"),
        (np.zeros(2, [("a", "f4")]), "NumPy type 'V4'"),
        (np.zeros(2, np.complex64), "NumPy type 'c8'"),
        (np.ma.zeros(2), "which is code and not data"),
        ({(1, (2, 3)): 4}, "a tuple of 2 as a key"),
        (Path("x"), "which is code and not data"),
        ({1, (2,)}, "a tuple of 1 as a key"),
    ],
)
def test_values_that_are_no_plain_data_are_named(tmp_path, value, said):
    for protocol in (2, 4):
        with pytest.raises(DataError, match=said):
            read(tmp_path, pickle.dumps([value], protocol))


# ------------------------------------------------------------------------------------ damaged files

WHOLE = pickle.dumps(
    {
        "split": {"xsub_train": ["a", "b"], "xsub_val": ["c"]},
        "annotations": [
            {"frame_dir": n, "label": 3, "keypoint": np.ones((1, 4, 25, 3), np.float16)}
            for n in "abc"
        ],
    },
    4,
)


@ANY_FILE
@given(st.binary(max_size=200) | damaged(WHOLE) | damaged(pickle.dumps(pickle.loads(WHOLE), 2)))
def test_damaged_files_raise_nothing_else(tmp_path, data):
    try:
        held = read(tmp_path, data)
    except DataError:
        return
    assert describe(held)
    filled(held) if not isinstance(held, dict) or "annotations" not in held else None


OPCODES = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])


@settings(
    deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(OPCODES | st.binary(max_size=4), max_size=40).map(b"".join))
def test_any_row_of_instructions_raises_nothing_else(tmp_path, data):
    try:
        held = read(tmp_path, data + b".")
    except DataError:
        return
    assert describe(held)


def test_a_cut_off_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"byte \d+: .*so the file is damaged, cut off, or no pic"):
        read(tmp_path, WHOLE[:-200])
    with pytest.raises(DataError, match="is empty; expected a pickle"):
        read(tmp_path, b"")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_pickle(tmp_path / "other.pkl")
    with pytest.raises(DataError, match=r"byte 0: .*no pickle"):
        read(tmp_path, b"<html>not found</html>")


def array_of(shape: bytes) -> bytes:
    """An array of eight bytes and the shape that the instructions state."""
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    return start + b"(K\x01" + shape + DOUBLE + b"\x89C\x08" + bytes(8) + b"tb."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            array_of(b"(\x8a\x06\x00\x00\x00\x00\x00\x01t"),
            r"shape \(1099511627776,\) and type|a tuple",
        ),
        (array_of(b"(J\x00\x00\x00\x40t"), "takes 8589934592 bytes, with 8"),
        (array_of(b"(J\xff\xff\xff\xfft"), "an array whose shape is a tuple of 1"),
        (array_of(b"(" + b"K\x01" * 9 + b"t"), "an array of 9 axes"),
        (array_of(b"(K\x02t"), "takes 16 bytes, with 8"),
        (b"\x8e" + struct.pack("<Q", 2**40) + b"x.", "cut off"),
        (b"\x96" + struct.pack("<Q", 2**40) + b"x.", "cut off"),
        (b"\x8d" + struct.pack("<Q", 2**62) + b"x.", "cut off"),
        (b"K\x01r\xff\xff\xff\xff.", None),
        (b"]" * 500_000 + b".", "more objects than a file with arrays of this size has"),
        (b"](" + b"N" * 900_000 + b"e.", None),
        (
            b"]("
            + b"N" * 100_000
            + b"eq\x00"
            + b"cbuiltins\nlist\nq\x01h\x00\x85R" * 100_000
            + b".",
            "more objects than a file",
        ),
        (b"K\x01" + b"\x8b" + struct.pack("<i", 2**30) + b"\x01.", "cut off"),
        (b"I" + b"9" * 1_000_000 + b"\n.", "digits"),
    ],
)
def test_lies_about_sizes_take_no_memory(tmp_path, data, said):
    path = written(tmp_path, data)
    tracemalloc.start()
    try:
        if said is None:
            read_pickle(path)
        else:
            with pytest.raises(DataError, match=said):
                read_pickle(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20 + 10 * len(data)


def test_keys_that_take_for_ever_to_hash_are_refused(tmp_path):
    """Each tuple holds the one before twice, so that the hash of the last visits 2**200 of them."""
    data = b"K\x01" + b"q\x00h\x00\x86" * 200 + b"q\x00}h\x00K\x01s."
    with pytest.raises(DataError, match="a tuple of 2 as a key"):
        read(tmp_path, data)


def test_short_texts_are_texts_and_long_ones_must_be_bytes(tmp_path):
    assert read(tmp_path, pickle.dumps("ü" * LONGEST_KEPT)) == "ü" * LONGEST_KEPT
    with pytest.raises(DataError, match="latin-1"):
        read(tmp_path, pickle.dumps("€" * (LONGEST_KEPT + 1)))
