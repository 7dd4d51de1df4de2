"""Which of the bodies that a depth sensor reports are the actors.

The sensor also reports chairs and passers-by as bodies, and gives a person that it lost a new
bodyID. The rule is that of SGN (Zhang et al., CVPR 2020) and PYSKL (Duan et al., ACM MM 2022), on
which most published results rest:

1. A track is all frames with the same bodyID. A single track is the actor.
2. Tracks of at most 11 frames are noise, unless all are that short.
3. Bodies wider than 0.8 of their height are noise: a track with at least 0.69754 of such frames is
   dropped, as long as another is left. The first to go are those that move least.
4. The motion of a track is the variance of x, y and z over all its joints and frames, summed; or
   over its frames that are not too wide, if that is less.
5. The track with the most motion is the first actor. Each further one, by motion: if it shares no
   frame with the first actor, it is the first actor under a new bodyID; else if it shares none with
   the second actor, it is or becomes the second; else it is dropped.
6. If only the second actor is seen in the first frame that shows anybody, the two change places:
   what follows centres a video on its first person's first frame.

It departs from their code where that loses something. Every body keeps the frames in which it was
seen, so that one that vanishes and returns is not shifted in time, and another may take its place
meanwhile; frames without any body stay in their place; a video in which all tracks are short keeps
them.

Without denoising, rules 2 and 3 are left out and rule 4 counts all frames, so that the actors are
those that move most, whoever or whatever they are. It is meant for files that somebody has cleaned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHORTEST_TRACK = 12  # frames
WIDEST = 0.8  # of the height
MOST_TOO_WIDE = 0.69754  # of the frames

Tracks = dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]
"""For each bodyID its frames ``(t',)`` in rising order and its joints ``(t', v, 3)`` in metres."""


def choose_actors(tracks: Tracks, *, denoise: bool = True) -> list[list[int]]:
    """Choose one or two actors among the bodies of a video, by the rule at the head of this module.

    Parameters
    ----------
    tracks
        By bodyID: frames ``(t',)`` and joints ``(t', v, 3)``; at least one.
    denoise
        Whether tracks that are too short or too wide to be a person are left out.

    Returns
    -------
    list of list of int
        For each actor its bodyIDs.
    """
    motion = _motion_without_noise(tracks) if denoise else _motion_of_all(tracks)
    actors: list[list[int]] = [[], []]
    taken: list[set[int]] = [set(), set()]
    for body in sorted(motion, key=motion.__getitem__, reverse=True):
        at = set(tracks[body][0].tolist())
        for m in range(2):
            if taken[m].isdisjoint(at):
                actors[m].append(body)
                taken[m] |= at
                break
    if taken[1] and min(taken[1]) < min(taken[0]):
        actors.reverse()
    return [bodies for bodies in actors if bodies]


def join(
    tracks: Tracks, actors: list[list[int]], frames: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Put the tracks of each actor into one array, every frame in its place.

    Parameters
    ----------
    tracks
        By bodyID, as for `choose_actors`.
    actors
        What `choose_actors` returned.
    frames
        How many frames the video has.

    Returns
    -------
    joints : float32 (m, t, v, 3)
        In metres, zero where the actor was not seen.
    present : bool (m, t)
        In which frames the actor was seen.
    """
    v = next(iter(tracks.values()))[1].shape[1]
    joints = np.zeros((len(actors), frames, v, 3), np.float32)
    present = np.zeros((len(actors), frames), np.bool_)
    for m, bodies in enumerate(actors):
        for body in bodies:
            at, places = tracks[body]
            joints[m, at] = places
            present[m, at] = True
    return joints, present


def _motion_of_all(tracks: Tracks) -> dict[int, float]:
    return {body: _motion(joints) for body, (_, joints) in tracks.items()}


def _motion_without_noise(tracks: Tracks) -> dict[int, float]:
    """Return the motion of the tracks that rules 2 and 3 leave, in m²."""
    long_enough = {b: track for b, track in tracks.items() if len(track[0]) >= SHORTEST_TRACK}
    motion = _motion_of_all(long_enough or tracks)
    for body in sorted(motion, key=motion.__getitem__):
        if len(motion) == 1:
            break
        joints = tracks[body][1]
        width = np.ptp(joints[:, :, 0], axis=1)
        height = np.ptp(joints[:, :, 1], axis=1)
        upright = width <= WIDEST * height
        if np.mean(~upright) >= MOST_TOO_WIDE:
            del motion[body]
        else:
            motion[body] = min(motion[body], _motion(joints[upright]))
    return motion


def _motion(joints: NDArray[np.float32]) -> float:
    """Return the variance of x, y and z over all joints and frames, summed, in m²."""
    return float(joints.reshape(-1, 3).astype(np.float64).var(axis=0).sum())
