"""The files of a data set as downloaded: a folder, a zip or tar archive, a folder of archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from tssan.errors import DataError

# The longest real skeleton file has a few MB; what is longer than this would only fill the memory.
MOST_BYTES = 24 * 2**20
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class FileKind:
    """What the files of a data set are called."""

    dataset: str
    title: str
    pattern: re.Pattern[str]
    example: str


UTD_MHAD = FileKind(
    "utd-mhad",
    "UTD-MHAD",
    re.compile(r"a(?P<action>\d{1,2})_s(?P<subject>\d)_t(?P<trial>\d)_skeleton\.mat", re.ASCII),
    "a1_s1_t1_skeleton.mat",
)
NW_UCLA = FileKind(
    "nw-ucla",
    "Northwestern-UCLA",
    re.compile(
        r"a(?P<action>\d{2})_s(?P<subject>\d{2})_e(?P<trial>\d{2})_v(?P<view>\d{2})\.json", re.ASCII
    ),
    "a01_s01_e00_v01.json",
)
NTU_RGBD = FileKind(
    "ntu-rgbd",
    "NTU RGB+D",
    re.compile(
        r"S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<subject>\d{3})R(?P<replication>\d{3})"
        r"A(?P<action>\d{3})\.skeleton",
        re.ASCII,
    ),
    "S001C001P001R001A001.skeleton",
)
KINETICS = FileKind(
    "kinetics-openpose18",
    "Kinetics-skeleton",
    # Clips are called as their video, by eleven characters; a folder tells them from other JSON.
    re.compile(r"[\w-]{11}\.json|kinetics_(train|val)_label\.json", re.ASCII),
    "kinetics_train/--33Lscn6sk.json",
)
KINDS = (UTD_MHAD, NW_UCLA, NTU_RGBD, KINETICS)


@dataclass(frozen=True)
class SkeletonFile:
    """One file of a data set, in a folder or an archive; `read` returns its bytes.

    It can be sent to another process, which then opens the archive for itself.

    Attributes
    ----------
    name
        Where it lies within the source, with forward slashes.
    read
        Returns the bytes; raises `DataError` where that fails or they are more than `MOST_BYTES`,
        or than `most_bytes` if it is called with that.
    stamp
        Changes when the contents do, as far as one can tell without reading them.
    in_turn
        Whether the files of its archive are best read in the archive's own order.
    """

    name: str
    read: Callable[..., bytes]
    stamp: str = ""
    in_turn: bool = False


def find(source: str | os.PathLike[str], kind: FileKind) -> list[SkeletonFile]:
    """Find the files of one data set, sorted by the numbers in their names.

    Those of a compressed tar archive come in its own order: to go back in it is to begin anew.

    Parameters
    ----------
    source
        A folder that holds them at any depth, a zip archive that does, or a folder with such
        archives. Archives are read in place; nothing is unpacked.
    kind
        The data set.

    Raises
    ------
    DataError
        If there is no such source, it cannot be read, or holds none of the files.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(no_such(path, f"{kind.title}'s archive or folder"))
    try:
        listing = every_file(path, partial(matches, kind=kind))
    except NotReadable as error:
        raise DataError(
            f"{path} {error}; expected {kind.title}'s files ({kind.example}, …) as a folder or as "
            "the archive that its authors distribute"
        ) from None
    found = [file for file in listing if matches(file.name, kind)]
    if not found:
        raise DataError(_none_found(path, [file.name for file in listing], kind))
    if any(file.in_turn for file in found):
        return found
    return sorted(found, key=lambda file: (*parse_name(file.name, kind)[1].values(), file.name))


class NotReadable(DataError):
    """A source that is neither a folder nor an archive."""


def every_file(path: Path, wanted: Callable[[str], bool]) -> list[SkeletonFile]:
    """List what a folder or an archive holds, without unpacking anything.

    Where no file of a folder is `wanted`, by its name, the archives in it are opened too; what lies
    unpacked beside its archive thus counts once.

    Raises
    ------
    DataError
        If it cannot be listed; `NotReadable` if it is neither folder nor archive.
    """
    try:
        if path.is_dir():
            listing = list(_folder(path))
            if not any(wanted(file.name) for file in listing):
                for archive in sorted(path.iterdir()):
                    if archive.is_file() and archive.name.endswith(ARCHIVES):
                        listing += _archive(archive, f"{archive.name}/")
            return listing
        if path.is_file() and (_is_zip(path) or _is_tar(path)):
            return list(_archive(path, ""))
        if path.is_file() and (said := _cut_off(path)):
            raise DataError(f"{path} {said}")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    raise NotReadable("is neither a folder nor a zip or tar archive")


def parse_name(name: str, kind: FileKind) -> tuple[str, dict[str, int]]:
    """Return the sample's name and the numbers in the name of a file.

    Raises
    ------
    DataError
        If the file is not called as those of the data set are.
    """
    base = PurePosixPath(name.replace("\\", "/")).name
    match = kind.pattern.fullmatch(base)
    if match is None:
        raise DataError(
            f"{name}: not the name of a {kind.title} file; expected one like {kind.example}"
        )
    sample = base.removesuffix("_skeleton.mat").rsplit(".", 1)[0]
    return sample, {key: int(number) for key, number in match.groupdict().items()}


def content(data: bytes | Path, name: str) -> bytes:
    """Return the bytes of a file that is given as bytes or as a path.

    Raises
    ------
    DataError
        If the file cannot be read or is larger than any skeleton file.
    """
    return data if isinstance(data, bytes) else _read_path(Path(data), name)


def matches(name: str, kind: FileKind) -> bool:
    """Return whether a file is called as those of the data set are."""
    path = PurePosixPath(name)
    # macOS puts a companion with the same ending beside every file of an archive.
    return kind.pattern.fullmatch(path.name) is not None and "__MACOSX" not in path.parts


def _folder(folder: Path) -> Iterator[SkeletonFile]:
    for parent, _, names in os.walk(folder, onerror=_refuse):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            try:
                about = path.stat()
                stamp = f"{about.st_size} {about.st_mtime_ns}"
            except OSError:  # said when the file is read
                stamp = ""
            yield SkeletonFile(relative, partial(_read_path, path, relative), stamp)


def _refuse(error: OSError) -> None:
    """Say which folder cannot be listed; left to itself `os.walk` would pass it over."""
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from None


def _read_path(path: Path, name: str, *, most_bytes: int | None = None) -> bytes:
    most_bytes = most_bytes or MOST_BYTES
    try:
        if not path.is_file():
            raise DataError(f"{name}: not a regular file")
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
    return _not_too_long(data, name, most_bytes)


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:  # given a path, `is_zipfile` would hide that it may not be read
        return zipfile.is_zipfile(file)


def _cut_off(path: Path) -> str | None:
    """Say what to do about a zip archive that lacks its end, where the list of its files stands."""
    with open(path, "rb") as file:
        begins = file.read(4) == b"PK\x03\x04"
        if not begins or zipfile.is_zipfile(file):
            return None
    return (
        f"begins as a zip archive but has no end: its download stopped after "
        f"{path.stat().st_size:,} bytes; download it again, or go on with it as `curl -C -` does"
    )


def _is_tar(path: Path) -> bool:
    with _unpacked(path) as file:
        try:
            block = file.read(tarfile.BLOCKSIZE)
        except (OSError, EOFError, lzma.LZMAError):
            return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _archive(path: Path, prefix: str) -> Iterator[SkeletonFile]:
    kind = "zip" if path.suffix == ".zip" or _is_zip(path) else "tar"
    try:
        yield from (_zip(path, prefix) if kind == "zip" else _tar(path, prefix))
    except Exception as error:  # on damaged archives they raise whatever they stumble over
        said = _cut_off(path) or f"cannot be read as a {kind} archive: {error}"
        raise DataError(f"{path} {said}") from None


def _zip(path: Path, prefix: str) -> Iterator[SkeletonFile]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                name = prefix + member.filename
                read = partial(_read_zipped, path, member.filename, name)
                yield SkeletonFile(name, read, f"{member.file_size} {member.CRC:08x}")


def _tar(path: Path, prefix: str) -> Iterator[SkeletonFile]:
    with _unpacked(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        compressed = not isinstance(file, io.BufferedReader)
        for member in archive:
            if member.isreg():
                name = prefix + member.name.removeprefix("./")
                read = partial(_read_tarred, path, member.offset_data, member.size, name)
                stamp = f"{member.size} {member.mtime} {member.offset}"
                yield SkeletonFile(name, read, stamp, in_turn=compressed)
            cast(Any, archive).members = []  # else it would keep every header it has seen


def _unpacked(path: Path) -> BinaryIO:
    """Open a tar archive, whatever it is compressed with, so that offsets are those within it."""
    with open(path, "rb") as file:
        begin = file.read(6)
    opens: Callable[..., object] = open
    for magic, reader in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if begin.startswith(magic):
            opens = reader
    return cast(BinaryIO, opens(path, "rb"))


# An archive stays open from one of its files to the next, in each process for itself: two that
# shared one file would read from each other's places.
@lru_cache(maxsize=8)
def _zip_of(process: int, path: Path, stamp: tuple[int, ...]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@lru_cache(maxsize=8)
def _tar_of(process: int, path: Path, stamp: tuple[int, ...]) -> BinaryIO:
    return _unpacked(path)


def _stamp(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _read_zipped(path: Path, member: str, name: str, *, most_bytes: int | None = None) -> bytes:
    most_bytes = most_bytes or MOST_BYTES
    try:
        with _zip_of(os.getpid(), path, _stamp(path)).open(member) as file:
            data = file.read(most_bytes + 1)
    except Exception as error:  # as above; also locked or packed by a method that is not there
        raise DataError(f"{name}: cannot be read from its archive: {error}") from None
    return _not_too_long(data, name, most_bytes)


def _read_tarred(
    path: Path, offset: int, size: int, name: str, *, most_bytes: int | None = None
) -> bytes:
    most_bytes = most_bytes or MOST_BYTES
    try:
        file = _tar_of(os.getpid(), path, _stamp(path))
        file.seek(offset)
        data = file.read(min(size, most_bytes + 1))
    except Exception as error:
        raise DataError(f"{name}: cannot be read from its archive: {error}") from None
    if len(data) < min(size, most_bytes):
        raise DataError(f"{name}: cannot be read from its archive: the archive ends early")
    return _not_too_long(data, name, most_bytes)


def _not_too_long(data: bytes, name: str, most_bytes: int) -> bytes:
    if len(data) > most_bytes:
        raise DataError(f"{name}: more than {most_bytes >> 20} MB; expected a skeleton file")
    return data


def first_bytes(path: Path) -> bytes:
    """Return the first four bytes of a file, which tell archives and Parquet apart."""
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def no_such(path: Path, what: str) -> str:
    """Say that there is no such source, what was expected, and which name is nearest."""
    said = f"{path} does not exist; expected {what}"
    if path.parent.is_dir():
        near = get_close_matches(path.name, os.listdir(path.parent), n=1)
        if near:
            said += f"; did you mean {path.parent / near[0]}?"
    return said


def _none_found(path: Path, names: list[str], kind: FileKind) -> str:
    """Say what is there instead of the files that were expected."""
    said = f"{path} holds no {kind.title} file"
    for other in KINDS:
        of_other = sorted(name for name in names if matches(name, other))
        if of_other:
            return (
                f"{said} (expected {kind.example}, …), but {len(of_other)} of {other.title} such "
                f"as {of_other[0]}: `tssan-viz prepare {other.dataset}` reads them"
            )
    if names:
        endings = Counter(PurePosixPath(name).suffix or "no ending" for name in names)
        common = ", ".join(f"{number} × {ending}" for ending, number in endings.most_common(3))
        said += f" among its {len(names)} files ({common}; such as {min(names)})"
    else:
        said += ": it is empty"
    return f"{said}; expected files like {kind.example}"
