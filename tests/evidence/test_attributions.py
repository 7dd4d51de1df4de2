"""Attributions of networks whose answer is known, and of Captum and definitions otherwise."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score

from tests.evidence.networks import Planted, Small, planted_clips
from tssan_viz.errors import UserError
from tssan_viz.evidence.attributions import (
    METHODS,
    OF_ATTENTION,
    Explained,
    attribute,
    integrated_gradients,
    occlusion_by_frame,
    occlusion_by_joint,
)
from tssan_viz.evidence.perturbing import Replacement, replaced


@pytest.mark.parametrize("method", METHODS)
def test_planted_frames_are_found_without_a_fault(method: str) -> None:
    clips = planted_clips(last=12)
    found = attribute(
        Explained(Planted()), clips, torch.ones(3, dtype=torch.long), methods=[method]
    )
    truth = torch.zeros(32, dtype=torch.bool)
    truth[8:12] = True
    for video in found.frames(method).flatten(1):
        assert average_precision_score(truth, video) == 1.0


def test_the_joint_that_carries_the_class_is_found() -> None:
    clips, target = planted_clips(), torch.ones(3, dtype=torch.long)
    by_loss = occlusion_by_joint(Planted(), clips, target)
    assert (by_loss[:, 0].argmax(dim=-1) == 0).all()
    assert by_loss[:, 0, 1:].abs().max() == 0.0


def test_integrated_gradients_add_up_to_what_the_video_is_above_rest() -> None:
    clips, target, model = planted_clips(), torch.tensor([0, 1, 2]), Small()
    whole = integrated_gradients(model, clips, target, steps=64)
    still = clips.mean(dim=(1, 3), keepdim=True).expand_as(clips)
    with torch.no_grad():
        difference = (model(clips) - model(still)).gather(1, target[:, None])[:, 0]
    assert torch.allclose(whole.flatten(1).sum(dim=1), difference, atol=1e-3)


@pytest.mark.parametrize("how", ["interpolated", "frozen", "other"])
def test_occlusion_is_what_the_logit_loses(how: str) -> None:
    clips, target, model = planted_clips(2), torch.tensor([1, 2]), Small()
    instead = Replacement(how, planted_clips(4)[2:] if how == "other" else None)
    found = occlusion_by_frame(model, clips, target, replacement=instead, window=8, stride=8)
    keep = torch.ones(2, 1, 32, dtype=torch.bool)
    keep[:, :, 16:24] = False
    with torch.no_grad():
        lost = (model(clips) - model(replaced(clips, keep, instead))).gather(1, target[:, None])
    assert torch.allclose(found[:, 0, 16:24], lost.expand(2, 8), atol=1e-6)


def test_videos_do_not_see_each_other_and_absent_persons_count_nothing() -> None:
    clips = torch.randn(3, 2, 2, 16, 4, 3, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 2])
    present = torch.ones(3, 2, 2, dtype=torch.bool)
    present[1, :, 1] = False
    explained = Explained(Small())
    together = attribute(explained, clips, target, methods=METHODS, present=present, heads=True)
    alone = attribute(
        explained, clips[1:2], target[1:2], methods=METHODS, present=present[1:2], heads=True
    )
    for method in METHODS:
        assert together.persons[method].shape == (3, 2, 1 if method == "occlusion" else 2, 16)
        assert torch.allclose(together.persons[method][1], alone.persons[method][0], atol=1e-5), (
            method
        )
        if method != "occlusion":
            assert together.persons[method][1, :, 1].abs().max() == 0.0
    assert together.heads is not None
    assert together.heads.shape == (3, 2, 2, 2, 2, 16)
    assert torch.allclose(together.heads[0].sum(dim=-1), torch.ones(2, 2, 2, 2), atol=1e-5)
    assert together.heads[1, :, :, :, 1].abs().max() == 0.0


@pytest.mark.parametrize("method", OF_ATTENTION)
def test_the_order_of_heads_does_not_count(method: str) -> None:
    clips, target = planted_clips(), torch.tensor([0, 1, 2])
    model, turned = Small(), Small()
    with torch.no_grad():
        for qkv, out in zip(turned.qkv, turned.out, strict=True):
            order = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
            qkv.weight.copy_(qkv.weight.unflatten(0, (3, 8))[:, order].flatten(0, 1))
            qkv.bias.copy_(qkv.bias.unflatten(0, (3, 8))[:, order].flatten())
            out.weight.copy_(out.weight[:, order])

    def frames(one: Small) -> torch.Tensor:
        weights = tuple(out.weight.detach() for out in one.out)
        explained = Explained(one, projections=weights)
        return attribute(explained, clips, target, methods=[method]).frames(method)

    assert torch.allclose(frames(model), frames(turned), atol=1e-6)


def test_streams_side_by_side_are_averaged() -> None:
    clips, target = planted_clips(), torch.tensor([0, 1, 2])
    apart = attribute(Explained(Small(), chains=(1, 1)), clips, target, methods=["rollout"])
    watched = attribute(Explained(Small()), clips, target, methods=["received"])
    # One layer's rollout is half what is received and half the frame itself.
    assert torch.allclose(
        apart.frames("rollout"), 0.5 * watched.frames("received") + 0.5 / 32, atol=1e-6
    )


def test_what_does_not_fit_is_said() -> None:
    clips, target = planted_clips(), torch.tensor([0, 1, 1])
    with pytest.raises(UserError, match="did you mean rollout"):
        attribute(Explained(Small()), clips, target, methods=["rolout"])
    with pytest.raises(UserError, match=r"2 calls of attention, .* 3 layers"):
        attribute(Explained(Small(), chains=(3,)), clips, target, methods=["rollout"])
