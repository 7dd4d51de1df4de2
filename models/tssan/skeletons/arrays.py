"""From the numbers of a file to a sequence's arrays, with errors that say which frame is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons.topology import Topology

# Depth sensors see to about 8 m; a hundred tells metres from millimetres and from damaged numbers.
FARTHEST = 100.0


def metres(values: NDArray[Any], topology: Topology, name: str) -> NDArray[np.float32]:
    """Check one person's coordinates and return them as float32.

    Parameters
    ----------
    values
        ``(t, v, 3)`` in metres.
    topology
        Names the joints in messages.
    name
        The file, for messages.

    Raises
    ------
    DataError
        If a coordinate is not a finite number or too far away to be in metres.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values) < FARTHEST)
    if wrong.any():
        t, v, c = np.argwhere(wrong)[0]
        raise DataError(
            f"{name}: frame {t}, joint {topology.joints[v]}: {'xyz'[c]} is {values[t, v, c]:g}; "
            f"expected metres, less than {FARTHEST:g} away"
        )
    return values.astype(np.float32)


def any_joint(joints: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return in which frames a person was seen, ``(t,)``: those in which some joint is not at zero.

    Zero is the sensor itself, where nobody can be; the formats write it for what was not seen.
    """
    return np.asarray(np.any(joints != 0, axis=(1, 2)), dtype=np.bool_)
