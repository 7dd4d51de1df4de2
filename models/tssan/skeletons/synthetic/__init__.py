"""Synthetic skeleton videos: a kinematic person acts, three cameras see it.

The videos have the form of NTU RGB+D: 25 Kinect-v2 joints in metres, 30 frames per second, y up and
z away from the sensor, names ``SsssCcccPpppRrrrAaaa``. Every subject has limb lengths, a preferred
hand, a tempo and habits of its own; every performance varies, and some recordings begin late or end
early; the same performance is seen by three cameras from -45, 0 and 45 degrees, each with its own
noise. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tssan.errors import DataError
from tssan.skeletons.classes import SYNTHETIC, ActionClass
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.synthetic.actions import ACTIONS, APART, Manner
from tssan.skeletons.synthetic.body import JOINT, MIRRORED, Array, Body, rotation
from tssan.skeletons.synthetic.script import FPS, Hand, Script, Trial, act, fidget
from tssan.skeletons.topology import KINECT_V2_25

__all__ = ["CAMERAS", "generate", "perform"]

CAMERAS = {1: 0.0, 2: -45.0, 3: 45.0}
"""From where each camera looks at the performance, in degrees of yaw."""

_SUBJECTS_PER_SETUP = 8
_SHORTEST, _LONGEST = 50, 120

# Whoever takes a jacket off undoes what that person did to put it on; likewise with the chair.
_HABIT_OF = {"A015": "A014", "A009": "A008"}

# Where hands go when they have nothing to do, at no phase yet.
_FIDGETS = (
    Hand(0.0, "head", 0.08, -0.06, 0.14, (0.8, -0.9, -0.1)),
    Hand(0.0, "chest", 0.08, -0.20, 0.24, (0.5, -1.0, -0.1)),
    Hand(0.0, "chest", 0.24, -0.02, 0.24, (0.7, -0.9, 0.0)),
    Hand(0.0, "hip", 0.24, 0.08, 0.10, (0.9, -0.1, -0.6)),
)

# Kinect reports the ends of the limbs worst.
_LIMB_ENDS = [
    index
    for name, index in JOINT.items()
    if name.split("_")[0] in {"hand", "thumb", "wrist", "ankle", "foot"}
]


def generate(
    subjects: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    cameras: Sequence[int] = (1, 2, 3),
    replications: Sequence[int] = (1, 2),
    seed: int = 0,
) -> Iterator[SkeletonSequence]:
    """Yield synthetic skeleton videos.

    Parameters
    ----------
    subjects
        Who acts, from 1 to 999. A subject is the same person in whatever selection it appears.
    classes
        Names or codes of the classes in `tssan.skeletons.classes.SYNTHETIC`; by default all.
    cameras
        Which of the cameras 1 to 3 look on.
    replications
        Which performances, from 1 to 999.
    seed
        The seed; the same arguments give the same videos, bit for bit.

    Yields
    ------
    SkeletonSequence
        Topology `KINECT_V2_25`, metres, 50 to 120 frames at 30 per second, one person or two (the
        first is the subject).

    Raises
    ------
    DataError
        If a subject, class, camera, replication or the seed is not one.
    """
    chosen = _chosen(classes)
    for name, values, highest in (
        ("subject", subjects, 999),
        ("camera", cameras, len(CAMERAS)),
        ("replication", replications, 999),
    ):
        for value in values:
            if not 1 <= value <= highest:
                raise DataError(f"{name} {value}: synthetic {name}s go from 1 to {highest}")
    if seed < 0:
        raise DataError(f"seed {seed}: expected 0 or a positive number")
    return _videos(subjects, chosen, cameras, replications, seed)


def _videos(
    subjects: Sequence[int],
    classes: Sequence[ActionClass],
    cameras: Sequence[int],
    replications: Sequence[int],
    seed: int,
) -> Iterator[SkeletonSequence]:
    for subject in subjects:
        setup = 1 + (subject - 1) // _SUBJECTS_PER_SETUP
        for action in classes:
            for replication in replications:
                joints = _recorded(
                    perform(subject, action.code, replication, seed=seed),
                    _rng(seed, "cut", subject, action.code, replication),
                )
                for camera in cameras:
                    seen = _film(joints, action, subject, setup, camera, replication, seed)
                    yield SkeletonSequence(
                        joints=seen,
                        present=np.ones(seen.shape[:2], dtype=bool),
                        topology=KINECT_V2_25,
                        units="m",
                        fps=FPS,
                        sample=f"S{setup:03d}C{camera:03d}P{subject:03d}"
                        f"R{replication:03d}{action.code}",
                        label=action.label,
                        class_name=action.name,
                        class_code=action.code,
                        subject=subject,
                        camera=camera,
                        setup=setup,
                        replication=replication,
                        source="synthetic",
                    )


def perform(
    subject: int, class_code: str, replication: int, *, seed: int = 0, variation: bool = True
) -> Array:
    """Act once; return the joints (m, t, v, 3) in the room, without noise, in metres.

    The floor is at y = 0. The subject stands at the origin facing z, a second person in front of
    it facing back.

    Parameters
    ----------
    subject, class_code, replication, seed
        Who acts what for which time.
    variation
        False gives the performance that the person has in mind: no sway, no slip, the habitual
        tempo. It is the same in every replication.

    Raises
    ------
    DataError
        If no synthetic class has the code.
    """
    if class_code not in ACTIONS:
        raise DataError(f"{class_code!r} is no synthetic class; there are: {', '.join(ACTIONS)}")
    habit = _HABIT_OF.get(class_code, class_code)
    manner = Manner(
        own=_rng(seed, "habit", subject, habit),
        trial=_rng(seed, "trial", subject, class_code, replication) if variation else None,
    )
    trial = _trial(manner, _rng(seed, "tempo", subject))
    scripts = ACTIONS[class_code](manner)
    trial = _fitted(trial, scripts[0].seconds)
    if manner.trial is not None:
        scripts[0], trial = _fidget(scripts[0], trial, manner.trial)
        scripts = [_slip(script, manner.own, manner.trial) for script in scripts]
    joints = []
    for m, script in enumerate(scripts):
        body = Body.draw(_rng(seed, "body", subject, m))
        sway = None
        if variation:
            sway = _rng(seed, "sway", subject, class_code, replication, m)
        person = act(body, script, replace(trial, rng=sway))
        if body.left_handed and script.either_hand:
            person = person[:, MIRRORED] * [-1.0, 1.0, 1.0]
        if m == 1:
            person = person * [-1.0, 1.0, -1.0] + np.array([0.0, 0.0, APART])
        joints.append(person)
    return np.stack(joints)


def _trial(manner: Manner, tempo: np.random.Generator) -> Trial:
    return Trial(
        lead=max(manner.now(0.35, 0.25), 0.03),
        tail=max(manner.now(0.35, 0.25), 0.03),
        pace=float(np.exp(tempo.normal(0.0, 0.14))) * manner.now(1.0, 0.08),
        warp=manner.now(0.0, 0.25),
        blur=float(tempo.uniform(1.3, 2.2)),
    )


def _fitted(trial: Trial, seconds: float) -> Trial:
    """Keep the video within 50 to 120 frames: wait longer, or act faster."""
    still = trial.lead + trial.tail
    longest = (_LONGEST - 2) / FPS - still
    pace = min(trial.pace, longest / seconds)
    wait = max((_SHORTEST + 2) / FPS - still - pace * seconds, 0.0) / 2
    return replace(trial, pace=pace, lead=trial.lead + wait, tail=trial.tail + wait)


def _slip(script: Script, own: np.random.Generator, trial: np.random.Generator) -> Script:
    """Let hands miss their targets by some centimetres, part of it by habit, part by chance."""
    hands = {}
    for side, keys in script.hands.items():
        moved = []
        for key in keys:
            # Whoever aims at a face or at another's hand does not miss it by much.
            spread = 0.006 if key.at in {"room", "head"} else 0.022
            miss = own.normal(0, spread, 3) + trial.normal(0, 0.7 * spread, 3)
            # Sideways both hands know where the other is.
            out, up, forward = miss * np.array([0.4, 1.0, 1.0])
            moved.append(
                replace(key, out=key.out + out, up=key.up + up, forward=key.forward + forward)
            )
        hands[side] = moved
    return replace(script, hands=hands)


def _fidget(script: Script, trial: Trial, rng: np.random.Generator) -> tuple[Script, Trial]:
    """Let half of the people who wait touch their face, chest or side before they begin.

    For a moment this looks like the beginning of some other action, so that only the whole tells.
    """
    side = "right" if rng.random() < 0.7 else "left"
    place = _FIDGETS[int(rng.integers(len(_FIDGETS)))]
    seconds, still, wanted = rng.uniform(0.7, 1.1), rng.uniform(0.05, 0.25), rng.random() < 0.5
    core = script.seconds * trial.pace
    if not wanted or seconds + still + 0.1 + core + trial.tail > (_LONGEST - 2) / FPS:
        return script, trial
    fidgeting = fidget(script, side, place, -(seconds + still) / core, -still / core)
    if fidgeting is script:
        return script, trial
    return fidgeting, replace(trial, lead=seconds + still + 0.1)


def _recorded(joints: Array, rng: np.random.Generator) -> Array:
    """Begin a quarter of the recordings too late or end them too early, by up to four tenths."""
    t = joints.shape[1]
    missed, part, late = rng.random() < 0.25, rng.uniform(0.1, 0.4), rng.random() < 0.5
    if not missed:
        return joints
    lost = min(round(part * t), t - _SHORTEST)
    return joints[:, lost:] if late else joints[:, : t - lost]


def _film(
    joints: Array,
    action: ActionClass,
    subject: int,
    setup: int,
    camera: int,
    replication: int,
    seed: int,
) -> NDArray[np.float32]:
    """Return what a camera sees, (m, t, v, 3) in its own coordinates."""
    room = _rng(seed, "room", setup)
    distance, height = room.uniform(2.5, 3.4), room.uniform(0.85, 1.35)
    place = _rng(seed, "place", subject, action.code, replication)
    facing, x, z = place.normal(0, 7.0), place.normal(0, 0.12), place.normal(0, 0.10)
    if len(joints) == 2:
        # The middle camera sees two people side by side, the other two one before the other.
        joints = joints - np.array([0.0, 0.0, APART / 2])
        facing += 90.0
    # Turning by 180 degrees puts the person's left on the sensor's right: x grows to the sensor's
    # left, as in the Kinect's camera space.
    placed = _turned(joints, facing) + np.array([x, 0.0, z])
    seen = _turned(placed, 180.0 + CAMERAS[camera]) + np.array([0.0, -height, distance])

    sensor = _rng(seed, "noise", subject, action.code, replication, camera)
    jitter = np.full(seen.shape[:3], 0.005)
    jitter[:, :, _LIMB_ENDS] *= 1.7
    # What the body hides from the sensor is guessed: it trembles more and drifts.
    behind = seen[..., 2] - seen[:, :, JOINT["spine_mid"], None, 2]
    hidden = gaussian_filter1d(np.clip(behind / 0.25, 0.0, 1.0), 3.0, axis=1)
    seen = seen + _smooth_noise(sensor, seen.shape, 1.0) * (jitter * (1 + hidden))[..., None]
    seen = seen + _smooth_noise(sensor, seen.shape, 8.0) * (0.03 * hidden)[..., None]
    return seen.astype(np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], frames: float) -> Array:
    """Return noise (m, t, v, 3) of standard deviation 1, correlated over some frames."""
    noise = gaussian_filter1d(rng.normal(size=shape), frames, axis=1)
    # The deviation of white noise after a Gaussian filter of this width.
    return noise * np.sqrt(2 * frames * np.sqrt(np.pi))


def _turned(joints: Array, degrees: float) -> Array:
    (yaw,) = rotation(np.array([[np.radians(degrees), 0.0, 0.0]]))
    return joints @ yaw.T


def _chosen(classes: Sequence[str] | None) -> list[ActionClass]:
    if classes is None:
        return list(SYNTHETIC)
    if isinstance(classes, str):
        classes = [classes]
    known = {name.casefold(): action for action in SYNTHETIC for name in (action.name, action.code)}
    chosen = []
    for name in classes:
        if name.casefold() not in known:
            names = ", ".join(f"{action.name} ({action.code})" for action in SYNTHETIC)
            raise DataError(f"{name!r} is no synthetic class; there are: {names}")
        chosen.append(known[name.casefold()])
    return chosen


def _rng(seed: int, purpose: str, *keys: int | str) -> np.random.Generator:
    """Return the generator of one purpose, independent of every other and of what is selected."""
    words = [int.from_bytes(str(key).encode(), "little") for key in (purpose, *keys)]
    return np.random.default_rng([seed, *words])
