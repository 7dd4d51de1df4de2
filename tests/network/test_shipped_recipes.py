"""Every shipped recipe trains on data of its shape; every row of the paper has a recipe."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tssan.building import build_network
from tssan.clips import Clips, make_clips, pad
from tssan.describe import describe, read_header
from tssan.network import SkeletonNetwork
from tssan.recipe import Recipe, load_recipe, override, recipe_names, recipe_path
from tssan.skeletons.protocols import KINETICS, NTU60
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25, NW_UCLA_20, OPENPOSE_18, UTD_MHAD_20, Topology
from tssan.tables import PaperRow, paper_tables, recipe_aliases, skeletons_of

ROWS = [(table, row) for table in paper_tables().values() for row in table.rows]
OF_THE_PAPER = sorted({row.recipe for _, row in ROWS})


def shape(name: str) -> tuple[Topology, int, int]:
    """Return the joints, coordinates and classes of the data that a recipe is for."""
    for part, found in {
        "kinetics": (OPENPOSE_18, 2, 400),
        "ntu120": (KINECT_V2_25, 3, 120),
        "utd-mhad": (UTD_MHAD_20, 3, 27),
        "nw-ucla": (NW_UCLA_20, 3, 10),
        "demo": (KINECT_V2_25, 3, 13),
    }.items():
        if part in name:
            return found
    return KINECT_V2_25, 3, 60


def generated(topology: Topology, coordinates: int, persons: int) -> SkeletonSequence:
    """Return people who swing somewhere in front of the sensor for 90 frames."""
    rng = np.random.default_rng(0)
    pose = rng.normal(size=(persons, 1, len(topology.joints), coordinates))
    swing = np.sin(np.linspace(0, 6, 90))[None, :, None, None] * rng.normal(size=pose.shape)
    joints = (pose + 0.3 * swing).astype(np.float32)
    return SkeletonSequence(
        joints=joints,
        present=np.ones((persons, 90), bool),
        topology=topology,
        units="m" if coordinates == 3 else "image",
        fps=30.0,
        sample="generated",
        label=0,
        class_name="swing",
        score=np.full(joints.shape[:3], 0.5, np.float32) if coordinates == 2 else None,
    )


def clips_for(recipe: Recipe, name: str) -> tuple[Clips, int]:
    """Return the training clips of two sequences, of which one lacks the second person."""
    topology, coordinates, classes = shape(name)
    sequences = [generated(topology, coordinates, persons) for persons in (1, 2)]
    clips = make_clips(
        pad(sequences, recipe.clips.persons),
        recipe.clips,
        train=True,
        generator=torch.Generator().manual_seed(0),
    )
    return clips, classes


def step(network: SkeletonNetwork, clips: Clips) -> None:
    """Take a training step, and look whether every parameter was reached and moved."""
    before = [parameter.detach().clone() for parameter in network.parameters()]
    every = network(clips.position, clips.motion, clips.present, every_classifier=True)
    loss = network.loss(every, torch.tensor([0, 1])[: len(every[0])], label_smoothing=0.1)
    loss.backward()
    assert loss.isfinite()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    for (name, parameter), old in zip(network.named_parameters(), before, strict=True):
        assert parameter.grad is not None, name
        assert parameter.isfinite().all(), name
        # A bias before a softmax over keys, or behind a ReLU that is shut, may stand still.
        assert name.endswith("bias") or not torch.equal(parameter, old), name


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_takes_a_training_step(name: str) -> None:
    """At a width of 64, so that it takes a moment; the full width is below."""
    recipe = load_recipe(name)
    if recipe.network.variant != "hcn":
        recipe = override(recipe, ["network.width=64"])
    clips, classes = clips_for(recipe, name)
    n, k, m, t, v, c = clips.position.shape
    r = recipe.clips
    assert (n, k, m, t, v) == (2, r.segments, r.persons, r.frames, len(shape(name)[0].joints))
    assert c == (3 if "kinetics" in name else shape(name)[1])
    torch.manual_seed(0)
    network = build_network(recipe, joints=v, coordinates=c, classes=classes)
    assert network(*clips[:3]).shape == (2, classes)
    step(network, clips)


@pytest.mark.parametrize("name", recipe_names())
def test_the_index_says_whose_skeletons_a_recipe_is_for(name: str) -> None:
    topology, coordinates, classes = shape(name)
    assert skeletons_of(name) == {
        "joints": len(topology.joints),
        # The score of a joint of Kinetics is a coordinate of it.
        "coordinates": 3 if topology is OPENPOSE_18 else coordinates,
        "classes": classes,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_THE_PAPER, "hcn"])
def test_every_recipe_takes_a_training_step_at_full_width(name: str) -> None:
    recipe = load_recipe(name)
    clips, classes = clips_for(recipe, name)
    position, motion, present = (x[1:] for x in clips[:3])  # of two persons; one sample is enough
    torch.manual_seed(0)
    network = build_network(
        recipe, joints=position.shape[-2], coordinates=position.shape[-1], classes=classes
    )
    every = network(position, motion, present, every_classifier=True)
    network.loss(every, torch.tensor([0])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_there_are_fifteen_configurations_on_ntu_and_one_on_kinetics() -> None:
    on_ntu = {row.recipe for table, row in ROWS if table.dataset == "ntu60"}
    assert len(on_ntu) == 15
    assert len(OF_THE_PAPER) == 16
    # No two of them are the same run under two names.
    networks = {
        (recipe.clips, recipe.network, recipe.training)
        for recipe in (load_recipe(name) for name in OF_THE_PAPER)
    }
    assert len(networks) == 16


def test_tables_have_the_papers_rows_in_order() -> None:
    assert {name: len(table.rows) for name, table in paper_tables().items()} == {
        "table1": 1,
        "table2": 1,
        "table3": 6,
        "table4": 4,
        "table5": 4,
        "table6": 4,
    }
    for name, table in paper_tables().items():
        protocols = {p.name for p in (KINETICS if name == "table2" else NTU60)}
        assert set(table.protocols) <= protocols
        assert all(tuple(row.top1) == table.protocols for row in table.rows)


def test_rows_that_are_the_same_run_report_the_same() -> None:
    reported: dict[str, dict[str, float]] = {}
    for _, row in ROWS:
        assert reported.setdefault(row.recipe, dict(row.top1)) == row.top1


def test_an_alias_is_another_name_of_a_recipe() -> None:
    assert recipe_aliases()["t6_ts-san-v2-l4h8"] == "t1_ts-san-v2"
    for alias, name in recipe_aliases().items():
        assert name in recipe_names()
        assert alias not in recipe_names()
        assert load_recipe(alias) == load_recipe(name)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_recipes_say_which_row_they_are_and_what_to_expect(table, row: PaperRow) -> None:
    header = read_header(recipe_path(row.name).read_text(encoding="utf-8"))
    number = table.name.removeprefix("table")
    assert f"table {number}, row {row.row}" in header["Reproduces"]
    for value in (*row.top1.values(), *row.top5.values()):
        assert f"{value} %" in header["Expected"]
    assert header["Command"].startswith(
        f"tssan-viz train {row.recipe} --data {table.dataset} --out run"
    )
    assert header["Chosen"]


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_recipes_are_what_their_row_says(table, row: PaperRow) -> None:
    recipe = load_recipe(row.name)
    network, clips = recipe.network, recipe.clips
    words = row.row
    if variant := re.search(r"SAN-V([123])", words):
        assert network.variant == f"san-v{variant[1]}"
    if table.name == "table3":
        assert network.encoder == words.split(" + ")[1].lower()
    if sequence := re.search(r"seq=(\d+)", words):
        assert clips.frames == int(sequence[1])
    if layers := re.search(r"(\d) layers (\d) heads", words):
        assert (network.layers, network.heads) == (int(layers[1]), int(layers[2]))
    if consensus := re.search(r"TS\((Avg|Max)\)", words):
        assert network.consensus == consensus[1].lower()
    segments = 3 if "TS" in words or table.name == "table6" else 1
    assert clips.segments == segments
    assert recipe.training.epochs == (100 if table.dataset == "kinetics" else 200)
    assert recipe.training.batch_size == 64


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_operations_in_the_header_are_those_of_the_network(name: str) -> None:
    """Forward and backward are three times the forward pass, over all training sequences."""
    recipe = load_recipe(name)
    header = read_header(recipe_path(name).read_text(encoding="utf-8"))
    said = float(re.search(r"about (\S+) floating-point", header["Wall time"])[1])
    kinetics = "kinetics" in name
    flops = describe(recipe, joints=18 if kinetics else 25, classes=400 if kinetics else 60).flops
    sequences = 240_436 if kinetics else 40_091
    assert said == pytest.approx(3 * flops * sequences * recipe.training.epochs, rel=0.03)
