"""Keeping stores: small files merged, runs removed, runs of several stores brought together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store.claims import only_writer
from tssan_viz.store.durable import RunLock, nobody_writes
from tssan_viz.store.incoming import OWN_COLUMNS
from tssan_viz.store.places import BucketPath, Place, beside, reason, remove_all
from tssan_viz.store.reader import AttentionStore
from tssan_viz.store.schema import MEASURES, SCHEMAS, Site, run_folder
from tssan_viz.store.tables import DurableTable, StoreDamaged, StoreWriteError
from tssan_viz.store.writer import RunWriter

_PART_BYTES = 32 << 20


def compact(store: AttentionStore) -> tuple[int, int]:
    """Merge small files and drop what no version names any more.

    Recordings end with the same; this is for stores whose recordings were killed.

    Returns
    -------
    before, after
        Bytes on the disk.

    Raises
    ------
    StoreWriteError
        The folder cannot be written.
    """
    before = store.size()
    with _changing(store), only_writer(store.path):
        _compact(store)
    return before, store.size()


@contextmanager
def _changing(store: AttentionStore) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreWriteError(
            f"{store.url} cannot be changed: {reason(error)}", may_retry=False
        ) from error


def _compact(store: AttentionStore) -> None:
    alone = nobody_writes(store.path)
    for name, schema in SCHEMAS.items():
        table = DurableTable(store.path / name, schema, shared=True)
        table.compact()
        table.clean(alone=alone)
    folders: list[Place] = [*(store.path / "maps").glob("*/*x*")]
    for folder in folders:
        rank = int(folder.name.partition("-rank")[2] or 0)
        try:
            lock = _lock(folder.parent, folder.parent.name, rank)
        except UserError:
            # It is being recorded, and will be merged at its end.
            continue
        with lock:
            dataset = store.dataset(str(folder.relative_to(store.path)))
            if dataset is None:
                continue
            table = DurableTable(folder, dataset.schema, shared=False, digest_data=False)
            table.compact()
            table.clean()


def _lock(folder: Place, run: str, rank: int) -> AbstractContextManager[object]:
    """Keep others from a run's rank; whoever is a bucket's only writer has done so."""
    return nullcontext() if isinstance(folder, BucketPath) else RunLock(folder, run, rank)


def remove(store: AttentionStore, run: str) -> int:
    """Remove a run with all that belongs to it.

    Returns
    -------
    int
        The bytes that became free.

    Raises
    ------
    UserError
        There is no such run, it is being recorded, or the folder cannot be written.
    """
    run = store.checked_run(run)
    before = store.size()
    folder = store.path / "maps" / run_folder(run)
    with _changing(store), only_writer(store.path), ExitStack() as locks:
        # Every rank that ever wrote it.
        for lock in sorted(folder.glob(".lock*")):
            rank = int(lock.name.partition("-rank")[2] or 0)
            locks.enter_context(_lock(folder, run, rank))
        alone = nobody_writes(store.path, besides=folder)
        # The list of runs first: from then on nothing of it is shown, whatever happens.
        for name in ["runs", *(name for name in SCHEMAS if name != "runs")]:
            table = DurableTable(store.path / name, SCHEMAS[name], shared=True)
            if table.open() is not None:
                table.delete(pc.field("run") == run)
                table.compact()
                table.clean(alone=alone)
        remove_all(folder)
        for kept in ("cells", "nearest"):
            remove_all(beside(store.path) / kept / run_folder(run))
    return before - store.size()


@dataclass
class Merged:
    """What came of bringing runs together.

    Attributes
    ----------
    runs : list of str
    rows, skipped : int
        Rows that were copied, and rows that were there already.
    damaged : list of str
        Rows that could not be copied, and why.
    """

    runs: list[str] = field(default_factory=list)
    rows: int = 0
    skipped: int = 0
    damaged: list[str] = field(default_factory=list)


def merge(
    sources: Sequence[AttentionStore],
    into: AttentionStore,
    *,
    run: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Copy the runs of stores into another; every map is compared with its checksum on the way.

    Runs of the same name become one where their sites, catalogue and checkpoint agree; rows that
    are there already are left out, so that an interrupted merge is simply done again. Rows that
    are damaged are left out and named. A run of several ranks becomes one of rank 0.

    Parameters
    ----------
    sources
        Where the runs are; stores of older formats too.
    into
        Where they go.
    run
        This run only.
    progress
        Called with the rows done and the rows there are.

    Raises
    ------
    UserError
        A run is there with other sites, another catalogue, code or checkpoint.
    """
    merged = Merged()
    pairs = [
        (source, name)
        for source in sources
        for name in ([source.checked_run(run)] if run else source.run_names())
    ]
    total = sum(len(source.rows(name)) for source, name in pairs)
    for source, name in pairs:
        _copy(source, name, into, merged, lambda done: progress and progress(done, total))
        if name not in merged.runs:
            merged.runs.append(name)
    return merged


def _copy(
    source: AttentionStore,
    run: str,
    into: AttentionStore,
    merged: Merged,
    progress: Callable[[int], object],
) -> None:
    sites = source.stored_sites(run)
    with RunWriter(
        into.path,
        run,
        sites=sites,
        catalogue=source.stored_catalogue(run),
        info=source.info(run),
        code=source.stored_code(run),
        created=source.created(run),
    ) as writer:
        rows = source.rows(run)
        names = list(dict.fromkeys(rows["sample"]))
        for sample in source.stored_samples(run, names):
            writer.add_samples([sample])
        measures = RowMeasures(source, run, sites)
        for part in _parts(rows, sites):
            whole, maps = _whole_maps(source, run, part, sites, merged)
            progress(merged.rows + writer.rows_skipped + len(part))
            if len(whole):
                writer.add(columns_of(whole), maps, measures.of(whole))
        writer.flush()
        merged.rows += writer.rows_acknowledged
        merged.skipped += writer.rows_skipped


def _parts(rows: pd.DataFrame, sites: Sequence[Site]) -> Iterator[pd.DataFrame]:
    line = sum(4 * site.heads * site.query * site.key for site in sites)
    step = max(1, _PART_BYTES // line)
    for start in range(0, len(rows), step):
        yield rows.iloc[start : start + step]


def _whole_maps(
    source: AttentionStore,
    run: str,
    rows: pd.DataFrame,
    sites: Sequence[Site],
    merged: Merged,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the rows whose maps can be read, and these."""
    try:
        return rows, all_maps(source, run, rows, sites)
    except StoreDamaged as error:
        if len(rows) == 1:
            merged.damaged.append(str(error).split(". `tssan-viz")[0])
            return rows.iloc[:0], {}
    half = len(rows) // 2
    parts = [
        _whole_maps(source, run, part, sites, merged)
        for part in (rows.iloc[:half], rows.iloc[half:])
    ]
    whole = [part for part in parts if len(part[0])]
    if not whole:
        return rows.iloc[:0], {}
    return pd.concat([part for part, _ in whole]), {
        site.name: np.concatenate([maps[site.name] for _, maps in whole]) for site in sites
    }


def all_maps(
    store: AttentionStore, run: str, rows: pd.DataFrame, sites: Sequence[Site]
) -> dict[str, np.ndarray]:
    """Return the maps (r, h, q, s) of all sites of rows, each compared with its checksum."""
    ids = rows["row_id"].to_numpy(np.int64)
    return {
        site.name: store.read_maps(run, ids, {number: site.numbers}, compare_all=True)[:, 0]
        for number, site in enumerate(sites, start=1)
    }


def columns_of(rows: pd.DataFrame) -> dict[str, list[object]]:
    """Return rows as columns for a writer: its own left out, what is missing None."""
    return {
        str(name): [None if pd.isna(value) else value for value in rows[name].tolist()]
        for name in rows.columns
        if name not in OWN_COLUMNS
    }


class RowMeasures:
    """The measures of a run, to be had row by row."""

    def __init__(self, store: AttentionStore, run: str, sites: Sequence[Site]) -> None:
        frame = store.measures(run)
        rows = store.rows(run)["row_id"].to_numpy(np.int64)
        self.names = [str(name) for name in frame.columns if name not in MEASURES.names]
        self._sites = tuple(sites)
        self._starts = np.cumsum([0, *(site.heads for site in sites)])
        self._order = np.argsort(rows)
        self._numbers = rows[self._order]
        shape = (len(rows), int(self._starts[-1]), len(self.names))
        self._values = np.full(shape, np.nan, np.float32)
        if len(frame) and self.names:
            site, number = frame["site"].to_numpy(int), frame["head"].to_numpy(int)
            head = np.zeros(len(frame), int)
            for i, one in enumerate(sites):
                mine = site == i + 1
                places = np.zeros(max(one.numbers) + 1, int)
                places[list(one.numbers)] = np.arange(one.heads)
                head[mine] = self._starts[i] + places[number[mine]]
            at = self._at(frame["row_id"].to_numpy(np.int64))
            self._values[at, head] = frame[self.names].to_numpy(np.float32, na_value=np.nan)

    def _at(self, row_ids: np.ndarray) -> np.ndarray:
        return self._order[np.searchsorted(self._numbers, row_ids)]

    def of(self, rows: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
        """Return the measures (r, h) of rows for each measure's and site's name."""
        values = self._values[self._at(rows["row_id"].to_numpy(np.int64))]
        return {
            name: {
                site.name: values[:, self._starts[i] : self._starts[i + 1], m]
                for i, site in enumerate(self._sites)
            }
            for m, name in enumerate(self.names)
        }
