"""The recorder: watches a model's attention while a block runs and hands every map to a sink."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tssan_viz.recording.announcements import some
from tssan_viz.recording.calls import WatchedSite
from tssan_viz.recording.errors import RecordingError
from tssan_viz.recording.forward_calls import DescribeCall, ForwardCalls
from tssan_viz.recording.heads import ChosenHeads, Heads
from tssan_viz.recording.loaders import Describe, WatchedLoader
from tssan_viz.recording.policies import Choice, Policy, Probe, call, undisturbed
from tssan_viz.recording.probabilities import MEASURES
from tssan_viz.recording.report import Report
from tssan_viz.recording.sinks import Block, MemorySink, Sink, StoreSink, sink_for
from tssan_viz.recording.termination import Termination
from tssan_viz.recording.watching import Watcher, find_sites
from tssan_viz.recording.writing import Writing
from tssan_viz.site import Site

if TYPE_CHECKING:
    import xarray

    from tssan_viz.store import AttentionStore
    from tssan_viz.store.catalogue import Catalogue
    from tssan_viz.store.schema import StoredSample

# Maps that wait to be written hold memory on the host.
QUEUE_BYTES = 256 * 2**20


def record(
    model: nn.Module,
    store: AttentionStore
    | str
    | PathLike[str]
    | Sink
    | Callable[[Sequence[Site], Block], object]
    | None = None,
    *,
    run: str = "recording",
    catalogue: Catalogue | None = None,
    phase: str = "inference",
    step: int | None = None,
    epoch: int | None = None,
    split: str | None = None,
    info: Mapping[str, Any] | None = None,
    only: str | Sequence[str] | None = None,
    heads: Heads | None = None,
    softmax: Mapping[str, str] | Sequence[str] | None = None,
    describe: DescribeCall | None = None,
    unlabelled: bool = False,
    policy: Policy | None = None,
    pad_to: int | None = None,
    queue_bytes: int = QUEUE_BYTES,
    when_full: str = "block",
) -> Recorder:
    """Record a model's attention while the block runs.

    The model's outputs, gradients and random state are bit for bit those of the unwatched model:
    the probabilities are computed a second time from the queries and keys that the attention was
    called with, in float32, before any dropout.

    Parameters
    ----------
    model
        The module that is called in the block. Its attention is found by itself, see
        `tssan_viz.recording.find_sites`.
    store
        A store, or the folder of one, created when it is not there; None for host memory, see
        `Recorder.maps`; a function that is called with (sites, block) for each forward call; or a
        sink, see `tssan_viz.recording.sinks`.
    run
        The name under which the maps are kept. The same name again goes on with that run.
    catalogue
        Classes and skeleton of the data, so that the store explains itself.
    phase, step, epoch, split
        What holds for every row, unless `Recorder.samples` says otherwise. Without a step, the
        announced calls of the phase ``train`` are counted; elsewhere it is 0.
    info
        What is to be remembered of the run: recipe, hash of the checkpoint, seed and so on.
    only
        Patterns of site names, ``"*.layers.3.*"``: only these are recorded.
    heads
        Which heads, counted from 1: for all sites, or by patterns of site names. They keep these
        numbers wherever they are shown or asked for.
    softmax
        Names of the softmax modules of attention that is written out by hand, or a mapping from
        them to the kind of the site.
    describe
        Says of a call that `samples` did not announce what is in it, from the positional and the
        keyword arguments that the model was called with: what `samples` would be told; or None for
        a call that is not to be recorded.
    unlabelled
        Record calls of which nothing is said at all; their rows are named after the call, so that
        each such recording needs a run of its own.
    policy
        Which calls and samples are recorded; all of them by default.
    pad_to
        For sequences of several lengths: the longest. Maps (q, s) of shorter ones are filled up
        with zeros behind their last query and key, as masked frames are. Measures are those of the
        map as it was.
    queue_bytes, when_full
        How much may wait to be written, and what happens when more comes: ``block`` waits,
        ``sample`` leaves calls out and counts them, ``error`` raises.

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
    RecordingError
        At the same places: what was announced and what the model did do not fit together, a head or
        a site is asked for that is not there, or the queue is full and `when_full` is ``error``.

    Notes
    -----
    A recorder watches for the length of one block. Another one with the same store and run goes on
    where it ended, and rows that are there already are not written twice.

    A call in which the model raises, if the block goes on behind it, leaves no rows; the report
    counts it under ``failed``, and nothing of it was due.

    When the block is left by an exception, Ctrl-C or SIGTERM, the calls before the one at hand are
    written and flushed first; if some of their rows could not be, a note on the exception says how
    many are safe and how many are not (under SIGTERM, which ends the process as `SystemExit`, a
    line on stderr). After kill −9 the store holds what had been committed, as after `flush`.

    Examples
    --------
    >>> with tssan_viz.record(model, "attention-store", run="mine", catalogue=c) as recorder:
    ...     for clips, names, labels in batches:
    ...         recorder.samples(sample=names, label=labels, axes=("n", "k", "m"),
    ...                          present=clips.present)
    ...         recorder.predictions(model(clips.position, clips.motion, clips.present))

    >>> with tssan_viz.record(bert, unlabelled=True) as recorder:
    ...     bert(**tokens)
    >>> recorder.maps().sel(layer=3, head=1)
    """
    return Recorder(
        model,
        sink_for(store, run, catalogue, rank=_rank()),
        run=run,
        constants={"phase": phase, "step": step, "epoch": epoch, "split": split},
        info=dict(info or {}),
        only=only,
        heads=heads,
        softmax=softmax,
        describe=describe,
        unlabelled=unlabelled,
        policy=policy or Policy(),
        pad_to=pad_to,
        queue_bytes=queue_bytes,
        when_full=when_full,
    )


def _rank() -> int:
    """Return which of several processes this is, where PyTorch knows of several."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return 0


class Recorder:
    """Watches one model for the length of a `with` block; made by `record`."""

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        *,
        run: str,
        constants: Mapping[str, Any],
        info: dict[str, Any],
        only: str | Sequence[str] | None,
        heads: Heads | None,
        softmax: Mapping[str, str] | Sequence[str] | None,
        describe: DescribeCall | None,
        unlabelled: bool,
        policy: Policy,
        pad_to: int | None,
        queue_bytes: int,
        when_full: str,
    ) -> None:
        if pad_to is not None and pad_to < 1:
            raise RecordingError(f"pad_to is {pad_to}; it is the length of the longest sequence")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module  # sites are named as in the model that is trained by one process
        self._model = model
        self._watched = list(find_sites(model, only=only, softmax=softmax))
        self._softmax = softmax
        self._heads = ChosenHeads(heads, [site.name for site in self._watched])
        self._run = run
        self._sink = sink
        self._choice = Choice(policy)
        self._sites: dict[str, Site] = {}
        self._writing = Writing(
            sink, info, self._sites, queue_bytes=queue_bytes, when_full=when_full
        )
        self._calls = ForwardCalls(
            self._watched,
            self._heads,
            self._choice,
            self._sites,
            self._writing,
            constants,
            describe=describe,
            unlabelled=unlabelled,
            pad_to=pad_to,
            rank=_rank(),
        )
        self._timed = self._calls.stages.timed
        self._watcher: Watcher | None = None
        self._used = False
        self._notes: list[str] = []
        self._termination = Termination()

    def __repr__(self) -> str:
        return f"<Recorder of {len(self._watched)} sites of {type(self._model).__name__}>"

    # The block ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._used:
            raise RecordingError(
                "a recorder watches for the length of one block; make another with record(...). "
                "The same store and run go on where this one ended"
            )
        watcher = Watcher(
            self._model,
            self._watched,
            self._calls.deliver,
            forward_began=self._calls.began,
            forward_ended=self._calls.ended,
            softmax=self._softmax,
        )
        watcher.__enter__()
        self._used = True
        self._watcher = self._calls.watcher = watcher
        watcher.awake = not self._calls.resting
        self._termination.catch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()
        if error is not None:
            # The batch at hand is as unfinished as the block; those before it are whole, and kept.
            self._writing.lose(self._calls.abandon())
            try:
                self._writing.close(error, self._remember)
            except Exception as second:
                error.add_note(f"while the maps recorded so far were being written: {second}")
            self._say_what_was_lost(error)
            return
        fault: BaseException | None = None
        try:
            with self._timed("bookkeeping"):
                self._calls.close()
        except BaseException as found:
            fault = found
        with self._timed("queue"):
            try:
                self._writing.close(fault, self._remember)
            except BaseException as late:
                if fault is None:
                    raise
                fault.add_note(f"while the maps recorded so far were being written: {late}")
        if fault is not None:
            raise fault
        self._calls.raise_what_never_came()

    def _remember(self) -> None:
        """Leave in a store what its rows do not show: what was left out, and why."""
        if isinstance(self._sink, StoreSink):
            report = self.report()
            self._sink.report = {
                "calls": report.calls,
                "left_out": report.calls_left_out,
                "absent": report.absent,
                "dropped": report.rows_dropped,
                "lost": report.rows_lost,
                "notes": list(report.notes),
            }

    def _detach(self) -> None:
        if self._watcher is not None:
            self._watcher.__exit__(None, None, None)
            self._notes = list(self._watcher.graph_notes)
            self._calls.release()
            self._watcher = None
        self._termination.release()

    def _say_what_was_lost(self, error: BaseException) -> None:
        report = self.report()
        missing = (
            report.rows_lost + report.rows_dropped + max(0, report.rows - report.rows_acknowledged)
        )
        if not missing:
            return
        note = (
            f"{report.rows_acknowledged} rows of {self._run} are safe, {missing} that were "
            "recorded are not"
        )
        error.add_note(note)
        if isinstance(error, SystemExit):  # its notes are shown to nobody
            print(note, file=sys.stderr)

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
            phase, and whatever else is known: a sequence with a value for each sample, or one
            value for all. `subject` is the performer, person 1: rows of further persons have none.

        Raises
        ------
        RecordingError
            The arguments do not fit together, or what the model did since the last announcement was
            not what was announced.
        MissingMaps
            The call announced before did not yield its maps.
        """
        with self._timed("bookkeeping"):
            if self._watcher is None:
                raise RecordingError(
                    "nothing is being recorded: use `with tssan_viz.record(...) as recorder:` and "
                    "announce samples inside the block"
                )
            self._calls.say(
                sample=sample,
                axes=axes,
                sizes=sizes,
                present=present,
                stored=stored,
                **descriptions,
            )

    def predictions(self, logits: Tensor) -> None:
        """Keep what the model answered in the forward call just made.

        Parameters
        ----------
        logits
            (n, classes): before the softmax. The label predicted, its probability and whether it is
            right go with every row of the sample. Passed over for a call that is not recorded.

        Raises
        ------
        RecordingError
            There was no such call, or `logits` is not one line per announced sample.
        """
        with self._timed("bookkeeping"):
            self._calls.answer(logits)

    def watch_loader(
        self,
        loader: Iterable[Any],
        describe: Describe | None = None,
        *,
        dataset: Any = None,
    ) -> WatchedLoader:
        """Announce each batch of a loader when it comes out.

        Parameters
        ----------
        loader
            Anything that can be gone through; for `dataset=`, PyTorch's DataLoader.
        describe
            A function from the batch to what `samples` is to be told; or a mapping from names that
            `samples` knows to the batch's own keys, places or attributes,
            ``{"sample": "name", "label": 1}``.
        dataset
            What is known of each index of the loader's data set: a DataFrame by position, a
            sequence of mappings, or a function of the index. The order is the loader's own.

        Returns
        -------
        WatchedLoader
            To be gone through instead of the loader, any number of times; each time is an epoch,
            counted from 1, unless `describe` says which it is.
        """
        return WatchedLoader(self.samples, loader, describe, dataset)

    def probe(self, probe: Probe, *, step: int, epoch: int | None = None) -> None:
        """Record a fixed set of samples, in evaluation, as phase ``probe``.

        The model is left as it was found, each part in its own mode, and so are the random states
        of Python, NumPy and PyTorch: training goes on as if nothing had been.

        Parameters
        ----------
        probe
            What is looked at.
        step, epoch
            How far the training is: steps taken, epochs finished.
        """
        resting, self._calls.resting = self._calls.resting, False
        try:
            with undisturbed(self._model):
                for said, inputs in probe.batches:
                    self.samples(**{**said, "phase": "probe", "step": step, "epoch": epoch})
                    output = call(self._model, inputs)
                    logits = probe.answers(output, len(said["sample"]))
                    if logits is not None:
                        self.predictions(logits)
                with self._timed("bookkeeping"):
                    self._calls.close()
        finally:
            self._calls.rest(resting)

    def pause(self) -> None:
        """Sleep until `resume`: calls of the model and announcements are passed over."""
        with self._timed("bookkeeping"):
            self._calls.close()
            self._calls.rest(True)

    def resume(self) -> None:
        """Watch again."""
        self._calls.rest(False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pass over what happens in the block, for instance a validation."""
        resting = self._calls.resting
        self.pause()
        try:
            yield
        finally:
            if not resting:
                self.resume()

    def flush(self) -> None:
        """Bring everything recorded so far to the disk; on return it survives whatever follows.

        Raises
        ------
        MissingMaps
            The call announced before did not yield its maps.
        """
        with self._timed("bookkeeping"):
            self._calls.close()
            with self._timed("queue"):
                self._writing.flush()

    @property
    def model(self) -> nn.Module:
        """The module that is watched."""
        return self._model

    @property
    def watched(self) -> list[WatchedSite]:
        """The attention calls that are watched."""
        return list(self._watched)

    @property
    def sites(self) -> list[Site]:
        """The attention calls being recorded, once the first forward call has shown their sizes."""
        return list(self._sites.values())

    @property
    def sink(self) -> Sink:
        """Where the maps go."""
        return self._sink

    def maps(self, *, stream: str | None = None, site: str | None = None) -> xarray.DataArray:
        """Return what was recorded into memory, as a labelled array.

        Parameters
        ----------
        stream
            Which, where the model has several: ``encoder``, ``decoder``, ``cross`` …
        site
            The name of one site, where their maps differ in size.

        Returns
        -------
        DataArray, float32 (row, layer, head, query, key)
            Layers and heads count from 1; along ``row`` lies all that was said of the samples.

        Raises
        ------
        RecordingError
            The maps went elsewhere, none came yet, or they do not fit into one array.
        """
        if not isinstance(self._sink, MemorySink):
            raise RecordingError(
                f"maps() returns what record(model) keeps in memory; these went into "
                f"{type(self._sink).__name__}: ask the store, open_store(...).select(...).maps()"
            )
        if self._watcher is not None:
            with self._timed("bookkeeping"):
                self._calls.close()
                with self._timed("queue"):
                    self._writing.wait()
                self._writing.raise_error()
        return self._sink.maps(stream=stream, site=site)

    def means(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the mean of every measure over the rows since the last call, for loggers.

        Returns
        -------
        dict
            Site's name → measure's name → float64 (h,).
        """
        with self._timed("bookkeeping"):
            self._calls.close()
            with self._timed("queue"):
                sums = self._writing.means()
        return {name: dict(zip(MEASURES, values.T, strict=True)) for name, values in sums.items()}

    def average(self, only: str | Sequence[str]) -> None:
        """Keep the mean map of every head of some sites along the way, for `mean_maps`.

        Parameters
        ----------
        only
            Patterns of site names.

        Raises
        ------
        RecordingError
            No site is called so.
        """
        patterns = [only] if isinstance(only, str) else only
        self._writing.averaged = frozenset(
            site.name
            for site in self._watched
            if any(fnmatch.fnmatchcase(site.name, pattern) for pattern in patterns)
        )
        if not self._writing.averaged:
            raise RecordingError(
                f"no site is called {some(list(patterns))}; watched are "
                f"{some([site.name for site in self._watched])}"
            )

    def mean_maps(self) -> dict[str, np.ndarray]:
        """Return the mean maps, float64 (h, q, s), over the rows since the last call.

        Returns
        -------
        dict
            Name of each site that `average` was told → its heads' maps.
        """
        with self._timed("bookkeeping"):
            self._calls.close()
            with self._timed("queue"):
                return self._writing.mean_maps()

    def report(self) -> Report:
        """Say what has been recorded so far; printed, it is a table."""
        writing = self._writing
        seconds = {**self._calls.stages.seconds, "write": writing.seconds_writing}
        if torch.cuda.is_initialized():
            seconds["device"] = self._calls.clock.seconds
        return Report(
            run=self._run,
            sites=len(self._watched),
            calls=self._calls.announced,
            calls_left_out=dict(self._choice.left_out),
            rows=writing.rows_written,
            absent=writing.rows_absent,
            rows_acknowledged=writing.rows_acknowledged,
            rows_skipped=writing.rows_skipped,
            rows_dropped=writing.rows_dropped,
            rows_lost=writing.rows_lost,
            maps_due=self._calls.due,
            maps_recorded=writing.maps_written,
            bytes=writing.nbytes,
            seconds=seconds,
            notes=tuple(self._watcher.graph_notes if self._watcher is not None else self._notes),
        )
