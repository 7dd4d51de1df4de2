"""Preparing many files: the same for any number of processes, and on from an interruption."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tssan import parts, preparing
from tssan.dataset import SkeletonDataset, prepare, same_data
from tssan.errors import DataError, LeftOut
from tssan.preparing import BadFile, kept_folder, prepare_files
from tssan.skeletons import classes, nw_ucla, protocols

from tests.skeletons import written


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(preparing, "FILES_PER_PART", 3)


def ucla(path: Path, files: int = 14, bad: tuple[int, ...] = ()) -> Path:
    contents = {}
    for i in range(files):
        name = f"all_sqe/a{1 + i % 3:02d}_s{1 + i % 4:02d}_e{i:02d}_v01.json"
        joints = written.poses(3 + i % 5, 20, i)
        contents[name] = b"{" if i in bad else written.nw_ucla(joints, 1 + i % 3)
    return written.archive(path, contents)


def prepared(source: Path, out: Path, **options: object) -> SkeletonDataset:
    defaults = {
        "name": "nw-ucla",
        "classes": classes.NW_UCLA,
        "protocols": protocols.NW_UCLA,
        "processes": 1,
    }
    read = options.pop("read", nw_ucla.read_file)
    return prepare_files(nw_ucla.find_files(source), read, out, **(defaults | options))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def refuse(data: bytes, name: str, *, allowed: int) -> object:
    """A reader that may be used so many times in this process."""
    refuse.used += 1
    if refuse.used > allowed:
        raise KeyboardInterrupt
    return nw_ucla.read_file(data, name)


def test_any_number_of_processes_gives_the_same_bytes(tmp_path):
    source = ucla(tmp_path / "x.zip")
    one = prepared(source, tmp_path / "one")
    two = prepared(source, tmp_path / "two", processes=2)
    files = nw_ucla.find_files(source)
    plain = prepare(
        (nw_ucla.read_file(f.read(), f.name) for f in files),
        tmp_path / "plain",
        name="nw-ucla",
        classes=classes.NW_UCLA,
        protocols=protocols.NW_UCLA,
    )
    assert contents(one.path) == contents(two.path) == contents(plain.path)
    assert sorted(os.listdir(tmp_path)) == ["one", "plain", "two", "x.zip"]
    assert len(one) == 14


def test_an_interruption_keeps_what_was_read_and_the_next_try_reads_the_rest(tmp_path):
    source = ucla(tmp_path / "x.zip")
    refuse.used = 0
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "data", read=functools.partial(refuse, allowed=8))
    assert not (tmp_path / "data").exists()
    assert len(list(kept_folder(tmp_path / "data").glob("part-*.npz"))) == 2
    seen: list[int] = []
    refuse.used = -100
    again = functools.partial(refuse, allowed=8)
    data = prepared(source, tmp_path / "data", read=again, advance=seen.append)
    assert refuse.used == -100 + 14 - 6
    assert seen == [3, 3, 3, 3, 2]
    assert contents(data.path) == contents(prepared(source, tmp_path / "whole").path)
    assert sorted(os.listdir(tmp_path)) == ["data", "whole", "x.zip"]


@pytest.mark.parametrize("change", ["source", "reader", "name"])
def test_what_was_read_otherwise_is_not_used(tmp_path, change):
    source = ucla(tmp_path / "x.zip")
    refuse.used = 0
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "data", read=functools.partial(refuse, allowed=8))
    allowed = 10**6 if change == "reader" else 8
    if change == "source":
        ucla(source, files=13)
    refuse.used = -100
    options = {"name": "other"} if change == "name" else {}
    read = functools.partial(refuse, allowed=allowed)
    prepared(source, tmp_path / "data", read=read, **options)
    assert refuse.used == -100 + (13 if change == "source" else 14)


def test_killed_while_reading_with_two_processes(tmp_path):
    source = ucla(tmp_path / "x.zip", files=40)
    code = f"""
import sys, time
from tssan import preparing
from tests.skeletons import test_preparing
preparing.FILES_PER_PART = 3
if __name__ == "__main__":
    test_preparing.prepared(
        test_preparing.Path({str(source)!r}), {str(tmp_path / "data")!r},
        read=test_preparing.slowly, processes=2,
        advance=lambda files: print("read", files, flush=True),
    )
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        assert process.stdout.readline().startswith("read")
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "data").exists()
    kept = len(list(kept_folder(tmp_path / "data").glob("part-*.npz")))
    assert 2 <= kept < 14
    # Those who read for it do not outlive it.
    until = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.1)
    data = prepared(source, tmp_path / "data", read=slowly)
    assert len(data) == 40
    assert contents(data.path) == contents(prepared(source, tmp_path / "whole").path)


def slowly(data: bytes, name: str) -> object:
    time.sleep(0.05)
    return nw_ucla.read_file(data, name)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in listed
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_two_at_once_do_not_mix(tmp_path):
    source = ucla(tmp_path / "x.zip")

    def meanwhile(files: int) -> None:
        with pytest.raises(DataError, match="data is being prepared by another process"):
            prepared(source, tmp_path / "data")

    assert len(prepared(source, tmp_path / "data", advance=meanwhile)) == 14


def test_the_first_bad_file_in_order_ends_it_and_what_is_good_is_kept(tmp_path):
    source = ucla(tmp_path / "x.zip", bad=(9, 11))
    names = [file.name for file in nw_ucla.find_files(source)]
    first = next(name for name in names if "e09" in name or "e11" in name)
    for processes in (1, 2):
        with pytest.raises(BadFile, match=f"^{first}"):
            prepared(source, tmp_path / "data", processes=processes)
    assert kept_folder(tmp_path / "data").exists()
    data = prepared(source, tmp_path / "data", skip_bad=True)
    assert len(data) == 12
    assert len(data.skipped) == 2
    assert not kept_folder(tmp_path / "data").exists()


def test_what_the_data_set_leaves_out_does_not_end_it(tmp_path):
    data = prepared(ucla(tmp_path / "x.zip"), tmp_path / "data", read=without_the_first)
    assert len(data) == 13
    assert [(s.name, s.reason) for s in data.skipped] == [
        ("all_sqe/a01_s01_e00_v01.json", "the authors say so")
    ]


def without_the_first(data: bytes, name: str) -> object:
    if "e00" in name:
        raise LeftOut("the authors say so")
    return nw_ucla.read_file(data, name)


def test_a_reader_that_dies_is_said_with_what_to_do(tmp_path):
    source = ucla(tmp_path / "x.zip")
    with pytest.raises(DataError, match=r"was ended from outside.*the same command goes on"):
        prepared(source, tmp_path / "data", read=dying, processes=2)
    assert not (tmp_path / "data").exists()


def dying(data: bytes, name: str) -> object:
    if "e09" in name:
        os._exit(1)
    return nw_ucla.read_file(data, name)


def test_a_part_gives_back_what_went_in(tmp_path):
    sequences = [
        nw_ucla.read_file(f.read(), f.name) for f in nw_ucla.find_files(ucla(tmp_path / "x.zip"))
    ]
    part = parts.lay_out(sequences)
    part.save(tmp_path / "part.npz")
    again = parts.Part.load(tmp_path / "part.npz")
    assert again.lines == part.lines
    assert again.kind == part.kind
    np.testing.assert_array_equal(again.joints, part.joints)
    np.testing.assert_array_equal(again.present, part.present)
    nothing = parts.lay_out([])
    nothing.save(tmp_path / "nothing.npz")
    assert parts.Part.load(tmp_path / "nothing.npz").kind is None


# ---------------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_that_of_the_data(tmp_path):
    source = ucla(tmp_path / "x.zip")
    data = prepared(source, tmp_path / "data")
    assert len(data.fingerprint) == 64
    assert prepared(source, tmp_path / "again").fingerprint == data.fingerprint
    assert prepared(ucla(source, files=13), tmp_path / "a").fingerprint != data.fingerprint
    other = prepared(ucla(source), tmp_path / "b", protocols=())
    assert other.fingerprint != data.fingerprint


def test_folders_from_before_have_the_same_fingerprint(tmp_path):
    data = prepared(ucla(tmp_path / "x.zip"), tmp_path / "data")
    meta = json.loads((data.path / "dataset.json").read_text())
    del meta["fingerprint"], meta["subject_names"]
    (data.path / "dataset.json").write_text(json.dumps(meta))
    assert SkeletonDataset.open(data.path).fingerprint == data.fingerprint


def test_a_run_is_held_to_its_data(tmp_path):
    source = ucla(tmp_path / "x.zip")
    data = prepared(source, tmp_path / "data")
    results = {"fingerprint": data.fingerprint}
    same_data(results, prepared(source, tmp_path / "again"))
    same_data({}, data)
    other = prepared(ucla(source, files=13), tmp_path / "other")
    with pytest.raises(DataError, match="other is not the data set that the run was trained on"):
        same_data(results, other)
