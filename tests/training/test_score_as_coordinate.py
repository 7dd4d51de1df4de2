"""The score as a coordinate, and skeletons that do not name every joint that could be asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tssan.clips import Batch, make_clips, normalise, pad
from tssan.errors import DataError
from tssan.recipe import ClipsRecipe, load_recipe
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import OPENPOSE_18, Topology

FLAT = ClipsRecipe(frames=8, segments=2, centre="none", align="none", score_as_coordinate=True)


def somebody(t: int = 20, m: int = 1, scored: bool = True, seed: int = 0) -> SkeletonSequence:
    rng = np.random.default_rng(seed)
    return SkeletonSequence(
        joints=rng.uniform(-0.5, 0.5, (m, t, 18, 2)).astype(np.float32),
        present=np.ones((m, t), bool),
        topology=OPENPOSE_18,
        units="image",
        fps=30.0,
        sample=f"s{seed}",
        score=rng.uniform(0, 1, (m, t, 18)).astype(np.float32) if scored else None,
    )


def test_the_score_comes_third_and_moves_like_the_others():
    steady = replace(somebody(), score=np.full((1, 20, 18), 0.25, np.float32))
    clips = make_clips(pad([steady], 2), FLAT, train=False)
    assert clips.position.shape == (1, 2, 2, 8, 18, 3)
    assert clips.position[0, :, 0, ..., 2].unique().tolist() == [0.25]
    assert not clips.position[0, :, 1].any()
    assert not clips.motion[..., 2].any()
    plain = make_clips(pad([steady], 2), replace(FLAT, score_as_coordinate=False), train=False)
    torch.testing.assert_close(clips.position[..., :2], plain.position)
    torch.testing.assert_close(clips.motion[..., :2], plain.motion)


def test_moving_turning_and_measuring_leave_the_score_alone():
    batch = pad([somebody(), somebody(t=13, seed=1)], 1)
    recipe = replace(FLAT, centre="per_frame", rescale=0.1, scale="torso", train_crop=(1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    clips = make_clips(batch, recipe, train=True, generator=generator)
    score = clips.position[..., 2]
    assert (score[:, :, 0] > 0).all()
    assert (score <= 1).all()
    moved = normalise(batch, centre="per_frame", align="none", scale="torso")
    assert torch.equal(moved.score, batch.score)


def test_who_tells_no_score_is_certain():
    mixed = pad([somebody(), somebody(scored=False, seed=1)], 1)
    clips = make_clips(mixed, FLAT, train=False)
    assert clips.position[1, ..., 2].unique().tolist() == [1]
    none = make_clips(pad([somebody(scored=False)], 1), FLAT, train=False)
    assert none.position[..., 2].unique().tolist() == [1]


def test_the_recipe_of_kinetics_asks_for_it():
    clips = load_recipe("t2_ts-san-v2-kinetics").clips
    assert clips.score_as_coordinate
    batch = pad([somebody(t=300, m=2)], clips.persons)
    made = make_clips(batch, clips, train=True, generator=torch.Generator().manual_seed(0))
    assert made.position.shape == (1, 3, 2, 64, 18, 3)


@pytest.mark.parametrize(
    ("setting", "missing"),
    [
        ({"align": "yaw"}, "align: yaw needs the shoulders"),
        ({"align": "spine_shoulder"}, "align: spine_shoulder needs the shoulders"),
        ({"scale": "torso"}, "scale: torso needs the hips"),
    ],
)
def test_what_a_skeleton_does_not_name_is_said(setting, missing):
    doll = Topology("doll", ("a", "b", "c"), (-1, 0, 0), ("centre",) * 3, centre=0)
    batch = Batch(torch.rand(2, 1, 5, 3, 3), torch.ones(2, 1, 5, dtype=torch.bool), doll)
    options = {"centre": "first_frame", "align": "none", "scale": "none"}
    assert normalise(batch, **options).joints.isfinite().all()
    key = next(iter(setting))
    with pytest.raises(DataError, match=f"{missing} .*doll does not name.*set clips.{key} to none"):
        normalise(batch, **(options | setting))
