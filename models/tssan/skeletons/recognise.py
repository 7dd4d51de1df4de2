"""Which format a folder or a file is, by the names in it and the first bytes of what is there."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tssan.errors import DataError
from tssan.skeletons import ctr_gcn, files, ntu_rgbd, pyskl
from tssan.skeletons.files import FileKind, NotReadable, SkeletonFile
from tssan.skeletons.formats import FORMATS


@dataclass(frozen=True)
class Recognised:
    """What a source is.

    Attributes
    ----------
    format
        One of `tssan.skeletons.formats.FORMATS`.
    source
        What to read: what was given, or the one file in it that counts.
    why
        A sentence that says by what it was recognised.
    """

    format: str
    source: Path
    why: str


def recognise(source: str | os.PathLike[str]) -> Recognised:
    """Tell which format a folder, an archive or a file is.

    Parameters
    ----------
    source
        As it was downloaded, or unpacked.

    Raises
    ------
    DataError
        If nothing fits, or more than one thing does: says what was seen and what would fit.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(files.no_such(path, "a data set's archive or folder"))
    if (path / "dataset.json").exists():
        raise DataError(
            f"{path} is prepared already: `tssan-viz train RECIPE --data {path} --out run` takes it"
        )
    if path.is_file():
        known = _single_file(path)
        if known is not None:
            return known
    elif pyskl.files_of_parts(path):
        return Recognised("pyskl", path, "it holds a train.pkl with a val.pkl or test.pkl")
    try:
        listing = files.every_file(path, _counts)
    except NotReadable:
        raise DataError(_nothing_fits(path, _first_bytes(path))) from None
    found = {kind.dataset: [f for f in listing if files.matches(f.name, kind)] for kind in KINDS}
    found = {name: of_kind for name, of_kind in found.items() if of_kind and _is(name, of_kind)}
    if len(found) > 1:
        counts = " and ".join(f"{len(f):,} of {FORMATS[name].title}" for name, f in found.items())
        raise DataError(
            f"{path} holds files of several data sets, {counts}; say which one is meant instead of "
            f"auto: {', '.join(found)}"
        )
    for name, of_kind in found.items():
        return _by_names(name, of_kind, path)
    single = [known for file in _top_files(path) if (known := _single_file(file)) is not None]
    if len(single) == 1:
        return single[0]
    if single:
        raise DataError(
            f"{path} holds several data sets, each in a file: "
            f"{', '.join(known.source.name for known in single[:6])}; give one of them"
        )
    raise DataError(_nothing_fits(path, _seen([file.name for file in listing])))


KINDS = files.KINDS


def _counts(name: str) -> bool:
    return any(files.matches(name, kind) for kind in KINDS)


def _is(name: str, found: Sequence[SkeletonFile]) -> bool:
    """Look whether JSON files of eleven letters, which many things are, are those of Kinetics."""
    if name != files.KINETICS.dataset:
        return True
    if any(PurePosixPath(file.name).name.startswith("kinetics_") for file in found):
        return True
    try:
        begin = found[0].read()[:4096]
    except DataError:
        return False
    return b'"frame_index"' in begin and b'"skeleton"' in begin


def _by_names(name: str, found: Sequence[SkeletonFile], path: Path) -> Recognised:
    kind: FileKind = next(kind for kind in KINDS if kind.dataset == name)
    first = min(file.name for file in found)
    why = f"{len(found):,} of its files are called as those of {kind.title}, such as {first}"
    if name == files.NTU_RGBD.dataset:
        edition = ntu_rgbd.edition_of(file.name for file in found)
        why += f"; all set-ups are of {edition.title}" if edition is ntu_rgbd.NTU60 else ""
        return Recognised(edition.name, path, why)
    return Recognised(name, path, why)


def _single_file(path: Path) -> Recognised | None:
    """Recognise a file that holds a whole data set."""
    begin = files.first_bytes(path)
    if begin == b"PAR1":
        return Recognised("plain", path, "it is a Parquet table")
    if ctr_gcn.is_archive(path):
        return Recognised("ctr-gcn", path, "it is an archive of x_train, y_train, x_test, y_test")
    if begin[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                if "joints.npy" in archive.namelist():
                    return Recognised("plain", path, "it is an .npz archive with joints")
        except Exception:  # damaged: said when it is listed
            return None
    if begin[:1] == b"\x80" and path.suffix in pyskl.ENDINGS:
        return Recognised("pyskl", path, "it is a pickle, as PYSKL and MMAction2 annotate with")
    return None


def _top_files(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else []


def _first_bytes(path: Path) -> str:
    with open(path, "rb") as file:
        begin = file.read(16)
    return f"a file of {path.stat().st_size:,} bytes that begins with {begin!r}"


def _seen(names: Sequence[str]) -> str:
    if not names:
        return "no files"
    endings = Counter(PurePosixPath(name).suffix or "no ending" for name in names)
    common = ", ".join(f"{number:,} × {ending}" for ending, number in endings.most_common(3))
    return f"{len(names):,} files ({common}; such as {min(names)})"


def _nothing_fits(path: Path, seen: str) -> str:
    lines = [f"{path} is no skeleton data set that is known; seen: {seen}. What would fit:"]
    for each in FORMATS.values():
        kind = next((kind for kind in KINDS if kind.dataset == each.name), None)
        holds = f", holding files like {kind.example}" if kind else ""
        lines.append(f"  {each.name}: {each.title}, such as {each.example}{holds}")
    return "\n".join(lines)
