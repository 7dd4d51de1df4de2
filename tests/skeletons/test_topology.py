"""Topologies are trees from the pelvis outwards; classes are numbered and named without doubt."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tssan.errors import DataError
from tssan.skeletons import classes
from tssan.skeletons.topology import (
    KINECT_V2_25,
    NW_UCLA_20,
    OPENPOSE_18,
    TOPOLOGIES,
    UTD_MHAD_20,
    Topology,
    find_topology,
)

CLASSES = {
    "ntu": (classes.NTU_RGBD, 120),
    "utd": (classes.UTD_MHAD, 27),
    "ucla": (classes.NW_UCLA, 10),
    "synthetic": (classes.SYNTHETIC, 13),
}


def names(topology: Topology, *indices: int) -> list[str]:
    return [topology.joints[index] for index in indices]


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_bones_make_a_tree_and_mirror(topology):
    assert len(topology.bones) == len(topology.joints) - 1
    reached = {topology.parents.index(-1)}
    while True:
        more = {child for child, parent in topology.bones if parent in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(range(len(topology.joints)))
    for index, (joint, side) in enumerate(zip(topology.joints, topology.sides, strict=True)):
        if side != "centre":
            other = {"left": "right", "right": "left"}[side]
            twin = topology.joints.index(joint.replace(side, other))
            assert topology.sides[twin] == other
            parent = names(topology, topology.parents[index])[0]
            assert names(topology, topology.parents[twin])[0] == parent.replace(side, other)
    assert names(topology, *topology.hips) == ["hip_left", "hip_right"]
    assert names(topology, *topology.shoulders) == ["shoulder_left", "shoulder_right"]
    assert names(topology, topology.head)[0] in ("head", "nose")
    above = topology.parents[topology.spine]
    while above not in (topology.centre, -1):
        above = topology.parents[above]
    assert above == topology.centre


def test_joint_orders_are_those_of_the_files():
    assert names(KINECT_V2_25, 0, 1, 3, 4, 11, 12, 20, 21, 24) == [
        "spine_base",
        "spine_mid",
        "head",
        "shoulder_left",
        "hand_right",
        "hip_left",
        "spine_shoulder",
        "hand_tip_left",
        "thumb_right",
    ]
    assert names(UTD_MHAD_20, 0, 1, 2, 3, 4, 11, 12, 19) == [
        "head",
        "shoulder_center",
        "spine",
        "hip_center",
        "shoulder_left",
        "hand_right",
        "hip_left",
        "foot_right",
    ]
    assert names(NW_UCLA_20, 0, 1, 2, 3, 4, 19) == [
        "hip_center",
        "spine",
        "shoulder_center",
        "head",
        "shoulder_left",
        "foot_right",
    ]
    assert {UTD_MHAD_20.joints[i] for i in range(20)} == set(NW_UCLA_20.joints)
    assert OPENPOSE_18.parents == (1, -1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15)


def test_survives_json():
    for topology in TOPOLOGIES.values():
        assert Topology.from_dict(json.loads(json.dumps(topology.to_dict()))) == topology


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parents": (-1, 0)}, "3 joints, but 2 parents"),
        ({"parents": (-1, 2, 1)}, "never reach the root"),
        ({"parents": (-1, 0, 7)}, "never reach the root"),
        ({"parents": (-1, -1, 0)}, "2 roots"),
        ({"joints": ("a", "a", "b")}, "not unique"),
        ({"sides": ("centre", "left", "up")}, r"sides \['up'\]"),
        ({"centre": 3}, "joint 3; expected 0 to 2"),
    ],
)
def test_refuses_what_is_not_a_tree(changes, said):
    sides = ("centre", "left", "right")
    small = Topology("small", ("a", "b", "c"), (-1, 0, 0), sides, 0, 1, (1, 2), (1, 2))
    with pytest.raises(DataError, match=said):
        replace(small, **changes)


def test_refuses_a_description_with_something_missing():
    described = KINECT_V2_25.to_dict()
    del described["hips"]
    with pytest.raises(DataError, match="entry 'hips' is missing"):
        Topology.from_dict(described)
    with pytest.raises(DataError, match="topology"):
        Topology.from_dict(KINECT_V2_25.to_dict() | {"hips": 3})


@pytest.mark.parametrize(("actions", "number"), CLASSES.values(), ids=CLASSES)
def test_classes_are_numbered_and_no_name_means_two(actions, number):
    assert [action.label for action in actions] == list(range(number))
    assert len({action.code for action in actions}) == number
    called = [name for action in actions for name in (action.name, *action.aliases)]
    assert len({name.lower() for name in called}) == len(called)


def test_the_jacket_goes_by_the_same_names_everywhere():
    for actions, code in (
        (classes.NTU_RGBD, "A014"),
        (classes.NW_UCLA, "A08"),
        (classes.SYNTHETIC, "A014"),
    ):
        (action,) = (action for action in actions if action.code == code)
        assert {"put on jacket", "donning", "wear jacket"} <= {action.name, *action.aliases}


def test_synthetic_classes_have_the_codes_of_the_same_actions():
    official = {action.code: action for action in classes.NTU_RGBD}
    for action in classes.SYNTHETIC:
        same = official[action.code]
        assert {action.name, *action.aliases} & {same.name, *same.aliases}, action


# ----------------------------------------------------------------------------------- one's own


def described(folder, text, name="puppet.yaml"):
    (folder / name).write_text(text)
    return find_topology(name, folder=folder)


SMALL = "joints: [hip, chest, LeftHand, hand_r]\n"


def test_only_joints_and_parents_are_obligatory(tmp_path):
    topology = described(tmp_path, SMALL + "parents: [null, hip, chest, chest]")
    assert topology.name == "puppet"
    assert topology.parents == (-1, 0, 1, 1)
    assert topology.sides == ("centre", "centre", "left", "right")
    assert topology.centre == 0
    assert (topology.spine, topology.hips, topology.shoulders) == (None, None, None)
    assert Topology.from_dict(json.loads(json.dumps(topology.to_dict()))) == topology


def test_everything_may_be_said_by_name_or_number(tmp_path):
    text = SMALL + (
        "parents: {hip: chest, LeftHand: chest, 3: chest}\nname: doll\ncentre: hip\nspine: chest\n"
        "hips: [LeftHand, hand_r]\nshoulders: [2, 3]\nsides: {LeftHand: centre}\n"
    )
    topology = described(tmp_path, text)
    assert (topology.name, topology.parents) == ("doll", (1, -1, 1, 1))
    assert (topology.centre, topology.spine, topology.hips) == (0, 1, (2, 3))
    assert topology.sides == ("centre", "centre", "centre", "right")
    as_json = json.dumps({"joints": ["a", "b"], "parents": {"b": "a"}})
    assert described(tmp_path, as_json, "puppet.json").parents == (-1, 0)


def test_known_ones_go_by_their_names():
    assert find_topology("openpose-18") is OPENPOSE_18
    with pytest.raises(DataError, match=r"'openpose' \(did you mean openpose-18\?\)"):
        find_topology("openpose")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "holds a list of 2; expected entries joints and parents"),
        ("a: [", "neither YAML nor JSON"),
        ("parents: []", "joints is None; expected a list of names"),
        (SMALL, "parents is None; expected the parent of each joint but the root"),
        (SMALL + "parents: [null, hip]", "parents is a list of 2"),
        (SMALL + "parents: {chest: hipp}", r"parents: 'hipp' is none of the 4 joints \(did you m"),
        (SMALL + "parents: {chest: hip}", "joints without parent are hip, LeftHand, hand_r; exp"),
        (SMALL + "parents: [1, 0, 1, 1]", "joints without parent are none; expected one"),
        (SMALL + "parents: [null, 2, 1, 1]", "never reach the root"),
        (
            SMALL + "parents: [null, 0, 1, 1]\nhip: [0, 1]",
            r"unknown entry 'hip' \(did you m",
        ),
        (
            SMALL + "parents: [null, 0, 1, 1]\nhips: hip",
            "hips is 'hip'; expected .left joint",
        ),
        (SMALL + "parents: [null, 0, 1, 1]\nsides: {hip: up}", "expected left, right or centre"),
        (SMALL + "parents: [null, 0, 1, 1]\nname: openpose-18", "a word that is no known topology"),
        ("joints: [a, a]\nparents: {1: 0}", "joint names are not unique"),
    ],
)
def test_what_is_wrong_in_a_description(tmp_path, text, said):
    with pytest.raises(DataError, match=rf"puppet\.yaml: .*{said}"):
        described(tmp_path, text)
