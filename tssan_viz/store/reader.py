"""Reading a store: runs, rows, maps and samples, each as far as it is asked for."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue, ClassEntry
from tssan_viz.store.codes import Code, checked_code, code_dtype, code_of
from tssan_viz.store.map_reading import (
    Differing,
    Ranks,
    RowIndex,
    lie_together,
    read_into,
    stretch,
)
from tssan_viz.store.opened import Datasets, Opened, damaged_file
from tssan_viz.store.places import Place, beside, size_of
from tssan_viz.store.schema import (
    MEASURES,
    ROWS,
    Site,
    StoredSample,
    map_columns,
    maps_folder,
    named,
    run_folder,
)
from tssan_viz.store.tables import StoreDamaged

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store.nearest import MapIndex
    from tssan_viz.store.writer import RunWriter

T = TypeVar("T")

_SAMPLES_AT_A_TIME = 256

# So many rows of each reading of maps are compared with their checksums.
_COMPARED = 4

_RUN_COLUMNS = (
    "run",
    "created",
    "dataset",
    "rows",
    "samples",
    "classes",
    "subjects",
    "cameras",
    "splits",
    "steps",
    "sites",
    "layers",
    "heads",
    "accuracy",
    "info",
)


def readable(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas; integers and booleans are nullable where values are missing."""
    nullable = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        dtype = nullable.get(column.type)
        if column.null_count and dtype is not None:
            frame[name] = pd.array(column.to_pylist(), dtype=dtype)
    return frame


class AttentionStore:
    """Recorded attention in a folder or a bucket: several runs, each with maps and catalogue.

    Reading is safe while others write: each question sees whole commits only, and all of them; in a
    bucket those of other processes within a second. Objects may be shared between threads, not
    between forked processes (Lance cannot be forked).

    Parameters
    ----------
    path
        The folder, or its place in a bucket; `open_store` finds and checks it.

    Attributes
    ----------
    url : str
        Where the store is.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self.url = str(path)
        self._datasets = Datasets(path)
        self._readings = 0

    def __reduce__(self) -> tuple[type[AttentionStore], tuple[Place]]:
        # Another process (a Dask worker) opens it for itself, perhaps from another folder.
        return AttentionStore, (self.path.absolute(),)

    def __repr__(self) -> str:
        return f"AttentionStore({self.url!r})"

    # ---- datasets

    @property
    def notes(self) -> list[str]:
        """What a person should know, for instance that a version could not be read."""
        for name in ("runs", "sites", "catalogue", "rows", "measures", "samples"):
            self._datasets.open(name)
        for maps in sorted((self.path / "maps").glob("*/*x*")):
            self._datasets.open(str(maps.relative_to(self.path)))
        return self._datasets.notes()

    # ---- runs

    def _runs(self) -> pd.DataFrame:
        def read(opened: Opened) -> pd.DataFrame:
            if opened.damaged:
                raise damaged_file(opened.damaged[0], "the runs are listed in it")
            return opened.once(
                "all",
                lambda dataset: readable(dataset.to_table()).sort_values("created", kind="stable"),
            )

        found = self._datasets.read("runs", read)
        if found is None:
            return pd.DataFrame({"run": [], "created": [], "info": []})
        return found

    def run_names(self) -> list[str]:
        """Return the names of the runs, newest last."""
        return self._runs()["run"].tolist()

    def info(self, run: str) -> dict[str, Any]:
        """Return what was stored with a run: recipe, checkpoint, seed, device."""
        runs = self._runs()
        return json.loads(runs.loc[runs["run"] == self.checked_run(run), "info"].iloc[0])

    def created(self, run: str) -> datetime:
        """Return when a run was begun."""
        runs = self._runs()
        return runs.loc[runs["run"] == self.checked_run(run), "created"].iloc[0].to_pydatetime()

    def stored_code(self, run: str) -> Code:
        """Return how a run's maps are written down; see `tssan_viz.store.codes`."""

        def read(dataset: lance.LanceDataset) -> dict[str, str]:
            if "code" not in dataset.schema.names:
                # The first format knew one code.
                return {}
            lines = dataset.to_table(columns=["run", "code"])
            return dict(zip(lines["run"].to_pylist(), lines["code"].to_pylist(), strict=True))

        codes = self._datasets.read("runs", lambda opened: opened.once("codes", read)) or {}
        return checked_code(codes.get(run, "float16"))

    def runs(self) -> pd.DataFrame:
        """Return one line per run, newest last.

        Returns
        -------
        DataFrame
            ``run``, ``created`` (UTC), ``dataset``, ``rows``, ``samples``, ``classes``,
            ``subjects``, ``cameras``, ``splits``, ``steps``, ``sites``, ``layers``, ``heads``,
            ``accuracy`` (of its samples, NaN where no prediction was recorded), ``info`` (dict).
        """
        lines = []
        for run, created in self._runs()[["run", "created"]].itertuples(index=False):
            rows, sites = self.rows(run), self.sites(run)
            last = rows.sort_values("step", kind="stable").drop_duplicates("sample", keep="last")
            correct = last["correct"].dropna()
            lines.append(
                {
                    "run": run,
                    "created": created,
                    "dataset": self.catalogue(run).dataset,
                    "rows": len(rows),
                    "samples": len(last),
                    "classes": rows["class_name"].nunique(),
                    "subjects": rows["subject"].nunique(),
                    "cameras": rows["camera"].nunique(),
                    "splits": tuple(sorted(rows["split"].dropna().unique())),
                    "steps": rows["step"].nunique(),
                    "sites": len(sites),
                    "layers": sites["layer"].nunique(),
                    "heads": int(sites["heads"].max()),
                    "accuracy": float(correct.astype(float).mean()) if len(correct) else np.nan,
                    "info": self.info(run),
                }
            )
        return pd.DataFrame(lines, columns=list(_RUN_COLUMNS))

    def latest_run(self) -> str:
        """Return the newest run that has rows, or the newest if none has.

        Raises
        ------
        UserError
            Nothing was recorded yet.
        """
        names = self.run_names()
        if not names:
            raise UserError(
                f"{self.url} holds no run yet; `tssan-viz record` or tssan_viz.record() writes one"
            )
        return next((run for run in reversed(names) if len(self.rows(run))), names[-1])

    def checked_run(self, run: str | None) -> str:
        """Return the run of that name, the newest for None.

        Raises
        ------
        UserError
            There is no such run; the message names the nearest.
        """
        if run is None:
            return self.latest_run()
        names = self.run_names()
        if run in names:
            return run
        near = difflib.get_close_matches(run, names, n=3, cutoff=0.4)
        advice = (
            f"did you mean {named([*map(repr, near)])}?" if near else f"it holds {named(names)}"
        )
        if not names:
            advice = "it holds none yet"
        raise UserError(f"{self.url} has no run {run!r}; {advice}")

    def stored_sites(self, run: str) -> tuple[Site, ...]:
        """Return a run's sites, in the order of recording."""

        def of(opened: Opened) -> dict[int, tuple[int, ...]]:
            return {n["site"]: tuple(n["numbers"]) for n in opened.lines_of(run).to_pylist()}

        chosen = (
            self._datasets.read("heads", lambda opened: opened.once(run, lambda _: of(opened)))
            or {}
        )

        def read(opened: Opened) -> tuple[Site, ...]:
            lines = opened.lines_of(run).sort_by("site").to_pylist()
            return tuple(
                Site(
                    **{k: v for k, v in line.items() if k not in ("run", "site")},
                    numbers=chosen.get(line["site"], ()),
                )
                for line in lines
            )

        found = self._datasets.read(
            "sites", lambda opened: opened.once(run, lambda _: read(opened))
        )
        if not found:
            raise StoreDamaged(f"{self.url}: run {run!r} has no sites")
        return found

    def sites(self, run: str | None = None) -> pd.DataFrame:
        """Return one line per site of a run.

        Returns
        -------
        DataFrame
            ``site`` (from 1), ``name``, ``stream``, ``layer``, ``heads`` (how many), ``numbers``
            (which, from 1), ``query``, ``key``, ``kind``, ``provenance``.
        """
        sites = self.stored_sites(self.checked_run(run))
        frame = pd.DataFrame([vars(site) for site in sites])
        frame.insert(0, "site", range(1, len(sites) + 1))
        order = "site name stream layer heads numbers query key kind provenance"
        return frame[order.split()]

    def stored_catalogue(self, run: str) -> Catalogue:
        """Return the catalogue exactly as it was given to the writer."""

        def read(opened: Opened) -> Catalogue:
            lines = opened.lines_of(run).to_pylist()
            if not lines:
                raise StoreDamaged(f"{self.url}: run {run!r} has no catalogue")
            return Catalogue.from_json(lines[-1]["catalogue"])

        found = self._datasets.read(
            "catalogue", lambda opened: opened.once(run, lambda _: read(opened))
        )
        if found is None:
            raise StoreDamaged(f"{self.url}: run {run!r} has no catalogue")
        return found

    def catalogue(self, run: str | None = None) -> Catalogue:
        """Return a run's classes and skeleton.

        A run that was recorded without class names gets those that its rows carry.
        """
        run = self.checked_run(run)
        stored = self.stored_catalogue(run)
        if stored.classes:
            return stored
        rows = self.rows(run)
        classes = rows[["label", "class_name", "class_code"]].dropna(subset=["label", "class_name"])
        entries = tuple(
            ClassEntry(int(label), name, code if isinstance(code, str) else None)
            for label, name, code in classes.drop_duplicates("label")
            .sort_values("label")
            .itertuples(index=False)
        )
        return Catalogue(stored.dataset, entries, stored.skeleton, stored.fps)

    # ---- rows and measures

    def arrow_rows(self, run: str) -> pa.Table:
        """Return a run's rows as Arrow (no float16 among them, so that DuckDB takes them).

        Columns of further metadata are there in the runs that have any.
        """
        found = self._datasets.read(
            "rows",
            lambda opened: opened.once(("arrow", run), lambda _: _rows_of(opened.lines_of(run))),
        )
        return ROWS.empty_table() if found is None else found

    def rows(self, run: str | None = None) -> pd.DataFrame:
        """Return a run's rows in the order of recording, with further metadata as columns."""
        run = self.checked_run(run)

        def read(opened: Opened) -> pd.DataFrame:
            return readable(_rows_of(opened.lines_of(run)))

        found = self._datasets.read(
            "rows", lambda opened: opened.once(("frame", run), lambda _: read(opened))
        )
        return readable(ROWS.empty_table()) if found is None else found.copy(deep=False)

    def measures(self, run: str) -> pd.DataFrame:
        """Return a run's measures, one line per row × layer × head."""
        found = self._datasets.read("measures", lambda opened: opened.lines_of(run))
        if found is None:
            found = MEASURES.empty_table()
        ranks = self._ranks(run)
        if ranks is not None and "rank" in found.column_names:
            # A row that two processes recorded counts once.
            mine = ranks.of(found["row_id"].to_numpy()) == found["rank"].to_numpy()
            found = found.filter(pa.array(mine))
        frame = readable(found).drop(columns="rank", errors="ignore")
        return frame.dropna(axis="columns", how="all") if len(frame) else frame

    def _ranks(self, run: str) -> Ranks | None:
        """Return which process each row is of; None where there was one."""

        def read(opened: Opened) -> Ranks | None:
            rows = _rows_of(opened.lines_of(run))
            ranks = rows["rank"].to_numpy()
            if not ranks.any():
                return None
            numbers = rows["row_id"].to_numpy()
            order = np.argsort(numbers)
            return Ranks(numbers[order], ranks[order])

        return self._datasets.read(
            "rows", lambda opened: opened.once(("ranks", run), lambda _: read(opened))
        )

    # ---- maps

    def read_maps(
        self,
        run: str,
        row_ids: np.ndarray,
        sites: Mapping[int, Sequence[int]],
        *,
        compare_all: bool = False,
        coded: bool = False,
    ) -> np.ndarray:
        """Return the maps of rows, in the order asked for; only the columns needed are read.

        Parameters
        ----------
        run
            The run.
        row_ids : int64 (r,)
            Rows of the run.
        sites
            For each site's number the heads wanted, each site as many, all counted from 1.
        compare_all
            Whether every map is compared with its checksum, not a few of each reading.
        coded
            Whether maps come as they are stored, for `tssan_viz.store.codes.decode_tensor`.

        Returns
        -------
        float16 (r, l, h, q, s), or float32 in a run of another code
            With `coded` uint8 or uint16 in a run of another code.

        Raises
        ------
        StoreDamaged
            A row's maps are not there, or, of the few that are compared with their checksums at
            each reading, not what was recorded.
        """
        stored = self.stored_sites(run)
        shapes = {(stored[n - 1].query, stored[n - 1].key) for n in sites}
        if len(shapes) != 1:
            raise UserError(f"maps of different shapes cannot be read together: {sorted(shapes)}")
        (shape,) = shapes
        code = self.stored_code(run)
        columns = {
            column: code_of(code, stored[number - 1].kind)
            for number, heads in sites.items()
            for column in map_columns(number, heads)
        }
        codes = set(columns.values())
        if coded and len(codes) > 1:
            raise UserError(
                f"maps of these layers are stored in several codes ({named(sorted(codes))}) and "
                "cannot be read together as they are stored; name one layer"
            )
        # What there is only one of is decoded by whoever asked: float16 in any case.
        dtype = code_dtype(codes.pop()) if coded or codes == {"float16"} else np.dtype(np.float32)
        heads = len(next(iter(sites.values())))
        out = np.empty((len(row_ids), len(columns), *shape), dtype)
        ranks = self._ranks(run)
        if ranks is None:
            self._read_rank(run, 0, row_ids, columns, out, compare_all)
        else:
            of = ranks.of(row_ids)
            for rank in np.unique(of).tolist():
                mine = np.flatnonzero(of == rank)
                part = np.empty((len(mine), *out.shape[1:]), out.dtype)
                self._read_rank(run, rank, row_ids[mine], columns, part, compare_all)
                out[mine] = part
        return out.reshape(len(row_ids), len(sites), heads, *shape)

    def _read_rank(
        self,
        run: str,
        rank: int,
        row_ids: np.ndarray,
        columns: dict[str, Code],
        out: np.ndarray,
        compare_all: bool,
    ) -> None:
        """Fill `out` (r, columns, q, s) with maps that one process recorded."""
        if not len(row_ids):
            return
        compared = self._compared(len(row_ids), every=compare_all)

        def read(dataset: lance.LanceDataset, index: RowIndex, positions: np.ndarray) -> None:
            read_into(dataset, index, positions, columns, out, compared)

        self._read_lines(run, rank, row_ids, out.shape[2:], read)

    def read_pieces(
        self, run: str, row_ids: np.ndarray, sites: Mapping[int, Sequence[int]]
    ) -> list[list[np.ndarray]]:
        """Return the maps of rows as they come from the disk: for what adds them up at once.

        Where rows lie as they were recorded, nothing is copied.

        Parameters
        ----------
        run, row_ids, sites
            As for `read_maps`.

        Returns
        -------
        list of list of float16 (n, q, s), or float32 in a run of another code
            For each piece, in the order asked for, the maps of each site and head.

        Raises
        ------
        StoreDamaged
            As `read_maps`.
        """
        stored = self.stored_sites(run)
        code = self.stored_code(run)
        found = None
        plain = {code_of(code, stored[number - 1].kind) for number in sites} == {"float16"}
        shapes = {(stored[number - 1].query, stored[number - 1].key) for number in sites}
        if plain and len(shapes) == 1 and len(row_ids) and self._ranks(run) is None:
            (shape,) = shapes
            compared = self._compared(len(row_ids), every=False)
            columns = [
                name for number, heads in sites.items() for name in map_columns(number, heads)
            ]

            def read(
                dataset: lance.LanceDataset, index: RowIndex, positions: np.ndarray
            ) -> list[list[np.ndarray]] | None:
                if not lie_together(positions):
                    return None
                return [
                    [lines.reshape(-1, *shape) for lines in piece]
                    for piece in stretch(dataset, index, positions, columns, compared)
                ]

            found = self._read_lines(run, 0, row_ids, shape, read)
        if found is None:
            maps = self.read_maps(run, row_ids, sites)
            found = [[*maps.reshape(len(maps), -1, *maps.shape[3:]).swapaxes(0, 1)]]
        return found

    def _compared(self, rows: int, *, every: bool) -> np.ndarray:
        """Return which rows of a reading are compared with their checksums: others each time."""
        self._readings += 1
        step = 1 if every else max(1, rows // _COMPARED)
        return np.arange(self._readings % step, rows, step)

    def _read_lines(
        self,
        run: str,
        rank: int,
        row_ids: np.ndarray,
        shape: tuple[int, ...],
        work: Callable[[lance.LanceDataset, RowIndex, np.ndarray], T],
    ) -> T:
        """Return what `work` reads of the lines of rows that one process recorded."""
        name = f"maps/{run_folder(run)}/{maps_folder(shape[0], shape[1], rank)}"

        def read(opened: Opened) -> tuple[T]:
            index = opened.once("index", RowIndex.of)
            positions = index.positions(row_ids)
            if positions is None:
                why = f". {opened.note}" if opened.note else ""
                raise StoreDamaged(
                    f"{self.path / name} lacks maps of rows that the store lists{why}"
                )
            return (work(opened.dataset, index, positions),)

        try:
            found = self._datasets.read(name, read)
        except Differing as error:
            row = self.rows(run)
            row = row[row["row_id"] == row_ids[error.row]].iloc[0]
            raise StoreDamaged(
                f"{self.path / name} is damaged: {error.column} of run {run!r}, sample "
                f"{row['sample']!r}, segment {row['segment']}, person {row['person']} is not what "
                "was recorded. `tssan-viz verify` names all that is damaged; what is not is still "
                "answered"
            ) from None
        if found is None:
            raise StoreDamaged(f"{self.path / name} lacks maps of rows that the store lists")
        return found[0]

    # ---- samples

    def sample(self, sample: str, run: str | None = None) -> StoredSample:
        """Return a video's frame numbers, times and poses.

        A video that was recorded without them gets the frame numbers of its clip, from 0.

        Raises
        ------
        UserError
            The run has no such sample; the message names the nearest.
        """
        run = self.checked_run(run)

        def read(opened: Opened) -> dict[str, Any] | None:
            position = opened.once("index", _sample_index).get((run, sample))
            return None if position is None else _lines(opened.dataset.take([position]))[0]

        line = self._datasets.read("samples", read)
        if line is not None:
            return _stored_sample(line)
        rows = self.rows(run)
        mine = rows[rows["sample"] == sample]
        if mine.empty:
            raise unknown_sample(sample, list(dict.fromkeys(rows["sample"])), run)
        first = mine.iloc[0]
        sites = self.stored_sites(run)
        frames = np.arange(sites[0].query, dtype=np.float32)
        segments = int(mine["segment"].max())
        return StoredSample(
            sample=sample,
            label=_or_none(first["label"]),
            class_name=_or_none(first["class_name"]),
            class_code=_or_none(first["class_code"]),
            subject=_or_none(first["subject"]),
            camera=_or_none(first["camera"]),
            frames=np.tile(frames, (segments, 1)),
        )

    def stored_samples(self, run: str, names: Sequence[str]) -> Iterator[StoredSample]:
        """Go through videos that were recorded with frame numbers, some at a time.

        Those that were not are left out.
        """

        def read(opened: Opened, part: Sequence[str]) -> list[dict[str, Any]]:
            index = opened.once("index", _sample_index)
            positions = [index[(run, name)] for name in part if (run, name) in index]
            return _lines(opened.dataset.take(positions)) if positions else []

        for start in range(0, len(names), _SAMPLES_AT_A_TIME):
            part = names[start : start + _SAMPLES_AT_A_TIME]
            for line in self._datasets.read("samples", partial(read, part=part)) or []:
                yield _stored_sample(line)

    def nearest(
        self,
        attention: np.ndarray,
        *,
        layer: int,
        head: int,
        k: int = 10,
        exact: bool | None = None,
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return the rows whose map is most like one; see `tssan_viz.selection.Selection.nearest`.

        `conditions` are those of `select`.
        """
        return self.select(layer=layer, head=head, **conditions).nearest(attention, k, exact=exact)

    def index(
        self,
        *,
        layer: int,
        head: int,
        progress: Callable[[str, int, int], None] | None = None,
        **conditions: Any,
    ) -> MapIndex:
        """Make an index for `nearest` among very many maps; see `Selection.index`.

        `conditions` are those of `select`; the index serves questions with the same.
        """
        return self.select(layer=layer, head=head, **conditions).index(progress)

    def duplicates(self, run: str | None = None) -> dict[str, str]:
        """Return the videos whose file is that of another one, each with the name of that one."""
        run = self.checked_run(run)

        def read(dataset: lance.LanceDataset) -> dict[str, str]:
            copies = (pc.field("run") == run) & pc.field("duplicate_of").is_valid()
            lines = dataset.to_table(columns=["sample", "duplicate_of"], filter=copies).to_pylist()
            return {line["sample"]: line["duplicate_of"] for line in lines}

        found = self._datasets.read(
            "samples", lambda opened: opened.once(("duplicates", run), read)
        )
        return found or {}

    # ---- the rest

    def select(self, **conditions: Any) -> Selection:
        """Return the rows that fit all conditions; see `tssan_viz.selection.Selection`."""
        from tssan_viz.selection import Selection

        return Selection(self, **conditions)

    def sql(self, question: str) -> pd.DataFrame:
        """Return the answer to a question in SQL, for instance about the measures of all runs.

        ``store.sql("select class_name, head, avg(entropy) from maps group by all")``

        The tables are ``maps`` (one line per row × layer × head), ``rows``, ``samples``, ``sites``
        and ``runs``; see `tssan_viz.store.sql.query`. Nothing can be changed through it.
        """
        from tssan_viz.store.sql import query

        return readable(query(self, question))

    def dataset(self, name: str) -> lance.LanceDataset | None:
        """Return one of the store's datasets at its newest whole version, None if there is none."""
        opened = self._datasets.open(name)
        return None if opened is None else opened.dataset

    def writer(
        self,
        run: str,
        *,
        sites: Sequence[Site],
        catalogue: Catalogue,
        info: Mapping[str, Any] | None = None,
        rank: int = 0,
        code: str = "float16",
    ) -> RunWriter:
        """Return a writer for a run; the same run again goes on where it stopped.

        Several processes write a run at once, each with its own `rank`; `code` says how maps are
        written down. See `RunWriter`.
        """
        from tssan_viz.store.writer import RunWriter

        return RunWriter(
            self.path, run, sites=sites, catalogue=catalogue, info=info or {}, rank=rank, code=code
        )

    def size(self, part: str = ".") -> int:
        """Return the bytes that the store, or a folder in it, takes on the disk."""
        where = beside(self.path) if part == "cells" else self.path
        return size_of(where / part)


def unknown_sample(sample: str, known: Sequence[str], run: str) -> UserError:
    """Return the error for a sample that a run does not hold."""
    near = difflib.get_close_matches(sample, known, n=3, cutoff=0.5)
    advice = f"did you mean {named(near)}?" if near else f"it holds {named(known, 3)}"
    return UserError(f"run {run!r} has no sample {sample!r}; {advice}")


def _or_none(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _rows_of(lines: pa.Table) -> pa.Table:
    """Return stored rows as they are shown, whatever format they were stored in."""
    if "rank" not in lines.column_names:
        lines = lines.append_column("rank", pa.array(np.zeros(lines.num_rows, np.int16)))
    further = [
        name
        for name in lines.column_names
        if name not in ROWS.names and lines[name].null_count < lines.num_rows
    ]
    lines = lines.select([*ROWS.names, *further])
    if pc.any(pc.not_equal(lines["rank"], 0)).as_py():
        _, first = np.unique(lines["row_id"].to_numpy(), return_index=True)
        if len(first) < lines.num_rows:
            lines = lines.take(np.sort(first))
    return lines


def _sample_index(dataset: lance.LanceDataset) -> dict[tuple[str, str], int]:
    lines = dataset.to_table(columns=["run", "sample"])
    keys = zip(lines["run"].to_pylist(), lines["sample"].to_pylist(), strict=True)
    return {key: position for position, key in enumerate(keys)}


def _lines(table: pa.Table) -> list[dict[str, Any]]:
    """Return samples line by line; lists of numbers as arrays, thousands in a line of poses."""
    columns = [
        [line.values.to_numpy(zero_copy_only=False) if line.is_valid else None for line in column]
        if pa.types.is_list(column.type) and not pa.types.is_integer(column.type.value_type)
        else column.to_pylist()
        for column in table.columns
    ]
    return [dict(zip(table.column_names, line, strict=True)) for line in zip(*columns, strict=True)]


def _stored_sample(line: dict[str, Any]) -> StoredSample:
    def array(field: str, shape: str, dtype: type) -> np.ndarray | None:
        if line[field] is None:
            return None
        return np.array(line[field], dtype).reshape(line[shape])

    frames = array("frames", "frames_shape", np.float32)
    assert frames is not None
    return StoredSample(
        **{
            field: line[field]
            for field in (
                "sample",
                "label",
                "class_name",
                "class_code",
                "subject",
                "camera",
                "duplicate_of",
            )
        },
        frames=frames,
        seconds=array("seconds", "frames_shape", np.float32),
        poses=array("poses", "poses_shape", np.float32),
        present=array("present", "present_shape", np.bool_),
    )
