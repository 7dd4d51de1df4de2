"""What the ES module is given, in every host: a small manifest beside float16 tensors.

The attention maps keep the very bits that the store holds; nothing is rounded a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tssan_viz.selection import Selection
    from tssan_viz.store import StoredSample
    from tssan_viz.store.catalogue import Catalogue

SCHEMA = 1


@dataclass(frozen=True)
class Payload:
    """A view's data: ``manifest`` goes as JSON, each of ``buffers`` as bytes.

    Attributes
    ----------
    manifest
        JSON-able; says under ``view`` which view it is for and gives every buffer's dtype and shape.
    buffers
        Little-endian tensors in C order, by the name under which the manifest describes them.
    """

    manifest: dict[str, Any]
    buffers: dict[str, bytes] = field(repr=False)


def module_path() -> Path:
    """Return the path of the ES module that draws every view (``export default { render }``)."""
    return Path(__file__).parent / "static" / "tssan-views.mjs"


def head_view_payload(selection: Selection, sample: str | None = None) -> Payload:
    """Collect one sample's maps and poses for the head view.

    Parameters
    ----------
    selection
        Where to look; conditions on layer, head, segment and person narrow what the view offers.
    sample
        The sample's name; by default the selection's first.

    Returns
    -------
    Payload
        Maps float16 ``(k, m, layer, h, q, s)``, exact to the store's bits, zero where ``present``
        says that the segment of that person was not recorded; poses float16 ``(m, k, t, v, c)``,
        centred about the mean of all present joints.

    Raises
    ------
    UserError
        If the selection holds no row of the sample.
    """
    chosen = _one_sample(selection, sample)
    labelled = chosen.maps()
    rows = chosen.rows()
    if not len(rows):
        raise UserError(f"{chosen}: there is nothing to show")
    values = np.asarray(labelled.values, dtype="<f2")  # (r, layer, h, q, s)
    segments = sorted({_counted(value) for value in rows["segment"]})
    persons = sorted({_counted(value) for value in rows["person"]})
    maps = np.zeros((len(segments), len(persons), *values.shape[1:]), dtype="<f2")
    present = np.zeros((len(segments), len(persons)), dtype=bool)
    for row, (segment, person) in enumerate(zip(rows["segment"], rows["person"], strict=True)):
        place = segments.index(_counted(segment)), persons.index(_counted(person))
        if present[place]:
            raise UserError(
                f"sample {rows['sample'].iloc[row]} was recorded more than once under these "
                "conditions; choose a step or an epoch"
            )
        maps[place] = values[row]
        present[place] = True

    first = rows.iloc[0]
    stored = chosen.sample(str(first["sample"]))
    catalogue = chosen.catalogue
    at = [segment - 1 for segment in segments]
    poses = _poses(stored, at, [person - 1 for person in persons])
    skeleton = catalogue.skeleton
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": "head",
        "sample": str(first["sample"]),
        "class_name": _text(first["class_name"]),
        "predicted_name": _class_name(catalogue, first["predicted"]),
        "correct": _plain(first["correct"]),
        "subject": _plain(first["subject"]),
        "camera": _plain(first["camera"]),
        "run": str(chosen.run),
        "layers": [int(layer) for layer in labelled.coords["layer"].values],
        "heads": [int(head) for head in labelled.coords["head"].values],
        "segments": segments,
        "persons": persons,
        "present": present.tolist(),
        "maps": {"dtype": "f2", "shape": list(maps.shape)},
        "poses": None,
        "bones": [],
        "sides": [],
        "head_joint": None,
        "units": None,
        "labels": _labels(stored, at),
        "seconds": _seconds(stored, at),
    }
    buffers = {"maps": maps.tobytes()}
    if poses is not None and skeleton is not None:
        manifest |= {
            "poses": {"dtype": "f2", "shape": list(poses.shape)},
            "bones": [[int(outer), int(inner)] for outer, inner in skeleton.bones],
            "sides": [str(side) for side in skeleton.sides],
            "head_joint": _plain(skeleton.head_joint),
            "units": skeleton.units,
        }
        buffers["poses"] = poses.tobytes()
    return Payload(manifest, buffers)


def heatmaps_payload(
    maps: NDArray[np.floating],
    titles: Sequence[str],
    kinds: Sequence[Literal["seq", "div"]] | None = None,
    *,
    labels: Sequence[str] | None = None,
    units: dict[str, str] | None = None,
) -> Payload:
    """Collect maps to be shown side by side.

    Parameters
    ----------
    maps
        ``(n, q, s)``; float16 stays float16, anything else goes as float32.
    titles
        One per map; shown as text.
    kinds
        Per map ``"seq"`` (0 to the largest, viridis) or ``"div"`` (even about 0, red above, blue
        below); all maps of a kind share one scale. By default all are ``"seq"``.
    labels
        Names of the frames along both axes; by default their numbers.
    units
        What a kind's colour bar is called, such as ``{"seq": "mean weight"}``.

    Raises
    ------
    ValueError
        If the shapes or lengths do not fit each other, or a value is not finite.
    """
    array = np.asarray(maps)
    if array.ndim != 3:
        raise ValueError(f"maps must be (n, q, s), got an array of shape {array.shape}")
    chosen = list(kinds) if kinds is not None else ["seq"] * len(array)
    if not len(titles) == len(chosen) == len(array):
        raise ValueError(f"{len(array)} maps need as many titles and kinds, got {len(titles)} and {len(chosen)}")
    if unknown := set(chosen) - {"seq", "div"}:
        raise ValueError(f"a map's kind is 'seq' or 'div', not {sorted(unknown)[0]!r}")
    if not np.isfinite(array).all():
        raise ValueError("maps hold values that are not finite numbers")
    kept = array.astype("<f2" if array.dtype == np.float16 else "<f4")
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": "heatmaps",
        "titles": [str(title) for title in titles],
        "kinds": chosen,
        "maps": {"dtype": "f2" if kept.itemsize == 2 else "f4", "shape": list(kept.shape)},
        "labels": None if labels is None else [str(label) for label in labels],
        "units": units,
    }
    return Payload(manifest, {"maps": kept.tobytes()})


def frame_labels(stored: StoredSample, segment: int) -> list[str]:
    """Return the source frame numbers of a segment (index from 0), rounded, as text."""
    return [str(round(float(frame))) for frame in stored.frames[segment]]


def _one_sample(selection: Selection, sample: str | None) -> Selection:
    """Narrow a selection to one sample, keeping its other conditions."""
    raise NotImplementedError


def _counted(value: Any) -> int:
    """A segment or person counted from 1; rows of fused persons carry none and count as the first."""
    return 1 if value is None or value != value else int(value)


def _plain(value: Any) -> Any:
    """A scalar as JSON has it; what is missing becomes null."""
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def _text(value: Any) -> str | None:
    plain = _plain(value)
    return None if plain is None else str(plain)


def _class_name(catalogue: Catalogue, label: Any) -> str | None:
    plain = _plain(label)
    if plain is None:
        return None
    return next((entry.name for entry in catalogue.classes if entry.label == int(plain)), str(int(plain)))


def _labels(stored: StoredSample, segments: list[int]) -> list[list[str]]:
    return [frame_labels(stored, segment) for segment in segments]


def _seconds(stored: StoredSample, segments: list[int]) -> list[list[float]] | None:
    if stored.seconds is None:
        return None
    return [[round(float(second), 3) for second in stored.seconds[k]] for k in segments]


def _poses(stored: StoredSample, segments: list[int], persons: list[int]) -> NDArray[np.float16] | None:
    """Return poses ``(m, k, t, v, c)`` about their common centre, absent persons at zero."""
    if stored.poses is None:
        return None
    poses = np.asarray(stored.poses, dtype=np.float32)[np.ix_(persons, segments)]
    if stored.present is None:
        present = np.ones(poses.shape[:2], dtype=bool)
    else:
        present = np.asarray(stored.present, dtype=bool)[np.ix_(persons, segments)]
    # float16 resolves a millimetre within a metre or two of zero, not at a camera's distance.
    centre = np.nanmean(poses[present].reshape(-1, poses.shape[-1]), axis=0)
    centred = np.where(present[:, :, None, None, None], poses - centre, 0)
    return centred.astype("<f2")
