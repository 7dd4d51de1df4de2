"""Digests of what a commit wrote: Lance reads a file with a flipped bit without complaint.

Beside a dataset's files lies a folder ``_digests`` with one empty file for each of them, named
``<file>.<digest>``: a name is there or is not, it cannot be torn. A file without a digest (of a
commit that nobody acknowledged) counts as whole.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable

from tssan_viz.store.places import Place

_FOLDER = "_digests"
_BYTES = 8
_CHUNK = 1 << 20


def digest(file: Place) -> str:
    """Return the digest of a file's content (BLAKE2b, 16 hexadecimal digits)."""
    hashed = hashlib.blake2b(digest_size=_BYTES)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def enter(dataset: Place, files: Iterable[Place]) -> None:
    """Write down the digests of a dataset's new files."""
    folder = dataset / _FOLDER
    folder.mkdir(exist_ok=True)
    for file in files:
        # One may be there of a version that was lost and whose number came again; it goes with it.
        (folder / f"{file.name}.{digest(file)}").touch()


def forget(dataset: Place, file: Place) -> None:
    """Drop the digest of a file that was taken away."""
    for entry in _entries(dataset / _FOLDER, file):
        (dataset / _FOLDER / entry).unlink(missing_ok=True)


def is_damaged(dataset: Place, file: Place) -> bool:
    """Return whether a file is not what was written.

    Raises
    ------
    FileNotFoundError
        The file is gone.
    """
    folder = dataset / _FOLDER
    name = f"{file.name}.{digest(file)}"
    if (folder / name).exists():
        return False
    # Only now the longer way: a digest may be there for another content, or none at all; or the
    # right one has been entered since, by the process that wrote the file.
    entered = _entries(folder, file)
    return bool(entered) and name not in entered


def is_known(dataset: Place, file: Place) -> bool:
    """Return whether a file's digest was written down."""
    return bool(_entries(dataset / _FOLDER, file))


def _entries(folder: Place, file: Place) -> list[str]:
    """Return the names of a file's digests."""
    try:
        return [entry.name for entry in folder.iterdir() if entry.name.startswith(f"{file.name}.")]
    except FileNotFoundError:
        return []


def clean(dataset: Place) -> None:
    """Drop the digests of files that are gone."""
    with contextlib.suppress(FileNotFoundError):
        entries: list[Place] = [*(dataset / _FOLDER).iterdir()]
        there = {
            file.name
            for folder in (dataset / "data", dataset / "_versions")
            if folder.exists()
            for file in folder.iterdir()
        }
        for entry in entries:
            if entry.name.rpartition(".")[0] not in there:
                entry.unlink(missing_ok=True)
