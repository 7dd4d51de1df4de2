"""Lance datasets as the store uses them: opened at the newest whole version, appended durably."""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from errno import ENOSPC
from typing import Any, TypeVar

import lance
import pyarrow as pa

from tssan_viz.errors import UserError
from tssan_viz.store import digests
from tssan_viz.store.durable import FolderSync, is_whole, turn
from tssan_viz.store.places import BucketPath, Place, lance_address, lance_options

T = TypeVar("T")

# Versions that another process may still be reading from or appending to are left for this long.
_KEEP = timedelta(minutes=1)
_COMMITS_BETWEEN_CLEANUPS = 32
# Each version names all files: of so many small ones, each commit would cost more than the last.
_SMALL_FILES = 256
# Files of maps under this size are merged; those of full commits are left alone.
_MERGED_BYTES = 32 << 20
_MERGED_LINES = 1 << 20
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


# How often this process has committed to each dataset.
_COMMITS: Counter[Place] = Counter()


def own_commits(path: Place) -> int:
    """Return how often this process has committed to a dataset."""
    return _COMMITS[path]


def lance_dataset(path: Place, version: int | None = None) -> lance.LanceDataset:
    """Open a Lance dataset, at its newest version unless one is named."""
    return lance.dataset(lance_address(path), version=version, storage_options=lance_options(path))


def _manifests(path: Place) -> dict[int, Place]:
    """Return the manifest of each version. Lance names them by 2⁶⁴ − 1 − version."""
    found = {}
    for manifest in (path / "_versions").glob("*.manifest"):
        with contextlib.suppress(ValueError):
            number = int(manifest.stem)
            found[(1 << 64) - 1 - number if number > 1 << 63 else number] = manifest
    return found


def _manifest(path: Place, version: int) -> Place:
    return path / "_versions" / f"{(1 << 64) - 1 - version}.manifest"


def newest_manifest(path: Place, dataset: lance.LanceDataset) -> Place:
    """Return the file that describes the version at which a dataset is open."""
    return _manifest(path, dataset.version)


def newest_version(path: Place) -> int | None:
    """Return the number of the newest version that is listed, None where there is none."""
    return max(_manifests(path), default=None)


def written_at(path: Place, version: int) -> int:
    """Return when a version of a dataset was committed, in nanoseconds; 0 where it is gone."""
    try:
        return _manifest(path, version).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def data_files(dataset: lance.LanceDataset, path: Place, behind: int = -1) -> list[Place]:
    """Return the files that hold a version's lines, of the fragments behind one with a number."""
    return [
        path / "data" / file.path
        for fragment in dataset.get_fragments()
        if fragment.fragment_id > behind
        for file in fragment.data_files()
    ]


def _newest_fragment(dataset: lance.LanceDataset) -> int:
    return max((fragment.fragment_id for fragment in dataset.get_fragments()), default=-1)


def lines_per_file(schema: pa.Schema) -> int:
    """Return the lines of a file that is merged with no other: by size for maps."""
    lists = [kind for kind in schema.types if pa.types.is_fixed_size_list(kind)]
    line = sum(kind.list_size * kind.value_type.byte_width for kind in lists)
    return max(1, _MERGED_BYTES // line) if line else _MERGED_LINES


def _data_is_whole(dataset: lance.LanceDataset, path: Place) -> bool:
    if isinstance(path, BucketPath):
        # Objects are never torn, and asking for each takes its time.
        sizes = (path / "data").sizes()
        return all(
            sizes.get(file.path, -1) == (file.file_size_bytes or sizes.get(file.path))
            for fragment in dataset.get_fragments()
            for file in fragment.data_files()
        )
    return all(
        is_whole(path / "data" / file.path, file.file_size_bytes)
        for fragment in dataset.get_fragments()
        for file in fragment.data_files()
    )


def _open_version(
    path: Place, version: int, manifest: Place
) -> tuple[lance.LanceDataset | None, str]:
    """Return a version that is whole, or None and what is wrong with it."""
    try:
        if not is_whole(manifest):
            return None, f"{manifest} is cut short, as a power loss leaves it"
        if digests.is_damaged(path, manifest):
            return None, f"{manifest} is damaged: it is not what was written"
        dataset = lance_dataset(path, version)
        if _data_is_whole(dataset, path):
            return dataset, ""
    except (ValueError, OSError) as error:
        return None, f"{manifest} cannot be opened: {error}"
    return None, f"files that {manifest} names are cut short or gone"


def open_whole(path: Place, whole: int | None = None) -> tuple[lance.LanceDataset, str | None]:
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
        No version can be read; the message names the newest one's file.
    """
    newest = None
    while True:
        manifests = _manifests(path)
        if not manifests:
            raise StoreDamaged(f"{path}: none of its versions can be read: there is none")
        version = max(manifests)
        if version == whole:
            with contextlib.suppress(ValueError, OSError):
                return lance_dataset(path, version), None
        dataset, wrong = _open_version(path, version, manifests[version])
        if dataset is not None:
            return dataset, None
        if version == newest:
            break
        # A recording that ends merges files and drops the old ones, perhaps while we look at them.
        newest = version
    for older in sorted(manifests, reverse=True)[1:]:
        dataset, _ = _open_version(path, older, manifests[older])
        if dataset is not None:
            return dataset, (
                f"{path}: the newest version ({version}) cannot be read ({wrong}), so the store is "
                f"shown as it was at version {older}; rows that were never acknowledged may "
                "be missing, recording the same run again brings them back"
            )
    raise StoreDamaged(f"{path}: none of its {len(manifests)} versions can be read; {wrong}")


def _torn(dataset: lance.LanceDataset, path: Place, behind: int = -1) -> list[int]:
    """Return which fragments, of those behind one with a number, lack a part of their data.

    Lance writes the last bytes of a file without hearing whether they came: on a disk that is full
    by then, it commits what cannot be read.
    """
    if isinstance(path, BucketPath):
        return []
    return [
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if fragment.fragment_id > behind
        for file in fragment.data_files()
        if not is_whole(path / "data" / file.path, file.file_size_bytes)
    ]


def _take_away(path: Place, torn: list[int]) -> bool:
    """Commit a version without some fragments; return whether that was possible."""

    def drop() -> None:
        dataset = lance_dataset(path)
        there = {fragment.fragment_id for fragment in dataset.get_fragments()}
        lance.LanceDataset.commit(
            lance_address(path),
            lance.LanceOperation.Delete([], [n for n in torn if n in there], "false"),
            read_version=dataset.version,
        )

    try:
        retry(drop)
    except (ValueError, OSError, RuntimeError):
        return False
    return True


def _only_grew(dataset: lance.LanceDataset, path: Place, manifests: dict[int, Place]) -> bool:
    """Return whether a version has all fragments of the last one that is whole.

    If not, small files were merged into one that is torn, and the small ones are still there.
    """
    there = {fragment.fragment_id for fragment in dataset.get_fragments()}
    for version in sorted(manifests, reverse=True)[1:]:
        before, _ = _open_version(path, version, manifests[version])
        if before is not None:
            return {fragment.fragment_id for fragment in before.get_fragments()} <= there
    return True


def set_torn_versions_aside(path: Place) -> None:
    """Take what a power loss or a full disk left torn out of Lance's way, so that it appends again.

    What was appended and is cut short is taken away: no row of it was acknowledged, while others
    may have been added behind it. Otherwise, and where the manifest is cut short, the version is
    renamed (``….torn``), not deleted. A version that looks whole and cannot be read all the same is
    not ours to judge.

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
                if digests.is_damaged(path, newest):
                    raise StoreDamaged(
                        f"{newest} is damaged: it is not what was written, so nothing is added "
                        "behind it. `tssan-viz verify` says what else is damaged, and `tssan-viz "
                        "merge` copies what is whole into a new store"
                    )
                dataset = lance_dataset(path)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                raise StoreDamaged(f"{path}: its newest version cannot be read: {error}") from error
            if _data_is_whole(dataset, path):
                return
            torn = _torn(dataset, path)
            if torn and _only_grew(dataset, path, manifests) and _take_away(path, torn):
                return
        if isinstance(newest, BucketPath):
            raise StoreDamaged(f"{path}: files that its newest version names are gone")
        digests.forget(path, newest)
        newest.rename(newest.with_name(newest.name + ".torn"))


def _in_words(error: Exception) -> str:
    """Return what Lance says, without where in its source it says so."""
    return re.sub(r"LanceError\(\w+\): |, \S+\.rs:\d+:\d+", "", str(error))


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
    digest_data
        Whether digests of its data are kept, besides those of its versions. The maps have a
        checksum each instead.
    """

    def __init__(
        self, path: Place, schema: pa.Schema, *, shared: bool, digest_data: bool = True
    ) -> None:
        self.path = path
        self._schema = schema
        self._shared = shared
        self._digest_data = digest_data
        self._folder = FolderSync(path)
        self._lines_per_file = lines_per_file(schema)
        self._commits = 0
        self._cleaned = time.monotonic()
        self._known: set[Place] = set()
        self._newest_fragment = -1
        if path.exists():
            set_torn_versions_aside(path)
            dataset = self.open()
            if dataset is not None:
                # What is there already may have been damaged since: it gets no digest from us.
                self._known = {*_manifests(path).values(), *data_files(dataset, path)}
                self._newest_fragment = _newest_fragment(dataset)

    def append(self, table: pa.Table) -> None:
        """Append, and return when the lines are on the disk."""
        self.begin_append(table)()

    def begin_append(self, table: pa.Table) -> Callable[[], None]:
        """Append; return what waits until the lines are on the disk.

        It is to be called before anything else is done with the table, and raises as `append`.
        """
        try:
            with self._turn():
                dataset = retry(lambda: self._append(table))
                if torn := _torn(dataset, self.path, self._newest_fragment):
                    # Where there is no room even for this, `mend` does it later.
                    _take_away(self.path, torn)
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failure(table, error, may_retry=True) from error
        try:
            # Their numbers grow: of thousands of fragments only the new ones are looked at.
            self._enter_digests(dataset, behind=self._newest_fragment)
            wait = self._folder.begin()
        except OSError as error:
            raise self._failure(table, error, may_retry=False) from error

        def finish() -> None:
            try:
                wait()
            except OSError as error:
                # What the system could not write it may have dropped from its cache: asking again
                # would be answered with a success that means nothing.
                raise self._failure(table, error, may_retry=False) from error
            self._tidy(dataset)

        return finish

    def _tidy(self, dataset: lance.LanceDataset) -> None:
        """Merge small files and drop old versions when it is time for it."""
        self._commits += 1
        if self._commits % _SMALL_FILES == 0 and self._small_files(dataset) > _SMALL_FILES // 2:
            self.compact()
        elif self._commits % _COMMITS_BETWEEN_CLEANUPS == 0 and self._due():
            self.clean()

    def _small_files(self, dataset: lance.LanceDataset) -> int:
        fragments = dataset.get_fragments()
        return sum(fragment.physical_rows < self._lines_per_file for fragment in fragments)

    def _due(self) -> bool:
        """Return whether there can be much to drop: where others write, versions stay a while."""
        return not self._shared or time.monotonic() - self._cleaned > _KEEP.total_seconds() / 4

    def mend(self) -> None:
        """Take away what an append that was refused has left half-written."""
        dataset = self.open()
        if dataset is not None and (torn := _torn(dataset, self.path, self._newest_fragment)):
            with self._turn():
                _take_away(self.path, torn)

    def sync(self) -> None:
        """Return when what was appended is on the disk."""
        self._folder.sync()

    def _failure(self, table: pa.Table, error: Exception, *, may_retry: bool) -> StoreWriteError:
        full = "no space left" in str(error).lower() or getattr(error, "errno", None) == ENOSPC
        reason = "the disk is full" if full else _in_words(error)
        return StoreWriteError(
            f"{self.path}: {table.num_rows} lines could not be stored: {reason}. "
            "What was acknowledged before is safe; recording the same run again goes on there.",
            may_retry=may_retry,
        )

    def _append(self, table: pa.Table) -> lance.LanceDataset:
        if not (self.path / "_versions").exists():
            # An empty first version, so that two processes that begin at once share it.
            with contextlib.suppress(OSError):
                self._write(self._schema.empty_table(), mode="create", schema=self._schema)
        return self._write(table, mode="append")

    def _write(self, table: pa.Table, **how: Any) -> lance.LanceDataset:
        options = lance_options(self.path)
        return lance.write_dataset(table, lance_address(self.path), storage_options=options, **how)

    def _enter_digests(self, dataset: lance.LanceDataset, behind: int = -1) -> None:
        """Write down the digests of what a version of ours brought; all its files are complete."""
        _COMMITS[self.path] += 1
        files = {_manifest(self.path, dataset.version)}
        if self._digest_data:
            files.update(data_files(dataset, self.path, behind))
        self._newest_fragment = _newest_fragment(dataset)
        fresh = files - self._known
        # Another process may have merged and dropped some of them since.
        digests.enter(self.path, (file for file in fresh if file.exists()))
        self._known |= fresh

    def _turn(self, *, alone: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep merging apart from everything else, where there are other processes."""
        if not self._shared:
            return contextlib.nullcontext()
        return turn(self.path.with_name(f".{self.path.name}.lock"), alone=alone)

    def open(self) -> lance.LanceDataset | None:
        """Return the dataset as it is now, None before the first append."""
        return lance_dataset(self.path) if (self.path / "_versions").exists() else None

    def delete(self, condition: Any) -> None:
        """Delete the lines that fit a pyarrow expression."""

        def delete() -> lance.LanceDataset:
            dataset = lance_dataset(self.path)
            dataset.delete(condition)
            return dataset

        self._change(delete)

    def add_columns(self, fields: list[pa.Field]) -> None:
        """Add columns, null in the lines that are there."""

        def add() -> lance.LanceDataset:
            dataset = lance_dataset(self.path)
            missing = [field for field in fields if field.name not in dataset.schema.names]
            if missing:
                dataset.add_columns(pa.schema(missing))
            return dataset

        self._change(add)

    def _change(self, action: Callable[[], lance.LanceDataset]) -> None:
        try:
            with self._turn():
                dataset = retry(action)
            self._enter_digests(dataset)
            self._folder.sync()
        except (ValueError, OSError, RuntimeError) as error:
            raise StoreWriteError(
                f"{self.path} could not be changed: {_in_words(error)}", may_retry=False
            ) from error

    def _refuse_damaged(self) -> None:
        """Raise OSError if a file is not what was written: merged, it would pass for whole."""
        if not self._digest_data:
            return  # Maps have checksums of their own, which merging leaves as they are.
        for file in data_files(lance_dataset(self.path), self.path):
            if digests.is_damaged(self.path, file):
                raise OSError(f"{file.name} is not what was written; see tssan-viz verify")

    def compact(self) -> None:
        """Merge small files, and drop the versions that named them.

        All lines are safe already, so a failure is only warned of.
        """
        dataset = self.open()
        if dataset is None or len(dataset.get_fragments()) < 2:
            return

        def merge() -> None:
            lance_dataset(self.path).optimize.compact_files(
                target_rows_per_fragment=self._lines_per_file
            )
            # The version that merged names every file it replaced; one behind it names none, and
            # lets the longer one be dropped.
            lance_dataset(self.path).delete("false")

        try:
            # Lines appended meanwhile would come before the merged ones.
            with self._turn(alone=True):
                self._refuse_damaged()
                retry(merge)
                if _torn(lance_dataset(self.path), self.path):
                    # The small files are all there still.
                    set_torn_versions_aside(self.path)
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                self._enter_digests(lance_dataset(self.path))
                # On the disk before the small ones go, and before anybody adds behind them.
                self._folder.sync()
        except (ValueError, OSError, RuntimeError) as error:
            warnings.warn(
                f"{self.path}: its files could not be merged: {_in_words(error)}", stacklevel=2
            )
            return
        self.clean()

    def clean(self, *, alone: bool = False) -> None:
        """Drop versions that nobody needs, so that manifests do not grow with the recording.

        Parameters
        ----------
        alone
            Whether nobody else writes: then no version is kept for a while.
        """
        age = _KEEP if self._shared and not alone else timedelta(0)
        self._cleaned = time.monotonic()
        # What cannot be dropped now is dropped the next time.
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            lance_dataset(self.path).cleanup_old_versions(older_than=age)
            digests.clean(self.path)
            self._known = {file for file in self._known if file.exists()}
