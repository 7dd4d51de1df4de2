"""The rows whose maps are most like one: every map compared, or an index asked.

Maps are unit vectors here, so that a cosine is a product. Comparing every map is exact and takes
about a second for a hundred thousand of them. An index is made on demand, for one layer and head,
and lies beside the maps under ``nearest/<run>/`` (for a store in a bucket: on this machine)::

    <stream>-layer<layer>-head<head>/
        vectors/      a Lance data set: row_id, the row's checksum, how far the unit vector is from
                      a mean as float16, and Lance's own index over these (inverted lists: the maps
                      in the lists whose centres are nearest to the question's are compared)
        index.json    how many lists are looked into, and the recall

The products of a question with unit vectors, and with what these are without their mean, stand in
the same order, and half precision tells the latter apart where all maps are much alike.

It may be deleted at any time. A row that is no more, or holds another map, makes it useless; rows
that were appended since are compared one by one beside it. What is found is always compared with
the stored maps, so that similarities are exact and only a row can be missing. How many are missing
is measured when the index is made: the recall of the ten nearest, over rows drawn at random that
were not used to choose how many lists to look into (Jégou et al. 2011 call it recall at R).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.store.durable import turn, write_atomically
from tssan_viz.store.places import beside
from tssan_viz.store.schema import decode, run_folder

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

Progress = Callable[[str, int, int], None]

EXACT_UP_TO = 50_000
"""Rows up to which every map is compared unless an index is asked for."""
RECALL_OF = 10
"""The recall is that of so many nearest rows."""
_FEWEST = 1000
# Maps are read in parts of this size (as float32).
_PART_BYTES = 32 << 20
# Rows that are asked for their nearest: to choose how many lists to look into, and for the recall.
_QUESTIONS = 100
_RECALL_SOUGHT = 0.99
# A list holds about so many maps; each is trained with 256 of them, in memory.
_LIST, _MOST_LISTS = 1000, 256


@dataclass(frozen=True)
class Found:
    """Rows whose maps are most like one.

    Attributes
    ----------
    positions : (k,) int
        Where they stand in the selection, the most alike first.
    similarity : (k,) float64
        Cosines with the stored maps.
    exact : bool
        Whether every map was compared.
    recall : float
        1 where every map was compared, else the index's.
    """

    positions: NDArray[np.intp]
    similarity: NDArray[np.float64]
    exact: bool
    recall: float


@dataclass(frozen=True)
class Described:
    """What is written down beside an index.

    Attributes
    ----------
    rows
        How many maps it holds.
    lists, probes
        Into how many lists they are sorted, and how many of these a question looks into.
    recall
        Of the `RECALL_OF` nearest rows, the mean share that is found.
    questions
        The rows (``row_id``) over which that was measured, each left out of its own answer.
    """

    rows: int
    lists: int
    probes: int
    recall: float
    questions: tuple[int, ...]


class MapIndex:
    """An index over the maps of one layer and head.

    Attributes
    ----------
    described : Described
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        text = (folder / "index.json").read_text(encoding="utf-8")
        described = json.loads(text)
        described["questions"] = tuple(described["questions"])
        self.described = Described(**described)

    @cached_property
    def _vectors(self) -> lance.LanceDataset:
        return lance.dataset(self._folder / "vectors")

    def rows(self) -> pd.DataFrame:
        """Return ``row_id`` and ``checksum`` of the maps that it holds."""
        return self._vectors.to_table(columns=["row_id", "checksum"]).to_pandas()

    def candidates(
        self, wanted: NDArray[np.float32], k: int, probes: int | None = None
    ) -> NDArray[np.int64]:
        """Return the ``row_id`` of the k rows that the index holds for most like a unit vector."""
        nearest = {
            "column": "vector",
            "q": wanted.astype(np.float16),
            "k": k,
            "nprobes": probes or self.described.probes,
        }
        found = self._vectors.to_table(columns=["row_id", "_distance"], nearest=nearest)
        return found["row_id"].to_numpy()


def index_folder(selection: Selection) -> Path:
    """Return where the index of a selection's layer and head lies."""
    (layer,), (head,) = selection.layers, selection.heads
    name = f"{quote(selection.stream, safe=' ')}-layer{layer}-head{head}"
    return beside(selection.store.path) / "nearest" / run_folder(selection.run) / name


def open_index(selection: Selection) -> MapIndex | None:
    """Return the index of a selection's layer and head, None where there is none."""
    try:
        return MapIndex(index_folder(selection))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{index_folder(selection)} cannot be read as an index ({error}); it may be deleted, "
            "and `tssan-viz index` makes it anew"
        ) from error


# ---- asking


def nearest_rows(
    selection: Selection, wanted: NDArray[np.float32], k: int, *, exact: bool | None
) -> Found:
    """Return the rows of a selection whose maps are most like one.

    Parameters
    ----------
    selection
        Of one layer and head.
    wanted : (q·s,)
        The map, as a unit vector.
    k
        How many.
    exact
        Whether every map is compared; None: up to `EXACT_UP_TO` rows, and where there is no index
        of just these rows and such as were appended since.

    Raises
    ------
    UserError
        An index was asked for, and there is none, or one of other rows.
    """
    if exact is None and len(selection) <= EXACT_UP_TO:
        exact = True
    index = None if exact else open_index(selection)
    if index is None:
        if exact is False:
            raise UserError(
                f"there is no index of {_site(selection)}; `tssan-viz index --layer "
                f"{selection.layers[0]} --head {selection.heads[0]}` makes one, as does "
                "store.index(layer=…, head=…)"
            )
        return _of_all(selection, wanted, k)
    numbers, others = _parts(selection, index)
    if others is None:
        if exact is False:
            raise UserError(
                f"the index of {_site(selection)} is of other rows than these, or of rows that "
                "have changed; make it anew, or ask without it"
            )
        return _of_all(selection, wanted, k)
    # Half precision may exchange neighbours at the edge: twice as many are compared.
    ids = pd.Index(index.candidates(wanted, 2 * k))
    near = np.sort(numbers.get_indexer(ids))
    positions = np.concatenate([near, others])
    frame = selection.rows()
    similarity = np.concatenate(
        [products[:, 0] for _, products in _products(selection, frame.iloc[positions], wanted)]
    )
    best = np.argsort(-similarity, kind="stable")[:k]
    return Found(positions[best], similarity[best], False, index.described.recall)


def _parts(selection: Selection, index: MapIndex) -> tuple[pd.Index, NDArray[np.intp] | None]:
    """Return the row numbers of a selection, and which rows the index lacks.

    None where the index holds rows that the selection lacks, or rows that have changed.
    """
    frame = selection.rows()
    numbers = pd.Index(frame["row_id"].to_numpy(np.int64))
    rows = index.rows()
    at = numbers.get_indexer(pd.Index(rows["row_id"]))
    if (at < 0).any():
        return numbers, None
    if (frame["checksum"].to_numpy(np.int64)[at] != rows["checksum"].to_numpy(np.int64)).any():
        return numbers, None
    lacking = np.ones(len(numbers), bool)
    lacking[at] = False
    return numbers, np.flatnonzero(lacking)


def _site(selection: Selection) -> str:
    return f"run {selection.run!r}, layer {selection.layers[0]}, head {selection.heads[0]}"


def _of_all(selection: Selection, wanted: NDArray[np.float32], k: int) -> Found:
    positions, similarity = exact_nearest(selection, wanted[None], k)
    return Found(positions[0], similarity[0], True, 1.0)


def exact_nearest(
    selection: Selection,
    wanted: NDArray[np.float32],
    k: int,
    *,
    besides: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Compare maps with every map of a selection, some at a time.

    Parameters
    ----------
    selection
        Of one layer and head.
    wanted : (w, q·s)
        The maps, as unit vectors.
    k
        How many rows are returned for each, fewer where the selection is smaller.
    besides : (w,)
        A position for each that is left out: its own.

    Returns
    -------
    positions, similarity : (w, k)
        The most alike first; of equals, the one that was recorded first.
    """
    found = np.empty((len(wanted), 0), np.intp)
    similarity = np.empty((len(wanted), 0))
    for start, products in _products(selection, selection.rows(), wanted):
        values = products.T
        if besides is not None:
            own = np.flatnonzero((besides >= start) & (besides < start + values.shape[1]))
            values[own, besides[own] - start] = -np.inf
        here = np.broadcast_to(start + np.arange(values.shape[1]), values.shape)
        found, similarity = np.hstack([found, here]), np.hstack([similarity, values])
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(found, best, axis=1)
        similarity = np.take_along_axis(similarity, best, axis=1)
    return found, similarity


def _products(
    selection: Selection, frame: pd.DataFrame, wanted: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Go through the cosines (r, w) of rows' maps with unit vectors (w, q·s) or one (q·s,)."""
    wanted = np.atleast_2d(wanted)
    start = 0
    for units in _units(selection, frame):
        yield start, (units @ wanted.T).astype(np.float64)
        start += len(units)


def _units(selection: Selection, frame: pd.DataFrame) -> Iterator[NDArray[np.float32]]:
    """Go through the maps of rows as unit vectors (r, q·s); a map of zeros stays zero."""
    for _, maps in selection.parts_of(frame, max(1, _PART_BYTES // _bytes(selection))):
        flat = decode(maps).reshape(len(maps), -1)
        length = np.sqrt(np.einsum("rd,rd->r", flat, flat))
        yield np.divide(flat, np.where(length > 0, length, 1)[:, None], dtype=np.float32)


def _bytes(selection: Selection) -> int:
    query, key = selection.size
    return 4 * query * key


# ---- making


def make_index(selection: Selection, progress: Progress | None = None) -> MapIndex:
    """Make an index over the maps of a selection, and measure its recall.

    It takes about twice the bytes of these maps on the disk. One that was there is replaced when
    the new one is whole.

    Parameters
    ----------
    selection
        Of one layer and head.
    progress
        Called with (what, done, total).

    Raises
    ------
    UserError
        There are so few rows that an index is of no use, or it cannot be written.
    """
    if len(selection) < _FEWEST:
        raise UserError(
            f"{_site(selection)}: {len(selection)} maps are compared in milliseconds, and need no "
            f"index; one is made of {_FEWEST:,} and more"
        )
    say = progress or (lambda what, done, total: None)
    folder = index_folder(selection)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One process at a time; whatever has a dot here is of one that was killed.
        with turn(folder.parent / ".lock", alone=True):
            for left in folder.parent.glob(".making-*"):
                shutil.rmtree(left, ignore_errors=True)
            scratch = folder.parent / f".making-{os.getpid()}"
            try:
                _write(selection, scratch, say)
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
            finally:
                with suppress(OSError):
                    shutil.rmtree(scratch)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return MapIndex(folder)


def _write(selection: Selection, folder: Path, say: Progress) -> None:
    rows = selection.rows()
    length = _bytes(selection) // 4
    vector = pa.list_(pa.float16(), length)
    schema = pa.schema([("row_id", pa.int64()), ("checksum", pa.uint32()), ("vector", vector)])

    centre, scale = _spread(selection)

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for units in _units(selection, rows):
            part = rows.iloc[start : start + len(units)]
            units -= centre
            units *= scale
            lists = pa.FixedSizeListArray.from_arrays(
                pa.array(units.astype(np.float16).reshape(-1)), length
            )
            numbers = pa.array(part["row_id"].to_numpy(np.int64))
            checksums = pa.array(part["checksum"].to_numpy(np.uint32))
            yield pa.record_batch([numbers, checksums, lists], schema=schema)
            start += len(units)
            say("reading maps", start, len(rows))

    folder.mkdir()
    reader = pa.RecordBatchReader.from_batches(schema, batches())
    dataset = lance.write_dataset(reader, folder / "vectors")
    lists = min(_MOST_LISTS, max(4, len(rows) // _LIST))
    say("sorting them into lists", 0, lists)
    dataset.create_index("vector", "IVF_FLAT", metric="dot", num_partitions=lists)
    _measure(selection, folder, lists, say)


def _spread(selection: Selection) -> tuple[NDArray[np.float32], np.float32]:
    """Return the mean of some unit vectors, and what brings the rest to about 1."""
    rows = selection.rows()
    some = np.sort(np.random.default_rng(1).choice(len(rows), _FEWEST, replace=False))
    units = np.concatenate([*_units(selection, rows.iloc[some])])
    centre = units.mean(axis=0)
    spread = np.sqrt(np.mean((units - centre) ** 2))
    return centre, np.float32(1) / np.maximum(spread, np.float32(1e-6))


def _measure(selection: Selection, folder: Path, lists: int, say: Progress) -> None:
    """Choose how many lists are looked into, and write the recall down."""
    rows = selection.rows()
    count = min(_QUESTIONS, len(rows) // 4)
    drawn = np.random.default_rng(0).choice(len(rows), 2 * count, replace=False)
    say("measuring the recall", 0, 2 * count)
    wanted = np.concatenate([*_units(selection, rows.iloc[np.sort(drawn)])])
    wanted = wanted[np.argsort(np.argsort(drawn))]
    numbers = rows["row_id"].to_numpy(np.int64)
    truth, _ = exact_nearest(selection, wanted, RECALL_OF, besides=drawn)

    _write_description(folder, Described(len(rows), lists, lists, 0.0, ()))
    index = MapIndex(folder)

    def recall(probes: int, some: slice) -> float:
        shares = []
        for w in range(*some.indices(len(drawn))):
            own = numbers[drawn[w]]
            found = index.candidates(wanted[w], 2 * (RECALL_OF + 1), probes)
            shares.append(np.isin(numbers[truth[w]], found[found != own]).mean())
        return float(np.mean(shares))

    probes = 1
    while recall(probes, slice(count)) < _RECALL_SOUGHT and probes < lists:
        probes = min(2 * probes, lists)
    described = Described(
        rows=len(rows),
        lists=lists,
        probes=probes,
        recall=recall(probes, slice(count, None)),
        questions=tuple(numbers[drawn[count:]].tolist()),
    )
    say("measuring the recall", 2 * count, 2 * count)
    _write_description(folder, described)


def _write_description(folder: Path, described: Described) -> None:
    write_atomically(folder / "index.json", json.dumps(asdict(described)))
