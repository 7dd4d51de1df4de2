"""The recorder: watches a model's attention while a block runs and writes every map to a store."""

from __future__ import annotations

import difflib
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tssan_viz.recording.errors import MissingMaps, RecordingError
from tssan_viz.recording.probabilities import MEASURES, exact_float32, maps_and_measures
from tssan_viz.recording.sites import find_attention
from tssan_viz.recording.transfer import HostCopy
from tssan_viz.store import open_store
from tssan_viz.store.schema import Site

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore, RunWriter
    from tssan_viz.store.catalogue import Catalogue
    from tssan_viz.store.schema import StoredSample

AXES = ("n", "k", "m")

# What may be said of a sample, one value each or one for the whole batch.
DESCRIPTIONS = (
    "label",
    "class_name",
    "class_code",
    "subject",
    "camera",
    "setup",
    "replication",
    "split",
    "step",
    "epoch",
    "phase",
)

# Copies under way hold memory on device and host; beyond this much the oldest is awaited.
IN_FLIGHT_BYTES = 256 * 2**20


@dataclass
class _Batch:
    """One announced forward call, from `samples` until its rows are in the store."""

    samples: list[str]
    descriptions: dict[str, list[Any]]
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    present: HostCopy | None
    stored: list[StoredSample]
    running: bool = False
    finished: bool = False
    maps: dict[str, tuple[HostCopy, HostCopy]] = field(default_factory=dict)
    predictions: tuple[HostCopy, HostCopy] | None = None

    @property
    def rows(self) -> int:
        return math.prod(self.sizes)

    @property
    def copies(self) -> Iterator[HostCopy]:
        for pair in self.maps.values():
            yield from pair
        yield from self.predictions or ()
        if self.present is not None:
            yield self.present

    def named(self) -> str:
        return " × ".join(
            f"{axis} = {size}" for axis, size in zip(self.axes, self.sizes, strict=True)
        )


def record(
    model: nn.Module,
    store: AttentionStore | str | PathLike[str],
    *,
    run: str,
    catalogue: Catalogue,
    phase: str = "inference",
    step: int = 0,
    epoch: int | None = None,
    split: str | None = None,
    info: Mapping[str, Any] | None = None,
) -> Recorder:
    """Record a model's attention while the block runs.

    The model's outputs, gradients and random state are bit for bit those of the unwatched model:
    hooks read the queries and keys that the attention was called with and compute the probabilities
    a second time, in float32, before any dropout.

    Parameters
    ----------
    model
        The module that is called in the block. Its attention is found by itself, see
        `tssan_viz.recording.find_attention`.
    store
        A store, or the folder of one, created when it is not there.
    run
        The name under which the maps are kept. The same name again goes on with that run.
    catalogue
        Classes and skeleton of the data, so that the store explains itself.
    phase, step, epoch, split
        What holds for every row, unless `Recorder.samples` says otherwise.
    info
        What is to be remembered of the run: recipe, hash of the checkpoint, seed and so on.

    Returns
    -------
    Recorder
        To be used in a `with` statement; at its end everything is in the store, on disk.

    Raises
    ------
    UnrecordableModel
        The model has no attention that can be recorded.
    MissingMaps
        At the recorder's next call or at the end of the block: a map that was due did not come.

    Examples
    --------
    >>> with tssan_viz.record(model, "attention-store", run="mine", catalogue=c) as recorder:
    ...     for clips, names, labels in batches:
    ...         recorder.samples(sample=names, label=labels, axes=("n", "k", "m"),
    ...                          present=clips.present)
    ...         recorder.predictions(model(clips.position, clips.motion, clips.present))
    """
    return Recorder(
        model,
        store,
        run=run,
        catalogue=catalogue,
        constants={"phase": phase, "step": step, "epoch": epoch, "split": split},
        info=dict(info or {}),
    )


class Recorder:
    """Watches one model for the length of a `with` block; made by `record`."""

    def __init__(
        self,
        model: nn.Module,
        store: AttentionStore | str | PathLike[str],
        *,
        run: str,
        catalogue: Catalogue,
        constants: Mapping[str, Any],
        info: dict[str, Any],
    ) -> None:
        self._model = model
        self._attention = find_attention(model)
        self._store = store
        self._run = run
        self._catalogue = catalogue
        self._constants = constants
        self._info = info

        self._sites: dict[str, Site] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._writer: RunWriter | None = None
        self._batch: _Batch | None = None
        self._pending: deque[_Batch] = deque()
        self._fault: RecordingError | None = None
        self._stored_samples: set[str] = set()

        self._rows = self._absent = self._calls = self._due = self._recorded = 0
        self._seconds = 0.0
        self._depth = 0

    # The block ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._handles:
            raise RecordingError("this recorder is already watching; make another with record(...)")
        if isinstance(self._store, str | PathLike):
            self._store = open_store(str(self._store), create=True)
        self._handles.append(self._model.register_forward_pre_hook(self._forward_begins))
        self._handles.append(self._model.register_forward_hook(self._forward_ended))
        for layer, (name, module) in enumerate(self._attention.items(), start=1):
            tap = partial(self._tap, name, layer)
            self._handles.append(module.register_forward_pre_hook(tap, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if error is None:
            try:
                self._end()
            finally:
                self._close_writer()
            return
        # The batch at hand is as unfinished as the block; those before it are whole and are kept.
        self._batch = None
        try:
            try:
                self._write(wait=True)
            finally:
                if self._writer is not None:
                    self._writer.__exit__(kind, error, traceback)
        except Exception as second:
            error.add_note(f"while the maps recorded so far were being written: {second}")

    def _end(self) -> None:
        with self._timed():
            try:
                self._close_batch()
            finally:
                self._write(wait=True)
        if self._recorded != self._due:
            raise MissingMaps(
                f"{self._due} maps were due ({len(self._attention)} sites × "
                f"{self._calls} announced calls) and {self._recorded} came: an error was passed "
                "over while recording; let it through to see which call it was"
            )

    def _close_writer(self) -> None:
        if self._writer is not None:
            with self._timed():
                self._writer.close()
            self._writer = None

    # What the user says ------------------------------------------------------------------------

    def samples(
        self,
        *,
        sample: Sequence[str],
        axes: Sequence[str] = ("n",),
        sizes: Mapping[str, int] | None = None,
        present: Tensor | np.ndarray | None = None,
        stored: Sequence[StoredSample] | None = None,
        **descriptions: Any,
    ) -> None:
        """Announce the samples of the next forward call.

        Parameters
        ----------
        sample
            Names of the n samples.
        axes
            How the rows of the attention's batch are made, outermost first: TS-SAN flattens
            ("n", "k", "m"), samples × segments × persons. Without "m" rows have no person,
            without "k" all are segment 1.
        sizes
            Length of each axis but "n"; taken from `present` where that is given.
        present
            bool, one axis per announced axis and in the same order: which rows are really there.
            The others are computed, as the model does, and dropped.
        stored
            What views need of each sample: frames, poses. A sample is kept once.
        **descriptions
            label, class_name, class_code, subject, camera, setup, replication, split, step, epoch,
            phase: a sequence with a value for each sample, or one value for all. `subject` is the
            performer, person 1: rows of further persons have none.

        Raises
        ------
        RecordingError
            The arguments do not fit together, or what the model did since the last announcement was
            not what was announced.
        MissingMaps
            The call announced before did not yield its maps.
        """
        with self._timed():
            if not self._handles:
                raise RecordingError(
                    "nothing is being recorded: use `with tssan_viz.record(...) as recorder:` and "
                    "announce samples inside the block"
                )
            self._close_batch()
            self._write()
            names = [str(name) for name in sample]
            batch = _Batch(
                samples=names,
                descriptions=_described(descriptions, len(names)),
                axes=tuple(axes),
                sizes=_sizes(tuple(axes), len(names), sizes, present),
                present=None
                if present is None
                else HostCopy(torch.as_tensor(present).bool().clone()),
                stored=_checked_stored(stored, names),
            )
            self._batch = batch
            self._calls += 1
            self._due += len(self._attention)

    def predictions(self, logits: Tensor) -> None:
        """Keep what the model answered in the forward call just made.

        Parameters
        ----------
        logits
            (n, classes): before the softmax. The label predicted, its probability and whether it is
            right go with every row of the sample.

        Raises
        ------
        RecordingError
            There was no such call, or `logits` is not one line per announced sample.
        """
        with self._timed():
            self._raise_fault()
            batch = self._batch
            if batch is None or not batch.finished:
                raise RecordingError(
                    "predictions() belongs after the forward call that samples() announced"
                )
            if logits.ndim != 2 or logits.shape[0] != len(batch.samples):
                raise RecordingError(
                    f"predictions() got logits of shape {tuple(logits.shape)}; "
                    f"{len(batch.samples)} samples were announced, so it would be "
                    f"({len(batch.samples)}, classes)"
                )
            with exact_float32(logits.device):
                confidence, predicted = torch.softmax(logits.detach().float(), dim=-1).max(dim=-1)
            batch.predictions = (HostCopy(predicted), HostCopy(confidence))

    def flush(self) -> None:
        """Bring everything recorded so far to the disk; on return it survives whatever follows.

        Raises
        ------
        MissingMaps
            The call announced before did not yield its maps.
        """
        with self._timed():
            self._close_batch()
            self._write(wait=True)
            if self._writer is not None:
                self._writer.flush()

    @property
    def sites(self) -> list[Site]:
        """The attention calls being recorded, once the first forward call has shown their sizes."""
        return list(self._sites.values())

    def report(self) -> dict[str, Any]:
        """Say what has been recorded so far.

        Returns
        -------
        dict
            run; sites; calls (announced); rows (written); absent (rows of persons who are not
            there); maps_due and maps_recorded (sites × calls); seconds (spent on recording).
        """
        return {
            "run": self._run,
            "sites": len(self._attention),
            "calls": self._calls,
            "rows": self._rows,
            "absent": self._absent,
            "maps_due": self._due,
            "maps_recorded": self._recorded,
            "seconds": self._seconds,
        }

    # What the model does -----------------------------------------------------------------------

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if _recomputing():
            return
        if self._batch is None or self._batch.finished:
            self._find_fault(
                RecordingError(
                    "the model was called without an announcement: call recorder.samples(...) "
                    "before every forward call in the block, or make calls that need no record "
                    "outside it"
                )
            )
            return
        self._batch.running = True
        self._batch.maps.clear()

    def _forward_ended(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        batch = self._batch
        if _recomputing() or batch is None or not batch.running:
            return
        batch.running, batch.finished = False, True
        silent = [name for name in self._attention if name not in batch.maps]
        if silent:
            self._find_fault(
                MissingMaps(
                    f"{len(silent)} of {len(self._attention)} maps did not come from the call for "
                    f"{_some(batch.samples)}: not called was {_some(silent)}. Watch the part of "
                    "the model that is used, call attention as a module, `self.attend(q, k, v)`, "
                    "and do not record through a copy that was compiled before"
                )
            )

    def _tap(
        self,
        name: str,
        layer: int,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if _recomputing():
            return
        batch = self._batch
        if batch is None or not batch.running:
            self._find_fault(
                RecordingError(
                    f"{name} was called outside the watched model's own forward call: "
                    "give record(...) the module that you call"
                )
            )
            return
        with self._timed():
            q, k, _ = signature(module.forward).bind(*args, **kwargs).args
            try:
                self._check_call(batch, name, q, k)
            except RecordingError as error:
                self._find_fault(error)
                return
            maps, measures = maps_and_measures(q, k, getattr(module, "scale", None))
            batch.maps[name] = (HostCopy(maps), HostCopy(measures))
            if name not in self._sites:
                _, h, n_q, n_s = maps.shape
                self._sites[name] = Site(name=name, layer=layer, heads=h, query=n_q, key=n_s)

    def _check_call(self, batch: _Batch, name: str, q: Tensor, k: Tensor) -> None:
        if name in batch.maps:
            raise RecordingError(
                f"{name} was called twice in one forward call, and one map of it was announced: "
                "give each layer an attention module of its own"
            )
        if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2]:
            raise RecordingError(
                f"{name} was called with q {tuple(q.shape)} and k {tuple(k.shape)}; it would be "
                "(rows, heads, frames, width of a head) for both"
            )
        if q.shape[0] != batch.rows:
            raise RecordingError(
                f"{name} attended over {q.shape[0]} rows, and samples() announced "
                f"{batch.named()} = {batch.rows}: give axes and sizes as the model flattens them"
            )
        site = self._sites.get(name)
        shape = (q.shape[1], q.shape[2], k.shape[2])
        if site and shape != (site.heads, site.query, site.key):
            raise RecordingError(
                f"{name} made maps of (heads, query, key) {shape}, after "
                f"{(site.heads, site.query, site.key)} before: record maps of another shape as a "
                "run of their own"
            )

    def _find_fault(self, fault: RecordingError) -> None:
        """Keep the first fault until the user next speaks to the recorder.

        A hook that raised would break into the model's own forward call.
        """
        if self._fault is None:
            self._fault = fault

    def _raise_fault(self) -> None:
        if self._fault is not None:
            fault, self._fault, self._batch = self._fault, None, None
            raise fault

    # From the model to the store ---------------------------------------------------------------

    def _close_batch(self) -> None:
        self._raise_fault()
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if not batch.finished:
            raise MissingMaps(
                f"samples() announced {_some(batch.samples)}, and the model did not run to its "
                f"end: {len(self._attention)} maps are missing. Call the model that record(...) "
                "was given, itself and not a compiled or captured copy of it"
            )
        self._pending.append(batch)

    def _write(self, wait: bool = False) -> None:
        """Write the batches that have arrived, in order; all of them with `wait`."""
        under_way = sum(copy.nbytes for batch in self._pending for copy in batch.copies)
        while self._pending:
            batch = self._pending[0]
            arrived = all(copy.arrived() for copy in batch.copies)
            if not (arrived or wait or under_way > IN_FLIGHT_BYTES):
                return
            under_way -= sum(copy.nbytes for copy in batch.copies)
            self._pending.popleft()
            self._write_batch(batch)

    def _write_batch(self, batch: _Batch) -> None:
        keep = np.ones(batch.rows, bool)
        if batch.present is not None:
            keep = batch.present.numpy().reshape(-1)
        rows = _rows(batch, keep, self._constants)
        maps, measures = {}, {}
        for name, (site_maps, site_measures) in batch.maps.items():
            maps[name] = site_maps.numpy()
            measures[name] = site_measures.numpy()
            if not keep.all():
                maps[name], measures[name] = maps[name][keep], measures[name][keep]
            _refuse_nan(name, measures[name], rows)
        if keep.any():
            writer = self._open_writer()
            fresh = {s.sample: s for s in batch.stored if s.sample not in self._stored_samples}
            if fresh:
                writer.add_samples(list(fresh.values()))
                self._stored_samples.update(fresh)
            by_measure = {
                measure: {name: values[:, :, i] for name, values in measures.items()}
                for i, measure in enumerate(MEASURES)
            }
            writer.add(rows, maps, by_measure)
        self._rows += int(keep.sum())
        self._absent += int((~keep).sum())
        self._recorded += len(maps)

    def _open_writer(self) -> RunWriter:
        if self._writer is None:
            assert not isinstance(self._store, str | PathLike)
            self._writer = self._store.writer(
                self._run,
                sites=sorted(self._sites.values(), key=lambda site: site.layer),
                catalogue=self._catalogue,
                info=self._info,
            )
        return self._writer

    @contextmanager
    def _timed(self) -> Iterator[None]:
        self._depth += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._seconds += time.perf_counter() - start


def _recomputing() -> bool:
    """Whether autograd runs this: activation checkpoints call modules a second time in backward."""
    return torch._C._current_graph_task_id() != -1


def _plain(value: Any) -> Any:
    """Make of a value of a table, an array or a tensor what a column of the store takes."""
    if isinstance(value, Tensor | np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in {"NAType", "NaTType"} else value


def _described(descriptions: Mapping[str, Any], n: int) -> dict[str, list[Any]]:
    columns = {}
    for name, given in descriptions.items():
        if name not in DESCRIPTIONS:
            near = difflib.get_close_matches(name, DESCRIPTIONS, n=1, cutoff=0.0)[0]
            raise RecordingError(
                f"samples() knows nothing called {name!r}; did you mean {near!r}? "
                f"It takes {', '.join(DESCRIPTIONS)}"
            )
        one = given is None or isinstance(given, str) or not hasattr(given, "__len__")
        values = [given] * n if one else list(given)
        if len(values) != n:
            raise RecordingError(f"samples() got {n} samples and {len(values)} values of {name}")
        columns[name] = [_plain(value) for value in values]
    return columns


def _sizes(
    axes: tuple[str, ...],
    n: int,
    sizes: Mapping[str, int] | None,
    present: Tensor | np.ndarray | None,
) -> tuple[int, ...]:
    if n == 0:
        raise RecordingError("samples() got no sample")
    if "n" not in axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise RecordingError(
            f"axes {axes} would be some order of 'n' (samples), 'k' (segments) and 'm' (persons), "
            "with 'n' among them"
        )
    known = {"n": n, **(sizes or {})}
    if present is not None:
        shape = tuple(present.shape)
        if len(shape) != len(axes):
            raise RecordingError(f"present has shape {shape}; it would have the axes {axes}")
        for axis, size in zip(axes, shape, strict=True):
            if known.setdefault(axis, size) != size:
                raise RecordingError(
                    f"present has shape {shape} over {axes}, and {axis} is {known[axis]}"
                )
    missing = [axis for axis in axes if axis not in known]
    if missing:
        raise RecordingError(
            f"how long is {' and '.join(missing)}? Give sizes={{'{missing[0]}': …}} or present="
        )
    return tuple(int(known[axis]) for axis in axes)


def _checked_stored(
    stored: Sequence[StoredSample] | None, names: Sequence[str]
) -> list[StoredSample]:
    strangers = [s.sample for s in stored or () if s.sample not in set(names)]
    if strangers:
        raise RecordingError(f"stored= brings {_some(strangers)}, which sample= does not announce")
    return list(stored or ())


def _rows(batch: _Batch, keep: np.ndarray, constants: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Describe the rows that are kept, in the order in which the model flattened them."""
    index = np.indices(batch.sizes).reshape(len(batch.sizes), -1)[:, keep]
    at = dict(zip(batch.axes, index, strict=True))
    sample, count = at["n"].tolist(), int(keep.sum())
    person = (at["m"] + 1).tolist() if "m" in at else [None] * count

    rows: dict[str, list[Any]] = {name: [value] * count for name, value in constants.items()}
    for name, values in batch.descriptions.items():
        rows[name] = [values[i] for i in sample]
    rows["sample"] = [batch.samples[i] for i in sample]
    rows["segment"] = (at["k"] + 1).tolist() if "k" in at else [1] * count
    rows["person"] = person
    if "subject" in rows:
        pairs = zip(rows["subject"], person, strict=True)
        rows["subject"] = [None if m is not None and m > 1 else subject for subject, m in pairs]
    if batch.predictions is not None:
        predicted, confidence = (copy.numpy() for copy in batch.predictions)
        rows["predicted"] = [int(predicted[i]) for i in sample]
        rows["confidence"] = [float(confidence[i]) for i in sample]
    return rows


def _refuse_nan(name: str, measures: np.ndarray, rows: Mapping[str, Sequence[Any]]) -> None:
    entropy = measures[:, :, MEASURES.index("entropy")]
    if np.isfinite(entropy).all():
        return
    row, head = np.argwhere(~np.isfinite(entropy))[0]
    raise RecordingError(
        f"{name} attended with probabilities that are no numbers: sample {rows['sample'][row]}, "
        f"segment {rows['segment'][row]}, person {rows['person'][row]}, head {head + 1}. Its "
        "queries or keys are NaN or infinite; if the person is not there, say so with present="
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
