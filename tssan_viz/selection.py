"""What a question about the store looks like: which rows, which layers and heads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue, ClassEntry, UnknownClass
from tssan_viz.store.reader import AttentionStore, unknown_sample
from tssan_viz.store.schema import StoredSample, decode, named

if TYPE_CHECKING:
    import xarray

# What each condition on rows is compared with, and how a person calls it.
_CLASSES = {"class_name": "label", "label": "label", "predicted": "predicted"}
_NUMBERS = ("subject", "camera", "setup", "replication", "step", "epoch", "segment", "person")
_WORDS = ("split", "phase", "sample")
_SITES = ("layer", "head", "stream")
CONDITIONS = (
    *_CLASSES,
    "subject",
    "camera",
    "split",
    "run",
    "step",
    "correct",
    "layer",
    "head",
    "stream",
    "segment",
    "person",
    "sample",
    "phase",
    "setup",
    "replication",
    "epoch",
    "where",
)


class Selection:
    """The rows of one run that fit all conditions, and the layers and heads asked for.

    A selection does not change, and reads no map before `maps` or `iter_maps` is called. It sees
    the store as it was when it was made.

    Parameters
    ----------
    store
        The store.
    **conditions
        Each takes one value or several; None is no condition.

        ``class_name`` or ``label``, ``predicted``
            A class by its name, code, alias or label.
        ``subject``, ``camera``, ``setup``, ``replication``, ``step``, ``epoch``, ``segment``
            Numbers as in the data set; segments from 1. A row without a value fits none.
        ``person``
            From 1. Rows in which the network had fused the persons belong to each of them.
        ``split``, ``phase``, ``sample``
            Words, as recorded.
        ``correct``
            True or False: whether the network was right.
        ``layer``, ``head``
            From 1. ``stream``: by default ``main``, or the first there is.
        ``run``
            By default the newest run in which anything fits; `notes` says which.
        ``where``
            A condition in SQL on the columns of `rows`, for instance ``confidence > 0.9``.

    Attributes
    ----------
    store : AttentionStore
    run : str
    catalogue : Catalogue
    stream : str
    layers, heads : tuple of int
        What maps are read of, counted from 1.
    notes : list of str
        What was decided without being asked.

    Raises
    ------
    UnknownClass
        No class of the run goes by that name.
    UserError
        Conditions, runs, samples, layers or heads that do not exist, or SQL that cannot be read;
        the message names what there is.
    """

    def __init__(self, store: AttentionStore, **conditions: Any) -> None:
        self.store = store
        self._given = _checked_conditions(conditions)
        self.notes: list[str] = []
        runs = _runs_to_try(store, self._given.pop("run", None), self.notes)
        failure: UserError | None = None
        empty: Selection | None = None
        for run in runs:
            try:
                self._resolve(run)
            except UserError as error:
                failure = failure or error
                continue
            if len(self):
                break
            if empty is None:
                empty = self._copy()
        else:
            if empty is None:
                assert failure is not None
                raise failure
            self.__dict__ = empty.__dict__
        if len(runs) > 1:
            self.notes.append(
                f"no run was named: {self.run!r} is the newest of {len(runs)} in which anything "
                "fits; run= or --run chooses another"
                if len(self)
                else f"nothing fits in any of {len(runs)} runs; {self.run!r} is the newest of them"
            )
        steps = self._frame["step"].nunique()
        if steps > 1:
            self.notes.append(f"the rows come from {steps} steps of the run; step= chooses")

    def _copy(self) -> Selection:
        copy = object.__new__(Selection)
        copy.__dict__ = dict(self.__dict__)
        return copy

    def _resolve(self, run: str) -> None:
        """Apply the conditions to one run."""
        self.__dict__.pop("_emptied_by", None)
        self.run = run
        self.catalogue: Catalogue = self.store.catalogue(run)
        self._classes: dict[str, tuple[ClassEntry, ...]] = {}
        self._choose_sites()
        frame = self.store.rows(run)
        keep = np.ones(len(frame), bool)
        self._emptied: str | None = None if len(frame) else f"run {run!r} has no rows"
        for name, values in self._given.items():
            if name in _SITES:
                continue
            fits = self._fits(name, values, frame)
            if keep.any() and not (keep & fits).any():
                self._emptied = self._why_empty(name, values, frame, keep, fits)
            keep &= fits
        self._frame = frame if keep.all() else frame[keep]

    # ---- conditions

    def _choose_sites(self) -> None:
        sites = self.store.sites(self.run)
        streams = list(dict.fromkeys(sites["stream"]))
        wanted = self._given.get("stream")
        if wanted is None:
            self.stream = "main" if "main" in streams else streams[0]
            if len(streams) > 1:
                note = f"maps are of stream {self.stream!r}; there are also {named(streams)}"
                if note not in self.notes:
                    self.notes.append(note)
        elif len(wanted) > 1:
            raise UserError("maps of several streams cannot be read together; name one stream")
        else:
            self.stream = str(wanted[0])
            if self.stream not in streams:
                raise UserError(
                    f"run {self.run!r} has no stream {self.stream!r}; it has {named(streams)}"
                )
        sites = sites[sites["stream"] == self.stream]
        self.layers = _choose("layer", self._given.get("layer"), sorted(sites["layer"]), self.run)
        self._sites = sites.set_index("layer").loc[list(self.layers)]
        most = int(self._sites["heads"].max())
        self.heads = _choose("head", self._given.get("head"), list(range(1, most + 1)), self.run)

    def _fits(self, name: str, values: Any, frame: pd.DataFrame) -> np.ndarray:
        if name == "where":
            return self._fits_sql(values)
        if name in _CLASSES:
            entries = tuple(dict.fromkeys(self.catalogue.resolve(value) for value in values))
            self._classes[name] = entries
            return frame[_CLASSES[name]].isin([entry.label for entry in entries]).to_numpy(bool)
        if name == "sample":
            known = set(frame["sample"])
            for value in values:
                if value not in known:
                    raise unknown_sample(value, list(dict.fromkeys(frame["sample"])), self.run)
        fits = frame[name].isin(values).to_numpy(bool)
        if name == "person":
            fits |= frame["person"].isna().to_numpy(bool)
        return fits

    def _fits_sql(self, condition: str) -> np.ndarray:
        import duckdb
        import pyarrow as pa

        rows = self.store.arrow_rows(self.run)
        with duckdb.connect(":memory:") as connection:
            # The condition may come from a page or a script: it sees this one table, no file,
            # no address, and cannot lift these limits.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET lock_configuration = true")
            numbered = rows.append_column("_position", pa.array(np.arange(rows.num_rows)))
            try:
                relation = connection.from_arrow(numbered).filter(condition).project("_position")
                positions = relation.fetchnumpy()["_position"]
            except duckdb.Error as error:
                reason = str(error).split("\n")[0]
                raise UserError(
                    f"where={condition!r} cannot be used: {reason}. It is a condition in SQL, for "
                    f'instance "confidence > 0.9"; columns are {", ".join(rows.column_names)}'
                ) from None
        fits = np.zeros(rows.num_rows, bool)
        fits[np.asarray(positions, dtype=np.int64)] = True
        return fits

    def _why_empty(
        self, name: str, values: Any, frame: pd.DataFrame, keep: np.ndarray, fits: np.ndarray
    ) -> str:
        said = self._say(name, values)
        if fits.any():
            return f"no row that fits the other conditions has {said}"
        if name in ("where", "correct"):
            return f"no row of run {self.run!r} has {said}"
        there = frame[_CLASSES.get(name, name)].dropna().unique().tolist()
        if name in _CLASSES:
            there = [self.catalogue.name_of(label) for label in there]
        if not there:
            return f"run {self.run!r} was recorded without {name}, so no row has {said}"
        return f"no row of run {self.run!r} has {said}; there are {named(sorted(there))}"

    def _say(self, name: str, values: Any) -> str:
        if name in self._classes:
            word = "predicted class" if name == "predicted" else "class"
            return f"{word} {named([str(entry) for entry in self._classes[name]])}"
        if name == "where":
            return values
        if name == "correct":
            return "a right prediction" if values == (True,) else "a wrong prediction"
        return f"{name} {named(values)}"

    # ---- what it is

    def __len__(self) -> int:
        return len(self._frame)

    @property
    def empty_because(self) -> str | None:
        """Which condition left no row; None when there are rows."""
        return None if len(self) else self._emptied

    def __str__(self) -> str:
        conditions = [
            self._say(name, values) for name, values in self._given.items() if name not in _SITES
        ]
        what = "; ".join(conditions) if conditions else "everything"
        if not len(self):
            return f"nothing ({what}) in run {self.run!r}: {self._emptied}"
        videos = self._frame["sample"].nunique()
        return (
            f"{len(self)} row{'s' * (len(self) != 1)} of {videos} video{'s' * (videos != 1)} "
            f"({what}) in run {self.run!r}, layers {_ranges(self.layers)}, "
            f"heads {_ranges(self.heads)}" + "".join(f"; {note}" for note in self.notes)
        )

    def __repr__(self) -> str:
        return f"<Selection: {self}>"

    def select(self, **conditions: Any) -> Selection:
        """Return the part of this selection that fits further conditions as well.

        A condition that this selection has already replaces none of its rows: both hold.
        """
        if conditions.get("run") not in (None, self.run):
            raise UserError(f"this selection is of run {self.run!r}, not {conditions['run']!r}")
        further = _checked_conditions({k: v for k, v in conditions.items() if k != "run"})
        sites = {k: v for k, v in further.items() if k in _SITES}
        merged = {"stream": self.stream, "layer": self.layers, "head": self.heads, **sites}
        for name, mine in (("layer", self.layers), ("head", self.heads)):
            strange = [v for v in merged[name] if v not in mine]
            if strange and further.get("stream") in (None, (self.stream,)):
                raise UserError(
                    f"this selection has no {name} {named(strange)}; it has {_ranges(mine)}"
                )
        rows = {k: v for k, v in further.items() if k not in _SITES}
        narrowed = Selection(self.store, run=self.run, **merged, **rows)
        inside = narrowed._frame["row_id"].isin(self._frame["row_id"]).to_numpy(bool)
        if len(narrowed) and not inside.any():
            narrowed._emptied = "no row of the narrower selection fits the conditions of the wider"
        narrowed._frame = narrowed._frame[inside]
        if not len(self):
            narrowed._emptied = self._emptied
        narrowed._given = {
            **{k: v for k, v in self._given.items() if k not in rows},
            **narrowed._given,
        }
        narrowed._classes = {**self._classes, **narrowed._classes}
        narrowed.notes = list(dict.fromkeys([*self.notes, *narrowed.notes]))
        return narrowed

    # ---- tables

    def rows(self) -> pd.DataFrame:
        """Return one line per row, in the order of recording.

        Returns
        -------
        DataFrame
            The columns of the store's rows. Integers are nullable where values are missing.
        """
        return self._frame.reset_index(drop=True)

    @cached_property
    def _samples(self) -> pd.DataFrame:
        frame = self._frame.sort_values("step", kind="stable")
        last = frame.drop_duplicates("sample", keep="last").set_index("sample")
        counts = frame.groupby("sample", sort=False).size()
        order = self._frame["sample"].drop_duplicates()
        last = last.loc[order]
        samples = last[
            [
                "label",
                "class_name",
                "class_code",
                "subject",
                "camera",
                "setup",
                "replication",
                "split",
                "predicted",
            ]
        ].copy()
        samples["predicted_name"] = [
            None if pd.isna(label) else self.catalogue.name_of(label) for label in last["predicted"]
        ]
        samples["confidence"] = last["confidence"]
        samples["correct"] = last["correct"]
        samples["rows"] = counts.loc[order].to_numpy()
        return samples.reset_index()

    def samples(self) -> pd.DataFrame:
        """Return one line per video, in the order of recording.

        Returns
        -------
        DataFrame
            ``sample``, ``label``, ``class_name``, ``class_code``, ``subject``, ``camera``,
            ``setup``, ``replication``, ``split``, ``predicted``, ``predicted_name``,
            ``confidence``, ``correct`` (of the newest step) and ``rows``, how many rows fit.
        """
        return self._samples.copy()

    def measures(self) -> pd.DataFrame:
        """Return one line per row, layer and head, with the measures that were recorded.

        Returns
        -------
        DataFrame
            ``row_id``, ``sample``, ``label``, ``class_name``, ``subject``, ``camera``, ``segment``,
            ``person``, ``step``, ``predicted``, ``correct``, ``stream``, ``layer``, ``head``, and a
            column for each measure.
        """
        measures = self.store.measures(self.run)
        measures = measures[
            (measures["stream"] == self.stream)
            & measures["layer"].isin(self.layers)
            & measures["head"].isin(self.heads)
        ].drop(columns=["run", "site"])
        kept = "row_id sample label class_name subject camera segment person step predicted correct"
        return self._frame[kept.split()].merge(measures, on="row_id", how="inner")

    # ---- maps

    def _wanted(self) -> dict[int, tuple[int, ...]]:
        shapes = self._sites[["query", "key"]].drop_duplicates()
        if len(shapes) > 1:
            sizes = [
                f"layer {n}: {q} × {s}" for n, q, s in self._sites[["query", "key"]].itertuples()
            ]
            raise UserError(f"maps of these layers differ in size ({named(sizes)}); name one layer")
        few = self._sites[self._sites["heads"] < max(self.heads)]
        if len(few):
            raise UserError(
                f"layer {few.index[0]} has {few['heads'].iloc[0]} heads, "
                f"head {max(self.heads)} was asked for; name the layer or the heads"
            )
        return {int(number): self.heads for number in self._sites["site"]}

    def _read(self, frame: pd.DataFrame) -> np.ndarray:
        ids = frame["row_id"].to_numpy(np.int64)
        return self.store.read_maps(self.run, ids, self._wanted())

    def _refuse_empty(self) -> None:
        if not len(self):
            raise UserError(f"there is nothing to read: {self._emptied}")

    def maps(self) -> xarray.DataArray:
        """Return all maps as a labelled array; `iter_maps` reads many without holding them all.

        Returns
        -------
        DataArray, float32 (row, layer, head, query, key)
            Decoded exactly from the float16 that is stored. ``layer`` and ``head`` count from 1,
            ``query`` and ``key`` are frames from 0; along ``row`` lie ``row_id``, ``sample``,
            ``label``, ``class_name``, ``subject``, ``camera``, ``segment``, ``person``,
            ``predicted`` and ``correct``.

        Raises
        ------
        UserError
            The selection is empty, or its layers differ in size.
        """
        import xarray

        self._refuse_empty()
        values = decode(self._read(self._frame))
        along_row = "row_id sample label class_name subject camera segment person predicted correct"
        coordinates: dict[str, Any] = {
            name: ("row", _coordinate(self._frame[name])) for name in along_row.split()
        }
        return xarray.DataArray(
            values,
            dims=("row", "layer", "head", "query", "key"),
            coords={
                "layer": list(self.layers),
                "head": list(self.heads),
                "query": np.arange(values.shape[3]),
                "key": np.arange(values.shape[4]),
                **coordinates,
            },
            name="attention",
            attrs={"run": self.run, "stream": self.stream, "kind": self._sites["kind"].iloc[0]},
        )

    def iter_maps(self, rows: int = 2048) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Go through the maps, at most `rows` rows at a time.

        Yields
        ------
        rows : DataFrame
            As `rows`, for this part.
        maps : float16 (r, l, h, q, s)
            As stored; `tssan_viz.store.schema.decode` gives float32, exactly.

        Raises
        ------
        UserError
            The layers differ in size. An empty selection yields nothing.
        """
        if rows < 1:
            raise UserError(f"rows is {rows}, at least 1 at a time")
        for start in range(0, len(self), rows):
            part = self._frame.iloc[start : start + rows]
            yield part.reset_index(drop=True), self._read(part)

    def sample(self, name: str | None = None) -> StoredSample:
        """Return what a view needs of a video of the selection, the first for None.

        Raises
        ------
        UserError
            The selection is empty, or does not hold the video.
        """
        self._refuse_empty()
        known = list(dict.fromkeys(self._frame["sample"]))
        if name is None:
            name = known[0]
        elif name not in known:
            error = unknown_sample(name, known, self.run)
            raise UserError(f"not in this selection: {error}")
        return self.store.sample(name, self.run)


def _checked_conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions that were given, each as a tuple; `where` as its text."""
    checked: dict[str, Any] = {}
    for name, value in conditions.items():
        if name not in CONDITIONS:
            near = difflib.get_close_matches(name, CONDITIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"there is no condition {name!r}{hint} There are {', '.join(CONDITIONS)}"
            )
        if value is None:
            continue
        if name == "where":
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"where is a condition in SQL, not {value!r}")
            checked[name] = value
            continue
        values = tuple(value) if _is_several(value) else (value,)
        if not values:
            raise UserError(f"{name} is an empty list: nothing can fit")
        if name in _NUMBERS or name in ("layer", "head"):
            checked[name] = tuple(_number(name, v) for v in values)
        elif name == "correct":
            if not all(isinstance(v, bool | np.bool_) for v in values):
                raise UserError(f"correct is True or False, not {named(values)}")
            checked[name] = tuple(bool(v) for v in values)
        elif name in _CLASSES:
            checked[name] = tuple(int(v) if isinstance(v, np.integer) else v for v in values)
        else:
            wrong = [v for v in values if not isinstance(v, str)]
            if wrong:
                raise UserError(f"{name} is a word, not {wrong[0]!r}")
            checked[name] = tuple(str(v) for v in values)
    if "label" in checked and "class_name" in checked:
        raise UserError("class_name and label say the same; give one of them")
    return checked


def _is_several(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _number(name: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise UserError(f"{name} is a whole number, not {value!r}")


def _runs_to_try(store: AttentionStore, wanted: Any, notes: list[str]) -> list[str]:
    """Return the runs that a selection may be about, newest first."""
    if wanted is not None:
        chosen = {store.checked_run(run) for run in wanted}
        return [run for run in reversed(store.run_names()) if run in chosen]
    store.latest_run()
    newest_first = list(reversed(store.run_names()))
    with_rows = [run for run in newest_first if len(store.rows(run))]
    return with_rows or newest_first[:1]


def _choose(what: str, wanted: Any, there: list[int], run: str) -> tuple[int, ...]:
    if wanted is None:
        return tuple(int(number) for number in there)
    strange = [number for number in wanted if number not in there]
    if strange:
        raise UserError(
            f"run {run!r} has no {what} {named(strange)}; it has {_ranges(tuple(there))}, "
            "counted from 1"
        )
    return tuple(dict.fromkeys(wanted))


def _ranges(numbers: tuple[int, ...]) -> str:
    """Return numbers as a person writes them: 1–4, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)


def _coordinate(column: pd.Series) -> np.ndarray:
    """Return a column for xarray: missing numbers are NaN, missing words None."""
    if pd.api.types.is_bool_dtype(column.dtype) and column.hasnans:
        return column.to_numpy(object)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(float, na_value=np.nan) if column.hasnans else column.to_numpy()
    return np.array([None if pd.isna(v) else v for v in column], dtype=object)


__all__ = ["Selection", "UnknownClass"]
