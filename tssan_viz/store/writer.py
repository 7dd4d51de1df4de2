"""Appending a run: a row is acknowledged when its maps, its measures and itself are on the disk."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.store.durable import RunLock, sync_file, write_atomically
from tssan_viz.store.schema import (
    CATALOGUE,
    FORMAT,
    MEASURES,
    ROW_COLUMNS,
    ROWS,
    RUNS,
    SAMPLES,
    SITES,
    Site,
    StoredSample,
    decode,
    map_columns,
    named,
    row_id,
    run_folder,
)
from tssan_viz.store.tables import DurableTable, StoreWriteError

COMMIT_BYTES = 64 << 20
COMMIT_SECONDS = 5.0
ROW_SUM_TOLERANCE = 1e-3

_OWN_COLUMNS = ("row_id", "run", "checksum")
_DEFAULTS: dict[str, Any] = {"step": 0, "phase": "inference", "segment": 1}
# Files of maps under this size are merged at the end; those of full commits are left alone.
_MERGED_BYTES = COMMIT_BYTES // 2


def prepare_folder(path: Path) -> None:
    """Make a folder a store, unless it is one."""
    marker = path / "store.json"
    if marker.exists():
        return
    if path.exists() and any(not entry.name.startswith(".store.json") for entry in path.iterdir()):
        raise UserError(
            f"{path} is no attention store, and not empty; give a new folder or an existing store"
        )
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        sync_file(folder.parent)
    write_atomically(marker, json.dumps({"format": FORMAT, "kind": "tssan-viz attention store"}))


class RunWriter:
    """Adds one run's rows to a store; a context manager.

    Rows are committed by the `add` that brings them to 64 MB, or that comes 5 s after the first of
    them, at `flush` and at `close`.
    A commit writes the samples, the maps and the measures before the rows that name them, each
    fsynced before the next begins: whenever the process dies, every row has its maps. Opening the
    writer again for the same run drops what was written without a row, and goes on.

    Attributes
    ----------
    rows_acknowledged : int
        Rows of this session that are on the disk.
    rows_skipped : int
        Rows that the run already held when the writer was opened.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        *,
        sites: Sequence[Site],
        catalogue: Catalogue,
        info: Mapping[str, Any],
    ) -> None:
        self.run = run
        self.sites = tuple(sites)
        self.rows_acknowledged = 0
        self.rows_skipped = 0
        self._catalogue = catalogue
        self._check_sites()
        maps_folder = path / "maps" / run_folder(run)
        self._lock = RunLock(maps_folder, run)
        try:
            self._rows = DurableTable(path / "rows", ROWS, shared=True)
            self._measures = DurableTable(path / "measures", MEASURES, shared=True)
            self._samples = DurableTable(path / "samples", SAMPLES, shared=True)
            self._maps = self._map_tables(maps_folder)
            self._begin(path, info)
            self._drop_orphans()
            self._stored_rows = set(self._ids(self._rows).tolist())
            self._stored_samples = self._names_of_samples()
        except BaseException:
            self._lock.release()
            raise
        self._session_rows: set[int] = set()
        self._measure_names: set[str] = set()
        self._closed = False
        self._failure: StoreWriteError | None = None
        self._unfinished = False
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

    def _map_tables(self, folder: Path) -> dict[tuple[int, int], DurableTable]:
        tables = {}
        for shape in dict.fromkeys((site.query, site.key) for site in self.sites):
            fields = [("row_id", pa.int64())]
            for number, site in enumerate(self.sites, start=1):
                if (site.query, site.key) == shape:
                    fields += [
                        (column, pa.list_(pa.float16(), shape[0] * shape[1]))
                        for column in map_columns(number, site.heads)
                    ]
            tables[shape] = DurableTable(
                folder / f"{shape[0]}x{shape[1]}", pa.schema(fields), shared=False
            )
        return tables

    def _begin(self, path: Path, info: Mapping[str, Any]) -> None:
        from tssan_viz.store.reader import AttentionStore

        runs = DurableTable(path / "runs", RUNS, shared=True)
        store = AttentionStore(path)
        if self.run in store.run_names():
            self._compare_with_stored(store, info)
            return
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
        for name, schema, table in (
            ("sites", SITES, lines),
            (
                "catalogue",
                CATALOGUE,
                {"run": [self.run], "catalogue": [self._catalogue.to_json()]},
            ),
        ):
            durable = DurableTable(path / name, schema, shared=True)
            if durable.open() is not None:
                # Left by a session that died before its run was entered.
                durable.delete(pc.field("run") == self.run)
            durable.append(pa.table(table, schema=schema))
        line = {"run": [self.run], "created": [datetime.now(UTC)], "info": [text]}
        runs.append(pa.table(line, schema=RUNS))

    def _compare_with_stored(self, store: Any, info: Mapping[str, Any]) -> None:
        stored = store.stored_sites(self.run)
        if stored != self.sites:
            differing = [
                f"{old.name} ({old.heads} heads, {old.query} × {old.key}, {old.kind})"
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
        before = store.info(self.run).get("checkpoint_sha256")
        now = info.get("checkpoint_sha256")
        if before and now and before != now:
            raise UserError(
                f"run {self.run!r} is in the store and was recorded from another checkpoint "
                f"({str(before)[:12]}…, now {str(now)[:12]}…); "
                "give the new recording another run name"
            )

    def _ids(self, table: DurableTable, *, own: bool = True) -> np.ndarray:
        dataset = table.open()
        if dataset is None:
            return np.empty(0, np.int64)
        condition = pc.field("run") == self.run if own else None
        return dataset.to_table(columns=["row_id"], filter=condition)["row_id"].to_numpy()

    def _names_of_samples(self) -> set[str]:
        dataset = self._samples.open()
        if dataset is None:
            return set()
        lines = dataset.to_table(columns=["sample"], filter=pc.field("run") == self.run)
        return set(lines["sample"].to_pylist())

    def _drop_orphans(self) -> None:
        """Delete maps and measures whose rows an interrupted commit never reached."""
        rows = self._ids(self._rows)
        for table in self._maps.values():
            orphans = np.setdiff1d(self._ids(table, own=False), rows)
            if len(orphans):
                table.delete(pc.field("row_id").isin(orphans.tolist()))
        orphans = np.setdiff1d(self._ids(self._measures), rows)
        if len(orphans):
            self._measures.delete(
                (pc.field("run") == self.run) & pc.field("row_id").isin(orphans.tolist())
            )

    # ---- adding

    def _forget_pending(self) -> None:
        self._pending_rows: list[pa.Table] = []
        self._pending_maps: dict[tuple[int, int], list[pa.Table]] = {s: [] for s in self._maps}
        self._pending_measures: list[pa.Table] = []
        self._pending_samples: list[pa.Table] = []
        self._pending_bytes = 0

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
            ``correct`` is whether ``predicted`` is the label.
        maps : float16 (r, h, q, s) for each site's name
            The values of all sites.
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
        table = self._row_table(rows)
        ids = table["row_id"].to_numpy()
        values = self._checked_maps(maps, table)
        numbers = self._checked_measures(measures or {}, len(ids))
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
        checksums = self._checksums(values, len(ids))
        self._pending_rows.append(table.append_column("checksum", pa.array(checksums, pa.uint32())))
        for shape, pending in self._pending_maps.items():
            lines = self._map_table(shape, ids, values)
            pending.append(lines)
            self._pending_bytes += lines.nbytes
        if numbers:
            self._pending_measures.append(self._measure_table(ids, numbers))
        self._session_rows.update(ids.tolist())
        overdue = time.monotonic() - self._pending_since >= COMMIT_SECONDS
        if self._pending_bytes >= COMMIT_BYTES or overdue:
            self._commit()

    def _row_table(self, rows: Mapping[str, Any]) -> pa.Table:
        import difflib

        allowed = [name for name in ROW_COLUMNS if name not in _OWN_COLUMNS]
        for name in rows:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise UserError(
                    f"rows have no column {name!r}{hint} Columns are {', '.join(allowed)}"
                )
        if "sample" not in rows:
            raise UserError("rows need the column 'sample': which video each row comes from")
        given = {**_DEFAULTS, **{k: v for k, v in rows.items() if v is not None}}
        lengths = {name: len(v) for name, v in given.items() if _is_column(v)}
        if len(set(lengths.values())) > 1:
            raise UserError(f"columns differ in length: {lengths}")
        count = next(iter(lengths.values()), 1)
        columns = {}
        for name in allowed:
            value = given.get(name)
            columns[name] = _arrow(name, value if _is_column(value) else [value] * count)
        for name in ("sample", "step", "phase", "segment"):
            if columns[name].null_count:
                raise UserError(f"column {name!r} has no value in {columns[name].null_count} rows")
        self._complete_classes(columns, count)
        right = pc.equal(columns["predicted"], columns["label"])
        columns["correct"] = pc.coalesce(columns["correct"], right)
        ids = [
            row_id(self.run, *key)
            for key in zip(
                *(
                    columns[name].to_pylist()
                    for name in ("step", "phase", "sample", "segment", "person")
                ),
                strict=True,
            )
        ]
        columns = {
            "row_id": pa.array(ids, pa.int64()),
            "run": pa.array([self.run] * count),
            **columns,
        }
        return pa.table(columns)

    def _complete_classes(self, columns: dict[str, pa.Array], count: int) -> None:
        """Take names and codes from the catalogue, or the label from the name."""
        if not self._catalogue.classes:
            return
        labels = columns["label"].to_pylist()
        names = columns["class_name"].to_pylist()
        codes = columns["class_code"].to_pylist()
        for i in range(count):
            given = labels[i] if labels[i] is not None else names[i]
            if given is None:
                continue
            entry = self._catalogue.resolve(given)
            if names[i] is not None and self._catalogue.resolve(names[i]).label != entry.label:
                raise UserError(
                    f"sample {columns['sample'][i].as_py()!r}: label {entry.label} is "
                    f"{entry.name!r} in the catalogue, the class name given is {names[i]!r}"
                )
            labels[i], names[i], codes[i] = entry.label, entry.name, entry.code
        for name, values in (("label", labels), ("class_name", names), ("class_code", codes)):
            columns[name] = _arrow(name, values)

    def _site(self, name: str) -> Site:
        return next(site for site in self.sites if site.name == name)

    def _checked_names(self, given: Iterable[str], what: str) -> None:
        due = {site.name for site in self.sites}
        missing = sorted(due - set(given))
        strange = sorted(set(given) - due)
        if missing or strange:
            parts = []
            if missing:
                parts.append(f"nothing came from {named(missing)}")
            if strange:
                parts.append(f"{named(strange)} is no site of this run")
            raise UserError(
                f"{what}: {'; '.join(parts)}. Its sites are {named([s.name for s in self.sites])}"
            )

    def _checked_maps(
        self, maps: Mapping[str, np.ndarray], table: pa.Table
    ) -> dict[str, np.ndarray]:
        self._checked_names(maps, "maps")
        checked = {}
        for site in self.sites:
            value = np.asarray(maps[site.name])
            expected = (table.num_rows, site.heads, site.query, site.key)
            if value.shape != expected:
                raise UserError(
                    f"maps of {site.name!r} have shape {value.shape}, "
                    f"(r, h, q, s) = {expected} is expected"
                )
            if value.dtype != np.float16:
                raise UserError(f"maps of {site.name!r} are {value.dtype}, float16 is expected")
            value = np.ascontiguousarray(value)
            if site.kind == "softmax":
                self._check_sums(site, value, table)
            elif not np.isfinite(value).all():
                raise UserError(f"maps of {site.name!r} hold values that are not finite")
            checked[site.name] = value
        return checked

    def _check_sums(self, site: Site, value: np.ndarray, table: pa.Table) -> None:
        sums = decode(value) @ np.ones(site.key, np.float32)
        # Written so that NaN fails too.
        wrong = ~(np.abs(sums - 1) < ROW_SUM_TOLERANCE)
        if wrong.any():
            r, h, q = np.argwhere(wrong)[0]
            raise UserError(
                f"sample {table['sample'][int(r)].as_py()!r}, site {site.name!r}, head {h + 1}, "
                f"query frame {q}: the attention sums to {sums[r, h, q]:.4f}, not to 1 "
                f"(tolerance {ROW_SUM_TOLERANCE}); {int(wrong.sum())} of {wrong.size} map rows are "
                "so. Probabilities are recorded before dropout; a map that is no softmax needs a "
                "site of kind 'signed' or 'adjacency'"
            )

    def _checked_measures(
        self, measures: Mapping[str, Mapping[str, np.ndarray]], count: int
    ) -> dict[str, dict[str, np.ndarray]]:
        checked: dict[str, dict[str, np.ndarray]] = {}
        for measure, per_site in measures.items():
            if measure in MEASURES.names or not measure.isidentifier():
                raise UserError(f"{measure!r} cannot be the name of a measure")
            self._checked_names(per_site, f"measure {measure!r}")
            checked[measure] = {}
            for site in self.sites:
                value = np.asarray(per_site[site.name], np.float32)
                if value.shape != (count, site.heads):
                    raise UserError(
                        f"measure {measure!r} of {site.name!r} has shape {value.shape}, "
                        f"(r, h) = {(count, site.heads)} is expected"
                    )
                checked[measure][site.name] = value
        return checked

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

    def _checksums(self, values: Mapping[str, np.ndarray], count: int) -> list[int]:
        sums = [0] * count
        for site in self.sites:
            value = values[site.name]
            for i in range(count):
                sums[i] = zlib.crc32(value[i], sums[i])
        return sums

    def _map_table(
        self, shape: tuple[int, int], ids: np.ndarray, values: Mapping[str, np.ndarray]
    ) -> pa.Table:
        size = shape[0] * shape[1]
        columns: dict[str, pa.Array] = {"row_id": pa.array(ids)}
        for number, site in enumerate(self.sites, start=1):
            if (site.query, site.key) != shape:
                continue
            for h, column in enumerate(map_columns(number, site.heads)):
                # A copy: the caller may use its buffer again before the commit.
                flat = np.array(values[site.name][:, h]).reshape(-1)
                columns[column] = pa.FixedSizeListArray.from_arrays(pa.array(flat), size)
        return pa.table(columns)

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
                "head": pa.array(np.tile(np.arange(1, site.heads + 1, dtype=np.int16), len(ids))),
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
        if self._unfinished:
            # The last commit was refused, or interrupted from the keyboard, on its way.
            self._drop_orphans()
            if self._pending_rows_are_stored():
                self._rows.sync()
                self._acknowledge()
                return
        self._unfinished = True
        try:
            self._write_pending()
        except StoreWriteError as error:
            if not error.may_retry:
                self._failure = error
            raise
        self._acknowledge()

    def _acknowledge(self) -> None:
        self.rows_acknowledged += sum(table.num_rows for table in self._pending_rows)
        self._forget_pending()
        self._unfinished = False

    def _pending_rows_are_stored(self) -> bool:
        """Return whether the interrupted commit had come to its end: rows are added all or none."""
        if not self._pending_rows:
            return False
        first = self._pending_rows[0]["row_id"][0].as_py()
        return first in self._ids(self._rows)

    def _write_pending(self) -> None:
        """Write what was added, the rows last: a row is there only when its maps are."""
        if self._pending_samples:
            self._samples.append(pa.concat_tables(self._pending_samples))
            self._pending_samples = []
        for shape, pending in self._pending_maps.items():
            if pending:
                self._maps[shape].append(pa.concat_tables(pending))
        if self._pending_measures:
            table = pa.concat_tables(self._pending_measures, promote_options="default")
            self._prepare_measures(table.schema)
            self._measures.append(table)
        if self._pending_rows:
            table = pa.concat_tables(self._pending_rows).select(ROWS.names).cast(ROWS)
            self._rows.append(table)

    def _prepare_measures(self, schema: pa.Schema) -> None:
        """See that the shared dataset has a column for each measure."""
        names = {name for name in schema.names if name not in MEASURES.names}
        if names <= self._measure_names:
            return
        if self._measures.open() is None:
            self._measures.append(MEASURES.empty_table())
        self._measures.add_columns([pa.field(name, pa.float32()) for name in sorted(names)])
        self._measure_names |= names

    def close(self) -> None:
        """Flush, merge small files and let others write the run."""
        if self._closed:
            return
        try:
            self.flush()
            bytes_per_row = sum(2 * s.heads * s.query * s.key for s in self.sites)
            for table in self._maps.values():
                table.compact(max(1, _MERGED_BYTES // bytes_per_row))
            for table in (self._rows, self._measures, self._samples):
                table.compact(1 << 20)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._closed = True
        self._lock.release()


def _is_column(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _arrow(name: str, column: Any) -> pa.Array:
    wanted = ROW_COLUMNS[name]
    values = column if isinstance(column, np.ndarray) else list(column)
    try:
        return pa.array(values, from_pandas=True).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UserError(f"column {name!r} cannot be stored as {wanted}: {error}") from error
