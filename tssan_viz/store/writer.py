"""Appending a run: a row is acknowledged when its maps, its measures and itself are on the disk."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.site import counted_heads
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.store.codes import checked_code, code_dtype, code_of, column_type, encode
from tssan_viz.store.durable import RunLock, nobody_writes, sync_file, turn, write_atomically
from tssan_viz.store.incoming import Incoming
from tssan_viz.store.places import BucketPath, Place, reason, unreachable
from tssan_viz.store.schema import (
    CATALOGUE,
    FORMAT,
    HEADS,
    MEASURES,
    REPORTS,
    ROW_COLUMNS,
    ROWS,
    RUNS,
    SAMPLES,
    SITES,
    Site,
    StoredSample,
    map_columns,
    maps_folder,
    named,
    run_folder,
)
from tssan_viz.store.tables import DurableTable, StoreWriteError
from tssan_viz.version import VERSION

COMMIT_BYTES = 64 << 20
COMMIT_SECONDS = 5.0

_IN_MEMORY = (
    "what was added since the last commit is still in memory, and `flush` may be called again when "
    "it is back"
)


def prepare_folder(path: Place) -> None:
    """Make a folder a store, unless it is one.

    Raises
    ------
    UserError
        The folder holds something else, or cannot be written.
    """
    marker = path / "store.json"
    described = {
        "format": FORMAT,
        "kind": "tssan-viz attention store",
        "written_by": VERSION,
    }
    try:
        if marker.exists():
            return
        if path.exists() and any(
            not entry.name.startswith(".store.json") for entry in path.iterdir()
        ):
            raise UserError(
                f"{path} is no attention store, and not empty; "
                "give a new folder or an existing store"
            )
        if isinstance(path, BucketPath):
            if not path.has_bucket():
                raise FileNotFoundError
            write_atomically(marker, json.dumps(described))
            return
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            sync_file(folder.parent)
        write_atomically(marker, json.dumps(described))
    except OSError as error:
        if isinstance(path, BucketPath):
            raise unreachable(path, error) from error
        raise UserError(f"{path} cannot be made a store: {error.strerror or error}") from error


class RunWriter:
    """Adds one run's rows to a store; a context manager.

    Rows are committed by the `add` that brings them to 64 MB, or that comes 5 s after the first of
    them, at `flush` and at `close`.
    A commit writes the samples, the maps and the measures before the rows that name them, each
    fsynced before the next begins: whenever the process dies, every row has its maps. Opening the
    writer again for the same run drops what was written without a row, and goes on.

    Several processes write the same run at once when each has a `rank` of its own, from 0
    (``store.writer(run, rank=torch.distributed.get_rank(), …)``): each opens, adds, flushes and
    closes for itself, in any order, and waits for none. All give the same sites, catalogue and
    code. A row that two of them add (a distributed sampler repeats some samples to fill its last
    batch) counts once: the one that was stored first. After a crash each rank, opened again, drops
    its own unfinished rows only; a rank that is not opened again (fewer processes this time) harms
    nobody, and what it stored is skipped by the others as rows that are there.

    A store in a bucket takes one writer at a time, whatever the run and rank: a bucket has no
    locks. See `tssan_viz.store.claims`.

    Parameters
    ----------
    path
        The store's folder, or its place in a bucket.
    run
        The run's name.
    sites, catalogue
        What is recorded; the same again when a run goes on.
    info
        What is known of the run: recipe, ``checkpoint_sha256``, seed, device. JSON.
    rank
        Which of several processes this is, from 0.
    code
        How maps are written down: ``float16``, ``compact`` (one byte a value) or ``precise`` (two,
        finer than float16); see `tssan_viz.store.codes`. The same again when a run goes on.
    created
        When the run was recorded; by default now. For copies of runs.

    Attributes
    ----------
    rows_acknowledged : int
        Rows of this session that are on the disk.
    rows_skipped : int
        Rows that the run already held when the writer was opened.
    report : dict
        What `close` keeps of this session besides its counts (JSON); empty unless set.

    Raises
    ------
    UserError
        The run is being written by another process of this rank, holds other sites, another
        catalogue, code or checkpoint, or its name cannot be a folder's.
    StoreWriteError
        The folder cannot be written.
    """

    def __init__(
        self,
        path: Place,
        run: str,
        *,
        sites: Sequence[Site],
        catalogue: Catalogue,
        info: Mapping[str, Any],
        rank: int = 0,
        code: str = "float16",
        created: datetime | None = None,
    ) -> None:
        self.run = run
        self.sites = tuple(sites)
        self.rank = rank
        self.code = checked_code(code)
        self.report: dict[str, Any] = {}
        self.rows_acknowledged = 0
        self.rows_skipped = 0
        self._path = path
        self._catalogue = catalogue
        self._incoming = Incoming(run, self.sites, catalogue, rank, self.code)
        self._check_sites()
        if rank < 0:
            raise UserError(f"run {run!r}: rank is {rank}, it counts from 0")
        folder = self._folder = path / "maps" / run_folder(run)
        self._check_format()
        try:
            self._lock = RunLock(folder, run, rank)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._open_tables(folder, info, created or datetime.now(UTC))
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from error
        except BaseException:
            self._lock.release()
            raise
        self._session_rows: set[int] = set()
        self._measure_names: set[str] = set()
        self._closed = False
        self._failure: StoreWriteError | None = None
        self._unfinished = False
        # What is to be committed next is copied to where the last commit's was: memory that was
        # never touched takes longer to be given than to be filled.
        self._blocks: dict[tuple[int, int], list[np.ndarray]] = {}
        self._forget_pending()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            # What was recorded before the failure is whole and worth keeping.
            if not isinstance(error, StoreWriteError) and not self._closed:
                self.flush()
        except UserError as failure:
            error.add_note(f"and what was recorded until then could not be stored: {failure}")
        finally:
            self._abandon()

    # ---- what is begun, and what an earlier session left

    def _unwritable(self, error: OSError) -> StoreWriteError:
        return StoreWriteError(f"{self._path} cannot be written: {reason(error)}", may_retry=False)

    def _check_format(self) -> None:
        marker = self._path / "store.json"
        try:
            version = json.loads(marker.read_text(encoding="utf-8"))["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreWriteError(f"{marker} cannot be read: {error}", may_retry=False) from error
        if version != FORMAT:
            raise UserError(
                f"{self._path} has the older store format {version}, which is read but not added "
                f"to; `tssan-viz merge {self._path} --out NEW` copies it into a new store"
            )

    def _open_tables(self, folder: Place, info: Mapping[str, Any], created: datetime) -> None:
        self._rows = DurableTable(self._path / "rows", ROWS, shared=True)
        self._measures = DurableTable(self._path / "measures", MEASURES, shared=True)
        self._samples = DurableTable(self._path / "samples", SAMPLES, shared=True)
        self._reports = DurableTable(self._path / "reports", REPORTS, shared=True)
        self._maps = self._map_tables(folder)
        # Of several ranks that begin at once, one enters the run.
        with turn(folder / ".begin.lock", alone=True):
            self._begin(self._path, info, created)
        self._drop_orphans()
        # Rows of other ranks count as well: a recording may go on with fewer processes.
        self._stored_rows = set(self._ids(self._rows, pc.field("run") == self.run).tolist())
        self._stored_samples = self._names_of_samples()
        dataset = self._rows.open()
        if dataset is not None:
            self._incoming.row_types = {f.name: f.type for f in dataset.schema}

    def _check_sites(self) -> None:
        if not self.sites:
            raise UserError(f"run {self.run!r}: there is no site to record")
        for attributes in (("name",), ("stream", "layer")):
            seen: set[tuple[object, ...]] = set()
            for site in self.sites:
                key = tuple(getattr(site, attribute) for attribute in attributes)
                if key in seen:
                    raise UserError(
                        f"run {self.run!r}: two sites have the same {' and '.join(attributes)} "
                        f"{named(key)}"
                    )
                seen.add(key)

    def _map_tables(self, folder: Place) -> dict[tuple[int, int], DurableTable]:
        tables = {}
        for shape in dict.fromkeys((site.query, site.key) for site in self.sites):
            fields: list[tuple[str, pa.DataType]] = [("row_id", pa.int64())]
            for number, site in self._sites_of(shape):
                fields += [
                    (column, column_type(code_of(self.code, site.kind), *shape))
                    for column in map_columns(number, site.numbers)
                ]
            fields.append(("checksums", pa.list_(pa.uint32(), len(fields) - 1)))
            tables[shape] = DurableTable(
                folder / maps_folder(*shape, self.rank),
                pa.schema(fields),
                shared=False,
                digest_data=False,
            )
        return tables

    def _sites_of(self, shape: tuple[int, int]) -> list[tuple[int, Site]]:
        """Return the sites whose maps have a shape, with their numbers."""
        return [
            (number, site)
            for number, site in enumerate(self.sites, start=1)
            if (site.query, site.key) == shape
        ]

    def _begin(self, path: Place, info: Mapping[str, Any], created: datetime) -> None:
        from tssan_viz.store.reader import AttentionStore

        runs = DurableTable(path / "runs", RUNS, shared=True)
        store = AttentionStore(path)
        if self.run in store.run_names():
            self._compare_with_stored(store, info)
            return
        for shared in (self._rows, self._measures, self._samples, self._reports):
            # Left by a removal of a run of this name that did not come to its end.
            dataset = shared.open()
            if dataset is not None and dataset.count_rows(pc.field("run") == self.run):
                shared.delete(pc.field("run") == self.run)
        lines = {
            "run": [self.run] * len(self.sites),
            "site": list(range(1, len(self.sites) + 1)),
            **{
                field: [getattr(site, field) for site in self.sites]
                for field in SITES.names
                if field not in ("run", "site")
            },
        }
        try:
            text = json.dumps(dict(info), ensure_ascii=False, default=str)
        except TypeError as error:
            raise UserError(f"run {self.run!r}: info cannot be stored as JSON: {error}") from error
        chosen = [
            {"run": self.run, "site": number, "numbers": site.numbers}
            for number, site in enumerate(self.sites, start=1)
            if site.numbers != tuple(range(1, site.heads + 1))
        ]
        for name, schema, table in (
            ("sites", SITES, pa.table(lines, schema=SITES)),
            ("heads", HEADS, pa.Table.from_pylist(chosen, schema=HEADS)),
            (
                "catalogue",
                CATALOGUE,
                pa.table(
                    {"run": [self.run], "catalogue": [self._catalogue.to_json()]},
                    schema=CATALOGUE,
                ),
            ),
        ):
            durable = DurableTable(path / name, schema, shared=True)
            if durable.open() is not None:
                # Left by a session that died before its run was entered.
                durable.delete(pc.field("run") == self.run)
            if len(table):
                durable.append(table)
        line = {"run": [self.run], "created": [created], "info": [text], "code": [self.code]}
        runs.append(pa.table(line, schema=RUNS))

    def _compare_with_stored(self, store: Any, info: Mapping[str, Any]) -> None:
        stored = store.stored_sites(self.run)
        if stored != self.sites:
            differing = [
                f"{old.name} ({counted_heads(old.numbers)}, {old.query} × {old.key}, {old.kind})"
                for old in stored
                if old not in self.sites
            ]
            raise UserError(
                f"run {self.run!r} is in the store with other sites: "
                f"{named(differing) or 'in another order'}; give the new recording another run name"
            )
        if store.stored_catalogue(self.run) != self._catalogue:
            raise UserError(
                f"run {self.run!r} is in the store with another catalogue (classes, skeleton or "
                "frame rate differ); give the new recording another run name"
            )
        if store.stored_code(self.run) != self.code:
            raise UserError(
                f"run {self.run!r} is in the store in the code {store.stored_code(self.run)!r}, "
                f"not {self.code!r}; give the new recording another run name"
            )
        before = store.info(self.run).get("checkpoint_sha256")
        now = info.get("checkpoint_sha256")
        if before and now and before != now:
            raise UserError(
                f"run {self.run!r} is in the store and was recorded from another checkpoint "
                f"({str(before)[:12]}…, now {str(now)[:12]}…); "
                "give the new recording another run name"
            )

    @property
    def _own(self) -> pc.Expression:
        """What picks the lines of this run and rank."""
        return (pc.field("run") == self.run) & (pc.field("rank") == self.rank)

    def _ids(self, table: DurableTable, condition: pc.Expression | None) -> np.ndarray:
        dataset = table.open()
        if dataset is None:
            return np.empty(0, np.int64)
        return dataset.to_table(columns=["row_id"], filter=condition)["row_id"].to_numpy()

    def _names_of_samples(self) -> set[str]:
        dataset = self._samples.open()
        if dataset is None:
            return set()
        lines = dataset.to_table(columns=["sample"], filter=pc.field("run") == self.run)
        return set(lines["sample"].to_pylist())

    def _drop_orphans(self) -> None:
        """Delete maps and measures whose rows an interrupted commit of this rank never reached."""
        rows = self._ids(self._rows, self._own)
        for table in self._maps.values():
            orphans = np.setdiff1d(self._ids(table, None), rows)
            if len(orphans):
                table.delete(pc.field("row_id").isin(orphans.tolist()))
        orphans = np.setdiff1d(self._ids(self._measures, self._own), rows)
        if len(orphans):
            self._measures.delete(self._own & pc.field("row_id").isin(orphans.tolist()))

    # ---- adding

    def _forget_pending(self) -> None:
        self._pending_rows: list[pa.Table] = []
        self._pending_maps: dict[tuple[int, int], list[pa.Table]] = {s: [] for s in self._maps}
        self._pending_measures: list[pa.Table] = []
        self._pending_samples: list[pa.Table] = []
        self._pending_bytes = 0
        self._filled = dict.fromkeys(self._blocks, 0)

    def add(
        self,
        rows: Mapping[str, Any],
        maps: Mapping[str, np.ndarray],
        measures: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Add rows with their maps; they are acknowledged by the next commit.

        Parameters
        ----------
        rows
            Columns: a sequence with one value per row, or one value for all. ``sample`` is needed;
            ``step`` is 0, ``phase`` ``inference``, ``segment`` 1 and ``person`` null (fused) where
            not given; of label, class name and code the catalogue adds what is not given, and
            ``correct`` is whether ``predicted`` is the label. A column that rows do not have is
            further metadata: whole numbers, numbers, words or truth values under a name of the
            caller's own, which `AttentionStore.rows`, ``where`` conditions and SQL know by it.
        maps : float16 (r, h, q, s) for each site's name
            The values of all sites; with another code than float16, float32 is taken too. A query
            whose keys are all masked is a row of zeros.
        measures : float32 (r, h) for each measure's name and site's name
            Optional.

        Raises
        ------
        UserError
            Unknown columns or sites, shapes that are not the sites', rows of kind softmax that do
            not sum to 1 within 1e-3, a row that was added before in this session.
        StoreWriteError
            The commit that came due failed.
        """
        if self._closed:
            raise UserError(f"run {self.run!r}: the writer is closed")
        table = self._incoming.rows(rows)
        ids = table["row_id"].to_numpy()
        values = self._incoming.maps(maps, table)
        numbers = self._incoming.measures(measures or {}, len(ids))
        keep = self._new_rows(ids, table)
        if not len(keep):
            return
        if len(keep) < len(ids):
            ids = ids[keep]
            table = table.take(keep)
            values = {name: value[keep] for name, value in values.items()}
            numbers = {
                measure: {name: value[keep] for name, value in per_site.items()}
                for measure, per_site in numbers.items()
            }
        if not self._pending_rows:
            self._pending_since = time.monotonic()
        made = {shape: self._map_table(shape, ids, values) for shape in self._pending_maps}
        checksums = np.concatenate([sums for _, sums in made.values()], axis=1)
        whole = [zlib.crc32(line) for line in checksums]
        table = table.append_column("checksum", pa.array(whole, pa.uint32()))
        parts = [
            *((self._pending_maps[shape], lines) for shape, (lines, _) in made.items()),
            (self._pending_measures, self._measure_table(ids, numbers)),
            (self._pending_rows, table),
        ]
        before = [len(pending) for pending, _ in parts]
        try:
            for pending, lines in parts:
                pending.append(lines)
        except BaseException:
            # Ctrl-C in between: a row comes with its maps and measures, or not at all.
            for (pending, _), count in zip(parts, before, strict=True):
                del pending[count:]
            raise
        self._pending_bytes += sum(maps.nbytes for maps, _ in made.values())
        self._session_rows.update(ids.tolist())
        overdue = time.monotonic() - self._pending_since >= COMMIT_SECONDS
        if self._pending_bytes >= COMMIT_BYTES or overdue:
            self._commit()

    def _new_rows(self, ids: np.ndarray, table: pa.Table) -> np.ndarray:
        """Return which rows the store lacks; a row given twice in this session is an error."""
        keep = []
        seen: set[int] = set()
        for i, number in enumerate(ids.tolist()):
            if number in self._stored_rows:
                self.rows_skipped += 1
            elif number in seen or number in self._session_rows:
                line = table.slice(i, 1).to_pylist()[0]
                raise UserError(
                    f"run {self.run!r}: sample {line['sample']!r}, segment {line['segment']}, "
                    f"person {line['person']}, step {line['step']}, phase {line['phase']!r} came "
                    "twice; "
                    "rows that are meant to differ need another step or phase"
                )
            else:
                keep.append(i)
            seen.add(number)
        return np.array(keep, dtype=np.int64)

    def _map_table(
        self, shape: tuple[int, int], ids: np.ndarray, values: Mapping[str, np.ndarray]
    ) -> tuple[pa.Table, np.ndarray]:
        """Return the lines to store of one shape, and the checksums (r, columns) of their maps."""
        size = shape[0] * shape[1]
        columns: dict[str, pa.Array] = {"row_id": pa.array(ids)}
        checksums = []
        room = iter(self._room(shape, len(ids)))
        for number, site in self._sites_of(shape):
            code = code_of(self.code, site.kind)
            for h, column in enumerate(map_columns(number, site.numbers)):
                # A copy in any case: the caller may use its buffer again before the commit.
                lines = next(room)
                maps = values[site.name][:, h]
                if code == "float16":
                    lines.reshape(maps.shape)[...] = maps
                else:
                    lines[...] = encode(maps, code)
                checksums.append(list(map(zlib.crc32, lines)))
                columns[column] = pa.FixedSizeListArray.from_arrays(
                    pa.array(lines.reshape(-1)), size
                )
        sums = np.ascontiguousarray(np.array(checksums, np.uint32).T)
        columns["checksums"] = pa.FixedSizeListArray.from_arrays(
            pa.array(sums.reshape(-1)), sums.shape[1]
        )
        return pa.table(columns), sums

    def _room(self, shape: tuple[int, int], count: int) -> list[np.ndarray]:
        """Return where lines of each column of a shape go: where those of the last commit were."""
        start = self._filled.get(shape, 0)
        columns = self._blocks.get(shape)
        if columns is None or start + count > len(columns[0]):
            size = shape[0] * shape[1]
            kinds = [
                code_dtype(code_of(self.code, site.kind))
                for _, site in self._sites_of(shape)
                for _ in site.numbers
            ]
            lines = count + COMMIT_BYTES // (size * sum(kind.itemsize for kind in kinds))
            columns = [np.empty((lines, size), kind) for kind in kinds]
            self._blocks[shape], start = columns, 0
        self._filled[shape] = start + count
        return [column[start : start + count] for column in columns]

    def _measure_table(
        self, ids: np.ndarray, measures: Mapping[str, Mapping[str, np.ndarray]]
    ) -> pa.Table:
        parts = []
        for number, site in enumerate(self.sites, start=1):
            count = len(ids) * site.heads
            columns = {
                "row_id": pa.array(np.repeat(ids, site.heads)),
                "run": pa.array([self.run] * count),
                "site": pa.array(np.full(count, number, np.int16)),
                "stream": pa.array([site.stream] * count),
                "layer": pa.array(np.full(count, site.layer, np.int16)),
                "head": pa.array(np.tile(np.array(site.numbers, np.int16), len(ids))),
                "rank": pa.array(np.full(count, self.rank, np.int16)),
            }
            for measure, per_site in measures.items():
                columns[measure] = pa.array(per_site[site.name].reshape(-1), from_pandas=True)
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)

    def add_samples(self, samples: Sequence[StoredSample]) -> None:
        """Add what a view needs of the videos; one that the run already has is left as it is."""
        lines = []
        for sample in samples:
            if sample.sample in self._stored_samples:
                continue
            self._stored_samples.add(sample.sample)
            line: dict[str, Any] = {
                "run": self.run,
                "sample": sample.sample,
                "label": sample.label,
                "class_name": sample.class_name,
                "class_code": sample.class_code,
                "subject": sample.subject,
                "camera": sample.camera,
                "duplicate_of": sample.duplicate_of,
                "seconds": None if sample.seconds is None else sample.seconds.reshape(-1),
            }
            for field in ("frames", "poses", "present"):
                value = getattr(sample, field)
                line[field] = None if value is None else value.reshape(-1)
                line[f"{field}_shape"] = None if value is None else list(value.shape)
            lines.append(line)
        if lines:
            table = pa.Table.from_pylist(lines, schema=SAMPLES)
            self._pending_samples.append(table)
            self._pending_bytes += table.nbytes

    # ---- committing

    def flush(self) -> None:
        """Return when everything that was added is on the disk: acknowledged.

        Raises
        ------
        StoreWriteError
            The disk is full, or refuses. What was added stays in memory; if the error's
            `may_retry` is true, `flush` may be called again when there is room.
        """
        self._commit()

    def _commit(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._check_place()
            # The last commit may have been refused, or interrupted from the keyboard, on its way.
            if self._unfinished:
                for table in (*self._maps.values(), self._samples, self._measures, self._rows):
                    table.mend()
                self._drop_orphans()
                if self._pending_rows_are_stored():
                    self._rows.sync()
                    self._acknowledge()
                    return
        except (OSError, ValueError) as error:
            reason_given = reason(error) if isinstance(error, OSError) else str(error)
            raise StoreWriteError(
                f"{self._path} cannot be written: {reason_given}; {_IN_MEMORY}", may_retry=True
            ) from error
        self._unfinished = True
        try:
            self._write_pending()
        except StoreWriteError as error:
            if not error.may_retry:
                self._failure = error
            raise
        self._acknowledge()

    def _check_place(self) -> None:
        if not (self._path / "store.json").exists():
            # Lance would begin a new data set there, of which nobody would know.
            raise StoreWriteError(f"the store {self._path} is gone; {_IN_MEMORY}", may_retry=True)
        if not self._lock.holds():
            raise StoreWriteError(
                f"{self._path}: this process was taken for dead and another writes now; what was "
                "added since the last commit is not stored, recording the same run again is",
                may_retry=False,
            )

    def _acknowledge(self) -> None:
        self.rows_acknowledged += sum(table.num_rows for table in self._pending_rows)
        self._forget_pending()
        self._unfinished = False

    def _pending_rows_are_stored(self) -> bool:
        """Return whether the interrupted commit had come to its end: rows are added all or none."""
        if not self._pending_rows:
            return False
        first = self._pending_rows[0]["row_id"][0].as_py()
        return first in self._ids(self._rows, self._own)

    def _write_pending(self) -> None:
        """Write what was added, the rows last: a row is there only when its maps are."""
        if self._pending_samples:
            self._samples.append(pa.concat_tables(self._pending_samples))
            self._pending_samples = []
        begun = []
        try:
            for shape, pending in self._pending_maps.items():
                if pending:
                    begun.append(self._maps[shape].begin_append(pa.concat_tables(pending)))
            # While the disk is busy with the maps.
            if self._pending_measures:
                table = pa.concat_tables(self._pending_measures, promote_options="default")
                self._prepare_measures(table.schema)
                self._measures.append(table)
        finally:
            for finish in begun:
                finish()
        if self._pending_rows:
            table = pa.concat_tables(self._pending_rows, promote_options="default")
            further = [name for name in table.column_names if name not in ROW_COLUMNS]
            self._prepare(self._rows, ROWS, [table.schema.field(name) for name in further])
            wanted = pa.schema(
                [*ROWS, *(pa.field(n, self._incoming.row_types[n]) for n in further)]
            )
            self._rows.append(table.select(wanted.names).cast(wanted))

    def _prepare_measures(self, schema: pa.Schema) -> None:
        """See that the shared dataset has a column for each measure."""
        names = {name for name in schema.names if name not in MEASURES.names}
        if names <= self._measure_names:
            return
        self._prepare(self._measures, MEASURES, [pa.field(n, pa.float32()) for n in sorted(names)])
        self._measure_names |= names

    def _prepare(self, table: DurableTable, schema: pa.Schema, fields: list[pa.Field]) -> None:
        """See that a shared dataset has columns beyond those that all runs have."""
        if not fields:
            return
        dataset = table.open()
        if dataset is None:
            table.append(schema.empty_table())
        elif {field.name for field in fields} <= set(dataset.schema.names):
            return
        table.add_columns(fields)

    def close(self) -> None:
        """Flush, merge small files and let others write the run."""
        if self._closed:
            return
        try:
            self.flush()
            self._add_report()
            shared = (self._rows, self._measures, self._samples, self._reports)
            for table in (*self._maps.values(), *shared):
                table.compact()
            if nobody_writes(self._path, besides=self._folder):
                for table in shared:
                    table.clean(alone=True)
        finally:
            self._abandon()

    def _add_report(self) -> None:
        """Keep what this session counted, for `verify`."""
        line = {
            "run": [self.run],
            "rank": [self.rank],
            "finished": [datetime.now(UTC)],
            "rows_added": [self.rows_acknowledged],
            "rows_stored": [len(self._ids(self._rows, self._own))],
            "report": [json.dumps(self.report, ensure_ascii=False, default=str)],
        }
        self._reports.append(pa.table(line, schema=REPORTS))

    def _abandon(self) -> None:
        self._closed = True
        self._lock.release()
