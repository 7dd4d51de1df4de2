"""Making kept cells: of rows that are new from their maps, of the others from the last version."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import (
    PLAIN,
    Cells,
    Layout,
    Memory,
    ReadPieces,
    lay_out,
    numbered,
    sum_units,
    vector_length,
)
from tssan_viz.comparison.kept_files import KeptLayer, LayerWriter, layer_name
from tssan_viz.comparison.statistics import gram_matrix

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore

# The sums of heads that are gone through together take about so many bytes.
_TOGETHER_BYTES = 128 << 20
# Values of maps from which on the heads of a layer are shared out among threads.
_SHARED_OUT = 1 << 23


def places(cells: NDArray[np.integer], among: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return where pairs (n, 2) stand among others, −1 for those that do not."""
    first = numbered(np.concatenate([among[:, 0], cells[:, 0]]))[1]
    names, second = numbered(np.concatenate([among[:, 1], cells[:, 1]]))
    found, number = numbered(first * len(names) + second)
    at = np.full(len(found), -1, np.intp)
    at[number[: len(among)]] = np.arange(len(among))
    return at[number[len(among) :]]


@dataclass(frozen=True, eq=False)
class _Part:
    """Where some cells, groups and segments go in the new version."""

    cells: NDArray[np.intp]
    groups: NDArray[np.intp]
    segments: NDArray[np.intp]

    def put(self, cells: NDArray, groups: NDArray, of_cells: NDArray, of_groups: NDArray) -> None:
        """Enter values of cells (r, k, …) and groups (g, k, …) into those of the new version."""
        cells[np.ix_(self.cells, self.segments)] = of_cells
        groups[np.ix_(self.groups, self.segments)] = of_groups


@dataclass(frozen=True, eq=False)
class Plan:
    """What the next version of a layer's cells is made of. Made by `Plan.of`.

    Attributes
    ----------
    run, stream, layer, site, metric
        Whose maps they are; `site` as in the JSON of the layer.
    cells, digests, rows, segments, groups
        As in the new version's `Index`.
    row_ids : (n,) int64
        The rows whose maps are read.
    layout, group
        Which of them make which of the fresh cells and groups.
    fresh
        Where these go.
    old : KeptLayer or None
        The version before, of which `old_cells` and `old_groups` are taken, and go to `kept`.
    """

    run: str
    stream: str
    layer: int
    site: dict[str, Any]
    metric: str
    cells: NDArray[np.int64]
    digests: NDArray[np.uint64]
    rows: NDArray[np.int64]
    segments: NDArray[np.int64]
    groups: NDArray[np.int64]
    row_ids: NDArray[np.int64]
    layout: Layout
    group: NDArray[np.intp]
    fresh: _Part
    old: KeptLayer | None
    old_cells: NDArray[np.intp]
    old_groups: NDArray[np.intp]
    kept: _Part

    @classmethod
    def of(
        cls,
        run: str,
        stream: str,
        layer: int,
        site: dict[str, Any],
        metric: str,
        *,
        rows: pd.DataFrame,
        cells: NDArray[np.int64],
        in_scope: Mapping[tuple[int, int], int],
        old: KeptLayer | None,
    ) -> Plan:
        """Plan a version that holds what is asked for, and what of the last one is still right.

        Parameters
        ----------
        run, stream, layer, site, metric
            Whose maps they are.
        rows, cells
            The rows and cells that are asked for.
        in_scope
            The digest of each cell of the store at this moment.
        old
            The version before.
        """
        nothing = np.zeros(0, np.intp)
        old_cells = nothing
        if old is not None:
            now = [in_scope.get((s, c)) for s, c in old.index.cells.tolist()]
            same = [a == b for a, b in zip(now, old.index.digests.tolist(), strict=True)]
            old_cells = np.flatnonzero(same)
            old = old if len(old_cells) else None
        before = cells[:0] if old is None else old.index.cells[old_cells]
        is_fresh = places(cells, before) < 0
        of_asked = places(rows[["subject", "label"]].to_numpy(np.int64), cells)
        rows = rows[is_fresh[of_asked]]
        cells = np.unique(np.concatenate([before, cells[is_fresh]]), axis=0)

        layout = lay_out(rows)
        of_row = places(rows[["subject", "label"]].to_numpy(np.int64), cells)
        camera = rows["camera"].to_numpy(dtype=np.int64, na_value=-1)
        new, group = np.unique(np.stack([of_row, camera], 1), axis=0, return_inverse=True)
        counted = np.bincount(of_row, minlength=len(cells))
        segments = np.array(layout.segments, np.int64)
        old_segments: NDArray[np.int64] = segments[:0]
        kept, old_groups, moved = nothing, nothing, new[:0]
        if old is not None:
            kept = places(before, cells)
            counted[kept] = old.index.rows[old_cells]
            old_segments = old.index.segments
            segments = np.union1d(segments, old_segments)
            old_groups = np.flatnonzero(np.isin(old.index.groups[:, 0], old_cells))
            of_group, seen_by = old.index.groups[old_groups].T
            moved = np.stack([kept[np.searchsorted(old_cells, of_group)], seen_by], axis=1)
        groups = np.unique(np.concatenate([new, moved]), axis=0)
        return cls(
            run=run,
            stream=stream,
            layer=layer,
            site=site,
            metric=metric,
            cells=cells,
            digests=np.array([in_scope[s, c] for s, c in cells.tolist()], np.uint64),
            rows=counted.astype(np.int64),
            segments=segments,
            groups=groups,
            row_ids=rows["row_id"].to_numpy(np.int64),
            layout=layout,
            group=group.reshape(-1),
            fresh=_Part(
                np.unique(of_row), places(new, groups), np.searchsorted(segments, layout.segments)
            ),
            old=old,
            old_cells=old_cells,
            old_groups=old_groups,
            kept=_Part(kept, places(moved, groups), np.searchsorted(segments, old_segments)),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Query and key frames of the maps."""
        return self.site["query"], self.site["key"]

    def bytes(self) -> int:
        """Return what the version takes on the disk."""
        lines = len(self.cells) + len(self.groups) + len(np.unique(self.cells[:, 0]))
        vectors = lines * len(self.segments) * vector_length(self.metric, self.size)
        return 4 * self.site["heads"] * (vectors + (self.metric != PLAIN) * len(self.cells) ** 2)

    def shares(self, workers: int, layers: int) -> Iterator[range]:
        """Divide the heads, so that memory is bounded and every core has something to do."""
        q, s = self.size
        h = self.site["heads"]
        sums = len(self.segments) * (len(self.fresh.cells) + len(self.fresh.groups))
        each = 4 * q * s * (sums + int(self.layout.view.max(initial=-1)) + 1)
        together = max(1, min(h, _TOGETHER_BYTES // max(each, 1)))
        if layers < workers and len(self.row_ids) * h * q * s > _SHARED_OUT:
            together = min(together, -(-h * layers // workers))
        for start in range(0, h, together):
            yield range(start, min(start + together, h))


def make_layers(
    store: AttentionStore,
    plans: Sequence[Plan],
    folder: Path,
    described: Mapping[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Make layers on all cores and put each in its place when it is whole.

    Where a Dask client is active (``with distributed.Client("tcp://…"):``), its workers read and
    add up the maps, heads shared out among them, and this process writes what they send. They must
    reach the store under the same path. The sums are the same: each head is added up by one worker
    in the same order as here.

    Whatever stops it, Ctrl-C too, leaves the layers that were whole by then, and nothing else.

    Parameters
    ----------
    store
        Whose maps are read.
    plans
        One for each layer.
    folder
        Where the cells go.
    described
        What else is written down with them.
    progress
        Called with (what, done, total) in this thread.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written to.
    DamagedCells
        Cells that were to be kept on are not what was written.
    """
    needed = sum(plan.bytes() for plan in plans)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and not free on the disk")
    counter = _Counter(sum(len(plan.row_ids) for plan in plans), progress)
    cluster = _cluster()
    if cluster is not None:
        _make_on(cluster, store, plans, folder, described, counter)
        return
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    stop = threading.Event()
    workers = len(os.sched_getaffinity(0))
    # Every core is busy already: threads of the linear algebra would only wait for each other.
    alone = threadpool_limits(1)
    makings: list[_Making] = []
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cells")
    own = threading.local()

    def make(making: _Making, heads: range, read: ReadPieces) -> None:
        if not hasattr(own, "memory"):
            own.memory = Memory()
        making.make(heads, read, own.memory)

    try:
        under_way: dict[Future[None], _Making] = {}
        for plan in plans:
            making = _Making(plan, folder)
            makings.append(making)
            for heads in plan.shares(workers, len(plans)):
                read = _reader(store, plan, heads, stop, counter)
                under_way[pool.submit(make, making, heads, read)] = making
        while under_way:
            finished, _ = wait(under_way, timeout=0.1, return_when=FIRST_COMPLETED)
            counter.report()
            for future in finished:
                making = under_way.pop(future)
                future.result()
                if making not in under_way.values():
                    making.finish(described)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        alone.restore_original_limits()
        for making in makings:
            making.abandon()


def _cluster() -> Any:
    """Return the active Dask client, None without one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def _make_on(
    client: Any,
    store: AttentionStore,
    plans: Sequence[Plan],
    folder: Path,
    described: Mapping[str, Any],
    counter: _Counter,
) -> None:
    """Make layers on a Dask cluster."""
    from distributed import as_completed

    workers = sum(client.nthreads().values())
    makings: list[_Making] = []
    under_way: dict[Any, tuple[_Making, range]] = {}
    try:
        for plan in plans:
            making = _Making(plan, folder)
            makings.append(making)
            lean = replace(plan, old=None)
            for heads in plan.shares(workers, len(plans)):
                future = client.submit(_sums_elsewhere, store, lean, heads, pure=False)
                under_way[future] = making, heads
        counter.report()
        for future in as_completed(list(under_way)):
            made = future.result()
            making, heads = under_way.pop(future)
            making.put(heads, made)
            plan = making.plan
            counter.add(len(plan.row_ids) * len(heads) / plan.site["heads"])
            counter.report()
            if all(making is not other for other, _ in under_way.values()):
                making.finish(described)
    finally:
        client.cancel(list(under_way))
        for making in makings:
            making.abandon()


def _sums_elsewhere(store: AttentionStore, plan: Plan, heads: range) -> Cells:
    read = _reader(store, plan, heads, threading.Event(), _Counter(0, None))
    return _sums_of(plan, heads, read)


def _sums_of(plan: Plan, heads: range, read: ReadPieces, memory: Memory | None = None) -> Cells:
    return sum_units(
        plan.layout,
        (plan.group, len(plan.fresh.groups)),
        read,
        plan.metric,
        heads=len(heads),
        size=plan.size,
        memory=memory,
    )


class _Stopped(Exception):
    """Another thread failed, or a person said stop."""


class _Counter:
    """Counts what threads have done; the thread that waits for them tells it."""

    def __init__(self, total: int, progress: Callable[[str, int, int], None] | None) -> None:
        self._total, self._progress = total, progress
        self._done = 0.0
        self._lock = threading.Lock()

    def add(self, rows: float) -> None:
        with self._lock:
            self._done += rows

    def report(self) -> None:
        if self._progress is not None:
            # Maps that are read a second time do not count again.
            self._progress("reading maps", min(round(self._done), self._total), self._total)


def _reader(
    store: AttentionStore, plan: Plan, heads: range, stop: threading.Event, counter: _Counter
) -> ReadPieces:
    number = plan.site["site"]
    numbers = store.stored_sites(plan.run)[number - 1].numbers
    sites = {number: [numbers[place] for place in heads]}
    share = len(heads) / plan.site["heads"]

    def read(rows: int) -> Iterator[Sequence[NDArray[np.floating]]]:
        for start in range(0, len(plan.row_ids), rows):
            if stop.is_set():
                raise _Stopped
            ids = plan.row_ids[start : start + rows]
            yield from store.read_pieces(plan.run, ids, sites)
            counter.add(len(ids) * share)

    return read


class _Making:
    """One layer that is being made, by several threads."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._writer = LayerWriter(
            folder,
            layer_name(plan.stream, plan.layer),
            cells=plan.cells,
            digests=plan.digests,
            rows=plan.rows,
            segments=plan.segments,
            groups=plan.groups,
            heads=plan.site["heads"],
            length=vector_length(plan.metric, plan.size),
            compared=plan.metric != PLAIN,
        )

    def make(self, heads: range, read: ReadPieces, memory: Memory) -> None:
        """Make some heads from their maps and the version before, and write them."""
        self.put(heads, _sums_of(self.plan, heads, read, memory))

    def put(self, heads: range, made: Cells) -> None:
        """Write some heads, joined with the version before."""
        for i, head in enumerate(heads):
            self._put(head, made, i)

    def _put(self, head: int, made: Cells, i: int) -> None:
        plan = self.plan
        units, sums = made.units[:, i], made.sums[:, i]
        present, counts = made.present[:, i], made.counts[:, i]
        if plan.old is not None:
            units, sums, present, counts = self._with_old(head, units, sums, present, counts)
        # Cells are sorted by subject, and groups by cell.
        subjects = plan.cells[plan.groups[:, 0], 0]
        _, starts = np.unique(subjects, return_index=True)
        own = np.split(sums, starts[1:])
        self._writer.put(
            head,
            units=units,
            sums=sums,
            totals=np.array([part.sum(axis=0) for part in own], np.float32),
            present=present,
            counts=counts,
            gram=None if plan.metric == PLAIN else self._gram(head, units, present),
        )

    def _with_old(
        self, head: int, units: NDArray, sums: NDArray, present: NDArray, counts: NDArray
    ) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Return the same with the cells and groups that are kept on."""
        plan, old = self.plan, self.plan.old
        assert old is not None
        k = len(plan.segments)
        cells, groups = (len(plan.cells), k), (len(plan.groups), k)
        whole = (
            np.zeros((*cells, units.shape[-1]), np.float32),
            np.zeros((*groups, sums.shape[-1]), np.float32),
            np.zeros(cells, bool),
            np.zeros(groups, np.int32),
        )
        plan.fresh.put(*whole[:2], units, sums)
        plan.fresh.put(*whole[2:], present, counts)
        plan.kept.put(
            *whole[:2],
            old.read("units", [head], plan.old_cells)[0],
            old.read("sums", [head], plan.old_groups)[0],
        )
        plan.kept.put(
            *whole[2:],
            old.index.present[head, plan.old_cells],
            old.index.counts[head, plan.old_groups],
        )
        return whole

    def _gram(
        self, head: int, units: NDArray[np.float32], present: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Compare fresh cells with all; those that are kept on were compared before."""
        plan = self.plan
        r, kept, fresh = len(plan.cells), plan.kept.cells, plan.fresh.cells
        if len(fresh) == r:
            return gram_matrix(units[:, None], present[:, None]).values[..., 0]
        flat, there = units.reshape(r, -1), present.astype(np.float32)
        gram = np.empty((r, r), np.float32)
        if plan.old is not None:
            before = plan.old.gram(plan.old_cells, plan.old_cells, [head])
            gram[np.ix_(kept, kept)] = before[..., 0]
        lines = flat[fresh] @ flat.T / np.maximum(there[fresh] @ there.T, 1)
        gram[fresh] = lines
        gram[:, fresh] = lines.T
        among = np.ix_(fresh, fresh)
        gram[among] = (gram[among] + gram[among].T) / 2
        return gram

    def finish(self, described: Mapping[str, Any]) -> None:
        """Put the layer in its place."""
        plan = self.plan
        self._writer.finish(
            {
                **described,
                "metric": plan.metric,
                "stream": plan.stream,
                "layer": plan.layer,
                "site": plan.site,
                "cells": len(plan.cells),
                "rows": int(plan.rows.sum()),
            }
        )

    def abandon(self) -> None:
        """Take away what is not whole."""
        self._writer.abandon()
