"""Kill writers at random moments while a reader looks on.

``python -m tests.store.kill_writers 50`` does so at 50, with one writer and with two at once.

Each writer opens its run, adds rows three at a time, says which are acknowledged, and closes;
SIGKILL meets it anywhere between the first look at the store and the last file that `close` merges.
After each kill the store is opened, and every acknowledged row compared with what was recorded.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.store.record_until_killed import SITES, maps_of, record
from tests.store.test_durability import check
from tssan_viz.store import AttentionStore, open_store
from tssan_viz.store.schema import decode
from tssan_viz.store.verification import verify

ROWS_PER_SESSION = 30
ROWS_PER_FLUSH = 3
LATEST = 2.2


class Reader(threading.Thread):
    """Reads all the time; a row it sees must have its maps, its measures and its video."""

    def __init__(self, path: Path, runs: Sequence[str]) -> None:
        super().__init__(name="reader")
        self._path, self._runs = path, runs
        self._over = threading.Event()
        self.readings = self.rows = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            kept = open_store(self._path)
            while not self._over.is_set():
                for store in (kept, open_store(self._path)):
                    self._read(store)
        except BaseException as error:
            self.error = error

    def _read(self, store: AttentionStore) -> None:
        for run in store.run_names():
            selection = store.select(run=run)
            rows = selection.rows()
            self.readings += 1
            self.rows = max(self.rows, len(rows))
            if rows.empty:
                continue
            # The newest rows are those that could be half there.
            part = store.select(run=run, sample=rows["sample"].tolist()[-6:])
            values = part.maps().values
            for i, sample in enumerate(part.rows()["sample"]):
                recorded = maps_of(int(sample[1:]))
                for layer, site in enumerate(SITES):
                    np.testing.assert_array_equal(values[i, layer], decode(recorded[site.name])[0])
            lines = store.measures(run)
            counts = lines.groupby("row_id").size()
            assert (counts.reindex(rows["row_id"]) == 4).all(), "a row has not all its measures"
            store.sample(rows["sample"].iloc[-1], run)

    def stop(self) -> None:
        self._over.set()
        self.join()
        if self.error is not None:
            raise self.error


@dataclass
class Killed:
    """What came of it."""

    kills: int = 0
    ended: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    readings: int = 0

    def __str__(self) -> str:
        runs = "; ".join(
            f"run {run!r}: {self.acknowledged[run]} rows acknowledged, {self.stored[run]} there"
            for run in self.stored
        )
        return (
            f"{self.kills} kills ({self.ended} more sessions ended before theirs), {runs}; every "
            f"acknowledged row was there and right after each; {self.readings} readings of a "
            "reader meanwhile saw whole rows only; verify found nothing"
        )


def kill_often(path: Path, kills: int, writers: int, seed: int = 0) -> Killed:
    """Kill writers of as many runs, started together, until so many were killed at work."""
    rng = np.random.default_rng(seed)
    runs = [chr(ord("a") + n) for n in range(writers)]
    found = Killed(acknowledged=dict.fromkeys(runs, 0))
    open_store(path, create=True)
    reader = Reader(path, runs)
    reader.start()
    try:
        while found.kills < kills:
            processes = {run: _start(path, run, found.acknowledged[run]) for run in runs}
            for process in processes.values():
                assert process.stdout is not None
                assert process.stdout.readline() == "begin\n"
            time.sleep(rng.uniform(0, LATEST))
            for process in processes.values():
                process.send_signal(signal.SIGKILL)
            for run, process in processes.items():
                assert process.stdout is not None
                said = process.stdout.read().split()
                killed = process.wait() == -signal.SIGKILL
                assert killed or said[-1] == "done", "a writer failed by itself"
                found.kills += killed
                found.ended += not killed
                numbers = [int(word) for word in said if word.isdigit()]
                found.acknowledged[run] = max([found.acknowledged[run], *numbers])
            for run in runs:
                if run in open_store(path).run_names():
                    check(path, run, found.acknowledged[run])
            if reader.error is not None:
                raise reader.error
        for run in runs:
            upto = found.acknowledged[run] + ROWS_PER_SESSION
            with contextlib.redirect_stdout(None):
                record(path, run, upto, ROWS_PER_FLUSH, first=found.acknowledged[run])
            found.stored[run] = check(path, run, upto)
            found.acknowledged[run] = upto
    finally:
        reader.stop()
    found.readings = reader.readings
    assert verify(open_store(path)).damaged == []
    return found


def _start(path: Path, run: str, first: int) -> subprocess.Popen[str]:
    upto = first + ROWS_PER_SESSION
    arguments = f"Path({str(path)!r}), {run!r}, {upto}, {ROWS_PER_FLUSH}, first={first}"
    script = (
        "from pathlib import Path\n"
        "from tests.store.record_until_killed import record\n"
        "print('begin', flush=True)\n"
        f"record({arguments})\n"
        "print('done', flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    for writers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found = kill_often(Path(folder, "store"), int(sys.argv[1]), writers)
            print(f"{writers} at once, {time.monotonic() - began:.0f} s: {found}", flush=True)
