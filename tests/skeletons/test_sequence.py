"""The sequence refuses what is not one, and absent frames hold zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tssan.errors import DataError
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25

from tests.skeletons import written


def make(**changes) -> SkeletonSequence:
    given = {
        "joints": np.stack([written.poses(6, 25, seed) for seed in (0, 1)]).astype(np.float32),
        "present": np.ones((2, 6), bool),
        "topology": KINECT_V2_25,
        "units": "m",
        "fps": 30.0,
        "sample": "S001C001P001R001A014",
    }
    return SkeletonSequence(**(given | changes))


def test_counts_persons_and_frames():
    assert (make().persons, make().frames) == (2, 6)


def test_absent_frames_are_zero_whatever_stood_there():
    whole = make()
    joints = whole.joints.copy()
    joints[1, 3] = np.nan
    present = whole.present.copy()
    present[1, 3] = False
    sequence = make(joints=joints, present=present)
    assert not sequence.joints[1, 3].any()
    assert np.array_equal(sequence.joints[present], whole.joints[present])
    assert np.isnan(joints[1, 3]).all(), "the caller's own array is left alone"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joints": np.zeros((2, 6, 25, 3))}, "joints are float64; expected a float32 array"),
        ({"joints": np.zeros((2, 6, 20, 3), np.float32)}, r"expected \(m, t, 25, 2 or 3\)"),
        ({"joints": np.zeros((2, 6, 25, 4), np.float32)}, r"expected \(m, t, 25, 2 or 3\)"),
        ({"joints": np.zeros((2, 0, 25, 3), np.float32)}, "at least one frame"),
        ({"present": np.ones((2, 5), bool)}, r"present has shape \(2, 5\); expected \(2, 6\)"),
        ({"present": np.ones((2, 6))}, "present is float64; expected a bool array"),
        ({"present": np.zeros((2, 6), bool)}, "nobody is present in any frame"),
        ({"score": np.zeros((2, 6, 24), np.float32)}, "expected float32"),
        ({"units": "mm"}, "units 'mm'; expected 'm' or 'image'"),
        ({"fps": 0.0}, "expected a number above 0"),
        ({"fps": float("nan")}, "expected a number above 0"),
        ({"sample": ""}, "the sample has no name"),
    ],
)
def test_refuses_what_is_not_a_sequence(changes, said):
    with pytest.raises(DataError, match=said):
        make(**changes)


def test_says_in_which_frame_a_coordinate_is_not_finite():
    joints = make().joints.copy()
    joints[1, 4, 7, 2] = np.inf
    with pytest.raises(DataError, match=r"x.skeleton: frame 4, person 2 has a coordinate"):
        make(joints=joints, source="x.skeleton")


def test_can_be_changed_by_replacement_only():
    sequence = make()
    with pytest.raises(AttributeError):
        sequence.fps = 25.0
    assert replace(sequence, fps=25.0).fps == 25.0
