"""Reading a store: runs, rows, maps and samples, each as far as it is asked for."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue, ClassEntry
from tssan_viz.store.schema import (
    MEASURES,
    ROWS,
    Site,
    StoredSample,
    map_columns,
    named,
    run_folder,
)
from tssan_viz.store.tables import StoreDamaged, open_whole, written_at

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store.writer import RunWriter

T = TypeVar("T")

# Reading a stretch as a whole is cheaper than picking, as long as it holds less than this many
# times what is wanted, and fits in memory.
_STRETCH = 5
_STRETCH_BYTES = 256 << 20


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


class StoreNotFound(UserError):
    """There is no attention store at that place."""


@dataclass(frozen=True)
class _Opened:
    """A dataset at one version, with what was worked out for that version."""

    dataset: lance.LanceDataset
    written: int
    note: str | None
    derived: dict[Any, Any]

    def once(self, key: Any, work: Callable[[lance.LanceDataset], T]) -> T:
        """Return what `work` makes of this version, worked out at the first call."""
        if key not in self.derived:
            self.derived[key] = work(self.dataset)
        return self.derived[key]


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
    """A folder of recorded attention: several runs, each with its maps, samples and catalogue.

    Reading is safe while others write: each question sees whole commits only. Objects may be
    shared between threads, not between forked processes (Lance cannot be forked).

    Parameters
    ----------
    path
        The folder; `open_store` finds and checks it.

    Attributes
    ----------
    url : str
        Where the store is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)
        self._opened: dict[Path, _Opened] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AttentionStore({self.url!r})"

    # ---- datasets

    def _open(self, name: str) -> _Opened | None:
        """Return a dataset at its newest whole version; None where nothing was written yet."""
        path = self.path / name
        with self._lock:
            before = self._opened.get(path)
            if not (path / "_versions").exists():
                return None
            whole = None if before is None or before.note else before.dataset.version
            dataset, note = open_whole(path, whole)
            # A store that was removed and made anew counts its versions from 1 again.
            written = written_at(path, dataset.version)
            now = (dataset.version, written, note)
            if before is None or (before.dataset.version, before.written, before.note) != now:
                before = self._opened[path] = _Opened(dataset, written, note, {})
            return before

    def _forget(self, name: str) -> None:
        with self._lock:
            self._opened.pop(self.path / name, None)

    def _read(self, name: str, work: Callable[[_Opened], T]) -> T | None:
        """Return what `work` reads from a dataset; None where nothing was written yet.

        A recording that ends while we read merges files and drops the old ones; then the dataset
        is opened anew and read again.
        """
        opened = self._open(name)
        if opened is None:
            return None
        try:
            return work(opened)
        except (OSError, ValueError):
            self._forget(name)
        opened = self._open(name)
        try:
            return None if opened is None else work(opened)
        except (OSError, ValueError) as error:
            raise StoreDamaged(f"{self.path / name} cannot be read: {error}") from error

    @property
    def notes(self) -> list[str]:
        """What a person should know, for instance that a version could not be read."""
        for name in ("runs", "sites", "catalogue", "rows", "measures", "samples"):
            self._open(name)
        for maps in sorted((self.path / "maps").glob("*/*x*")):
            self._open(str(maps.relative_to(self.path)))
        with self._lock:
            return [opened.note for opened in self._opened.values() if opened.note]

    # ---- runs

    def _runs(self) -> pd.DataFrame:
        def read(dataset: lance.LanceDataset) -> pd.DataFrame:
            return readable(dataset.to_table()).sort_values("created", kind="stable")

        found = self._read("runs", lambda opened: opened.once("all", read))
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

        def read(dataset: lance.LanceDataset) -> tuple[Site, ...]:
            lines = dataset.to_table(filter=pc.field("run") == run).sort_by("site").to_pylist()
            return tuple(
                Site(**{k: v for k, v in line.items() if k not in ("run", "site")})
                for line in lines
            )

        found = self._read("sites", lambda opened: opened.once(run, read))
        if not found:
            raise StoreDamaged(f"{self.url}: run {run!r} has no sites")
        return found

    def sites(self, run: str | None = None) -> pd.DataFrame:
        """Return one line per site of a run.

        Returns
        -------
        DataFrame
            ``site`` (from 1), ``name``, ``stream``, ``layer``, ``heads``, ``query``, ``key``,
            ``kind``, ``provenance``.
        """
        sites = self.stored_sites(self.checked_run(run))
        frame = pd.DataFrame([vars(site) for site in sites])
        frame.insert(0, "site", range(1, len(sites) + 1))
        order = ["site", "name", "stream", "layer", "heads", "query", "key", "kind", "provenance"]
        return frame[order]

    def stored_catalogue(self, run: str) -> Catalogue:
        """Return the catalogue exactly as it was given to the writer."""

        def read(dataset: lance.LanceDataset) -> Catalogue:
            lines = dataset.to_table(filter=pc.field("run") == run).to_pylist()
            if not lines:
                raise StoreDamaged(f"{self.url}: run {run!r} has no catalogue")
            return Catalogue.from_json(lines[-1]["catalogue"])

        found = self._read("catalogue", lambda opened: opened.once(run, read))
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
        """Return a run's rows as Arrow (no float16 among them, so that DuckDB takes them)."""

        def read(dataset: lance.LanceDataset) -> pa.Table:
            return dataset.to_table(filter=pc.field("run") == run)

        found = self._read("rows", lambda opened: opened.once(("arrow", run), read))
        return ROWS.empty_table() if found is None else found

    def rows(self, run: str | None = None) -> pd.DataFrame:
        """Return a run's rows in the order of recording."""
        run = self.checked_run(run)

        def read(dataset: lance.LanceDataset) -> pd.DataFrame:
            return readable(dataset.to_table(filter=pc.field("run") == run))

        found = self._read("rows", lambda opened: opened.once(("frame", run), read))
        return readable(ROWS.empty_table()) if found is None else found.copy(deep=False)

    def measures(self, run: str) -> pd.DataFrame:
        """Return a run's measures, one line per row × layer × head."""
        found = self._read(
            "measures",
            lambda opened: readable(opened.dataset.to_table(filter=pc.field("run") == run)),
        )
        if found is None:
            return readable(MEASURES.empty_table())
        return found.dropna(axis="columns", how="all") if len(found) else found

    # ---- maps

    def read_maps(
        self, run: str, row_ids: np.ndarray, sites: Mapping[int, Sequence[int]]
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

        Returns
        -------
        float16 (r, l, h, q, s)

        Raises
        ------
        StoreDamaged
            A row's maps are not there.
        """
        stored = self.stored_sites(run)
        shapes = {(stored[n - 1].query, stored[n - 1].key) for n in sites}
        if len(shapes) != 1:
            raise UserError(f"maps of different shapes cannot be read together: {sorted(shapes)}")
        (shape,) = shapes
        columns = [
            map_columns(number, max(heads))[head - 1]
            for number, heads in sites.items()
            for head in heads
        ]
        name = f"maps/{run_folder(run)}/{shape[0]}x{shape[1]}"
        out = np.empty((len(row_ids), len(columns), shape[0] * shape[1]), np.float16)

        def read(opened: _Opened) -> bool:
            positions = _positions(opened.once("index", _row_index), row_ids)
            if positions is None:
                return False
            _read_into(opened.dataset, positions, columns, out)
            return True

        if len(row_ids) and not self._read(name, read):
            raise StoreDamaged(f"{self.path / name} lacks maps of rows that the store lists")
        heads = len(next(iter(sites.values())))
        return out.reshape(len(row_ids), len(sites), heads, *shape)

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

        def read(opened: _Opened) -> dict[str, Any] | None:
            position = opened.once("index", _sample_index).get((run, sample))
            return None if position is None else opened.dataset.take([position]).to_pylist()[0]

        line = self._read("samples", read)
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

    def duplicates(self, run: str | None = None) -> dict[str, str]:
        """Return the videos whose file is that of another one, each with the name of that one."""
        run = self.checked_run(run)

        def read(dataset: lance.LanceDataset) -> dict[str, str]:
            copies = (pc.field("run") == run) & pc.field("duplicate_of").is_valid()
            lines = dataset.to_table(columns=["sample", "duplicate_of"], filter=copies).to_pylist()
            return {line["sample"]: line["duplicate_of"] for line in lines}

        found = self._read("samples", lambda opened: opened.once(("duplicates", run), read))
        return found or {}

    # ---- the rest

    def select(self, **conditions: Any) -> Selection:
        """Return the rows that fit all conditions; see `tssan_viz.selection.Selection`."""
        from tssan_viz.selection import Selection

        return Selection(self, **conditions)

    def writer(
        self,
        run: str,
        *,
        sites: Sequence[Site],
        catalogue: Catalogue,
        info: Mapping[str, Any] | None = None,
    ) -> RunWriter:
        """Return a writer for a run; the same run again goes on where it stopped."""
        from tssan_viz.store.writer import RunWriter

        return RunWriter(self.path, run, sites=sites, catalogue=catalogue, info=info or {})

    def size(self) -> int:
        """Return the bytes that the store takes on the disk."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())


def unknown_sample(sample: str, known: Sequence[str], run: str) -> UserError:
    """Return the error for a sample that a run does not hold."""
    near = difflib.get_close_matches(sample, known, n=3, cutoff=0.5)
    advice = f"did you mean {named(near)}?" if near else f"it holds {named(known, 3)}"
    return UserError(f"run {run!r} has no sample {sample!r}; {advice}")


def _or_none(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _row_index(dataset: lance.LanceDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the dataset's row numbers, sorted, and where each lies."""
    numbers = dataset.to_table(columns=["row_id"])["row_id"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    return numbers[order], order


def _positions(index: tuple[np.ndarray, np.ndarray], row_ids: np.ndarray) -> np.ndarray | None:
    numbers, order = index
    if not len(numbers):
        return None
    at = np.minimum(np.searchsorted(numbers, row_ids), len(numbers) - 1)
    return order[at] if (numbers[at] == row_ids).all() else None


def _read_into(
    dataset: lance.LanceDataset, positions: np.ndarray, columns: list[str], out: np.ndarray
) -> None:
    """Fill `out` (r, columns, q·s) with the lines at `positions`."""
    first, last = int(positions.min()), int(positions.max())
    span = last - first + 1
    if span <= _STRETCH * len(positions) and span * out[0].nbytes <= _STRETCH_BYTES:
        table = dataset.to_table(columns=columns, offset=first, limit=span)
        wanted = positions - first
    else:
        unique, wanted = np.unique(positions, return_inverse=True)
        table = dataset.take(unique.tolist(), columns=columns)
    for c, column in enumerate(columns):
        chunks = [chunk.flatten().to_numpy() for chunk in table[column].chunks]
        values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        lines = values.reshape(table.num_rows, -1)
        if len(wanted) == len(lines) and (wanted == np.arange(len(wanted))).all():
            out[:, c] = lines
        else:
            out[:, c] = lines[wanted]


def _sample_index(dataset: lance.LanceDataset) -> dict[tuple[str, str], int]:
    lines = dataset.to_table(columns=["run", "sample"])
    keys = zip(lines["run"].to_pylist(), lines["sample"].to_pylist(), strict=True)
    return {key: position for position, key in enumerate(keys)}


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
