"""Heads taken out: against the weights set to the same effect, and definitions written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from tests.evidence.networks import Planted, Small, planted_clips
from tssan_viz.errors import UserError
from tssan_viz.evidence.ablation import Batch, HeadImportance, head_importance

LABELS = torch.arange(16) % 3
SUBJECTS = np.arange(16) // 2


def batches(clips: torch.Tensor, size: int = 6):
    def gone_through() -> Iterator[Batch]:
        for part in torch.arange(len(clips)).split(size):
            yield Batch((clips[part],), LABELS[part], SUBJECTS[part.numpy()])

    return gone_through


@pytest.fixture(scope="module")
def found() -> HeadImportance:
    return head_importance(Small().eval(), batches(planted_clips(16)))


def test_zero_is_the_head_s_part_of_the_output_projection_at_zero(found: HeadImportance) -> None:
    clips = planted_clips(16)
    for layer in range(2):
        for head in range(2):
            model = Small()
            with torch.no_grad():
                model.out[layer].weight[:, 4 * head : 4 * head + 4] = 0.0
                loss = F.cross_entropy(model(clips), LABELS, reduction="none").numpy()
            np.testing.assert_allclose(found.changed_loss["zero"][layer, head], loss, atol=1e-5)


def test_uniform_is_the_head_s_queries_at_zero(found: HeadImportance) -> None:
    clips, model = planted_clips(16), Small()
    with torch.no_grad():
        model.qkv[1].weight[4:8] = 0.0
        model.qkv[1].bias[4:8] = 0.0
        loss = F.cross_entropy(model(clips), LABELS, reduction="none").numpy()
    np.testing.assert_allclose(found.changed_loss["uniform"][1, 1], loss, atol=1e-5)


def test_the_gradient_score_is_the_slope_of_a_gate(found: HeadImportance) -> None:
    clips, model = planted_clips(16).double(), Small().double()
    size = 1e-5
    losses = []
    for gate in (1 + size, 1 - size):
        gated = Small().double()
        gated.load_state_dict(model.state_dict())
        with torch.no_grad():
            gated.out[0].weight[:, :4] *= gate
            losses.append(F.cross_entropy(gated(clips), LABELS, reduction="none"))
    slope = ((losses[0] - losses[1]) / (2 * size)).abs().numpy()
    np.testing.assert_allclose(found.gradient[0, 0], slope, rtol=1e-3, atol=1e-6)
    score = found.table["gradient"].to_numpy().reshape(2, 2)
    np.testing.assert_allclose(np.linalg.norm(score, axis=1), 1.0)


def test_how_videos_lie_in_batches_does_not_count(found: HeadImportance) -> None:
    other = head_importance(Small().eval(), batches(planted_clips(16), 16), edits=("mean",))
    np.testing.assert_allclose(other.changed_loss["mean"], found.changed_loss["mean"], atol=1e-5)


def test_heads_that_carry_the_class_are_found_and_rows_that_are_alike_can_change_places() -> None:
    """Every frame of the planted network attends alike: rows may go anywhere, but not to all."""
    clips = planted_clips(16)

    def once() -> Iterator[Batch]:
        yield Batch((clips,), torch.ones(16, dtype=torch.long), SUBJECTS)

    found = head_importance(Planted().eval(), once)
    table = found.table
    assert (table["zero_low"] > 0).all()
    assert (table["zero_p"] < 0.05).all()
    assert (table["uniform_low"] > 0).all()
    assert table["rows_loss"].abs().max() < 1e-5
    # The planted videos are alike, so that the mean head says what each head says.
    assert table["mean_loss"].abs().max() < 1e-2


def test_all_heads_at_once_are_the_weights_set_to_the_same_effect(found: HeadImportance) -> None:
    clips = planted_clips(16)
    nothing, uniform = Small(), Small()
    with torch.no_grad():
        for layer in range(2):
            nothing.out[layer].weight.zero_()
            uniform.qkv[layer].weight[:8] = 0.0
            uniform.qkv[layer].bias[:8] = 0.0
        for edit, model in (("zero", nothing), ("uniform", uniform)):
            logits = model(clips)
            loss = F.cross_entropy(logits, LABELS, reduction="none").numpy()
            np.testing.assert_allclose(found.together_loss[edit], loss, atol=1e-5)
            correct = (logits.argmax(dim=1) == LABELS).numpy()
            np.testing.assert_array_equal(found.together_correct[edit], correct)
    line = found.together.set_index("edit").loc["uniform"]
    change = (found.together_loss["uniform"] - found.loss).reshape(8, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 7, change.mean(), stats.sem(change))
    assert (line["loss_low"], line["loss_high"]) == pytest.approx((low, high))
    right = (found.together_correct["uniform"] - found.correct).reshape(8, 2).mean(axis=1)
    assert line["accuracy"] == pytest.approx(right.mean())


def test_importance_is_set_beside_decodability(found: HeadImportance) -> None:
    needed = found.table["zero_loss"].to_numpy().reshape(2, 2)
    assert found.goes_with_decodability is None
    assert replace(found, decodable=needed**3).goes_with_decodability == pytest.approx(1.0)
    assert replace(found, decodable=-needed).goes_with_decodability == pytest.approx(-1.0)
    assert replace(found, decodable=np.full((2, 2), 0.5)).goes_with_decodability is None
    whole = replace(found, decodable=needed).to_dict()
    assert [line["decodable"] for line in whole["table"]] == pytest.approx(needed.ravel())
    assert [line["edit"] for line in whole["together"]] == ["zero", "mean", "uniform", "rows"]


def test_some_of_the_videos(found: HeadImportance) -> None:
    one = found.of(found.labels == 1)
    assert len(one.loss) == 5
    np.testing.assert_array_equal(one.changed_loss["zero"], found.changed_loss["zero"][..., 1::3])
    np.testing.assert_array_equal(one.together_loss["rows"], found.together_loss["rows"][1::3])
    assert len(one.to_dict()["table"]) == 4
    with pytest.raises(UserError, match="zero, mean, uniform, rows"):
        head_importance(Small(), batches(planted_clips(16)), edits=["half"])
