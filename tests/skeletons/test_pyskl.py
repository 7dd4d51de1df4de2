"""PYSKL's annotation pickles: written by the tests as PYSKL writes them, and read back."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tssan.dataset import prepare
from tssan.errors import DataError
from tssan.skeletons import protocols
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.pyskl import open_annotations
from tssan.skeletons.topology import COCO_17, KINECT_V2_25, OPENPOSE_18

from tests.skeletons import written
from tests.skeletons.damage import damaged

# Camera 1 tests in xview; subject 1 trains in xsub and subject 3 tests.
NAMES = [f"S001C{c:03d}P{p:03d}R002A{a:03d}" for a in (1, 14) for p in (1, 3) for c in (1, 2, 3)]
TRAINS = {
    "xsub": [name for name in NAMES if "P001" in name],
    "xview": [name for name in NAMES if "C001" not in name],
}
SPLIT = {
    f"{protocol}_{part}": [name for name in NAMES if (name in trains) == (part == "train")]
    for protocol, trains in TRAINS.items()
    for part in ("train", "val")
}


def annotation(name: str, t: int = 6, m: int = 1, seed: int = 0, **entries: object) -> dict:
    """As `ntu60_3danno.pkl` has them."""
    keypoint = np.stack([written.poses(t, 25, seed + i) for i in range(m)]).astype(np.float16)
    label = int(name[-3:]) - 1 if name[-3:].isdigit() else 0
    return {
        **{"frame_dir": name, "label": label, "keypoint": keypoint, "total_frames": t},
        **entries,
    }


def annotation_2d(name: str, t: int = 6, m: int = 1, v: int = 17, **entries: object) -> dict:
    """As `ntu60_hrnet.pkl` has them: pixels, scores, the image's height and width."""
    rng = np.random.default_rng(t + m)
    keypoint = rng.uniform((0, 0), (1920, 1080), (m, t, v, 2)).astype(np.float16)
    return {
        **{"frame_dir": name, "label": int(name[17:20]) - 1, "total_frames": t},
        **{"img_shape": (1080, 1920), "original_shape": (1080, 1920)},
        **{"keypoint": keypoint, "keypoint_score": np.full((m, t, v), 0.75, np.float16)},
        **entries,
    }


def saved(path: Path, annotations: list, split: object = None, protocol: int = 2) -> Path:
    """mmcv writes protocol 2; a bare list is the older form."""
    held = annotations if split is None else {"split": split, "annotations": annotations}
    path.write_bytes(pickle.dumps(held, protocol))
    return path


def ntu60(path: Path, **of_pickle: object) -> Path:
    annotations = [annotation(name, 4 + i, 1 + i % 2, i) for i, name in enumerate(NAMES)]
    return saved(path, annotations, SPLIT, **of_pickle)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_reads_what_was_written(tmp_path, protocol):
    opened = open_annotations(ntu60(tmp_path / "ntu60_3danno.pkl", protocol=protocol))
    assert (opened.name, opened.topology) == ("ntu60", KINECT_V2_25)
    assert (len(opened), len(opened.classes), opened.remarks) == (12, 60, ())
    for i, (name, sequence) in enumerate(zip(NAMES, opened, strict=True)):
        expected = annotation(name, 4 + i, 1 + i % 2, i)["keypoint"].astype(np.float32)
        np.testing.assert_array_equal(sequence.joints, expected)
        assert sequence.present.all()
        assert (sequence.sample, sequence.units, sequence.fps) == (name, "m", 30)
        assert sequence.class_code == name[-4:]
        assert (sequence.subject, sequence.camera) == (int(name[9:12]), int(name[5:8]))
        assert (sequence.setup, sequence.replication) == (1, 2)
    assert opened[7].class_name == "wear jacket"
    assert opened[-1].sample == NAMES[-1]
    assert [sequence.sample for sequence in opened[2:4]] == NAMES[2:4]
    with pytest.raises(IndexError, match="sequence 12; ntu60 holds 12"):
        opened[12]


def test_the_split_becomes_the_published_protocols_where_it_is_theirs(tmp_path):
    opened = open_annotations(ntu60(tmp_path / "a.pkl"))
    assert opened.protocols == protocols.NTU60
    data = prepare(
        opened, tmp_path / "data", name="ntu60", classes=opened.classes, protocols=opened.protocols
    )
    for name, trains in TRAINS.items():
        assert set(data.index["sample"][data.split(name).train]) == set(trains)
        assert len(data.split(name).test) == len(NAMES) - len(trains)


def test_a_split_of_ones_own_is_kept_as_it_is(tmp_path):
    split = {
        "xsub_train": NAMES[:3],
        "xsub_val": NAMES[3:7],
        "train1": NAMES[:2],
        "test1": NAMES[2:4],
    }
    annotations = [annotation(name) for name in NAMES]
    opened = open_annotations(saved(tmp_path / "a.pkl", annotations, split))
    assert opened.protocols == (
        Protocol("xsub", "sample", tuple(NAMES[:3]), tuple(NAMES[3:7])),
        Protocol("1", "sample", tuple(NAMES[:2]), tuple(NAMES[2:4])),
    )
    many = [annotation(name, seed=i) for i, name in enumerate(NAMES)]
    data = prepare(
        open_annotations(saved(tmp_path / "b.pkl", many, split)),
        tmp_path / "data",
        name="ntu60",
        classes=opened.classes,
        protocols=opened.protocols,
    )
    assert data.split("xsub").train.tolist() == [0, 1, 2]
    assert data.split("xsub").test.tolist() == [3, 4, 5, 6]
    assert data.split("1").test.tolist() == [2, 3]


def test_120_classes(tmp_path):
    names = ["S001C001P001R001A001", "S018C001P008R001A061", "S019C001P042R001A120"]
    split = {
        **{"xsub_train": names[:2], "xsub_val": names[2:]},
        **{"xset_train": names[1:2], "xset_val": names[::2]},
    }
    opened = open_annotations(saved(tmp_path / "a.pkl", [annotation(n) for n in names], split))
    assert (opened.name, len(opened.classes)) == ("ntu120", 120)
    assert opened.protocols == protocols.NTU120
    assert opened[1].class_name == "put on headphone"


def test_poses_in_the_image(tmp_path):
    annotations = [annotation_2d(f"{name}_rgb", m=2) for name in NAMES]
    annotations[0]["keypoint_score"][1, 2:] = 0  # the second person is not there
    annotations[0]["keypoint_score"][0, 0, 3] = 0
    annotations[0]["keypoint_score"][0, 0, 4] = 1.03
    opened = open_annotations(saved(tmp_path / "ntu60_hrnet.pkl", annotations, {}))
    assert (opened.name, opened.topology) == ("ntu60-hrnet17", COCO_17)
    assert opened.protocols == protocols.NTU60
    sequence = opened[0]
    pixels = annotations[0]["keypoint"][0, 0].astype(np.float32)
    joints = sequence.joints[0, 0]
    assert sequence.units == "image"
    np.testing.assert_allclose(joints[5], pixels[5] / [1920, 1080], rtol=1e-6)
    assert not joints[3].any()
    assert sequence.present.tolist() == [[True] * 6, [True, True] + [False] * 4]
    assert sequence.score[0, 0, 3:6].tolist() == [0, 1, 0.75]
    assert (sequence.subject, sequence.camera) == (1, 1)


def test_openpose_without_scores(tmp_path):
    one = annotation_2d(NAMES[0], v=18)
    del one["keypoint_score"]
    one["keypoint"][0, 3] = 0
    sequence = open_annotations(saved(tmp_path / "a.pkl", [one]))[0]
    assert sequence.topology is OPENPOSE_18
    assert sequence.score is None
    assert np.flatnonzero(~sequence.present[0]).tolist() == [3]


def test_kinetics_has_its_400_names(tmp_path):
    clips = [annotation_2d(NAMES[0], label=i, frame_dir=f"clip{i}") for i in (0, 399)]
    opened = open_annotations(
        saved(tmp_path / "k400.pkl", clips, {"train": ["clip0"], "val": ["clip399"]})
    )
    assert (opened.name, len(opened.classes)) == ("kinetics-hrnet17", 400)
    assert [sequence.class_name for sequence in opened] == ["abseiling", "zumba"]
    assert opened.protocols == (Protocol("train-val", "sample", ("clip0",), ("clip399",)),)
    assert opened[0].subject is None


def test_other_data_sets_have_numbered_classes(tmp_path):
    clips = [annotation(f"dive{i}", label=i % 3) for i in range(5)]
    opened = open_annotations(saved(tmp_path / "diving.pkl", clips, {}))
    assert opened.name == "diving"
    assert [action.name for action in opened.classes] == ["class 00", "class 01", "class 02"]
    assert opened.remarks == (
        "diving.pkl does not name its 3 classes; they are called class 00 to class 02",
    )
    assert opened.protocols == ()


def test_names_of_ntu_with_other_labels_are_not_its_classes(tmp_path):
    opened = open_annotations(saved(tmp_path / "two.pkl", [annotation(NAMES[-1], label=1)], {}))
    assert [action.name for action in opened.classes] == ["class 00", "class 01"]
    assert opened[0].subject == 3


def test_the_older_form_a_file_for_each_part(tmp_path):
    folder = tmp_path / "xsub"
    folder.mkdir()
    for part in ("train", "val"):
        saved(folder / f"{part}.pkl", [annotation(name) for name in SPLIT[f"xsub_{part}"]])
    opened = open_annotations(folder)
    assert opened.protocols == protocols.NTU60[:1]
    assert opened.samples == [*SPLIT["xsub_train"], *SPLIT["xsub_val"]]
    alone = open_annotations(folder / "train.pkl")
    assert (len(alone), alone.protocols) == (6, protocols.NTU60)


def test_frames_beyond_the_total_are_padding(tmp_path):
    one = annotation_2d(NAMES[0], t=8, total_frames=5)
    sequence = open_annotations(saved(tmp_path / "a.pkl", [one]))[0]
    assert sequence.frames == sequence.score.shape[1] == 5


def test_listed_samples_that_are_not_there_are_reported(tmp_path):
    split = {"xsub_train": [*NAMES[:3], "S009", "S010"], "xsub_val": NAMES[3:]}
    opened = open_annotations(saved(tmp_path / "a.pkl", [annotation(n) for n in NAMES], split))
    assert opened.remarks == (
        "a.pkl: 2 of the 5 samples of xsub_train have no annotation, such as S009",
    )


def test_one_damaged_annotation_does_not_hide_the_others(tmp_path):
    annotations = [annotation(name) for name in NAMES]
    annotations[4]["keypoint"][0, 3, 9, 1] = np.nan
    opened = open_annotations(saved(tmp_path / "a.pkl", annotations, SPLIT))
    with pytest.raises(
        DataError, match=r"a.pkl, S001C002P003R002A001: frame 3, joint elbow_right: y is"
    ):
        opened[4]
    assert opened[5].sample == NAMES[5]


def test_a_large_file_is_opened_with_little_memory(tmp_path):
    names = [f"S001C001P{p:03d}R{r:03d}A001" for p in range(1, 41) for r in range(1, 6)]
    path = saved(tmp_path / "a.pkl", [annotation(name, 250, 2) for name in names], {})
    size = path.stat().st_size
    assert size > 15e6
    tracemalloc.start()
    opened = open_annotations(path)
    for sequence in opened:
        assert sequence.frames == 250
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 4


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": 1}, "holds a dict of 'a'; expected split and annotations"),
        ([], "holds a list of 0; expected split and annotations, or a list"),
        ("text", "holds 'text'; expected"),
        ([3], "annotation 0 is 3; expected frame_dir, label, total_frames"),
        ([{"label": 3}], "frame_dir of annotation 0 is None; expected the name of a video"),
        ([annotation(NAMES[0])] * 2, f"{NAMES[0]} is annotated 2 times; expected once"),
        ([annotation(NAMES[0], label="x")], "label is 'x'; expected the number of a class"),
        ([annotation(NAMES[0], label=-1)], "label is -1; expected the number of a class"),
        ([annotation(NAMES[0], keypoint=None)], "keypoint is None; expected an array of real num"),
        (
            [annotation(NAMES[0], keypoint=None, raw_file="x/y.pkl")],
            "its keypoints lie in another file, 'x/y.pkl'; expected a pickle that holds them",
        ),
        (
            [annotation(NAMES[0], keypoint=np.ones((1, 4, 13, 3)))],
            "keypoint has 13 joints with 3 coordinates; expected 25 with 3, 17 with 2, 18 with 2",
        ),
        (
            [annotation(NAMES[0], keypoint=np.ones((4, 25, 3)))],
            r"keypoint is a float64 array \(4, 25, 3\); expected an array of real numbers",
        ),
        (
            [annotation(NAMES[0], keypoint=np.ones((1, 4, 25, 3), int))],
            "keypoint is a int64 array",
        ),
        ({"annotations": [annotation(NAMES[0])], "split": [1]}, "split is a list of 1; expected"),
        (
            {"annotations": [annotation(NAMES[0])], "split": {"train": 3}},
            "part 'train' is 3; expected a list of samples",
        ),
        (
            {"annotations": [annotation(NAMES[0])], "split": {"train": [3]}},
            "part 'train' lists 3; expected names as in frame_dir",
        ),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path, held, said):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match=said):
        open_annotations(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"total_frames": 7}, "total_frames is 7 and keypoint has 6 frames; expected as many"),
        ({"total_frames": 0}, "total_frames is 0 and keypoint has 6 frames"),
        ({"img_shape": None}, "img_shape is None; expected the image's height and width"),
        ({"img_shape": (1080,)}, "img_shape is a tuple of 1; expected"),
        ({"img_shape": (0, 1)}, "img_shape is a tuple of 2; expected"),
        ({"keypoint_score": np.ones((1, 6, 18))}, r"score has shape \(1, 6, 18\); expected \(1, 6"),
        ({"keypoint_score": 3}, r"keypoint_score is 3; expected an array \(1, 6, 17\)"),
        ({"keypoint_score": np.full((1, 6, 17), np.nan)}, "keypoint_score is not a finite number"),
        ({"keypoint_score": np.zeros((1, 6, 17))}, "nobody is present in any frame"),
        (
            {"keypoint": np.full((1, 6, 17, 2), np.inf)},
            "frame 0, person 1, joint 0: x is inf; expected pixels of an image of 1920 × 1080",
        ),
        ({"keypoint": np.ones((1, 6, 18, 2))}, "18 joints with 2 coordinates; expected 17 joints"),
    ],
)
def test_says_what_is_wrong_with_an_annotation(tmp_path, entries, said):
    annotations = [annotation_2d(NAMES[0]), annotation_2d(NAMES[1], **entries)]
    opened = open_annotations(saved(tmp_path / "a.pkl", annotations, {}))
    assert opened[0].sample == NAMES[0]
    with pytest.raises(DataError, match=said) as raised:
        opened[1]
    assert str(raised.value).startswith(f"a.pkl, {NAMES[1]}: ")


def test_says_what_is_wrong_with_a_path(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected an annotation pickle of PYSKL"):
        open_annotations(tmp_path / "a.pkl")
    with pytest.raises(DataError, match=r"holds no train\.pkl with a val\.pkl or test\.pkl"):
        open_annotations(tmp_path)


WHOLE = pickle.dumps(
    {"split": SPLIT, "annotations": [annotation_2d(NAMES[0]), annotation_2d(NAMES[1], m=2)]}, 4
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged(WHOLE) | damaged(pickle.dumps(pickle.loads(WHOLE), 2)))
def test_damaged_files_raise_nothing_else(tmp_path, data):
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    try:
        opened = open_annotations(path)
    except DataError:
        return
    for position in range(len(opened)):
        try:
            sequence = opened[position]
        except DataError:
            continue
        assert np.isfinite(sequence.joints).all()


SOME = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from([*annotation_2d(NAMES[0]), "split", "raw_file"]), SOME, max_size=3
    )
)
def test_any_other_contents_raise_nothing_else(tmp_path, entries):
    split = entries.pop("split", {})
    path = saved(tmp_path / "a.pkl", [annotation_2d(NAMES[0], **entries)], split)
    try:
        sequence = open_annotations(path)[0]
    except DataError:
        return
    assert isinstance(sequence.sample, str)
    assert pd.api.types.is_integer(sequence.label)
