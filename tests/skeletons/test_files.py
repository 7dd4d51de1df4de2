"""Sources as downloaded: folders, archives, folders of archives; and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tssan.errors import DataError
from tssan.skeletons import files, ntu_rgbd, nw_ucla, utd_mhad

from tests.skeletons import written

UCLA = {f"all_sqe/a01_s01_e{e:02d}_v01.json": b"%d" % e for e in (2, 0, 1)}
NTU = {f"S001C001P001R001A{a:03d}.skeleton": b"%d" % a for a in (14, 2)}


def unpack(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_archive_and_folder_give_the_same(tmp_path):
    packed = nw_ucla.find_files(written.archive(tmp_path / "all_sqe.zip", UCLA))
    unpacked = nw_ucla.find_files(unpack(tmp_path / "unpacked", UCLA))
    assert [(f.name, f.read()) for f in packed] == [(f.name, f.read()) for f in unpacked]
    assert [f.name for f in packed] == sorted(UCLA)


def test_order_goes_by_number(tmp_path):
    contents = {f"Skeleton/a{a}_s1_t1_skeleton.mat": b"" for a in (10, 2, 1, 27)}
    found = utd_mhad.find_files(written.archive(tmp_path / "Skeleton.zip", contents))
    assert [f.name.split("_")[0] for f in found] == [f"Skeleton/a{a}" for a in (1, 2, 10, 27)]


def test_a_folder_with_the_archives_in_it(tmp_path):
    written.archive(tmp_path / "s001.zip", {"a/" + name: NTU[name] for name in list(NTU)[:1]})
    written.archive(tmp_path / "s018.zip", {"b/" + name: NTU[name] for name in list(NTU)[1:]})
    found = ntu_rgbd.find_files(tmp_path)
    assert [f.name for f in found] == [
        "s018.zip/b/S001C001P001R001A002.skeleton",
        "s001.zip/a/S001C001P001R001A014.skeleton",
    ]
    assert [f.read() for f in found] == [b"2", b"14"]


def test_unpacked_files_count_once_beside_their_archive(tmp_path):
    unpack(tmp_path, UCLA)
    written.archive(tmp_path / "all_sqe.zip", UCLA)
    assert len(nw_ucla.find_files(tmp_path)) == len(UCLA)


def test_companions_that_macos_adds_are_no_files(tmp_path):
    extra = {"__MACOSX/all_sqe/a01_s01_e00_v01.json": b"", "all_sqe/._a01_s01_e00_v01.json": b""}
    found = nw_ucla.find_files(written.archive(tmp_path / "x.zip", UCLA | extra))
    assert [f.name for f in found] == sorted(UCLA)


def test_nothing_is_unpacked_however_a_member_is_called(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    climbing = {"../../a01_s01_e00_v01.json": b"{}", "/a01_s01_e01_v01.json": b"{}"}
    source = written.archive(inside / "x.zip", climbing)
    assert [f.read() for f in nw_ucla.find_files(source)] == [b"{}", b"{}"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inside", "x.zip"]


def test_a_wrong_path_is_answered_with_the_nearest(tmp_path):
    written.archive(tmp_path / "Skeleton.zip", UCLA)
    with pytest.raises(DataError, match=r"Skeletn.zip does not exist.*mean .*Skeleton\.zip\?"):
        utd_mhad.find_files(tmp_path / "Skeletn.zip")


def test_the_files_of_another_data_set_are_recognised(tmp_path):
    source = written.archive(tmp_path / "all_sqe.zip", UCLA)
    with pytest.raises(DataError) as raised:
        utd_mhad.find_files(source)
    assert str(raised.value) == (
        f"{source} holds no UTD-MHAD file (expected a1_s1_t1_skeleton.mat, …), but 3 of "
        "Northwestern-UCLA such as all_sqe/a01_s01_e00_v01.json: "
        "`tssan-viz prepare nw-ucla` reads them"
    )


def test_says_what_is_there_instead(tmp_path):
    unpack(tmp_path, {"a.txt": b"", "b/c.txt": b"", "d": b""})
    with pytest.raises(DataError) as raised:
        ntu_rgbd.find_files(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} holds no NTU RGB+D file among its 3 files (2 × .txt, 1 × no ending; such as "
        "a.txt); expected files like S001C001P001R001A001.skeleton"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="it is empty; expected files like S001"):
        ntu_rgbd.find_files(empty)


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(
        DataError, match="neither a folder nor a zip or tar archive; expected UTD-MHAD"
    ):
        utd_mhad.find_files(tmp_path / "x.zip")


def test_a_cut_off_download_and_a_damaged_member(tmp_path):
    whole = written.archive(tmp_path / "x.zip", {name: os.urandom(500) for name in UCLA})
    data = bytearray(whole.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[:-40])
    said = (
        rf"cut\.zip begins as a zip archive but has no end: .* after {len(data) - 40:,} bytes; down"
    )
    for source in (tmp_path / "cut.zip", tmp_path / "folder"):
        if source.name == "folder":
            source.mkdir()
            (tmp_path / "cut.zip").rename(source / "cut.zip")
        with pytest.raises(DataError, match=said):
            nw_ucla.find_files(source)
    data[100] ^= 255
    whole.write_bytes(data)
    damaged = nw_ucla.find_files(whole)
    with pytest.raises(DataError, match=r"e02_v01.json: cannot be read from its archive"):
        [file.read() for file in damaged]


def test_a_locked_archive(tmp_path):
    whole = written.archive(tmp_path / "x.zip", UCLA)
    data = bytearray(whole.read_bytes())
    at = data.index(b"PK\x01\x02")
    while at >= 0:
        data[at + 8] |= 1  # the flag that a member is encrypted
        at = data.find(b"PK\x01\x02", at + 1)
    whole.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read from its archive: .*encrypted"):
        nw_ucla.find_files(whole)[0].read()


def test_a_file_longer_than_any_skeleton_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    bomb = written.archive(tmp_path / "x.zip", {"a01_s01_e00_v01.json": bytes(3 * 2**20)})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(DataError, match="more than 1 MB; expected a skeleton file"):
        nw_ucla.find_files(bomb)[0].read()


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    unpack(tmp_path, UCLA | {"more/a01_s01_e05_v01.json": b"5"})
    whole = os.scandir

    def refuse(path):
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"more: cannot be listed: Permission denied"):
        nw_ucla.find_files(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a01_s01_e00_v01.json")
    with pytest.raises(DataError, match="not a regular file"):
        nw_ucla.find_files(tmp_path)[0].read()


def test_a_file_that_vanished(tmp_path):
    (found,) = ntu_rgbd.find_files(unpack(tmp_path, dict([NTU.popitem()])))
    (tmp_path / found.name).unlink()
    with pytest.raises(DataError, match="not a regular file"):
        found.read()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_archives_raise_nothing_else(tmp_path, data):
    whole = bytearray(written.archive(tmp_path / "whole.zip", UCLA).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[: data.draw(st.none() | st.integers(0, len(whole)))])
    with contextlib.suppress(DataError):
        for file in nw_ucla.find_files(damaged):
            file.read()
