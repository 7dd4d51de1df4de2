"""Clips against `F.interpolate`, against rotations made by hand, and sequence by sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from tssan.clips import (
    Batch,
    crop,
    displace,
    even_places,
    first_present,
    lose_joints,
    make_clips,
    mirror,
    motion,
    normalise,
    pad,
    resize_time,
    segments,
    turn_and_rescale,
    warp,
)
from tssan.errors import DataError
from tssan.recipe import ClipsRecipe
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25, NW_UCLA_20, OPENPOSE_18, UTD_MHAD_20, Topology

TOPOLOGY = KINECT_V2_25
PLAIN = ClipsRecipe(frames=8, segments=3, persons=2, centre="none", align="none", min_crop_frames=0)


def sequence(frames: int, persons: int = 1, seed: int = 0, present=None) -> SkeletonSequence:
    rng = np.random.default_rng(seed)
    joints = rng.normal(size=(persons, frames, 25, 3)).astype(np.float32)
    here = np.ones((persons, frames), bool) if present is None else np.asarray(present)
    return SkeletonSequence(
        joints=np.where(here[..., None, None], joints, 0).astype(np.float32),
        present=here,
        topology=TOPOLOGY,
        units="m",
        fps=30.0,
        sample=f"s{seed}",
    )


def whole(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return crop(batch.present, share=1.0)


def interpolated(joints: np.ndarray, frames: int) -> torch.Tensor:
    """(m, t, v, c) resized by PyTorch itself: the time axis as width, all else as channels."""
    m, t, v, c = joints.shape
    flat = torch.as_tensor(joints).permute(0, 2, 3, 1).reshape(1, m * v * c, 1, t)
    out = F.interpolate(flat, size=(1, frames), mode="bilinear", align_corners=False)
    return out.reshape(m, v, c, frames).permute(0, 3, 1, 2)


def test_padding_keeps_what_there_is_and_adds_zeros() -> None:
    items = [sequence(5, 1, seed=1), sequence(9, 3, seed=2)]
    batch = pad(items, persons=2)
    assert batch.joints.shape == (2, 2, 9, 25, 3)
    assert torch.equal(batch.joints[0, 0, :5], torch.as_tensor(items[0].joints[0]))
    assert torch.equal(batch.joints[1], torch.as_tensor(items[1].joints[:2]))
    assert not batch.joints[0, 1].any()
    assert not batch.joints[0, :, 5:].any()
    assert batch.present.sum(dim=2).tolist() == [[5, 0], [9, 9]]


@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4), frames=st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_resizing_ragged_sequences_equals_interpolate_one_by_one(
    lengths: list[int], frames: int
) -> None:
    items = [sequence(t, 2, seed=i) for i, t in enumerate(lengths)]
    batch = pad(items, persons=2)
    start, size = whole(batch)
    joints, present, source = resize_time(batch, start, size, even_places(size, frames))
    assert present.all()
    for n, item in enumerate(items):
        torch.testing.assert_close(
            joints[n], interpolated(item.joints, frames), atol=5e-5, rtol=1e-5
        )
        assert source[n].min() >= 0
        assert source[n].max() <= lengths[n] - 1


def test_source_frames_say_which_frames_are_shown() -> None:
    """Joints that are the frame's own number come out as the source frames that are reported."""
    joints = torch.arange(40.0)[None, None, :, None, None].expand(1, 1, 40, 25, 3)
    batch = Batch(joints, torch.ones(1, 1, 40, dtype=torch.bool), TOPOLOGY)
    clips = make_clips(batch, replace(PLAIN, persons=1, test_crop=0.8), train=False)
    assert clips.frames.shape == (1, 3, 8)
    torch.testing.assert_close(clips.position[:, :, 0, :, 0, 0], clips.frames)
    assert clips.frames.min() >= 4
    assert clips.frames.max() <= 35
    assert (clips.frames.flatten().diff() > 0).all()


def test_segments_are_the_resized_whole_cut_in_three() -> None:
    item = sequence(50, 2, seed=4)
    clips = make_clips(pad([item], 2), replace(PLAIN, test_crop=1.0), train=False)
    joined = clips.position[0].permute(1, 0, 2, 3, 4).flatten(1, 2)  # (m, k·t, v, c)
    torch.testing.assert_close(joined, interpolated(item.joints, 24), atol=1e-5, rtol=1e-5)
    change = clips.motion[0].permute(1, 0, 2, 3, 4).flatten(1, 2)
    torch.testing.assert_close(change[:, 1:], joined.diff(dim=1))
    assert not change[:, 0].any()
    assert change[:, 8].any(), "a segment's first frame has the motion from the segment before"


def test_segments_of_a_plain_axis() -> None:
    assert segments(torch.arange(6)[None], 3, dim=1).tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_motion_scale_multiplies_motion_alone() -> None:
    batch = pad([sequence(50)], 1)
    one, ten = (make_clips(batch, replace(PLAIN, motion_scale=s), train=False) for s in (1.0, 10.0))
    torch.testing.assert_close(ten.motion, 10 * one.motion)
    assert torch.equal(ten.position, one.position)


def test_a_batch_gives_each_sequence_what_it_gets_alone() -> None:
    recipe = ClipsRecipe(frames=8, segments=2, align="spine_shoulder", scale="torso")
    items = [sequence(t, m, seed=t) for t, m in ((5, 1), (80, 2), (33, 2))]
    together = make_clips(pad(items, 2), recipe, train=False)
    for n, item in enumerate(items):
        alone = make_clips(pad([item], 2), recipe, train=False)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[n], atol=1e-5, rtol=1e-5)


def test_absent_persons_stay_zero_and_are_reported() -> None:
    recipe = ClipsRecipe(frames=8, segments=2, scale="torso", rotate=0.3, rescale=0.1)
    present = np.ones((2, 60), bool)
    present[1, 25:] = False
    clips = make_clips(
        pad([sequence(60, 2, present=present), sequence(60, 1)], 2),
        replace(recipe, train_crop=(1.0, 1.0)),
        train=True,
        generator=torch.Generator().manual_seed(0),
    )
    assert clips.present.tolist() == [[[True, True], [True, False]], [[True, False]] * 2]
    assert not clips.position[1, :, 1].any()
    assert not clips.motion[1, :, 1].any()
    assert not clips.position[0, 1, 1].any()


def test_nobody_is_drawn_half_way_to_the_origin() -> None:
    """A person who enters stands at once where they stand, without a leap in the motion."""
    joints = torch.full((1, 1, 30, 25, 3), 7.0)
    present = torch.ones(1, 1, 30, dtype=torch.bool)
    joints[:, :, :11], present[:, :, :11] = 0, False
    batch = Batch(
        torch.cat([joints, torch.ones_like(joints)], 1), present.expand(1, 2, 30), TOPOLOGY
    )
    batch = batch._replace(present=torch.stack([present[:, 0], torch.ones(1, 30).bool()], 1))
    clips = make_clips(batch, replace(PLAIN, test_crop=1.0), train=False)
    assert set(clips.position[:, :, 0].unique().tolist()) == {0.0, 7.0}
    assert not clips.motion.any()


def test_motion_after_an_absence_is_zero() -> None:
    joints = torch.tensor([1.0, 2.0, 0.0, 5.0, 7.0])[None, None, :, None, None]
    present = torch.tensor([1, 1, 0, 1, 1]).bool()[None, None]
    assert motion(joints, present).flatten().tolist() == [0, 1, 0, 0, 2]


def test_empty_ends_are_not_part_of_the_sequence() -> None:
    present = np.zeros((1, 50), bool)
    present[:, 10:40] = True
    batch = pad([sequence(50, present=present)], 1)
    start, size = whole(batch)
    assert (start.item(), size.item()) == (10, 30)
    clips = make_clips(batch, replace(PLAIN, test_crop=1.0), train=False)
    assert clips.frames.min() >= 10
    assert clips.frames.max() <= 39


def test_test_crop_is_the_middle() -> None:
    present = torch.ones(1, 1, 100, dtype=torch.bool)
    assert [x.item() for x in crop(present, share=0.9)] == [5, 90]
    assert [x.item() for x in crop(present[..., :20], share=0.9)] == [1, 18]
    assert [x.item() for x in crop(present[..., :1], share=0.9)] == [0, 1]


def test_a_crop_lies_where_it_is_asked_for() -> None:
    present = torch.ones(1, 1, 100, dtype=torch.bool)
    assert [x.item() for x in crop(present, share=0.8, place=0.0)] == [0, 80]
    assert [x.item() for x in crop(present, share=0.8, place=1.0)] == [20, 80]
    clips = make_clips(pad([sequence(40)], 1), PLAIN, train=False, test_crop=(0.5, 1.0))
    assert clips.frames.min() >= 20


def test_random_crops_fill_their_range_and_stay_inside() -> None:
    present = torch.ones(4000, 1, 100, dtype=torch.bool)
    start, size = crop(present, share=(0.5, 1.0), generator=torch.Generator().manual_seed(1))
    assert (size.min().item(), size.max().item()) == (50, 100)
    assert start.min() == 0
    assert (start + size).max() == 100
    assert size.float().mean().item() == pytest.approx(75, abs=1)


def test_random_crops_keep_the_least_number_of_frames() -> None:
    present = torch.ones(500, 1, 100, dtype=torch.bool)
    present[250:, :, 40:] = False
    generator = torch.Generator().manual_seed(1)
    start, size = crop(present, share=(0.5, 1.0), min_frames=64, generator=generator)
    assert size[:250].min() == 64
    assert (size[250:] == 40).all()
    assert (start[250:] == 0).all()


def test_crops_follow_the_generator() -> None:
    present = torch.ones(20, 1, 100, dtype=torch.bool)
    one, again, other = (
        crop(present, share=(0.5, 1.0), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])


def test_training_clips_need_a_generator() -> None:
    with pytest.raises(TypeError, match="generator"):
        make_clips(pad([sequence(9)], 1), PLAIN, train=True)


def test_first_frame_centring_keeps_the_way_and_the_distance() -> None:
    batch = pad([sequence(20, 2)], 2)
    out = normalise(batch, centre="first_frame", align="none", scale="none").joints
    assert not out[0, 0, 0, TOPOLOGY.centre].any()
    origin = batch.joints[0, 0, 0, TOPOLOGY.centre]
    torch.testing.assert_close(out, batch.joints - origin)


def test_per_frame_centring_holds_the_first_person_still() -> None:
    present = np.ones((2, 20), bool)
    present[0, 8:12] = False
    batch = pad([sequence(20, 2, present=present)], 2)
    out = normalise(batch, centre="per_frame", align="none", scale="none").joints
    assert out[0, 0, :, TOPOLOGY.centre].abs().max() == 0
    last = batch.joints[0, 0, 7, TOPOLOGY.centre]
    torch.testing.assert_close(out[0, 1, 10], batch.joints[0, 1, 10] - last)


def test_the_first_person_ever_seen_is_the_reference() -> None:
    present = torch.zeros(3, 2, 6, dtype=torch.bool)
    present[0, 0, 2:] = True
    present[1, 1, 4:] = True
    person, frame = first_present(present)
    assert person.tolist() == [0, 1, 0]
    assert frame.tolist() == [2, 4, 0]


def pose(batch: Batch, n: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Direction of the shoulders and of the spine in the first frame."""
    joints = batch.joints[n, 0, 0]
    left, right = TOPOLOGY.shoulders
    return joints[left] - joints[right], joints[TOPOLOGY.spine] - joints[TOPOLOGY.centre]


def test_yaw_turns_the_shoulders_along_x_and_leaves_heights_alone() -> None:
    batch = pad([sequence(20, 2, seed=i) for i in range(5)], 2)
    out = normalise(batch, centre="none", align="yaw", scale="none")
    for n in range(5):
        across, _ = pose(out, n)
        assert across[0] > 0
        assert across[2].abs() < 1e-5
    torch.testing.assert_close(out.joints[..., 1], batch.joints[..., 1])
    torch.testing.assert_close(
        torch.cdist(out.joints, out.joints),
        torch.cdist(batch.joints, batch.joints),
        atol=1e-3,
        rtol=1e-3,
    )


def test_full_alignment_turns_the_spine_upright_too() -> None:
    batch = pad([sequence(20, 2, seed=i) for i in range(5)], 2)
    out = normalise(batch, centre="none", align="spine_shoulder", scale="none")
    for n in range(5):
        across, up = pose(out, n)
        assert up[1] > 0
        assert up[[0, 2]].abs().max() < 1e-5
        assert across[0] > 0
        assert across[2].abs() < 1e-5


@pytest.mark.parametrize("align", ["yaw", "spine_shoulder"])
def test_alignment_takes_the_camera_out(align: str) -> None:
    """Two cameras, turned about the vertical, end with the same skeleton, not its mirror image."""
    batch = pad([sequence(20, 2, seed=3)], 2)
    angle = 0.8
    turn = torch.tensor(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    ).float()
    other = batch._replace(joints=batch.joints @ turn.T)
    one, two = (
        normalise(b, centre="first_frame", align=align, scale="torso") for b in (batch, other)
    )
    torch.testing.assert_close(one.joints, two.joints, atol=1e-4, rtol=1e-4)
    basis = batch.joints[0, 0, 0, :3]
    after = normalise(batch, centre="none", align=align, scale="none").joints[0, 0, 0, :3]
    assert torch.linalg.det(basis).item() == pytest.approx(torch.linalg.det(after).item(), rel=1e-3)


def test_torso_scale_takes_the_size_out() -> None:
    batch = pad([sequence(20, 2)], 2)
    tall = batch._replace(joints=1.3 * batch.joints)
    one, two = (
        normalise(b, centre="first_frame", align="none", scale="torso") for b in (batch, tall)
    )
    torch.testing.assert_close(one.joints, two.joints, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("align", ["yaw", "spine_shoulder"])
def test_poses_without_direction_stay_finite(align: str) -> None:
    joints = torch.zeros(2, 1, 4, 25, 3)
    joints[1, :, :, TOPOLOGY.shoulders[0], 1] = 1  # shoulders one above the other
    present = torch.ones(2, 1, 4, dtype=torch.bool)
    present[0] = False
    out = normalise(
        Batch(joints, present, TOPOLOGY), centre="first_frame", align=align, scale="torso"
    )
    assert out.joints.isfinite().all()


def test_turning_keeps_lengths_and_rescaling_keeps_its_bounds() -> None:
    batch = pad([sequence(6, 2, seed=i) for i in range(200)], 2)
    turned = turn_and_rescale(
        batch, rotate=0.3, rescale=0.0, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(
        turned.joints.norm(dim=-1), batch.joints.norm(dim=-1), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(turned.joints, batch.joints, atol=1e-2)
    scaled = turn_and_rescale(
        batch, rotate=0.0, rescale=0.1, generator=torch.Generator().manual_seed(0)
    )
    ratio = (scaled.joints / batch.joints)[:, 0, 0, 0, 0]
    assert 0.9 <= ratio.min() < 0.92
    assert 1.08 < ratio.max() <= 1.1


def test_path_centring_parts_the_way_from_the_posture() -> None:
    """Walking shows in the centre joint alone; the way and the posture together are the whole."""
    batch = pad([sequence(20, 2), sequence(12, 1, seed=1)], 2)
    apart = normalise(batch, centre="path", align="yaw", scale="torso").joints
    whole_body = normalise(batch, centre="first_frame", align="yaw", scale="torso").joints
    way = whole_body[..., TOPOLOGY.centre, :]
    torch.testing.assert_close(apart[..., TOPOLOGY.centre, :], way)
    again = apart + way[..., None, :]
    again[..., TOPOLOGY.centre, :] = way
    torch.testing.assert_close(again, whole_body)
    drift = torch.arange(20.0)[:, None, None] * torch.tensor([1.0, 0.0, 2.0])
    walked = batch._replace(joints=batch.joints + F.pad(drift, (0, 0) * 3)[None, None])
    walked = walked._replace(joints=walked.joints * walked.present[..., None, None])
    moved = normalise(walked, centre="path", align="none", scale="none").joints
    still = normalise(batch, centre="path", align="none", scale="none").joints
    limbs = [v for v in range(25) if v != TOPOLOGY.centre]
    torch.testing.assert_close(moved[..., limbs, :], still[..., limbs, :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("topology", [KINECT_V2_25, UTD_MHAD_20, NW_UCLA_20])
def test_a_mirror_changes_sides_and_is_its_own_inverse(topology: Topology) -> None:
    v = len(topology.joints)
    joints = torch.randn(3, 2, 5, v, 3)
    batch = Batch(joints, torch.ones(3, 2, 5, dtype=torch.bool), topology)
    once, twice = batch, batch
    for _ in range(2):
        once, twice = twice, mirror(twice, share=1.0, generator=torch.Generator())
    torch.testing.assert_close(twice.joints, joints)
    for (left, right), name in ((topology.hips, "hips"), (topology.shoulders, "shoulders")):
        expected = joints[..., left, :] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(once.joints[..., right, :], expected, msg=name)
    other = {"left": "right", "right": "left", "centre": "centre"}
    score = torch.rand(3, 2, 5, v)
    told = mirror(batch._replace(score=score), share=1.0, generator=torch.Generator()).score
    assert told is not None
    assert torch.equal(told[..., topology.hips[1]], score[..., topology.hips[0]])
    marked = torch.zeros(1, 1, 1, v, 3)
    for joint, side in enumerate(topology.sides):
        marked[..., 1] = torch.arange(v) == joint
        one = mirror(
            Batch(marked, batch.present[:1, :1, :1], topology),
            share=1.0,
            generator=torch.Generator(),
        ).joints[0, 0, 0, :, 1]
        assert topology.sides[int(one.argmax())] == other[side]


def test_a_mirror_takes_its_share() -> None:
    batch = Batch(
        torch.randn(2000, 1, 2, 25, 3), torch.ones(2000, 1, 2, dtype=torch.bool), TOPOLOGY
    )
    out = mirror(batch, share=0.3, generator=torch.Generator().manual_seed(2))
    changed = (out.joints != batch.joints).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_a_mirror_needs_counterparts() -> None:
    one_armed = replace(
        TOPOLOGY, joints=("hand_x", *TOPOLOGY.joints[1:]), sides=("left", *TOPOLOGY.sides[1:])
    )
    batch = Batch(torch.randn(1, 1, 2, 25, 3), torch.ones(1, 1, 2, dtype=torch.bool), one_armed)
    with pytest.raises(DataError, match="counterpart of 'hand_x' on the right"):
        mirror(batch, share=0.5, generator=torch.Generator())


def test_turns_about_the_vertical_leave_heights_alone() -> None:
    batch = pad([sequence(6, 2, seed=i) for i in range(300)], 2)
    turned = turn_and_rescale(
        batch, rotate=0.0, rescale=0.0, turn=1.5, generator=torch.Generator().manual_seed(0)
    ).joints
    torch.testing.assert_close(turned[..., 1], batch.joints[..., 1])
    before, after = (x[:, 0, 0, 0][:, [0, 2]] for x in (batch.joints, turned))
    angle = torch.arccos(F.cosine_similarity(before, after).clamp(-1, 1))
    assert 1.4 < angle.max() <= 1.5001


def test_shear_keeps_straight_lines_and_its_bounds() -> None:
    batch = pad([sequence(6, 1, seed=i) for i in range(200)], 1)
    joints = turn_and_rescale(
        batch, rotate=0.0, rescale=0.0, shear=0.2, generator=torch.Generator().manual_seed(0)
    ).joints
    before, after = batch.joints[:, 0].flatten(1, 2), joints[:, 0].flatten(1, 2)  # (n, t v, c)
    matrix = torch.linalg.lstsq(before, after).solution
    torch.testing.assert_close(before @ matrix, after, atol=1e-4, rtol=1e-4)
    change = matrix - torch.eye(3)
    assert 0.19 < change.abs().max() <= 0.2001


def test_displacing_moves_joints_and_leaves_motion_alone() -> None:
    present = np.ones((2, 9), bool)
    present[1, 4:] = False
    batch = pad([sequence(9, 2, seed=i, present=present) for i in range(300)], 2)
    out = displace(batch, noise=0.1, generator=torch.Generator().manual_seed(0))
    assert not out.joints[:, 1, 4:].any()
    shift = (out.joints - batch.joints)[:, 0, 0]
    assert shift.std().item() == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(
        motion(out.joints, out.present), motion(batch.joints, batch.present), atol=1e-5, rtol=1e-4
    )


def test_lost_joints_are_lost_in_all_frames_and_in_their_share() -> None:
    batch = pad([sequence(6, 2, seed=i) for i in range(300)], 2)
    out = lose_joints(batch, share=0.2, generator=torch.Generator().manual_seed(0)).joints
    gone = (out == 0).all(dim=-1)  # (n, m, t, v)
    assert torch.equal(gone.any(dim=2), gone.all(dim=2))
    assert gone.float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(out[~gone], batch.joints[~gone])


@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=5),
    frames=st.integers(1, 60),
    strength=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_warped_time_rises_and_stays_inside(
    lengths: list[int], frames: int, strength: float
) -> None:
    size = torch.tensor(lengths)
    even = even_places(size, frames)
    place = warp(even, size, strength=strength, generator=torch.Generator().manual_seed(0))
    assert (place.diff(dim=1) >= -1e-4).all()
    assert (place >= 0).all()
    assert (place <= size[:, None] - 1 + 1e-4).all()
    if strength == 0:
        torch.testing.assert_close(place, even)


def test_augmented_clips_follow_the_generator_and_tests_do_not_change() -> None:
    recipe = replace(
        PLAIN, centre="path", mirror=0.5, turn=1.0, shear=0.1, noise=0.1, lose_joints=0.1, warp=0.5
    )
    batch = pad([sequence(30, 2, seed=i) for i in range(6)], 2)
    one, again, other = (
        make_clips(batch, recipe, train=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.position, again.position)
    assert not torch.equal(one.position, other.position)
    assert (one.frames.flatten(1).diff(dim=1) >= -1e-4).all()
    plain = make_clips(batch, replace(PLAIN, centre="path"), train=False)
    assert torch.equal(make_clips(batch, recipe, train=False).position, plain.position)


@pytest.mark.parametrize("field", ["mirror", "lose_joints", "warp", "shear", "noise", "turn"])
def test_recipes_refuse_what_no_augmentation_is(field: str) -> None:
    with pytest.raises(DataError, match=field):
        replace(PLAIN, **{field: -0.1})
    if field in {"mirror", "lose_joints", "warp", "shear"}:
        with pytest.raises(DataError, match=field):
            replace(PLAIN, **{field: 1.1})


def test_skeletons_in_the_image_are_not_turned_in_space() -> None:
    batch = Batch(torch.rand(1, 1, 5, 18, 2), torch.ones(1, 1, 5, dtype=torch.bool), OPENPOSE_18)
    with pytest.raises(DataError, match=r"align: yaw.*2 coordinates.*align: none"):
        make_clips(batch, replace(PLAIN, align="yaw"), train=False)
    clips = make_clips(batch, replace(PLAIN, centre="first_frame", scale="torso"), train=False)
    assert clips.position.shape == (1, 3, 1, 8, 18, 2)


def test_shapes_and_types() -> None:
    clips = make_clips(pad([sequence(50, 1), sequence(7, 2)], 2), PLAIN, train=False)
    assert clips.position.shape == clips.motion.shape == (2, 3, 2, 8, 25, 3)
    assert clips.present.shape == (2, 3, 2)
    assert clips.present.dtype == torch.bool
    assert clips.frames.shape == (2, 3, 8)
    assert clips.position.dtype == clips.frames.dtype == torch.float32
