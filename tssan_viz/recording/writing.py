"""The way from a finished forward call to the sink: a bounded queue and a thread that writes."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np

from tssan_viz.recording.announcements import Announcement, rows_of
from tssan_viz.recording.errors import RecordingError
from tssan_viz.recording.probabilities import MEASURES
from tssan_viz.recording.sinks import Block, Sink
from tssan_viz.recording.transfer import HostCopy
from tssan_viz.site import Site

WHEN_FULL = ("block", "sample", "error")


@dataclass
class SiteMaps:
    """What came of one attention call: on its way to the host."""

    maps: HostCopy
    measures: HostCopy
    row_valid: HostCopy | None


@dataclass
class Batch:
    """One forward call, from its announcement until its rows are in the sink."""

    announcement: Announcement | None
    constants: Mapping[str, Any]
    by_itself: bool = False  # announced by the call itself, not by the user before it
    running: bool = False
    thread: int = 0  # which calls the model
    finished: bool = False
    maps: dict[str, SiteMaps] = field(default_factory=dict)
    predictions: tuple[HostCopy, HostCopy] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that its copies hold on the host."""
        return sum(copy.nbytes for copy in self._copies())

    @property
    def rows(self) -> int:
        """Rows that it has at most: who is absent is known when the mask has arrived."""
        if self.announcement is None:
            return 0
        kept = self.announcement.kept
        share = 1.0 if kept is None else float(kept.mean())
        return round(self.announcement.rows * share)

    def _copies(self) -> Iterator[HostCopy]:
        for site in self.maps.values():
            yield site.maps
            yield site.measures
        yield from self.predictions or ()


class _Bell:
    """Rung once by one thread, waited for by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


class Writing:
    """Hands batches to a sink in a thread of its own, in the order in which they came.

    Ctrl-C may come at any byte code of the thread that calls the model, and `threading.Condition`,
    `Event`, `Thread.start` and `queue.Queue` can then keep a lock for ever, as their ``__enter__``
    is Python: the recording would hang at its end. So that thread takes plain locks by ``with``
    alone, puts into a `SimpleQueue`, both of which are one step to a signal, and waits on bells.

    Parameters
    ----------
    sink
        See `tssan_viz.recording.sinks`.
    info
        What is to be remembered of the run.
    sites
        Filled by the recorder as forward calls show the sizes of the maps; complete before the
        first batch is put.
    queue_bytes
        How much may wait; a batch that is larger waits alone.
    when_full
        ``block``: wait for room. ``sample``: leave the batch out and count it. ``error``: raise.
    """

    def __init__(
        self,
        sink: Sink,
        info: Mapping[str, Any],
        sites: Mapping[str, Site],
        *,
        queue_bytes: int,
        when_full: str,
    ) -> None:
        if when_full not in WHEN_FULL:
            raise RecordingError(f"when_full={when_full!r} would be one of {', '.join(WHEN_FULL)}")
        self._sink = sink
        self._info = info
        self._sites = sites
        self._queue_bytes = queue_bytes
        self._when_full = when_full

        self._queue: SimpleQueue[Batch | _Bell | None] = SimpleQueue()  # None: the end
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._waiting: list[_Bell] = []  # rung when there is more room
        self._ended: _Bell | None = None  # once there is a thread
        self._begun = False
        self._error: BaseException | None = None
        self._broken = False
        self._stored_samples: set[str] = set()
        self._sums: dict[str, tuple[np.ndarray, int]] = {}
        self._map_sums: dict[str, tuple[np.ndarray, int]] = {}
        self.averaged: frozenset[str] = frozenset()

        self.rows_written = self.rows_absent = self.maps_written = self.nbytes = 0
        self.rows_dropped = self.rows_lost = 0
        self.seconds_waiting = self.seconds_writing = 0.0

    # What the recorder's thread calls ----------------------------------------------------------

    def put(self, batch: Batch) -> bool:
        """Queue a batch; False if there was no room and the policy is to leave it out.

        Raises
        ------
        RecordingError
            There was no room and the policy is ``error``.
        """
        size = batch.nbytes
        while True:
            with self._lock:
                if self._broken:
                    self.rows_lost += batch.rows
                    return True
                if self._has_room(size):
                    self._start()
                    self._queue.put(batch)
                    self._waiting_bytes += size
                    return True
                if self._when_full == "sample":
                    self.rows_dropped += batch.rows
                    return False
                if self._when_full == "error":
                    self.rows_dropped += batch.rows
                    raise RecordingError(
                        f"{self._waiting_bytes / 2**20:.0f} MB of maps wait to be written, and "
                        f"the queue holds {self._queue_bytes / 2**20:.0f} MB: the sink is slower "
                        "than the model. Record less often (every=, only=), give a larger "
                        "queue_bytes=, or let when_full= be 'block' or 'sample'"
                    )
                room = _Bell()
                self._waiting.append(room)
            self._wait_for(room)

    def lose(self, rows: int) -> None:
        """Count rows that never got here."""
        with self._lock:
            self.rows_lost += rows

    def wait(self) -> None:
        """Return when all that was put has been handed to the sink."""
        if self._ended is None:
            return
        done = _Bell()
        self._queue.put(done)
        self._wait_for(done)

    def flush(self) -> None:
        """Return when all that was put is safe."""
        self.wait()
        self.raise_error()
        if self._begun and hasattr(self._sink, "flush"):
            self._sink.flush()

    def raise_error(self) -> None:
        """Raise what the sink raised since the last call."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self, error: BaseException | None, before_end: Callable[[], None]) -> None:
        """Write what waits, stop the thread and end the sink; then raise what went wrong.

        `before_end` is called when everything has been counted, and the sink is still open.
        """
        try:
            self.wait()
        finally:
            if self._ended is not None:
                self._queue.put(None)
                self._ended.wait()
                self._ended = None
            with self._lock:
                late, self._error = self._error, None
            before_end()
            if self._begun:
                self._begun = False
                try:
                    self._sink.end(error or late)
                except BaseException as second:
                    if late is None:
                        raise
                    late.add_note(f"and at the end: {second}")
        if late is not None:
            raise late

    @property
    def rows_acknowledged(self) -> int:
        """Rows that are safe."""
        return getattr(self._sink, "acknowledged", self.rows_written)

    @property
    def rows_skipped(self) -> int:
        """Rows that the sink held already, from an earlier recording."""
        return getattr(self._sink, "skipped", 0)

    def means(self) -> dict[str, np.ndarray]:
        """Return each site's measures (h, measure), the mean over rows since the last call."""
        self.wait()
        with self._lock:
            sums, self._sums = self._sums, {}
        return {name: total / count for name, (total, count) in sums.items()}

    def mean_maps(self) -> dict[str, np.ndarray]:
        """Return the mean maps (h, q, s) of the sites in `averaged`, since the last call."""
        self.wait()
        with self._lock:
            sums, self._map_sums = self._map_sums, {}
        return {name: total / count for name, (total, count) in sums.items()}

    # The thread --------------------------------------------------------------------------------

    def _has_room(self, size: int) -> bool:
        return not self._waiting_bytes or self._waiting_bytes + size <= self._queue_bytes

    def _wait_for(self, bell: _Bell) -> None:
        start = time.perf_counter()
        bell.wait()
        self.seconds_waiting += time.perf_counter() - start

    def _start(self) -> None:
        if self._ended is None:
            self._ended = ended = _Bell()
            # The interpreter does not wait for such a thread, so that a sink that hangs cannot keep
            # it from ending.
            try:
                _thread.start_new_thread(self._run, (ended,))
            except RuntimeError:  # no more threads
                self._ended = None
                raise

    def _run(self, ended: _Bell) -> None:
        try:
            self._take()
        finally:
            ended.ring()

    def _take(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, _Bell):
                item.ring()
                continue
            size, rows = item.nbytes, item.rows
            start = time.perf_counter()
            try:
                if self._broken:
                    with self._lock:
                        self.rows_lost += rows
                else:
                    self._write(item)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                    if not _may_retry(error):
                        self._broken = True
                        self.rows_lost += rows
            finally:
                self.seconds_writing += time.perf_counter() - start
                del item
                with self._lock:
                    self._waiting_bytes -= size
                    waiting, self._waiting = self._waiting, []
                for bell in waiting:
                    bell.ring()

    def _write(self, batch: Batch) -> None:
        announcement = batch.announcement
        assert announcement is not None
        keep = np.ones(announcement.rows, bool)
        if announcement.present is not None:
            keep &= announcement.present.numpy().reshape(-1)
        valid = [site.row_valid.numpy() for site in batch.maps.values() if site.row_valid]
        if valid:
            keep &= np.logical_or.reduce(valid)
        absent = int((~keep).sum())
        if announcement.kept is not None:
            place = announcement.axes.index("n")
            samples = np.indices(announcement.sizes)[place].reshape(-1)
            keep &= announcement.kept[samples]
        predictions = None
        if batch.predictions is not None:
            predicted, confidence = batch.predictions
            predictions = predicted.numpy(), confidence.numpy()
        rows = rows_of(announcement, keep, batch.constants, predictions)
        maps, measures = {}, {}
        for name in self._sites:
            site = batch.maps[name]
            maps[name], measures[name] = site.maps.numpy(), site.measures.numpy()
            if not keep.all():
                maps[name], measures[name] = maps[name][keep], measures[name][keep]
            if self._sites[name].kind == "softmax":
                _refuse_nan(self._sites[name], measures[name], rows)
        taken = False
        try:
            if keep.any():
                self._hand_over(announcement, rows, maps, measures)
            taken = True
        except BaseException as error:
            taken = _may_retry(error)
            raise
        finally:
            if taken:
                self.rows_written += int(keep.sum())
                self.rows_absent += absent
                self.maps_written += len(maps)
                self.nbytes += sum(m.nbytes for m in maps.values())

    def _hand_over(
        self,
        announcement: Announcement,
        rows: dict[str, list[Any]],
        maps: dict[str, np.ndarray],
        measures: dict[str, np.ndarray],
    ) -> None:
        if not self._begun:
            self._sink.begin(tuple(self._sites.values()), self._info)
            self._begun = True
        fresh = {s.sample: s for s in announcement.stored if s.sample not in self._stored_samples}
        by_measure = {
            measure: {name: values[:, :, i] for name, values in measures.items()}
            for i, measure in enumerate(MEASURES)
        }
        self._stored_samples.update(fresh)
        with self._lock:
            for name, values in measures.items():
                total, count = self._sums.get(name, (np.zeros(values.shape[1:]), 0))
                self._sums[name] = (total + values.sum(0), count + len(values))
            for name in self.averaged & maps.keys():
                total, count = self._map_sums.get(name, (np.zeros(maps[name].shape[1:]), 0))
                self._map_sums[name] = (
                    total + maps[name].sum(0, dtype=np.float64),
                    count + len(maps[name]),
                )
        skipped = self.rows_skipped
        self._sink.write(Block(rows, maps, by_measure, tuple(fresh.values())))
        if announcement.nameless and self.rows_skipped > skipped:
            raise RecordingError(
                f"there is a {rows['sample'][0]!r} in the run already, of another recording in "
                "which nothing was said of the calls either: give run= another name, or say with "
                "samples() or describe= what is in them"
            )


def _may_retry(error: BaseException) -> bool:
    """Whether the sink keeps what it was given: a full disk may have room again."""
    return getattr(error, "may_retry", False)


def _refuse_nan(site: Site, measures: np.ndarray, rows: Mapping[str, list[Any]]) -> None:
    entropy = measures[:, :, MEASURES.index("entropy")]
    if np.isfinite(entropy).all():
        return
    r, h = np.argwhere(~np.isfinite(entropy))[0]
    raise RecordingError(
        f"{site.name} attended with probabilities that are no numbers: sample {rows['sample'][r]}, "
        f"segment {rows['segment'][r]}, person {rows['person'][r]}, head {site.numbers[h]}. Its "
        "queries or keys are NaN or infinite; if the person is not there, say so with present="
    )
