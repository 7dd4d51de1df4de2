"""Lance datasets as the store uses them: opened at the newest whole version, appended durably."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from errno import ENOSPC
from pathlib import Path
from typing import Any, TypeVar

import lance
import pyarrow as pa

from tssan_viz.errors import UserError
from tssan_viz.store.durable import FolderSync, is_whole, turn

T = TypeVar("T")

# Versions that another process may still be reading from or appending to are left for this long.
_KEEP = timedelta(minutes=1)
_COMMITS_BETWEEN_CLEANUPS = 32
_ATTEMPTS = 8


class StoreWriteError(UserError):
    """What was to be stored could not be: the disk is full, or refuses.

    Attributes
    ----------
    may_retry : bool
        Whether the same writer's `flush` may be called again when there is room.
    """

    def __init__(self, message: str, *, may_retry: bool) -> None:
        super().__init__(message)
        self.may_retry = may_retry


class StoreDamaged(UserError):
    """What the store says it holds cannot be read."""


def _manifests(path: Path) -> dict[int, Path]:
    """Return the manifest of each version. Lance names them by 2⁶⁴ − 1 − version."""
    found = {}
    for manifest in (path / "_versions").glob("*.manifest"):
        with contextlib.suppress(ValueError):
            number = int(manifest.stem)
            found[(1 << 64) - 1 - number if number > 1 << 63 else number] = manifest
    return found


def written_at(path: Path, version: int) -> int:
    """Return when a version of a dataset was committed, in nanoseconds; 0 where it is gone."""
    try:
        return (path / "_versions" / f"{(1 << 64) - 1 - version}.manifest").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _data_is_whole(dataset: lance.LanceDataset, path: Path) -> bool:
    return all(
        is_whole(path / "data" / file.path, file.file_size_bytes)
        for fragment in dataset.get_fragments()
        for file in fragment.data_files()
    )


def open_whole(path: Path, whole: int | None = None) -> tuple[lance.LanceDataset, str | None]:
    """Open a Lance dataset at its newest version whose files are all there.

    Parameters
    ----------
    path
        The dataset.
    whole
        A version that is known to be whole and need not be looked at again.

    Returns
    -------
    dataset
        The dataset.
    note
        What a person should know when it is not the newest version, else None.

    Raises
    ------
    StoreDamaged
        No version can be read.
    """
    newest = None
    while True:
        with contextlib.suppress(ValueError, OSError):
            dataset = lance.dataset(path)
            if dataset.version == whole or _data_is_whole(dataset, path):
                return dataset, None
        versions = sorted(_manifests(path), reverse=True)
        if not versions or versions[0] == newest:
            break
        # A recording that ends merges files and drops the old ones, perhaps while we look at them.
        newest = versions[0]
    for version in versions[1:]:
        with contextlib.suppress(ValueError, OSError):
            dataset = lance.dataset(path, version=version)
            if _data_is_whole(dataset, path):
                return dataset, (
                    f"{path}: the newest version ({versions[0]}) cannot be read, so the store is "
                    f"shown as it was at version {version}; rows that were never acknowledged may "
                    "be missing, recording the same run again brings them back"
                )
    raise StoreDamaged(f"{path}: none of its {len(versions)} versions can be read")


def set_torn_versions_aside(path: Path) -> None:
    """Take versions that a power loss left torn out of Lance's way, so that it can append again.

    Only files that are visibly cut short are renamed (``….torn``), none is deleted. A version that
    looks whole and cannot be read all the same is not ours to judge.

    Raises
    ------
    StoreDamaged
        The newest version looks whole, and cannot be opened.
    """
    while True:
        manifests = _manifests(path)
        if not manifests:
            return
        newest = manifests[max(manifests)]
        if is_whole(newest):
            try:
                dataset = lance.dataset(path)
            except (ValueError, OSError) as error:
                raise StoreDamaged(f"{path}: its newest version cannot be read: {error}") from error
            if _data_is_whole(dataset, path):
                return
        newest.rename(newest.with_name(newest.name + ".torn"))


def _again(error: Exception) -> bool:
    """Return whether another process was merely quicker."""
    text = str(error).lower()
    return any(word in text for word in ("conflict", "already exists", "not found", "concurrent"))


def retry(action: Callable[[], T]) -> T:
    """Do what Lance refuses when another process commits at the same moment, again."""
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except (ValueError, OSError, RuntimeError) as error:
            if attempt == _ATTEMPTS - 1 or not _again(error):
                raise
            time.sleep(0.02 * 2**attempt)
    raise AssertionError("unreachable")


class DurableTable:
    """One Lance dataset that a writer appends to.

    Parameters
    ----------
    path
        Its folder; made by the first append.
    schema
        Its columns.
    shared
        Whether other processes may append to it at the same time.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, shared: bool) -> None:
        self.path = path
        self._schema = schema
        self._shared = shared
        self._folder = FolderSync(path)
        self._commits = 0
        if path.exists():
            set_torn_versions_aside(path)

    def append(self, table: pa.Table) -> None:
        """Append, and return when the lines are on the disk."""
        try:
            with self._turn():
                retry(lambda: self._append(table))
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failure(table, error, may_retry=True) from error
        try:
            self.sync()
        except OSError as error:
            # What the system could not write it may have dropped from its cache: asking again
            # would be answered with a success that means nothing.
            raise self._failure(table, error, may_retry=False) from error
        self._commits += 1
        if self._commits % _COMMITS_BETWEEN_CLEANUPS == 0:
            self.clean()

    def sync(self) -> None:
        """Return when what was appended is on the disk."""
        self._folder.sync()

    def _failure(self, table: pa.Table, error: Exception, *, may_retry: bool) -> StoreWriteError:
        full = "no space left" in str(error).lower() or getattr(error, "errno", None) == ENOSPC
        reason = "the disk is full" if full else str(error)
        return StoreWriteError(
            f"{self.path}: {table.num_rows} lines could not be stored: {reason}. "
            "What was acknowledged before is safe; recording the same run again goes on there.",
            may_retry=may_retry,
        )

    def _append(self, table: pa.Table) -> None:
        if (self.path / "_versions").exists():
            lance.write_dataset(table, self.path, mode="append")
        else:
            # An empty first version, so that two processes that begin at once share it.
            with contextlib.suppress(OSError):
                lance.write_dataset(
                    self._schema.empty_table(), self.path, mode="create", schema=self._schema
                )
            lance.write_dataset(table, self.path, mode="append")

    def _turn(self, *, alone: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep merging apart from everything else, where there are other processes."""
        if not self._shared:
            return contextlib.nullcontext()
        return turn(self.path.with_name(f".{self.path.name}.lock"), alone=alone)

    def open(self) -> lance.LanceDataset | None:
        """Return the dataset as it is now, None before the first append."""
        return lance.dataset(self.path) if (self.path / "_versions").exists() else None

    def delete(self, condition: Any) -> None:
        """Delete the lines that fit a pyarrow expression."""
        self._change(lambda: lance.dataset(self.path).delete(condition))

    def add_columns(self, fields: list[pa.Field]) -> None:
        """Add columns, null in the lines that are there."""

        def add() -> None:
            dataset = lance.dataset(self.path)
            missing = [field for field in fields if field.name not in dataset.schema.names]
            if missing:
                dataset.add_columns(pa.schema(missing))

        self._change(add)

    def _change(self, action: Callable[[], Any]) -> None:
        try:
            with self._turn():
                retry(action)
            self._folder.sync()
        except (ValueError, OSError, RuntimeError) as error:
            raise StoreWriteError(
                f"{self.path} could not be changed: {error}", may_retry=False
            ) from error

    def compact(self, lines_per_file: int) -> None:
        """Merge small files, and drop the versions that named them.

        All lines are safe already, so a failure is only warned of.
        """
        dataset = self.open()
        if dataset is None or len(dataset.get_fragments()) < 2:
            return
        try:
            # Lines appended meanwhile would come before the merged ones.
            with self._turn(alone=True):
                retry(
                    lambda: lance.dataset(self.path).optimize.compact_files(
                        target_rows_per_fragment=lines_per_file
                    )
                )
            # The merged files are on the disk before the small ones go.
            self._folder.sync()
        except (ValueError, OSError, RuntimeError) as error:
            warnings.warn(f"{self.path}: its files could not be merged: {error}", stacklevel=2)
            return
        self.clean()

    def clean(self) -> None:
        """Drop versions that nobody needs, so that manifests do not grow with the recording."""
        age = _KEEP if self._shared else timedelta(0)
        # What cannot be dropped now is dropped the next time.
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            lance.dataset(self.path).cleanup_old_versions(older_than=age)
