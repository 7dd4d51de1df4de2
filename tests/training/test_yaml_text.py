"""YAML is read as it is written: nothing is dropped, nothing multiplies."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tssan.errors import DataError
from tssan.recipe import load_recipe
from tssan.skeletons.topology import find_topology
from tssan.yaml_text import parse_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=plain)
def test_reads_what_is_no_trick_as_yaml_does(value) -> None:
    for flow in (False, True):
        text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
        assert parse_yaml(text) == yaml.safe_load(text)


def test_reads_json() -> None:
    values = {"joints": ["a", "b"], "parents": {"b": "a"}, "sides": None, "n": [1, -2.5, True]}
    assert parse_yaml(json.dumps(values, indent=2)) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 1\n", r"the key a comes twice\n.*line 3, column 1"),
        ("a: {b: 1, b: 1}", "the key b comes twice"),
        ("a: [{1: x, 1: y}]", "the key 1 comes twice"),
        (LAUGHS, r"the alias \*a is not taken; write it out\n.*line 2"),
        ("a: &a [*a]", "the alias"),
        ("[" * 5000, "nested too deeply"),
        ("{[1]: 2}", "unhashable"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("2020-13-01", "month must be in 1..12"),
        ("a: [", "expected the node content"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)


def test_recipes_and_topologies_are_read_so(tmp_path) -> None:
    recipe, topology = tmp_path / "recipe.yaml", tmp_path / "puppet.yaml"
    recipe.write_text("name: x\nclips:\n  frames: 8\n  segments: 1\n  frames: 16\n")
    with pytest.raises(DataError, match=r"recipe\.yaml: .*the key frames comes twice"):
        load_recipe(recipe)
    topology.write_text(LAUGHS + "joints: [p, q]\nparents: {q: *i}\n")
    with pytest.raises(DataError, match=r"puppet\.yaml: .*the alias \*a is not taken"):
        find_topology(str(topology))
    topology.write_text("joints: [" + "p, " * 400_000 + "]")
    with pytest.raises(DataError, match=r"puppet\.yaml: more than 1 MB"):
        find_topology(str(topology))
