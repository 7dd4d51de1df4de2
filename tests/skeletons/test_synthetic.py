"""The generated skeletons do nothing that a body cannot do, and follow from the seed alone."""

from __future__ import annotations

import itertools
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tssan.errors import DataError
from tssan.skeletons.classes import NTU_RGBD, SYNTHETIC
from tssan.skeletons.synthetic import CAMERAS, generate, perform
from tssan.skeletons.synthetic.actions import ACTIONS
from tssan.skeletons.topology import KINECT_V2_25

CODES = [action.code for action in SYNTHETIC]
JOINT = {name: index for index, name in enumerate(KINECT_V2_25.joints)}
FEET = [JOINT[f"{part}_{side}"] for part in ("ankle", "foot") for side in ("left", "right")]

subjects = st.integers(1, 999)
seeds = st.integers(0, 2**31)
codes = st.sampled_from(CODES)


def test_every_synthetic_class_is_acted_under_the_code_of_ntu():
    assert set(ACTIONS) == set(CODES)
    assert {action.code for action in NTU_RGBD} >= set(CODES)


@given(subjects, codes, st.integers(1, 9), seeds)
@settings(max_examples=80, deadline=None)
def test_bodies_are_possible(subject, code, replication, seed):
    joints = perform(subject, code, replication, seed=seed)
    m, t, v, c = joints.shape
    assert (m, v, c) == (2 if code in {"A052", "A058"} else 1, 25, 3)
    assert 50 <= t <= 120
    for child, parent in KINECT_V2_25.bones:
        length = np.linalg.norm(joints[:, :, child] - joints[:, :, parent], axis=-1)
        assert np.ptp(length, axis=1).max() < 1e-9
        assert length.min() > 0.02
        assert length.max() < 0.6
    speed = np.linalg.norm(np.diff(joints, axis=1), axis=-1) * 30
    assert speed.max() < 11
    assert np.linalg.norm(np.diff(joints, n=2, axis=1), axis=-1).max() * 900 < 350
    lowest = joints[:, :, FEET, 1].min(axis=2)
    assert lowest.min() > -0.02
    if code != "A027":
        assert lowest.max() < 0.05
    height = joints[:, :, JOINT["head"], 1] - joints[:, :, FEET, 1].min(axis=2)
    assert 1.3 < height.max() < 2.1


@pytest.mark.parametrize("code", CODES)
def test_bodies_stay_out_of_the_trunk_and_elbows_do_not_lock(code):
    """No palm passes through the axis of the body, and no elbow bends by more than a person's."""
    for subject in range(1, 13):
        joints = perform(subject, code, 1)
        low, high = (joints[:, :, JOINT[n]] for n in ("spine_base", "spine_shoulder"))
        for side in ("left", "right"):
            palm = joints[:, :, JOINT[f"hand_{side}"]]
            axis = high - low
            along = np.clip(np.sum((palm - low) * axis, -1) / np.sum(axis**2, -1), 0, 1)
            gap = np.linalg.norm(palm - low - along[..., None] * axis, axis=-1)
            assert gap.min() > 0.08, (subject, side)
            upper = joints[:, :, JOINT[f"shoulder_{side}"]] - joints[:, :, JOINT[f"elbow_{side}"]]
            lower = palm - joints[:, :, JOINT[f"elbow_{side}"]]
            cosine = np.sum(upper * lower, -1) / (
                np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1)
            )
            assert np.degrees(np.arccos(cosine.max())) > 15, (subject, side)


@given(subjects, codes, seeds)
@settings(max_examples=15, deadline=None)
def test_the_same_arguments_give_the_same_videos_bit_for_bit(subject, code, seed):
    first, second = (list(generate([subject], classes=[code], seed=seed)) for _ in range(2))
    assert [a.sample for a in first] == [b.sample for b in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.joints, b.joints)
    other = next(iter(generate([subject], classes=[code], seed=seed + 1)))
    assert other.joints.shape != first[0].joints.shape or not np.allclose(
        other.joints, first[0].joints, atol=0.01
    )


def test_a_video_does_not_depend_on_what_else_is_asked_for():
    alone = next(iter(generate([7], classes=["reading"], cameras=[3], replications=[2])))
    among = {s.sample: s for s in generate([6, 7], classes=["A014", "A011"])}
    np.testing.assert_array_equal(alone.joints, among[alone.sample].joints)


def test_names_and_metadata_are_those_of_ntu():
    videos = list(generate([1, 9], replications=(1, 2)))
    assert len(videos) == 2 * len(SYNTHETIC) * 3 * 2
    assert len({video.sample for video in videos}) == len(videos)
    names = {action.code: action for action in SYNTHETIC}
    for video in videos:
        s, c, p, r, a = map(
            int, re.fullmatch(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", video.sample).groups()
        )
        assert (s, c, p, r) == (video.setup, video.camera, video.subject, video.replication)
        assert video.class_code == f"A{a:03d}"
        assert (video.label, video.class_name) == (
            names[video.class_code].label,
            names[video.class_code].name,
        )
        assert (video.units, video.fps, video.topology) == ("m", 30.0, KINECT_V2_25)
        assert video.present.all()
        # In the room of a Kinect: before the sensor, not above the ceiling.
        assert 1.0 < video.joints[..., 2].min() < video.joints[..., 2].max() < 5.0
        assert np.abs(video.joints[..., 1]).max() < 2.0


def test_cameras_see_the_same_performance_from_other_angles_with_their_own_noise():
    one, two, three = generate([3], classes=["throw"], replications=[1])
    steps = []
    for video in (one, two, three):
        across = (
            video.joints[0, 0, JOINT["shoulder_left"]] - video.joints[0, 0, JOINT["shoulder_right"]]
        )
        steps.append(np.degrees(np.arctan2(across[2], across[0])))
    for other, angle in zip(steps[1:], (CAMERAS[2], CAMERAS[3]), strict=True):
        turned = (other - steps[0] + 180) % 360 - 180
        assert abs(abs(turned) - abs(angle)) < 8
    # Distances between joints do not depend on where one looks from, but for the noise.
    pairs = list(itertools.combinations(range(25), 2))
    a, b = np.array(pairs).T
    distances = [
        np.linalg.norm(video.joints[0][:, a] - video.joints[0][:, b], axis=-1)
        for video in (one, two, three)
    ]
    for other in distances[1:]:
        residue = other - distances[0]
        assert 0.001 < residue.std() < 0.03
    truth = perform(3, "A007", 1)
    clean = np.linalg.norm(truth[0][:, a] - truth[0][:, b], axis=-1)
    noise = [distance - clean for distance in distances]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    # Left is at negative x for a person who faces the sensor, as the Kinect has it.
    assert (
        one.joints[0, 0, JOINT["shoulder_left"], 0] < one.joints[0, 0, JOINT["shoulder_right"], 0]
    )


def test_noise_is_a_few_millimetres_and_does_not_tremble():
    video = next(iter(generate([2], classes=["A008"])))
    still = video.joints[0][:6]
    jumps = np.linalg.norm(np.diff(still, axis=0), axis=-1)
    assert 0.0005 < np.median(jumps) < 0.01


def test_subjects_differ_more_than_their_own_repetitions():
    def lengths(subject):
        joints = perform(subject, "A001", 1)[0, 0]
        return np.array([np.linalg.norm(joints[a] - joints[b]) for a, b in KINECT_V2_25.bones])

    measured = np.array([lengths(subject) for subject in range(1, 21)])
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(measured, 2)]
    assert min(apart) > 0.005
    np.testing.assert_array_equal(lengths(4), lengths(4))
    stature = measured.sum(axis=1)
    assert stature.std() / stature.mean() > 0.02

    def where(subject, replication):
        """The right or preferred hand over normalised time."""
        joints = perform(subject, "A023", replication)[0]
        hands = joints[:, [JOINT["hand_left"], JOINT["hand_right"]]]
        hand = hands[:, int(np.ptp(hands[..., 1], axis=0).argmax())]
        grid = np.linspace(0, len(hand) - 1, 40)
        return np.interp(grid, np.arange(len(hand)), hand[:, 1])

    tracks = {(s, r): where(s, r) for s in range(1, 13) for r in (1, 2, 3)}
    within, between = [], []
    for (s, r), (u, q) in itertools.combinations(tracks, 2):
        (within if s == u else between).append(np.abs(tracks[s, r] - tracks[u, q]).mean())
    assert 0.001 < np.mean(within) < np.mean(between)


def test_some_people_are_left_handed():
    def left(subject):
        joints = perform(subject, "A007", 1)[0]
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=0)
        return speed[JOINT["hand_left"]] > speed[JOINT["hand_right"]]

    share = np.mean([left(subject) for subject in range(1, 61)])
    assert 0.03 < share < 0.3


@pytest.mark.parametrize(("there", "back"), [("A014", "A015"), ("A008", "A009")])
def test_taking_off_is_putting_on_backwards(there, back):
    for subject in (1, 2, 5, 11):
        forth = perform(subject, there, 1, variation=False)
        undone = perform(subject, back, 1, variation=False)
        np.testing.assert_allclose(forth, undone[:, ::-1], atol=1e-9)
        # What one sees of it differs from time to time.
        assert perform(subject, there, 1).shape != perform(subject, back, 1).shape or not (
            np.allclose(perform(subject, there, 1), perform(subject, back, 1)[:, ::-1], atol=1e-3)
        )
        # Direction matters: the motion is not its own reverse.
        assert np.abs(forth - forth[:, ::-1]).max() > 0.3


def test_without_variation_every_replication_is_alike():
    np.testing.assert_array_equal(
        perform(4, "A011", 1, variation=False), perform(4, "A011", 2, variation=False)
    )
    assert not np.array_equal(perform(4, "A011", 1)[0, :50], perform(4, "A011", 2)[0, :50])


@pytest.mark.parametrize("code", ["A052", "A058"])
def test_two_people_face_each_other(code):
    for subject in range(1, 11):
        one, two = perform(subject, code, 1)

        def facing(person):
            across = person[:, JOINT["shoulder_right"]] - person[:, JOINT["shoulder_left"]]
            ahead = np.cross(across, [0.0, 1.0, 0.0])
            return -ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)

        to_other = two[:, 0] - one[:, 0]
        distance = np.linalg.norm(to_other, axis=-1)
        assert 0.5 < distance.min() < distance.max() < 1.6
        assert (np.sum(facing(one) * to_other, -1) / distance).min() > 0.85
        assert (np.sum(facing(two) * -to_other, -1) / distance).min() > 0.85


def test_hands_meet_in_a_handshake_and_a_push_moves_the_other():
    for subject in range(1, 11):
        shake = perform(subject, "A058", 1)
        hands = shake[:, :, [JOINT["hand_left"], JOINT["hand_right"]]]
        gap = np.linalg.norm(hands[0][:, :, None] - hands[1][:, None], axis=-1).min(axis=(1, 2))
        assert gap.min() < 0.10
        assert (gap < 0.15).mean() > 0.25
        # Whichever hand they prefer, they give the right one.
        assert np.ptp(hands[:, :, 1, 1], axis=1).min() > 2 * np.ptp(hands[:, :, 0, 1], axis=1).max()

        push = perform(subject, "A052", 1)
        back = push[1, :, 0, 2] - push[1, 0, 0, 2]
        hands = push[0][:, [JOINT["hand_left"], JOINT["hand_right"]]]
        reach = (push[1][:, None, JOINT["spine_shoulder"]] - hands)[..., 2]
        touched = int(reach.min(axis=1).argmin())
        assert 0.08 < reach.min() < 0.28
        assert np.abs(back[: max(touched - 6, 1)]).max() < 0.06
        assert back[-1] > 0.15


def test_hands_reach_the_places_that_name_the_action():
    for subject in range(1, 13):
        drink = perform(subject, "A001", 1)[0]
        head = drink[:, JOINT["head"]]
        near = np.minimum(
            *(
                np.linalg.norm(drink[:, JOINT[f"hand_{s}"]] - head, axis=-1)
                for s in ("left", "right")
            )
        )
        assert 0.08 < near.min() < 0.25
        clap = perform(subject, "A010", 1)[0]
        gap = np.linalg.norm(clap[:, JOINT["hand_left"]] - clap[:, JOINT["hand_right"]], axis=-1)
        together = gap[len(gap) // 4 : 3 * len(gap) // 4] < 0.16
        assert np.diff(together.astype(int)).clip(0).sum() >= 2
        seated = perform(subject, "A008", 1)[0]
        assert seated[-1, 0, 1] < 0.65 * seated[0, 0, 1]


def test_speed():
    begin = time.process_time()
    count = sum(1 for _ in generate(range(1, 21)))
    assert count >= 1500
    assert time.process_time() - begin < 15


def test_a_plain_classifier_learns_some_but_a_single_frame_does_not_tell():
    """Unseen subjects: motion over time tells the classes, the average or first pose does not."""

    def features(video):
        joints = video.joints[0] - video.joints[0][:1, :1]
        grid = np.linspace(0, len(joints) - 1, 12).round().astype(int)
        return joints[grid]

    train = list(generate(range(1, 13), cameras=[1]))
    test = list(generate(range(13, 19), cameras=[1]))
    labels = [np.array([v.label for v in videos]) for videos in (train, test)]
    moving = [np.array([features(v) for v in videos]) for videos in (train, test)]

    def accuracy(pick):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=400))
        model.fit(pick(moving[0]).reshape(len(train), -1), labels[0])
        return model.score(pick(moving[1]).reshape(len(test), -1), labels[1])

    assert accuracy(lambda x: x) > 0.85
    assert accuracy(lambda x: x[:, 0]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": [0]}, "subject 0"),
        ({"subjects": [1000]}, "subject 1000"),
        ({"subjects": [1], "cameras": [4]}, "camera 4: synthetic cameras go from 1 to 3"),
        ({"subjects": [1], "replications": [0]}, "replication 0"),
        ({"subjects": [1], "classes": ["juggling"]}, "'juggling' is no synthetic class"),
        ({"subjects": [1], "seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(arguments, message):
    with pytest.raises(DataError, match=re.escape(message)):
        generate(**arguments)


def test_an_action_that_is_not_acted_is_named():
    with pytest.raises(DataError, match="'A002' is no synthetic class; there are: A001"):
        perform(1, "A002", 1)
