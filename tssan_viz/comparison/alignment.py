"""Maps of videos of different speeds: in phase, in seconds, or along the motion itself.

The network samples every video at as many frames, so that maps lie in phase (0–100 %) as they are.
Otherwise both axes of each map are warped and its rows made to sum to 1 again. The path of dynamic
time warping is computed on the skeletons, never on the attention, which would be circular, and to
*one* reference over all videos of the selection, never one per class, which would make classes
unlike each other. Axis letters: n videos × segments, t frames, f features of a pose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.selection import Selection
from tssan_viz.store.codes import Code
from tssan_viz.store.schema import StoredSample, decode

Align = Literal["none", "seconds", "dtw"]
ALIGNMENTS: tuple[str, ...] = get_args(Align)

# How far a path may stray from phase, as a share of the frames (Sakoe & Chiba 1978).
BAND = 0.25

# Paths of so many videos are searched for side by side.
_TOGETHER = 512

Key = tuple[str, int, int]
"""A video, its segment and its person, the latter two from 1."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the frames of each video go to those that all share.

    Attributes
    ----------
    how : str
        ``seconds`` or ``dtw``.
    first, last : dict
        For each video, segment and person two (t,) arrays: the shared frame j is made of the
        video's frames from first[j] to last[j]. For ``dtw`` these are the frames that the path
        matches, averaged; for ``seconds`` both are one fractional frame, which is interpolated.
    step : dict
        For ``seconds``: how long a shared frame is, for each segment from 1. Empty for ``dtw``.
    """

    how: str
    first: dict[Key, NDArray[np.float32]]
    last: dict[Key, NDArray[np.float32]]
    step: dict[int, float]

    def weights(self, keys: Sequence[Key]) -> NDArray[np.float32]:
        """Return the weights (n, t, t) of a video's frames (last axis) in the shared frames."""
        first = np.stack([self.first[key] for key in keys])
        last = np.stack([self.last[key] for key in keys])
        return frame_weights(first, last)

    def warp(self, maps: NDArray[np.floating], keys: Sequence[Key]) -> NDArray[np.float32]:
        """Warp maps (n, ..., t, t) of some videos; see `warp_maps`."""
        return warp_maps(maps, self.weights(keys))


def frame_weights(first: NDArray[np.floating], last: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the weights (n, t, t) of frames from first to last (n, t), rows summing to 1.

    Whole frames between the two weigh the same; a fractional frame is interpolated linearly.
    """
    t = first.shape[-1]
    frames = np.arange(t, dtype=np.float32)
    inside = (frames >= first[..., None]) & (frames <= last[..., None])
    near = np.maximum(0, 1 - np.abs(frames - first[..., None]))
    weights = np.where(first[..., None] == last[..., None], near, inside.astype(np.float32))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def warp_maps(maps: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """Warp both axes, W A Wᵀ, and make the rows sum to 1 again.

    Parameters
    ----------
    maps : (n, ..., t, t)
        Rows summing to 1; a row of zeros stays one where all that it is made of are such.
    weights : (n, t, t)
        Of the maps' frames (last axis) in the shared ones.

    Returns
    -------
    (n, ..., t, t) float32

    Raises
    ------
    UserError
        The maps are not square, or of another number of frames than the weights.
    """
    t = weights.shape[-1]
    if maps.shape[-2:] != (t, t):
        raise UserError(
            f"maps of {maps.shape[-2]} × {maps.shape[-1]} frames cannot be aligned with "
            f"skeletons of {t} frames: query and key must be the frames of the video"
        )
    between = tuple(range(1, maps.ndim - 2))
    w = np.expand_dims(np.asarray(weights, np.float32), between)
    warped = w @ np.asarray(maps, np.float32) @ w.swapaxes(-1, -2)
    total = warped.sum(axis=-1, keepdims=True)
    return np.where(total > 0, warped / np.where(total > 0, total, 1.0), 0.0).astype(np.float32)


def pose_features(poses: NDArray[np.floating]) -> NDArray[np.float32]:
    """Describe poses (..., t, v, c) by the distances between all joints over their mean: (…, t, f).

    They know nothing of where a person stands, where the camera does, and how large the body is.
    """
    p = np.asarray(poses, np.float32)
    a, b = np.triu_indices(p.shape[-2], 1)
    apart = np.sqrt(((p[..., a, :] - p[..., b, :]) ** 2).sum(axis=-1))
    size = apart.mean(axis=(-1, -2), keepdims=True)
    return apart / np.where(size > 0, size, 1.0)


def dtw_paths(
    cost: NDArray[np.floating], band: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Find the cheapest monotone path through each cost matrix (Sakoe & Chiba 1978).

    Steps go one frame on in the video, in the reference, or in both, and cost what the frame that
    they reach costs.

    Parameters
    ----------
    cost : (n, t, u)
        Of matching frame j of the reference (axis 1) with frame i of the video (axis 2).
    band
        The path stays within so many frames of the diagonal; None for anywhere.

    Returns
    -------
    first, last : (n, t) float32
        The video's frames that each reference frame is matched with, from first to last.
    total : (n,) float64
        What the path costs.
    """
    n, t, u = cost.shape
    total = np.full((n, t + 1, u + 1), np.inf)
    total[:, 0, 0] = 0
    for j in range(1, t + 1):
        middle = j * u / t
        low = 1 if band is None else max(1, int(np.floor(middle - band)))
        high = u if band is None else min(u, int(np.ceil(middle + band)))
        for i in range(low, high + 1):
            before = np.minimum(
                np.minimum(total[:, j - 1, i - 1], total[:, j - 1, i]), total[:, j, i - 1]
            )
            total[:, j, i] = cost[:, j - 1, i - 1] + before
    first, last = np.full((2, n, t), -1, np.int64)
    at_j, at_i = np.full(n, t), np.full(n, u)
    each = np.arange(n)
    moving = np.ones(n, bool)
    while moving.any():
        m = each[moving]
        own, video = at_j[m], at_i[m]
        last[m, own - 1] = np.maximum(last[m, own - 1], video - 1)
        first[m, own - 1] = video - 1
        # Where several ways cost the same, the diagonal one.
        way = np.stack(
            [total[m, own - 1, video - 1], total[m, own - 1, video], total[m, own, video - 1]]
        ).argmin(0)
        at_j[m] = own - (way != 2)
        at_i[m] = video - (way != 1)
        moving = (at_j > 0) & (at_i > 0)
    return first.astype(np.float32), last.astype(np.float32), total[:, t, u]


class AlignedSelection(Selection):
    """A selection whose maps are aligned when they are read. Made by `aligned`.

    Attributes
    ----------
    alignment : Alignment
    """

    alignment: Alignment

    @classmethod
    def _of(cls, selection: Selection, alignment: Alignment) -> AlignedSelection:
        part = object.__new__(cls)
        part.__dict__.update(selection.__dict__)
        part.alignment = alignment
        return part

    def select(self, **conditions: Any) -> AlignedSelection:
        """Return the part of this selection that fits further conditions as well."""
        return AlignedSelection._of(super().select(**conditions), self.alignment)

    def _composed(self, other: Selection, word: str) -> AlignedSelection:
        if not isinstance(other, AlignedSelection) or other.alignment is not self.alignment:
            raise UserError(
                "maps that are aligned in different ways cannot be put together: align the whole "
                "selection first, and then choose its parts"
            )
        return AlignedSelection._of(super()._composed(other, word), self.alignment)

    def _read(self, frame: pd.DataFrame) -> np.ndarray:
        return self.alignment.warp(decode(super()._read(frame)), row_keys(frame))

    def _read_pieces(self, frame: pd.DataFrame) -> list[list[np.ndarray]]:
        maps = self._read(frame)
        return [[*maps.reshape(len(maps), -1, *maps.shape[3:]).swapaxes(0, 1)]]

    def _read_stored(self, frame: pd.DataFrame) -> np.ndarray:
        return self._read(frame)

    @property
    def _code(self) -> Code:
        # Casting them to float32 is all that is left to do.
        return "float16"

    def maps(self):  # type: ignore[no-untyped-def]  # xarray is imported late
        """Return all aligned maps as a labelled array, in memory."""
        self._refuse_empty()
        dimensions = ("row", "layer", "head", "query", "key")
        return self._labelled((dimensions, self._read(self._frame)))

    def dask(self, rows: int | None = None):  # type: ignore[no-untyped-def]
        """Refuse: aligned maps are gone through with `iter_maps`."""
        raise UserError("aligned maps are not read with Dask: use maps() or iter_maps()")


def row_keys(rows: pd.DataFrame) -> list[Key]:
    """Return video, segment and person of each row; what is not known is the first."""
    segment = rows["segment"].fillna(1).astype(int)
    person = rows["person"].fillna(1).astype(int)
    return list(zip(rows["sample"].tolist(), segment.tolist(), person.tolist(), strict=True))


def aligned(selection: Selection, how: str) -> Selection:
    """Return the selection with its maps aligned.

    Align both groups of a comparison together, then choose its parts: the reference is one.
    Measures that were recorded, and cells that are kept, are of maps in phase and are not used.

    Parameters
    ----------
    selection
        All videos that will be compared with each other.
    how
        ``none``: in phase, as they are. ``seconds``: each map shows the time from the start of its
        segment to the end of the shortest. ``dtw``: along the motion of the skeletons, to the mean
        motion of all videos, each class weighing the same.

    Returns
    -------
    Selection
        Its `notes` say what was done. Videos without what the alignment needs are left out.

    Raises
    ------
    UserError
        An unknown alignment, an empty selection, or none of its videos has frame times (or poses).
    """
    if how not in ALIGNMENTS:
        raise UserError(f"align is {how!r}: choose one of {', '.join(ALIGNMENTS)}")
    if how == "none":
        return selection
    if not len(selection):
        raise UserError(f"there is nothing to align: {selection.empty_because}")
    rows = selection.rows()
    keys = list(dict.fromkeys(row_keys(rows)))
    step: dict[int, float] = {}
    if how == "seconds":
        first, step, note = _by_seconds(selection, keys)
        last = first
        needed = "frame times in seconds"
    else:
        first, last, note = _by_motion(selection, keys, rows)
        needed = "poses"
    if not first:
        raise UserError(
            f"run {selection.run!r} was recorded without {needed}, which align={how!r} needs"
        )
    notes = [f"aligned by {how}: {note}"]
    without = {key[0] for key in keys if key not in first}
    if without:
        left = [name for name in dict.fromkeys(rows["sample"]) if name not in without]
        selection = selection.select(sample=left)
        notes.append(f"left out: {len(without)} videos without {needed}")
    part = AlignedSelection._of(selection, Alignment(how, first, last, step))
    part.notes = [*selection.notes, *notes]
    return part


_Frames = dict[Key, NDArray[np.float32]]


def _by_seconds(selection: Selection, keys: list[Key]) -> tuple[_Frames, dict[int, float], str]:
    times: dict[tuple[str, int], NDArray[np.float64]] = {}
    for sample in _samples(selection, keys):
        if sample.seconds is None:
            continue
        for k, seconds in enumerate(sample.seconds.astype(np.float64)):
            at = seconds - seconds[0]
            if len(at) > 1 and np.isfinite(at).all() and (np.diff(at) > 0).all():
                times[sample.sample, k + 1] = at
    if not times:
        return {}, {}, ""
    lengths: dict[int, list[float]] = {}
    for (_, k), at in times.items():
        lengths.setdefault(k, []).append(float(at[-1]))
    found: _Frames = {}
    for key in keys:
        known = times.get(key[:2])
        if known is not None:
            shown = np.linspace(0, min(lengths[key[1]]), len(known))
            found[key] = np.interp(shown, known, np.arange(len(known))).astype(np.float32)
    shortest = min(min(each) for each in lengths.values())
    median = float(np.median([length for each in lengths.values() for length in each]))
    note = (
        f"maps show the first {shortest:.2f} s of each segment, as long as the shortest video is; "
        f"the median lasts {median:.2f} s"
    )
    frames = len(next(iter(times.values())))
    return found, {k: min(each) / (frames - 1) for k, each in lengths.items()}, note


def _by_motion(
    selection: Selection, keys: list[Key], rows: pd.DataFrame
) -> tuple[_Frames, _Frames, str]:
    reference, n = _reference(selection, keys, rows)
    first: _Frames = {}
    last: _Frames = {}
    if not n:
        return first, last, ""
    for part in _batches(_features(selection, keys)):
        cost = np.stack(
            [
                np.sqrt(((reference[key[1]][:, None] - features) ** 2).sum(axis=-1))
                for key, features in part
            ]
        )
        begin, end, _ = dtw_paths(cost, band=max(1, round(BAND * cost.shape[1])))
        for i, (key, _) in enumerate(part):
            first[key], last[key] = begin[i], end[i]
    note = (
        f"paths on the skeletons, to one reference: the mean motion of {n} videos, each class "
        "weighing the same"
    )
    return first, last, note


def _reference(
    selection: Selection, keys: list[Key], rows: pd.DataFrame
) -> tuple[dict[int, NDArray[np.float32]], int]:
    """Return the mean motion (t, f) of each segment in phase, and of how many videos it is."""
    label = dict(zip(rows["sample"], rows["label"].fillna(-1).astype(int), strict=True))
    sums: dict[tuple[int, int], NDArray[np.float64]] = {}
    counts: dict[tuple[int, int], int] = {}
    videos: set[str] = set()
    for key, features in _features(selection, keys):
        at = (key[1], label[key[0]])
        sums[at] = sums.get(at, 0) + features.astype(np.float64)
        counts[at] = counts.get(at, 0) + 1
        videos.add(key[0])
    means: dict[int, list[NDArray[np.float64]]] = {}
    for at, total in sums.items():
        means.setdefault(at[0], []).append(total / counts[at])
    return (
        {k: np.mean(each, axis=0).astype(np.float32) for k, each in means.items()},
        len(videos),
    )


def _batches(
    found: Iterator[tuple[Key, NDArray[np.float32]]],
) -> Iterator[list[tuple[Key, NDArray[np.float32]]]]:
    while part := list(islice(found, _TOGETHER)):
        yield part


def _samples(selection: Selection, keys: list[Key]) -> Iterator[StoredSample]:
    names = list(dict.fromkeys(key[0] for key in keys))
    yield from selection.store.stored_samples(selection.run, names)


def _features(selection: Selection, keys: list[Key]) -> Iterator[tuple[Key, NDArray[np.float32]]]:
    """Go through the videos that have poses: the features (t, f) of each segment and person."""
    wanted: dict[str, list[Key]] = {}
    for key in keys:
        wanted.setdefault(key[0], []).append(key)
    for sample in _samples(selection, keys):
        if sample.poses is None:
            continue
        for key in wanted[sample.sample]:
            m, k = key[2] - 1, key[1] - 1
            if m >= len(sample.poses) or k >= sample.poses.shape[1]:
                continue
            features = pose_features(sample.poses[m, k])
            if np.isfinite(features).all():
                yield key, features
