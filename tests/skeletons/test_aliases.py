"""Classes go by every name that people have for them, and by none that could mean another."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.skeletons import classes
from tssan.skeletons.aliases import other_names, squeeze

from tssan_viz.store.catalogue import Catalogue, ClassEntry, SkeletonInfo

DATA_SETS = {
    "ntu120": classes.NTU_RGBD,
    "ntu60": classes.NTU_RGBD[:60],
    "utd-mhad": classes.UTD_MHAD,
    "nw-ucla": classes.NW_UCLA,
    "synthetic": classes.SYNTHETIC,
    "kinetics": classes.KINETICS,
}


def catalogue(name: str) -> Catalogue:
    return Catalogue(
        dataset=name,
        classes=tuple(
            ClassEntry(a.label, a.name, a.code or None, a.aliases) for a in DATA_SETS[name]
        ),
        skeleton=SkeletonInfo("x", ("a",), (), ("centre",), "m"),
        fps=30.0,
    )


@pytest.mark.parametrize("name", DATA_SETS)
def test_no_name_means_two_classes_of_one_data_set(name):
    users = defaultdict(set)
    for action in DATA_SETS[name]:
        for spelling in (action.name, *action.aliases):
            users[squeeze(spelling)].add(action.label)
    assert {spelling: labels for spelling, labels in users.items() if len(labels) > 1} == {}
    # And none reads as the code of a class.
    codes = {squeeze(action.code) for action in DATA_SETS[name] if action.code}
    assert not codes & set(users)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_name_leads_to_its_class(name):
    known = catalogue(name)
    for action in DATA_SETS[name]:
        for spelling in (action.name, *action.aliases):
            shouted = spelling.upper().replace(" ", "-")
            assert known.resolve(spelling).label == known.resolve(shouted).label == action.label


@pytest.mark.parametrize(
    ("name", "said", "code"),
    [
        ("ntu60", "put on jacket", "A014"),
        ("ntu60", "Put on a jacket!", "A014"),
        ("ntu60", "donning", "A014"),
        ("ntu60", "wearing jacket", "A014"),
        ("ntu60", "remove jacket", "A015"),
        ("ntu60", "doffing", "A015"),
        ("ntu60", "read", "A011"),
        ("ntu60", "reading", "A011"),
        ("ntu60", "wear a hat", "A020"),
        ("ntu60", "put on glasses", "A018"),
        ("ntu60", "take off cap", "A021"),
        ("ntu60", "pick up", "A006"),
        ("ntu60", "make phone call", "A028"),
        ("ntu60", "stand up", "A009"),
        ("ntu120", "thumbs up", "A069"),
        ("ntu120", "High five", "A112"),
        ("ntu120", "put on headphones", "A061"),
        ("ntu120", "rock paper scissors", "A120"),
        ("nw-ucla", "put on jacket", "A08"),
        ("nw-ucla", "wear jacket", "A08"),
        ("nw-ucla", "take off jacket", "A09"),
        ("nw-ucla", "pickup with one hand", "A01"),
        ("utd-mhad", "draw circle counterclockwise", "A10"),
        ("utd-mhad", "standing up", "A24"),
        ("utd-mhad", "pick up and throw", "A21"),
    ],
)
def test_what_people_say(name, said, code):
    assert catalogue(name).resolve(said).code == code


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("brush teeth", "brushing teeth"),
        ("make tea", "making tea"),
        ("dance ballet", "dancing ballet"),
        ("ride bike", "riding a bike"),
        ("cut nails", "cutting nails"),
        ("juggle fire", "juggling fire"),
        ("roll", None),
        ("walk the dog", "walking the dog"),
        ("sit-ups", "situp"),
    ],
)
def test_infinitives_on_kinetics(said, means):
    found = [a.name for a in classes.KINETICS if squeeze(said) in map(squeeze, a.aliases)]
    assert found == ([means] if means else [])


def test_what_could_mean_two_is_left_out():
    assert other_names(["putting", "put"], {}) == [(), ()]
    assert other_names(["open the box", "open a box"], {}) == [(), ()]
    assert other_names(["wear hat", "put on hat"], {}) == [(), ()]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abing (/-)eourt", min_size=1, max_size=14), min_size=1, max_size=8))
def test_any_names_get_others_that_are_told_apart(names):
    names = list({squeeze(name): name for name in names}.values())
    others = other_names(names, {})
    taken = [squeeze(name) for name in names]
    made = [squeeze(name) for also in others for name in also]
    assert len(set(made)) == len(made)
    assert not set(made) & set(taken)
    json.dumps(others)
