"""Kept cells against the maps that they are made of: extended, damaged, interrupted, shared."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comparison.stores import every, random_maps, write
from tssan_viz import compare_class
from tssan_viz.comparison import ClassComparison, kept, kept_making
from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import (
    kept_class_similarities,
    kept_subject_similarities,
    kept_view_similarities,
)
from tssan_viz.comparison.kept_files import cells_folder, kept_cells_faults
from tssan_viz.comparison.similarity import METRICS, unit_vectors
from tssan_viz.store import AttentionStore, Site, open_store
from tssan_viz.store.upkeep import remove
from tssan_viz.store.verification import verify

RUN = "by hand"


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many maps' rows each reading asks for."""
    asked: list[int] = []
    reading = threading.local()

    def counting(read: Callable[..., object]) -> Callable[..., object]:
        def counted(
            self: AttentionStore, run: str, row_ids: np.ndarray, *rest: object, **more: object
        ) -> object:
            # One of them may ask the other.
            if getattr(reading, "already", False):
                return read(self, run, row_ids, *rest, **more)
            asked.append(len(row_ids))
            reading.already = True
            try:
                return read(self, run, row_ids, *rest, **more)
            finally:
                reading.already = False

        return counted

    with monkeypatch.context() as patched:
        for name in ("read_maps", "read_pieces"):
            patched.setattr(AttentionStore, name, counting(getattr(AttentionStore, name)))
        yield asked


def from_maps(source: object, name: str, **options: object) -> ClassComparison:
    """The comparison and a mean map, with no kept cell."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(KeptCells, "of", lambda *_, **__: None)
        result = compare_class(source, name, permutations=30, **options)
        result.__dict__["means"] = result.mean_maps(1, 1)
    return result


def assert_same(found: ClassComparison, expected: ClassComparison) -> None:
    means, others = found.table.drop(columns="hedges_g"), expected.table.drop(columns="hedges_g")
    pd.testing.assert_frame_equal(means, others, rtol=0, atol=1e-6)
    # A ratio, whose divisor may be small.
    np.testing.assert_allclose(found.table["hedges_g"], expected.table["hedges_g"], rtol=1e-3)
    order = ["class_name", "class_code"]
    pd.testing.assert_frame_equal(
        found.neighbours.sort_values(order, ignore_index=True),
        expected.neighbours.sort_values(order, ignore_index=True),
        rtol=0,
        atol=1e-6,
    )
    np.testing.assert_allclose(found.mean_maps(1, 1), expected.__dict__["means"], atol=1e-6)
    counts = ("n_samples", "n_class_samples", "subjects", "n_exchanged")
    assert all(getattr(found, name) == getattr(expected, name) for name in counts)


def compare(source: object, name: str = "reading", **options: object) -> ClassComparison:
    return compare_class(source, name, permutations=30, **options)


def some_uniform(rows: pd.DataFrame, site: Site) -> np.ndarray:
    maps = random_maps(rows, site, seed=len(rows))
    maps[np.arange(len(rows)) % 5 == 0, 0] = 1 / site.key
    return maps


def files(store: AttentionStore) -> list[Path]:
    return sorted(f for f in (store.path / "cells").rglob("*") if f.is_file() and f.name != ".lock")


# ---- the same as from the maps


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), metric=st.sampled_from(METRICS), parts=st.integers(2, 3))
def test_extended_is_rebuilt_is_from_maps(seed: int, metric: str, parts: int) -> None:
    rng = np.random.default_rng(seed)
    rows = every(subjects=4, classes=3, cameras=2, segments=2)
    again = rows.assign(replication=2, sample="R" + rows["sample"])
    rows = pd.concat([rows, again], ignore_index=True)
    rows = rows[rng.random(len(rows)) < 0.6].sample(frac=1, random_state=seed)
    rows = pd.concat([every(subjects=3, classes=2), rows]).drop_duplicates(
        ["sample", "segment"], ignore_index=True
    )
    with tempfile.TemporaryDirectory() as folder:
        for part in np.array_split(np.arange(6, len(rows)), parts):
            # The first part has the cells without which there is no comparison.
            chosen = rows.iloc[np.concatenate([np.arange(6), part]) if part[0] == 6 else part]
            store = write(Path(folder), chosen.reset_index(drop=True), layers=2, maps=some_uniform)
            extended = compare(store, metric=metric)
            assert not any("damaged" in note for note in extended.notes)
            assert_same(extended, from_maps(store, "reading", metric=metric))
        for file in files(store):
            file.unlink()
        rebuilt = compare(store, metric=metric)
        assert_same(rebuilt, from_maps(store, "reading", metric=metric))
        assert kept_cells_faults(store, RUN) == []


def test_the_second_comparison_reads_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path, every(cameras=2, segments=2), layers=2, maps=some_uniform)
    with counted(monkeypatch) as asked:
        first = compare(store, metric="pearson")
        assert sum(asked) > 0
    means = first.mean_maps(1, 2)
    with counted(monkeypatch) as asked:
        again = compare(open_store(tmp_path), metric="pearson")
        pd.testing.assert_frame_equal(again.table, first.table)
        assert again.notes == first.notes
        np.testing.assert_array_equal(again.mean_maps(1, 2), means)
        others = [
            compare(store, "put on jacket", metric="pearson"),
            compare(store, with_class="hand waving", metric="pearson"),
            compare(store, head=2, layer="last", metric="pearson"),
            compare(store.select(head=[2, 1]), metric="pearson"),
            compare(store.select(subject=[1, 3, 4]), metric="pearson"),
        ]
        assert asked == []
    assert_same(others[0], from_maps(store, "put on jacket", metric="pearson"))
    assert_same(others[1], from_maps(store, "reading", with_class=2, metric="pearson"))
    for found, source in ((others[2], store.select(layer=2, head=2)), (others[3], store)):
        expected = from_maps(source, "reading", metric="pearson") if source is store else None
        table = first.table if expected is None else expected.table
        both = found.table.merge(table, on=["layer", "head"], suffixes=("", "_all"))
        assert len(both) == len(found.table)
        np.testing.assert_allclose(both["delta"], both["delta_all"], atol=1e-6)
    three = from_maps(store.select(subject=[1, 3, 4]), "reading", metric="pearson")
    assert_same(others[4], three)


def test_cells_that_are_missing_are_added_to_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path, every(subjects=3, classes=4, cameras=2))
    compare(store, with_class="hand waving")
    with counted(monkeypatch) as asked:
        everything = compare(store)
        assert asked == [12]
    assert_same(everything, from_maps(store, "reading"))


def test_what_was_appended_costs_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = every(subjects=4, classes=3, cameras=2, segments=2)
    late = ((rows["subject"] == 2) & (rows["camera"] == 2) & (rows["label"] == 1)) | (
        (rows["subject"] == 4) & (rows["label"] == 2)
    )
    compare(write(tmp_path, rows[~late]))
    before = files(open_store(tmp_path))
    store = write(tmp_path, rows[late])
    with counted(monkeypatch) as asked:
        found = compare(store)
        # Of the one cell that grew both cameras, of the one that came all: four rows each.
        assert asked == [8]
        assert_same(found, from_maps(store, "reading"))
    after = files(store)
    assert len([f for f in after if f.suffix == ".json"]) == 2
    assert not any(f.exists() for f in before if f.suffix != ".json" and "cosine" not in f.name)


def test_rows_that_are_gone_and_a_run_of_the_same_name_are_noticed(tmp_path: Path) -> None:
    rows = every(subjects=4)
    store = write(tmp_path, rows)
    first = compare(store)
    remove(store, RUN)
    assert not cells_folder(tmp_path, RUN).exists()
    store = write(tmp_path, rows, maps=lambda r, s: random_maps(r, s, seed=7))
    other = compare(store)
    assert (other.table["W"] != first.table["W"]).all()
    # The cells of a store that is no more, under those of another.
    kept_cells = files(store)
    contents = [file.read_bytes() for file in kept_cells]
    remove(store, RUN)
    store = write(tmp_path, rows[rows["subject"] < 4])
    compare(store)
    for file in files(store):
        file.unlink()
    for file, content in zip(kept_cells, contents, strict=True):
        file.write_bytes(content)
    assert_same(compare(store), from_maps(store, "reading"))


# ---- what is no matter of kept cells


def test_parts_of_cells_are_of_the_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path, every(cameras=2, segments=2))
    for part in (store.select(camera=1), store.select(segment=2), store.select(where="row_id > 0")):
        found = compare(part)
        with counted(monkeypatch) as asked:
            compare(part)
            whole = len(part) == len(store.rows())
            assert (asked == []) == whole
        assert_same(found, from_maps(part, "reading"))


def test_each_step_split_and_person_has_cells_of_its_own(tmp_path: Path) -> None:
    later = every().assign(step=100)
    train = every(split="train").assign(
        subject=lambda r: r["subject"] + 10, sample=lambda r: "T" + r["sample"]
    )
    second = every(person=2)
    store = write(tmp_path, pd.concat([every(), train, second], ignore_index=True))
    asked = ({}, {"split": "train"}, {"person": 2})
    for options in asked:
        assert_same(compare(store, **options), from_maps(store, "reading", **options))
    store = write(tmp_path, later)
    newest = compare(store)
    assert "rows of step 100 were taken, the newest of 2" in newest.notes
    assert_same(newest, from_maps(store, "reading"))
    folders = {file.parent.parent for file in files(store)}
    scopes = [json.loads(f.read_text())["scope"] for f in files(store) if f.suffix == ".json"]
    assert len(folders) == 4
    assert {(s["split"], s["step"], s["person"]) for s in scopes} == {
        ("test", 0, 1),
        ("train", 0, 1),
        ("test", 0, 2),
        ("test", 100, 1),
    }


def test_copies_and_strangers_are_in_no_cell(tmp_path: Path) -> None:
    rows = every(subjects=4, cameras=2)
    strangers = every(subjects=1, subject=None).assign(sample=lambda r: "X" + r["sample"])
    both = pd.concat([rows, strangers], ignore_index=True)
    store = write(tmp_path, both, copies={"S2L1C1": "S1L1C1", "S3L0C1": "elsewhere"})
    found = compare(store)
    assert files(store)
    assert found.n_samples == 23
    assert_same(found, from_maps(store, "reading"))


def test_rows_that_say_little_are_kept_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dict.fromkeys(("camera", "replication", "person", "split"))
    store = write(tmp_path, every(subjects=4).assign(**nothing), maps=some_uniform)
    for metric in METRICS:
        first = compare(store, metric=metric)
        with counted(monkeypatch) as asked:
            compare(store, metric=metric)
            assert asked == []
        assert_same(first, from_maps(store, "reading", metric=metric))


# ---- faults


@pytest.mark.parametrize("what", ["json", "units", "sums", "totals", "gram", "index"])
@pytest.mark.parametrize("how", ["flipped", "torn", "gone"])
def test_damage_is_said_and_mended(tmp_path: Path, what: str, how: str) -> None:
    store = write(tmp_path, every(subjects=4, cameras=2))
    first = compare(store)
    (file,) = [f for f in files(store) if what in f.name.removeprefix("main-layer1")]
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[-10] ^= 4
        file.write_bytes(content)
    elif how == "torn":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    faults = kept_cells_faults(store, RUN)
    lost = what == "json" and how == "gone"
    assert len(faults) == (0 if lost else 1)
    assert all(str(file) in fault for fault in faults)
    assert verify(store).damaged == faults
    again = compare(store)
    # An extension reads everything, a question what it needs: here no line at these ends.
    unread = what in ("units", "sums") and how == "flipped"
    assert any("damaged" in note for note in again.notes) != (unread or lost)
    pd.testing.assert_frame_equal(again.table, first.table)
    if unread:
        store = write(tmp_path, every(subjects=5).query("subject == 5"))
        extended = compare(store)
        assert any("damaged" in note and file.name in note for note in extended.notes)
        assert_same(extended, from_maps(store, "reading"))
    assert kept_cells_faults(store, RUN) == []


def test_an_interruption_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path, every(subjects=4, cameras=2), layers=3)

    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(store, progress=stop)
    assert files(store) == []

    finish = kept_making._Making.finish

    def after_one(making: kept_making._Making, described: dict[str, object]) -> None:
        if files_of := [f for f in files(store) if f.suffix == ".json"]:
            assert len(files_of) == 1
            raise KeyboardInterrupt
        finish(making, described)

    with monkeypatch.context() as patched:
        patched.setattr(kept_making._Making, "finish", after_one)
        with pytest.raises(KeyboardInterrupt):
            compare(store)
    (kept,) = {f.name.split("-")[1].partition(".")[0] for f in files(store)}
    assert kept_cells_faults(store, RUN) == []
    # What a killed process leaves is cleared away by the next.
    left = cells_folder(tmp_path, RUN).glob("*/cosine")
    unfinished = next(n for n in (1, 2, 3) if f"layer{n}" != kept)
    stray = next(left) / f"main-layer{unfinished}-0123abcd-sums.npy"
    stray.write_bytes(b"half")
    with counted(monkeypatch) as asked:
        assert_same(compare(store), from_maps(store, "reading"))
        assert len(asked) >= 2
    assert not stray.exists()


def test_a_fault_in_reading_reaches_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path, every(subjects=4), layers=2)

    def broken(*_: object, **__: object) -> np.ndarray:
        raise ValueError("the maps are gone")

    with monkeypatch.context() as patched:
        patched.setattr(AttentionStore, "read_pieces", broken)
        with pytest.raises(ValueError, match="the maps are gone"):
            compare(store)
    assert files(store) == []


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EROFS, False), (errno.EACCES, False), (errno.ENOSPC, True)]
)
def test_a_store_that_cannot_be_written_to_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: bool
) -> None:
    store = write(tmp_path, every(subjects=4))

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    with monkeypatch.context() as patched:
        patched.setattr(kept, "turn", refused)
        found = compare(store)
        assert_same(found, from_maps(store, "reading"))
    assert any("could not be kept" in note for note in found.notes) == said
    assert files(store) == []
    # Those that are there are read all the same.
    compare(store)
    with monkeypatch.context() as patched, counted(monkeypatch) as asked:
        patched.setattr(kept, "turn", refused)
        compare(store)
        assert asked == []


def test_a_full_disk_is_said_before_maps_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path, every(subjects=4))
    full = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(kept_making.shutil, "disk_usage", lambda _: full)
    found = compare(store)
    assert any("GB are needed" in note for note in found.notes)
    assert files(store) == []
    assert_same(found, from_maps(store, "reading"))


_COMPARE = """
import sys
from tssan_viz import compare_class, open_store
result = compare_class(open_store(sys.argv[1]), "reading", permutations=30)
assert not result.notes, result.notes
print(result.table.to_json(double_precision=15))
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    store = write(tmp_path, every(subjects=6, cameras=2, segments=2), layers=3)
    processes = [
        subprocess.Popen([sys.executable, "-c", _COMPARE, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1]
    assert len(files(store)) == 3 * 6
    assert kept_cells_faults(store, RUN) == []
    assert_same(compare(store), from_maps(store, "reading"))


_SLOW = """
import sys, time
from tssan_viz import compare_class, open_store
from tssan_viz.store import AttentionStore
read = AttentionStore.read_pieces
def slowly(*given, **more):
    time.sleep(600)
    return read(*given, **more)
AttentionStore.read_pieces = slowly
def progress(what, done, total):
    print("at it", flush=True)
compare_class(open_store(sys.argv[1]), "reading", progress=progress)
"""


def test_a_killed_process_leaves_no_more_than_litter(tmp_path: Path) -> None:
    store = write(tmp_path, every(subjects=4), layers=2)
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at it\n"
    process.kill()
    process.communicate(timeout=60)
    litter = files(store)
    assert litter
    assert not any(file.suffix == ".json" for file in litter)
    assert_same(compare(store), from_maps(store, "reading"))
    assert not any(file.exists() for file in litter)
    assert len(files(store)) == 2 * 6 + 1 * 5


# ---- classes, subjects, views


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_classes_and_subjects_are_compared_as_from_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = every(subjects=4, classes=4, segments=2)
    rows = rows[rng.random(len(rows)) < 0.6].reset_index(drop=True)
    rows = pd.concat([every(subjects=2, classes=2), rows]).drop_duplicates(
        ["sample", "segment"], ignore_index=True
    )
    with tempfile.TemporaryDirectory() as folder:
        selection = write(Path(folder), rows, heads=3).select(layer=1)
        maps = selection.maps().values[:, 0]
        cells = KeptCells.of(selection, person=1, metric="cosine", notes=[])
        assert cells is not None
        classes = cells.answer(1, lambda c, _: kept_class_similarities(c, 1, [2, 0]), make=True)
        people = cells.answer(1, lambda c, _: kept_subject_similarities(c, 1, [2, 0]), make=True)
    assert classes is not None
    assert people is not None
    units, _ = unit_vectors(maps)
    frame = selection.rows()
    # One row for each subject, class and segment here.
    of = {
        key: units[i]
        for i, key in enumerate(
            zip(*(frame[n].tolist() for n in ("subject", "label", "segment")), strict=True)
        )
    }

    def similarity(s: int, c: int, other: int, d: int) -> np.ndarray | None:
        segments = [k for k in (1, 2) if (s, c, k) in of and (other, d, k) in of]
        values = [np.einsum("hd,hd->h", of[s, c, k], of[other, d, k]) for k in segments]
        return np.mean(values, axis=0)[[2, 0]] if values else None

    subjects, values = people
    assert subjects == sorted({s for s, c, _ in of if c == 1})
    for i, s in enumerate(subjects):
        for j, other in enumerate(subjects):
            expected = None if i == j else similarity(s, 1, other, 1)
            expected = np.full(2, np.nan) if expected is None else expected
            np.testing.assert_allclose(values[i, j], expected, atol=1e-5)
    labels, values = classes
    assert labels == sorted({c for _, c, _ in of} - {1})
    for i, label in enumerate(labels):
        pairs = [
            similarity(s, 1, other, label)
            for s in range(1, 5)
            for other in range(1, 5)
            if s != other
        ]
        there = [pair for pair in pairs if pair is not None]
        expected = np.mean(there, axis=0) if there else np.full(2, np.nan)
        np.testing.assert_allclose(values[i], expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_views_are_compared_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = every(subjects=4, cameras=3, segments=2)
    again = rows.assign(replication=2, sample="R" + rows["sample"])
    rows = pd.concat([rows, again[rng.random(len(again)) < 0.4]], ignore_index=True)
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder), rows)
        selection = store.select()
        cells = KeptCells.of(selection, person=1, metric="cosine", notes=[])
        assert cells is not None
        found = cells.answer(1, lambda layer, _: kept_view_similarities(layer, 1, [1]), make=True)
        assert found is not None
        cameras, across, within = found
        units, _ = unit_vectors(store.select(head=2).maps().values[:, 0, 0])
    assert cameras == [1, 2, 3]
    frame = selection.rows()
    of_class = (frame["label"] == 1).to_numpy(bool)
    subject, camera, segment = (frame[n].to_numpy(int) for n in ("subject", "camera", "segment"))
    similarity = units @ units.T
    alike = subject[:, None] == subject
    both = of_class[:, None] & of_class & (segment[:, None] == segment)
    for i, a in enumerate(cameras):
        for j, b in enumerate(cameras):
            views = both & (camera[:, None] == a) & (camera == b)
            for values, pairs in (
                (across, views & ~alike),
                (within, views & alike & ~np.eye(len(frame), dtype=bool)),
            ):
                means = [
                    similarity[pairs & (segment == k)].mean()
                    for k in (1, 2)
                    if (pairs & (segment == k)).any()
                ]
                if means:
                    assert values[i, j, 0] == pytest.approx(np.mean(means), abs=1e-5)
                else:
                    assert np.isnan(values[i, j, 0])
