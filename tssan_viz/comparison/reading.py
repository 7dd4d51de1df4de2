"""How the layers of a selection are read for a comparison, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tssan_viz.comparison.cells import ReadMaps
from tssan_viz.store.schema import decode

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store import Site

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def site_of(selection: Selection, layer: int) -> dict[str, int]:
    """Return heads, query and key length of a layer."""
    site = _sites(selection)[layer]
    return {"heads": site.heads, "query": site.query, "key": site.key}


def heads_of_layers(selection: Selection) -> dict[int, tuple[list[int], bool]]:
    """Return for each layer the heads that it has of those asked for, and whether that is all."""
    sites = _sites(selection)
    found = {}
    for layer in selection.layers:
        there = sites[layer].numbers
        heads = [head for head in selection.heads if head in there]
        if heads:
            found[layer] = (heads, len(heads) == len(there))
    return found


def _sites(selection: Selection) -> dict[int, Site]:
    sites = selection.store.stored_sites(selection.run)
    return {site.layer: site for site in sites if site.stream == selection.stream}


def map_reader(
    selection: Selection, progress: Progress | None = None, done: int = 0, layers: int = 1
) -> ReadMaps:
    """Read the one layer of a selection, in the order of its rows."""

    def read(rows: int) -> Iterator[NDArray[np.floating]]:
        seen = 0
        for frame, maps in selection.iter_maps(rows):
            yield decode(maps[:, 0])
            seen += len(frame)
            if progress is not None:
                progress("reading maps", done * len(selection) + seen, layers * len(selection))

    return read
