"""Recorded attention in the form that BertViz takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.payload import head_view_payload

if TYPE_CHECKING:
    from tssan_viz.selection import Selection


def to_bertviz(
    selection: Selection,
    sample: str | None = None,
    *,
    segment: int | None = None,
    person: int | None = None,
) -> dict[str, Any]:
    """Return what ``bertviz.head_view`` and ``bertviz.model_view`` take.

    Parameters
    ----------
    selection
        Where to look; conditions on layer and head choose those that are handed over.
    sample
        The sample's name; by default the selection's first.
    segment, person
        Which of them, from 1; by default the first that was recorded.

    Returns
    -------
    dict
        ``attention``: per layer a float32 tensor ``(1, h, q, s)``; ``tokens``: one text per frame,
        such as ``"frame 12 · 0.40 s"``. BertViz writes tokens as markup; these are made of numbers.

    Raises
    ------
    UserError
        If the sample, the segment or the person was not recorded, or queries and keys are not the
        same frames.

    Examples
    --------
    >>> bertviz.head_view(**tssan_viz.to_bertviz(store.select(sample=name)))  # doctest: +SKIP
    """
    import torch

    payload = head_view_payload(selection, sample)
    manifest = payload.manifest
    shape = manifest["maps"]["shape"]
    if shape[-1] != shape[-2]:
        raise UserError(
            f"the maps are {shape[-2]} × {shape[-1]}: "
            "BertViz shows attention of frames to the same frames"
        )
    k, m = _place(manifest, segment, person)
    maps = np.frombuffer(payload.buffers["maps"], dtype="<f2").reshape(shape)[k, m]
    attention = tuple(torch.from_numpy(layer.astype(np.float32))[None] for layer in maps)
    labels = manifest["labels"][k] or [str(frame) for frame in range(shape[-1])]
    if manifest["seconds"] is None:
        tokens = [f"frame {label}" for label in labels]
    else:
        seconds = manifest["seconds"][k]
        tokens = [f"frame {label} · {at:.2f} s" for label, at in zip(labels, seconds, strict=True)]
    return {"attention": attention, "tokens": tokens}


def _place(manifest: dict[str, Any], segment: int | None, person: int | None) -> tuple[int, int]:
    """Return the indices of the first recorded segment and person that fit."""
    for k, of_segment in enumerate(manifest["segments"]):
        for m, of_person in enumerate(manifest["persons"]):
            fits = segment in (None, of_segment) and person in (None, of_person)
            if fits and manifest["present"][k][m]:
                return k, m
    raise UserError(
        f"sample {manifest['sample']} has segments {manifest['segments']} and persons "
        f"{manifest['persons']}; segment {segment} of person {person} was not recorded"
    )
