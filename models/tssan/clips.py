"""From skeleton sequences to the clips that the network takes, a whole batch at once.

    pad → normalise → (mirror, turn, … in training) → crop → resize along time → motion → segments

Pure functions on tensors of any device; nothing here loops over samples. What is random is drawn
from a generator that the caller gives, on the CPU, so that every device sees the same clips.

Axis letters: n batch, k segment, m person, t frame, v joint, c coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tssan.errors import DataError

if TYPE_CHECKING:
    from tssan.recipe import ClipsRecipe
    from tssan.skeletons.sequence import SkeletonSequence
    from tssan.skeletons.topology import Topology

UPRIGHT = 1  # Kinect's y axis points up; x is lateral, z is depth


class Batch(NamedTuple):
    """Sequences of unlike length side by side; absent persons and padding are zeros.

    Attributes
    ----------
    joints
        float32 (n, m, t, v, c).
    present
        bool (n, m, t): who is seen in which frame; False in the padding.
    topology
        Which joints these are.
    score
        float32 (n, m, t, v): how sure the pose estimator was, 0 in the padding; None where no
        sequence tells.
    """

    joints: Tensor
    present: Tensor
    topology: Topology
    score: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        score = None if self.score is None else self.score.to(device)
        return Batch(self.joints.to(device), self.present.to(device), self.topology, score)


class Clips(NamedTuple):
    """What the network takes, and where it came from.

    Attributes
    ----------
    position
        float32 (n, k, m, t, v, c).
    motion
        float32 (n, k, m, t, v, c): the change of position since the frame before.
    present
        bool (n, k, m): whether the person is seen in any frame of the segment.
    frames
        float32 (n, k, t): the source frame that each frame shows; between two frames a fraction.
    """

    position: Tensor
    motion: Tensor
    present: Tensor
    frames: Tensor


def pad(sequences: Sequence[SkeletonSequence], persons: int) -> Batch:
    """Lay sequences side by side.

    Parameters
    ----------
    sequences
        At least one, all of the same topology and number of coordinates.
    persons
        How many persons every sequence gets: the first ones, and zeros where there are fewer.

    Returns
    -------
    Batch
        As long as the longest sequence.
    """
    first = sequences[0]
    t = max(sequence.joints.shape[1] for sequence in sequences)
    joints = torch.zeros(len(sequences), persons, t, *first.joints.shape[2:])
    present = torch.zeros(len(sequences), persons, t, dtype=torch.bool)
    scored = any(sequence.score is not None for sequence in sequences)
    score = torch.zeros(joints.shape[:-1]) if scored else None
    for n, sequence in enumerate(sequences):
        m, length = sequence.joints[:persons].shape[:2]
        joints[n, :m, :length] = torch.as_tensor(sequence.joints[:persons])
        present[n, :m, :length] = torch.as_tensor(sequence.present[:persons])
        if score is not None:
            given = 1.0 if sequence.score is None else torch.as_tensor(sequence.score[:persons])
            score[n, :m, :length] = given
    return Batch(joints, present, first.topology, score)


def first_present(present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the person and the frame that a sequence is described by.

    Parameters
    ----------
    present
        bool (n, m, t).

    Returns
    -------
    person, frame
        int64 (n,) each: the first person who is ever seen, and the first frame that shows them;
        zeros where nobody ever is.
    """
    person = present.any(dim=2).int().argmax(dim=1)  # (n,)
    frame = _of_person(present, person).int().argmax(dim=1)  # (n,)
    return person, frame


def normalise(batch: Batch, *, centre: str, align: str, scale: str) -> Batch:
    """Move, turn and measure skeletons in a frame of their own.

    Parameters
    ----------
    batch
        Sequences in the data's own frame.
    centre
        ``first_frame``: the origin is the centre joint of the first person in the first frame that
        shows them; ``per_frame``: in each frame, or the last one that shows them; ``path``: as
        ``first_frame`` for the centre joints, while the other joints of each person are measured
        from that person's centre joint in the same frame; ``none``.
    align
        ``yaw``: turn all persons about the vertical so that, in that first frame, the first
        person's shoulders lie along x; ``spine_shoulder``: turn the spine upright too, which takes
        out the pitch of the camera; ``none``.
    scale
        ``torso``: divide by the first person's mean distance between the middle of the hips and the
        middle of the shoulders; ``none``.

    Returns
    -------
    Batch
        Of the same shape; what is absent stays zero.

    Raises
    ------
    DataError
        Skeletons in the image plane cannot be turned in space.
    """
    joints, present, topology, _ = batch
    person, frame = first_present(present)
    reference = _of_person(joints, person)  # (n, t, v, c)
    pose = _of_frame(reference, frame)  # (n, v, c)

    if centre in ("first_frame", "path"):
        joints = joints - pose[:, None, None, topology.centre, None]
    elif centre == "per_frame":
        seen = _last_seen(_of_person(present, person), frame)  # (n, t)
        origin = reference[:, :, topology.centre].gather(
            1, seen[..., None].expand(-1, -1, reference.shape[-1])
        )  # (n, t, c)
        joints = joints - origin[:, None, :, None]
    if centre == "path":
        from_centre = joints - joints[..., topology.centre, None, :]
        is_centre = torch.arange(joints.shape[3], device=joints.device) == topology.centre  # (v,)
        joints = torch.where(is_centre[:, None], joints, from_centre)

    if align != "none":
        _needs_space(joints, f"align: {align}", "align: none")
        rotation = _upright_frame(pose, topology, spine=align == "spine_shoulder")  # (n, c, c)
        joints = torch.einsum("nmtvc,ndc->nmtvd", joints, rotation)

    if scale == "torso":
        hips = reference[:, :, _pair(topology, "hips", "scale: torso")].mean(dim=2)  # (n, t, c)
        shoulders = reference[:, :, _pair(topology, "shoulders", "scale: torso")].mean(dim=2)
        # Absent frames have length 0, so the sum over all frames is the sum over those present.
        total = (shoulders - hips).norm(dim=-1).sum(dim=1)  # (n,)
        torso = total / _of_person(present, person).sum(dim=1).clamp(min=1)
        torso = torch.where(torso > 1e-6, torso, 1.0)
        joints = joints / torso[:, None, None, None, None]

    return batch._replace(joints=_only(joints, present))


def with_score(batch: Batch) -> Batch:
    """Append the score to the coordinates, as ST-GCN's (x, y, score); it is 1 where none tells.

    The joints become (n, m, t, v, c + 1).
    """
    joints, present, _, score = batch
    if score is None:
        score = torch.ones_like(joints[..., 0])
    joints = torch.cat([joints, score[..., None]], dim=-1)
    return batch._replace(joints=_only(joints, present))


def mirror(batch: Batch, *, share: float, generator: torch.Generator) -> Batch:
    """Change left and right about in some of the sequences, as a mirror across x does.

    Parameters
    ----------
    batch
        Normalised sequences: the origin lies in the mirror.
    share
        Probability of each sequence to be mirrored.
    generator
        On the CPU.

    Returns
    -------
    Batch
        Of the same shape. Mirrored twice, a sequence is what it was.

    Raises
    ------
    DataError
        A joint on one side has none on the other that is named after it.
    """
    joints = batch.joints
    chosen = (torch.rand(joints.shape[0], generator=generator) < share).to(joints.device)  # (n,)
    chosen = chosen[:, None, None, None]
    counterparts = _other_side(batch.topology)
    other = joints[..., counterparts, :]
    other = torch.cat([-other[..., :1], other[..., 1:]], dim=-1)
    score = batch.score
    if score is not None:
        score = torch.where(chosen, score[..., counterparts], score)
    return batch._replace(joints=torch.where(chosen[..., None], other, joints), score=score)


def turn_and_rescale(
    batch: Batch,
    *,
    rotate: float,
    rescale: float,
    generator: torch.Generator,
    turn: float = 0.0,
    shear: float = 0.0,
) -> Batch:
    """Turn every sequence a little, and make it a little larger or smaller, or of another build.

    Parameters
    ----------
    batch
        Normalised sequences.
    rotate
        Greatest angle about x and about y in radians, either way.
    rescale
        Greatest relative change of size, either way.
    generator
        On the CPU.
    turn
        Greatest further angle about y in radians, either way.
    shear
        Greatest absolute entry of the matrix that is added to the identity.

    Returns
    -------
    Batch
        Of the same shape.

    Raises
    ------
    DataError
        Skeletons in the image plane cannot be turned in space.
    """
    joints = batch.joints
    n, c = joints.shape[0], joints.shape[-1]
    draw = (2 * torch.rand(n, 3, generator=generator) - 1).to(joints.device)  # (n, 3) in [-1, 1)
    if rotate or turn:
        _needs_space(joints, f"rotate: {rotate}, turn: {turn}", "rotate: 0 and turn: 0")
        yaw = rotate * draw[:, 1]
        if turn:
            yaw = yaw + turn * (2 * torch.rand(n, generator=generator) - 1).to(joints.device)
        rotation = _about_x(rotate * draw[:, 0]) @ _about_y(yaw)  # (n, c, c)
        joints = torch.einsum("nmtvc,ndc->nmtvd", joints, rotation)
    if shear:
        entries = (2 * torch.rand(n, c, c, generator=generator) - 1).to(joints.device)
        change = torch.eye(c, device=joints.device) + shear * entries  # (n, c, c)
        joints = torch.einsum("nmtvc,ndc->nmtvd", joints, change)
    return batch._replace(joints=joints * (1 + rescale * draw[:, 2])[:, None, None, None, None])


def displace(batch: Batch, *, noise: float, generator: torch.Generator) -> Batch:
    """Move every joint of every sequence by a normal draw of its own, the same in all frames.

    Parameters
    ----------
    batch
        Normalised sequences.
    noise
        Standard deviation of the draw in each coordinate.
    generator
        On the CPU.

    Returns
    -------
    Batch
        Of the same shape; what is absent stays zero. The motion is what it was.
    """
    joints = batch.joints
    n, m, _, v, c = joints.shape
    draw = torch.randn(n, m, 1, v, c, generator=generator).to(joints.device)
    return batch._replace(joints=_only(joints + noise * draw, batch.present))


def lose_joints(batch: Batch, *, share: float, generator: torch.Generator) -> Batch:
    """Put some joints of every sequence to the origin, in all frames, as if they were never seen.

    Parameters
    ----------
    batch
        Normalised sequences.
    share
        Probability of each joint of each person to be lost.
    generator
        On the CPU.

    Returns
    -------
    Batch
        Of the same shape.
    """
    n, m, _, v, _ = batch.joints.shape
    lost = (torch.rand(n, m, 1, v, 1, generator=generator) < share).to(batch.joints.device)
    return batch._replace(joints=batch.joints.masked_fill(lost, 0))


def crop(
    present: Tensor,
    *,
    share: float | tuple[float, float],
    place: float = 0.5,
    min_frames: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose which part of every sequence is seen.

    Parameters
    ----------
    present
        bool (n, m, t). Only the range from the first to the last frame with anyone in it counts.
    share
        One number: so much of the range, lying at `place`. Two: a random share between them, at a
        random place.
    place
        From 0, the beginning, to 1, the end.
    min_frames
        A random crop has at least so many frames, or all there are.
    generator
        On the CPU; needed for a random crop.

    Returns
    -------
    start, size
        int64 (n,) each: the first source frame, and how many.
    """
    n, _, t = present.shape
    anyone = present.any(dim=1)  # (n, t)
    begin = anyone.int().argmax(dim=1)  # (n,)
    length = (t - anyone.flip(1).int().argmax(dim=1) - begin).clamp(min=1)  # (n,)
    if isinstance(share, float | int):
        margin = ((1 - share) / 2 * length + 1e-4).long()  # 10 % of 20 frames is 1 and 1, not 0
        return begin + (2 * place * margin).long(), length - 2 * margin
    low, high = share
    draw = torch.rand(n, 2, generator=generator).to(present.device)
    size = ((low + (high - low) * draw[:, 0]) * length).round().long()
    size = size.maximum(length.clamp(max=max(min_frames, 1)))
    return begin + (draw[:, 1] * (length - size + 1)).long(), size


def even_places(size: Tensor, frames: int) -> Tensor:
    """Return where the frames of a resized part lie in the part, float32 (n, frames).

    Frame i shows the place (i + ½) · size / frames − ½, held at the ends of the part:
    `torch.nn.functional.interpolate` with ``align_corners=False``, for parts of unlike sizes (n,).
    """
    grid = torch.arange(frames, device=size.device) + 0.5  # (frames,)
    place = grid * (size[:, None] / frames) - 0.5  # (n, frames)
    return place.clamp(min=0).minimum((size - 1)[:, None].to(place.dtype))


def warp(place: Tensor, size: Tensor, *, strength: float, generator: torch.Generator) -> Tensor:
    """Make time uneven: draw places towards as many random ones, both in order.

    Parameters
    ----------
    place
        (n, frames), rising, as `even_places` returns them.
    size
        int64 (n,): how many source frames there are.
    strength
        How far at most, from 0 to 1; each sequence goes a random share of it.
    generator
        On the CPU.

    Returns
    -------
    Tensor
        (n, frames), rising, within the same part.
    """
    n, frames = place.shape
    anywhere = torch.rand(n, frames, generator=generator).sort(dim=1).values.to(place.device)
    share = strength * torch.rand(n, 1, generator=generator).to(place.device)
    return torch.lerp(place, anywhere * (size - 1)[:, None], share)


def resize_time(
    batch: Batch, start: Tensor, size: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize the chosen part of every sequence to one length, bilinearly along time.

    Next to a frame in which a person is absent, the present neighbour counts alone;
    nobody is drawn half way to the origin.

    Parameters
    ----------
    batch
        Sequences.
    start, size
        int64 (n,) each, as `crop` returns them.
    place
        (n, frames): where in the part each frame of the result lies, as `even_places` returns it.

    Returns
    -------
    joints
        (n, m, frames, v, c).
    present
        bool (n, m, frames).
    source
        float32 (n, frames): the source frames shown.
    """
    joints, present = batch.joints, batch.present
    n, m, _, v, c = joints.shape
    frames = place.shape[1]
    before = place.floor().long()  # (n, frames)
    after = (before + 1).minimum((size - 1)[:, None])
    late = place - before  # (n, frames): the weight of the later frame

    total = joints.new_zeros(n, m, frames)
    mixed = joints.new_zeros(n, m, frames, v, c)
    for index, weight in ((before, 1 - late), (after, late)):
        index = (index + start[:, None])[:, None].expand(n, m, frames)  # (n, m, frames)
        weight = weight[:, None] * present.gather(2, index)  # (n, m, frames)
        there = joints.gather(2, index[..., None, None].expand(n, m, frames, v, c))
        mixed += weight[..., None, None] * there
        total += weight
    mixed = mixed / torch.where(total > 0, total, 1.0)[..., None, None]
    return mixed, total > 0, place + start[:, None]


def motion(joints: Tensor, present: Tensor) -> Tensor:
    """Return the change since the frame before; zero in the first frame and after an absence.

    Parameters
    ----------
    joints
        (n, m, t, v, c).
    present
        bool (n, m, t).

    Returns
    -------
    Tensor
        (n, m, t, v, c): M[t] = P[t] − P[t−1] with M[0] = 0. (The paper's M[t] = P[t+1] − P[t] has
        one frame fewer than the positions; the zero goes in front, as in the lineage's code.)
    """
    change = joints[:, :, 1:] - joints[:, :, :-1]
    change = _only(change, present[:, :, 1:] & present[:, :, :-1])
    return F.pad(change, (0, 0, 0, 0, 1, 0))


def segments(x: Tensor, count: int, *, dim: int) -> Tensor:
    """Cut the time axis `dim` into consecutive segments, whose axis k comes second.

    (n, m, k·t, …) becomes (n, k, m, t, …) for ``dim=2``; (n, k·t) becomes (n, k, t) for ``dim=1``.
    """
    return x.unflatten(dim, (count, -1)).movedim(dim, 1)


def make_clips(
    batch: Batch,
    recipe: ClipsRecipe,
    *,
    train: bool,
    generator: torch.Generator | None = None,
    test_crop: tuple[float, float] | None = None,
) -> Clips:
    """Cut a batch of sequences into clips.

    The whole crop is resized to k · t frames, its motion is taken there, and only then it is cut
    into k segments: segments differ from a longer clip in nothing but the cut.

    Parameters
    ----------
    batch
        As `pad` returns it, on the device where the clips are wanted.
    recipe
        How to.
    train
        True: random crop, turn, size and so on. False: the middle of the sequence, always the same.
    generator
        On the CPU; needed for training.
    test_crop
        Share and place of the part that is seen in a test; None: the recipe's, in the middle.

    Returns
    -------
    Clips
        Axes n, k = `recipe.segments`, m, t = `recipe.frames`, v, c.

    Raises
    ------
    DataError
        The recipe turns skeletons in space, and these lie in the image plane.
    """
    batch = normalise(batch, centre=recipe.centre, align=recipe.align, scale=recipe.scale)
    frames = recipe.segments * recipe.frames
    if train:
        if generator is None:
            raise TypeError("clips for training are random: give a generator")
        batch = _augment(batch, recipe, generator)
        start, size = crop(
            batch.present,
            share=recipe.train_crop,
            min_frames=recipe.min_crop_frames,
            generator=generator,
        )
        place = even_places(size, frames)
        if recipe.warp:
            place = warp(place, size, strength=recipe.warp, generator=generator)
    else:
        share, middle = test_crop or (recipe.test_crop, 0.5)
        start, size = crop(batch.present, share=share, place=middle)
        place = even_places(size, frames)
    if recipe.score_as_coordinate:
        batch = with_score(batch)
    k = recipe.segments
    joints, present, source = resize_time(batch, start, size, place)
    change = recipe.motion_scale * motion(joints, present)
    return Clips(
        position=segments(joints, k, dim=2),
        motion=segments(change, k, dim=2),
        present=segments(present, k, dim=2).any(dim=-1),
        frames=segments(source, k, dim=1),
    )


def mix(clips: Clips, mate: Tensor, share: float) -> Clips:
    """Mix every clip of a batch with another one.

    Parameters
    ----------
    clips
        A batch of n.
    mate
        int64 (n,): which clip each is mixed with.
    share
        How much of each clip itself is in the mixture; the rest is its mate's.

    Returns
    -------
    Clips
        Of the same shape. A person is present where either clip has them; `frames` are the clip's
        own.
    """
    return Clips(
        position=torch.lerp(clips.position[mate], clips.position, share),
        motion=torch.lerp(clips.motion[mate], clips.motion, share),
        present=clips.present | clips.present[mate],
        frames=clips.frames,
    )


def _augment(batch: Batch, recipe: ClipsRecipe, generator: torch.Generator) -> Batch:
    """Return the sequences as other people, seen by another sensor, might have moved."""
    if recipe.mirror:
        batch = mirror(batch, share=recipe.mirror, generator=generator)
    if recipe.noise:
        batch = displace(batch, noise=recipe.noise, generator=generator)
    if recipe.rotate or recipe.turn or recipe.rescale or recipe.shear:
        batch = turn_and_rescale(
            batch,
            rotate=recipe.rotate,
            turn=recipe.turn,
            rescale=recipe.rescale,
            shear=recipe.shear,
            generator=generator,
        )
    if recipe.lose_joints:
        batch = lose_joints(batch, share=recipe.lose_joints, generator=generator)
    return batch


def _other_side(topology: Topology) -> list[int]:
    """Return for each joint the index of its counterpart; of the trunk's joints, their own."""
    counterparts = []
    for joint, side in zip(topology.joints, topology.sides, strict=True):
        other = {"left": "right", "right": "left"}.get(side)
        name = joint if other is None else joint.replace(side, other)
        if name not in topology.joints or (other is not None and name == joint):
            raise DataError(
                f"mirror: no joint of {topology.name} is the counterpart of {joint!r} on the "
                f"{other}, expected {name!r}; name the two alike, or write mirror: 0 in the recipe"
            )
        counterparts.append(topology.joints.index(name))
    return counterparts


def _only(x: Tensor, present: Tensor) -> Tensor:
    """Return x (…, v, c) with zeros where `present` (…) is False."""
    return x * present[..., None, None]


def _of_person(x: Tensor, person: Tensor) -> Tensor:
    """Return (n, t, …) of x (n, m, t, …), one person of each sequence."""
    return x[torch.arange(x.shape[0], device=x.device), person]


def _of_frame(x: Tensor, frame: Tensor) -> Tensor:
    """Return (n, …) of x (n, t, …), one frame of each sequence."""
    return x[torch.arange(x.shape[0], device=x.device), frame]


def _last_seen(present: Tensor, first: Tensor) -> Tensor:
    """Return for each frame (n, t) the latest one up to it with True; before the `first`, that."""
    time = torch.arange(present.shape[1], device=present.device).expand_as(present)
    return torch.where(present, time, -1).cummax(dim=1).values.maximum(first[:, None])


def _pair(topology: Topology, which: str, setting: str) -> list[int]:
    """Return the left and right joint of the hips or shoulders."""
    joints: tuple[int, int] | None = getattr(topology, which)
    if joints is None:
        raise DataError(_unnamed(topology, which, setting))
    return list(joints)


def _unnamed(topology: Topology, which: str, setting: str) -> str:
    key = setting.partition(":")[0]
    return (
        f"{setting} needs the {which} of the skeleton, which the topology {topology.name} does not "
        f"name; name them where it is described, or set clips.{key} to none"
    )


def _upright_frame(pose: Tensor, topology: Topology, *, spine: bool) -> Tensor:
    """Return the rotations (n, c, c) that bring poses (n, v, c) upright, left shoulder to +x."""
    left, right = _pair(topology, "shoulders", f"align: {'spine_shoulder' if spine else 'yaw'}")
    up = pose.new_zeros(pose.shape[0], 3)  # (n, c)
    up[:, UPRIGHT] = 1
    if spine:
        if topology.spine is None:
            raise DataError(_unnamed(topology, "spine", "align: spine_shoulder"))
        up = _unit(pose[:, topology.spine] - pose[:, topology.centre], up)
    across = pose[:, left] - pose[:, right]  # (n, c)
    across = across - (across * up).sum(dim=-1, keepdim=True) * up
    # A pose seen from the side, or none at all, tells no direction: any across `up` will do.
    spare = torch.zeros_like(up)
    spare[:, 0] = 1
    spare = _unit(spare - (spare * up).sum(dim=-1, keepdim=True) * up, up.roll(1, dims=-1))
    across = _unit(across, spare)
    return torch.stack([across, up, torch.linalg.cross(across, up)], dim=1)  # rows: new x, y, z


def _unit(x: Tensor, otherwise: Tensor) -> Tensor:
    """Return x (n, c) at length 1, or `otherwise` where it has no length to speak of."""
    length = x.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, x / length.clamp(min=1e-6), otherwise)


def _about_x(angle: Tensor) -> Tensor:
    """Return rotations (n, 3, 3) about x by angles (n,) in radians."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)


def _about_y(angle: Tensor) -> Tensor:
    """Return rotations (n, 3, 3) about y by angles (n,) in radians."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=1).view(-1, 3, 3)


def _needs_space(joints: Tensor, what: str, instead: str) -> None:
    if joints.shape[-1] != 3:
        raise DataError(
            f"{what} turns skeletons in space, but these have {joints.shape[-1]} coordinates; "
            f"write {instead} in the recipe"
        )
