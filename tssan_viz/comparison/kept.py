"""Cells that are kept in the store, so that the next question needs no map.

What is kept is of rows that may be compared with each other: those of one split, phase, step and
person of a run. Each cell, one class of one subject, remembers a digest of its rows (their numbers,
checksums, cameras, replications and segments). A cell whose rows are still the same is used as it
is, others are made from the maps: rows that were appended, removed or renamed cost the cells that
they belong to, and nothing stale is ever used.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.alignment import AlignedSelection
from tssan_viz.comparison.kept_files import (
    DamagedCells,
    KeptLayer,
    cells_folder,
    layer_name,
    open_layer,
)
from tssan_viz.comparison.kept_making import Plan, make_layers, places
from tssan_viz.store.durable import turn

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore

T = TypeVar("T")
Progress = Callable[[str, int, int], None]

# A store that may not be written to is no fault, and needs no word.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Scope:
    """Which rows of a run may be compared with each other."""

    split: str | None
    phase: str | None
    step: int | None
    person: int

    @classmethod
    def of(cls, rows: pd.DataFrame, person: int) -> Scope | None:
        """Return the scope that rows lie in; None where they lie in several."""
        found: dict[str, Any] = {}
        for name in ("split", "phase", "step"):
            values = rows[name].unique()
            if len(values) != 1:
                return None
            found[name] = None if pd.isna(values[0]) else values[0]
        step = found.pop("step")
        return cls(**found, step=None if step is None else int(step), person=person)

    @property
    def folder(self) -> str:
        """What its folder is called."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def rows(self, store: AttentionStore, run: str) -> pd.DataFrame:
        """Return its rows that have a subject and a class; of videos with one file the first."""
        rows = store.rows(run)
        keep = rows["subject"].notna() & rows["label"].notna()
        keep &= rows["person"].isna() | (rows["person"] == self.person).fillna(False)
        for name, value in (("split", self.split), ("phase", self.phase), ("step", self.step)):
            keep &= rows[name].isna() if value is None else (rows[name] == value).fillna(False)
        rows = rows[keep.to_numpy(bool)]
        originals = store.duplicates(run)
        if originals:
            there = set(rows["sample"])
            copies = [name for name in there if originals.get(name) in there]
            rows = rows[~rows["sample"].isin(copies)]
        return rows


def cell_digests(rows: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return subject and label (r, 2) of each cell, sorted, and a digest (r,) of its rows."""
    names = ["subject", "label", "row_id", "segment", "replication", "camera", "checksum"]
    keys = np.stack(
        [rows[name].to_numpy(dtype=np.int64, na_value=-1) for name in names], axis=1
    ).reshape(-1, len(names))
    keys = keys[np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0]))]
    starts = np.flatnonzero(
        np.concatenate([np.ones(min(len(keys), 1), bool), (keys[1:, :2] != keys[:-1, :2]).any(1)])
    )
    digests = [
        int.from_bytes(hashlib.blake2b(part.tobytes(), digest_size=8).digest(), "little")
        for part in np.split(keys, starts[1:])
    ]
    return keys[starts, :2], np.array(digests[: len(starts)], np.uint64)


class KeptCells:
    """The kept cells of a selection's rows under one metric, layer by layer.

    Made by `KeptCells.of`.

    Attributes
    ----------
    notes : list of str
        Where a word is said about damage, or about cells that could not be kept.
    """

    def __init__(
        self,
        selection: Selection,
        scope: Scope,
        metric: str,
        notes: list[str],
        progress: Progress | None,
    ) -> None:
        self._store, self._run = selection.store, selection.run
        self._stream = selection.stream
        sites = self._store.sites(self._run)
        mine = sites[sites["stream"] == self._stream].to_dict(orient="records")
        self._sites = {int(site["layer"]): site for site in mine}
        self._scope, self._metric = scope, metric
        self._progress = progress
        self.notes = notes
        self._rows = selection.rows()
        self._cells, self._digests = cell_digests(self._rows)
        self._folder = cells_folder(self._store.path, self._run) / scope.folder / metric
        self._layers: dict[int, KeptLayer] = {}
        self._refused = False
        cells, digests = cell_digests(scope.rows(self._store, self._run))
        self._in_scope = dict(zip(map(tuple, cells.tolist()), digests.tolist(), strict=True))

    @classmethod
    def of(
        cls,
        selection: Selection,
        *,
        person: int,
        metric: str,
        notes: list[str],
        progress: Progress | None = None,
    ) -> KeptCells | None:
        """Return the kept cells of a selection.

        Parameters
        ----------
        selection
            All its rows have a subject and a class.
        person
            Whose rows they are; rows of fused persons belong to each.
        metric
            One of `tssan_viz.comparison.similarity.METRICS`, or `tssan_viz.comparison.cells.PLAIN`.
        notes
            Where a word is added about damage, or about cells that cannot be kept.
        progress
            Called with (what, done, total) while maps are read.

        Returns
        -------
        KeptCells or None
            None where the selection is not made of whole cells: its answer is in the maps.
        """
        scope = Scope.of(selection.rows(), person)
        # Aligned maps are not those that are stored.
        if scope is None or isinstance(selection, AlignedSelection):
            return None
        kept = cls(selection, scope, metric, notes, progress)
        mine = zip(map(tuple, kept._cells.tolist()), kept._digests.tolist(), strict=True)
        whole = all(kept._in_scope.get(cell) == digest for cell, digest in mine)
        return kept if whole else None

    # ---- answers

    def answer(
        self, layer: int, work: Callable[[KeptLayer, NDArray[np.intp]], T], *, make: bool
    ) -> T | None:
        """Return what `work` makes of a layer's cells and the places of the selection's in them.

        Parameters
        ----------
        layer
            Counted from 1.
        work
            What is damaged is made anew, and the work is done again.
        make
            Whether to make cells that are not there. Without, and where the store cannot be
            written to, None is returned for them.
        """
        for _ in range(2):
            self.prepare([layer], make=make)
            kept = self._layers.get(layer)
            if kept is None:
                return None
            try:
                return work(kept, places(self._cells, kept.index.cells))
            except DamagedCells as error:
                self._layers.pop(layer, None)
                self._forget(layer, error)
        return None

    def prepare(self, layers: Sequence[int], *, make: bool = True) -> None:
        """Open the kept cells of layers, made or extended where they are not there."""
        missing = [layer for layer in layers if not self._find(layer)]
        if not missing or not make or self._refused:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # One process at a time; whoever waited finds the other's work.
            with turn(self._folder.parent.parent / ".lock", alone=True):
                self._make([layer for layer in missing if not self._find(layer)])
                for layer in missing:
                    self._find(layer)
        except OSError as error:
            self._refused = True
            if error.errno not in _READ_ONLY:
                self.notes.append(
                    f"the cells could not be kept beside the maps ({error.strerror or error}); "
                    "the next comparison reads the maps again"
                )

    def _find(self, layer: int) -> bool:
        """Return whether a layer's cells are opened, or can be."""
        if layer in self._layers:
            return True
        kept = self._open(layer)
        if kept is None:
            return False
        at = places(self._cells, kept.index.cells)
        if (at < 0).any() or (kept.index.digests[at] != self._digests).any():
            return False
        self._layers[layer] = kept
        return True

    def _open(self, layer: int) -> KeptLayer | None:
        try:
            kept = open_layer(self._folder, layer_name(self._stream, layer))
        except DamagedCells as error:
            self._forget(layer, error)
            return None
        if kept is None or kept.described["site"] != self._site(layer):
            return None
        return kept

    def _forget(self, layer: int, error: DamagedCells) -> None:
        """Take damaged cells away, so that nobody uses them."""
        self.notes.append(f"kept cells of layer {layer} are damaged and not used: {error}")
        try:
            (self._folder / f"{layer_name(self._stream, layer)}.json").unlink(missing_ok=True)
        except OSError:
            self._refused = True

    def places(self, layer: int, heads: Sequence[int]) -> list[int]:
        """Return where heads, by their numbers, lie among those that the layer's cells hold."""
        there = list(self._sites[layer]["numbers"])
        return [there.index(head) for head in heads]

    def _site(self, layer: int) -> dict[str, Any]:
        site = self._sites[layer]
        numbers = ("site", "heads", "query", "key")
        return {"name": site["name"], "kind": site["kind"], **{n: int(site[n]) for n in numbers}}

    # ---- making

    def _make(self, layers: Sequence[int]) -> None:
        """Make or extend the cells of layers."""
        plans = [self._plan(layer) for layer in layers]
        rows = self._store.dataset("rows")
        described = {
            "run": self._run,
            "scope": asdict(self._scope),
            "rows_version": None if rows is None else rows.version,
        }
        try:
            make_layers(self._store, plans, self._folder, described, self._progress)
        except DamagedCells as error:
            # It is in what was to be extended. Without that, everything is made from the maps.
            for plan in plans:
                if plan.old is not None and plan.old.check():
                    self._forget(plan.layer, error)
            self._make([layer for layer in layers if not self._find(layer)])

    def _plan(self, layer: int) -> Plan:
        old = self._open(layer)
        return Plan.of(
            self._run,
            self._stream,
            layer,
            self._site(layer),
            self._metric,
            rows=self._rows,
            cells=self._cells,
            in_scope=self._in_scope,
            old=old,
        )
