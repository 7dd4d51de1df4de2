"""The measures by name, as tables and contrasts use them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.measures import concentration, motion, position
from tssan_viz.measures.rows import as_maps

MEASURES: dict[str, str] = {
    "entropy": "row entropy over ln s: 0 one frame, 1 all frames alike",
    "effective_frames": "frames that a row attends to, exp(H)",
    "gini": "Gini index of the rows: 0 all frames alike",
    "hoyer": "Hoyer sparsity of the rows: 0 all frames alike, 1 one frame",
    "top_mass": "share of a row in its largest tenth",
    "confidence": "largest value of a row",
    "distance": "attention distance in frames",
    "look_ahead": "signed distance in frames: above 0 ahead, below 0 back",
    "distance_seconds": "attention distance in seconds",
    "look_ahead_seconds": "signed distance in seconds",
    "globalness": "row entropy in nats",
    "verticality": "minus the entropy of the mean row: high where all rows look at one frame",
    "diagonality": "minus the attention distance over s: 0 on the diagonal",
    "positional_share": "share of rows with their largest value at one offset",
    "diagonal_mass": "share within one frame of the diagonal",
    "block_mass": "share in four blocks along the diagonal",
    "first_mass": "attention to the first frame and its neighbour",
    "last_mass": "attention to the last frame and its neighbour",
    "peak_motion_mass": "attention to the frame of fastest motion and its neighbours",
    "symmetry": "cosine of the map and its transpose",
    "coupling_to_motion": "Spearman of received attention and joint speed",
}
"""What each measure is, in words."""

STORED = {
    "entropy": "entropy",
    "distance": "distance",
    "look_ahead": "look_ahead",
    "confidence": "peak",
}
"""Measures that a recording holds already, and what they are called there."""

NEED_POSES = ("peak_motion_mass", "coupling_to_motion")
NEED_SECONDS = ("distance_seconds", "look_ahead_seconds")
NEED_SQUARE = ("symmetry", *NEED_SECONDS, *NEED_POSES)


def check_measures(names: Sequence[str]) -> None:
    """Refuse names of no measure.

    Raises
    ------
    UserError
        It names the nearest.
    """
    for name in names:
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"no measure is called {name!r}; {hint}There are {', '.join(MEASURES)}")


def measure(
    maps: NDArray[np.floating],
    names: Sequence[str],
    *,
    speed: NDArray[np.floating] | None = None,
    seconds: NDArray[np.floating] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute measures of maps.

    Parameters
    ----------
    maps
        (..., q, s), rows summing to 1.
    names
        Of `MEASURES`.
    speed
        (..., s), from `joint_speed`, for what goes along with motion.
    seconds
        (..., s), when the frames were, for distances in seconds.

    Returns
    -------
    dict
        For each name (...) float64; NaN where it is not defined, or what it needs is not given.

    Raises
    ------
    UserError
        No measure has that name, or the maps are no probabilities.
    """
    check_measures(names)
    maps = as_maps(maps)
    q, s = maps.shape[-2:]
    found = {}
    nothing = np.full(maps.shape[:-2], np.nan)
    for name in names:
        lacking = (
            (NEED_SQUARE, q != s),
            (NEED_SECONDS, seconds is None),
            (NEED_POSES, speed is None),
        )
        if any(name in those and missing for those, missing in lacking):
            found[name] = nothing
        elif name in ("first_mass", "last_mass"):
            found[name] = position.anchor_mass(maps, 0 if name == "first_mass" else -1)
        elif name == "diagonal_mass":
            found[name] = position.template_score(maps, position.diagonal_template(q, s))
        elif name == "block_mass":
            found[name] = position.template_score(maps, position.block_template(q, s))
        elif name == "peak_motion_mass":
            found[name] = _at_peak(maps, np.asarray(speed))
        elif name == "coupling_to_motion":
            found[name] = motion.coupling_to_motion(maps, np.asarray(speed))
        elif name in NEED_SECONDS:
            apart = position.distance if name == "distance_seconds" else position.look_ahead
            found[name] = apart(maps, seconds)
        elif name == "positional_share":
            found[name] = position.positional_share(maps)[0]
        elif hasattr(concentration, name):
            found[name] = getattr(concentration, name)(maps)
        else:
            found[name] = getattr(position, name)(maps)
    return found


def _at_peak(maps: NDArray[np.floating], speed: NDArray[np.floating]) -> NDArray[np.float64]:
    known = np.isfinite(speed).all(axis=-1)
    frame = np.where(known[..., None], speed, 0.0).argmax(axis=-1)
    mass = position.anchor_mass(maps, np.broadcast_to(frame, maps.shape[:-2]))
    return np.where(np.broadcast_to(known, mass.shape), mass, np.nan)
