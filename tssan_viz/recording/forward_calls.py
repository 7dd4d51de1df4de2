"""A watched model's forward calls: each announced, taken map by map, and queued for the sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tssan_viz.recording.announcements import Announcement, announce, some, unlabelled
from tssan_viz.recording.calls import AttentionCall, WatchedSite
from tssan_viz.recording.errors import MissingMaps, RecordingError, UnrecordableModel
from tssan_viz.recording.heads import ChosenHeads
from tssan_viz.recording.policies import Choice
from tssan_viz.recording.probabilities import exact_float32
from tssan_viz.recording.stages import Stages
from tssan_viz.recording.transfer import DeviceClock, HostCopy
from tssan_viz.recording.watching import Watcher
from tssan_viz.recording.writing import Batch, SiteMaps, Writing
from tssan_viz.site import Site

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
DescribeCall = Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Any] | None]


class ForwardCalls:
    """Keeps account of one model's forward calls while a recorder watches it.

    A fault that is found while the model runs is kept, since raised there it would break into the
    model's own forward call, and raised when the user next speaks to the recorder.

    Parameters
    ----------
    watched
        The sites; further calls of the same modules join them when the first forward call shows
        them.
    heads, choice
        Which heads, and which calls and samples, are recorded.
    sites
        Filled as the first forward call shows the sizes of the maps.
    writing
        Takes the batches that are whole.
    constants
        What holds for every row: phase, step, epoch, split.
    describe, unlabelled, pad_to
        As given to `tssan_viz.record`.
    rank
        Which of several processes this is.

    Attributes
    ----------
    watcher
        What watches the model at the moment; None outside the block.
    resting
        Whether calls and announcements are passed over until the user says otherwise.
    announced, recorded
        Calls that something was said of, or that were made without; those of them that the policy
        wants.
    due
        Maps that the recorded calls owe.
    """

    def __init__(
        self,
        watched: list[WatchedSite],
        heads: ChosenHeads,
        choice: Choice,
        sites: dict[str, Site],
        writing: Writing,
        constants: Mapping[str, Any],
        *,
        describe: DescribeCall | None,
        unlabelled: bool,
        pad_to: int | None,
        rank: int,
    ) -> None:
        self._watched = watched
        self._heads = heads
        self._choice = choice
        self._sites = sites
        self._writing = writing
        self._constants = constants
        self._describe = describe
        self._unlabelled = unlabelled
        self._pad_to = pad_to
        self._rank = rank

        self.watcher: Watcher | None = None
        self.resting = False
        self.stages = Stages()
        self.clock = DeviceClock()
        self.announced = self.recorded = self.due = 0
        self._listed = {site.name for site in watched}
        self._came: dict[str, WatchedSite] = {}
        # Whether a first call has shown how often each module attends.
        self._known = False
        self._batch: Batch | None = None
        self._left_out = False
        self._ever_called = False
        self._fault: Exception | None = None
        self._began: float | None = None
        self._bytes_of_a_call = 0

    # What the user's words become --------------------------------------------------------------

    def say(self, **what: Any) -> None:
        """Announce the next forward call; see `tssan_viz.recording.announcements.announce`."""
        self.close()
        if not self.resting:
            self._open(announce(**what))

    def answer(self, logits: Tensor) -> None:
        """Keep what the model answered in the forward call just made."""
        self.raise_fault()
        if self.watcher is not None and not self.watcher.awake:
            return
        batch = self._batch
        if batch is None or not batch.finished or batch.announcement is None:
            raise RecordingError(
                "predictions() belongs after the forward call that samples() announced"
            )
        n = len(batch.announcement.samples)
        if logits.ndim != 2 or logits.shape[0] != n:
            raise RecordingError(
                f"predictions() got logits of shape {tuple(logits.shape)}; {n} samples were "
                f"announced, so it would be ({n}, classes)"
            )
        with exact_float32(logits.device):
            confidence, predicted = torch.softmax(logits.detach().float(), dim=-1).max(dim=-1)
        batch.predictions = (HostCopy(predicted), HostCopy(confidence))

    def release(self) -> None:
        """Go on without the watcher, which is leaving the model."""
        self._hear_of_fault()
        self.watcher = None

    def rest(self, resting: bool) -> None:
        """Pass calls and announcements over from now on, or watch again."""
        self.resting = resting
        if self.watcher is not None:
            self.watcher.awake = not resting

    def close(self) -> None:
        """Queue the batch of the call that was made last."""
        self.raise_fault()
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if batch.running:  # the model raised, and its user has gone on
            self._give_up()
            return
        if not batch.finished:
            raise MissingMaps(
                f"samples() announced {self._named(batch)}, and the model did not run to its "
                f"end: {len(self._watched)} maps are missing. Call the model that record(...) "
                "was given, and not a copy of it or what torch.compile made of it"
            )
        self._bytes_of_a_call = max(self._bytes_of_a_call, batch.nbytes)
        queued = False
        with self.stages.timed("queue"):
            try:
                queued = self._writing.put(batch)
            finally:
                if not queued:
                    self.due -= len(self._watched)

    def abandon(self) -> int:
        """Drop the call at hand, and return how many of its rows are lost by that."""
        batch, self._batch = self._batch, None
        return batch.rows if batch is not None and batch.finished else 0

    def raise_fault(self) -> None:
        """Raise what went wrong since the user last spoke to the recorder."""
        self._hear_of_fault()
        if self._fault is not None:
            fault, self._fault, self._batch = self._fault, None, None
            raise fault
        self._writing.raise_error()

    def raise_what_never_came(self) -> None:
        """Raise if not every map that was due has been written."""
        if self._unlabelled and not self._ever_called:
            raise MissingMaps(
                "the model was not called while it was recorded: call the model that record(...) "
                "was given, and not a copy of it or what torch.compile made of it"
            )
        if self._writing.maps_written != self.due:
            raise MissingMaps(
                f"{self.due} maps were due ({len(self._watched)} sites × {self.recorded} announced "
                f"calls) and {self._writing.maps_written} came: an error was passed over while "
                "recording; let it through to see which call it was"
            )

    # What the watcher tells --------------------------------------------------------------------

    def began(self) -> None:
        """Hear that a forward call begins."""
        self._ever_called = True
        if self.resting:
            return
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            self._find_fault(
                UnrecordableModel(
                    "the model is being captured in a CUDA graph by hand, whose replays run no "
                    "Python that could record: capture it outside the block, or use "
                    'torch.compile(mode="reduce-overhead")'
                )
            )
            return
        if self.watcher is not None and self.watcher.threads > 1:
            self._find_fault(
                RecordingError(
                    "the model was called in two threads at the same time, and a recorder takes "
                    "one call after the other: give each thread a model and a recorder of its own"
                )
            )
            return
        batch = self._batch
        if batch is not None and batch.by_itself and not batch.finished:
            # The call that announced itself failed; this is another one.
            batch = self._batch = None
            self._give_up()
        announced = self._left_out or (batch is not None and not batch.finished)
        if self._describe is not None and not announced:
            self._describe_call()
        if self._left_out:
            self._left_out = False
            return
        batch = self._batch
        if batch is None or batch.finished:
            batch = self._open_unlabelled()
            if batch is None:
                return
        batch.running, batch.thread = True, threading.get_ident()
        batch.maps.clear()

    def deliver(self, call: AttentionCall) -> None:
        """Take the maps of one attention call."""
        try:
            batch = self._running()
            if batch is None:
                return  # the fault is known: nobody announced the call
            if batch.announcement is None:
                batch.announcement = unlabelled(self.announced, call.rows, self._rank)
            heads = self._heads.of(call.site.name)
            site = self._checked(batch.announcement, call, heads)
            self._came.setdefault(site.name, call.site)
            with self.stages.timed("compute"), self.clock.running(call.device):
                maps, measures = call.compute(None if heads is None else [h - 1 for h in heads])
                if (site.query, site.key) != (call.query, call.key):  # `pad` copies even for none
                    maps = F.pad(maps, (0, site.key - call.key, 0, site.query - call.query))
            with self.stages.timed("transfer"):
                valid = call.row_valid
                batch.maps[site.name] = SiteMaps(
                    HostCopy(maps), HostCopy(measures), None if valid is None else HostCopy(valid)
                )
            self._sites.setdefault(site.name, site)
        except Exception as error:
            self._find_fault(error)

    def ended(self) -> None:
        """Hear that a forward call has returned."""
        batch = self._running()
        if batch is None:
            return
        batch.running, batch.finished = False, True
        if not self._known:
            # How often a module attends within one call shows in the first one.
            further_calls = [site for name, site in self._came.items() if name not in self._listed]
            self._watched += further_calls
            self.due += len(further_calls)
        silent = [site.name for site in self._watched if site.name not in batch.maps]
        if silent:
            self._find_fault(
                MissingMaps(
                    f"{len(silent)} of {len(self._watched)} maps did not come from the call for "
                    f"{self._named(batch)}: not called was {some(silent)}. Watch the part of the "
                    "model that is used, or choose the sites that are with only="
                )
            )
        elif not self._known:
            self._known = True
            in_order = {site.name: self._sites[site.name] for site in self._watched}
            self._sites.clear()
            self._sites.update(in_order)

    def _running(self) -> Batch | None:
        """Return the batch of the call that this thread is in."""
        batch = self._batch
        if batch is None or not batch.running or batch.thread != threading.get_ident():
            return None
        return batch

    # From call to call -------------------------------------------------------------------------

    def _describe_call(self) -> None:
        """Announce the call that begins, from its arguments."""
        assert self._describe is not None
        assert self.watcher is not None
        assert self.watcher.arguments is not None
        try:
            with self.stages.timed("bookkeeping"):
                said = self._describe(*self.watcher.arguments)
                self.close()
                if said is None:
                    self._leave_out()
                else:
                    self._open(announce(**said))
            if self._batch is not None:
                self._batch.by_itself = True
        except Exception as error:
            self._find_fault(error)

    def _open_unlabelled(self) -> Batch | None:
        if not self._unlabelled:
            self._find_fault(
                RecordingError(
                    "the model was called without an announcement: call recorder.samples(...) "
                    "before every forward call in the block, make calls that need no record "
                    "outside it or in recorder.paused(), or record with unlabelled=True"
                )
            )
            return None
        with self.stages.timed("bookkeeping"):
            try:
                self.close()
                self._open(None)
            except Exception as error:
                self._find_fault(error)
        self._left_out = False
        if self._batch is not None:
            self._batch.by_itself = True
        return self._batch

    def _open(self, announcement: Announcement | None) -> None:
        """Begin the batch of a call; sleep through it if the policy does not want it."""
        assert self.watcher is not None
        if self._began is None:
            self._began = time.perf_counter()
        self.announced += 1
        constants = dict(self._constants)
        if constants["step"] is None:
            constants["step"] = self.announced if constants["phase"] == "train" else 0
        said = announcement or Announcement([], {})
        step = self._first(said, "step")
        spent = self.stages.total + self.clock.seconds
        elapsed = time.perf_counter() - self._began
        wanted = self._choice.wants(
            said,
            self.announced if step is None else step,
            probe=self._first(said, "phase") == "probe",
            bytes_so_far=self.recorded * self._bytes_of_a_call,
            bytes_of_a_call=self._bytes_of_a_call,
            share=spent / elapsed if elapsed else 0.0,
        )
        if not wanted:
            self._leave_out()
        else:
            self.watcher.awake = True
            self._left_out = False
            self._batch = Batch(announcement, constants)
            self.recorded += 1
            self.due += len(self._watched)

    def _first(self, said: Announcement, name: str) -> Any:
        """Return what holds for a call's first sample."""
        return said.columns.get(name, [self._constants[name]])[0]

    def _leave_out(self) -> None:
        """Sleep through the next forward call."""
        assert self.watcher is not None
        self.watcher.awake = False
        self._left_out = True

    def _give_up(self) -> None:
        """Forget a call in which the model raised; it is counted, and owes nothing."""
        self.recorded -= 1
        self.due -= len(self._watched)
        self._choice.left_out["failed"] += 1

    def _checked(
        self, announcement: Announcement, call: AttentionCall, heads: Sequence[int] | None
    ) -> Site:
        """Return the site of a call, if it is as it was announced and as it was before."""
        name = call.site.name
        if self._known and name not in self._sites:
            raise RecordingError(
                f"{name} attended in this call, and in the first call it did not: record calls "
                "that go other ways through the model as runs of their own, or choose with only="
            )
        if call.rows != announcement.rows:
            raise RecordingError(
                f"{name} attended over {call.rows} rows, and samples() announced "
                f"{announcement.named}: give axes and sizes as "
                "the model flattens them"
            )
        if heads is not None and max(heads) > call.heads:
            raise RecordingError(
                f"{name} has heads 1 to {call.heads}, and heads= asks for {list(heads)}"
            )
        count = call.heads if heads is None else len(heads)
        query, key = self._pad_to or call.query, self._pad_to or call.key
        if max(call.query, call.key) > max(query, key):
            raise RecordingError(
                f"{name} made maps of {call.query} × {call.key}, and pad_to={self._pad_to}: give "
                "the length of the longest sequence"
            )
        shape = (count, query, key)
        site = self._sites.get(name)
        if site is None:
            how = call.site.provenance
            if heads is not None:
                how += f"; heads {', '.join(map(str, heads))} of {call.heads}"
            return Site(
                name=name,
                layer=call.site.layer,
                heads=count,
                query=query,
                key=key,
                stream=call.site.stream,
                kind=call.site.kind,
                provenance=how,
                numbers=() if heads is None else tuple(heads),
            )
        if shape != (site.heads, site.query, site.key):
            raise RecordingError(
                f"{name} made maps of (heads, query, key) {shape}, after "
                f"{(site.heads, site.query, site.key)} before, and a run's maps have one shape: "
                "give pad_to= the length of the longest sequence, pad the batches to one length "
                "themselves, or record each shape as a run of its own"
            )
        return site

    def _named(self, batch: Batch) -> str:
        return some(batch.announcement.samples) if batch.announcement else f"call {self.announced}"

    def _hear_of_fault(self) -> None:
        if self.watcher is not None and self.watcher.fault is not None:
            self._find_fault(self.watcher.fault)
            self.watcher.fault = None

    def _find_fault(self, fault: Exception) -> None:
        if self._fault is None:
            self._fault = fault
