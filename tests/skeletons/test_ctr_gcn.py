"""CTR-GCN's archives: written as its scripts write them, read a sequence at a time."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tssan.dataset import prepare
from tssan.errors import DataError
from tssan.skeletons.completeness import check_sizes
from tssan.skeletons.ctr_gcn import is_archive, open_annotations

from tests.skeletons import written
from tests.skeletons.damage import damaged

T = 30  # real files have 300 frames


def row(frames: int, persons: int = 1, seed: int = 0, *, t: int = T) -> np.ndarray:
    """(t, 150): people about the origin, then zeros."""
    x = np.zeros((t, 2, 25, 3))
    for m in range(persons):
        x[:frames, m] = written.poses(frames, 25, seed + m) - [0, 0, 3]
    return x.reshape(t, 150)


def archive(path: Path, **options: object) -> Path:
    train = np.stack([row(12), row(30, 2, 1), row(5, seed=2)])
    test = np.stack([row(7, seed=3), row(20, 2, 4)])
    return written.ctr_gcn(path, (train, [0, 59, 13]), (test, [1, 49]), **options)


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_was_written(tmp_path, compressed):
    opened = open_annotations(archive(tmp_path / "NTU60_CS.npz", compressed=compressed))
    assert (opened.name, len(opened), len(opened.classes)) == ("ntu60", 5, 60)
    assert opened.samples == [*(f"train_{i:06d}" for i in range(3)), "test_000000", "test_000001"]
    expected = [row(12), row(30, 2, 1), row(5, seed=2), row(7, seed=3), row(20, 2, 4)]
    for sequence, x, t, m in zip(
        opened, expected, (12, 30, 5, 7, 20), (1, 2, 1, 1, 2), strict=True
    ):
        joints = x.reshape(T, 2, 25, 3).astype(np.float32).swapaxes(0, 1)
        np.testing.assert_array_equal(sequence.joints, joints[:m, :t])
        assert sequence.present.all()
        assert (sequence.subject, sequence.camera, sequence.setup) == (None, None, None)
        assert (sequence.units, sequence.fps) == ("m", 30)
    assert [sequence.class_code for sequence in opened] == ["A001", "A060", "A014", "A002", "A050"]
    assert [sequence.split for sequence in opened] == ["train"] * 3 + ["test"] * 2
    assert "does not name its samples: they are called train_000000, …" in opened.remarks[0]
    assert opened[1].persons == 2  # backwards
    assert opened[4].frames == 20


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        *(("NTU60_CS", "xsub"), ("NTU60_CV", "xview"), ("NTU120_CSub", "xsub")),
        *(("NTU120_CSet", "xset"), ("ntu_xview_v2", "xview"), ("my data", "train-test")),
    ],
)
def test_the_protocol_is_in_the_name(tmp_path, name, protocol):
    opened = open_annotations(archive(tmp_path / f"{name}.npz"))
    assert [division.name for division in opened.protocols] == [protocol]
    data = prepare(
        opened,
        tmp_path / "data",
        name=opened.name,
        classes=opened.classes,
        protocols=opened.protocols,
    )
    assert data.split().train.tolist() == [0, 1, 2]
    assert data.split().test.tolist() == [3, 4]
    if protocol == "xsub":
        assert check_sizes(data.name, opened.protocols, data.index) == [
            "xsub: 40,091 training sequences are in the protocol, 3 are here; "
            "16,487 test sequences are in the protocol, 2 are here"
        ]


def test_an_actor_that_is_there_twice_is_one_person(tmp_path):
    """As NTU RGB+D 120's archives have single actors."""
    x = row(12).reshape(T, 2, 25, 3)
    x[:, 1] = x[:, 0]
    path = written.ctr_gcn(
        tmp_path / "NTU120_CSub.npz",
        (x.reshape(1, T, 150), [119]),
        (row(3)[None], [60]),
        classes=120,
    )
    opened = open_annotations(path)
    assert (opened.name, len(opened.classes)) == ("ntu120", 120)
    assert [sequence.persons for sequence in opened] == [1, 1]
    assert [sequence.class_code for sequence in opened] == ["A120", "A061"]


def test_gaps_before_the_end_stay(tmp_path):
    x = row(20, 2)
    x[:4, 75:] = 0
    x[8:10] = 0
    path = written.ctr_gcn(tmp_path / "x.npz", (x[None], [0]), (row(3)[None], [0]))
    sequence = open_annotations(path)[0]
    assert sequence.frames == 20
    assert np.flatnonzero(~sequence.present[0]).tolist() == [8, 9]
    assert np.flatnonzero(~sequence.present[1]).tolist() == [0, 1, 2, 3, 8, 9]


def test_one_damaged_sequence_does_not_hide_the_others(tmp_path):
    x = np.stack([row(5), row(5, seed=1), row(5, seed=2)])
    x[1, 2, 4] = np.nan
    x[2] = 0
    path = written.ctr_gcn(tmp_path / "x.npz", (x, [0, 1, 2]), (row(3)[None], [0]))
    opened = open_annotations(path)
    with pytest.raises(DataError, match=r"train_000001: frame 2, joint spine_mid: y is nan"):
        opened[1]
    with pytest.raises(DataError, match="train_000002: all its coordinates are zero; expected som"):
        opened[2]
    assert opened[3].sample == "test_000000"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_arrays_are_never_in_memory(tmp_path, compressed):
    x = np.stack([row(300, 2, seed, t=300) for seed in range(100)])
    path = written.ctr_gcn(tmp_path / "x.npz", (x, [3] * 100), (x[:1], [3]), compressed=compressed)
    assert x.size * 4 > 15e6
    del x
    tracemalloc.start()
    for sequence in open_annotations(path):
        assert sequence.frames == 300
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_recognises_its_archives(tmp_path):
    assert is_archive(archive(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", joints=np.zeros(3))
    assert not is_archive(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"PK")
    assert not is_archive(tmp_path / "c.npz")
    assert not is_archive(tmp_path / "d.npz")


# ------------------------------------------------------------------------------------ bad files


def spoilt(path: Path, member: str, value: object) -> Path:
    with np.load(archive(path)) as held:
        np.savez(path, **({name: held[name] for name in held} | {member: value}))
    return path


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        (
            "x_train",
            np.zeros((3, T, 75), np.float32),
            r"x_train is float32 \(3, 30, 75\); expected f",
        ),
        (
            "x_train",
            np.zeros((3, T, 150), int),
            r"x_train is int64 \(3, 30, 150\); expected float32",
        ),
        (
            "x_test",
            np.zeros((3, T, 150)),
            "x_test has 3 sequences and y_test 2 labels; expected as",
        ),
        ("x_test", np.zeros((2, 10_001, 150), np.float16), "expected float32 .sequences, 300, 150"),
        ("x_test", np.float32(3), r"x_test.npy is float32 \(\); expected rows of numbers"),
        ("x_test", np.asfortranarray(np.zeros((2, T, 150))), "in Fortran order; expected rows"),
        ("x_train", np.array([{}]), "x_train.npy holds Python objects, which are not read"),
        ("y_train", np.eye(61)[:3], r"y_train is float64 \(3, 61\); expected a 1 among 60 or 120"),
        ("y_train", np.arange(3), r"y_train is int64 \(3,\); expected a 1 among 60 or 120 numbers"),
        (
            "y_test",
            np.eye(120)[:2],
            "y_train and y_test have 60 and 120 classes; expected the same",
        ),
        (
            "y_test",
            np.zeros((2, 60)),
            r"y_test\[0\] has 0 ones and 0 other numbers; expected a sin",
        ),
        ("y_test", np.ones((2, 60)), r"y_test\[0\] has 60 ones and 0 other numbers; expected"),
        ("y_test", np.full((2, 60), np.nan), r"y_test\[0\] has 0 ones and 60 other numbers"),
    ],
)
def test_says_what_is_wrong_with_an_array(tmp_path, member, value, said):
    path = spoilt(tmp_path / "x.npz", member, value)
    with pytest.raises(DataError, match=said) as raised:
        open_annotations(path)
    assert str(raised.value).startswith(str(path))


def test_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected an archive of CTR-GCN"):
        open_annotations(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", joints=np.zeros(3))
    with pytest.raises(DataError, match=r"holds joints\.npy; expected x_train\.npy, y_train\.npy"):
        open_annotations(tmp_path / "y.npz")
    whole = archive(tmp_path / "z.npz").read_bytes()
    (tmp_path / "z.npz").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz archive: .*fetch it again"):
        open_annotations(tmp_path / "z.npz")


def with_header(path: Path, shape: str, size: int | None = None) -> Path:
    """Replace the shape that the header of x_train states."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = len(header) if size is None else size
    lie = b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + header + bytes(100)
    archive(path)
    with zipfile.ZipFile(path) as held:
        members = {name: held.read(name) for name in held.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as held:
        for name, data in (members | {"x_train.npy": lie}).items():
            held.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        ("(3, 10000, 150)", None, "x_train.npy ends before row 0 of 3; if it was downloaded"),
        ("(3, 1000000000, 150)", None, "expected float32 .sequences, 300, 150"),
        (
            "(1000000000000, 300, 150)",
            None,
            "x_train has 1,000,000,000,000 sequences and y_train 3",
        ),
        ("(-3, 300, 150)", None, r"x_train.npy is float32 \(-3, 300, 150\); expected rows"),
        ("(3, -300, 150)", None, r"x_train.npy is float32 \(3, -300, 150\); expected rows"),
        ("(3, 300", None, "x_train.npy is no array"),
        ("__import__('os')", None, "x_train.npy is no array"),
        ("(3, 300, 150)", 2**31, "x_train.npy is no array: a header of 2147483648 bytes"),
    ],
)
def test_lies_about_sizes_take_no_memory(tmp_path, shape, size, said):
    path = with_header(tmp_path / "x.npz", shape, size)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=said):
            open_annotations(path)[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def small() -> bytes:
    file = io.BytesIO()
    np.savez(
        file,
        x_train=row(2)[None].astype(np.float32)[:, :3],
        y_train=np.eye(60, dtype=np.float32)[:1],
        x_test=row(2, 2)[None].astype(np.float32)[:, :3],
        y_test=np.eye(60, dtype=np.float32)[5:6],
    )
    return file.getvalue()


SMALL = small()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged(SMALL) | damaged(SMALL).map(lambda d: SMALL[: len(SMALL) // 2] + d), st.booleans())
def test_damaged_files_raise_nothing_else(tmp_path, data, backwards):
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    try:
        opened = open_annotations(path)
    except DataError:
        return
    positions = range(len(opened))
    for position in reversed(positions) if backwards else positions:
        try:
            sequence = opened[position]
        except DataError:
            continue
        assert np.isfinite(sequence.joints).all()
