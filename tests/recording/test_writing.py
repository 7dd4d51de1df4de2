"""The thread that writes: a full queue, a sink that fails, a block that is broken off."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.recording.support import Model
from tssan_viz.recording import RecordingError, record, writing
from tssan_viz.store import open_store


class Slow:
    """A sink that writes nothing until it is let."""

    def __init__(self):
        self.go = threading.Event()
        self.rows = []

    def begin(self, sites, info):
        pass

    def write(self, block):
        assert self.go.wait(20)
        self.rows += block.rows["sample"]

    def end(self, error):
        pass


def call(recorder, model, name):
    recorder.samples(sample=[name])
    model(torch.randn(1, 6, 8))


BYTES_OF_A_CALL = 2 * 2 * 6 * 6 * 2 + 2 * 2 * 4 * 4


def test_sample_leaves_out_what_has_no_room_and_counts_it():
    sink, model = Slow(), Model()
    with record(model, sink, when_full="sample", queue_bytes=2 * BYTES_OF_A_CALL) as recorder:
        for i in range(8):
            call(recorder, model, f"{i}")
        sink.go.set()
    report = recorder.report()
    assert sink.rows == ["0", "1"]
    assert (report.rows, report.rows_dropped, report.calls) == (2, 6, 8)
    assert report.maps_recorded == report.maps_due == 4
    assert "6 dropped: the queue was full" in str(report)


def test_error_raises_and_says_what_would_help():
    sink, model = Slow(), Model()

    def overflow():
        with record(model, sink, when_full="error", queue_bytes=BYTES_OF_A_CALL) as recorder:
            try:
                for i in range(3):
                    call(recorder, model, f"{i}")
            finally:
                sink.go.set()

    with pytest.raises(RecordingError, match=r"slower than the model.*queue_bytes="):
        overflow()
    assert sink.rows == ["0"]


def test_block_waits_and_loses_nothing():
    sink, model = Slow(), Model()
    with record(model, sink, queue_bytes=BYTES_OF_A_CALL) as recorder:
        call(recorder, model, "0")
        call(recorder, model, "1")
        threading.Timer(0.2, sink.go.set).start()
        for i in range(2, 6):
            call(recorder, model, f"{i}")
    assert sink.rows == list("012345")
    assert recorder.report().seconds["queue"] > 0.1
    assert recorder.report().rows_dropped == 0


def test_an_unknown_answer_to_a_full_queue_is_refused():
    with pytest.raises(RecordingError, match="block, sample, error"):
        record(Model(), when_full="wait")


def test_what_the_sink_raises_comes_out_of_the_next_call_and_is_counted():
    model = Model()

    def fail(sites, block):
        if block.rows["sample"] == ["1"]:
            raise OSError("the disk is gone")

    def go_on():
        with record(model, fail) as recorder:
            kept.append(recorder)
            for i in range(50):
                call(recorder, model, f"{i}")
                if i == 4:
                    recorder.flush()

    kept = []
    with pytest.raises(OSError, match="the disk is gone"):
        go_on()
    report = kept[0].report()
    assert report.rows == 1
    assert report.rows_lost >= 1
    assert report.calls <= 5


def test_what_the_sink_raises_comes_out_at_the_end_too():
    model = Model()

    def fail(sites, block):
        raise OSError("the disk is gone")

    def once():
        with record(model, fail) as recorder:
            call(recorder, model, "0")

    with pytest.raises(OSError, match="the disk is gone"):
        once()


def test_an_exception_says_how_much_is_not_safe():
    sink, model = Slow(), Model()
    sink.acknowledged = 1

    def break_off():
        with record(model, sink) as recorder:
            for name in "abc":
                call(recorder, model, name)
            sink.go.set()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        break_off()
    # What the model answered for c might still have come: it is as unfinished as the block.
    assert sink.rows == ["a", "b"]
    assert caught.value.__notes__ == ["1 rows of recording are safe, 2 that were recorded are not"]


SCRIPT = """
import sys, torch
from tests.recording.support import Model
from tssan_viz.recording import record

torch.manual_seed(0)
model = Model()
with record(model, sys.argv[1], run="r") as recorder:
    for i in range(100_000):
        recorder.samples(sample=[f"{i}"])
        model(torch.randn(1, 6, 8))
        if i == 20:
            print("begun", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_what_was_whole_in_the_store(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "s")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), error
    rows = open_store(tmp_path / "s").rows("r")
    assert len(rows) >= 19
    assert f"{len(rows)} rows of r are safe" in error or "are not" not in error
    assert sorted(map(int, rows["sample"])) == list(range(len(rows)))


@pytest.mark.parametrize("when_full", ["block", "sample"])
def test_ctrl_c_at_any_call_does_not_hang_the_recording(when_full):
    """A signal is seen where a function begins or has returned, that of a lock included."""
    files = {writing.__file__, threading.__file__, queue.__file__}

    def interrupted(place):
        left = place

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event in ("call", "return"):
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        def run():
            queued = {"when_full": when_full, "queue_bytes": BYTES_OF_A_CALL}
            try:
                with record(model, lambda *_: time.sleep(0.001), **queued) as recorder:
                    for i in range(4):
                        recorder.samples(sample=[f"{i}"])
                        sys.settrace(trace)
                        model(torch.randn(1, 6, 8))
                        recorder.flush()
                        sys.settrace(None)
            except KeyboardInterrupt:
                pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(120)
        assert not thread.is_alive(), f"hangs when interrupted at place {place}"
        return left <= 0

    model, places = Model(), 0
    while interrupted(places + 1):
        places += 1
    assert places > 20


def test_a_handler_of_somebody_elses_is_left_alone():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with record(Model()):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with record(Model()):
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
