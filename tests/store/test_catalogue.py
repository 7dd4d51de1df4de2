from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores import SKELETON
from tssan_viz.errors import UserError
from tssan_viz.store import Catalogue, ClassEntry, UnknownClass

NTU = Catalogue(
    "ntu-rgbd",
    (
        ClassEntry(0, "drink water", "A001"),
        ClassEntry(13, "wear jacket", "A014", ("put on jacket", "put on a jacket", "donning")),
        ClassEntry(14, "take off jacket", "A015", ("take off a jacket", "doffing")),
        ClassEntry(22, "hand waving", "A023", ("wave",)),
        ClassEntry(105, "hit other person with something", "A106"),
        ClassEntry(119, "finger-guessing game (playing rock-paper-scissors)", "A120", ("wave",)),
    ),
    SKELETON,
    30.0,
)


@pytest.mark.parametrize(
    "query",
    [
        "wear jacket",
        "Wear Jacket",
        "put on jacket",
        "Put-on Jacket",
        "put_on_jacket",
        " PUT ON A JACKET ",
        "donning",
        "A014",
        "a014",
        "A14",
        "a-14",
        "13",
        13,
    ],
)
def test_a_class_goes_by_many_names(query):
    assert NTU.resolve(query).label == 13


def test_a_code_with_inner_zeros_is_not_another_code():
    assert NTU.resolve("A106").label == 105
    with pytest.raises(UnknownClass):
        NTU.resolve("A16")


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ("put jacket", "wear jacket"),
        ("wear jaket", "wear jacket"),
        ("hand wavin", "hand waving"),
        ("drink", "drink water"),
        ("jacket off", "take off jacket"),
        ("A0015b", "take off jacket"),
    ],
)
def test_an_unknown_class_is_answered_with_the_nearest(query, nearest):
    with pytest.raises(UnknownClass, match="nearest") as caught:
        NTU.resolve(query)
    assert nearest in caught.value.suggestions
    assert isinstance(caught.value, UserError)
    assert query in str(caught.value)


def test_a_name_that_means_two_classes_names_both():
    with pytest.raises(UnknownClass, match=r"A023.* or .*A120") as caught:
        NTU.resolve("wave")
    assert len(caught.value.suggestions) == 2


@pytest.mark.parametrize("query", [99, "99", -1, True, None, 1.5])
def test_what_is_no_class_is_refused(query):
    with pytest.raises(UnknownClass):
        NTU.resolve(query)


def test_a_name_goes_before_another_class_s_alias():
    catalogue = Catalogue(
        "x", (ClassEntry(0, "throw", "a1", ("toss",)), ClassEntry(1, "toss", "a2"))
    )
    assert catalogue.resolve("toss").label == 1


def test_a_catalogue_without_classes_says_so():
    with pytest.raises(UnknownClass, match="without class names"):
        Catalogue("x", ()).resolve("reading")


def test_two_classes_with_one_label_are_refused():
    with pytest.raises(UserError, match="label 1"):
        Catalogue("x", (ClassEntry(1, "a"), ClassEntry(1, "b")))


def test_json_keeps_everything():
    assert Catalogue.from_json(NTU.to_json()) == NTU
    bare = Catalogue("x", (ClassEntry(0, "a"),))
    assert Catalogue.from_json(bare.to_json()) == bare


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=6, unique=True))
def test_every_exact_name_and_label_resolves_to_its_class(names):
    stripped = {name.strip() for name in names}
    names = sorted(name for name in stripped if name and not name.isdigit())
    catalogue = Catalogue("x", tuple(ClassEntry(i, n, f"A{i:03d}") for i, n in enumerate(names)))
    for i, name in enumerate(names):
        assert catalogue.resolve(name).label == i
        assert catalogue.resolve(i).label == i


@given(words)
def test_any_text_finds_a_class_or_is_refused(query):
    with contextlib.suppress(UnknownClass):
        assert NTU.resolve(query) in NTU.classes


@given(st.sampled_from(NTU.classes), st.data())
def test_case_and_punctuation_never_matter(entry, data):
    between = st.sampled_from([" ", "-", "_", "  ", "/", "."])
    text = "".join(data.draw(between) if c == " " else c for c in entry.name)
    text = "".join(c.upper() if data.draw(st.booleans()) else c for c in text)
    assert NTU.resolve(text) == entry
