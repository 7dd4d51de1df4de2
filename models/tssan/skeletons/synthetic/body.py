"""A person as a kinematic model: limb lengths, and joints from where trunk, hands and feet are.

Everything here is in the person's own frame: x to the person's left, y up from the floor, z
forward, in metres; t frames at once. Positions come from forward kinematics along the trunk and
two-bone inverse kinematics along arms and legs, so a bone has the same length in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tssan.skeletons.topology import KINECT_V2_25

Array = NDArray[np.float64]

JOINT = {name: index for index, name in enumerate(KINECT_V2_25.joints)}

# Pairs of joints to exchange when a left-handed person does what a right-handed one does.
MIRRORED = np.array(
    [
        JOINT[
            name.replace("_left", "_right") if "_left" in name else name.replace("_right", "_left")
        ]
        for name in KINECT_V2_25.joints
    ]
)

# Segment lengths in metres of a person of the reference stature, 1.70 m, for whom the actions are
# written; after the body-segment proportions of Drillis and Contini (1966), cut to the points that
# a Kinect v2 reports.
_LENGTHS = {
    "lower_spine": 0.300,
    "upper_spine": 0.225,
    "neck": 0.075,
    "head": 0.150,
    "shoulder": 0.180,
    "upper_arm": 0.285,
    "forearm": 0.245,
    "hand": 0.080,
    "fingers": 0.080,
    "thumb": 0.055,
    "hip": 0.085,
    "thigh": 0.410,
    "shank": 0.405,
    "foot": 0.130,
}
_ANKLE_HEIGHT = 0.075
_TOE_HEIGHT = 0.020
_UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Body:
    """Who acts: limb lengths in metres, `scale` to the reference stature, the hand preferred."""

    lengths: dict[str, float]
    scale: float
    left_handed: bool
    slump: float
    """How far the trunk leans forward at rest, in radians."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        """Draw a person: stature, proportions, handedness and posture."""
        scale = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.13))
        # Upper and lower spine, hips and shoulders vary more between people than long bones do.
        lengths = {
            name: length * scale * float(np.clip(rng.normal(1.0, 0.035), 0.91, 1.09))
            for name, length in _LENGTHS.items()
        }
        return cls(
            lengths=lengths,
            scale=scale,
            left_handed=bool(rng.random() < 0.12),
            slump=float(rng.uniform(-0.02, 0.10)),
        )

    @property
    def ankle_height(self) -> float:
        """Height of the ankle above the floor when the foot stands flat, in metres."""
        return _ANKLE_HEIGHT * self.scale

    @property
    def standing_height(self) -> float:
        """Height of the spine base above the floor with the knees hardly bent, in metres."""
        legs = self.lengths["thigh"] + self.lengths["shank"]
        return self.ankle_height + 0.994 * legs + 0.02 * self.scale


@dataclass(frozen=True)
class Frame:
    """A moving frame of reference: `origin` (t, 3) and `axes` (t, 3, 3), columns x, y, z."""

    origin: Array
    axes: Array

    def place(self, offset: Array) -> Array:
        """Return the positions (t, 3) of `offset` (3,) or (t, 3) carried along by the frame."""
        return self.origin + self.turn(offset)

    def turn(self, direction: Array) -> Array:
        """Return the directions (t, 3) of `direction` (3,) or (t, 3) turned with the frame."""
        return np.einsum("tij,tj->ti", self.axes, np.broadcast_to(direction, self.origin.shape))


@dataclass(frozen=True)
class Trunk:
    """The parts of the body that everything else is attached to."""

    pelvis: Frame
    chest: Frame
    head: Frame
    spine_mid: Array
    neck: Array


def rotation(angles: Array) -> Array:
    """Return the matrices (t, 3, 3) of yaw, pitch and roll (t, 3) in radians.

    Positive yaw turns to the left, positive pitch bows forward, positive roll leans to the left.
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles).T, np.sin(angles).T
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    yaw = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    pitch = np.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).reshape(-1, 3, 3)
    roll = np.stack([cr, sr, zero, -sr, cr, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return yaw @ pitch @ roll


def trunk(body: Body, base: Array, pelvis: Array, chest: Array, head: Array) -> Trunk:
    """Stand the trunk on `base`.

    Parameters
    ----------
    base
        Position of the spine base, (t, 3).
    pelvis, chest, head
        Yaw, pitch and roll (t, 3) in radians, each relative to the part below it.
    """
    lower = Frame(base, rotation(pelvis))
    # The lumbar spine takes part in what the chest does, as a spine bends over its length.
    bend = rotation(0.5 * chest)
    middle = Frame(lower.place(_UP * body.lengths["lower_spine"]), lower.axes @ bend)
    upper = Frame(middle.place(_UP * body.lengths["upper_spine"]), lower.axes @ rotation(chest))
    nape = upper.place(_UP * body.lengths["neck"])
    skull = upper.axes @ rotation(head)
    top = Frame(nape, skull).place(np.array([0.0, 0.96, 0.28]) * body.lengths["head"])
    return Trunk(lower, upper, Frame(top, skull), middle.origin, nape)


def two_bones(root: Array, target: Array, pole: Array, first: float, second: float) -> Array:
    """Bend a two-bone limb towards a target; return the middle joint and the end, (2, t, 3).

    Parameters
    ----------
    root, target
        Where the limb is attached and where its end should be, (t, 3).
    pole
        Direction (t, 3) in which the middle joint points away from the line root-target.
    first, second
        Bone lengths in metres. A target out of reach is approached along the same line; the reach
        is a soft bound, so that a limb never snaps straight.
    """
    line = target - root
    distance = np.linalg.norm(line, axis=-1)
    direction = line / np.maximum(distance, 1e-6)[:, None]
    reach, soft = 0.995 * (first + second), 0.012
    short = abs(first - second) + 0.25 * min(first, second)
    distance = -soft * np.logaddexp(-distance / soft, -reach / soft)
    distance = soft * np.logaddexp(distance / soft, short / soft)
    along = (first**2 - second**2 + distance**2) / (2 * distance)
    aside = np.sqrt(np.maximum(first**2 - along**2, 0.0))
    across = pole - np.sum(pole * direction, -1, keepdims=True) * direction
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
    middle = root + along[:, None] * direction + aside[:, None] * across
    return np.stack([middle, root + distance[:, None] * direction])


def joints(
    body: Body,
    parts: Trunk,
    hands: dict[str, tuple[Array, Array]],
    feet: dict[str, tuple[Array, Array]],
) -> Array:
    """Return the 25 joints (t, v, 3) of a person whose trunk, hands and feet are given.

    Parameters
    ----------
    hands
        For ``"left"`` and ``"right"`` where the palm is to be and where the elbow points, (t, 3).
    feet
        For either side where the ankle is to be, (t, 3), and heading and pitch of the foot, (t, 2)
        in radians.
    """
    length = body.lengths
    out = np.empty((len(parts.neck), len(JOINT), 3))
    out[:, JOINT["spine_base"]] = parts.pelvis.origin
    out[:, JOINT["spine_mid"]] = parts.spine_mid
    out[:, JOINT["spine_shoulder"]] = parts.chest.origin
    out[:, JOINT["neck"]] = parts.neck
    out[:, JOINT["head"]] = parts.head.origin
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shoulder = parts.chest.place(np.array([sign * 0.955, -0.295, 0.0]) * length["shoulder"])
        palm, pole = hands[side]
        elbow, hand = two_bones(
            shoulder, palm, pole, length["upper_arm"], length["forearm"] + length["hand"]
        )
        # Forearm and palm are one straight piece; the fingers curl a little, the thumb stands off.
        fore = (hand - elbow) / (length["forearm"] + length["hand"])
        inward = parts.chest.turn(np.array([-sign, 0.0, 0.35]))
        inward -= np.sum(inward * fore, -1, keepdims=True) * fore
        tip = _unit(fore + 0.3 * inward)
        thumb = _unit(0.8 * fore + 0.9 * inward)
        out[:, JOINT[f"shoulder_{side}"]] = shoulder
        out[:, JOINT[f"elbow_{side}"]] = elbow
        out[:, JOINT[f"wrist_{side}"]] = elbow + fore * length["forearm"]
        out[:, JOINT[f"hand_{side}"]] = hand
        out[:, JOINT[f"hand_tip_{side}"]] = hand + tip * length["fingers"]
        out[:, JOINT[f"thumb_{side}"]] = hand + thumb * length["thumb"]

        hip = parts.pelvis.place(np.array([sign * 0.97, -0.243, 0.0]) * length["hip"])
        ankle, angles = feet[side]
        heading = np.stack(
            [np.sin(angles[:, 0]), np.zeros(len(angles)), np.cos(angles[:, 0])], axis=-1
        )
        # Knees point where the toes do, a little upwards so that a lifted thigh stays defined.
        knee, end = two_bones(hip, ankle, heading + 0.35 * _UP, length["thigh"], length["shank"])
        flat = -np.arcsin((_ANKLE_HEIGHT - _TOE_HEIGHT) * body.scale / length["foot"])
        rise = angles[:, 1] + flat
        toe = heading * np.cos(rise)[:, None] + np.sin(rise)[:, None] * _UP
        out[:, JOINT[f"hip_{side}"]] = hip
        out[:, JOINT[f"knee_{side}"]] = knee
        out[:, JOINT[f"ankle_{side}"]] = end
        out[:, JOINT[f"foot_{side}"]] = end + toe * length["foot"]
    return out


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
