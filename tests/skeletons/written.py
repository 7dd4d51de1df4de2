"""Skeleton files in each format, written by the tests from made-up poses."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

Frames = Sequence[Sequence[tuple[int, NDArray]]]


def poses(t: int, v: int, seed: int = 0) -> NDArray[np.float64]:
    """(t, v, 3): a cloud of joints 0.4 wide and 1.6 high that sways, 3 m from the sensor."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform((-0.2, -0.8, 2.9), (0.2, 0.8, 3.1), (v, 3))
    sway = 0.05 * np.sin(np.linspace(0, 6, t)[:, None, None] + rng.uniform(0, 6, (1, v, 3)))
    return rest + sway


def utd_mhad(d_skel: NDArray | None = None, **variables: object) -> bytes:
    file = io.BytesIO()
    savemat(file, ({} if d_skel is None else {"d_skel": d_skel}) | variables)
    return file.getvalue()


def nw_ucla(skeletons: NDArray, label: int = 1, **entries: object) -> bytes:
    return json.dumps({"skeletons": skeletons.tolist(), "label": label} | entries).encode()


def ntu_rgbd(frames: Frames, newline: str = "\n") -> bytes:
    """Each frame is a list of (bodyID, joints (25, 3))."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies:
            lines += [f"{body} 0 1 1 1 1 0 0.0276 0.0574 2", str(len(joints))]
            lines += [
                f"{x!r} {y!r} {z!r} 277.4 191.8 1036.2 519.1 -0.2 0.05 0.96 -0.12 2"
                for x, y, z in np.asarray(joints, dtype=np.float64).tolist()
            ]
    return (newline.join(lines) + newline).encode()


def archive(path: Path, contents: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return path


def ctr_gcn(
    path: Path,
    train: tuple[NDArray, Sequence[int]],
    test: tuple[NDArray, Sequence[int]],
    *,
    classes: int = 60,
    compressed: bool = False,
    **more: NDArray,
) -> Path:
    """An archive of x (n, t, 150) with labels on either side."""
    held: dict[str, NDArray] = {}
    for part, (x, labels) in (("train", train), ("test", test)):
        held[f"x_{part}"] = np.asarray(x, np.float32)
        held[f"y_{part}"] = np.eye(classes)[list(labels)]
    (np.savez_compressed if compressed else np.savez)(path, **(held | more))
    return path
