"""Checking a whole store: every file's digest, every map's checksum, sums and counts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.store import digests
from tssan_viz.store.codes import code_of, decode_lines
from tssan_viz.store.incoming import ROW_SUM_TOLERANCE
from tssan_viz.store.map_reading import fixed_size_values
from tssan_viz.store.places import Place
from tssan_viz.store.reader import AttentionStore
from tssan_viz.store.schema import Site, decode, map_columns, maps_folder, named, run_folder
from tssan_viz.store.tables import StoreDamaged, data_files, newest_manifest, open_whole

_TABLES = ("runs", "sites", "heads", "catalogue", "rows", "measures", "samples", "reports")
_BATCH_BYTES = 64 << 20


@dataclass
class Verification:
    """What a check of a store found.

    Attributes
    ----------
    rows, maps : int
        How many were compared with their checksums.
    files : int
        How many files were compared with their digests.
    damaged : list of str
        What is not as it was recorded, each with its place; empty for a sound store.
    """

    rows: int = 0
    maps: int = 0
    files: int = 0
    damaged: list[str] = field(default_factory=list)


def verify(
    store: AttentionStore, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Check a store: files against digests, maps against checksums, sums, and counts.

    Parameters
    ----------
    store
        The store. What is recorded meanwhile is not looked at.
    progress
        Called with the rows done and the rows there are.

    Returns
    -------
    Verification
    """
    from tssan_viz.comparison.kept_files import kept_cells_faults

    found = Verification()
    tables = {name: _check_files(store.path / name, found) for name in _TABLES}
    if tables["runs"] is None:
        if any(tables[name] is not None for name in ("rows", "sites", "catalogue")):
            found.damaged.append(f"{store.path / 'runs'} is missing: no run can be named")
        return found
    try:
        runs = store.run_names()
    except StoreDamaged as error:
        found.damaged.append(f"{error}; which maps belong to which run is not known")
        return found
    rows = tables["rows"]
    total = 0 if rows is None else rows.count_rows()
    for run in runs:
        try:
            _check_run(store, run, tables, found, lambda done: progress and progress(done, total))
            found.damaged += kept_cells_faults(store, run)
        except (StoreDamaged, OSError, ValueError) as error:
            found.damaged.append(str(error).split("\n")[0])
    found.damaged = list(dict.fromkeys(found.damaged))
    return found


def _check_files(path: Place, found: Verification) -> lance.LanceDataset | None:
    """Compare a dataset's files with their digests; return it as far as it can be opened."""
    if not (path / "_versions").exists():
        return None
    try:
        dataset, note = open_whole(path)
    except StoreDamaged as error:
        found.damaged.append(str(error))
        return None
    if note:
        found.damaged.append(note)
    for file in (newest_manifest(path, dataset), *data_files(dataset, path)):
        try:
            found.files += digests.is_known(path, file)
            if digests.is_damaged(path, file):
                found.damaged.append(f"{file} is not what was written")
        except FileNotFoundError:
            # A recording that ended meanwhile merged it.
            continue
    return dataset


def _lines(dataset: lance.LanceDataset | None, run: str, columns: list[str]) -> pa.Table | None:
    if dataset is None:
        return None
    there = [name for name in columns if name in dataset.schema.names]
    lines = dataset.to_table(columns=there, filter=pc.field("run") == run)
    if "rank" not in there:
        lines = lines.append_column("rank", pa.array(np.zeros(lines.num_rows, np.int16)))
    return lines


def _check_run(
    store: AttentionStore,
    run: str,
    tables: dict[str, lance.LanceDataset | None],
    found: Verification,
    progress: Callable[[int], Any],
) -> None:
    sites, code = store.stored_sites(run), store.stored_code(run)
    store.stored_catalogue(run)
    rows = _lines(tables["rows"], run, ["row_id", "sample", "checksum", "rank"])
    measures = _lines(tables["measures"], run, ["row_id", "rank"])
    reports = _lines(tables["reports"], run, ["rank", "finished", "rows_stored"])
    if rows is None:
        rows = pa.table({"rank": pa.array([], pa.int16())})
    for rank in sorted(rows["rank"].unique().to_pylist()):
        mine = rows.filter(pc.equal(rows["rank"], rank))
        _check_maps(store, run, rank, sites, code, mine, found)
        if measures is not None:
            _check_measures(run, rank, sites, mine, measures, found)
    if reports is not None:
        _check_reports(run, rows, reports, found)
    found.rows += rows.num_rows
    progress(found.rows)


def _check_maps(
    store: AttentionStore,
    run: str,
    rank: int,
    sites: tuple[Site, ...],
    code: Any,
    rows: pa.Table,
    found: Verification,
) -> None:
    samples = dict(zip(rows["row_id"].to_pylist(), rows["sample"].to_pylist(), strict=True))
    # Of each row, the checksums of its maps in the order of shapes and sites.
    sums: dict[int, list[bytes]] = {number: [] for number in samples}
    first_format = False
    for shape in dict.fromkeys((site.query, site.key) for site in sites):
        path = store.path / "maps" / run_folder(run) / maps_folder(*shape, rank)
        dataset = _check_files(path, found)
        if dataset is None:
            found.damaged.append(f"{path} is missing; {len(samples)} rows have maps in it")
            return
        first_format = "checksums" not in dataset.schema.names
        columns = {
            column: (site, code_of(code, site.kind))
            for number, site in enumerate(sites, start=1)
            if (site.query, site.key) == shape
            for column in map_columns(number, site.numbers)
        }
        seen: set[int] = set()
        for lines in _batches(dataset, path, columns, found):
            numbers = lines["row_id"].to_pylist()
            seen.update(numbers)
            computed = np.zeros((len(numbers), len(columns)), np.uint32)
            for c, (column, (site, coded)) in enumerate(columns.items()):
                values = fixed_size_values(lines[column], len(numbers))
                if first_format:
                    continue
                computed[:, c] = [zlib.crc32(line) for line in values]
                _check_sums(run, site, column, values, coded, numbers, samples, found)
                found.maps += len(numbers)
            if first_format:
                _check_first_format(run, rows, lines, columns, found)
                continue
            stored = fixed_size_values(lines["checksums"], len(numbers))
            for r, c in np.argwhere(stored != computed):
                found.damaged.append(
                    f"{path}: {list(columns)[c]} of run {run!r}, sample "
                    f"{samples.get(numbers[r], 'that no row names')!r} is not what was recorded"
                )
            for number, line in zip(numbers, stored, strict=True):
                if number in sums:
                    sums[number].append(line.tobytes())
        missing = [samples[number] for number in samples if number not in seen]
        if missing:
            found.damaged.append(
                f"{path} lacks the maps of {len(missing)} rows of run {run!r}: {named(missing, 3)}"
            )
    if first_format:
        return
    for number, checksum in zip(
        rows["row_id"].to_pylist(), rows["checksum"].to_pylist(), strict=True
    ):
        if sums[number] and zlib.crc32(b"".join(sums[number])) != checksum:
            found.damaged.append(
                f"run {run!r}, sample {samples[number]!r}: its row and its maps do not belong "
                "together (the row's checksum differs)"
            )


def _batches(
    dataset: lance.LanceDataset, path: Place, columns: dict[str, Any], found: Verification
) -> Iterator[pa.Table]:
    """Go through a dataset in bounded memory; a file that cannot be decoded costs itself only."""
    site, _ = next(iter(columns.values()))
    lines = max(1, _BATCH_BYTES // (2 * site.query * site.key * len(columns)))
    for fragment in dataset.get_fragments():
        try:
            for batch in fragment.to_batches(batch_size=lines):
                yield pa.Table.from_batches([batch])
        except (OSError, ValueError) as error:
            files = ", ".join(str(path / "data" / file.path) for file in fragment.data_files())
            reason = str(error).split("\n")[0]
            found.damaged.append(f"{files} cannot be read: {reason}")


def _check_sums(
    run: str,
    site: Site,
    column: str,
    values: np.ndarray,
    code: Any,
    numbers: list[int],
    samples: dict[int, str],
    found: Verification,
) -> None:
    if site.kind != "softmax":
        return
    maps = decode(decode_lines(values, code, site.query, site.key))
    totals = maps.sum(-1)
    wrong = ~(np.abs(totals - 1) < ROW_SUM_TOLERANCE) & (totals != 0)
    for r in np.flatnonzero(wrong.any(-1)):
        found.damaged.append(
            f"run {run!r}, sample {samples.get(numbers[r])!r}, {column}: "
            "a row of attention does not sum to 1"
        )


def _check_first_format(
    run: str, rows: pa.Table, lines: pa.Table, columns: dict[str, Any], found: Verification
) -> None:
    """Compare with the one checksum a row that the first format had (runs of one shape)."""
    stored = dict(zip(rows["row_id"].to_pylist(), rows["checksum"].to_pylist(), strict=True))
    values = [fixed_size_values(lines[column], lines.num_rows) for column in columns]
    for r, number in enumerate(lines["row_id"].to_pylist()):
        checksum = 0
        for column in values:
            checksum = zlib.crc32(column[r], checksum)
        found.maps += len(columns)
        if stored.get(number, checksum) != checksum:
            found.damaged.append(f"run {run!r}: maps of row {number} are not what was recorded")


def _check_measures(
    run: str,
    rank: int,
    sites: tuple[Site, ...],
    rows: pa.Table,
    measures: pa.Table,
    found: Verification,
) -> None:
    mine = measures.filter(pc.equal(measures["rank"], rank))
    if not mine.num_rows:
        return
    each = sum(site.heads for site in sites)
    counts = mine.group_by("row_id").aggregate([("rank", "count")])
    known = dict(zip(counts["row_id"].to_pylist(), counts["rank_count"].to_pylist(), strict=True))
    wrong = [number for number in rows["row_id"].to_pylist() if known.get(number, 0) != each]
    if wrong:
        found.damaged.append(
            f"run {run!r}: {len(wrong)} of {rows.num_rows} rows have not {each} lines of measures, "
            "one for each site and head"
        )


def _check_reports(run: str, rows: pa.Table, reports: pa.Table, found: Verification) -> None:
    """Compare the rows with what recordings that came to their end counted."""
    reported: dict[int, int] = {}
    lines = reports.sort_by("finished").to_pylist() if reports.num_rows else []
    for line in lines:
        reported[line["rank"]] = line["rows_stored"]
    ranks = rows["rank"].to_numpy()
    for rank, count in reported.items():
        there = int((ranks == rank).sum())
        if there < count:
            of = f" of rank {rank}" if len(reported) > 1 else ""
            found.damaged.append(
                f"run {run!r}: {there} rows{of} are there, {count} were reported when its "
                "recording ended"
            )
