"""SIGTERM as an exception, so that what was recorded before it is kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Termination:
    """Lets SIGTERM raise SystemExit for a while, where it would end the process at once.

    A handler of somebody else's is left alone, and so are threads other than the main one, which
    cannot have handlers.
    """

    def __init__(self) -> None:
        self._caught = False

    def catch(self) -> None:
        """Begin."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)
            self._caught = True

    def release(self) -> None:
        """Leave SIGTERM as it was found."""
        if self._caught:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._caught = False

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self._caught:
            raise SystemExit(128 + number)
        # Lightning puts back what it found in the block, after the block has ended.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
