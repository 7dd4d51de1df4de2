"""One video as skeletons: the form that every reader returns and everything downstream takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons.topology import Topology

Units = Literal["m", "image"]
Reader = Callable[[bytes, str], "SkeletonSequence"]
"""Reads the bytes of a file; its name says what its contents do not."""


@dataclass(frozen=True, eq=False)
class SkeletonSequence:
    """The joints of the people in one video, frame by frame.

    Parameters
    ----------
    joints
        float32 ``(m, t, v, c)`` with c = 2 or 3, in `units`. Frames in which a person is not
        present are set to zero.
    present
        bool ``(m, t)``: in which frames the person was seen.
    topology
        Names and bones of the v joints.
    units
        ``"m"`` (metres, sensor's coordinates) or ``"image"`` (parts of the image's width, height).
    fps
        Frames per second.
    sample
        The name of the video, unique within its data set.
    label, class_name, class_code
        The class: from 0, its name, its code in the data set (A014); None where the file does not
        tell.
    subject, camera, setup, replication
        Who acted, seen from where, in which set-up, for which time, as the data set counts; None
        where it does not. `subject` names the first person only.
    split
        ``"train"``, ``"val"`` or ``"test"``, where the data set's own files divide it so.
    score
        float32 ``(m, t, v)`` in [0, 1]: how sure the sensor or pose estimator was of each joint.
    source
        Where it was read from, for messages.

    Raises
    ------
    DataError
        If an array has another shape or dtype, a present joint is not finite, or nobody is
        ever present.
    """

    joints: NDArray[np.float32]
    present: NDArray[np.bool_]
    topology: Topology
    units: Units
    fps: float
    sample: str
    label: int | None = None
    class_name: str | None = None
    class_code: str | None = None
    subject: int | None = None
    camera: int | None = None
    setup: int | None = None
    replication: int | None = None
    split: str | None = None
    score: NDArray[np.float32] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        joints, present = self.joints, self.present
        where = self.source or self.sample or "sequence"
        if not isinstance(joints, np.ndarray) or joints.dtype != np.float32:
            found = getattr(joints, "dtype", type(joints).__name__)
            raise DataError(f"{where}: joints are {found}; expected a float32 array (m, t, v, c)")
        v = len(self.topology.joints)
        if joints.ndim != 4 or joints.shape[2] != v or joints.shape[3] not in (2, 3):
            raise DataError(
                f"{where}: joints have shape {joints.shape}; expected (m, t, {v}, 2 or 3) "
                f"for topology {self.topology.name}"
            )
        if 0 in joints.shape:
            raise DataError(
                f"{where}: joints have shape {joints.shape}; expected at least one frame"
            )
        if not isinstance(present, np.ndarray) or present.dtype != np.bool_:
            found = getattr(present, "dtype", type(present).__name__)
            raise DataError(f"{where}: present is {found}; expected a bool array (m, t)")
        if present.shape != joints.shape[:2]:
            raise DataError(
                f"{where}: present has shape {present.shape}; expected {joints.shape[:2]} (m, t)"
            )
        if not present.any():
            raise DataError(
                f"{where}: nobody is present in any frame; expected at least one person"
            )
        finite = np.isfinite(joints).all(axis=(2, 3)) | ~present
        if not finite.all():
            m, t = np.argwhere(~finite)[0]
            raise DataError(
                f"{where}: frame {t}, person {m + 1} has a coordinate that is not a finite number"
            )
        if self.score is not None and (
            self.score.dtype != np.float32 or self.score.shape != joints.shape[:3]
        ):
            raise DataError(
                f"{where}: score is {self.score.dtype} {self.score.shape}; "
                f"expected float32 {joints.shape[:3]} (m, t, v)"
            )
        if self.units not in ("m", "image"):
            raise DataError(f"{where}: units {self.units!r}; expected 'm' or 'image'")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise DataError(f"{where}: {self.fps} frames per second; expected a number above 0")
        if not self.sample:
            raise DataError(f"{where}: the sample has no name")
        if np.any(joints[~present]):
            # Everything downstream may rely on absent frames adding nothing.
            object.__setattr__(self, "joints", np.where(present[:, :, None, None], joints, 0))

    @property
    def persons(self) -> int:
        """How many people the sequence holds, m."""
        return int(self.joints.shape[0])

    @property
    def frames(self) -> int:
        """How many frames the sequence holds, t."""
        return int(self.joints.shape[1])
