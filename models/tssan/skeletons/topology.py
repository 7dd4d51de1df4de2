"""Skeleton topologies: which joints a sensor reports, how they hang together, on which side."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from tssan.errors import DataError

Side = Literal["left", "right", "centre"]


@dataclass(frozen=True)
class Topology:
    """The joints of a skeleton as a tree.

    Parameters
    ----------
    name
        The name under which data sets refer to it.
    joints
        Joint names in the order of the coordinate arrays, ``(v,)``.
    parents
        For each joint the index of the joint that it hangs from; the root has -1.
    sides
        For each joint ``"left"``, ``"right"`` (of the person) or ``"centre"``.
    centre
        The joint that is moved to the origin when a sequence is centred.
    spine
        A joint of the trunk above `centre`; the direction between the two is the person's upright.
        None where nobody said; only `align: spine_shoulder` needs it.
    hips, shoulders
        (left, right) joints; the direction between the shoulders is the person's lateral axis.
        None where nobody said; `align` needs the shoulders, `scale: torso` both.

    Raises
    ------
    DataError
        If the tuples differ in length, an index is out of range, or the parents form no tree.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    sides: tuple[Side, ...]
    centre: int
    spine: int | None = None
    hips: tuple[int, int] | None = None
    shoulders: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        v = len(self.joints)
        if not len(self.parents) == len(self.sides) == v:
            raise DataError(
                f"topology {self.name!r}: {v} joints, but {len(self.parents)} parents "
                f"and {len(self.sides)} sides; expected one of each per joint"
            )
        if len(set(self.joints)) != v:
            raise DataError(f"topology {self.name!r}: joint names are not unique: {self.joints}")
        if unknown := set(self.sides) - {"left", "right", "centre"}:
            raise DataError(
                f"topology {self.name!r}: sides {sorted(unknown)}; expected left, right or centre"
            )
        for index in (self.centre, self.spine, *(self.hips or ()), *(self.shoulders or ())):
            if index is not None and not 0 <= index < v:
                raise DataError(f"topology {self.name!r}: joint {index}; expected 0 to {v - 1}")
        if self.parents.count(-1) != 1:
            raise DataError(
                f"topology {self.name!r}: {self.parents.count(-1)} roots (parent -1); expected one"
            )
        for joint in range(v):
            seen: set[int] = set()
            while joint != -1:
                if joint in seen or not 0 <= joint < v:
                    raise DataError(
                        f"topology {self.name!r}: the parents of joint {joint} never reach the root"
                    )
                seen.add(joint)
                joint = self.parents[joint]

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """All (child, parent) pairs; the root has none, so there are v - 1."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent != -1)

    @property
    def head(self) -> int | None:
        """The joint to draw the head at: the one called head, else nose, else none."""
        return next((self.joints.index(n) for n in ("head", "nose") if n in self.joints), None)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Topology:
        """Build a topology from what `to_dict` returned, lists standing for tuples.

        Raises
        ------
        DataError
            If an entry is missing or of another kind.
        """
        try:
            entries = {field.name: values[field.name] for field in fields(cls)}
            spine = entries["spine"]
            return cls(
                name=str(entries["name"]),
                joints=tuple(str(joint) for joint in entries["joints"]),
                parents=tuple(int(parent) for parent in entries["parents"]),
                sides=tuple(cast(Side, side) for side in entries["sides"]),
                centre=int(entries["centre"]),
                spine=None if spine is None else int(spine),
                hips=_pair(entries["hips"]),
                shoulders=_pair(entries["shoulders"]),
            )
        except KeyError as error:
            raise DataError(f"topology: entry {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise DataError(f"topology: {error}") from None


def _pair(values: Any) -> tuple[int, int] | None:
    if values is None:
        return None
    left, right = values
    return int(left), int(right)


def _tree(
    name: str,
    root: str,
    joints: list[tuple[str, str | None]],
    *,
    spine: str,
    hips: tuple[str, str],
    shoulders: tuple[str, str],
) -> Topology:
    """Build a topology from (joint, parent) names in array order; names tell the side."""
    names = [joint for joint, _ in joints]
    return Topology(
        name=name,
        joints=tuple(names),
        parents=tuple(-1 if parent is None else names.index(parent) for _, parent in joints),
        sides=tuple(
            "left" if n.endswith("_left") else "right" if n.endswith("_right") else "centre"
            for n in names
        ),
        centre=names.index(root),
        spine=names.index(spine),
        hips=(names.index(hips[0]), names.index(hips[1])),
        shoulders=(names.index(shoulders[0]), names.index(shoulders[1])),
    )


def _limbs(shoulder: str, hip: str, sides: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Return arms, then legs, as the Kinect lists them, hanging from `shoulder` and `hip`."""
    chains = (
        (("shoulder", "elbow", "wrist", "hand"), shoulder),
        (("hip", "knee", "ankle", "foot"), hip),
    )
    joints: list[tuple[str, str | None]] = []
    for chain, parent in chains:
        for side in sides:
            names = [f"{part}_{side}" for part in chain]
            joints += zip(names, [parent, *names[:-1]], strict=True)
    return joints


_HIPS = ("hip_left", "hip_right")
_SHOULDERS = ("shoulder_left", "shoulder_right")


def _kinect_v2() -> Topology:
    limbs = _limbs("spine_shoulder", "spine_base", ("left", "right"))
    arms, legs = limbs[:8], limbs[8:]
    return _tree(
        "kinect-v2-25",
        "spine_base",
        [
            ("spine_base", None),
            ("spine_mid", "spine_base"),
            ("neck", "spine_shoulder"),
            ("head", "neck"),
            *arms,
            *legs,
            ("spine_shoulder", "spine_mid"),
            ("hand_tip_left", "hand_left"),
            ("thumb_left", "hand_left"),
            ("hand_tip_right", "hand_right"),
            ("thumb_right", "hand_right"),
        ],
        spine="spine_mid",
        hips=_HIPS,
        shoulders=_SHOULDERS,
    )


# The usual graph-network bones hang the hand tips from the thumbs and root the tree at the neck;
# these trees are the anatomical ones, from the pelvis outwards.
KINECT_V2_25 = _kinect_v2()
"""NTU RGB+D (Kinect v2)."""

# Kinect v1 puts the joint called spine a hand's breadth above the hips and behind them, so that the
# line between them leans by 36° (median) when people stand; to the shoulders it leans by 5°.
UTD_MHAD_20 = _tree(
    "utd-mhad-20",
    "hip_center",
    [
        ("head", "shoulder_center"),
        ("shoulder_center", "spine"),
        ("spine", "hip_center"),
        ("hip_center", None),
        *_limbs("shoulder_center", "hip_center", ("left", "right")),
    ],
    spine="shoulder_center",
    hips=_HIPS,
    shoulders=_SHOULDERS,
)
"""UTD-MHAD (Kinect v1, in that data set's own order: from the head down)."""

NW_UCLA_20 = _tree(
    "nw-ucla-20",
    "hip_center",
    [
        ("hip_center", None),
        ("spine", "hip_center"),
        ("shoulder_center", "spine"),
        ("head", "shoulder_center"),
        *_limbs("shoulder_center", "hip_center", ("left", "right")),
    ],
    spine="shoulder_center",
    hips=_HIPS,
    shoulders=_SHOULDERS,
)
"""Northwestern-UCLA (Kinect v1, in the order of its SDK: from the hips up)."""

OPENPOSE_18 = _tree(
    "openpose-18",
    "neck",
    [
        ("nose", "neck"),
        ("neck", None),
        ("shoulder_right", "neck"),
        ("elbow_right", "shoulder_right"),
        ("wrist_right", "elbow_right"),
        ("shoulder_left", "neck"),
        ("elbow_left", "shoulder_left"),
        ("wrist_left", "elbow_left"),
        ("hip_right", "shoulder_right"),
        ("knee_right", "hip_right"),
        ("ankle_right", "knee_right"),
        ("hip_left", "shoulder_left"),
        ("knee_left", "hip_left"),
        ("ankle_left", "knee_left"),
        ("eye_right", "nose"),
        ("eye_left", "nose"),
        ("ear_right", "eye_right"),
        ("ear_left", "eye_left"),
    ],
    spine="nose",
    hips=_HIPS,
    shoulders=_SHOULDERS,
)
"""OpenPose's COCO joints with the bones of Kinetics-skeleton (hips hang from shoulders)."""

COCO_17 = _tree(
    "coco-17",
    "nose",
    [
        ("nose", None),
        ("eye_left", "nose"),
        ("eye_right", "nose"),
        ("ear_left", "eye_left"),
        ("ear_right", "eye_right"),
        ("shoulder_left", "nose"),
        ("shoulder_right", "nose"),
        ("elbow_left", "shoulder_left"),
        ("elbow_right", "shoulder_right"),
        ("wrist_left", "elbow_left"),
        ("wrist_right", "elbow_right"),
        ("hip_left", "shoulder_left"),
        ("hip_right", "shoulder_right"),
        ("knee_left", "hip_left"),
        ("knee_right", "hip_right"),
        ("ankle_left", "knee_left"),
        ("ankle_right", "knee_right"),
    ],
    spine="eye_left",
    hips=_HIPS,
    shoulders=_SHOULDERS,
)
"""The joints of COCO, as HRNet finds them in PYSKL's annotations; there is none in the trunk."""

TOPOLOGIES: dict[str, Topology] = {
    topology.name: topology
    for topology in (KINECT_V2_25, UTD_MHAD_20, NW_UCLA_20, OPENPOSE_18, COCO_17)
}
