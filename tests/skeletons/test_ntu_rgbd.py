"""NTU RGB+D: real raw files against an independent reading, made-up ones, actors, damaged files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.errors import DataError
from tssan.skeletons.actors import choose_actors
from tssan.skeletons.ntu_rgbd import classes_of, find_files, read_file, read_tracks
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


def test_one_who_vanishes_and_returns_keeps_the_time():
    anne, bob = person(60, swing=2), person(60, 1, 1.0)
    tracks = {ANNE: over(anne, range(60)), BOB: over(bob, range(20)) | over(bob, range(40, 60))}
    sequence = read_file(file_of(tracks, 60), NAME)
    assert np.flatnonzero(~sequence.present[1]).tolist() == list(range(20, 40))
    np.testing.assert_array_equal(sequence.joints[1, 50], bob[50].astype(np.float32))


def test_the_first_actor_moves_most_whatever_the_order_in_the_file():
    still, lively = person(40, swing=0.2), person(40, 1, 1.0, swing=3)
    for order in ((ANNE, BOB), (BOB, ANNE)):
        both = {ANNE: over(still, range(40)), BOB: over(lively, range(40))}
        sequence = read_file(file_of({b: both[b] for b in order}, 40), NAME)
        np.testing.assert_array_equal(sequence.joints[0], lively.astype(np.float32))
        np.testing.assert_array_equal(sequence.joints[1], still.astype(np.float32))


def test_one_who_gets_a_new_id_stays_one_person():
    anne = person(60)
    tracks = {ANNE: over(anne, range(30)), 5: over(anne, range(30, 60))}
    sequence = read_file(file_of(tracks, 60), NAME)
    assert sequence.persons == 1
    np.testing.assert_array_equal(sequence.joints[0], anne.astype(np.float32))


def test_the_second_may_get_a_new_id_too():
    anne, bob = person(60, swing=3), person(60, 1, 1.0)
    tracks = {
        ANNE: over(anne, range(60)),
        BOB: over(bob, range(30)),
        5: over(bob, range(30, 60)),
    }
    sequence = read_file(file_of(tracks, 60), NAME)
    np.testing.assert_array_equal(sequence.joints[1], bob.astype(np.float32))


def test_a_third_at_the_same_time_is_dropped():
    people = {7 + i: over(person(40, 0, float(i), swing=3.0 - i), range(40)) for i in range(3)}
    assert choose_actors(read_tracks(file_of(people, 40), NAME)[1]) == [[7], [8]]


@pytest.mark.parametrize(("frames", "persons"), [(11, 1), (12, 2)])
def test_a_track_of_eleven_frames_is_noise(frames, persons):
    tracks = {ANNE: over(person(40), range(40)), BOB: over(person(40, 1, 1.0), range(frames))}
    assert read_file(file_of(tracks, 40), NAME).persons == persons


def test_tracks_that_are_all_short_are_all_there_is():
    tracks = {ANNE: over(person(8), range(8)), BOB: over(person(8, 1, 1.0), range(8))}
    assert read_file(file_of(tracks, 8), NAME).persons == 2


def wide(poses: np.ndarray) -> np.ndarray:
    """Lay a person down: a body as wide as people are high."""
    return poses[:, :, [1, 0, 2]]


def test_a_body_wider_than_high_is_noise_even_if_it_moves_more():
    table = wide(person(40, 1, swing=4)) + np.array([2.0, 0, 0])
    tracks = {ANNE: over(person(40), range(40)), BOB: over(table, range(40))}
    sequence = read_file(file_of(tracks, 40), NAME)
    assert sequence.persons == 1
    np.testing.assert_array_equal(sequence.joints[0], person(40).astype(np.float32))


def test_somebody_who_lies_down_alone_is_the_actor():
    lying = wide(person(40))
    assert read_file(file_of({ANNE: over(lying, range(40))}, 40), NAME).persons == 1
    both = {ANNE: over(lying, range(40)), BOB: over(wide(person(40, 1, 3.0, 2)), range(40))}
    assert choose_actors(read_tracks(file_of(both, 40), NAME)[1]) == [[BOB]]


def test_sixty_classes_unless_there_are_more():
    assert len(classes_of([NAME])) == 60
    assert len(classes_of([NAME, "S018C001P041R001A061.skeleton"])) == 120


# ------------------------------------------------------------------------------------ bad files

LINES = written.ntu_rgbd([[(ANNE, j)] for j in person(3)]).decode().split("\n")


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
@given(st.binary(max_size=200) | damaged("\n".join(LINES).encode()))
def test_damaged_files_raise_nothing_else(data):
    try:
        sequence = read_file(data, NAME)
    except DataError:
        return
    assert np.isfinite(sequence.joints).all()
