"""Maps that are read when they are looked at, as an array for xarray and Dask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from tssan_viz.errors import UserError
from tssan_viz.store.schema import decode

if TYPE_CHECKING:
    from tssan_viz.store.reader import AttentionStore

_CHUNK_BYTES = 64 << 20


class StoredMaps:
    """The maps of rows as an array that reads only what an index asks for.

    Parameters
    ----------
    store, run
        Where they are.
    row_ids : int64 (r,)
        Rows of the run.
    sites
        For each site's number the heads, each site as many.
    shape
        ``(r, l, h, q, s)``.
    """

    dtype = np.dtype(np.float32)
    ndim = 5

    def __init__(
        self,
        store: AttentionStore,
        run: str,
        row_ids: np.ndarray,
        sites: Mapping[int, tuple[int, ...]],
        shape: tuple[int, ...],
    ) -> None:
        self._store = store
        self._run = run
        self._row_ids = row_ids
        self._sites = dict(sites)
        self.shape = shape

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the part at a key: an integer, slice or list of integers for each dimension."""
        chosen = [
            np.atleast_1d(np.arange(size)[index])
            for size, index in zip(self.shape, key, strict=True)
        ]
        rows, layers, heads, query, keys = chosen
        numbers = list(self._sites)
        wanted = {
            numbers[layer]: tuple(self._sites[numbers[layer]][head] for head in heads)
            for layer in np.unique(layers)
        }
        if 0 in (len(part) for part in chosen):
            values = np.empty([len(part) for part in chosen], np.float32)
        else:
            maps = self._store.read_maps(self._run, self._row_ids[rows], wanted)
            at = np.searchsorted(np.unique(layers), layers)
            values = decode(maps if (at == np.arange(maps.shape[1])).all() else maps[:, at])
            if len(query) < self.shape[3] or len(keys) < self.shape[4] or _mixed(query, keys):
                values = values[..., query[:, None], keys]
        whole = tuple(
            0 if np.ndim(i) == 0 and not isinstance(i, slice) else slice(None) for i in key
        )
        return values[whole]


def _mixed(*indices: np.ndarray) -> bool:
    return any((index != np.arange(len(index))).any() for index in indices)


class _Backend(BackendArray):
    """The same for xarray, which asks in index objects of its own."""

    def __init__(self, maps: StoredMaps) -> None:
        self._maps = maps
        self.shape = maps.shape
        self.dtype = maps.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._maps.__getitem__
        )


def lazy(maps: StoredMaps) -> xarray.Variable:
    """Return maps as an xarray variable that reads at the first look and then remembers."""
    cached: Any = indexing.MemoryCachedArray(indexing.LazilyIndexedArray(_Backend(maps)))
    return xarray.Variable(
        ("row", "layer", "head", "query", "key"), indexing.CopyOnWriteArray(cached)
    )


def chunked(maps: StoredMaps, rows: int | None) -> Any:
    """Return maps as a Dask array: one layer and some rows in a chunk.

    Raises
    ------
    UserError
        Dask is not installed.
    """
    try:
        import dask.array
    except ImportError as error:
        raise UserError(
            "Dask is not installed; `pip install tssan-viz[distributed]` brings it, and "
            "iter_maps and mean go through the maps in bounded memory without it"
        ) from error
    r, _, h, q, s = maps.shape
    rows = rows or max(1, _CHUNK_BYTES // (4 * h * q * s))
    return dask.array.from_array(maps, chunks=(min(rows, r), 1, h, q, s), asarray=False, name=False)
