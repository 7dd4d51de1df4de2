"""Kinetics-skeleton: what is made of a clip, who is who over time, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tssan.errors import DataError, LeftOut
from tssan.skeletons import files, kinetics
from tssan.skeletons.classes import KINETICS

from tests.skeletons import written
from tests.skeletons.damage import damaged

NAME = "kinetics_train/abcdefghijk.json"
REST = np.random.default_rng(3).uniform(-0.05, 0.05, (18, 2))


def person(x: float, y: float = 0.5, score: float = 0.5) -> dict[str, list[float]]:
    """Somebody around a place of the image."""
    pose = np.add(REST, (x, y))
    return {"pose": pose.round(4).ravel().tolist(), "score": [score] * 18}


def clip(frames: list[list[dict]], first: int = 1, **changes: object) -> bytes:
    entries = {
        "data": [{"frame_index": first + t, "skeleton": s} for t, s in enumerate(frames)],
        "label": "flipping pancake",
        "label_index": 129,
    }
    return json.dumps(entries | changes).encode()


def where(sequence: object, m: int) -> list[float]:
    """The middle of a person, frame by frame, in the image's own coordinates."""
    return (sequence.joints[m].mean(axis=1)[:, 0] - REST[:, 0].mean() + 0.5).round(2).tolist()


def test_what_a_clip_becomes():
    sequence = kinetics.read_file(clip([[person(0.25)], [], [person(0.75, score=1.0)]]), NAME)
    assert sequence.joints.shape == (1, 3, 18, 2)
    assert sequence.present.tolist() == [[True, False, True]]
    np.testing.assert_allclose(sequence.joints[0, 0], np.add(REST, (-0.25, 0)), atol=1e-4)
    assert not sequence.joints[0, 1].any()
    np.testing.assert_array_equal(sequence.score[0, :, 0], np.float32([0.5, 0, 1]))
    assert (sequence.units, sequence.fps, sequence.topology.name) == ("image", 30, "openpose-18")
    assert (sequence.sample, sequence.split) == ("abcdefghijk", "train")
    assert (sequence.label, sequence.class_name, sequence.class_code) == (
        129,
        "flipping pancake",
        None,
    )
    assert kinetics.read_file(clip([[person(0.5)]]), "kinetics_val/x.json").split == "val"
    assert kinetics.read_file(clip([[person(0.5)]]), "x.json").split is None


def test_joints_that_were_not_found_lie_at_zero_like_the_middle_of_the_image():
    somebody = person(0.8)
    somebody["score"][4] = 0
    somebody["pose"][8:10] = [0.0, 0.0]
    sequence = kinetics.read_file(clip([[somebody]]), NAME)
    assert sequence.joints[0, 0, 4].tolist() == [0, 0]
    assert np.count_nonzero(sequence.joints[0, 0].any(axis=1)) == 17


def test_frames_count_from_one_or_from_zero():
    frames = [[person(0.1)], [person(0.2)], [person(0.3)]]
    from_one = kinetics.read_file(clip(frames), NAME)
    from_zero = kinetics.read_file(clip(frames, first=0), NAME)
    np.testing.assert_array_equal(from_one.joints, from_zero.joints)
    late = kinetics.read_file(clip(frames, first=4), NAME)
    assert late.present.tolist() == [[False] * 3 + [True] * 3]


def test_the_best_two_of_the_first_five_are_kept():
    people = [person(0.1 * i, score=0.1 * i) for i in (1, 2, 3, 4, 5)] + [person(0.9, score=1.0)]
    sequence = kinetics.read_file(clip([people]), NAME)
    assert [where(sequence, m) for m in range(2)] == [[0.5], [0.4]]


def test_people_keep_their_place_when_their_scores_cross():
    frames = [
        [person(0.2, score=0.9 - 0.1 * t), person(0.8, score=0.3 + 0.1 * t)][:: (-1) ** t]
        for t in range(7)
    ]
    sequence = kinetics.read_file(clip(frames), NAME)
    assert [where(sequence, m) for m in range(2)] == [[0.2] * 7, [0.8] * 7]


def test_who_is_alone_stays_in_the_nearest_place():
    both = [person(0.2, score=0.9), person(0.8)]
    frames = [both, [person(0.7)], [person(0.25)], both]
    sequence = kinetics.read_file(clip(frames), NAME)
    assert sequence.present.tolist() == [[True, False, True, True], [True, True, False, True]]
    assert where(sequence, 0)[2] == 0.25
    assert where(sequence, 1)[1] == 0.7


def test_the_person_who_is_seen_best_comes_first():
    frames = [[person(0.2, score=0.9)], *[[person(0.2, score=0.1), person(0.8, score=0.9)]] * 5]
    sequence = kinetics.read_file(clip(frames), NAME)
    assert where(sequence, 0)[1] == 0.8


@settings(max_examples=30, deadline=None)
@given(st.lists(st.permutations((0, 1)), min_size=1, max_size=8), st.floats(0.3, 0.9))
def test_the_order_within_a_frame_does_not_matter(orders, score):
    people = [person(0.3, score=score), person(0.6, score=score / 2)]
    ordered = kinetics.read_file(clip([people] * len(orders)), NAME)
    mixed = kinetics.read_file(clip([[people[i] for i in order] for order in orders]), NAME)
    np.testing.assert_array_equal(ordered.joints, mixed.joints)


def release(folder: Path) -> dict[str, bytes]:
    """A small release: two clips to train, one to test, one without skeleton."""
    contents = {
        f"kinetics_train/{'a' * 10}{i}.json": clip([[person(0.1 * i)]] * 3) for i in range(1, 4)
    }
    contents |= {f"kinetics_val/{'b' * 11}.json": clip([[person(0.5)]])}
    labels = {"label": "flipping pancake", "label_index": 129}
    contents["kinetics_train_label.json"] = json.dumps(
        {f"{'a' * 10}{i}": {"has_skeleton": i != 2, **labels} for i in range(1, 4)}
    ).encode()
    contents["kinetics_val_label.json"] = json.dumps(
        {"b" * 11: {"has_skeleton": True, **labels}}
    ).encode()
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return contents


def tar(path: Path, contents: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("packed", ["folder", "zip", "tar", "tar.gz", "tar.xz"])
def test_folder_and_archives_give_the_same(tmp_path, packed):
    contents = release(tmp_path / "folder")
    source = tmp_path / packed
    if packed == "zip":
        written.archive(source, contents)
    elif packed != "folder":
        tar(source, contents, packed[4:])
    found = kinetics.find_clips(source)
    assert [file.name for file in found.files] == [
        f"kinetics_train/{'a' * 10}1.json",
        f"kinetics_train/{'a' * 10}3.json",
        f"kinetics_val/{'b' * 11}.json",
    ]
    assert [file.read() for file in found.files] == [contents[f.name] for f in found.files]
    assert [skipped.name for skipped in found.skipped] == [f"kinetics_train/{'a' * 10}2.json"]
    assert "says has_skeleton: false" in found.skipped[0].reason


def test_a_tar_that_ends_early_is_said_to(tmp_path):
    whole = tar(tmp_path / "k.tar", release(tmp_path / "folder"), "").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"cut\.tar"):
        [file.read() for file in kinetics.find_clips(tmp_path / "cut.tar").files]


def test_nobody_in_any_frame_is_left_out():
    with pytest.raises(LeftOut, match="nobody is in any of its 2 frames"):
        kinetics.read_file(clip([[], []]), NAME)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "line 1, column 2: not JSON"),
        (b"[]", "holds 'list'; expected the entries data, label and label_index"),
        (clip([[person(0.5)]], label_index=400), "label_index is 400; expected 0 to 399"),
        (clip([[person(0.5)]], label_index=True), "label_index is True"),
        (
            clip([[person(0.5)]], label="flipping pancakes"),
            "label is 'flipping pancakes' .*expected 'flipping pancake', which label_index 129",
        ),
        (clip([], data=[]), "data is a list of 0; expected a list of frames"),
        (clip([], data=[7]), "entry 0 of data: frame_index is 7"),
        (clip([[person(0.5)]], first=10**9), "frame_index is 1000000000; expected a whole number"),
        (clip([], data=[{"frame_index": 3, "skeleton": {}}]), "frame 3: skeleton is a dict of 0"),
        (
            clip([], data=[{"frame_index": 3, "skeleton": []}] * 2),
            "frame 3 comes twice; expected each frame once",
        ),
        (clip([["x"]]), "frame 1, person 1 is 'x'; expected entries pose and score"),
        (
            clip([[person(0.5), {"pose": [0.1] * 35, "score": [1] * 18}]]),
            "frame 1, person 2: pose is a list of 35; expected 36 numbers",
        ),
        (clip([[{"pose": [0.1] * 36, "score": [None] * 18}]]), "score holds None"),
        (clip([[person(0.5, score=float("nan"))]]), "score holds a number that is not finite"),
        (clip([[person(0.5, score=7)]]), "score goes from 7 to 7; expected 0 to 1"),
        (clip([[person(170)]]), "coordinates up to 170.*; expected parts of the image's width"),
        (clip([[{"pose": [10**400] * 36, "score": [1] * 18}]]), "too many digits"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data, said):
    with pytest.raises(DataError, match=f"^{NAME}.*{said}"):
        kinetics.read_file(data, NAME)


@settings(max_examples=150, deadline=None)
@given(damaged(clip([[person(0.2), person(0.7)], [], [person(0.3)]])))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b"[[],[],[],[]," * 100_000)
@example(b"[" + b"0.1," * 500_000)
@example(b"{" + b",".join(b'"%x":0' % i for i in range(300_000)) + b"}")
@example(clip([[]], data=[{"frame_index": kinetics.MOST_FRAMES, "skeleton": [person(0.1)]}]))
def test_damaged_files_are_read_or_refused_within_bounds(data):
    tracemalloc.start()
    said = NAME
    try:
        kinetics.read_file(data, NAME)
    except DataError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert said.startswith(NAME)
    assert peak < 64 * 2**20 + 10 * len(data)


def test_label_files_are_checked(tmp_path):
    release(tmp_path)
    labels = tmp_path / "kinetics_train_label.json"
    for damage, said in ((b"{", ".*not JSON"), (b"[]", "holds a list"), (b'{"a": 1}', "'a' is 1")):
        labels.write_bytes(damage)
        with pytest.raises(DataError, match=f"kinetics_train_label.json.* {said}"):
            kinetics.find_clips(tmp_path)


def test_a_label_file_is_as_long_as_the_releases_is(tmp_path):
    """240,000 videos, written with indents as the release's are: more than any skeleton file."""
    release(tmp_path)
    entry = """    "%s": {
        "has_skeleton": %s,
        "label": "playing american football",
        "label_index": 225
    }"""
    lines = [entry % (f"{i:011d}", "true") for i in range(240_000)]
    lines.append(entry % (f"{'a' * 10}3", "false"))
    text = "{\n" + ", \n".join(lines) + "\n}"
    assert len(text) > files.MOST_BYTES
    (tmp_path / "kinetics_train_label.json").write_text(text)
    found = kinetics.find_clips(tmp_path)
    assert [skipped.name for skipped in found.skipped] == [f"kinetics_train/{'a' * 10}3.json"]


@pytest.mark.parametrize(
    "data", [b"[" + b"[]," * 4000 + b"0]", b"[" + b'"ab",' * 4000 + b"0]", b'{"a":' * 4000]
)
def test_a_label_file_that_would_fill_the_memory_is_not_parsed(tmp_path, data):
    release(tmp_path)
    (tmp_path / "kinetics_train_label.json").write_bytes(data)
    with pytest.raises(DataError, match=r"label\.json: .* quotes; expected an entry per video"):
        kinetics.find_clips(tmp_path)


def test_the_classes_are_the_four_hundred():
    assert len(KINETICS) == 400
    assert [KINETICS[i].name for i in (0, 129, 399)] == ["abseiling", "flipping pancake", "zumba"]
    assert [a.name for a in KINETICS] == sorted((a.name for a in KINETICS), key=str.casefold)


def test_a_real_clip(kinetics_json):
    data = kinetics_json.read_bytes()
    sequence = kinetics.read_file(data, kinetics_json.name)
    record = json.loads(data)
    assert sequence.class_name == record["label"] == "flipping pancake"
    assert sequence.joints.shape == (2, 189, 18, 2)
    people = [len(frame["skeleton"]) for frame in record["data"]]
    assert sequence.present.sum(axis=0).tolist() == [min(number, 2) for number in people]
    # Nobody jumps far: where two stay in view, each stays nearer to where they were.
    for t in range(1, 189):
        if sequence.present[:, t - 1 : t + 1].all():
            both = sequence.score[:, t - 1 : t + 1] > 0

            def moved(a: int, b: int, t: int = t, both: np.ndarray = both) -> float:
                found = both[a, 0] & both[b, 1]
                step = sequence.joints[b, t] - sequence.joints[a, t - 1]
                return float(np.linalg.norm(step, axis=1)[found].mean()) if found.any() else 1.0

            assert moved(0, 0) + moved(1, 1) <= moved(0, 1) + moved(1, 0) + 1e-6
    assert np.array_equal(sequence.present.any(axis=0), np.array(people) > 0)
