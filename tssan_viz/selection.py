"""What a question about the store looks like: which rows, which layers and heads."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, zip_longest
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from tssan_viz.errors import UserError
from tssan_viz.site import SAMPLE_COLUMNS, counted_heads, ranges
from tssan_viz.store.catalogue import Catalogue
from tssan_viz.store.reader import AttentionStore, unknown_sample
from tssan_viz.store.schema import StoredSample, decode_pieces, named

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    import xarray

    from tssan_viz.store.codes import Code
    from tssan_viz.store.lazy import StoredMaps
    from tssan_viz.store.nearest import MapIndex

T = TypeVar("T")

# What each condition on rows is compared with, and how a person calls it.
_CLASSES = {"class_name": "label", "label": "label", "predicted": "predicted"}
_NUMBERS = ("subject", "camera", "setup", "replication", "step", "epoch", "segment", "person")
_WORDS = ("split", "phase", "sample")
_SITES = ("layer", "head", "stream")
# What recordings call their phases; a run need not have all.
PHASES = ("train", "probe", "inference")
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


# Maps are added up and compared in parts of this size (as float32).
_MEAN_BYTES = 32 << 20
# So many values stay in the processor's cache between being decoded and added.
_CACHED_VALUES = 1 << 17


@dataclass(frozen=True)
class _Answer:
    """What conditions leave of one run."""

    run: str
    catalogue: Catalogue
    streams: tuple[str, ...]
    stream: str
    sites: pd.DataFrame
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    frame: pd.DataFrame
    said: tuple[str, ...]
    emptied: str | None

    @classmethod
    def everything(cls, store: AttentionStore, run: str, stream: str | None) -> _Answer:
        """Return all rows of a run, with all layers and heads of a stream."""
        sites = store.sites(run)
        streams = tuple(dict.fromkeys(sites["stream"]))
        if stream is None:
            stream = "main" if "main" in streams else streams[0]
        elif stream not in streams:
            raise UserError(f"run {run!r} has no stream {stream!r}; it has {named(streams)}")
        sites = sites[sites["stream"] == stream].set_index("layer").sort_index()
        frame = store.rows(run)
        return cls(
            run=run,
            catalogue=store.catalogue(run),
            streams=streams,
            stream=stream,
            sites=sites,
            layers=tuple(sites.index.tolist()),
            heads=_numbers(sites),
            frame=frame,
            said=(),
            emptied=None if len(frame) else f"run {run!r} has no rows",
        )

    def narrowed(self, store: AttentionStore, given: Mapping[str, Any]) -> _Answer:
        """Return what further conditions leave."""
        if given.get("stream", (self.stream,)) != (self.stream,):
            raise UserError(
                f"maps of several streams cannot be read together; this is {self.stream!r}"
            )
        layers = _choose("layer", given.get("layer"), self.layers, self.run)
        # Of layers that do not all hold the same heads, those chosen say which there are.
        there = _numbers(self.sites.loc[list(layers)])
        left = tuple(head for head in self.heads if head in there)
        heads = _choose("head", given.get("head"), left, self.run)
        keep = np.ones(len(self.frame), bool)
        said, emptied = list(self.said), self.emptied
        for name, values in given.items():
            if name in _SITES:
                continue
            fits, words = self._fits(store, name, values)
            said.append(words)
            if emptied is None and not (keep & fits).any():
                emptied = self._why_empty(name, words, fits)
            keep &= fits
        return replace(
            self,
            layers=layers,
            heads=heads,
            sites=self.sites.loc[list(layers)],
            frame=self.frame if keep.all() else self.frame[keep],
            said=tuple(said),
            emptied=emptied,
        )

    def _fits(self, store: AttentionStore, name: str, values: Any) -> tuple[np.ndarray, str]:
        """Return which rows fit a condition, and the condition in words."""
        frame = self.frame
        if name == "where":
            numbers = _rows_where(store.arrow_rows(self.run), values)
            return frame["row_id"].isin(numbers).to_numpy(bool), values
        if name in _CLASSES:
            entries = list(dict.fromkeys(self.catalogue.resolve(value) for value in values))
            fits = frame[_CLASSES[name]].isin([entry.label for entry in entries]).to_numpy(bool)
            word = "predicted class" if name == "predicted" else "class"
            return fits, f"{word} {named([str(entry) for entry in entries])}"
        if name == "sample":
            # All names are looked through only where one is missing: that takes far longer.
            found = frame.loc[frame["sample"].isin(values), "sample"]
            for value in sorted(set(values) - set(found)):
                known = list(dict.fromkeys(frame["sample"]))
                raise unknown_sample(value, known, self.run)
        if name == "phase":
            there = store.rows(self.run)["phase"].unique().tolist()
            strange = [value for value in values if value not in (*there, *PHASES)]
            if strange:
                raise UserError(
                    f"run {self.run!r} has no phase {strange[0]!r}; it has {named(sorted(there))}"
                )
        fits = frame[name].isin(values).to_numpy(bool)
        if name == "person":
            fits = fits | frame["person"].isna().to_numpy(bool)
        if name == "correct" and len(set(values)) == 1:
            return fits, "a right prediction" if values[0] else "a wrong prediction"
        return fits, f"{name} {named(values)}"

    def _why_empty(self, name: str, words: str, fits: np.ndarray) -> str:
        if fits.any():
            return f"no row that fits the conditions before it has {words}"
        if name == "where":
            return f"no row has {words}"
        there = self.frame[_CLASSES.get(name, name)].dropna().unique().tolist()
        if not there:
            return f"run {self.run!r} was recorded without {name!r}, so no row has {words}"
        if name == "correct":
            return f"no row has {words}"
        if name in _CLASSES:
            there = [self.catalogue.name_of(label) for label in there]
        return f"no row has {words}; there is {named(sorted(there))}"


def _first_that_fits(store: AttentionStore, runs: list[str], given: Mapping[str, Any]) -> _Answer:
    """Return the answer of the newest run in which anything fits, else of the newest one.

    A run in which a name of the question means nothing is passed over; if that is so in all of
    them, the newest one's error is raised.
    """
    streams = given.get("stream", (None,))
    if len(streams) > 1:
        raise UserError("maps of several streams cannot be read together; name one stream")
    failures: list[UserError] = []
    empty: list[_Answer] = []
    for run in runs:
        try:
            answer = _Answer.everything(store, run, streams[0]).narrowed(store, given)
        except UserError as error:
            failures.append(error)
            continue
        if len(answer.frame):
            return answer
        empty.append(answer)
    if not empty:
        raise failures[0]
    return empty[0]


def _rows_where(rows: pa.Table, condition: str) -> np.ndarray:
    """Return the row_id of the rows that fit a condition in SQL."""
    import duckdb

    from tssan_viz.store.sql import confined

    with confined() as connection:
        connection.execute("SET lock_configuration = true")
        try:
            relation = connection.from_arrow(rows).filter(condition).project("row_id")
            return relation.fetchnumpy()["row_id"]
        except duckdb.Error as error:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"where={condition!r} cannot be used: {reason} "
                'It is a condition in SQL, for instance "confidence > 0.9"; '
                f"columns are {', '.join(rows.column_names)}"
            ) from None


class Selection:
    """The rows of one run that fit all conditions, and the layers and heads asked for.

    A selection does not change, and reads no map before it is asked for values. Selections of one
    run with the same layers and heads compose: ``a & b``, ``a | b``, ``a - b``. It sees
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
        given = _checked_conditions(conditions)
        runs = _runs_to_try(store, given.pop("run", None))
        answer = _first_that_fits(store, runs, given)
        notes = []
        if len(runs) > 1:
            notes.append(
                f"nothing fits in any of {len(runs)} runs; {answer.run!r} is the newest of them"
                if answer.frame.empty
                else f"{answer.run!r} is the newest of {len(runs)} runs in which anything fits; "
                "run= or --run chooses another"
            )
        others = [stream for stream in answer.streams if stream != answer.stream]
        if others and "stream" not in given:
            notes.append(f"maps are of stream {answer.stream!r}; there is also {named(others)}")
        steps = answer.frame["step"].nunique()
        of_steps = f"the rows come from {steps} steps of the run; step= chooses"
        if steps > 1:
            notes.append(of_steps)
        self._set(store, answer, notes, of_steps)

    def notes_of_one_step(self) -> list[str]:
        """Return `notes` for an answer that takes one of the steps and says so itself.

        Returns
        -------
        list of str
        """
        return [note for note in self.notes if note not in self._of_steps]

    def _set(
        self, store: AttentionStore, answer: _Answer, notes: list[str], *of_steps: str
    ) -> None:
        self.store = store
        self.run = answer.run
        self.catalogue = answer.catalogue
        self.stream = answer.stream
        self.layers = answer.layers
        self.heads = answer.heads
        self.notes = notes
        # Which of the notes are about several steps.
        self._of_steps = of_steps
        self._answer = answer
        self._frame = answer.frame
        self._sites = answer.sites

    # ---- what it is

    def __len__(self) -> int:
        return len(self._frame)

    @property
    def empty_because(self) -> str | None:
        """Which condition left no row; None when there are rows."""
        return self._answer.emptied

    def __str__(self) -> str:
        what = "; ".join(self._answer.said) or "everything"
        if not len(self):
            return f"nothing ({what}) in run {self.run!r}: {self.empty_because}"
        videos = self._frame["sample"].nunique()
        return (
            f"{len(self)} row{'s' * (len(self) != 1)} of {videos} video{'s' * (videos != 1)} "
            f"({what}) in run {self.run!r}, layer{'s' * (len(self.layers) > 1)} "
            f"{ranges(self.layers)}, head{'s' * (len(self.heads) > 1)} {ranges(self.heads)}"
            + "".join(f"; {note}" for note in self.notes)
        )

    def __repr__(self) -> str:
        return f"<Selection: {self}>"

    def select(self, **conditions: Any) -> Selection:
        """Return the part of this selection that fits further conditions as well."""
        given = _checked_conditions(conditions)
        if self.run not in given.pop("run", (self.run,)):
            raise UserError(f"this selection is of run {self.run!r}, not {conditions['run']!r}")
        part = object.__new__(Selection)
        part._set(
            self.store, self._answer.narrowed(self.store, given), list(self.notes), *self._of_steps
        )
        return part

    def of_sample(self, name: str) -> Selection:
        """Return the part of this selection that is one video's, as ``select(sample=name)`` does.

        Quicker from the second video on: where the rows of each lie is remembered.

        Parameters
        ----------
        name
            The video.

        Returns
        -------
        Selection

        Raises
        ------
        UserError
            The selection does not hold the video; the message names the nearest.
        """
        if name not in self._places:
            raise unknown_sample(name, list(self._places), self.run)
        answer = replace(
            self._answer,
            frame=self._frame.iloc[self._places[name]],
            said=(*self._answer.said, f"sample {named((name,))}"),
        )
        part = object.__new__(Selection)
        part._set(self.store, answer, list(self.notes), *self._of_steps)
        return part

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """Where the rows of each video lie."""
        codes, names = pd.factorize(self._frame["sample"])
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(names)))
        return dict(zip(names.tolist(), np.split(order, ends[:-1]), strict=True))

    # ---- composed

    def __and__(self, other: Selection) -> Selection:
        """Return the rows that both have."""
        return self._composed(other, "and")

    def __sub__(self, other: Selection) -> Selection:
        """Return the rows that the other has not."""
        return self._composed(other, "but not")

    def __or__(self, other: Selection) -> Selection:
        """Return the rows that either has, in the order of recording."""
        return self._composed(other, "or")

    def _composed(self, other: Selection, word: str) -> Selection:
        if not isinstance(other, Selection):
            raise UserError(f"a selection is composed with a selection, not with {other!r}")
        for what, mine, theirs in (
            ("store", self.store.url, other.store.url),
            ("run", self.run, other.run),
            ("stream", self.stream, other.stream),
            ("layers", ranges(self.layers), ranges(other.layers)),
            ("heads", ranges(self.heads), ranges(other.heads)),
        ):
            if mine != theirs:
                raise UserError(
                    f"selections are composed row by row, with the same {what}: "
                    f"one is of {mine}, the other of {theirs}"
                )
        if word == "or":
            both = pd.concat([self._frame, other._frame])
            frame = both[~both["row_id"].duplicated()].sort_index(kind="stable")
        else:
            shared = self._frame["row_id"].isin(other._frame["row_id"]).to_numpy(bool)
            frame = self._frame[shared if word == "and" else ~shared]
        words = f"{_within(self._answer.said)} {word} {_within(other._answer.said)}"
        answer = replace(
            self._answer,
            frame=frame,
            said=(words,),
            emptied=None if len(frame) else f"no row has {words}",
        )
        part = object.__new__(Selection)
        notes = list(dict.fromkeys([*self.notes, *other.notes]))
        part._set(self.store, answer, notes, *self._of_steps, *other._of_steps)
        return part

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
        samples = last[[*SAMPLE_COLUMNS, "split", "predicted"]].copy()
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

    @cached_property
    def _wanted(self) -> dict[int, tuple[int, ...]]:
        """Which heads to read of which sites."""
        if len({*zip(self._sites["query"], self._sites["key"], strict=True)}) > 1:
            sizes = [
                f"layer {n}: {q} × {s}" for n, q, s in self._sites[["query", "key"]].itertuples()
            ]
            raise UserError(f"maps of these layers differ in size ({named(sizes)}); name one layer")
        for layer, there in self._sites["numbers"].items():
            if missing := sorted({*self.heads} - {*there}):
                raise UserError(
                    f"layer {layer} has {counted_heads(there)}, and head {missing[0]} was asked "
                    "for; name the layer or the heads"
                )
        return {int(number): self.heads for number in self._sites["site"]}

    def _read(self, frame: pd.DataFrame) -> np.ndarray:
        ids = frame["row_id"].to_numpy(np.int64)
        return self.store.read_maps(self.run, ids, self._wanted)

    def _read_pieces(self, frame: pd.DataFrame) -> list[list[np.ndarray]]:
        ids = frame["row_id"].to_numpy(np.int64)
        return self.store.read_pieces(self.run, ids, self._wanted)

    def _refuse_empty(self) -> None:
        if not len(self):
            raise UserError(f"there is nothing to read: {self.empty_because}")

    def _refuse_unlike_texts(self, group: np.ndarray) -> None:
        """Raise UserError if rows of one group (n,) are texts of unlike lengths; −1 is in none."""
        if "tokens" not in self._frame:
            return
        texts = self._frame["tokens"].to_numpy()
        there = pd.notna(texts) & (group >= 0)
        lengths = pd.Series([len(json.loads(text)) for text in texts[there]], dtype=np.int64)
        if (lengths.groupby(group[there]).nunique() > 1).any():
            raise UserError(
                f"the texts have {lengths.min()} to {lengths.max()} tokens, and where the shorter "
                "have ended their maps hold zeros: take means of single texts, or of texts of one "
                "length"
            )

    def maps(self) -> xarray.DataArray:
        """Return all maps as a labelled array that reads what is looked at, when it is.

        ``selection.maps().sel(layer=4, head=8)`` reads one head. What was read is kept in memory;
        `iter_maps` and `mean` go through many maps without holding them all.

        Returns
        -------
        DataArray, float32 (row, layer, head, query, key)
            Decoded from what is stored. ``layer`` and ``head`` count from 1, ``query`` and ``key``
            are frames from 0; along ``row`` lie ``row_id``, ``sample``, ``label``, ``class_name``,
            ``subject``, ``camera``, ``segment``, ``person``, ``predicted`` and ``correct``.

        Raises
        ------
        UserError
            The selection is empty, or its layers differ in size.
        """
        from tssan_viz.store.lazy import lazy

        return self._labelled(lazy(self._stored_maps()))

    def dask(self, rows: int | None = None) -> xarray.DataArray:
        """Return all maps as a labelled Dask array, as `maps` but computed in chunks.

        Parameters
        ----------
        rows
            Rows in a chunk; by default as many as take 64 MB of one layer.

        Raises
        ------
        UserError
            As `maps`; or Dask is not installed (``pip install tssan-viz[distributed]``).
        """
        from tssan_viz.store.lazy import chunked

        maps = chunked(self._stored_maps(), rows)
        return self._labelled((("row", "layer", "head", "query", "key"), maps))

    def _stored_maps(self) -> StoredMaps:
        from tssan_viz.store.lazy import StoredMaps

        self._refuse_empty()
        sites = self._wanted
        query, key = self._sites[["query", "key"]].iloc[0]
        shape = (len(self), len(self.layers), len(self.heads), int(query), int(key))
        ids = self._frame["row_id"].to_numpy(np.int64)
        return StoredMaps(self.store, self.run, ids, sites, shape)

    def _labelled(self, variable: Any) -> xarray.DataArray:
        import xarray

        along_row = "row_id sample label class_name subject camera segment person predicted correct"
        coordinates: dict[str, Any] = {
            name: ("row", _coordinate(self._frame[name])) for name in along_row.split()
        }
        data = xarray.as_variable(variable)
        return xarray.DataArray(
            data,
            coords={**self._map_coordinates(data.shape[3], data.shape[4]), **coordinates},
            name="attention",
            attrs=self._map_attributes(),
        )

    def _map_coordinates(self, query: int, key: int) -> dict[str, Any]:
        return {
            "layer": list(self.layers),
            "head": list(self.heads),
            "query": np.arange(query),
            "key": np.arange(key),
        }

    def _map_attributes(self) -> dict[str, str]:
        return {"run": self.run, "stream": self.stream, "kind": self._sites["kind"].iloc[0]}

    def mean(self, by: str | Sequence[str] = ()) -> xarray.DataArray:
        """Return mean maps, of everything or for each value of some columns.

        Parameters
        ----------
        by
            Columns of `rows`, for instance ``["class_name", "subject"]``. Rows without a value in
            one of them belong to no mean.

        Returns
        -------
        DataArray, float32 (by…, layer, head, query, key)
            NaN where no row has these values together; the coordinate ``rows`` says how many have.

        Raises
        ------
        UserError
            There is no such column, the selection is empty, its layers differ in size, or a mean is
            of texts of unlike lengths (`tssan_viz.record_attentions`), whose maps are padded.
        """
        import xarray

        self._refuse_empty()
        names = [by] if isinstance(by, str) else list(by)
        values = [self._groups(name) for name in names]
        sizes = tuple(len(there) for _, there in values)
        group = np.zeros(len(self), np.int64)
        missing = np.zeros(len(self), bool)
        for codes, there in values:
            group = group * len(there) + np.maximum(codes, 0)
            missing |= codes < 0
        wanted = self._wanted
        query, key = (int(n) for n in self._sites[["query", "key"]].iloc[0])
        shape = (len(wanted), len(self.heads), query, key)
        sums = np.zeros((int(np.prod(sizes)), *shape))
        counts = np.bincount(group[~missing], minlength=len(sums))
        group[missing] = -1
        self._refuse_unlike_texts(group)
        rows = max(1, _MEAN_BYTES // (4 * int(np.prod(shape))))
        pieces = chain.from_iterable(
            read for _, read in self._ahead(self._frame, rows, self._read_pieces)
        )
        by_head = sums.reshape(len(sums), -1, query, key)
        together = max(1, _CACHED_VALUES // max(1, by_head[0].size))
        start = 0
        for maps in decode_pieces(pieces, together):
            for number, value in zip(
                group[start : start + maps.shape[1]].tolist(), maps.swapaxes(0, 1), strict=True
            ):
                if number >= 0:
                    there = by_head[number]
                    np.add(there, value, there)
            start += maps.shape[1]
        with np.errstate(invalid="ignore"):
            means = sums / counts.reshape(-1, 1, 1, 1, 1)
        return xarray.DataArray(
            means.astype(np.float32).reshape(*sizes, *shape),
            dims=(*names, "layer", "head", "query", "key"),
            coords={
                **{name: there for name, (_, there) in zip(names, values, strict=True)},
                **self._map_coordinates(query, key),
                "rows": (tuple(names), counts.reshape(sizes)),
            },
            name="attention",
            attrs=self._map_attributes(),
        )

    def _groups(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which value of a column each row has (−1 for none), and the values, sorted."""
        if name not in self._frame:
            near = difflib.get_close_matches(name, self._frame.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UserError(
                f"rows have no column {name!r}{hint} Columns are {named(list(self._frame), 40)}"
            )
        codes, there = pd.factorize(self._frame[name], sort=True)
        return codes, there.to_numpy() if hasattr(there, "to_numpy") else np.asarray(there)

    @property
    def size(self) -> tuple[int, int]:
        """Queries and keys of a map."""
        query, key = self._sites[["query", "key"]].iloc[0]
        return int(query), int(key)

    def nearest(
        self, attention: np.ndarray, k: int = 10, *, exact: bool | None = None
    ) -> pd.DataFrame:
        """Return the rows whose map is most like one.

        Parameters
        ----------
        attention : (q, s)
            The map; the selection is of one layer and one head.
        k
            How many.
        exact
            True: every map is compared. False: the index that `index` made is asked. By default
            every map is compared up to 50,000 rows, and beyond where there is no index of them.

        Returns
        -------
        DataFrame
            As `rows`, with the column ``similarity`` (cosine, exact in any case), the most alike
            first. ``attrs["exact"]`` is whether every map was compared, and ``attrs["recall"]``
            then 1; of an index it is the mean share of the ten nearest that it finds, measured
            when it was made.

        Raises
        ------
        UserError
            The map has another size, is zero, or the selection has several layers or heads; an
            index was asked for, and there is none of these rows.
        """
        from tssan_viz.store.nearest import nearest_rows

        self._one_head()
        if k < 1:
            raise UserError(f"k is {k}, at least 1")
        wanted = np.asarray(attention, np.float32)
        if wanted.shape != self.size:
            raise UserError(f"the map has shape {wanted.shape}, maps here have {self.size}")
        length = np.linalg.norm(wanted)
        if not (length > 0 and np.isfinite(length)):
            raise UserError("the map is zero, or not finite: it is like nothing")
        # Maps that are changed when they are read are in no index.
        as_stored = type(self) is Selection
        found = nearest_rows(
            self, wanted.reshape(-1) / length, k, exact=exact if as_stored else True
        )
        rows = self._frame.iloc[found.positions].reset_index(drop=True)
        rows = rows.assign(similarity=found.similarity)
        rows.attrs.update(exact=found.exact, recall=found.recall)
        return rows

    def index(self, progress: Callable[[str, int, int], None] | None = None) -> MapIndex:
        """Make an index of the selection's maps, for `nearest` among very many of them.

        Parameters
        ----------
        progress
            Called with (what, done, total).

        Returns
        -------
        MapIndex
            ``described.recall`` is its recall; see `tssan_viz.store.nearest`. It is kept beside the
            maps, takes about twice their bytes, and replaces one of the same layer and head.

        Raises
        ------
        UserError
            The selection has several layers or heads, or so few rows that an index is of no use.
        """
        from tssan_viz.store.nearest import make_index

        self._one_head()
        if type(self) is not Selection:
            raise UserError("an index is made of maps as they are stored, not of aligned ones")
        return make_index(self, progress)

    def _one_head(self) -> None:
        if len(self.layers) > 1 or len(self.heads) > 1:
            raise UserError("maps are compared within one layer and head: name layer= and head=")

    def iter_maps(self, rows: int = 2048) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Go through the maps, at most `rows` rows at a time; the next ones are read meanwhile.

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
        yield from self.parts_of(self._frame, rows)

    def iter_tensors(
        self, rows: int = 2048, *, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[pd.DataFrame, torch.Tensor]]:
        """Go through the maps as torch tensors, decoded on a device.

        ``for rows, maps in selection.iter_tensors(device="cuda"): …`` sends maps as they are
        stored, and holds `rows` rows at a time there.

        Parameters
        ----------
        rows
            At most so many at a time; the next ones are read meanwhile.
        device
            Where the maps are decoded and stay.

        Yields
        ------
        rows : DataFrame
            As `rows`, for this part.
        maps : float32 (r, l, h, q, s), on the device

        Raises
        ------
        UserError
            The layers differ in size or in how they are stored. An empty selection yields nothing.
        """
        import torch

        from tssan_viz.store.codes import decode_tensor

        if rows < 1:
            raise UserError(f"rows is {rows}, at least 1 at a time")
        for part, stored in self._ahead(self._frame, rows, self._read_stored):
            yield part, decode_tensor(torch.from_numpy(stored).to(device), self._code)

    @property
    def _code(self) -> Code:
        """How the maps of the first layer are stored."""
        from tssan_viz.store.codes import code_of

        return code_of(self.store.stored_code(self.run), self._sites["kind"].iloc[0])

    def _read_stored(self, frame: pd.DataFrame) -> np.ndarray:
        ids = frame["row_id"].to_numpy(np.int64)
        return self.store.read_maps(self.run, ids, self._wanted, coded=True)

    def parts_of(self, frame: pd.DataFrame, rows: int) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Go through the maps of some lines of `rows`, as `iter_maps` does."""
        return self._ahead(frame, rows, self._read)

    @staticmethod
    def _ahead(
        frame: pd.DataFrame, rows: int, read: Callable[[pd.DataFrame], T]
    ) -> Iterator[tuple[pd.DataFrame, T]]:
        """Go through what is read of some lines, while the next ones are read."""
        parts = [frame.iloc[i : i + rows] for i in range(0, len(frame), rows)]
        if len(parts) < 2:
            for part in parts:
                yield part.reset_index(drop=True), read(part)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="maps") as ahead:
            # The next part is read while the caller works on this one.
            coming = ahead.submit(read, parts[0])
            for part, after in zip_longest(parts, parts[1:]):
                maps = coming.result()
                if after is not None:
                    coming = ahead.submit(read, after)
                yield part.reset_index(drop=True), maps

    def poses(self) -> xarray.DataArray:
        """Return the poses of the selection's videos, as views draw them.

        Returns
        -------
        DataArray, float32 (sample, person, segment, frame, joint, coordinate)
            NaN for videos, persons and segments without any. ``joint`` has the skeleton's names;
            along ``sample`` lies ``class_name``.

        Raises
        ------
        UserError
            The selection is empty, or none of its videos was recorded with poses.
        """
        import xarray

        self._refuse_empty()
        samples = self._samples
        names = samples["sample"].tolist()
        found = {s.sample: s.poses for s in self.store.stored_samples(self.run, names)}
        shapes = [poses.shape for poses in found.values() if poses is not None]
        if not shapes:
            raise UserError(f"run {self.run!r} was recorded without poses")
        values = np.full((len(names), *map(max, zip(*shapes, strict=True))), np.nan, np.float32)
        for i, name in enumerate(names):
            poses = found.get(name)
            if poses is not None:
                place: tuple[Any, ...] = (i, *(slice(size) for size in poses.shape))
                values[place] = poses
        skeleton = self.catalogue.skeleton
        joints = list(skeleton.joints) if skeleton else list(range(values.shape[4]))
        return xarray.DataArray(
            values,
            dims=("sample", "person", "segment", "frame", "joint", "coordinate"),
            coords={
                "sample": names,
                "class_name": ("sample", _coordinate(samples["class_name"])),
                "person": np.arange(1, values.shape[1] + 1),
                "segment": np.arange(1, values.shape[2] + 1),
                "joint": joints,
                "coordinate": list("xyz")[: values.shape[5]],
            },
            name="poses",
            attrs={"units": skeleton.units} if skeleton else {},
        )

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
            hint = f"; did you mean {near[0]!r}?" if near else "."
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


def _runs_to_try(store: AttentionStore, wanted: Any) -> list[str]:
    """Return the runs that a selection may be about, newest first."""
    if wanted is not None:
        chosen = {store.checked_run(run) for run in wanted}
        return [run for run in reversed(store.run_names()) if run in chosen]
    store.latest_run()
    newest_first = list(reversed(store.run_names()))
    with_rows = [run for run in newest_first if len(store.rows(run))]
    return with_rows or newest_first[:1]


def _choose(what: str, wanted: Any, there: tuple[int, ...], run: str) -> tuple[int, ...]:
    if wanted is None:
        return there
    strange = [number for number in wanted if number not in there]
    if strange:
        raise UserError(
            f"run {run!r}: no {what} {named(strange)}; there is {ranges(there)}, counted from 1"
        )
    return tuple(dict.fromkeys(wanted))


def _numbers(sites: pd.DataFrame) -> tuple[int, ...]:
    """Return the heads that any of some sites holds."""
    return tuple(sorted({head for numbers in sites["numbers"] for head in numbers}))


def _within(said: Sequence[str]) -> str:
    """Return conditions as one part of a sentence."""
    if not said:
        return "everything"
    words = "; ".join(said)
    return f"({words})" if len(said) > 1 or any(w in words for w in (" or ", " and ")) else words


def _coordinate(column: pd.Series) -> np.ndarray:
    """Return a column for xarray: missing numbers are NaN, missing words None."""
    if pd.api.types.is_bool_dtype(column.dtype) and column.hasnans:
        return column.to_numpy(object)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(float, na_value=np.nan) if column.hasnans else column.to_numpy()
    return np.array([None if pd.isna(v) else v for v in column], dtype=object)
