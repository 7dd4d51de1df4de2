"""Northwestern-UCLA: the real archive against what is known of it, made-up files, damaged ones."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.errors import DataError
from tssan.skeletons.nw_ucla import find_files, read_file
from tssan.skeletons.topology import NW_UCLA_20

from tests.skeletons import written
from tests.skeletons.damage import damaged

NAME = "all_sqe/a08_s02_e03_v01.json"
POSES = written.poses(5, 20)
VALID = written.nw_ucla(POSES, 7, file_name="a08_s02_e03_v01")


@pytest.fixture(scope="module")
def real(nw_ucla_zip):
    return [read_file(file.read(), file.name) for file in find_files(nw_ucla_zip)]


def test_real_archive_is_whole(real):
    assert len(real) == 1484
    assert Counter(sequence.camera for sequence in real) == {1: 516, 2: 504, 3: 464}
    assert {sequence.subject for sequence in real} == set(range(1, 11))
    assert {sequence.label for sequence in real} == set(range(10))
    short = Counter(sequence.frames for sequence in real if sequence.frames < 8)
    assert short == {1: 2, 6: 2}
    assert all(sequence.present.all() for sequence in real)


def test_real_lost_joints_are_filled_and_marked(real):
    filled = {s.sample: int((s.score == 0).sum()) for s in real if s.score is not None}
    assert filled == {"a04_s01_e01_v01": 6, "a04_s04_e02_v01": 6}
    assert all((sequence.joints != 0).any(axis=3).all() for sequence in real)


def test_real_values_are_those_of_the_file(real, nw_ucla_zip):
    sequence = real[700]
    with zipfile.ZipFile(nw_ucla_zip) as archive:
        record = json.loads(archive.read(sequence.source))
    assert record["label"] == sequence.label + 1
    for t, v, c in ((0, 0, 0), (3, 11, 2), (sequence.frames - 1, 19, 1)):
        assert sequence.joints[0, t, v, c] == np.float32(record["skeletons"][t][v][c])


def test_real_bodies_stand_upright(real):
    head, hip, foot = (NW_UCLA_20.joints.index(n) for n in ("head", "hip_center", "foot_left"))
    heights = np.concatenate([s.joints[0, :, [head, hip, foot], 1] for s in real], axis=1)
    assert np.mean((heights[0] > heights[1]) & (heights[1] > heights[2])) > 0.95


def test_reads_what_was_written():
    sequence = read_file(VALID, NAME)
    np.testing.assert_array_equal(sequence.joints[0], POSES.astype(np.float32))
    assert (sequence.sample, sequence.label, sequence.class_name) == (
        "a08_s02_e03_v01",
        6,
        "donning",
    )
    assert (sequence.class_code, sequence.subject, sequence.camera) == ("A08", 2, 1)
    assert (sequence.replication, sequence.setup, sequence.score) == (3, None, None)


def test_a_single_frame_is_a_clip():
    assert read_file(written.nw_ucla(POSES[:1], 7), NAME).frames == 1


def test_lost_joints_come_from_the_frames_before_and_after():
    lost = POSES.copy()
    lost[2, 7] = 0  # between two that are known
    lost[0, 3] = 0  # before the first that is known
    lost[:, 9] = 0  # never known
    lost[4] = 0  # nobody at all
    sequence = read_file(written.nw_ucla(lost, 7), NAME)
    joints = sequence.joints[0]
    np.testing.assert_allclose(joints[2, 7], (POSES[1, 7] + POSES[3, 7]) / 2, atol=1e-6)
    np.testing.assert_allclose(joints[0, 3], POSES[1, 3], atol=1e-6)
    assert not joints[:, 9].any()
    assert sequence.present[0].tolist() == [True] * 4 + [False]
    assert np.argwhere(sequence.score[0] == 0).tolist() == [[0, 3], [2, 7]]
    kept = np.ones((5, 20), bool)
    kept[[2, 0], [7, 3]] = False
    np.testing.assert_array_equal(joints[kept], lost[kept].astype(np.float32))


def spoilt(**at: object) -> bytes:
    record = json.loads(VALID)
    frame, joint = at.get("frame", 3), at.get("joint")
    if joint is None:
        record["skeletons"][frame] = at["value"]
    else:
        record["skeletons"][frame][joint] = at["value"]
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (spoilt(value=[[1, 2, 3]] * 19), "frame 3 is a list of 19; expected a list of 20 joints"),
        (spoilt(value=None), "frame 3 is None; expected a list of 20 joints"),
        (spoilt(joint=3, value=[1, 2]), r"frame 3, joint head is \[1, 2\]; expected three numbers"),
        (spoilt(joint=3, value=[1, 2, "3"]), "joint head is .*; expected three numbers"),
        (spoilt(joint=3, value=[1, 2, True]), "joint head is .*; expected three numbers"),
        (spoilt(joint=3, value=[1, 2, float("nan")]), "frame 3, joint head: z is nan; expected"),
        (spoilt(joint=3, value=[1, 2, 10**400]), "a coordinate has too many digits"),
        (spoilt(joint=3, value=[1, 2900, 3]), "y is 2900; expected metres, less than 100 away"),
        (written.nw_ucla(np.zeros((4, 20, 3)), 7), "nobody is present in any frame"),
        (written.nw_ucla(np.zeros((0, 20, 3)), 7), r"skeletons is \[\]; expected a list of frames"),
        (written.nw_ucla(POSES, 8), "says label 8; expected 7 for donning"),
        (written.nw_ucla(POSES, 7, file_name="a09"), "says file_name 'a09'; expected 'a08_s02_"),
        (b'{"label": 7}', "holds entries label; expected file_name, skeletons and label"),
        (b"[1, 2]", "holds list; expected file_name, skeletons and label"),
        (VALID[:-30], r"json, line 1, column \d+: not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_says_what_is_wrong_with_a_file(data, said):
    with pytest.raises(DataError, match=said) as raised:
        read_file(data, NAME)
    assert str(raised.value).startswith(NAME)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "a07_s01_e00_v01.json",
            "action 07; expected one of 01, 02, 03, 04, 05, 06, 08, 09, 11, 12",
        ),
        ("a8_s1_e0_v1.json", "not the name of a Northwestern-UCLA file; expected one like a01_s01"),
    ],
)
def test_says_what_is_wrong_with_a_name(name, said):
    with pytest.raises(DataError, match=said):
        read_file(VALID, name)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | damaged(VALID))
def test_damaged_files_raise_nothing_else(data):
    try:
        sequence = read_file(data, NAME)
    except DataError:
        return
    assert np.isfinite(sequence.joints).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)


@settings(max_examples=200, deadline=None)
@given(skeletons=JSON, label=JSON)
def test_any_other_json_raises_nothing_else(skeletons, label):
    with pytest.raises(DataError):
        read_file(json.dumps({"skeletons": skeletons, "label": label}).encode(), NAME)


@pytest.mark.parametrize(
    ("filling", "megabytes"), [(b"[],", 2), (b'{"":0},', 2), (b"[0,0,0],", 2), (b"[],", 20)]
)
def test_endless_lists_take_no_memory(filling, megabytes):
    whole = b'{"label":7,"skeletons":[' + filling * (megabytes * 2**20 // len(filling) - 20)
    data = whole[:-1] + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected"):
            read_file(data, NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20 + 9 * len(data)  # and the file itself
