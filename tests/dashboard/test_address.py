"""What an address can ask of the head view."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tssan_dash.pages.explore import view_state

MANIFEST: dict[str, Any] = {
    "layers": [1, 2, 3],
    "heads": [1, 2, 3, 4],
    "segments": [1, 2],
    "persons": [1, 2],
    "present": [[False, True], [True, True]],
    "maps": {"dtype": "f2", "shape": [2, 2, 3, 4, 8, 16]},
}


def test_without_parameters_the_last_layer_and_the_first_person_present_are_shown() -> None:
    state, complaints = view_state(MANIFEST, {})
    assert state == {
        "layer": 3,
        "heads": [1, 2, 3, 4],
        "locked": None,
        "segment": 1,
        "person": 2,
        "orientation": "auto",
        "step": None,
    }
    assert complaints == []


def test_what_the_address_asks_is_shown() -> None:
    query = {"layer": "1", "heads": "4-2", "locked": "key-15", "segment": "2", "person": "1"}
    state, complaints = view_state(MANIFEST, query)
    assert complaints == []
    assert state["layer"] == 1
    assert state["heads"] == [2, 4]
    assert state["locked"] == {"side": "key", "frame": 15}
    assert (state["segment"], state["person"]) == (2, 1)


def test_what_is_not_there_is_said_and_the_rest_shown() -> None:
    state, complaints = view_state(MANIFEST, {"layer": "9", "locked": "query-8", "heads": "7"})
    assert state == view_state(MANIFEST, {})[0]
    assert [words for words in complaints if "layer '9'" in words and "1, 2, 3" in words]
    assert [words for words in complaints if "query-8" in words and "query-7" in words]
    assert len(complaints) == 3


@given(
    st.dictionaries(
        st.sampled_from(["layer", "heads", "locked", "segment", "person"]),
        st.one_of(st.text(), st.lists(st.text(), min_size=1), st.integers().map(str)),
    )
)
def test_no_address_breaks_the_page(query: dict[str, Any]) -> None:
    state, complaints = view_state(MANIFEST, query)
    assert state["layer"] in MANIFEST["layers"]
    assert state["heads"]
    assert set(state["heads"]) <= set(MANIFEST["heads"])
    assert state["segment"] in MANIFEST["segments"]
    assert state["person"] in MANIFEST["persons"]
    if state["locked"] is not None:
        assert 0 <= state["locked"]["frame"] < {"query": 8, "key": 16}[state["locked"]["side"]]
    assert len(complaints) <= len(query)
