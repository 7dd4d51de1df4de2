"""Recipes: every shipped one loads, and what is wrong in one is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.building import build_network
from tssan.errors import DataError
from tssan.recipe import (
    ClipsRecipe,
    NetworkRecipe,
    Recipe,
    TrainingRecipe,
    load_recipe,
    override,
    recipe_from_dict,
    recipe_names,
    recipe_path,
)

SHIPPED = Path("models/tssan/recipes")


def from_dict(**values) -> Recipe:
    return recipe_from_dict({"name": "x"} | values, source="x.yaml")


def test_the_promised_recipes_are_there() -> None:
    assert {"demo", "utd-mhad", "nw-ucla", "t1_ts-san-v2"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_builds_and_survives_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict())), source=name) == recipe
    with torch.device("meta"):
        build_network(recipe, joints=25, coordinates=3, classes=10)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_says_what_it_is(name: str) -> None:
    import tssan.recipe

    text = (tssan.recipe.SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
    for heading in ("# Reproduces", "# Expected", "# Wall time", "# Command"):
        assert heading in text
    assert f"tssan-viz train {name} --data" in text


def test_the_papers_recipe_is_the_default() -> None:
    """What the paper states, and what was chosen for it, is what the fields say by themselves."""
    paper = load_recipe("t1_ts-san-v2")
    assert paper.clips == ClipsRecipe()
    assert paper.network == NetworkRecipe()
    assert paper.training == TrainingRecipe()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"netwrok": {}}, "unknown key netwrok (did you mean network?)"),
        ({"network": {"head": 4}}, "unknown key network.head (did you mean heads?)"),
        (
            {"network": {"norm": "poste"}},
            "network.norm: 'poste' does not exist (did you mean post?)",
        ),
        ({"network": {"variant": "san-v4"}}, "network.variant: 'san-v4' does not exist"),
        ({"network": {"variant": "san-v4"}}, "there are san-v1, san-v2, san-v3, hcn"),
        ({"network": {"encoder": "gcn"}}, "there are cnn, ff"),
        ({"network": {"heads": 7}}, "network.heads: 7 does not divide the width 1024"),
        ({"network": {"heads": "8"}}, "network.heads: '8' must be a whole number"),
        ({"network": {"heads": True}}, "network.heads: True must be a whole number"),
        ({"network": {"width": "wide"}}, "network.width: 'wide' must be a whole number or null"),
        ({"network": {"dropout": 1.0}}, "network.dropout: 1.0 is no share"),
        ({"clips": {"train_crop": [0.9, 0.5]}}, "clips.train_crop: [0.9, 0.5] is no range"),
        ({"clips": {"train_crop": [0.9]}}, "clips.train_crop: [0.9] must be a list of two numbers"),
        ({"clips": {"frames": 0}}, "clips.frames: 0 must be at least 1"),
        ({"clips": {"test_crop": 1.2}}, "clips.test_crop: 1.2 is no share"),
        ({"clips": {"averaged_crops": [0.9, 0]}}, "clips.averaged_crops: 0.0 is no share"),
        ({"training": {"mixup": -1}}, "training.mixup: -1.0 must be at least 0"),
        ({"clips": {"motion_scale": float("nan")}}, "clips.motion_scale: nan must be"),
        ({"training": {"learning_rate": "1e-3"}}, "write 1.0e-3 or 0.001"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate: 0.0 must be more than 0"),
        ({"training": {"validation": 0.0}}, "training.validation: 0 holds nothing out"),
        ({"training": []}, "training must be a mapping of keys, not []"),
        ({"protocol": 3}, "protocol: 3 must be a word or null"),
        ({"training": {"weight_decay": 10**400}}, "0000 must be a number"),
    ],
)
def test_errors_name_file_key_and_remedy(values: dict, says: str) -> None:
    with pytest.raises(DataError) as error:
        from_dict(**values)
    assert str(error.value).startswith("x.yaml: ")
    assert says in str(error.value)


def test_whole_numbers_stand_for_numbers() -> None:
    assert from_dict(clips={"motion_scale": 10}).clips.motion_scale == 10.0


def test_name_is_needed() -> None:
    with pytest.raises(DataError, match="the key name is missing"):
        recipe_from_dict({}, source="x.yaml")


def test_unknown_recipe_suggests_a_near_one() -> None:
    with pytest.raises(DataError, match=r"utd_mhad.*did you mean utd-mhad\?.*demo"):
        load_recipe("utd_mhad")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.yaml.*cannot be read"):
        load_recipe(tmp_path / "gone.yaml")
    for content in (b"name: [", b"\xff\xfe\x00", b"- 1\n- 2\n", b"", b"name: 2020-13-01"):
        path = tmp_path / "broken.yaml"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.yaml"):
            load_recipe(path)


def test_a_recipe_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(DataError, match="not YAML"):
        load_recipe(path)


def test_old_and_other_names_of_a_recipe_are_taken() -> None:
    assert load_recipe("ts-san-ntu60") == load_recipe("t1_ts-san-v2")
    assert recipe_path("f5_san-v2").name == "t3_san-v2-cnn.yaml"
    with pytest.raises(DataError, match=r"did you mean ts-san-ntu60\?"):
        load_recipe("ts_san_ntu60")


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"variant": "san-v1", "mask_absent_person": True}, "mask_absent_person: True would chan"),
        ({"v3_person_fusion": "post"}, "san-v2 with the cnn encoder does not read it"),
        ({"ff_dim": 256}, "ff_dim: 256 would change nothing"),
        ({"encoder": "ff", "encoder_relu": "all"}, "san-v2 with the ff encoder does not read it"),
        ({"variant": "hcn", "heads": 4}, "heads: 4 would change nothing; hcn does not read it"),
        ({"consensus": "max", "consensus_of": "probabilities"}, "do not add up to 1"),
        ({"variant": "san-v1", "heads": 3}, "heads: 3 does not divide the width 512"),
        ({"encoder": "ff", "ff_dim": 100, "heads": 3}, "heads: 3 does not divide the width 200"),
        ({"variant": "san-v3", "encoder": "ff", "ff_dim": 33}, "ff_dim: 33 is odd"),
        ({"encoder": "ff", "ff_layers": 0}, "ff_layers: 0 must be at least 1"),
    ],
)
def test_networks_that_make_no_sense_are_refused(network: dict, says: str) -> None:
    with pytest.raises(DataError) as error:
        from_dict(network=network)
    assert str(error.value).startswith("x.yaml: network.")
    assert says in str(error.value)


def test_settings_replace_values_of_a_recipe() -> None:
    paper = load_recipe("t1_ts-san-v2")
    made = override(
        paper,
        [
            "network.heads=4",
            "network.width=null",
            "training.learning_rate=1e-3",
            "training.clip_gradient = 1",
            "clips.train_crop=[0.7, 1]",
            "protocol=xview",
        ],
    )
    assert (made.network.heads, made.training.learning_rate) == (4, 0.001)
    assert (made.protocol, made.clips.train_crop) == ("xview", (0.7, 1.0))
    assert made.training.clip_gradient == 1.0
    assert paper == load_recipe("t1_ts-san-v2")
    assert override(paper, []) == paper


def test_settings_are_checked_together() -> None:
    """Three heads fit a width of 96 only, in whichever order they are given."""
    paper = load_recipe("t1_ts-san-v2")
    for chosen in (["network.heads=3", "network.width=96"], ["network.width=96"]):
        assert override(paper, chosen).network.block_width == 96
    with pytest.raises(DataError, match=r"--set network\.heads=3: .*does not divide"):
        override(paper, ["network.heads=3"])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("heads=4", "unknown key heads (did you mean network.heads?)"),
        ("network.head=4", "unknown key network.head (did you mean heads?)"),
        ("netwrk.heads=4", "the recipe has no part netwrk (did you mean network?)"),
        ("network.heads.x=4", "the recipe has no part heads"),
        ("network=4", "write part.field=value, such as network.heads=4"),
        ("network.heads", "write part.field=value, such as network.heads=4"),
        ("", "write part.field=value"),
        ("network.heads=four", "network.heads: 'four' must be a whole number"),
        ("network.heads=", "network.heads: None must be a whole number"),
        ("network.norm=poste", "did you mean post?"),
        ("network.norm=[", "the value is not YAML"),
        ("network.norm=2020-13-01", "the value is not YAML"),
        ("training.learning_rate=nan", "training.learning_rate: nan must be a number"),
    ],
)
def test_wrong_settings_are_said_with_the_remedy(setting: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        override(load_recipe("t1_ts-san-v2"), [setting])
    assert str(error.value).startswith(f"--set {setting}: ")
    assert says in str(error.value)


@settings(deadline=None)
@given(setting=st.text(max_size=30) | st.builds("network.{}={}".format, st.text(), st.text()))
def test_any_setting_is_taken_or_refused_in_words(setting: str) -> None:
    recipe = load_recipe("demo")
    said = "--set "
    try:
        override(recipe, [setting])
    except DataError as error:
        said = str(error)
    assert said.startswith("--set ")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    f"{part}.{field}"
    for part, cls in (
        ("clips", ClipsRecipe),
        ("network", NetworkRecipe),
        ("training", TrainingRecipe),
    )
    for field in cls.__dataclass_fields__
]


@settings(deadline=None)
@given(key=st.sampled_from(KEYS), value=plain)
def test_any_value_is_taken_or_refused_in_words(key: str, value) -> None:
    part, name = key.split(".")
    said = ""
    try:
        recipe = from_dict(**{part: {name: value}})
    except DataError as error:
        said = str(error)
    if said:
        assert name in said
    else:
        assert from_dict(**recipe.to_dict()) == recipe
