"""Where the time of the thread that calls the model goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("compute", "transfer", "queue", "bookkeeping")


class Stages:
    """Seconds spent by stage; a stage within another is counted once.

    Attributes
    ----------
    seconds
        By stage, see `tssan_viz.recording.report.Report.seconds`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._stage: str | None = None
        self._since = 0.0

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time of the block, less that of blocks within, towards a stage."""
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        before, self._stage, self._since = self._stage, stage, now
        try:
            yield
        finally:
            now = time.perf_counter()
            self.seconds[stage] += now - self._since
            self._stage, self._since = before, now
