"""UTD-MHAD: one MATLAB file per sequence, one person, Kinect v1.

`Skeleton/a{action}_s{subject}_t{trial}_skeleton.mat` holds `d_skel`, 20 joints × 3 coordinates ×
frames, in metres, at 30 frames per second.

C. Chen, R. Jafari, N. Kehtarnavaz: UTD-MHAD: a multimodal dataset for human action recognition
utilizing a depth camera and a wearable inertial sensor. ICIP 2015.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tssan.errors import DataError
from tssan.skeletons import arrays, files, matlab
from tssan.skeletons.classes import UTD_MHAD
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import UTD_MHAD_20

FPS = 30.0
MOST_FRAMES = 20_000  # eleven minutes; the longest real file has 125
MOST_BYTES = 8 * 2**20  # of a file when it is decompressed; the longest real one has 60 kB


def find_files(source: str | os.PathLike[str]) -> list[SkeletonFile]:
    """Find the sequences in `Skeleton.zip` or where it was unpacked.

    Raises
    ------
    DataError
        If the source cannot be read or holds none.
    """
    return files.find(source, files.UTD_MHAD)


def read_file(data: bytes | Path, name: str) -> SkeletonSequence:
    """Read one sequence.

    Parameters
    ----------
    data
        The file, or its contents.
    name
        What the file is called; class, subject and trial are taken from it.

    Returns
    -------
    SkeletonSequence
        One person, ``(1, t, 20, 3)``. Frames whose joints are all zero are marked as not present.

    Raises
    ------
    DataError
        If the name or the contents are not those of a UTD-MHAD file.
    """
    sample, numbers = files.parse_name(name, files.UTD_MHAD)
    if not 1 <= numbers["action"] <= len(UTD_MHAD):
        raise DataError(f"{name}: action {numbers['action']}; expected 1 to {len(UTD_MHAD)}")
    values = _d_skel(files.content(data, name), name)
    joints = arrays.metres(np.moveaxis(values, 2, 0), UTD_MHAD_20, name)
    action = UTD_MHAD[numbers["action"] - 1]
    return SkeletonSequence(
        joints=joints[None],
        present=arrays.any_joint(joints)[None],
        topology=UTD_MHAD_20,
        units="m",
        fps=FPS,
        sample=sample,
        label=action.label,
        class_name=action.name,
        class_code=action.code,
        subject=numbers["subject"],
        replication=numbers["trial"],
        source=name,
    )


def _d_skel(data: bytes, name: str) -> np.ndarray[Any, Any]:
    """Return the array of a MATLAB file, ``(20, 3, t)``."""
    expected = "expected a MATLAB file with d_skel, 20 joints × 3 coordinates × frames"
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:10] == b"MATLAB 7.3":
        raise DataError(f"{name}: a MATLAB 7.3 (HDF5) file; expected version 5, as distributed")
    try:
        found = matlab.read_variables(data, MOST_BYTES)
        if "d_skel" not in found:
            raise DataError(f"{name}: holds {', '.join(found) or 'no variable'}; {expected}")
        d_skel = found["d_skel"]
        if d_skel.numbers is None:
            raise DataError(f"{name}: d_skel is of type {d_skel.kind}; {expected}")
        joints, coordinates, *frames = d_skel.shape
        if (joints, coordinates) != (20, 3) or len(frames) > 1 or frames == [0]:
            shape = " × ".join(map(str, d_skel.shape))
            raise DataError(f"{name}: d_skel is {shape}; {expected}")
        if frames and frames[0] > MOST_FRAMES:
            raise DataError(f"{name}: {frames[0]} frames; expected at most {MOST_FRAMES:,}")
        values = d_skel.array()
    except matlab.Damaged as error:
        raise DataError(f"{name}: cannot be read as a MATLAB file ({error}); {expected}") from None
    return values.reshape(20, 3, -1)  # MATLAB drops a last axis of length one
