"""Several processes that train one network together, each on its share of every batch.

The process that was started is rank 0: it alone writes, shows the bar, and gets the result. The
others are started beside it and end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch

from tssan.errors import DataError

if TYPE_CHECKING:
    from lightning.pytorch.plugins.environments import LightningEnvironment


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together.

    Attributes
    ----------
    number
        Which, from 0.
    count
        How many there are.
    port
        Of this machine, at which they meet; 0 where there is one process.
    """

    number: int = 0
    count: int = 1
    port: int = 0

    def environment(self) -> LightningEnvironment:
        """Return what Lightning needs to know: that the processes are there, and which this is."""
        from lightning.pytorch.plugins.environments import LightningEnvironment

        rank = self

        class Started(LightningEnvironment):
            creates_processes_externally = property(lambda _: True)
            main_address = property(lambda _: "127.0.0.1")
            main_port = property(lambda _: rank.port)

            def local_rank(self) -> int:
                return rank.number

            def node_rank(self) -> int:
                return 0

        return Started()


def check_devices(devices: int, precision: str, batch_size: int) -> None:
    """Refuse what this machine, this PyTorch or the batch cannot give.

    Parameters
    ----------
    devices
        How many GPUs, or processes where there is no GPU.
    precision
        ``32``, ``bf16`` or ``fp16``.
    batch_size
        Sequences per step, of all devices together.

    Raises
    ------
    DataError
        Says what is missing and what would be right.
    """
    precisions = ("32", "bf16", "fp16")
    if precision not in precisions:
        raise DataError(
            f"precision {precision!r} does not exist; there are {', '.join(precisions)}"
        )
    gpus = torch.cuda.device_count()
    if precision == "fp16" and not gpus:
        raise DataError("fp16 needs a GPU, and this machine has none; give bf16 or 32")
    if devices < 1:
        raise DataError(f"{devices} devices cannot train; give at least 1")
    if devices == 1:
        return
    if not torch.distributed.is_available():
        raise DataError(
            f"{devices} devices train together through torch.distributed, which this PyTorch was "
            "built without; train on 1 device, or install another build"
        )
    if gpus and devices > gpus:
        raise DataError(f"{devices} devices were asked for, and this machine has {gpus} GPUs")
    if not gpus and not torch.distributed.is_gloo_available():
        raise DataError(
            f"{devices} processes without a GPU meet through gloo, which this PyTorch was built "
            "without; train on 1 device"
        )
    if devices > batch_size:
        raise DataError(
            f"a batch of {batch_size} sequences has no share for each of {devices} devices; "
            "give a larger batch_size, or fewer devices"
        )


@contextmanager
def started(count: int, work: Callable[..., object], arguments: tuple[Any, ...]) -> Iterator[Rank]:
    """Run ``work(rank, *arguments)`` in processes 1 to count − 1, and give the caller rank 0.

    Parameters
    ----------
    count
        How many ranks; 1 starts nothing.
    work, arguments
        Picklable; the caller does the same work as rank 0 within the context.

    Raises
    ------
    RuntimeError
        A process failed; with its traceback.
    """
    if count == 1:
        yield Rank()
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the threads of PyTorch
    port = _free_port()
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    processes, reports = [], []
    try:
        for number in range(1, count):
            report, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_run, args=(theirs, work, Rank(number, count, port), arguments), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            reports.append(report)
        for report in reports:
            if (failure := _read(report)) is not None:
                raise RuntimeError(f"a training process did not start:\n{failure}")
        try:
            yield Rank(0, count, port)
        except DataError:
            raise
        except Exception as error:
            # What this process saw is mostly that another one was gone.
            for report in reports:
                if report.poll(1) and (failure := _read(report)):
                    raise RuntimeError(f"another training process failed:\n{failure}") from error
            raise
        for process in processes:
            process.join(60)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in processes:
            process.kill()
            process.join()
        # Lightning sets both for as many processes.
        torch.set_num_threads(threads)
        if variable is None:
            os.environ.pop("OMP_NUM_THREADS", None)


def _run(
    report: Connection, work: Callable[..., object], rank: Rank, arguments: tuple[Any, ...]
) -> None:
    """Do the work of one rank; tell rank 0 that it began (None), and why it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; rank 0 decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report.send(None)
    try:
        work(rank, *arguments)
    except BaseException:
        report.send(traceback.format_exc())
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Leave no process behind when rank 0 is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _read(report: Connection) -> str | None:
    try:
        message: str | None = report.recv()
    except EOFError:
        return "it ended without a word"
    return message


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
