"""Frames and joints taken out of clips, and what takes their place.

A clip without some of its frames is no clip: something has to stand there. What it is decides what
is measured, so that it is chosen and stated.

    interpolated   the straight way between the nearest frames that are left: movement is lost, and
                   nothing jumps
    frozen         the last frame that is left, held: movement is lost, and then it jumps
    other          the frames of another video at the same place: another action is seen instead

Segments follow each other in time, so that a gap is bridged across the cut between two of them.
Axis letters: n video, k segment, m person, t frame, v joint, c coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tssan_viz.errors import UserError

WAYS = ("interpolated", "frozen", "other")


@dataclass(frozen=True, eq=False)
class Replacement:
    """What takes the place of frames that are taken out.

    Parameters
    ----------
    how
        One of `WAYS`.
    other
        Clips (n, k, m, t, v, c) of other videos; for ``other`` alone.
    """

    how: str = "interpolated"
    other: Tensor | None = None

    def __post_init__(self) -> None:
        if self.how not in WAYS:
            raise UserError(f"no way {self.how!r} to replace frames; there are: {', '.join(WAYS)}")
        if (self.how == "other") != (self.other is not None):
            raise UserError("frames of another video are needed where they are put, and only there")

    def part(self, videos: Tensor) -> Replacement:
        """Return what belongs to some of the videos, by their places."""
        return Replacement(self.how, None if self.other is None else self.other[videos])


def replaced(clips: Tensor, keep: Tensor, replacement: Replacement) -> Tensor:
    """Return clips in which only some frames are their own.

    Where no frame at all is left, persons rest in their mean pose (``other``: all is the other's).

    Parameters
    ----------
    clips
        (n, k, m, t, v, c).
    keep
        bool (n, k, t).
    replacement
        What stands in the others.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    k, t = clips.shape[1], clips.shape[3]
    if replacement.other is not None:
        return torch.where(keep[:, :, None, :, None, None], clips, replacement.other)
    whole = clips.movedim(2, 1).flatten(2, 3)  # (n, m, k·t, v, c)
    shown = keep.flatten(1)  # (n, k·t)
    length = k * t
    place = torch.arange(length, device=clips.device).expand_as(shown)
    before = torch.where(shown, place, -1).cummax(dim=1).values
    after = torch.where(shown, place, length).flip(1).cummin(dim=1).values.flip(1)
    before, after = (
        torch.where(before >= 0, before, after),
        torch.where(after < length, after, before),
    )
    none = ~shown.any(dim=1)  # (n,)
    before, after = before.clamp(0, length - 1), after.clamp(0, length - 1)

    def at(index: Tensor) -> Tensor:
        return whole.gather(2, index[:, None, :, None, None].expand_as(whole))

    if replacement.how == "frozen":
        mixed = at(before)
    else:
        share = (place - before) / (after - before).clamp(min=1)  # (n, k·t)
        weight = share.to(clips.dtype)[:, None, :, None, None]
        mixed = torch.lerp(at(before), at(after), weight)
    mixed = torch.where(shown[:, None, :, None, None], whole, mixed)
    rest = whole.mean(dim=2, keepdim=True)
    mixed = torch.where(none[:, None, None, None, None], rest, mixed)
    return mixed.unflatten(2, (k, t)).movedim(1, 2)


def rested_joints(clips: Tensor, moving: Tensor) -> Tensor:
    """Return clips in which only some joints move; the others rest in their mean place.

    Parameters
    ----------
    clips
        (n, k, m, t, v, c).
    moving
        bool (n, m, v).
    """
    rest = clips.mean(dim=(1, 3), keepdim=True)  # (n, 1, m, 1, v, c)
    return torch.where(moving[:, None, :, None, :, None], clips, rest)


def other_videos(
    asked: Sequence[int],
    pool: Sequence[int],
    labels: NDArray[np.integer],
    persons: NDArray[np.integer],
    *,
    seed: int = 0,
) -> list[int]:
    """Choose for each video another one of another class, with as many persons where there is one.

    Parameters
    ----------
    asked, pool
        Places of the videos, and of those to choose from.
    labels, persons
        Class of every video, and how many persons it has.
    seed
        Of the draw.

    Raises
    ------
    UserError
        There is no other class.
    """
    rng = np.random.default_rng(seed)
    places = np.asarray(pool)
    chosen = []
    for video in asked:
        unlike = places[labels[places] != labels[video]]
        if not len(unlike):
            raise UserError(
                "frames of another video are to be of another class, and all videos are of one; "
                "choose interpolated or frozen"
            )
        alike = unlike[persons[unlike] == persons[video]]
        chosen.append(int(rng.choice(alike if len(alike) else unlike)))
    return chosen
