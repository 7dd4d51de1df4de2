"""Every variant goes the whole way: train, write, open, ask, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tssan.building import build_network
from tssan.dataset import SkeletonDataset, prepare
from tssan.export import export_network
from tssan.recipe import NetworkRecipe, Recipe, override
from tssan.training import load_run, train

from tests.training import toy


def recipe(**network) -> Recipe:
    """Return the toy's recipe for one epoch; in it 16 frames, the fewest that HCN takes."""
    short = override(toy.RECIPE, ["training.epochs=1", "clips.frames=16"])
    return replace(short, network=NetworkRecipe(**network))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    """The toy's people as a pose estimator sees them: two coordinates and how sure it is."""
    sequences = (
        replace(
            seen,
            joints=seen.joints[..., :2],
            units="image",
            score=np.full(seen.joints.shape[:3], 0.5, np.float32),
        )
        for label in range(3)
        for subject in range(1, 7)
        for replication in (1, 2)
        for seen in (toy.move(label, subject, 1, replication),)
    )
    return prepare(
        sequences,
        tmp_path_factory.mktemp("flat") / "flat",
        name="flat",
        classes=toy.CLASSES,
        protocols=(toy.CROSS_SUBJECT,),
    )


@pytest.fixture(scope="module")
def solid(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    return toy.make(tmp_path_factory.mktemp("solid") / "solid")


@pytest.mark.parametrize(
    "network",
    [
        {"variant": "san-v1", "encoder": "ff", "layers": 1, "heads": 2, "width": 16},
        {"variant": "san-v3", "layers": 1, "heads": 2, "width": 16, "v3_score": "mean"},
        {"variant": "hcn"},
    ],
    ids=lambda network: network["variant"],
)
def test_what_was_trained_is_what_is_opened(
    network: dict, solid: SkeletonDataset, tmp_path: Path
) -> None:
    made = recipe(**network)
    run = train(made, solid, tmp_path / "run", progress=False)
    opened = load_run(tmp_path / "run")
    assert opened.recipe.network == made.network
    torch.manual_seed(0)
    fresh = build_network(made, joints=6, coordinates=3, classes=3).state_dict()
    trained = opened.network.state_dict()
    assert list(trained) == list(fresh)
    assert any(not torch.equal(trained[name], fresh[name]) for name in trained)
    clips = opened.clips(solid, [0, 5, 9])
    with torch.no_grad():
        logits = opened.network(*clips[:3])
        assert torch.equal(logits, run.network(*clips[:3]))
    assert logits.shape == (3, 3)


def test_the_score_as_a_coordinate_goes_the_whole_way(
    flat: SkeletonDataset, tmp_path: Path
) -> None:
    made = override(
        recipe(layers=1, heads=2, width=16),
        [
            "clips.score_as_coordinate=true",
            "clips.align=none",
            "clips.centre=none",
            "clips.scale=none",
            "clips.rotate=0",
        ],
    )
    opened = train(made, flat, tmp_path / "run", progress=False)
    assert opened.results["coordinates"] == 3
    clips = opened.clips(flat, [0, 1])
    assert clips.position.shape[-1] == 3
    assert opened.network(*clips[:3]).shape == (2, 3)
    written = export_network(
        opened.network,
        opened.recipe,
        tmp_path / "run.pt2",
        joints=opened.results["joints"],
        coordinates=opened.results["coordinates"],
    )
    assert written.inputs["position"] == ("n", 2, 2, 16, 6, 3)
