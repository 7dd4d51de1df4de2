"""The plant is where it is said to be, and scores and validity follow their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tssan.errors import DataError
from tssan.skeletons.synthetic.planted import CLASSES, SETTINGS, planted

from tssan_viz.evidence.known_answers import (
    average_precision,
    is_valid,
    of_random_scores,
    over_seeds,
)


@pytest.mark.parametrize("setting", SETTINGS)
def test_class_means_differ_in_the_plant_and_nowhere_else(setting: str) -> None:
    """Without knowing the generator: put the gestures on top of each other, and look beside them.

    Every video is one person's; at the plant joints are farther from the person's mean pose than
    trembling takes them, and classes differ; beside it they do not.
    """
    videos = list(planted(setting, [1], videos=48))
    again = list(planted(setting, [1], videos=48))
    assert all(
        np.array_equal(a.sequence.joints, b.sequence.joints)
        for a, b in zip(videos, again, strict=True)
    )
    inside, outside, elsewhere = [], [], []
    for one in videos:
        joints = one.sequence.joints[0]
        body = joints[:, ~one.joints].mean(axis=1, keepdims=True)
        away = np.linalg.norm(joints - body, axis=-1)
        moved = np.abs(away - np.median(away, axis=0))
        inside.append(moved[one.frames][:, one.joints].mean())
        outside.append(moved[~one.frames][:, one.joints].mean())
        elsewhere.append(moved[one.frames][:, ~one.joints].mean())
    assert np.mean(inside) > 3 * np.mean(outside)
    assert np.mean(inside) > 3 * np.mean(elsewhere)
    assert {one.sequence.label for one in videos} == set(range(CLASSES))
    assert len({one.frames.argmax() for one in videos}) > 4, "the time is not to tell the class"


def test_the_distractor_moves_more_than_the_gesture() -> None:
    for one in planted("distractor", [1, 2], videos=8):
        joints = one.sequence.joints[0]
        right = np.roll(one.joints, 4)  # the right arm stands four joints after the left one
        reach = {
            side: np.linalg.norm(joints[:, mask] - joints[:, mask].mean(axis=0), axis=-1).max()
            for side, mask in (("left", one.joints), ("right", right))
        }
        assert reach["right"] > reach["left"]


def test_one_moment_of_two_tells_half_and_reversed_classes_share_their_poses() -> None:
    for one in planted("two moments", [3], videos=8):
        edges = np.flatnonzero(np.diff(one.frames.astype(int)))
        assert len(edges) == 4
        assert edges[2] - edges[1] >= 12
    with pytest.raises(DataError, match="one moment, two moments"):
        planted("sideways", [1])


def test_random_scores_are_worth_the_share_that_is_planted() -> None:
    truth = np.zeros((4, 2000), dtype=bool)
    truth[:, 700:1100] = True
    assert of_random_scores(truth, draws=5) == pytest.approx(0.2, abs=0.02)
    assert average_precision(truth, truth.astype(float)) == pytest.approx(1.0)


def results(seeds: int, *, baseline: float, chance: float) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "setting": "one moment",
            "seed": seed,
            "accuracy": 1.0,
            "frames": {
                "occlusion": baseline + 0.02 * rng.normal(),
                "received": 0.5,
                "random": chance + 0.02 * rng.normal(),
            },
            "joints": {"occlusion": 0.9, "random": 0.2},
        }
        for seed in range(seeds)
    ]


def test_intervals_are_student_s_t_and_decide_what_is_valid() -> None:
    good = results(5, baseline=0.7, chance=0.2)
    table = over_seeds(good)
    line = table.query("of == 'frames' and method == 'occlusion'").iloc[0]
    values = [one["frames"]["occlusion"] for one in good]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (line["low"], line["high"]) == pytest.approx(expected)
    assert is_valid(table, ["one moment"]) == {"one moment": True}
    # Too few seeds, or intervals that touch, make no valid benchmark; nor does attention alone.
    assert not is_valid(over_seeds(good[:4]), ["one moment"])["one moment"]
    close = over_seeds(results(5, baseline=0.21, chance=0.2))
    assert not is_valid(close, ["one moment"])["one moment"]
