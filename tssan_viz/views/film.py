"""What the player shows, as a moving picture for a talk: GIF, or MP4."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.payload import Payload

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_Colour = tuple[int, int, int]
_FAINT = (150, 156, 165)
_PAPER, _INK, _ACCENT, _PALE = (255, 255, 255), (31, 35, 40), (29, 95, 209), (170, 195, 240)
_SIZE = 420
_BAR = 56
_SCALE = 44  # above the skeleton, where joints are lit
_YAW, _PITCH = 0.45, -0.12


def save_film(
    payload: Payload, state: dict[str, Any], path: str | os.PathLike[str], *, fps: float = 10
) -> Path:
    """Write a segment's skeleton as GIF or MP4, its frames or its joints lit by attention.

    Parameters
    ----------
    payload
        From `sample_payload`, with poses.
    state
        Which layer, heads, segment and person; with a locked frame its row (or column) lights the
        frames, without one the mean over queries does. Joints are lit where the maps are between
        joints, and with ``lit`` "joints" by what `tssan-viz explain` found; their scale stands
        above them.
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
        with suppress(OSError):  # a read-only folder says no even where nothing is there
            unfinished.unlink()
    return target


def _write_mp4(pictures: list[Image], path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise UserError("an MP4 needs imageio-ffmpeg: pip install 'tssan-viz[video]'") from error
    # H.264 wants even sizes, which these are; the writer would stretch them to multiples of 16.
    writer = imageio_ffmpeg.write_frames(str(path), pictures[0].size, fps=fps, macro_block_size=2)
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
    lit = None
    if manifest.get("token") != "joint" and len(weights) == joints.shape[1]:
        lit = np.nan_to_num(weights) / max(float(np.nanmax(weights, initial=0.0)), 1e-12)
    dots = joint_lights(payload, state)
    if dots is not None:
        dots = dots[[m for m in there if m < len(dots)]]
    pictures = []
    for t in range(joints.shape[1]):
        # Drawn twice as large and made smaller, for smooth edges.
        above = 0 if dots is None else _SCALE
        picture = Image.new("RGB", (2 * _SIZE, 2 * (above + _SIZE + _BAR)), _PAPER)
        draw = ImageDraw.Draw(picture)
        share = 0.0 if lit is None or dots is not None else float(lit[t])
        colour = _FAINT if dots is not None else _between(_INK, _ACCENT, share)
        for m, person in enumerate(points):
            person = person[t] + [0, above]
            for one, other in manifest["bones"]:
                line = [tuple(2 * person[one]), tuple(2 * person[other])]
                draw.line(line, fill=colour, width=9)
            if manifest["head_joint"] is not None:
                x, y = 2 * person[manifest["head_joint"]]
                draw.ellipse((x - 16, y - 16, x + 16, y + 16), fill=colour)
            if dots is not None and m < len(dots):
                _draw_dots(draw, 2 * person, dots[m], _range(dots))
        if dots is not None:
            _draw_scale(draw, _range(dots), _says(payload, state))
        if lit is not None:
            step = 2 * (_SIZE - 16) / len(lit)
            for i, high in enumerate(lit):
                left, floor = 16 + i * step, picture.height - 16
                box = (left, floor - high * 2 * (_BAR - 16), left + step - 3, floor)
                draw.rectangle(box, fill=_ACCENT if i == t else _PALE)
        pictures.append(picture.resize((_SIZE, above + _SIZE + _BAR), Image.Resampling.LANCZOS))
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
    mean = _mean(chosen.astype(np.float32))
    locked = state.get("locked")
    if locked is None:
        return _mean(mean)
    return mean[locked["frame"]] if locked["side"] == "query" else mean[:, locked["frame"]]


def joint_lights(payload: Payload, state: dict[str, Any]) -> NDArray[np.float32] | None:
    """Return what lights each joint (m, v), NaN for a person whom it does not tell of.

    None where the frames are lit.
    """
    manifest = payload.manifest
    if manifest.get("token") == "joint":
        persons, joints = manifest["poses"]["shape"][0], manifest["poses"]["shape"][3]
        lights = np.full((persons, joints), np.nan, np.float32)
        whose = slice(None) if manifest["fused"] else state["person"] - 1
        lights[whose] = frame_weights(payload, state)
        return lights
    if state.get("lit") == "joints" and "joints_lost" in manifest:
        return np.asarray(manifest["joints_lost"], np.float32)
    return None


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the first axis of what is a number; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows that are all NaN
        mean: NDArray[np.float32] = np.nanmean(values, axis=0)
    return mean


def _between(one: _Colour, other: _Colour, share: float) -> _Colour:
    red, green, blue = (round(b * share + a * (1 - share)) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _range(lights: NDArray[np.float32]) -> tuple[float, float]:
    known = lights[np.isfinite(lights)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def _viridis(share: float) -> _Colour:
    from matplotlib import colormaps

    red, green, blue = (round(255 * part) for part in colormaps["viridis"](share)[:3])
    return red, green, blue


def _draw_dots(
    draw: ImageDraw,
    points: NDArray[np.float32],
    lights: NDArray[np.float32],
    span: tuple[float, float],
) -> None:
    low, high = span
    for (x, y), light in zip(points, lights, strict=True):
        if not np.isfinite([x, y, light]).all():
            continue
        share = (float(light) - low) / (high - low) if high > low else 0.0
        r = 6 + 14 * share
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_viridis(share), outline=_INK, width=2)


def _draw_scale(draw: ImageDraw, span: tuple[float, float], says: str) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(22)
    draw.text((16, 8), says, fill=_INK, font=font)
    for i in range(256):
        draw.rectangle((16 + i, 44, 17 + i, 60), fill=_viridis(i / 255))
    draw.text((16, 64), f"{span[0]:.3g}", fill=_INK, font=font)
    draw.text((272, 64), f"{span[1]:.3g}", fill=_INK, font=font, anchor="ra")


def _says(payload: Payload, state: dict[str, Any]) -> str:
    manifest = payload.manifest
    if manifest.get("token") != "joint":
        return f"joints: logit of {manifest['class_name']} lost when one rests"
    locked = state.get("locked")
    if locked is None:
        return "joints: attention received"
    name = manifest["joint_names"][locked["frame"]]
    return f"joints: given by {name}" if locked["side"] == "query" else f"joints: given to {name}"


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
