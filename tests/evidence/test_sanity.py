"""The check with shuffled weights: what it lets through, and what it stops."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import nn

from tests.evidence.networks import Small, planted_clips
from tssan_viz.evidence.attributions import Explained, attribute
from tssan_viz.evidence.sanity import check, rank_correlations, shuffled, stages_of

SUBJECTS = np.arange(8)


def by(method: str):
    clips, target = planted_clips(8), torch.arange(8) % 3

    def attributed(model: nn.Module) -> dict[str, np.ndarray]:
        found = attribute(Explained(model), clips, target, methods=[method])
        return {method: found.frames(method).flatten(1).numpy()}

    return attributed


def test_attributions_made_for_it_fail() -> None:
    """One that is constant, and one that follows the input whatever the network is."""
    movement = planted_clips(8).diff(dim=3).norm(dim=-1).sum(dim=(1, 2, 4)).numpy()

    def blind(_: nn.Module) -> dict[str, np.ndarray]:
        return {"constant": np.ones((8, 32)), "movement": movement}

    table = check(blind, Small(), SUBJECTS).table.set_index("method")
    assert (table["similarity"] == 1.0).all()
    assert not table["passes"].any()


def test_an_attribution_that_hangs_on_the_weights_passes() -> None:
    found = check(by("integrated-gradients"), Small(), SUBJECTS)
    assert found.table["passes"].all()
    assert found.table["similarity_high"].item() < 1.0
    assert found.stages == ["classifier", "out", "qkv", "embed"]
    # The classifier alone changes what is asked for; what is attended to it cannot change.
    received = check(by("received"), Small(), SUBJECTS)
    assert received.table["after classifier"].item() > 1 - 1e-9


def test_shuffling_keeps_the_values_and_leaves_the_rest_alone() -> None:
    model = Small()
    other = shuffled(model, ["classifier"])
    assert torch.equal(
        model.classifier.weight.flatten().sort().values,
        other.classifier.weight.flatten().sort().values,
    )
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    assert torch.equal(model.embed.weight, other.embed.weight)
    assert stages_of(nn.Sequential(model)) == ["0.classifier", "0.out", "0.qkv", "0.embed"]


def test_rank_correlation_is_scipy_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 20)), rng.integers(0, 4, size=(5, 20)).astype(float)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlations(a, b), expected, atol=1e-12)
    np.testing.assert_array_equal(rank_correlations(np.ones((2, 4)), np.zeros((2, 4))), 1.0)
