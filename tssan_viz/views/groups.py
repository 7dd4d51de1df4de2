"""What the compare view and the evolution view are given: mean maps of groups, of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError
from tssan_viz.views.payload import SCHEMA, Payload

if TYPE_CHECKING:
    import xarray

    from tssan_viz.comparison.difference import DifferenceMaps
    from tssan_viz.selection import Selection


def difference_payload(
    difference: DifferenceMaps,
    names: tuple[str, str] = ("first group", "second group"),
    *,
    parts: Sequence[tuple[str, xarray.DataArray]] = (),
) -> Payload:
    """Collect two groups' mean maps and their difference for the compare view.

    Parameters
    ----------
    difference
        From `tssan_viz.comparison.difference.difference_maps`.
    names
        What the groups are called.
    parts
        Mean maps that are shown one by one below: what a group is called and its means
        ``(by, layer, head, q, s)``, as `Selection.mean` gives them.

    Returns
    -------
    Payload
        Maps float32 ``(h, 3, q, s)``: one group, the other, their difference; ``outlined`` uint8
        ``(h, q, s)``: 1 where the difference is significant; ``parts`` float32 ``(h, p, q, s)``,
        where there are any.
    """
    maps = np.stack([difference.mean_a, difference.mean_b, difference.difference], axis=1)
    if not np.isfinite(maps).all():
        raise UserError("the mean maps hold values that are not finite numbers")
    kept = np.ascontiguousarray(maps, dtype="<f4")
    outlined = np.ascontiguousarray(difference.significant, dtype=np.uint8)
    places = [[int(n), int(h)] for n, h in zip(difference.layers, difference.heads, strict=True)]
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": "compare",
        "places": places,
        "layers": sorted({layer for layer, _ in places}),
        "heads": sorted({head for _, head in places}),
        "titles": [*map(str, names), "difference"],
        "maps": {"dtype": "f4", "shape": list(kept.shape)},
        "outlined": {"dtype": "b1", "shape": list(outlined.shape)},
        "labels": None,
        "units": {"seq": "mean attention weight", "div": f"more in {names[0]} (red)"},
        "tested": bool(difference.tested),
        "test": _test(difference) if difference.tested else "",
        "notes": [str(note) for note in difference.notes],
    }
    buffers = {"maps": kept.tobytes(), "outlined": outlined.tobytes()}
    if parts:
        titles: list[str] = []
        means = []
        for name, mean in parts:
            by = str(mean.dims[0])
            titles += [f"{name} · {by.removesuffix('_name')} {one}" for one in mean[by].values]
            means.append(
                np.stack([mean.sel(layer=n, head=h).values for n, h in places]).astype("<f4")
            )
        shown = np.nan_to_num(np.concatenate(means, axis=1))
        manifest |= {
            "part_titles": titles,
            "parts": {"dtype": "f4", "shape": list(shown.shape)},
        }
        buffers["parts"] = shown.tobytes()
    return Payload(manifest, buffers)


def _test(difference: DifferenceMaps) -> str:
    """Say which test it was, of whom, and what it corrects for."""
    who = len(set(difference.subjects_a) | set(difference.subjects_b))
    number, how = difference.n_permutations, "random"
    if difference.enumerated:
        number, how = difference.n_assignments, "all"
    return (
        f"Permutation test, {difference.exchange}: n = {who} subjects, "
        f"{number:,} assignments ({how}), max-T over all cells of all maps, "
        f"two-sided, p ≤ {difference.alpha:g}, seed {difference.seed}."
    )


def evolution_payload(selection: Selection, *, layer: int, head: int) -> Payload:
    """Collect one head's mean map at every recorded step for the evolution view.

    Parameters
    ----------
    selection
        Of a run that was recorded while it trained.
    layer, head
        Which head, from 1.

    Returns
    -------
    Payload
        Maps float32 ``(n, q, s)``, one per step; ``lines``: the mean entropy of the rows (0: all
        on one frame, 1: even) where the recorder measured it, and otherwise of the mean map; and
        the class's share of the variance (`tssan_viz.comparison.variance`) where it can be told.

    Raises
    ------
    UserError
        The head was not recorded, or the selection is empty.
    """
    chosen = selection.select(layer=layer, head=head)
    means = chosen.mean("step")
    steps = [int(step) for step in means["step"].values]
    maps = np.ascontiguousarray(means.values[:, 0, 0], dtype="<f4")
    measures = chosen.measures()
    if "entropy" in measures and len(measures):
        by_step = measures.groupby("step")["entropy"].mean()
        name, entropy = "entropy", [by_step.get(step, np.nan) for step in steps]
    else:
        name, entropy = "entropy of the mean map", list(_entropy(maps))
    lines = [(name, entropy)]
    shares = [_class_share(chosen, step) for step in steps]
    if any(share is not None for share in shares):
        lines.append(("class share of the variance", shares))
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "view": "evolution",
        "title": f"{chosen.run} · layer {layer}, head {head}",
        "steps": steps,
        "layer": layer,
        "head": head,
        "maps": {"dtype": "f4", "shape": list(maps.shape)},
        "labels": None,
        "lines": [
            {
                "name": name,
                "values": [None if v is None or not np.isfinite(v) else float(v) for v in values],
            }
            for name, values in lines
        ],
    }
    return Payload(manifest, {"maps": maps.tobytes()})


def _class_share(chosen: Selection, step: int) -> float | None:
    """Return the share of the maps' variance that is of the class; None where it cannot be told."""
    from tssan_viz.comparison.variance import variance_shares

    try:
        share = float(variance_shares(chosen.select(step=step)).wide()["class"].iloc[0])
    except UserError:
        return None
    # An estimate without bias may lie below 0; the axis begins there.
    return max(share, 0.0) if np.isfinite(share) else None


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Return the mean entropy of each map's rows (n, q, s) over that of even attention."""
    keys = maps.shape[-1]
    if keys < 2:
        return np.zeros(len(maps))
    p = maps.astype(np.float64)
    return -(p * np.log(np.maximum(p, 1e-30))).sum(-1).mean(-1) / np.log(keys)
