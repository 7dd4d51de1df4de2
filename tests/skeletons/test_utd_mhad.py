"""UTD-MHAD: the real archive against what is known of it, made-up files, damaged ones."""

from __future__ import annotations

import io
import statistics
import struct
import tracemalloc
import zipfile
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from tssan.errors import DataError
from tssan.skeletons.matlab import read_variables
from tssan.skeletons.topology import UTD_MHAD_20
from tssan.skeletons.utd_mhad import find_files, read_file

from tests.skeletons import written
from tests.skeletons.damage import damaged

NAME = "Skeleton/a8_s3_t2_skeleton.mat"
POSES = written.poses(9, 20)
VALID = written.utd_mhad(np.moveaxis(POSES, 0, 2))


@pytest.fixture(scope="module")
def real(utd_mhad_zip):
    return [read_file(file.read(), file.name) for file in find_files(utd_mhad_zip)]


def test_real_archive_is_whole(real):
    assert len(real) == 861
    cells = Counter((sequence.label, sequence.subject) for sequence in real)
    assert len(cells) == 27 * 8
    per_class = Counter(sequence.class_code for sequence in real)
    assert {code for code, number in per_class.items() if number != 32} == {"A08", "A23", "A27"}
    assert {per_class[code] for code in ("A08", "A23", "A27")} == {31}
    frames = [sequence.frames for sequence in real]
    assert (min(frames), max(frames), statistics.median(frames)) == (41, 125, 67)
    assert all(sequence.present.all() for sequence in real)
    assert {sequence.class_name for sequence in real if sequence.class_code == "A08"} == {"draw X"}


def test_real_values_are_those_of_the_file(real, utd_mhad_zip):
    sequence = real[200]
    with zipfile.ZipFile(utd_mhad_zip) as archive:
        d_skel = loadmat(io.BytesIO(archive.read(sequence.source)))["d_skel"]
    for t, v, c in ((0, 0, 0), (5, 11, 2), (sequence.frames - 1, 19, 1)):
        assert sequence.joints[0, t, v, c] == np.float32(d_skel[v, c, t])


def test_real_bodies_stand_upright(real):
    """The joint order is right only if heads are above hips above feet in nearly all frames."""
    head, hip, foot = (UTD_MHAD_20.joints.index(n) for n in ("head", "hip_center", "foot_left"))
    heights = np.concatenate([s.joints[0, :, [head, hip, foot], 1] for s in real], axis=1)
    assert np.mean((heights[0] > heights[1]) & (heights[1] > heights[2])) > 0.99


def test_real_trunks_are_upright_at_first(real):
    """What a clip is turned by when it is aligned: the line from the centre to the spine."""
    first = np.stack([sequence.joints[0, 0] for sequence in real])
    up = first[:, UTD_MHAD_20.spine] - first[:, UTD_MHAD_20.centre]
    tilt = np.degrees(np.arccos(up[:, 1] / np.linalg.norm(up, axis=1)))
    assert np.median(tilt) < 10


def test_reads_what_was_written():
    sequence = read_file(VALID, NAME)
    assert sequence.joints.dtype == np.float32
    np.testing.assert_array_equal(sequence.joints[0], POSES.astype(np.float32))
    assert sequence.present.all()
    assert (sequence.sample, sequence.label, sequence.class_name) == ("a8_s3_t2", 7, "draw X")
    assert (sequence.class_code, sequence.subject, sequence.replication) == ("A08", 3, 2)
    assert (sequence.camera, sequence.setup, sequence.units, sequence.fps) == (None, None, "m", 30)


def test_reads_a_path_and_a_single_frame(tmp_path):
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(written.utd_mhad(POSES[0]))
    sequence = read_file(path, path.name)
    np.testing.assert_array_equal(sequence.joints[0, 0], POSES[0].astype(np.float32))


def test_frames_of_zeros_are_absent():
    gap = POSES.copy()
    gap[4] = 0
    sequence = read_file(written.utd_mhad(np.moveaxis(gap, 0, 2)), NAME)
    assert np.flatnonzero(~sequence.present[0]).tolist() == [4]


def spoilt(value: float) -> np.ndarray:
    values = np.moveaxis(POSES, 0, 2).copy()
    values[11, 1, 6] = value
    return values


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (written.utd_mhad(spoilt(np.nan)), "frame 6, joint hand_right: y is nan; expected metres"),
        (written.utd_mhad(spoilt(1834)), "frame 6, joint hand_right: y is 1834; expected metres"),
        (written.utd_mhad(np.zeros((20, 3, 5))), "nobody is present in any frame"),
        (written.utd_mhad(np.zeros((25, 3, 5))), "d_skel is 25 × 3 × 5; expected a MATLAB file"),
        (written.utd_mhad(np.zeros((20, 3, 0))), "d_skel is 20 × 3 × 0; expected a MATLAB file"),
        (written.utd_mhad(np.ones((20, 3, 2)) * 1j), "d_skel is of type complex; expected"),
        (written.utd_mhad(d_depth=np.ones(3), x="y"), "holds d_depth, x; expected a MATLAB file"),
        (VALID[:300], r"cannot be read as a MATLAB file \(.*\); expected"),
        (b"", "cannot be read as a MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"a MATLAB 7.3 \(HDF5\) file; expected version 5"),
    ],
)
def test_says_what_is_wrong_with_a_file(data, said):
    with pytest.raises(DataError, match=said) as raised:
        read_file(data, NAME)
    assert str(raised.value).startswith(NAME)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a1_s1_t1_inertial.mat", "not the name of a UTD-MHAD file; expected one like a1_s1_t1_s"),
        ("a28_s1_t1_skeleton.mat", "action 28; expected 1 to 27"),
        ("a0_s1_t1_skeleton.mat", "action 0; expected 1 to 27"),
        ("a٣_s1_t1_skeleton.mat", "not the name of a UTD-MHAD file"),
    ],
)
def test_says_what_is_wrong_with_a_name(name, said):
    with pytest.raises(DataError, match=said):
        read_file(VALID, name)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | damaged(VALID)
    | damaged(VALID[128:]).map(lambda matrix: packed(matrix))
)
def test_damaged_files_raise_nothing_else(data):
    try:
        sequence = read_file(data, NAME)
    except DataError:
        return
    assert np.isfinite(sequence.joints).all()


# ------------------------------------------------------------------------- files that lie

MATRIX = VALID[128:]  # one element: what d_skel is, then its numbers
HEAD = VALID[:128]


def packed(matrix: bytes) -> bytes:
    """A file as MATLAB saves it, its elements compressed."""
    element = zlib.compress(matrix)
    return HEAD + struct.pack("<II", 15, len(element)) + element


def stating(old: tuple[int, ...], new: tuple[int, ...], matrix: bytes = MATRIX) -> bytes:
    """Replace a run of integers that the element states."""
    before, after = (struct.pack(f"<{len(run)}i", *run) for run in (old, new))
    assert before in matrix
    return matrix.replace(before, after, 1)


def test_compressed_and_plain_files_are_the_same():
    np.testing.assert_array_equal(
        read_file(packed(MATRIX), NAME).joints, read_file(VALID, NAME).joints
    )


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1"])
@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_of_any_type_are_those_that_scipy_wrote(dtype, compressed):
    d_skel = (np.moveaxis(POSES, 0, 2) * 10).astype(dtype)
    d_skel = np.abs(d_skel) if dtype == "u1" else d_skel
    file = io.BytesIO()
    savemat(file, {"more": "text", "d_skel": d_skel}, do_compression=compressed)
    found = read_variables(file.getvalue(), 2**20)
    assert list(found) == ["more", "d_skel"]
    assert found["d_skel"].array().dtype == dtype
    np.testing.assert_array_equal(found["d_skel"].array(), d_skel)


def test_big_endian_files_are_read():
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    matrix = (
        element(6, struct.pack(">II", 6, 0))
        + element(5, struct.pack(">iii", 20, 3, 9))
        + element(1, b"d_skel")
        + element(9, np.moveaxis(POSES, 0, 2).astype(">f8").tobytes(order="F"))
    )
    data = bytes(124) + b"\x01\x00MI" + element(14, matrix)
    np.testing.assert_array_equal(read_file(data, NAME).joints, read_file(VALID, NAME).joints)


NUMBERS = 8 * POSES.size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packed(stating((9, NUMBERS), (9, 2**31 - 8))), "cannot be read as a MATLAB file"),
        (HEAD + stating((9, NUMBERS), (9, 2**31 - 8)), "cannot be read as a MATLAB file"),
        (packed(stating((20, 3, 9), (20, 3, 20_000))), "20 × 3 × 20000 numbers are stated and 540"),
        (packed(stating((20, 3, 9), (20, 3, 2**30))), "1073741824 frames; expected at most 20,000"),
        (packed(stating((20, 3, 9), (2**30, 3, 9))), "d_skel is 1073741824 × 3 × 9; expected"),
        (
            packed(stating((6, 8, 6), (6, 8, 1), stating((20, 3, 9), (20, 3, 2**20)))),
            "of type cell",
        ),
        (
            packed(stating((6, 8, 6), (6, 8, 2), stating((20, 3, 9), (20, 3, 2**20)))),
            "of type struct",
        ),
        (packed(MATRIX + bytes(200 * 2**20)), r"it holds too much\); expected a MATLAB"),
        (
            HEAD + struct.pack("<II", 15, 2**32 - 1) + zlib.compress(MATRIX),
            "ends within an element",
        ),
        (HEAD + bytes(8) * 1_000_000, "an element of type 0 in place of a matrix"),
    ],
)
def test_lies_about_sizes_take_no_memory(data, said):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=said):
            read_file(data, NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20 + 9 * len(data)  # and the file itself
