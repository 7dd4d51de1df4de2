"""Synthetic skeletons of which it is known which frames, and which joints, carry the class.

A person stands and moves a little, all joints alike in all classes; somewhere the left arm makes a
gesture, and only which gesture it is tells the class. Whoever asks a network why it decided as it
did can thus be told whether it points at the right place.

    one moment     one of four gestures, at a time that says nothing
    two moments    two gestures far apart; the class is the pair, and neither alone tells it
    distractor     one gesture, while the other arm makes another, larger one at another time
    reversed       a loop of the hand in one of two planes, forwards or backwards: each pose occurs
                   in two classes, and the order alone tells them apart

Gestures are added to the joints of the arm, so that bones bend and stretch a little: this is a
test of explanations, not of people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tssan.errors import DataError
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.synthetic import perform
from tssan.skeletons.synthetic.body import JOINT
from tssan.skeletons.topology import KINECT_V2_25

SETTINGS = ("one moment", "two moments", "distractor", "reversed")

FRAMES, FPS = 64, 30.0
CLASSES = 4

_LENGTH = 12  # frames of a gesture
_REACH = 0.35  # metres that the hand goes
_DISTRACTION = 1.6  # times as far as the gesture
_CHAIN = {"elbow": 0.4, "wrist": 0.85, "hand": 1.0, "hand_tip": 1.05, "thumb": 1.0}
_DIRECTIONS = np.array([(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (-0.7, 0.7, 0.0)])
_PLANES = (((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))


@dataclass(frozen=True, eq=False)
class Planted:
    """A video and what in it carries the class.

    Attributes
    ----------
    sequence
        One person, `KINECT_V2_25`, metres, y up.
    frames : (t,) bool
    joints : (v,) bool
    """

    sequence: SkeletonSequence
    frames: NDArray[np.bool_]
    joints: NDArray[np.bool_]


def planted_classes() -> tuple[ActionClass, ...]:
    """Return the classes, which are the same in every setting."""
    return tuple(ActionClass(label, f"gesture {label + 1}", "") for label in range(CLASSES))


def planted(
    setting: str, subjects: Sequence[int], *, videos: int = 12, seed: int = 0
) -> Iterator[Planted]:
    """Yield videos of each subject, the classes in turn.

    Parameters
    ----------
    setting
        One of `SETTINGS`.
    subjects
        Who; a subject has the same body in whatever selection it appears.
    videos
        How many of each subject.
    seed
        The same arguments give the same videos, bit for bit.

    Raises
    ------
    DataError
        There is no such setting.
    """
    if setting not in SETTINGS:
        raise DataError(f"no setting {setting!r}; there are: {', '.join(SETTINGS)}")
    return _videos(setting, subjects, videos, seed)


def _videos(setting: str, subjects: Sequence[int], videos: int, seed: int) -> Iterator[Planted]:
    for subject in subjects:
        standing = perform(subject, "A023", 1, seed=seed, variation=False)[0, 0]  # (v, c)
        for video in range(videos):
            rng = np.random.default_rng([seed, SETTINGS.index(setting), subject, video])
            label = video % CLASSES
            yield _video(setting, standing, subject, video, label, rng)


def _video(
    setting: str,
    standing: NDArray[np.float64],
    subject: int,
    video: int,
    label: int,
    rng: np.random.Generator,
) -> Planted:
    left, right = (np.zeros((FRAMES, 3)) for _ in range(2))
    carries = np.zeros(FRAMES, dtype=bool)

    def gesture(hand: NDArray[np.float64], start: int, path: NDArray[np.float64]) -> None:
        hand[start : start + _LENGTH] += path * rng.uniform(0.85, 1.15)

    def plant(start: int, path: NDArray[np.float64]) -> None:
        gesture(left, start, path)
        carries[start : start + _LENGTH] = True

    last = FRAMES - _LENGTH
    if setting == "two moments":
        plant(int(rng.integers(2, FRAMES // 3 - _LENGTH + 4)), _reach(label // 2))
        plant(int(rng.integers(2 * FRAMES // 3 - 2, last - 1)), _reach(2 + label % 2))
    elif setting == "reversed":
        plant(int(rng.integers(2, last - 1)), _loop(_PLANES[label // 2], backwards=bool(label % 2)))
    else:
        start = int(rng.integers(2, last - 1))
        plant(start, _reach(label))
        if setting == "distractor":
            free = [s for s in range(2, last - 1) if abs(s - start) >= _LENGTH]
            other = _DISTRACTION * _reach(int(rng.integers(CLASSES)))
            gesture(right, int(rng.choice(free)), other)
    joints = standing + _wandering(rng, FRAMES, len(standing))
    tells = np.zeros(len(standing), dtype=bool)
    for part, share in _CHAIN.items():
        joints[:, JOINT[f"{part}_left"]] += share * left
        joints[:, JOINT[f"{part}_right"]] += share * right * [-1.0, 1.0, 1.0]
        tells[JOINT[f"{part}_left"]] = True
    name = planted_classes()[label].name
    sequence = SkeletonSequence(
        joints=joints[None].astype(np.float32),
        present=np.ones((1, FRAMES), dtype=bool),
        topology=KINECT_V2_25,
        units="m",
        fps=FPS,
        sample=f"P{subject:03d}V{video:03d}",
        label=label,
        class_name=name,
        class_code="",
        subject=subject,
        replication=video // CLASSES + 1,
        source="planted",
    )
    return Planted(sequence, carries, tells)


def _reach(which: int) -> NDArray[np.float64]:
    """Go out and come back, (t, 3)."""
    out = np.sin(np.pi * (np.arange(_LENGTH) + 0.5) / _LENGTH) ** 2
    return _REACH * out[:, None] * _DIRECTIONS[which]


def _loop(
    plane: tuple[tuple[float, ...], tuple[float, ...]], *, backwards: bool
) -> NDArray[np.float64]:
    """Go round a circle that begins and ends at rest, (t, 3)."""
    angle = 2 * np.pi * (np.arange(_LENGTH) + 0.5) / _LENGTH
    up, across = (np.array(direction) for direction in plane)
    path = (1 - np.cos(angle))[:, None] * up + np.sin(angle)[:, None] * across
    loop: NDArray[np.float64] = 0.6 * _REACH * (path[::-1] if backwards else path)
    return loop


def _wandering(rng: np.random.Generator, t: int, v: int) -> NDArray[np.float64]:
    """Let the body sway and every joint tremble, the same way in every class: (t, v, 3)."""
    sway = gaussian_filter1d(rng.normal(size=(t, 1, 3)), 8.0, axis=0) * [0.15, 0.03, 0.15]
    arms = gaussian_filter1d(rng.normal(size=(t, v, 3)), 3.0, axis=0) * 0.03
    moved: NDArray[np.float64] = sway + arms + rng.normal(scale=0.004, size=(t, v, 3))
    return moved
