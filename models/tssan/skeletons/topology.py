"""Skeleton topologies: which joints a sensor reports, how they hang together, on which side."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from tssan.errors import DataError
from tssan.yaml_text import parse_yaml

MOST_BYTES = 2**20  # of a file that describes a topology

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


def _kinect_v1(name: str, trunk: tuple[str, ...]) -> Topology:
    """Return the tree of Kinect v1, the joints of the trunk in a data set's own order."""
    parents = {"spine": "hip_center", "shoulder_center": "spine", "head": "shoulder_center"}
    limbs = _limbs("shoulder_center", "hip_center", ("left", "right"))
    return _tree(
        name,
        "hip_center",
        [*((joint, parents.get(joint)) for joint in trunk), *limbs],
        # The joint called spine lies a hand's breadth above the hips and behind them, so that the
        # line between them leans by 36° (median) when people stand; to the shoulders, by 5°.
        spine="shoulder_center",
        hips=_HIPS,
        shoulders=_SHOULDERS,
    )


UTD_MHAD_20 = _kinect_v1("utd-mhad-20", ("head", "shoulder_center", "spine", "hip_center"))
"""UTD-MHAD (Kinect v1, in that data set's own order: from the head down)."""

NW_UCLA_20 = _kinect_v1("nw-ucla-20", ("hip_center", "spine", "shoulder_center", "head"))
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


def find_topology(name: str, folder: str | os.PathLike[str] = ".") -> Topology:
    """Return a known topology by its name, or one of one's own by its file.

    The file is YAML or JSON. Only joints and parents are obligatory::

        joints: [pelvis, chest, head, hand_left, hand_right]
        parents: {chest: pelvis, head: chest, hand_left: chest, hand_right: chest}
        centre: pelvis                    # default: the joint without parent
        sides: {hand_left: left, hand_right: right}      # default: by left and right in the names
        spine: chest                      # for `align: spine_shoulder`
        shoulders: [hand_left, hand_right]               # left, right; for `align`, `scale: torso`
        hips: [hip_left, hip_right]       # left, right; for `scale: torso`
        name: puppet                      # default: as the file

    Parameters
    ----------
    name
        One of `TOPOLOGIES`, or a file that ends in .yaml, .yml or .json.
    folder
        Where the file is, if it is not named with its path.

    Raises
    ------
    DataError
        If there is none, or what the file says is wrong: which entry, and what would be right.
    """
    if name in TOPOLOGIES:
        return TOPOLOGIES[name]
    path = Path(folder, name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        near = get_close_matches(name, TOPOLOGIES, n=1)
        raise DataError(
            f"no topology is called {name!r}{f' (did you mean {near[0]}?)' if near else ''}; there "
            f"are {', '.join(TOPOLOGIES)}, or give a .yaml or .json file that lists joints and "
            "parents"
        )
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: the topology cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES >> 20} MB; expected joints and parents")
    try:
        values = parse_yaml(data.decode("utf-8"))  # JSON is YAML
    except ValueError as error:
        raise DataError(f"{path}: neither YAML nor JSON: {error}") from None
    try:
        return _described(values, path.stem)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _described(values: Any, stem: str) -> Topology:
    """Build a topology from what its file says."""
    known = [field.name for field in fields(Topology)]
    if not isinstance(values, dict):
        raise DataError(f"holds {_short(values)}; expected entries joints and parents")
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise DataError(f"unknown entry {key!r}{hint}; there are {', '.join(known)}")
    joints = values.get("joints")
    if not isinstance(joints, list) or not joints or not all(isinstance(j, str) for j in joints):
        raise DataError(f"joints is {_short(joints)}; expected a list of names")

    def index(joint: Any, entry: str) -> int:
        if isinstance(joint, int) and not isinstance(joint, bool) and 0 <= joint < len(joints):
            return joint
        if joint in joints:
            return joints.index(joint)
        near = get_close_matches(str(joint), joints, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(f"{entry}: {_short(joint)} is none of the {len(joints)} joints{hint}")

    def pair(entry: str) -> tuple[int, int] | None:
        both = values.get(entry)
        if both is None:
            return None
        if not isinstance(both, list) or len(both) != 2:
            raise DataError(f"{entry} is {_short(both)}; expected [left joint, right joint]")
        return index(both[0], entry), index(both[1], entry)

    parents = values.get("parents")
    if isinstance(parents, dict):
        of = {index(child, "parents"): parent for child, parent in parents.items()}
        parents = [of.get(i) for i in range(len(joints))]
    if not isinstance(parents, list) or len(parents) != len(joints):
        raise DataError(
            f"parents is {_short(parents)}; expected the parent of each joint but the root, as "
            f"{{child: parent}}, or a list of {len(joints)} with null for the root"
        )
    hangs = tuple(-1 if p is None or p == -1 else index(p, "parents") for p in parents)
    if hangs.count(-1) != 1:
        roots = ", ".join(j for j, p in zip(joints, hangs, strict=True) if p == -1) or "none"
        raise DataError(f"parents: joints without parent are {roots}; expected one, the root")
    sides = values.get("sides", {})
    if isinstance(sides, dict):
        of_joint = {index(joint, "sides"): side for joint, side in sides.items()}
        sides = [of_joint.get(i, _side(name)) for i, name in enumerate(joints)]
    if not isinstance(sides, list) or not {str(s) for s in sides} <= {"left", "right", "centre"}:
        raise DataError(f"sides is {_short(sides)}; expected left, right or centre per joint")
    name = values.get("name", stem)
    if not isinstance(name, str) or not name or name in TOPOLOGIES:
        raise DataError(f"name: {_short(name)}; expected a word that is no known topology's")
    centre, spine = values.get("centre"), values.get("spine")
    return Topology(
        name=name,
        joints=tuple(joints),
        parents=hangs,
        sides=tuple(cast(Side, side) for side in sides),
        centre=hangs.index(-1) if centre is None else index(centre, "centre"),
        spine=None if spine is None else index(spine, "spine"),
        hips=pair("hips"),
        shoulders=pair("shoulders"),
    )


def _side(joint: str) -> str:
    """Return the side that the name of a joint tells: LeftHand, hand_left, l_hand, hand.R."""
    words = re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", joint).lower())
    for side in ("left", "right"):
        if side in words or any(word == side[0] for word in (words[:1] + words[-1:])):
            return side
    return "centre"


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:60]
