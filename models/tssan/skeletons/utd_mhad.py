"""UTD-MHAD: one MATLAB file per sequence, one person, Kinect v1.

`Skeleton/a{action}_s{subject}_t{trial}_skeleton.mat` holds `d_skel`, 20 joints × 3 coordinates ×
frames, in metres, at 30 frames per second.

C. Chen, R. Jafari, N. Kehtarnavaz: UTD-MHAD: a multimodal dataset for human action recognition
utilizing a depth camera and a wearable inertial sensor. ICIP 2015.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

from tssan.errors import DataError
from tssan.skeletons import arrays, files
from tssan.skeletons.classes import UTD_MHAD
from tssan.skeletons.files import SkeletonFile
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import UTD_MHAD_20

FPS = 30.0
MOST_FRAMES = 20_000  # eleven minutes; the longest real file has 125
MOST_BYTES = 16 * 2**20  # of a file when it is decompressed
NUMERIC = ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)))

_HEADER = 128  # bytes
_COMPRESSED = 15  # the type of an element that holds another, packed by zlib


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(_decompressed(data))
            found = {name: (shape, kind) for name, shape, kind in whosmat(file)}
            if "d_skel" not in found:
                names = ", ".join(found) or "no variable"
                raise DataError(f"{name}: holds {names}; {expected}")
            shape, kind = found["d_skel"]
            if kind not in NUMERIC:
                raise DataError(f"{name}: d_skel is of type {kind}; {expected}")
            if tuple(shape[:2]) != (20, 3) or len(shape) > 3 or 0 in shape:
                raise DataError(f"{name}: d_skel is {' × '.join(map(str, shape))}; {expected}")
            if len(shape) == 3 and shape[2] > MOST_FRAMES:
                raise DataError(f"{name}: {shape[2]} frames; expected at most {MOST_FRAMES:,}")
            file.seek(0)
            values = loadmat(file, variable_names=["d_skel"])["d_skel"]
    except DataError:
        raise
    except Exception as error:  # on damaged files the parser raises whatever it stumbles over
        said = str(error) or type(error).__name__
        raise DataError(f"{name}: cannot be read as a MATLAB file ({said}); {expected}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        kind = getattr(values, "dtype", type(values).__name__)
        raise DataError(f"{name}: d_skel is of type {kind}; {expected}")
    # MATLAB drops a last axis of length one.
    return values.reshape(20, 3, -1)


def _decompressed(data: bytes) -> bytes:
    """Unpack the compressed elements of a MATLAB file, up to a limit.

    SciPy would reserve as much memory as a compressed element says that it holds.
    """
    order = ">" if data[126:128] == b"MI" else "<"
    parts, at, room = [data[:_HEADER]], _HEADER, MOST_BYTES
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        element = data[at : at + 8 + size]
        if kind == _COMPRESSED:
            element = zlib.decompressobj().decompress(element[8:], room + 1)
        room -= len(element)
        if room < 0:
            raise ValueError(f"it holds more than {MOST_BYTES >> 20} MB")
        parts.append(element)
        at += 8 + size
    return b"".join(parts)
