"""Each rule for choosing the actors, against tracks made for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.skeletons.actors import Tracks, choose_actors, join

from tests.skeletons import written

# Two ids that are the same number once they have been floats.
ANNE, BOB = 72057594037931101, 72057594037931102
CARL, DORA = 3, 4


def person(t: int, seed: int = 0, at: float = 0.0, swing: float = 1.0) -> np.ndarray:
    """(t, 25, 3): someone who stands at x = `at`; `swing` scales the motion."""
    poses = written.poses(t, 25, seed)
    return poses.mean(axis=0) + swing * (poses - poses.mean(axis=0)) + [at, 0, 0]


def wide(poses: np.ndarray) -> np.ndarray:
    """Lay a person down: a body as wide as people are high."""
    return poses[:, :, [1, 0, 2]]


def track(frames: range | list[int], poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.array(frames)
    return at, poses[at].astype(np.float32)


def moving(frames: range | list[int], swing: float) -> tuple[np.ndarray, np.ndarray]:
    """A track of somebody who moves this much and is as wide and high as all others."""
    return track(frames, person(200, swing=swing))


def test_a_single_track_is_the_actor_however_short_or_wide():
    assert choose_actors({ANNE: moving(range(2), 1)}) == [[ANNE]]
    assert choose_actors({ANNE: track(range(40), wide(person(40)))}) == [[ANNE]]


@pytest.mark.parametrize(("frames", "left"), [(11, [[ANNE]]), (12, [[ANNE], [BOB]])])
def test_a_track_of_eleven_frames_is_noise(frames, left):
    tracks = {ANNE: moving(range(40), 2), BOB: moving(range(frames), 1)}
    assert choose_actors(tracks) == left


def test_frames_are_counted_not_the_time_from_first_to_last():
    tracks = {ANNE: moving(range(100), 2), BOB: moving([0, *range(90, 100)], 1)}
    assert choose_actors(tracks) == [[ANNE]]


def test_tracks_that_are_all_short_are_all_there_is():
    tracks = {ANNE: moving(range(8), 3), BOB: moving(range(8), 1)}
    assert choose_actors(tracks) == [[ANNE], [BOB]]


def widened(poses: np.ndarray, ratio: float) -> np.ndarray:
    """Make all bodies `ratio` times as wide as high."""
    poses = poses.copy()
    width, height = np.ptp(poses[:, :, 0], axis=1), np.ptp(poses[:, :, 1], axis=1)
    middle = poses[:, :, :1].mean(axis=1, keepdims=True)
    poses[:, :, :1] = middle + (poses[:, :, :1] - middle) * (ratio * height / width)[:, None, None]
    return poses


@pytest.mark.parametrize(("ratio", "left"), [(0.79, [[BOB], [ANNE]]), (0.81, [[ANNE]])])
def test_bodies_wider_than_four_fifths_of_their_height_are_noise(ratio, left):
    tracks = {
        ANNE: track(range(50), person(50)),
        BOB: track(range(50), widened(person(50, 1, 1.0, 2), ratio)),
    }
    assert choose_actors(tracks) == left


@pytest.mark.parametrize(("too_wide", "left"), [(69, 2), (70, 1)])
def test_a_track_is_dropped_from_69754_of_100000_such_frames(too_wide, left):
    poses = person(100, 1, 1.0)
    poses[:too_wide] = wide(poses[:too_wide])
    assert len(choose_actors({ANNE: moving(range(100), 1), BOB: track(range(100), poses)})) == left


def test_frames_that_are_too_wide_add_no_motion():
    """One that falls over for a while would otherwise have the most motion by far."""
    falls = person(100, 1, swing=0.5)
    falls[:50] = wide(falls[:50]) + np.array([2, 0, 0])
    tracks = {ANNE: moving(range(100), 4), BOB: track(range(100), falls)}
    assert choose_actors(tracks) == [[ANNE], [BOB]]
    assert choose_actors(tracks, denoise=False) == [[BOB], [ANNE]]


def test_the_last_body_stays_and_it_is_the_one_that_moves_most():
    tracks = {
        body: track(range(40), wide(person(40, body, swing=swing)))
        for body, swing in ((CARL, 1.0), (BOB, 4.0), (DORA, 0.5))
    }
    assert choose_actors(tracks) == [[BOB]]


def test_without_denoising_those_who_move_most_are_the_actors():
    tracks = {
        ANNE: moving(range(40), 1),
        BOB: track(range(5), person(5, 1, swing=9)),
        CARL: track(range(40), wide(person(40, 2, swing=4))),
    }
    assert choose_actors(tracks) == [[ANNE]]
    assert {body for bodies in choose_actors(tracks, denoise=False) for body in bodies} == {
        BOB,
        CARL,
    }


def test_the_first_actor_moves_most_whatever_the_order():
    still, lively = moving(range(40), 0.2), moving(range(40), 3)
    assert choose_actors({ANNE: still, BOB: lively}) == [[BOB], [ANNE]]
    assert choose_actors({BOB: lively, ANNE: still}) == [[BOB], [ANNE]]


def test_a_new_id_continues_the_first_whose_frames_are_free():
    tracks = {
        ANNE: moving(range(60), 4),
        BOB: moving(range(30), 3),
        CARL: moving(range(30, 60), 2),
        DORA: moving(range(60, 80), 1),
    }
    assert choose_actors(tracks) == [[ANNE, DORA], [BOB, CARL]]


def test_a_third_at_the_same_time_is_dropped():
    tracks = {body: moving(range(40), 5.0 - body) for body in (1, 2, 3)}
    assert choose_actors(tracks) == [[1], [2]]


def test_another_may_be_there_while_one_is_away():
    """From first frame to last the two overlap; frame by frame they do not."""
    away = [*range(20), *range(60, 80)]
    tracks = {ANNE: moving(away, 4), BOB: moving(range(25, 55), 2)}
    assert choose_actors(tracks) == [[ANNE, BOB]]


def test_one_who_vanishes_and_returns_keeps_the_time():
    poses = person(80, 1, 1.0)
    away = [*range(20), *range(60, 80)]
    tracks = {ANNE: moving(range(80), 4), BOB: track(away, poses)}
    joints, present = join(tracks, choose_actors(tracks), 80)
    assert np.flatnonzero(present[1]).tolist() == away
    np.testing.assert_array_equal(joints[1, away], poses[away].astype(np.float32))
    assert not joints[1, 20:60].any()


@pytest.mark.parametrize(
    ("first_from", "second_from", "order"),
    [
        (5, 0, [[BOB], [ANNE]]),  # only the second is there at first
        (0, 5, [[ANNE], [BOB]]),
        (5, 5, [[ANNE], [BOB]]),
        (6, 5, [[BOB], [ANNE]]),
    ],
)
def test_who_is_there_alone_at_first_becomes_the_first(first_from, second_from, order):
    tracks = {
        ANNE: moving(range(first_from, 60), 4),
        BOB: moving(range(second_from, 60), 1),
    }
    assert choose_actors(tracks) == order


def test_the_new_id_of_the_first_counts_as_the_first():
    """Anne moves most and comes late; it was her under another id before."""
    tracks = {
        ANNE: moving(range(20, 60), 4),
        BOB: moving(range(10, 60), 3),
        CARL: moving(range(15), 1),
    }
    assert choose_actors(tracks) == [[ANNE, CARL], [BOB]]


TRACKS = st.dictionaries(
    st.integers(0, 2**64 - 1),
    st.tuples(
        st.sets(st.integers(0, 39), min_size=1), st.integers(0, 3), st.booleans(), st.floats(0, 3)
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(TRACKS, st.booleans())
def test_whatever_the_tracks_two_actors_at_most_and_nobody_in_two_places(made, denoise):
    tracks: Tracks = {}
    for body, (frames, seed, lies, swing) in made.items():
        poses = person(40, seed, swing=swing)
        tracks[body] = track(sorted(frames), wide(poses) if lies else poses)
    actors = choose_actors(tracks, denoise=denoise)
    chosen = [body for bodies in actors for body in bodies]
    assert 1 <= len(actors) <= 2
    assert all(actors)
    assert len(set(chosen)) == len(chosen)
    joints, present = join(tracks, actors, 40)
    for m, bodies in enumerate(actors):
        assert present[m].sum() == sum(len(tracks[body][0]) for body in bodies)
        for body in bodies:
            at, places = tracks[body]
            np.testing.assert_array_equal(joints[m, at], places)
    assert np.flatnonzero(present.any(axis=0))[0] == np.flatnonzero(present[0])[0]
