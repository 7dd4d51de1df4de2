"""`describe`: the sums hold, every open value has a reason, and it fits the page."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console
from tssan.describe import describe, field_reasons, open_values, read_header
from tssan.errors import DataError
from tssan.recipe import (
    ClipsRecipe,
    NetworkRecipe,
    TrainingRecipe,
    load_recipe,
    override,
    recipe_names,
    recipe_path,
)
from tssan.tables import recipe_aliases
from typer.testing import CliRunner

import tssan_viz.cli.describe
from tssan_viz.cli import app


@pytest.mark.parametrize("cls", [ClipsRecipe, NetworkRecipe, TrainingRecipe])
def test_every_field_is_described_and_says_where_its_value_is_from(cls: type) -> None:
    reasons = field_reasons(cls)
    assert list(reasons) == list(cls.__dataclass_fields__)
    for name, reason in reasons.items():
        assert "[S" in reason or "[C" in reason, name


@pytest.mark.parametrize("cls", [ClipsRecipe, NetworkRecipe, TrainingRecipe])
def test_descriptions_name_every_value_that_a_word_can_have(cls: type) -> None:
    """What a refusal lists is what the description explains."""
    reasons = field_reasons(cls)
    words = {name for name, field in cls.__dataclass_fields__.items() if field.type == "str"}
    assert words
    for name in words:
        with pytest.raises(DataError) as refused:
            cls(**{name: "no such word"})
        _, _, listed = str(refused.value).partition("there are ")
        assert listed
        for value in listed.split(", "):
            assert value in re.findall(r"[\w-]+", reasons[name]), (name, value)


@pytest.mark.parametrize(
    "name", ["t1_ts-san-v2", "t3_san-v1-ff", "t4_ts-san-v3", "san-modern", "hcn"]
)
def test_stages_add_up_to_the_whole(name: str) -> None:
    described = describe(load_recipe(name), path=recipe_path(name))
    once = {stage.name: stage for stage in described.stages}  # a pool goes by twice
    assert sum(stage.parameters for stage in once.values()) == described.parameters
    assert sum(stage.flops for stage in once.values()) == described.flops
    assert described.stages[-1].shape[-1] == 60


def test_stages_are_those_of_the_paper() -> None:
    described = describe(load_recipe("t1_ts-san-v2"))
    shapes = {stage.name: stage.shape for stage in described.stages}
    assert described.parameters == 54_738_812
    assert described.flops / 1e9 == pytest.approx(20.0, abs=0.05)
    assert described.attention_rows == {"n": 1, "k": 3, "m": 2}
    assert shapes["position_encoder"] == (6, 32, 512)
    assert shapes["block.layers.3"] == (6, 32, 1024)
    assert shapes["block.fully_connected"] == (6, 1024)
    assert shapes["classifier"] == (1, 3, 60)


def test_shapes_and_settings_are_those_asked_for() -> None:
    made = override(load_recipe("t1_ts-san-v2"), ["network.layers=8"])
    described = describe(made, joints=18, classes=400)
    assert described.parameters / 1e6 == pytest.approx(109.66, abs=0.005)


def test_only_what_the_variant_reads_is_open() -> None:
    def names(recipe: str) -> set[str]:
        return {value.name for value in open_values(load_recipe(recipe))}

    assert {"network.v3_score", "network.encoder_relu"} <= names("t4_ts-san-v3")
    assert {"network.ff_dim", "network.ff_layers"} <= names("t3_san-v1-ff")
    assert not {"network.v3_score", "network.ff_dim"} & names("t1_ts-san-v2")
    assert not {"network.mask_absent_person", "network.encoder_relu"} & names("t3_san-v1-ff")
    assert "network.norm" not in names("hcn")


def test_reasons_of_field_and_file_stand_side_by_side() -> None:
    path = recipe_path("t1_ts-san-v2")
    values = {v.name: v for v in open_values(load_recipe(path), path.read_text())}
    assert "BERT" in values["network.position_embedding"].reason
    assert "`" not in values["network.position_embedding"].reason
    assert values["training.clip_gradient"].here == "none stated"


def test_a_changed_value_has_not_the_reason_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = recipe_path("t1_ts-san-v2")
    changed = override(load_recipe(path), ["network.norm=pre", "network.mask_absent_person=true"])
    values = {v.name: v for v in open_values(changed, path.read_text())}
    assert values["network.mask_absent_person"].value is True
    assert values["network.mask_absent_person"].here == ""
    assert "zero skeleton" in values["network.mask_absent_person"].reason
    assert values["network.encoder_relu"].here
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr(tssan_viz.cli.describe, "console", console)
    CliRunner().invoke(app, ["describe", "t1_ts-san-v2", "--set", "network.layers=2"])
    said = console.export_text()
    assert re.search(r"changed +network\.layers=2; what follows .* without that\s+reproduces", said)


def test_headers_are_read_with_their_continuations() -> None:
    text = (
        "# One line\n# and another.\n#\n"
        "# Expected     87 %,\n#              or so\n# Wall time    1 h\n\n# no\nname: x\n"
    )
    assert read_header(text) == {
        "title": "One line and another.",
        "Expected": "87 %, or so",
        "Wall time": "1 h",
    }
    assert read_header("name: x\n# Expected     nothing\n") == {}


def test_tables_in_a_header_stay_tables() -> None:
    text = (
        "# Title\n#\n# Command      run\n#              --fast    or so\n"
        "# Chosen       by these:\n#\n#                 93.1  a\n#                 94.4  b, with\n"
        "#                       more\n#\n#              and not\n#              otherwise\n"
    )
    assert read_header(text) == {
        "title": "Title",
        "Command": "run --fast    or so",
        "Chosen": "by these:\n   93.1  a\n   94.4  b, with\n         more\nand not otherwise",
    }


@pytest.mark.parametrize("name", recipe_names())
def test_it_fits_a_hundred_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr(tssan_viz.cli.describe, "console", console)
    ran = CliRunner().invoke(app, ["describe", name])
    assert ran.exit_code == 0, ran.output
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    header = read_header(recipe_path(name).read_text())
    assert text.count("…") == "".join(header.values()).count("…")  # nothing was cut off
    command = header["Command"].split(" --")[0]
    for wanted in (name, "parameters", "GFLOP", "classifier" if name != "hcn" else "fc8", command):
        assert wanted in text


def test_without_a_recipe_all_of_them_are_listed() -> None:
    listed = json.loads(CliRunner().invoke(app, ["describe", "--json"]).stdout)
    assert [entry["recipe"] for entry in listed] == list(recipe_names())
    aliases = {alias: entry["recipe"] for entry in listed for alias in entry["aliases"]}
    assert aliases == recipe_aliases()
    said = CliRunner().invoke(app, ["describe"], env={"COLUMNS": "80"}).stdout
    assert all(name in said for name in recipe_names())


def test_a_recipe_is_counted_for_the_skeletons_of_its_data_set() -> None:
    said = CliRunner().invoke(app, ["describe", "t2_ts-san-v2-kinetics", "--json"])
    sizes = {"joints": 18, "coordinates": 3, "classes": 400}  # x, y and the score
    found = json.loads(said.stdout)
    assert {axis: found[axis] for axis in sizes} == sizes
    asked = CliRunner().invoke(app, ["describe", "t2_ts-san-v2-kinetics", "--classes=7", "--json"])
    found = json.loads(asked.stdout)
    assert {axis: found[axis] for axis in sizes} == sizes | {"classes": 7}


def test_json_says_the_same() -> None:
    ran = CliRunner().invoke(
        app,
        ["describe", "utd-mhad", "--joints=20", "--classes=27", "--set=network.layers=1", "--json"],
    )
    said = json.loads(ran.stdout)
    wanted = describe(
        override(load_recipe("utd-mhad"), ["network.layers=1"]),
        path=recipe_path("utd-mhad"),
        joints=20,
        classes=27,
    )
    assert said == json.loads(json.dumps(wanted.to_dict()))
    assert said["recipe"]["network"]["layers"] == 1
    assert len([s for s in said["stages"] if s["kind"] == "Layer"]) == 1
