"""NTU RGB+D: real raw files against an independent reading, made-up ones, damaged files."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.errors import DataError, LeftOut
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.formats import open_source
from tssan.skeletons.ntu_rgbd import (
    NTU60,
    NTU120,
    edition_of,
    find_files,
    read_file,
    read_tracks,
    without_skeleton,
)
from tssan.skeletons.synthetic import generate
from tssan.skeletons.topology import KINECT_V2_25

from tests.skeletons import written
from tests.skeletons.damage import damaged

NAME = "S017C003P020R002A058.skeleton"
# Two ids that are the same number once they have been floats.
ANNE, BOB = 72057594037931101, 72057594037931102


def person(t: int, seed: int = 0, at: float = 0.0, swing: float = 1.0) -> np.ndarray:
    """(t, 25, 3): someone who stands at x = `at`; `swing` scales the motion."""
    poses = written.poses(t, 25, seed)
    return poses.mean(axis=0) + swing * (poses - poses.mean(axis=0)) + [at, 0, 0]


VALID = written.ntu_rgbd([[(ANNE, joints)] for joints in person(3)])


def file_of(tracks: dict[int, dict[int, np.ndarray]], frames: int) -> bytes:
    """A file from bodyID -> frame -> joints."""
    listed = [[(b, at[t]) for b, at in tracks.items() if t in at] for t in range(frames)]
    return written.ntu_rgbd(listed)


def over(poses: np.ndarray, frames: range) -> dict[int, np.ndarray]:
    return {t: poses[t] for t in frames}


# ------------------------------------------------------------------------------------ real files


def tokens_of(path) -> tuple[int, list[list[tuple[str, np.ndarray]]]]:
    """Another way to read the format: one stream of words."""
    words = iter(path.read_text().split())
    frames = []
    for _ in range(int(next(words))):
        bodies = []
        for _ in range(int(next(words))):
            body, *_ = [next(words) for _ in range(10)]
            joints = [[next(words) for _ in range(12)][:3] for _ in range(int(next(words)))]
            bodies.append((body, np.array(joints, dtype=np.float32)))
        frames.append(bodies)
    assert next(words, None) is None
    return frames


def test_real_files_give_what_another_reading_gives(ntu_files):
    assert len(ntu_files) == 8
    for path in ntu_files:
        expected = tokens_of(path)
        frames, tracks = read_tracks(path.read_bytes(), path.name)
        assert frames == len(expected)
        for t, bodies in enumerate(expected):
            for body, joints in bodies:
                at, places = tracks[int(body)]
                (row,) = np.flatnonzero(at == t)
                np.testing.assert_array_equal(places[row], joints)
        assert sum(len(at) for at, _ in tracks.values()) == sum(map(len, expected))


def test_real_files_have_their_actors_and_stand_upright(ntu_files):
    read = {path.stem: read_file(path, path.name) for path in ntu_files}
    two = {"S001C001P001R001A050"} | {f"S017C003P020R002A0{a}" for a in (54, 55, 56, 58)}
    assert {sample for sample, sequence in read.items() if sequence.persons == 2} == two
    head, hip, foot = (KINECT_V2_25.joints.index(n) for n in ("head", "spine_base", "foot_left"))
    for sample, sequence in read.items():
        assert sequence.present.all()
        assert sequence.sample == sample
        assert sequence.class_code == sample[-4:]
        assert sequence.subject == int(sample[9:12])
        heights = sequence.joints[:, :, [head, hip, foot], 1]
        assert (heights[..., 0] > heights[..., 1]).all()
        assert (heights[..., 1] > heights[..., 2]).all()
    assert read["S001C001P001R001A011"].class_name == "reading"


def test_real_folder_is_found(ntu_files):
    assert [file.name for file in find_files(ntu_files[0].parent)] == [p.name for p in ntu_files]


# ------------------------------------------------------------------------------------ the format


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_reads_what_was_written(newline):
    anne = person(30)
    data = written.ntu_rgbd([[(ANNE, joints)] for joints in anne], newline)
    sequence = read_file(data, "nturgb+d_skeletons/" + NAME)
    np.testing.assert_array_equal(sequence.joints[0], anne.astype(np.float32))
    assert sequence.present.all()
    assert (sequence.sample, sequence.label) == ("S017C003P020R002A058", 57)
    assert (sequence.class_name, sequence.class_code) == ("handshaking", "A058")
    assert (sequence.setup, sequence.camera) == (17, 3)
    assert (sequence.subject, sequence.replication) == (20, 2)
    assert (sequence.units, sequence.fps) == ("m", 30)


def test_ids_that_differ_in_the_last_of_64_bits_are_two_people():
    assert float(ANNE) == float(BOB)
    tracks = {ANNE: over(person(30), range(30)), BOB: over(person(30, 1, 1.0), range(30))}
    assert read_file(file_of(tracks, 30), NAME).persons == 2


def test_frames_without_bodies_keep_their_place():
    anne = person(30)
    sequence = read_file(file_of({ANNE: over(anne, range(5, 20))}, 30), NAME)
    assert sequence.frames == 30
    assert np.flatnonzero(sequence.present[0]).tolist() == list(range(5, 20))


def test_a_body_of_zeros_was_not_seen():
    anne = person(30)
    anne[7] = 0
    sequence = read_file(file_of({ANNE: over(anne, range(30))}, 30), NAME)
    assert np.flatnonzero(~sequence.present[0]).tolist() == [7]


@given(st.lists(st.sets(st.sampled_from([ANNE, BOB, 7])), min_size=1, max_size=6), st.randoms())
@settings(max_examples=50, deadline=None)
def test_tracks_hold_every_body_of_every_frame(seen, random):
    """Whatever comes and goes, in whatever order it is listed."""
    frames = []
    for t, bodies in enumerate(seen):
        order = sorted(bodies)
        random.shuffle(order)
        frames.append([(body, np.full((25, 3), t + 1 + body % 5 / 8)) for body in order])
    number, tracks = read_tracks(written.ntu_rgbd(frames), NAME)
    assert number == len(seen)
    for body in (ANNE, BOB, 7):
        expected = [t for t, bodies in enumerate(seen) if body in bodies]
        assert (body in tracks) == bool(expected)
        if expected:
            at, joints = tracks[body]
            assert at.tolist() == expected
            assert joints[:, 0, 0].tolist() == [t + 1 + body % 5 / 8 for t in expected]


# ------------------------------------------------------------------------------------ the actors


def test_actors_are_chosen_and_joined():
    """By the rules that `test_actors` tests one by one."""
    anne, bob = person(60, swing=3), person(60, 1, 1.0)
    tracks = {
        7: over(person(60, 2, 2.0), range(5)),
        BOB: over(bob, range(20)) | over(bob, range(40, 60)),
        ANNE: over(anne, range(30)),
        5: over(anne, range(30, 60)),
    }
    sequence = read_file(file_of(tracks, 60), NAME)
    assert sequence.persons == 2
    np.testing.assert_array_equal(sequence.joints[0], anne.astype(np.float32))
    assert np.flatnonzero(~sequence.present[1]).tolist() == list(range(20, 40))
    np.testing.assert_array_equal(sequence.joints[1, 50], bob[50].astype(np.float32))


def test_denoising_is_a_choice(tmp_path):
    table = person(40, 1, swing=4)[:, :, [1, 0, 2]] + np.array([2.0, 0, 0])  # wider than high
    data = file_of({ANNE: over(person(40), range(40)), BOB: over(table, range(40))}, 40)
    assert read_file(data, NAME).persons == 1
    (tmp_path / NAME).write_bytes(data)
    with_table = open_source("ntu60", tmp_path, denoise=False).read(data, NAME)
    np.testing.assert_array_equal(with_table.joints[0], table.astype(np.float32))


# ------------------------------------------------------------------------------- the two editions


def test_sixty_actions_of_seventeen_setups_unless_there_are_more():
    assert edition_of([NAME]) is NTU60
    assert edition_of([NAME, "S018C001P041R001A061.skeleton"]) is NTU120
    assert edition_of([NAME, "S018C001P008R001A061.skeleton"]) is NTU120
    assert (len(NTU60.classes), len(NTU120.classes)) == (60, 120)
    assert [protocol.name for protocol in NTU60.protocols] == ["xsub", "xview"]
    assert [protocol.name for protocol in NTU120.protocols] == ["xsub", "xset"]


def test_an_edition_takes_its_files():
    names = ["a/" + NAME, "b/S018C001P008R001A061.skeleton", "S032C003P106R002A120.skeleton"]
    found = [SkeletonFile(name, bytes) for name in names]
    assert [file.name for file in NTU60.select(found)] == names[:1]
    assert NTU120.select(found) == found
    with pytest.raises(
        DataError, match=r"none of the 2 files, such as b/S018.*, is of NTU RGB\+D 60"
    ):
        NTU60.select(found[1:])


def test_samples_without_skeleton_are_left_out():
    assert len(without_skeleton()) == 535
    assert sum(NTU60.holds(f"{sample}.skeleton") for sample in without_skeleton()) == 302
    with pytest.raises(LeftOut, match="on its authors' list of samples without skeleton"):
        read_file(VALID, "S001C002P005R002A008.skeleton")


def test_the_list_is_the_official_one(ntu_files):
    for listed, edition in (("ntu60_missing.txt", NTU60), ("ntu120_missing.txt", NTU120)):
        names = set((ntu_files[0].parent / listed).read_text().split())
        here = {name for name in without_skeleton() if edition.holds(f"{name}.skeleton")}
        assert here == names


# ------------------------------------------------------------------------------------ bad files

LINES = VALID.decode().split("\n")


def with_line(number: int, text: str | None) -> bytes:
    lines = LINES[:-1]
    if text is None:
        del lines[number - 1]
    else:
        lines[number - 1] = text
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1: the file ends; expected the number of frames"),
        (
            with_line(1, "0"),
            "line 1: '0'; expected the number of frames, an integer from 1 to 20,000",
        ),
        (with_line(1, "3.0"), "line 1: '3.0'; expected the number of frames"),
        (with_line(1, "4"), "line 86: the file ends; expected the number of bodies in frame 3"),
        (with_line(1, "2"), "line 58: '1' after the last frame; expected the end, since line 1"),
        (with_line(2, "-1"), "line 2: '-1'; expected the number of bodies in frame 0"),
        (
            with_line(3, f"{ANNE} 0 1"),
            f"line 3: '{ANNE} 0 1'; expected a body of frame 0: 10 field",
        ),
        (with_line(3, "1e17 0 1 1 1 1 0 0 0 2"), "line 3: '1e17 0 .*expected a body of frame 0"),
        (with_line(4, "20"), "line 4: 20 joints; expected 25"),
        (with_line(35, "1 2 3"), r"line 35: 3 fields \('1 2 3'\); expected a joint of frame 1: 12"),
        (with_line(35, "1 2 x" + " 0" * 9), "line 35: '1 2 x'; expected a joint of frame 1"),
        (
            with_line(35, "1 nan 2" + " 0" * 9),
            "line 35: coordinate nan in frame 1; expected metres",
        ),
        (
            with_line(35, "1 900 2" + " 0" * 9),
            "line 35: coordinate 900 in frame 1; expected metres",
        ),
        (
            with_line(35, None),
            r"line 57: 1 fields \('1'\); expected a joint of frame 1: 12 numbers",
        ),
        (
            written.ntu_rgbd([[(ANNE, person(1)[0])] * 2]),
            f"line 30: body {ANNE} comes twice in frame 0; expected each body once",
        ),
        (written.ntu_rgbd([[], [], []]), "no body in any of its 3 frames; expected at least one"),
        (written.ntu_rgbd([[(1, np.zeros((25, 3)))]]), "no body in any of its 1 frames"),
        (b"\xff\xfe binary", "line 1: .*; expected the number of frames"),
    ],
)
def test_says_in_which_line_a_file_is_wrong(data, said):
    with pytest.raises(DataError, match=said) as raised:
        read_file(data, NAME)
    assert str(raised.value).startswith(NAME)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("S001C001P001R001A121.skeleton", "action 121; expected 1 to 120"),
        ("S01C001P001R001A001.skeleton", "not the name of a NTU RGB"),
    ],
)
def test_says_what_is_wrong_with_a_name(name, said):
    with pytest.raises(DataError, match=said):
        read_file("\n".join(LINES).encode(), name)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | damaged(VALID) | damaged(VALID.replace(b"\n", b"\r\n")))
def test_damaged_files_raise_nothing_else(data):
    try:
        sequence = read_file(data, NAME)
    except DataError:
        return
    assert np.isfinite(sequence.joints).all()


def test_sixty_five_bodies_are_read_and_two_chosen():
    people = [(100 + i, person(20, 0, 2.0 * (i % 7), swing=1 + i / 65)) for i in range(65)]
    data = written.ntu_rgbd([[(body, poses[t]) for body, poses in people] for t in range(20)])
    sequence = read_file(data, NAME)
    np.testing.assert_array_equal(sequence.joints[0], people[64][1].astype(np.float32))
    np.testing.assert_array_equal(sequence.joints[1], people[63][1].astype(np.float32))


ONE = written.ntu_rgbd([[(ANNE, person(1)[0])]]).partition(b"\n")[2]
SHORT_BODY = b"%d 0 0 0 0 0 0 0 0 0\n25\n" + 25 * b"1 0 0 0 0 0 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"999999999\n" + ONE, "line 1: '999999999'; .* an integer from 1 to 20,000"),
        (b"20000\n" + ONE, "line 30: the file ends; expected the number of bodies in frame 1"),
        (b"1\n999999999\n", "line 2: '999999999'; expected the number of bodies in frame 0"),
        (b"1\n1\n" + b"0 " * 2_000_000, "line 3: more than 1000 characters"),
        (b"9" * 5_000_000, "line 1: more than 1000 characters"),
        (b"00\n" * 2_000_000, "line 1: '00'; expected the number of frames"),
        (b"20000\n" + b"00\n" * 19_999 + ONE, None),
        (b"20000\n" + b"0\r\n" * 19_998 + ONE + ONE, None),
        (b"1\n1000\n" + b"".join(SHORT_BODY % i for i in range(1000)), None),
        (b"2000\n" + (b"1\n" + SHORT_BODY % 7) * 2000, None),
    ],
)
def test_lies_about_counts_take_no_memory(data, said):
    tracemalloc.start()
    try:
        if said is None:
            read_file(data, NAME)
        else:
            with pytest.raises(DataError, match=said):
                read_file(data, NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20 + 9 * len(data)  # and the file itself


# ------------------------------------------------------------------------------------ synthetic


def test_synthetic_videos_in_this_format_are_read_back_equal(tmp_path):
    """From the generator to files in an archive and back, bit for bit."""
    videos = list(generate(range(1, 3), cameras=(1,), replications=(1,), seed=5))
    contents = {}
    for video in videos:
        # The file lists persons in any order and says nothing of who is first.
        persons = [(m, t) for m in range(video.persons) for t in np.flatnonzero(video.present[m])]
        frames: list[list] = [[] for _ in range(video.frames)]
        for m, t in persons:
            frames[t].append((BOB - m, video.joints[m, t]))
        code = f"C{video.camera:03d}P{video.subject:03d}R001{video.class_code}"
        contents[f"nturgb+d_skeletons/S001{code}.skeleton"] = written.ntu_rgbd(frames)
    found = find_files(written.archive(tmp_path / "made.zip", contents))
    by_name = {file.name: read_file(file.read(), file.name) for file in NTU60.select(found)}
    assert len(by_name) == len(videos) == 26
    for video, name in zip(videos, contents, strict=True):
        read = by_name[name]
        assert (read.class_code, read.subject) == (video.class_code, video.subject)
        assert (read.camera, read.frames) == (video.camera, video.frames)
        order = range(video.persons)
        if not np.array_equal(read.joints[0], video.joints[0]):
            order = reversed(order)
        for m, of_video in enumerate(order):
            np.testing.assert_array_equal(read.joints[m], video.joints[of_video])
            np.testing.assert_array_equal(read.present[m], video.present[of_video])
