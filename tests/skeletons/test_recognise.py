"""`prepare auto`: every format is told by what it holds, and what fits nothing is answered."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tssan.errors import DataError
from tssan.skeletons.formats import FORMATS, find_format, open_source
from tssan.skeletons.recognise import recognise

from tests.skeletons import written
from tests.skeletons.test_kinetics import clip, person, release

UTD = {"Skeleton/a1_s1_t1_skeleton.mat": written.utd_mhad(np.ones((20, 3, 5)))}
UCLA = {"all_sqe/a01_s01_e00_v01.json": written.nw_ucla(written.poses(4, 20))}


def ntu(*names: str) -> dict[str, bytes]:
    body = [[(5, joints)] for joints in written.poses(12, 25)]
    return {f"nturgb+d_skeletons/{name}.skeleton": written.ntu_rgbd(body) for name in names}


NTU60 = ntu("S001C001P001R001A001")
NTU120 = NTU60 | ntu("S018C001P041R001A061")


def unpack(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tarred(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def pyskl(path: Path) -> Path:
    annotation = {
        "frame_dir": "S001C001P001R001A001",
        "label": 0,
        "total_frames": 4,
        "keypoint": written.poses(4, 25)[None].astype(np.float16),
    }
    path.write_bytes(pickle.dumps({"split": {}, "annotations": [annotation]}))
    return path


def ctr_gcn(path: Path) -> Path:
    x = np.zeros((2, 300, 150), np.float32)
    x[:, :9] = 1.0
    y = np.eye(60)[[3, 4]]
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


def plain(path: Path) -> Path:
    joints = written.poses(8, 25)[None].astype(np.float32)
    if path.suffix == ".npz":
        np.savez(path, joints=joints, label=["wave"], topology="kinect-v2-25")
    else:
        row = {"joints": [joints[0].tolist()], "label": ["wave"], "topology": "kinect-v2-25"}
        pd.DataFrame(row).to_parquet(path)
    return path


MADE = {
    "utd-mhad folder": lambda d: unpack(d / "x", UTD),
    "utd-mhad zip": lambda d: written.archive(d / "Skeleton.zip", UTD),
    "nw-ucla zip": lambda d: written.archive(d / "all_sqe.zip", UCLA),
    "nw-ucla tar": lambda d: tarred(d / "all_sqe.tar.gz", UCLA),
    "ntu60 folder": lambda d: unpack(d / "x", NTU60),
    "ntu60 zip": lambda d: written.archive(d / "a.zip", NTU60),
    "ntu120 folder": lambda d: unpack(d / "x", NTU120),
    "ntu120 folder-of-zips": lambda d: written.archive(d / "a.zip", NTU120).parent,
    "kinetics-openpose18 folder": lambda d: (release(d / "x"), d / "x")[1],
    "kinetics-openpose18 tar": lambda d: tarred(d / "k.tar.gz", release(d / "x")),
    "kinetics-openpose18 clips": lambda d: unpack(
        d / "x", {"abcdefghijk.json": clip([[person(0.5)]])}
    ),
    "pyskl file": lambda d: pyskl(d / "ntu60_3danno.pkl"),
    "pyskl folder": lambda d: pyskl(unpack(d / "x", {"readme.txt": b""}) / "a.pkl").parent,
    "ctr-gcn file": lambda d: ctr_gcn(d / "NTU60_CS.npz"),
    "ctr-gcn folder": lambda d: ctr_gcn(d / "NTU60_CS.npz").parent,
    "plain npz": lambda d: plain(d / "mine.npz"),
    "plain parquet": lambda d: plain(d / "mine.parquet"),
}


@pytest.mark.parametrize("which", MADE)
def test_every_format_is_recognised_and_opens_as_that(tmp_path, which):
    known = recognise(MADE[which](tmp_path))
    assert known.format == which.split()[0]
    assert known.why
    opened = open_source(known.format, known.source)
    assert opened.classes
    read = (
        opened[0]
        if hasattr(opened, "samples")
        else opened.read(opened.files[0].read(), opened.files[0].name)
    )
    assert read.class_name in [action.name for action in opened.classes]


def test_all_formats_are_tried():
    assert {which.split()[0] for which in MADE} == set(FORMATS) - {"ntu-rgbd"}


def test_why_says_what_was_seen(tmp_path):
    known = recognise(unpack(tmp_path / "x", NTU60))
    assert known.why == (
        "1 of its files are called as those of NTU RGB+D, such as "
        "nturgb+d_skeletons/S001C001P001R001A001.skeleton; all set-ups are of NTU RGB+D 60"
    )


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({}, "seen: no files"),
        ({"a.csv": b"1,2", "b/c.csv": b"3"}, r"seen: 2 files \(2 × \.csv; such as a\.csv\)"),
        ({"abcdefghijk.json": b'{"a": 1}'}, r"seen: 1 files \(1 × \.json"),
        (UTD | UCLA, "holds files of several data sets, 1 of UTD-MHAD and 1 of Northwestern-UCLA"),
        ({"dataset.json": b"{}"}, "is prepared already: `tssan-viz train RECIPE --data"),
    ],
)
def test_what_fits_nothing_is_answered_with_what_would(tmp_path, contents, said):
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=said) as raised:
        recognise(unpack(tmp_path / "x", contents))
    if "seen" in said:
        for name, each in FORMATS.items():
            assert f"  {name}: {each.title}, such as {each.example}" in str(raised.value)


def test_a_file_that_is_nothing_known_is_shown(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"hello, world, this is a file")
    with pytest.raises(DataError, match="a file of 28 bytes that begins with b'hello, world, th'"):
        recognise(tmp_path / "x.bin")
    with pytest.raises(DataError, match=r"y\.bin does not exist.*did you mean .*x\.bin\?"):
        recognise(tmp_path / "y.bin")


def test_several_files_of_whole_data_sets(tmp_path):
    ctr_gcn(tmp_path / "NTU60_CS.npz")
    ctr_gcn(tmp_path / "NTU60_CV.npz")
    with pytest.raises(DataError, match=r"each in a file: NTU60_CS\.npz, NTU60_CV\.npz; give one"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("utd_mhad", "utd-mhad"),
        ("UTDMHAD", "utd-mhad"),
        ("ntu", "ntu-rgbd"),
        ("ntu-60", "ntu60"),
        ("kinetics", "kinetics-openpose18"),
        ("ctrgcn", "ctr-gcn"),
        ("nwucla", "nw-ucla"),
        ("npz", "plain"),
    ],
)
def test_a_typo_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(DataError, match=rf"no data set '{typed}' \(did you mean {meant}\?\)"):
        find_format(typed)


def test_what_is_said_to_be_another_format(tmp_path):
    with pytest.raises(DataError, match=r"none of the 1 files.*is of NTU RGB"):
        open_source("ntu60", unpack(tmp_path / "x", ntu("S018C001P041R001A061")))
    with pytest.raises(DataError, match=r"does not exist; expected your own skeletons in one file"):
        open_source("plain", tmp_path / "mine.npz")
