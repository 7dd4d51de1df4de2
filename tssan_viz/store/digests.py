"""Digests of what a commit wrote: Lance reads a file with a flipped bit without complaint.

Beside a dataset's files lies a folder ``_digests`` with one empty file for each of them, named
``<file>.<digest>``: a name is there or is not, it cannot be torn. A file without a digest (of a
commit that nobody acknowledged) counts as whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_FOLDER = "_digests"
_BYTES = 8
_CHUNK = 1 << 20


def digest(file: Path) -> str:
    """Return the digest of a file's content (BLAKE2b, 16 hexadecimal digits)."""
    hashed = hashlib.blake2b(digest_size=_BYTES)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def enter(dataset: Path, files: Iterable[Path]) -> None:
    """Write down the digests of a dataset's new files."""
    folder = dataset / _FOLDER
    folder.mkdir(exist_ok=True)
    for file in files:
        name = f"{file.name}.{digest(file)}"
        # Of a version that was set aside and whose number came again.
        for stale in _entries(folder, file):
            if stale != name:
                (folder / stale).unlink(missing_ok=True)
        (folder / name).touch()


def forget(dataset: Path, file: Path) -> None:
    """Drop the digest of a file that was taken away."""
    for entry in _entries(dataset / _FOLDER, file):
        (dataset / _FOLDER / entry).unlink(missing_ok=True)


def is_damaged(dataset: Path, file: Path) -> bool:
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


def is_known(dataset: Path, file: Path) -> bool:
    """Return whether a file's digest was written down."""
    return bool(_entries(dataset / _FOLDER, file))


def _entries(folder: Path, file: Path) -> list[str]:
    """Return the names of a file's digests."""
    try:
        return [name for name in os.listdir(folder) if name.startswith(f"{file.name}.")]
    except FileNotFoundError:
        return []


def clean(dataset: Path) -> None:
    """Drop the digests of files that are gone."""
    with contextlib.suppress(FileNotFoundError):
        for entry in (dataset / _FOLDER).iterdir():
            name = entry.name.rpartition(".")[0]
            if not any((dataset / folder / name).exists() for folder in ("data", "_versions")):
                entry.unlink(missing_ok=True)
