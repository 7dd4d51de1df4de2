"""Skeletons of one's own: any of them come back, and what is wrong is said with key and row."""

from __future__ import annotations

import io
import math
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.dataset import SkeletonDataset
from tssan.errors import DataError
from tssan.preparing import prepare_annotations
from tssan.skeletons import plain, plain_sources
from tssan.skeletons.topology import KINECT_V2_25, find_topology

from tests.skeletons.damage import damaged

PUPPET = """\
joints: [pelvis, chest, head, LeftHand, hand_r]
parents: {chest: pelvis, head: chest, LeftHand: chest, hand_r: chest}
"""
V = 5


@pytest.fixture
def puppet(tmp_path: Path) -> Path:
    (tmp_path / "puppet.yaml").write_text(PUPPET)
    return tmp_path


def coordinates(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype(np.float32)


def saved(folder: Path, **entries: object) -> Path:
    defaults = {"joints": coordinates(4, 7, V, 3), "label": [0, 1, 1, 0], "topology": "puppet.yaml"}
    kept = {key: value for key, value in (defaults | entries).items() if value is not None}
    path = folder / "mine.npz"
    np.savez(path, **kept)
    return path


def table(folder: Path, **columns: object) -> Path:
    defaults = {
        "joints": [coordinates(3 + i, V, 3, seed=i).tolist() for i in range(4)],
        "label": ["sit", "stand", "stand", "sit"],
        "topology": "puppet.yaml",
    }
    kept = {key: value for key, value in (defaults | columns).items() if value is not None}
    path = folder / "mine.parquet"
    pd.DataFrame(kept).to_parquet(path)
    return path


# ------------------------------------------------------------------------------------ round trip

sequences_of_any_length = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(0, 3), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(sequences_of_any_length, st.sampled_from([2, 3]), st.sampled_from(["npz", "flat", "nested"]))
def test_any_skeletons_come_back(tmp_path_factory, shapes, c, how):
    folder = tmp_path_factory.mktemp("any")
    (folder / "puppet.yaml").write_text(PUPPET)
    joints = [coordinates(m, t, V, c, seed=i) for i, (m, t, *_) in enumerate(shapes)]
    scores = [coordinates(m, t, V, seed=i + 50) for i, (m, t, *_) in enumerate(shapes)]
    common = {
        "label": [f"class {label}" for *_, label, _ in shapes],
        "subject": [subject for *_, subject in shapes],
        "sample": [f"video {i}" for i in range(len(shapes))],
        "frames": [t for _, t, *_ in shapes],
        "persons": [m for m, *_ in shapes],
        "fps": 25,
    }
    if how == "npz":
        lines = {
            "joints": np.concatenate([j.reshape(-1, V, c) for j in joints]),
            "score": np.concatenate([s.reshape(-1, V) for s in scores]),
        }
        path = saved(folder, **common, **lines)
    else:
        flat = how == "flat"
        lists = {
            "joints": [j.ravel() if flat else j.tolist() for j in joints],
            "score": [s.ravel() if flat else s.tolist() for s in scores],
        }
        path = table(folder, **common, **lists)
    opened = plain.open_annotations(path)
    data = prepare_annotations(opened, folder / "data")
    assert len(data) == len(shapes)
    for i, sequence in enumerate(data):
        np.testing.assert_array_equal(sequence.joints, joints[i])
        np.testing.assert_array_equal(sequence.score, scores[i])
        assert sequence.class_name == common["label"][i]
        assert sequence.subject == common["subject"][i]
        assert sequence.sample == f"video {i}"
        assert sequence.units == ("m" if c == 3 else "image")
        assert sequence.fps == 25
    assert [action.name for action in data.classes] == sorted(set(common["label"]))
    # Out of order, it is read again from its beginning.
    np.testing.assert_array_equal(opened[-1].joints, joints[-1])
    np.testing.assert_array_equal(opened[0].joints, joints[0])


def test_equally_long_sequences_and_padding(puppet):
    joints = coordinates(4, 2, 7, V, 3)
    joints[1, 1] = np.nan
    joints[2, :, 5:] = 0
    path = saved(puppet, joints=joints, frames=[7, 7, 5, 3], class_names=["sit", "stand"])
    read = list(plain.open_annotations(path))
    assert [s.joints.shape for s in read] == [(2, t, V, 3) for t in (7, 7, 5, 3)]
    assert [s.present.sum() for s in read] == [14, 7, 10, 6]
    assert [s.class_name for s in read] == ["sit", "stand", "stand", "sit"]
    one = list(plain.open_annotations(saved(puppet, joints=joints[:, 0], class_names=None)))
    assert [s.joints.shape for s in one] == [(1, 7, V, 3)] * 4
    assert one[0].class_name == "class 0"


def test_presence_may_be_said(puppet):
    present = np.ones((4, 7), bool)
    present[0, 2] = False
    first = plain.open_annotations(saved(puppet, present=present))[0]
    assert first.present.tolist() == [[True, True, False, True, True, True, True]]
    assert not first.joints[0, 2].any()


def test_splits_and_subjects_make_protocols(puppet):
    split = ["train", "test", "val", "train"]
    opened = plain.open_annotations(
        saved(puppet, split=split, subject=["P002", "P010", "P002", "P011"], camera=[1, 2, 1, 2])
    )
    assert [rule.name for rule in opened.protocols] == ["train-test", "train-val", "cross-subject"]
    assert [s.subject for s in opened] == [2, 10, 2, 11]
    assert opened.subject_names == {2: "P002", 10: "P010", 11: "P011"}
    data = prepare_annotations(opened, puppet / "data")
    assert data.subject_names == opened.subject_names
    assert (data.split().train.tolist(), data.split().test.tolist()) == ([0, 3], [1])
    assert SkeletonDataset.open(puppet / "data").index["split"].tolist() == split


def test_people_with_names_are_numbered(puppet):
    path = saved(puppet, subject=["Mia", "Ben", "Mia", "Ann"])
    opened = plain.open_annotations(path)
    assert [s.subject for s in opened] == [3, 2, 3, 1]
    assert opened.subject_names == {1: "Ann", 2: "Ben", 3: "Mia"}
    clash = plain.open_annotations(saved(puppet, subject=["A1", "B1", "A1", "B2"]))
    assert [s.subject for s in clash] == [1, 2, 1, 3]


def test_labels_may_be_numbers_with_names_by_row(puppet):
    opened = plain.open_annotations(
        table(puppet, label=[2, 0, 0, 2], class_name=["walk", "sit", "sit", "walk"])
    )
    assert [action.name for action in opened.classes] == ["sit", "class 1", "walk"]
    assert [s.label for s in opened] == [2, 0, 0, 2]


def test_without_subjects_and_split_it_says_what_is_missing(puppet):
    assert (
        "nothing says what trains and what tests"
        in plain.open_annotations(saved(puppet)).remarks[0]
    )


def test_a_known_topology_and_one_given_when_it_is_read(puppet):
    path = saved(puppet, joints=coordinates(4, 7, 25, 3), topology="kinect-v2-25")
    assert plain.open_annotations(path)[0].topology is KINECT_V2_25
    path = saved(puppet, topology=None)
    given_now = find_topology("puppet.yaml", folder=puppet)
    assert plain.open_annotations(path, topology=given_now)[3].topology.name == "puppet"


# ---------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"joints": None}, "the key 'joints' is missing; it holds label, topology"),
        ({"label": None}, "the key 'label' is missing"),
        ({"topology": None}, "the key 'topology' is missing, which says what the joints are"),
        (
            {"topology": "kinect-v2"},
            r"no topology is called 'kinect-v2' \(did you mean kinect-v2-25",
        ),
        ({"topology": "pupet.yaml"}, "pupet.yaml: the topology cannot be read: No such file"),
        ({"topology": "kinect-v2-25"}, "joints: 5 joints; expected 25, as the topology has"),
        ({"lable": [1]}, "unknown key 'lable'; did you mean 'label'?"),
        ({"joints": coordinates(4, 7)}, r"joints: shape \(4, 7\); expected \(n, t, v, c\)"),
        ({"joints": coordinates(4, 7, V, 4)}, "joints, row 0: 4 coordinates; expected 2 or 3"),
        ({"joints": coordinates(28, V, 3)}, "`frames` is missing"),
        (
            {"joints": coordinates(28, V, 3), "frames": [7, 7, 7, 8]},
            "frames: frames add up to 29; expected 28, as joints has",
        ),
        ({"frames": [7, 7, 7, 8]}, "frames, row 3: 8; expected at most 7"),
        ({"frames": [7, 7, 0, 7]}, "frames, row 2: 0; expected a whole number from 1"),
        ({"label": [0, 1, 1]}, r"label: shape \(3,\); expected \(4,\), one per sequence"),
        ({"label": [0, -1, 1, 0]}, "label, row 1: -1; expected a whole number from 0"),
        ({"label": [0, 1.5, 1, 0]}, r"label: \[0.0\], …; expected whole numbers from 0"),
        ({"label": ["a", " ", "b", "a"]}, "label, row 1: an empty name"),
        ({"class_names": ["a"]}, "label, row 1: 1; expected 0 to 0, as class_names has"),
        ({"class_names": ["a", "a"]}, "class_names: 'a' at 1; expected names that are all differ"),
        (
            {"label": ["a", "b", "c", "a"], "class_names": ["a", "b"]},
            "label, row 2: 'c'; expected one of class_names",
        ),
        ({"sample": ["a", "b", "a", "c"]}, "sample, row 2: 'a' a second time"),
        ({"subject": ["a", "b", "<b>", "c"]}, "subject, row 2: '<b>'; expected a number, or a sho"),
        ({"split": ["train", "tset", "test", "test"]}, "split, row 1: 'tset'; expected train, val"),
        ({"units": "mm"}, "units: 'mm'; expected m or image"),
        ({"fps": 0}, "fps: 0; expected frames per second"),
        ({"fps": [1, 2]}, r"fps: shape \(2,\); expected a single value"),
        ({"present": np.ones((4, 6), bool)}, r"present: shape \(4, 6\); expected \(4, 7\)"),
        ({"score": np.full((4, 7, V), 2.0)}, "score, row 0: from 2 to 2; expected 0 to 1"),
        (
            {"joints": coordinates(4, 7, V, 3) * 1000},
            r"joints, row 0: frame 0, person 1, joint pelvis: x is \d+.*expected metres, less than",
        ),
        (
            {"joints": coordinates(4, 7, V, 2) * 1000},
            "expected parts of the image's width and height, not pixels",
        ),
        ({"joints": np.zeros((4, 7, V, 3))}, "joints, row 0: nobody in any frame"),
        (
            {"label": np.array([{}, 1, 2, 3], object)},
            "label.npy holds Python objects, which are no",
        ),
        ({"joints": np.empty((0, 7, V, 3)), "label": []}, "joints has no sequence"),
    ],
)
def test_what_is_wrong_in_an_archive_is_said(puppet, entries, said):
    path = saved(puppet, **entries)
    with pytest.raises(DataError, match=said):
        list(plain.open_annotations(path))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"topology": "coco-17"}, "5 joints; expected 17, as the topology has"),
        ({"score": np.ones((4, 7, 4))}, r"score: shape \(4, 7, 4\); expected \(4, 7, 5\)"),
        ({"frames": [7, 7, 7, 8]}, "frames, row 3: 8; expected at most 7"),
        ({"joints": coordinates(9, V, 3), "frames": [2, 2, 2, 2]}, "frames add up to 8; expected"),
    ],
)
def test_what_is_wrong_with_the_whole_archive_is_said_before_it_is_read(puppet, entries, said):
    """It is not a matter of a sequence that could be left out."""
    with pytest.raises(DataError, match=said):
        plain.open_annotations(saved(puppet, **entries))


def test_sequences_may_be_asked_for_in_any_order_for_as_long_as_one_likes(puppet, monkeypatch):
    monkeypatch.setattr(plain_sources, "SMALL_BYTES", 1000)
    joints = coordinates(9, V, 3)
    frames = [2, 3, 1, 3]
    opened = plain.open_annotations(saved(puppet, joints=joints, frames=frames))
    for i in range(400):
        row = -i % 4
        begin = sum(frames[:row])
        np.testing.assert_array_equal(
            opened[row].joints[0], joints[begin : begin + frames[row]], strict=True
        )


def test_a_single_lost_joint_is_said_with_what_to_do(puppet):
    joints = coordinates(4, 7, V, 3)
    joints[2, 3, 4, 1] = np.nan
    with pytest.raises(DataError, match=r"row 2: frame 3, person 1, joint hand_r: y is nan; .*NaN"):
        list(plain.open_annotations(saved(puppet, joints=joints)))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"joints": None}, "the key 'joints' is missing"),
        ({"joints": [[1.0, 2.0]] * 4}, "joints, row 0: 2 numbers for 1 × 0 frames × 5 joints"),
        ({"joints": ["x"] * 4}, "joints, row 0: x; expected a list of numbers"),
        (
            {"joints": [[[[0.1, 0.2, 0.3]] * V, [[0.1, 0.2, 0.3]] * 4]] * 4},
            "joints, row 0: lists of unlike lengths, or none; expected lists all alike",
        ),
        ({"joints": [coordinates(3, 4, 3).tolist()] * 4}, r"joints, row 0: shape \(1, 3, 4, 3\)"),
        ({"joints": [[[[0.1, 0.2, None]] * V]] * 4}, "joints, row 0: a null; expected a number"),
        ({"label": ["a", None, "b", "a"]}, "label, row 1: null; expected a value in every row"),
        ({"topology": ["a", "b", "a", "a"]}, "topology: 'a', 'b', …; expected the same value in a"),
        ({"class_names": ["a"] * 4, "label": [0, 0, 0, 0]}, "in a table a column class_name"),
        (
            {"label": [0, 0, 1, 1], "class_name": ["a", "b", "c", "c"]},
            "class_name, row 1: 'b'; expected 'a', as label 0 had before",
        ),
        ({"label": [[1]] * 4}, "label: a column of list"),
        ({"frames": [3, 4, -1, 6]}, "frames, row 2: -1; expected a whole number from 1"),
    ],
)
def test_what_is_wrong_in_a_table_is_said(puppet, columns, said):
    path = table(puppet, **columns)
    with pytest.raises(DataError, match=said):
        list(plain.open_annotations(path))


def test_what_is_no_such_file(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"x.npz is neither an .npz archive nor a Parquet file"):
        plain.open_annotations(tmp_path / "x.npz")
    with pytest.raises(DataError, match="No such file"):
        plain.open_annotations(tmp_path / "y.npz")


# --------------------------------------------------------------------------- strangers' files


class Trap:
    def __reduce__(self):
        return open, ("/tmp/trap-was-sprung", "w")


def test_a_pickle_in_the_archive_is_not_run(puppet):
    path = saved(puppet, label=None)
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        data, {"descr": "|O", "fortran_order": False, "shape": (4,)}
    )
    data.write(pickle.dumps([Trap()] * 4))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("label.npy", data.getvalue())
    with pytest.raises(DataError, match="holds Python objects, which are not read"):
        plain.open_annotations(path)
    assert not Path("/tmp/trap-was-sprung").exists()


def whole_archive(tmp: Path) -> bytes:
    (tmp / "puppet.yaml").write_text(PUPPET)
    names = {"class_names": ["a", "b"], "subject": ["x", "y", "x", "y"], "fps": 30.0}
    return saved(tmp, score=coordinates(4, 7, V), **names).read_bytes()


def whole_table(tmp: Path) -> bytes:
    (tmp / "puppet.yaml").write_text(PUPPET)
    return table(tmp, subject=[1, 2, 1, 2], fps=30.0).read_bytes()


@pytest.mark.parametrize("make", [whole_archive, whole_table])
def test_damaged_files_are_read_or_refused_within_bounds(tmp_path, make):
    whole = make(tmp_path)
    path = tmp_path / "damaged"

    @settings(max_examples=120, deadline=None)
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        tracemalloc.start()
        pool = pa.default_memory_pool()
        before = pool.bytes_allocated()
        try:
            opened = plain.open_annotations(path)
            assert len(list(opened)) == len(opened)
        except DataError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak + pool.bytes_allocated() - before < 64 * 2**20 + 10 * len(data)

    check()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((10**9, 7, V, 3), "<f4"),
        ((4, 10**9, V, 3), "<f4"),
        ((2**62, 2**62, V, 3), "<f4"),
        ((4, 0, V, 3), "<f4"),
        ((0, 7, V, 3), "<f4"),
    ],
)
def test_an_archive_that_claims_more_than_it_holds(puppet, shape, dtype):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    path = puppet / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("joints.npy", header.getvalue() + bytes(1000))
        for name, value in (("label", np.zeros(4, int)), ("topology", np.array("puppet.yaml"))):
            data = io.BytesIO()
            np.save(data, value)
            archive.writestr(f"{name}.npy", data.getvalue())
    refused_in_little_memory(path)


def test_small_files_that_unpack_to_much(puppet):
    path = puppet / "bomb.npz"
    for key in ("joints", "label", "sample"):
        np.savez_compressed(
            path,
            joints=np.zeros((4, 200_000 if key == "joints" else 7, V, 3), np.float32),
            label=np.zeros(30_000_000 if key == "label" else 4, np.int8),
            sample=np.zeros(4, "U2000000" if key == "sample" else "U5"),
            topology="puppet.yaml",
        )
        assert path.stat().st_size < 2**20
        refused_in_little_memory(path)


def test_a_small_table_that_unpacks_to_much(puppet):
    numbers = pa.ListArray.from_arrays([0, 30_000_000], np.zeros(30_000_000, np.float32))
    columns = {
        "joints": numbers,
        "frames": [2_000_000],
        "label": ["a"],
        "topology": ["puppet.yaml"],
    }
    path = puppet / "bomb.parquet"
    pq.write_table(pa.table(columns), path)
    assert path.stat().st_size < 2**20
    refused_in_little_memory(path)


def refused_in_little_memory(path: Path) -> None:
    pool = pa.default_memory_pool()
    before = pool.max_memory() or 0
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            list(plain.open_annotations(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    grown = (pool.max_memory() or 0) - before
    assert peak + grown < 64 * 2**20 + 10 * path.stat().st_size


def test_a_long_archive_is_read_a_sequence_at_a_time(puppet):
    path = saved(puppet, joints=coordinates(400, 300, V, 3), label=np.arange(400) % 2)
    tracemalloc.start()
    try:
        assert sum(sequence.frames for sequence in plain.open_annotations(path)) == 400 * 300
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < math.prod((400, 300, V, 3)) * 4 / 2
