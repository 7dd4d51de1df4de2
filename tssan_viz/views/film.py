"""What the player shows, as a moving picture for a talk: GIF, or MP4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.payload import Payload

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_PAPER, _INK, _ACCENT, _PALE = (255, 255, 255), (31, 35, 40), (29, 95, 209), (170, 195, 240)
_SIZE = 420
_BAR = 56
_YAW, _PITCH = 0.45, -0.12


def save_film(
    payload: Payload, state: dict[str, Any], path: str | os.PathLike[str], *, fps: float = 10
) -> Path:
    """Write a segment's skeleton as GIF or MP4, each frame lit by the attention that it gets.

    Parameters
    ----------
    payload
        From `sample_payload`, with poses.
    state
        Which layer, heads, segment and person; with a locked frame its row (or column) lights the
        frames, without one the mean over queries does.
    path
        The file to write; its ending says what it is. MP4 needs ``imageio-ffmpeg``.
    fps
        Frames per second.

    Raises
    ------
    UserError
        The ending is another one, no poses were recorded, no head is on, or the file cannot be
        written.
    """
    target = Path(path)
    if target.suffix.lower() not in {".gif", ".mp4"}:
        raise UserError(f"{target} ends in {target.suffix!r}: a film is a .gif or an .mp4")
    if not 0 < fps <= 50:
        raise UserError(f"fps is {fps}: it lies above 0 and goes to 50")
    pictures = _pictures(payload, state)
    unfinished = target.with_name(f".{target.stem}.unfinished{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() == ".gif":
            first, *rest = pictures
            first.save(
                unfinished, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0
            )
        else:
            _write_mp4(pictures, unfinished, fps)
        unfinished.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _write_mp4(pictures: list[Image], path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise UserError("an MP4 needs imageio-ffmpeg: pip install 'tssan-viz[video]'") from error
    writer = imageio_ffmpeg.write_frames(str(path), pictures[0].size, fps=fps)
    writer.send(None)
    for picture in pictures:
        writer.send(picture.tobytes())
    writer.close()


def _pictures(payload: Payload, state: dict[str, Any]) -> list[Image]:
    from PIL import Image, ImageDraw

    manifest = payload.manifest
    if "poses" not in payload.buffers:
        raise UserError("no poses were recorded: there is nothing to play")
    poses = np.frombuffer(payload.buffers["poses"], "<f2").reshape(manifest["poses"]["shape"])
    segment = manifest["segments"].index(state["segment"])
    there = [m for m, row in enumerate(manifest["poses_present"]) if row[segment]]
    joints = poses[there, segment].astype(np.float32)  # (m, t, v, c)
    weights = frame_weights(payload, state)
    points = _projected(joints, flat=joints.shape[-1] < 3, down=manifest["units"] == "image")
    lit = weights / max(float(weights.max()), 1e-12) if len(weights) == joints.shape[1] else None
    pictures = []
    for t in range(joints.shape[1]):
        # Drawn twice as large and made smaller, for smooth edges.
        picture = Image.new("RGB", (2 * _SIZE, 2 * (_SIZE + _BAR)), _PAPER)
        draw = ImageDraw.Draw(picture)
        share = 0.0 if lit is None else float(lit[t])
        colour = tuple(
            round(a * share + i * (1 - share)) for a, i in zip(_ACCENT, _INK, strict=True)
        )
        for person in points:
            for one, other in manifest["bones"]:
                line = [tuple(2 * person[t, one]), tuple(2 * person[t, other])]
                draw.line(line, fill=colour, width=9)
            if manifest["head_joint"] is not None:
                x, y = 2 * person[t, manifest["head_joint"]]
                draw.ellipse((x - 16, y - 16, x + 16, y + 16), fill=colour)
        if lit is not None:
            step = 2 * (_SIZE - 16) / len(lit)
            for i, high in enumerate(lit):
                left, floor = 16 + i * step, 2 * (_SIZE + _BAR) - 16
                box = (left, floor - high * 2 * (_BAR - 16), left + step - 3, floor)
                draw.rectangle(box, fill=_ACCENT if i == t else _PALE)
        pictures.append(picture.resize((_SIZE, _SIZE + _BAR), Image.Resampling.LANCZOS))
    return pictures


def frame_weights(payload: Payload, state: dict[str, Any]) -> NDArray[np.float32]:
    """Return what lights each frame, the mean over the heads that are on, as the player has it."""
    manifest = payload.manifest
    if not state["heads"]:
        raise UserError("no head is on: there is nothing that could light the frames")
    steps = manifest.get("steps", [])
    if steps and state.get("step") not in (None, steps[-1]) and "earlier" in payload.buffers:
        earlier = np.frombuffer(payload.buffers["earlier"], "<f2")
        maps = earlier.reshape(manifest["earlier"]["shape"])[steps.index(state["step"])]
    else:
        maps = np.frombuffer(payload.buffers["maps"], "<f2").reshape(manifest["maps"]["shape"])
    chosen = maps[
        manifest["segments"].index(state["segment"]),
        manifest["persons"].index(state["person"]),
        manifest["layers"].index(state["layer"]),
    ][[manifest["heads"].index(head) for head in state["heads"]]]
    mean = chosen.astype(np.float32).mean(axis=0)
    locked = state.get("locked")
    if locked is None:
        return mean.mean(axis=0)
    return mean[locked["frame"]] if locked["side"] == "query" else mean[:, locked["frame"]]


def _projected(joints: NDArray[np.float32], *, flat: bool, down: bool) -> NDArray[np.float32]:
    """Return where joints (m, t, v, c) lie on the picture (m, t, v, 2), as the player has them."""
    yaw, pitch = (0.0, 0.0) if flat else (_YAW, _PITCH)
    xyz = np.zeros((*joints.shape[:-1], 3), np.float32)
    xyz[..., : joints.shape[-1]] = joints[..., :3]
    flattened = xyz.reshape(-1, 3)
    low, high = flattened.min(axis=0), flattened.max(axis=0)
    x, y, z = np.moveaxis(xyz - (low + high) / 2, -1, 0)
    radius = float(np.linalg.norm(high - low)) / 2 or 1.0
    depth = -np.sin(yaw) * x + np.cos(yaw) * z
    across = np.cos(yaw) * x + np.sin(yaw) * z
    upward = np.cos(pitch) * y - np.sin(pitch) * depth
    near = 3.5 * radius / (3.5 * radius - (np.sin(pitch) * y + np.cos(pitch) * depth))
    scale = 0.46 * _SIZE / radius * near
    sign = 1 if down else -1
    return np.stack([_SIZE / 2 + across * scale, _SIZE / 2 + sign * upward * scale], axis=-1)
