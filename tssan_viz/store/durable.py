"""What makes written files survive: fsync, locks that a dying process gives back, whole files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tssan_viz.errors import UserError
from tssan_viz.store.claims import WriterClaim
from tssan_viz.store.places import BucketPath, Place

LANCE_ENDS_WITH = b"LANC"
_HINT = "latest_version_hint.json"
_SYNCING = ThreadPoolExecutor(8, thread_name_prefix="fsync")


def sync_file(path: Path) -> None:
    """Return when the file's (or folder's) content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Place, content: str | bytes) -> None:
    """Write a small file so that a reader, or a restart, sees all of it or nothing."""
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    sync_file(scratch)
    os.replace(scratch, path)
    sync_file(path.parent)


class FolderSync:
    """Makes durable what was added to a Lance dataset since the last call (Lance never does).

    In a bucket it is durable already.
    """

    def __init__(self, dataset: Place) -> None:
        self._dataset = dataset
        self._synced: dict[str, set[str]] = {}

    def sync(self) -> None:
        """Return when the dataset's files, and the folders that lead to them, are on the disk."""
        self.begin()()

    def begin(self) -> Callable[[], None]:
        """Begin with what is there now; return what waits until it is on the disk."""
        if isinstance(self._dataset, BucketPath):
            return lambda: None
        fresh: list[Path] = []
        folders: list[Path] = []
        seen: dict[str, set[str]] = {}
        first = not self._synced
        # A recording of hours has thousands of files: only new ones become paths.
        for folder, folders_within, names in os.walk(self._dataset):
            if "_digests" in folders_within:
                # A digest that a power loss takes costs a check, not a row.
                folders_within.remove("_digests")
            there = set(names)
            new = there - (self._synced.get(folder, set()) - {_HINT})
            if new:
                fresh += [Path(folder, name) for name in new]
                folders.append(Path(folder))
            seen[folder] = there
        if first:
            folders += [self._dataset, *_up_to_the_store(self._dataset)]
        # At once: a journal writes what comes together in one go.
        files = _SYNCING.map(self._sync_if_there, fresh)

        def wait() -> None:
            list(files)
            list(_SYNCING.map(sync_file, folders))
            self._synced = seen

        return wait

    @staticmethod
    def _sync_if_there(path: Path) -> None:
        # Another process may have cleaned up an old version between the listing and now.
        with suppress(FileNotFoundError):
            sync_file(path)


def _up_to_the_store(dataset: Path) -> Iterator[Path]:
    """Go through the folders above; those outside the store may not even be readable."""
    for folder in dataset.parents[:3]:
        yield folder
        if (folder / "store.json").exists():
            return


def is_whole(path: Place, size: int | None = None) -> bool:
    """Return whether a Lance file has its end, and the size that its manifest states."""
    try:
        length = path.stat().st_size
        if isinstance(path, BucketPath):
            return not size or length == size
        if length < len(LANCE_ENDS_WITH) or (size and length != size):
            return False
        with path.open("rb") as file:
            file.seek(-len(LANCE_ENDS_WITH), os.SEEK_END)
            return file.read() == LANCE_ENDS_WITH
    except FileNotFoundError:
        return False


@contextmanager
def turn(lock: Place, *, alone: bool) -> Iterator[None]:
    """Wait until nobody is alone with what the lock guards, or, to be alone, until nobody is there.

    The lock does not outlive its process. In a bucket its only writer is alone anyway.
    """
    if isinstance(lock, BucketPath):
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


class RunLock:
    """Lets one process at a time write a run's rank; the lock does not outlive its process.

    In a bucket, where there are no locks, one at a time writes the store.
    """

    def __init__(self, folder: Place, run: str, rank: int = 0) -> None:
        self._claim: WriterClaim | None = None
        self._file: IO[str] | None = None
        if isinstance(folder, BucketPath):
            self._claim = WriterClaim(folder.parent.parent)
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / (f".lock-rank{rank}" if rank else ".lock")).open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            who = f"another process of rank {rank}" if rank else "another process"
            raise UserError(
                f"run {run!r} is being recorded by {who}; wait for it, record under another name, "
                "or give each of several processes a rank of its own"
            ) from None

    def holds(self) -> bool:
        """Return whether it still keeps others out: a claim lapses when its process was halted."""
        return self._claim is None or self._claim.holds()

    def release(self) -> None:
        """Let others write the run."""
        if self._claim is not None:
            self._claim.release()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def nobody_writes(store: Place, *, besides: Place | None = None) -> bool:
    """Return whether no run of a store is being recorded at this moment.

    For a bucket only its writer may ask: it is alone.

    Parameters
    ----------
    store
        The store's folder.
    besides
        The folder of a run that does not count: the caller's own.
    """
    if isinstance(store, BucketPath):
        return True
    for lock in (store / "maps").glob("*/.lock*"):
        if lock.parent == besides:
            continue
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True
