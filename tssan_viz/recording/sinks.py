"""Where recorded maps go: the store, host memory, or a function of the user's.

A sink is three calls, made by one thread at a time, in this order::

    begin(sites, info)    once, before the first block, when the sizes of the maps are known
    write(block)          for each forward call that has rows
    end(error)            once, if it was begun; `error` is what broke the recording off, or None

What a sink raises comes out of the recorder's next call. Three things are looked for besides, and
need not be there: `flush()`, which returns when all that was written is safe, `acknowledged`, how
many rows are, and `skipped`, how many of them were there before. A sink without them is taken at
its word when `write` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tssan_viz.recording.errors import RecordingError
from tssan_viz.site import Site

if TYPE_CHECKING:
    import xarray

    from tssan_viz.store import AttentionStore, RunWriter
    from tssan_viz.store.catalogue import Catalogue
    from tssan_viz.store.schema import StoredSample


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of one forward call.

    Attributes
    ----------
    rows
        One list per column, one value per row: sample, segment, person, step, epoch, phase and
        what `Recorder.samples` was told.
    maps : float16 (r, h, q, s) for each site's name
        In the order of the sites.
    measures : float32 (r, h) for each measure's name and site's name
        See `tssan_viz.recording.map_measures`.
    stored
        What views need of the samples; each comes once.
    """

    rows: Mapping[str, list[Any]]
    maps: Mapping[str, np.ndarray]
    measures: Mapping[str, Mapping[str, np.ndarray]]
    stored: Sequence[StoredSample] = field(default=())

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows["sample"])


@runtime_checkable
class Sink(Protocol):
    """What takes recorded maps; see `tssan_viz.recording.sinks`."""

    def begin(self, sites: Sequence[Site], info: Mapping[str, Any]) -> None:
        """Get ready for maps of these sizes."""

    def write(self, block: Block) -> None:
        """Take the rows of one forward call."""

    def end(self, error: BaseException | None) -> None:
        """Finish; `error` is what broke the recording off."""


class StoreSink:
    """Writes a run of an attention store; each of several processes writes its own rows.

    Attributes
    ----------
    report
        What is to be remembered of this recording beside its rows; JSON.
    """

    def __init__(
        self,
        store: AttentionStore | str | PathLike[str],
        run: str,
        catalogue: Catalogue | None,
        *,
        rank: int = 0,
    ) -> None:
        if isinstance(store, str | PathLike):
            from tssan_viz.store import open_store

            store = open_store(str(store), create=True)
        self._store = store
        self._run = run
        self._catalogue = catalogue
        self._rank = rank
        self._writer: RunWriter | None = None
        self._acknowledged = self._skipped = 0
        self.report: dict[str, Any] = {}

    @property
    def acknowledged(self) -> int:
        """Rows of this recording that are on the disk, those that were there before included."""
        if self._writer is not None and hasattr(self._writer, "rows_acknowledged"):
            self._acknowledged = self._writer.rows_acknowledged + self._writer.rows_skipped
        return self._acknowledged

    @property
    def skipped(self) -> int:
        """Rows of this recording that were there before."""
        if self._writer is not None and hasattr(self._writer, "rows_skipped"):
            self._skipped = self._writer.rows_skipped
        return self._skipped

    def begin(self, sites: Sequence[Site], info: Mapping[str, Any]) -> None:
        """Open the run, or go on with it."""
        catalogue = self._catalogue
        if catalogue is None:
            from tssan_viz.store.catalogue import Catalogue

            catalogue = Catalogue(dataset=self._run, classes=())
        rank: dict[str, Any] = {"rank": self._rank} if self._rank else {}
        self._writer = self._store.writer(
            self._run, sites=list(sites), catalogue=catalogue, info=dict(info), **rank
        )

    def write(self, block: Block) -> None:
        """Add the rows; the writer commits when enough have come together."""
        assert self._writer is not None
        if block.stored:
            self._writer.add_samples(list(block.stored))
        self._writer.add(block.rows, block.maps, block.measures)

    def flush(self) -> None:
        """Return when everything is on the disk."""
        assert self._writer is not None
        self._writer.flush()

    def end(self, error: BaseException | None) -> None:
        """Bring everything to the disk and let others write the run."""
        assert self._writer is not None
        self._writer.report = self.report
        try:
            if error is None:
                self._writer.close()
            else:
                self._writer.__exit__(type(error), error, error.__traceback__)
        finally:
            self._acknowledged, self._skipped = self.acknowledged, self.skipped
            self._writer = None


class MemorySink:
    """Keeps all maps in host memory; needs neither Lance nor DuckDB.

    Attributes
    ----------
    sites
        Those recorded, once there is a block.
    blocks
        As they came.
    """

    def __init__(self) -> None:
        self.sites: tuple[Site, ...] = ()
        self.blocks: list[Block] = []

    def begin(self, sites: Sequence[Site], info: Mapping[str, Any]) -> None:
        """Remember the sites."""
        self.sites = tuple(sites)

    def write(self, block: Block) -> None:
        """Keep the block."""
        self.blocks.append(block)

    def end(self, error: BaseException | None) -> None:
        """Nothing is left to do: the blocks are there."""

    def maps(self, *, stream: str | None = None, site: str | None = None) -> xarray.DataArray:
        """Return the maps as a labelled array; see `Recorder.maps`."""
        import xarray

        if not self.blocks:
            raise RecordingError("nothing was recorded yet: announce samples and call the model")
        chosen = self._chosen(stream, site)
        numbers = {s.numbers for s in chosen}
        if len(numbers) > 1:
            raise RecordingError(
                f"the sites were recorded with other heads each: {sorted(numbers)}; give site= one "
                f"of {', '.join(s.name for s in chosen)}"
            )
        values = np.stack(
            [np.concatenate([block.maps[s.name] for block in self.blocks]) for s in chosen], axis=1
        ).astype(np.float32)
        columns = {name for block in self.blocks for name in block.rows}
        along_row = {
            name: (
                "row",
                _coordinate(
                    [
                        value
                        for block in self.blocks
                        for value in block.rows.get(name, [None] * block.count)
                    ]
                ),
            )
            for name in sorted(columns)
        }
        return xarray.DataArray(
            values,
            dims=("row", "layer", "head", "query", "key"),
            coords={
                "layer": [s.layer for s in chosen],
                "site": ("layer", [s.name for s in chosen]),
                "head": list(next(iter(numbers))),
                "query": np.arange(values.shape[3]),
                "key": np.arange(values.shape[4]),
                **along_row,
            },
            name="attention",
            attrs={"stream": chosen[0].stream, "kind": chosen[0].kind},
        )

    def _chosen(self, stream: str | None, site: str | None) -> list[Site]:
        """Return the sites asked for, which have one stream and one size."""
        streams = list(dict.fromkeys(s.stream for s in self.sites))
        if site is not None:
            chosen = [s for s in self.sites if s.name == site]
            if not chosen:
                names = ", ".join(s.name for s in self.sites)
                raise RecordingError(f"no site is called {site!r}; recorded were {names}")
            return chosen
        if stream is None and len(streams) > 1:
            raise RecordingError(f"several streams were recorded: give stream= one of {streams}")
        chosen = [s for s in self.sites if stream in (None, s.stream)]
        if not chosen:
            raise RecordingError(f"no stream is called {stream!r}; recorded were {streams}")
        sizes = {(s.heads, s.query, s.key) for s in chosen}
        if len(sizes) > 1:
            raise RecordingError(
                f"the sites' maps differ in (heads, query, key): {sorted(sizes)}; give site= one "
                f"of {', '.join(s.name for s in chosen)}"
            )
        return chosen


class FunctionSink:
    """Hands every block to a function of the user's, ``function(sites, block)``."""

    def __init__(self, function: Callable[[Sequence[Site], Block], object]) -> None:
        self._function = function
        self._sites: tuple[Site, ...] = ()

    def begin(self, sites: Sequence[Site], info: Mapping[str, Any]) -> None:
        """Remember the sites for the calls."""
        self._sites = tuple(sites)

    def write(self, block: Block) -> None:
        """Call the function."""
        self._function(self._sites, block)

    def end(self, error: BaseException | None) -> None:
        """Nothing: the function was called block by block."""


def sink_for(target: Any, run: str, catalogue: Catalogue | None, *, rank: int = 0) -> Sink:
    """Make of what `record` was given a sink: None is memory, a path or a store is a store."""
    if target is None:
        return MemorySink()
    if isinstance(target, str | PathLike) or hasattr(target, "writer"):
        return StoreSink(target, run, catalogue, rank=rank)
    if isinstance(target, Sink):
        return target
    if callable(target):
        return FunctionSink(target)
    raise RecordingError(
        f"maps cannot be recorded into a {type(target).__name__}: give a store or its folder, None "
        "for memory, a function of (sites, block), or an object with begin, write and end"
    )


def _coordinate(values: list[Any]) -> np.ndarray:
    """Return values as one array: numbers where all are numbers, else objects."""
    array = np.asarray(values)
    return array if array.dtype.kind in "biuf" else np.array(values, dtype=object)
