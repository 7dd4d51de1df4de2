"""What takes the place of frames: against NumPy's interpolation, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tssan_viz.errors import UserError
from tssan_viz.evidence.perturbing import Replacement, other_videos, replaced, rested_joints


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.booleans(), min_size=12, max_size=12).filter(any),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_gaps_are_bridged_as_numpy_does(keep: list[bool], seed: int, frozen: bool) -> None:
    clips = torch.randn(1, 2, 1, 6, 2, 3, generator=torch.Generator().manual_seed(seed))
    shown = torch.tensor(keep).view(1, 2, 6)
    found = replaced(clips, shown, Replacement("frozen" if frozen else "interpolated"))
    flat, whole = found.numpy().reshape(12, 6), clips.numpy().reshape(12, 6)
    there = np.flatnonzero(keep)
    for column in range(6):
        if frozen:
            last = np.searchsorted(there, np.arange(12), side="right") - 1
            expected = whole[there[np.maximum(last, 0)], column]
        else:
            expected = np.interp(np.arange(12), there, whole[there, column])
        np.testing.assert_allclose(flat[:, column], expected, atol=1e-5)
    assert torch.equal(found[shown[:, :, None].expand(1, 2, 1, 6)], clips[:, :, 0][shown])


def test_where_nothing_is_left_everybody_rests() -> None:
    clips = torch.randn(2, 2, 2, 5, 3, 3)
    found = replaced(clips, torch.zeros(2, 2, 5, dtype=torch.bool), Replacement())
    assert torch.allclose(found, clips.mean(dim=(1, 3), keepdim=True).expand_as(clips), atol=1e-6)


def test_joints_rest_where_they_are_on_average() -> None:
    clips = torch.randn(1, 2, 2, 5, 3, 3)
    moving = torch.ones(1, 2, 3, dtype=torch.bool)
    moving[0, 1, 2] = False
    found = rested_joints(clips, moving)
    assert torch.equal(found[:, :, 0], clips[:, :, 0])
    assert torch.equal(found[:, :, 1, :, :2], clips[:, :, 1, :, :2])
    assert found[0, :, 1, :, 2].std(dim=(0, 1)).max() < 1e-6


def test_another_video_is_of_another_class_and_has_as_many_persons_if_it_can() -> None:
    labels, persons = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 1, 1, 2, 2])
    for seed in range(20):
        chosen = other_videos(range(6), range(6), labels, persons, seed=seed)
        assert (labels[chosen] != labels).all()
        assert (persons[chosen] == persons).all()
    assert other_videos([1], [2, 3], labels, persons)[0] in (2, 3)
    with pytest.raises(UserError, match="all videos are of one"):
        other_videos([0], [0, 1], labels, persons)


def test_ways_are_named_and_other_frames_given_where_they_are_put() -> None:
    with pytest.raises(UserError, match="interpolated, frozen, other"):
        Replacement("blurred")
    with pytest.raises(UserError, match="needed where they are put"):
        Replacement("other")
