"""What the ES module is given, in every host: a small manifest beside float16 tensors.

The attention maps keep the very bits that the store holds; nothing is rounded a second time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from tssan_viz.errors import UserError
from tssan_viz.evidence.kept import evidence_line, kept_joints
from tssan_viz.views.schema import SCHEMA, Payload, SampleView, module_path
from tssan_viz.views.vectors import (
    AXES,
    checked,
    kept_queries,
    with_kept_queries,
    with_queries,
    write_queries,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from tssan_viz.selection import Selection
    from tssan_viz.store.schema import StoredSample

__all__ = [
    "Payload",
    "SampleView",
    "frame_labels",
    "head_view_payload",
    "heatmaps_payload",
    "initial_state",
    "keep_queries",
    "module_path",
    "query_key_payload",
    "sample_payload",
]

_EARLIER_BYTES = 16 * 2**20


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
        ``[k][m]`` says that nothing was recorded; poses float16 ``(m, k, t, v, c)`` of all persons
        of the video (``poses_present`` ``[m][k]``), centred about the mean of all present joints.
        Where a sample was recorded at several steps, ``maps`` are the newest's, ``steps`` names
        all and ``earlier`` holds the others' ``(n, k, m, layer, h, q, s)``: those of the newest's
        segments and persons, evenly thinned where they would be more than 16 MB. Where the maps are
        ``v`` × ``v`` and there are not as many frames, they are between joints (``token``
        "joint"). ``joints_lost`` (m, v) is there for a video that `tssan-viz explain` was asked
        about: what the logit of its class loses when one joint rests.

    Raises
    ------
    UserError
        If the selection holds no row of the sample, or holds it more than once.
    """
    chosen, before = _one_sample(selection, sample)
    rows, maps = _read(chosen)
    segments = sorted({_counted(value) for value in rows["segment"]})
    persons = sorted({_counted(value) for value in rows["person"]})
    ordered, counts = _placed(rows, maps, segments, persons)
    present = counts > 0
    if counts.max() > 1:
        raise UserError(
            f"sample {rows['sample'].iloc[0]} was recorded more than once under these "
            "conditions; phase= or where= chooses"
        )

    first = rows.iloc[0]
    stored = chosen.sample(str(first["sample"]))
    at = [segment - 1 for segment in segments]
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": "head",
        "sample": str(first["sample"]),
        "class_name": _plain(first["class_name"]),
        "predicted_name": chosen.catalogue.name_of(_plain(first["predicted"])),
        "correct": _plain(first["correct"]),
        "subject": _plain(first["subject"]),
        "camera": _plain(first["camera"]),
        "run": chosen.run,
        "layers": list(chosen.layers),
        "heads": list(chosen.heads),
        "segments": segments,
        "persons": persons,
        "fused": bool(rows["person"].isna().any()),
        "present": present.tolist(),
        "maps": {"dtype": "f2", "shape": list(ordered.shape)},
        "poses": None,
        "labels": [frame_labels(stored, k) for k in at],
        "seconds": _seconds(stored, at),
    }
    evidence = evidence_line(
        chosen.store, chosen.run, label=_plain(first["label"]), sample=manifest["sample"]
    )
    if evidence is not None:
        manifest["evidence"] = evidence
    buffers = {"maps": ordered.tobytes()}
    earlier = _earlier(before, segments, persons, present, ordered.nbytes)
    if earlier:
        stacked = np.stack(list(earlier.values()))
        manifest |= {
            "steps": [*earlier, int(first["step"])],
            "earlier": {"dtype": "f2", "shape": list(stacked.shape)},
        }
        buffers["earlier"] = stacked.tobytes()
    skeleton = chosen.catalogue.skeleton
    if stored.poses is not None and skeleton is not None:
        poses, there = _centred_poses(stored.poses, stored.present, at)
        manifest |= {
            "poses": {"dtype": "f2", "shape": list(poses.shape)},
            "poses_present": there.tolist(),
            "bones": [[int(one), int(other)] for one, other in skeleton.bones],
            "sides": [str(side) for side in skeleton.sides],
            "head_joint": _plain(skeleton.head_joint),
            "units": skeleton.units,
        }
        buffers["poses"] = poses.tobytes()
        manifest["joint_names"] = list(skeleton.joints)
        lost = kept_joints(chosen.store, chosen.run, _plain(first["label"]), manifest["sample"])
        if lost is not None:
            manifest["joints_lost"] = lost
    if _between_joints(manifest):
        named = [manifest["joint_names"]] * len(segments)
        manifest |= {"token": "joint", "labels": named, "seconds": None}
    if isinstance(first.get("tokens"), str):
        return _of_tokens(Payload(manifest, buffers), first["tokens"])
    return Payload(manifest, buffers)


def sample_payload(
    selection: Selection, sample: str | None = None, *, view: SampleView = "explore"
) -> Payload:
    """Collect one sample's maps and poses for any of the views of a video.

    Parameters
    ----------
    selection, sample
        As in `head_view_payload`, whose payload all of these views take.
    view
        ``"head"``, ``"model"``, ``"heat"``, ``"player"``, ``"query-key"``, or ``"explore"`` for
        all, linked; queries and keys are among them where they were recorded.

    Raises
    ------
    UserError
        As `head_view_payload`; or the player is asked for, and no poses were recorded, or queries
        and keys, and none were.
    """
    if view == "query-key":
        return query_key_payload(selection, sample=sample)
    payload = head_view_payload(selection, sample)
    if view == "player" and "poses" not in payload.buffers:
        raise UserError(
            f"run {selection.run!r} was recorded without poses: there is nothing to play"
        )
    if view == "explore":
        payload = with_kept_queries(payload, selection)
    return Payload({**payload.manifest, "view": view}, payload.buffers)


def query_key_payload(
    selection: Selection,
    queries: ArrayLike | None = None,
    keys: ArrayLike | None = None,
    sample: str | None = None,
) -> Payload:
    """Collect one sample's queries and keys beside its maps and poses.

    They are drawn in a plane that is as true to both as a plane can be, as AttentionViz has it
    (Yeh et al. 2023): keys are moved onto the queries' centre and scaled against them, neither of
    which changes attention; then the two first principal components of all of them.

    Parameters
    ----------
    selection, sample
        Where the maps are; see `head_view_payload`.
    queries, keys
        What attended: float (k, m, layer, h, t, d), for the segments, persons, layers and heads
        that the selection has, in their order. By default those that were recorded.

    Returns
    -------
    Payload
        Of `head_view_payload`, and ``query_vectors``, ``key_vectors`` float16
        (k, m, layer, h, t, d), ``plane`` float32 (k, m, layer, h, 2, t, 2): queries, then keys;
        ``explained`` in the manifest: the share (k, m, layer, h) of the variance in the plane.

    Raises
    ------
    UserError
        None were recorded, the arrays have another shape than the maps ask for, or
        softmax(q kᵀ / √d) does not give the maps.
    """
    payload = head_view_payload(selection, sample)
    if queries is None or keys is None:
        kept = kept_queries(selection, payload.manifest)
        if kept is None:
            raise UserError(
                f"no queries and keys were recorded of {payload.manifest['sample']}: "
                "`tssan-viz record --queries` and tssan_viz.keep_queries keep them, and "
                "`tssan-viz view --kind query-key` takes the file of a video, which the network "
                "of --run is shown again"
            )
        queries, keys = kept
    # The queries are those of one state of the network.
    dropped = {"steps", "earlier"}
    manifest, buffers = (
        {name: value for name, value in given.items() if name not in dropped}
        for given in (payload.manifest, payload.buffers)
    )
    return with_queries(Payload({**manifest, "view": "query-key"}, buffers), queries, keys)


def keep_queries(
    selection: Selection, queries: ArrayLike, keys: ArrayLike, sample: str | None = None
) -> None:
    """Keep the queries and keys of one sample beside its maps, for the views to show.

    Parameters
    ----------
    selection, sample
        Where the maps are; see `tssan_viz.views.head_view_payload`.
    queries, keys
        What attended: float (k, m, layer, h, t, d), for the segments, persons, layers and heads
        that the selection has, in their order. They are kept as float32.

    Raises
    ------
    UserError
        They are not what made the maps, or the store cannot be written to.
    """
    payload = head_view_payload(selection, sample)
    q, k = checked(payload, queries, keys)
    at = {name: payload.manifest[name] for name in AXES}
    write_queries(
        selection.store, selection.run, selection.stream, payload.manifest["sample"], (q, k), at
    )


def initial_state(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the state in which a head view begins, as the module has it.

    Parameters
    ----------
    manifest
        Of `head_view_payload`.

    Returns
    -------
    dict
        ``layer`` (the last), ``heads`` (all), ``locked`` (None), ``segment`` and ``person`` (the
        first that was recorded), ``orientation``, ``step`` (the newest of several, or None).
    """
    segment, person = next(
        (segment, person)
        for segment, row in zip(manifest["segments"], manifest["present"], strict=True)
        for person, there in zip(manifest["persons"], row, strict=True)
        if there
    )
    return {
        "layer": manifest["layers"][-1],
        "heads": list(manifest["heads"]),
        "locked": None,
        "segment": segment,
        "person": person,
        "orientation": "auto",
        "step": manifest["steps"][-1] if "steps" in manifest else None,
    }


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
        Per map ``"seq"`` (from the least to the largest, viridis) or ``"div"`` (even about 0, red
        above, blue below); all maps of a kind share one scale. By default all are ``"seq"``.
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
        raise ValueError(
            f"{len(array)} maps need as many titles and kinds, got {len(titles)} and {len(chosen)}"
        )
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
    return [str(math.floor(float(frame) + 0.5)) for frame in stored.frames[segment]]


def _of_tokens(payload: Payload, tokens: str) -> Payload:
    """Name the tokens of a payload that was recorded from a text, and leave out its padding.

    Parameters
    ----------
    payload
        Of `tssan_viz.views.payload.head_view_payload`.
    tokens
        The column ``tokens`` that `record_attentions` wrote.
    """
    texts = json.loads(tokens)
    manifest = payload.manifest
    maps = np.frombuffer(payload.buffers["maps"], "<f2").reshape(manifest["maps"]["shape"])
    kept = np.ascontiguousarray(maps[..., : len(texts), : len(texts)])
    changed = {
        "token": "token",
        "maps": {"dtype": "f2", "shape": list(kept.shape)},
        "labels": [texts] * len(manifest["segments"]),
        "seconds": None,
    }
    return Payload({**manifest, **changed}, {**payload.buffers, "maps": kept.tobytes()})


def _between_joints(manifest: dict[str, Any]) -> bool:
    """Whether the maps are between a skeleton's joints: as many as it has, and not as frames."""
    if manifest["poses"] is None:
        return False
    t, v = manifest["poses"]["shape"][2:4]
    return bool(v != t and manifest["maps"]["shape"][-2:] == [v, v])


def _one_sample(selection: Selection, sample: str | None) -> tuple[Selection, list[Selection]]:
    """Narrow a selection to one sample: its newest step, and each of the earlier ones."""
    if not len(selection):
        raise UserError(f"there is nothing to show: {selection}")
    if sample is None:
        sample = str(selection.rows()["sample"].iloc[0])
    # A video out of a whole run has been looked up already by who shows one after another.
    alone = (selection.rows()["sample"] == sample).all()
    chosen = selection if alone else selection.select(sample=sample)
    if not len(chosen):
        raise UserError(f"there is nothing to show: {chosen}")
    steps = sorted({int(step) for step in chosen.rows()["step"].dropna()})
    if len(steps) < 2:
        return chosen, []
    *before, newest = (chosen.select(step=step) for step in steps)
    return newest, before


def _placed(
    rows: pd.DataFrame, maps: NDArray[np.float16], segments: list[int], persons: list[int]
) -> tuple[NDArray[np.float16], NDArray[np.intp]]:
    """Return maps by segment and person (k, m, layer, h, q, s), and how many there were (k, m)."""
    ordered = np.zeros((len(segments), len(persons), *maps.shape[1:]), dtype="<f2")
    counts = np.zeros((len(segments), len(persons)), dtype=np.intp)
    for row, (segment, person) in enumerate(zip(rows["segment"], rows["person"], strict=True)):
        place = segments.index(_counted(segment)), persons.index(_counted(person))
        ordered[place] = maps[row]
        counts[place] += 1
    return ordered, counts


def _earlier(
    before: list[Selection],
    segments: list[int],
    persons: list[int],
    present: NDArray[np.bool_],
    size: int,
) -> dict[int, NDArray[np.float16]]:
    """Return the maps of earlier steps, of those that were recorded as the newest was."""
    most = max(1, _EARLIER_BYTES // size)
    if len(before) > most:
        before = [before[i] for i in np.linspace(0, len(before) - 1, most).round().astype(int)]
    found = {}
    for selection in before:
        rows, maps = _read(selection)
        known = set(rows["segment"].map(_counted)) <= set(segments)
        if not known or not set(rows["person"].map(_counted)) <= set(persons):
            continue
        ordered, counts = _placed(rows, maps, segments, persons)
        if np.array_equal(counts, present.astype(np.intp)):
            found[int(rows["step"].iloc[0])] = ordered
    return found


def _read(selection: Selection) -> tuple[pd.DataFrame, NDArray[np.float16]]:
    """Return the rows of a selection and their maps (r, layer, h, q, s), as stored."""
    parts = list(selection.iter_maps())
    if len(parts) == 1:
        return parts[0]
    return pd.concat([rows for rows, _ in parts]), np.concatenate([maps for _, maps in parts])


def _counted(value: Any) -> int:
    """Return a segment or person from 1; rows with fused persons carry none and are the first."""
    return 1 if pd.isna(value) else int(value)


def _plain(value: Any) -> Any:
    """Return a scalar as JSON has it; what is missing becomes null."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _seconds(stored: StoredSample, segments: list[int]) -> list[list[float]] | None:
    if stored.seconds is None:
        return None
    return [[round(float(second), 3) for second in stored.seconds[k]] for k in segments]


def _centred_poses(
    poses: NDArray[np.float32], present: NDArray[np.bool_] | None, segments: list[int]
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Return poses ``(m, k, t, v, c)`` about their common centre, and who is there ``(m, k)``."""
    chosen = poses[:, segments]
    there = np.ones(chosen.shape[:2], bool) if present is None else present[:, segments]
    seen = chosen[there]
    seen = seen[np.isfinite(seen).all(axis=-1)]
    # float16 resolves a millimetre within two metres of zero, not at a camera's distance; what lies
    # in the hundreds (pixels) it resolves to a quarter, which no drawing shows.
    centre = seen.mean(axis=0) if len(seen) else np.zeros(chosen.shape[-1], np.float32)
    centred = np.where(there[:, :, None, None, None], chosen - centre, 0)
    return centred.astype("<f2"), there
