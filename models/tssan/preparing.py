"""Prepare a data set from many files: with all cores, and on from where an interruption left it.

Files are read in parts, each by one process, and a part that is read is kept in a hidden folder
beside the one to be written. When all are there they are put together in their order, so that the
result is the same whatever the number of processes. If the work is interrupted, the next try finds
the parts, and reads only what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tssan.dataset import SkeletonDataset, prepare_parts, refuse_to_overwrite
from tssan.errors import DataError, LeftOut
from tssan.parts import Part, lay_out, read_part
from tssan.skeletons.annotations import Annotations
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.files import SkeletonFile, Skipped
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import Reader

FILES_PER_PART = 64
ALONE_SECONDS = 3.0  # what is read in less is read before other processes have even started


class BadFile(DataError):
    """A file cannot be read, and files that cannot be read were not to be left out."""


def prepare_files(
    files: Sequence[SkeletonFile],
    read: Reader,
    out: str | os.PathLike[str],
    *,
    name: str,
    classes: Sequence[ActionClass],
    protocols: Sequence[Protocol],
    skipped: Sequence[Skipped] = (),
    skip_bad: bool = False,
    processes: int | None = None,
    advance: Callable[[int], object] = lambda files: None,
) -> SkeletonDataset:
    """Read files and write them as a prepared data set; see `tssan.dataset.prepare`.

    Parameters
    ----------
    files
        In the order of the data set.
    read
        Reads one; sent to other processes, so it must be a function of a module, or a
        `functools.partial` of one.
    out
        The folder to write.
    name, classes, protocols
        As in `tssan.dataset.prepare`.
    skipped
        What was left out before; what the reader leaves out is added.
    skip_bad
        Leave out files that cannot be read.
    processes
        How many read at once; by default as many as there are cores, once there is enough to read.
    advance
        Told how many more files are read; those that an earlier try read count at once.

    Returns
    -------
    SkeletonDataset
        The same, byte for byte, for any number of processes and of interruptions.

    Raises
    ------
    BadFile
        The first file that cannot be read, without `skip_bad`.
    DataError
        As `tssan.dataset.prepare`; or another process is preparing the same folder.
    KeyboardInterrupt
        As it came; parts that were read are kept.
    """
    folder = Path(os.path.realpath(out))
    refuse_to_overwrite(folder, name)
    batches = [files[i : i + FILES_PER_PART] for i in range(0, len(files), FILES_PER_PART)]
    with _kept(folder, _plan(files, read, name)) as kept:
        paths = [kept / f"part-{number:06d}.npz" for number in range(len(batches))]
        due = []
        for batch, path in zip(batches, paths, strict=True):
            if path.exists():
                advance(len(batch))
            else:
                due.append((batch, path))

        def done(number: int, bad: Sequence[Skipped]) -> None:
            if bad and not skip_bad:
                raise BadFile(bad[0].reason)
            advance(number)

        _read_all(due, read, processes, done)
        left_out = list(skipped)

        def parts() -> Iterator[Part]:
            for path in paths:
                part = Part.load(path)
                if part.bad and not skip_bad:  # read by an earlier try, which left such files out
                    raise BadFile(part.bad[0].reason)
                left_out.extend(part.left_out + part.bad)
                yield part

        return prepare_parts(
            parts(),
            out,
            name=name,
            classes=classes,
            protocols=protocols,
            skipped=left_out,
            unfinished=kept / "whole",
        )


def prepare_annotations(
    annotations: Annotations,
    out: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    advance: Callable[[int], object] = lambda sequences: None,
) -> SkeletonDataset:
    """Write the sequences of one file as a prepared data set.

    Such a file is read from its beginning to its end, by one process; nothing of it is kept when
    that is interrupted.

    Parameters
    ----------
    annotations
        The open file.
    out, skip_bad
        As in `prepare_files`.
    advance
        Told of each sequence.

    Raises
    ------
    BadFile
        The first sequence that is damaged, without `skip_bad`.
    DataError
        As `tssan.dataset.prepare`.
    """
    skipped: list[Skipped] = []

    def parts() -> Iterator[Part]:
        for position, sample in enumerate(annotations.samples):
            try:
                yield lay_out([annotations[position]])
            except DataError as error:
                if not skip_bad and not isinstance(error, LeftOut):
                    raise BadFile(str(error)) from None
                skipped.append(Skipped(sample, str(error)))
            advance(1)

    return prepare_parts(
        parts(),
        out,
        name=annotations.name,
        classes=annotations.classes,
        protocols=annotations.protocols,
        skipped=skipped,
        subject_names=annotations.subject_names,
    )


def kept_folder(out: str | os.PathLike[str]) -> Path:
    """Return where parts are kept while `out` is being prepared."""
    folder = Path(os.path.realpath(out))
    return folder.with_name(f".{folder.name}.preparing")


def _plan(files: Sequence[SkeletonFile], read: Reader, name: str) -> str:
    """Return what must be the same if parts that were read before are to be used."""
    sha = hashlib.sha256()
    for file in files:
        sha.update(json.dumps([file.name, file.stamp]).encode())
    about = {
        "data set": name,
        "files": len(files),
        "sha256": sha.hexdigest(),
        "reader": _named(read),
        "files per part": FILES_PER_PART,
        "version": version("tssan-viz"),
    }
    return json.dumps(about, indent=1) + "\n"


def _named(read: Reader) -> str:
    """Return the name of a function, and of a `functools.partial` what it was given too."""
    function = getattr(read, "func", read)
    given = [getattr(read, "args", ()), sorted(getattr(read, "keywords", {}).items())]
    return f"{function.__module__}.{function.__qualname__} {given}"


@contextmanager
def _kept(folder: Path, plan: str) -> Iterator[Path]:
    """Give the folder in which parts are kept: emptied if another plan filled it, gone at the end.

    After an error or an interruption it stays if there is a part in it.
    """
    kept = kept_folder(folder)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        lock = open(kept / "lock", "w")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{folder} is being prepared by another process") from None
        worth_keeping = False
        try:
            written = kept / "plan.json"
            if not (written.exists() and written.read_text(encoding="utf-8") == plan):
                for old in kept.glob("part-*"):
                    old.unlink()
                written.write_text(plan, encoding="utf-8")
            shutil.rmtree(kept / "whole", ignore_errors=True)
            try:
                yield kept
            except BaseException:
                worth_keeping = len(list(kept.glob("part-*.npz"))) > 1
                raise
        except OSError as error:
            raise DataError(f"cannot write {folder}: {error.strerror or error}") from error
        finally:
            if not worth_keeping:
                shutil.rmtree(kept, ignore_errors=True)


def _read_all(
    due: Sequence[tuple[Sequence[SkeletonFile], Path]],
    read: Reader,
    processes: int | None,
    done: Callable[[int, Sequence[Skipped]], None],
) -> None:
    """Read every batch of files into its part; `done` hears of each in turn."""
    begun = time.monotonic()
    left = list(due)
    while left and processes in (None, 1):
        if processes is None and time.monotonic() > begun + ALONE_SECONDS:
            break
        files, path = left.pop(0)
        done(len(files), read_part(files, read, path))
    if not left:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Fresh processes: copies of this one would share its open archives and its locks.
    pool = ProcessPoolExecutor(
        min(processes or cores or 1, len(left)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
    )
    try:
        with _interrupts_held_back():
            futures = [pool.submit(read_part, files, read, path) for files, path in left]
        for (files, _), future in zip(left, futures, strict=True):
            done(len(files), future.result())
    except BrokenProcessPool:
        raise DataError(
            "a process that read files was ended from outside, perhaps for want of memory; what "
            "was read is kept: the same command goes on from there"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let processes that start here be deaf to Ctrl-C; it is for the one that started them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, whatever ended that."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
