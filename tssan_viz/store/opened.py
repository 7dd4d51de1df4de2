"""The datasets of a store as a process has opened them: kept until somebody commits."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc

from tssan_viz.errors import UserError
from tssan_viz.store import digests
from tssan_viz.store.places import BucketPath, Place, unreachable
from tssan_viz.store.tables import (
    StoreDamaged,
    data_files,
    newest_version,
    open_whole,
    own_commits,
    written_at,
)

T = TypeVar("T")

# Small, and everything hangs on them: their files are compared with their digests when opened.
_COMPARED_WHOLE = ("runs", "sites", "catalogue", "rows")
# Two commits within one tick of a file system's clock leave a folder with the same time.
_TICK = 1_000_000_000
# Asking a bucket whether another process has committed takes its time, and so is not done anew for
# each of the many things that one question reads.
_TRUSTED = 1.0


class StoreNotFound(UserError):
    """There is no attention store at that place."""


@dataclass(frozen=True)
class Opened:
    """A dataset at one version, with what was worked out for that version.

    Attributes
    ----------
    dataset
        The dataset.
    written
        When the version was committed.
    note
        What a person should know of it.
    damaged
        Its files that are not what was written, of the small datasets.
    derived
        What `once` worked out.
    """

    dataset: lance.LanceDataset
    written: int
    note: str | None
    damaged: tuple[Place, ...]
    derived: dict[Any, Any]

    def once(self, key: Any, work: Callable[[lance.LanceDataset], T]) -> T:
        """Return what `work` makes of this version, worked out at the first call."""
        if key not in self.derived:
            self.derived[key] = work(self.dataset)
        return self.derived[key]

    def is_newest(self, path: Place) -> bool:
        """Return whether nobody has committed since; a store made anew counts from 1 again."""
        version = self.dataset.version
        return newest_version(path) == version and written_at(path, version) == self.written

    def lines_of(self, run: str) -> pa.Table:
        """Return a run's lines, unless some of them lie in a damaged file."""
        condition = pc.field("run") == run
        if not self.damaged:
            return self.dataset.to_table(filter=condition)
        whole = []
        for fragment in self.dataset.get_fragments():
            names = {file.path.rpartition("/")[2] for file in fragment.data_files()}
            damaged = [file for file in self.damaged if file.name in names]
            if not damaged:
                whole.append(fragment)
            elif run in fragment.to_table(columns=["run"])["run"].unique().to_pylist():
                raise damaged_file(damaged[0], f"lines of run {run!r} are in it")
        return self.dataset.scanner(filter=condition, fragments=whole).to_table()


def damaged_file(file: Place, what: str) -> StoreDamaged:
    """Return the error for a file that is not what was written."""
    return StoreDamaged(
        f"{file} is damaged: it is not what was written, and {what}. "
        "`tssan-viz verify` names all that is damaged; what is not is still answered"
    )


def _state(path: Place) -> tuple[int, int] | None:
    """Return which folder of versions a dataset has and when one came or went; None without any."""
    if isinstance(path, BucketPath):
        version = newest_version(path)
        return None if version is None else (version, written_at(path, version))
    try:
        found = os.stat(path / "_versions")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns


class Datasets:
    """Opens a store's datasets, each again when somebody has committed to it.

    Parameters
    ----------
    path
        The store's folder.
    """

    def __init__(self, path: Place) -> None:
        self._path = path
        self._opened: dict[str, Opened] = {}
        self._settled: dict[str, tuple[int, int]] = {}
        self._looked: dict[str, tuple[float, int]] = {}
        self._compared: dict[Place, bool] = {}
        self._lock = threading.RLock()

    def open(self, name: str) -> Opened | None:
        """Return a dataset at its newest whole version; None where nothing was written yet."""
        path = self._path / name
        asked = time.monotonic(), own_commits(path)
        with self._lock:
            if isinstance(path, BucketPath) and name in self._looked:
                last, commits = self._looked[name]
                if asked[0] - last < _TRUSTED and asked[1] == commits:
                    return self._opened.get(name)
            try:
                found = self._open(name)
            except OSError as error:
                raise unreachable(self._path, error) from error
            self._looked[name] = asked
            return found

    def _open(self, name: str) -> Opened | None:
        path = self._path / name
        before = self._opened.get(name)
        state = _state(path)
        if state is None:
            if not (self._path / "store.json").exists():
                raise StoreNotFound(f"the attention store {self._path} is gone")
            return None
        if before is not None and not before.note:
            # Opening costs milliseconds, a list of names a fraction of one, a look at the
            # folder's time nothing.
            if self._settled.get(name) == state:
                return before
            if before.is_newest(path):
                self._settle(name, state)
                return before
        whole = None if before is None or before.note else before.dataset.version
        dataset, note = open_whole(path, whole)
        # A store that was removed and made anew counts its versions from 1 again.
        written = written_at(path, dataset.version)
        now = (dataset.version, written, note)
        if before is None or (before.dataset.version, before.written, before.note) != now:
            damaged = self._damaged_files(dataset, path) if name in _COMPARED_WHOLE else ()
            before = self._opened[name] = Opened(dataset, written, note, damaged, {})
            if note:
                warnings.warn(note, stacklevel=6)
        return before

    def _settle(self, name: str, state: tuple[int, int]) -> None:
        """Remember a folder's time, unless a commit may still come that does not change it."""
        if time.time_ns() - state[1] > _TICK:
            self._settled[name] = state

    def _damaged_files(self, dataset: lance.LanceDataset, path: Place) -> tuple[Place, ...]:
        """Return which of a dataset's files are not what was written; each is read once."""
        damaged = []
        for file in data_files(dataset, path):
            if file not in self._compared:
                try:
                    self._compared[file] = digests.is_damaged(path, file)
                except FileNotFoundError:
                    # Merged and dropped meanwhile; whoever reads it opens the dataset anew.
                    continue
            if self._compared[file]:
                damaged.append(file)
        return tuple(damaged)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._opened.pop(name, None)
            self._settled.pop(name, None)
            self._looked.pop(name, None)

    def read(self, name: str, work: Callable[[Opened], T]) -> T | None:
        """Return what `work` reads from a dataset; None where nothing was written yet.

        A recording that ends while we read merges files and drops the old ones; then the dataset
        is opened anew and read again.
        """
        opened = self.open(name)
        if opened is None:
            return None
        try:
            return work(opened)
        except (OSError, ValueError):
            self._forget(name)
        opened = self.open(name)
        try:
            return None if opened is None else work(opened)
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise StoreDamaged(f"{self._path / name} cannot be read: {reason}") from error

    def notes(self) -> list[str]:
        """Return what a person should know of the datasets that were opened."""
        with self._lock:
            found = list(self._opened.values())
        notes = [opened.note for opened in found if opened.note]
        return notes + [
            f"{file} is damaged: it is not what was written; `tssan-viz verify` says more"
            for opened in found
            for file in opened.damaged
        ]
