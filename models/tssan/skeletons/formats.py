"""The formats that can be prepared, by name: what each is called, and how its files are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from tssan.errors import DataError
from tssan.skeletons import (
    classes,
    ctr_gcn,
    files,
    kinetics,
    ntu_rgbd,
    nw_ucla,
    plain,
    protocols,
    pyskl,
    utd_mhad,
)
from tssan.skeletons.annotations import Annotations
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.files import SkeletonFile, Skipped
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import Reader
from tssan.skeletons.topology import Topology


@dataclass(frozen=True)
class ManyFiles:
    """A data set of one file per sequence, ready to be read.

    Attributes
    ----------
    name
        The data set.
    files, read
        The files in order, and what reads one.
    classes, protocols
        As in `tssan.dataset.prepare`.
    skipped
        Files that its authors say to leave out.
    """

    name: str
    files: Sequence[SkeletonFile]
    read: Reader
    classes: Sequence[ActionClass]
    protocols: Sequence[Protocol]
    skipped: Sequence[Skipped] = field(default=())


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes
    ----------
    name
        What `tssan-viz prepare` takes.
    title
        What people call it.
    example
        A source as its authors distribute it.
    """

    name: str
    title: str
    example: str


FORMATS = {
    each.name: each
    for each in (
        Format("utd-mhad", "UTD-MHAD", "Skeleton.zip"),
        Format("nw-ucla", "Northwestern-UCLA", "all_sqe.zip"),
        Format("ntu60", "NTU RGB+D 60, raw", "nturgbd_skeletons_s001_to_s017.zip"),
        Format("ntu120", "NTU RGB+D 120, raw", "the folder with both zips"),
        Format("ntu-rgbd", "NTU RGB+D, raw, 60 or 120 as the files are", "nturgb+d_skeletons"),
        Format("kinetics-openpose18", "Kinetics-skeleton of ST-GCN", "kinetics-skeleton.tar"),
        Format("pyskl", "annotation pickles of PYSKL and MMAction2", "ntu60_3danno.pkl"),
        Format("ctr-gcn", "archives of CTR-GCN", "NTU60_CS.npz"),
        Format("plain", "your own skeletons in one file", "mine.npz"),
    )
}
"""By name."""


def find_format(name: str) -> Format:
    """Return the format of a name.

    Raises
    ------
    DataError
        If there is none; names the nearest.
    """
    if name not in FORMATS:
        spellings = {squeezed(known): known for known in FORMATS} | {
            "ntu": "ntu-rgbd",
            "kinetics": "kinetics-openpose18",
            "kineticsskeleton": "kinetics-openpose18",
            "npz": "plain",
            "parquet": "plain",
        }
        near = get_close_matches(squeezed(name), spellings, n=1)
        hint = f" (did you mean {spellings[near[0]]}?)" if near else ""
        raise DataError(
            f"there is no data set {name!r}{hint}; there are auto, {', '.join(FORMATS)} and "
            "synthetic"
        )
    return FORMATS[name]


def squeezed(name: str) -> str:
    """Return letters and digits only, in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())


def open_source(
    name: str,
    source: str | os.PathLike[str],
    *,
    topology: Topology | None = None,
    denoise: bool = True,
) -> ManyFiles | Annotations:
    """Open a source of a known format.

    Parameters
    ----------
    name
        One of `FORMATS`.
    source
        A folder, an archive or a file, as the format has it.
    topology
        For plain: instead of what the file says.
    denoise
        For raw NTU RGB+D: whether bodies that can be no person are left out, as
        `tssan.skeletons.actors` says.

    Raises
    ------
    DataError
        If it cannot be opened as what it is said to be.
    """
    find_format(name)
    path = Path(source)
    if not path.exists():
        expected = FORMATS[name]
        if name in ("plain", "pyskl", "ctr-gcn"):  # one file each
            what = f"{expected.title}, such as {expected.example}"
        else:
            what = f"{expected.title}'s archive or folder"
        raise DataError(files.no_such(path, what))
    if name == "plain":
        return plain.open_annotations(path, topology=topology)
    if name == "pyskl":
        return pyskl.open_annotations(path)
    if name == "ctr-gcn":
        return ctr_gcn.open_annotations(path)
    if name == "kinetics-openpose18":
        clips = kinetics.find_clips(path)
        return ManyFiles(
            name,
            clips.files,
            kinetics.read_file,
            classes.KINETICS,
            protocols.KINETICS,
            clips.skipped,
        )
    if name == "utd-mhad":
        found = utd_mhad.find_files(path)
        return ManyFiles(name, found, utd_mhad.read_file, classes.UTD_MHAD, protocols.UTD_MHAD)
    if name == "nw-ucla":
        found = nw_ucla.find_files(path)
        return ManyFiles(name, found, nw_ucla.read_file, classes.NW_UCLA, protocols.NW_UCLA)
    found = ntu_rgbd.find_files(path)
    edition = {"ntu60": ntu_rgbd.NTU60, "ntu120": ntu_rgbd.NTU120}.get(name) or ntu_rgbd.edition_of(
        file.name for file in found
    )
    return ManyFiles(
        edition.name,
        edition.select(found),
        ntu_rgbd.read_file if denoise else partial(ntu_rgbd.read_file, denoise=False),
        edition.classes,
        edition.protocols,
    )
