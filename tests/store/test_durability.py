from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance.dataset import DatasetOptimizer
from lance.optimize import Compaction

from tests.store.record_until_killed import SITES, maps_of, record
from tests.stores import make_catalogue, make_store
from tssan_viz.store import StoreDamaged, StoredSample, StoreWriteError, durable, open_store, tables
from tssan_viz.store.schema import decode
from tssan_viz.store.verification import verify

SCRIPT = Path(__file__).with_name("record_until_killed.py")


def start(store: Path, run: str, rows: int, per_flush: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(store), run, str(rows), str(per_flush)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def check(path: Path, run: str, acknowledged: int) -> int:
    """Check that a store holds at least the acknowledged rows, and nothing that is not right."""
    store = open_store(path)
    selection = store.select(run=run)
    frame = selection.rows()
    numbers = [int(name[1:]) for name in frame["sample"]]
    assert len(numbers) == len(set(numbers)), "a row is there twice"
    assert numbers == sorted(numbers), "rows are not in the order of recording"
    assert set(range(acknowledged)) <= set(numbers), "an acknowledged row is lost"
    if numbers:
        values = selection.maps()
        for i, n in enumerate(numbers):
            for layer, site in enumerate(SITES):
                np.testing.assert_array_equal(
                    values.values[i, layer], decode(maps_of(n)[site.name])[0]
                )
        measures = selection.measures()
        assert len(measures) == len(numbers) * 4
        peaks = measures.set_index(["sample", "layer", "head"])["peak"]
        n = numbers[-1]
        expected = maps_of(n)["blocks.1.attend"].astype(np.float32).max(-1).mean(-1)[0, 1]
        assert peaks[(f"v{n}", 2, 2)] == pytest.approx(expected)
        for n in (numbers[0], numbers[-1]):
            assert store.sample(f"v{n}", run).frames.tolist() == [[n] * 8]
    return len(numbers)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "store"
    rng = np.random.default_rng(1)
    rows, acknowledged, kills = 4000, 0, 0
    # On a busy machine the first ones may die before anything is acknowledged.
    while kills < 6 or not acknowledged:
        process = start(path, "a", rows, 3)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.wait()
        kills += 1
        if said:
            assert said[-1] != "done", "the process was to die at work: record more rows"
            acknowledged = max(acknowledged, int(said[-1]))
        check(path, "a", acknowledged)
    assert acknowledged
    record(path, "a", acknowledged + 30, 10)
    assert check(path, "a", acknowledged + 30) >= acknowledged + 30
    maps = lance.dataset(f"{path}/maps/a/8x8")
    assert maps.count_rows() == open_store(path).rows("a").shape[0], "orphans were not dropped"


class Death(BaseException):
    """Stands for the process's end."""


@pytest.mark.parametrize("step", range(6))
def test_an_end_between_any_two_writes_leaves_whole_rows(tmp_path, monkeypatch, step):
    path = tmp_path / "store"
    record(path, "a", 4, 4)
    writer = open_store(path).writer(
        "a", sites=SITES, catalogue=make_catalogue(("put on jacket", "reading"))
    )
    appends = 0
    whole = tables.DurableTable.begin_append

    def begin_append(self, table):
        nonlocal appends
        if appends == step:
            raise Death
        appends += 1
        return whole(self, table)

    monkeypatch.setattr(tables.DurableTable, "begin_append", begin_append)

    def go_on():
        for n in range(4, 10):
            maps = maps_of(n)
            peaks = {k: v.astype(np.float32).max(-1).mean(-1) for k, v in maps.items()}
            writer.add({"sample": [f"v{n}"], "label": [n % 2]}, maps, {"peak": peaks})
            writer.flush()

    with pytest.raises(Death):
        go_on()
    acknowledged = writer.rows_acknowledged
    writer._lock.release()
    monkeypatch.undo()
    assert len(open_store(path).rows("a")) == 4 + acknowledged
    np.testing.assert_array_equal(
        open_store(path).select().maps().values[-1, 0],
        decode(maps_of(3 + acknowledged)["blocks.0.attend"])[0],
    )
    record(path, "a", 12, 5)
    assert check(path, "a", 12) == 12
    assert lance.dataset(f"{path}/maps/a/8x8").count_rows() == 12
    assert lance.dataset(f"{path}/measures").count_rows() == 12 * 4


@pytest.mark.parametrize("after", ["nothing", "writing", "waiting for the disk"])
@pytest.mark.parametrize("step", range(4))
def test_an_interrupt_from_the_keyboard_doubles_nothing(tmp_path, monkeypatch, step, after):
    path = tmp_path / "store"
    record(path, "a", 4, 4)
    appends = 0
    whole = tables.DurableTable.begin_append

    def begin_append(self, table):
        nonlocal appends
        appends += 1
        is_due = appends == step + 1
        if is_due and after == "nothing":
            raise KeyboardInterrupt
        finish = whole(self, table)
        if is_due and after == "writing":
            raise KeyboardInterrupt

        def interrupted():
            finish()
            raise KeyboardInterrupt

        return interrupted if is_due else finish

    def go_on():
        store = open_store(path)
        catalogue = make_catalogue(("put on jacket", "reading"))
        with store.writer("a", sites=SITES, catalogue=catalogue) as writer:
            maps = maps_of(4)
            peaks = {k: v.astype(np.float32).max(-1).mean(-1) for k, v in maps.items()}
            writer.add_samples([StoredSample("v4", 0, None, None, 4, 1, frames=np.full((1, 8), 4))])
            writer.add({"sample": ["v4"], "label": [0]}, maps, {"peak": peaks})
            writer.flush()

    monkeypatch.setattr(tables.DurableTable, "begin_append", begin_append)
    with pytest.raises(KeyboardInterrupt):
        go_on()
    monkeypatch.undo()
    assert check(path, "a", 5) == 5
    assert lance.dataset(path / "maps/a/8x8").count_rows() == 5
    assert lance.dataset(path / "measures").count_rows() == 20


def test_two_processes_lose_nothing(tmp_path):
    path = tmp_path / "store"
    processes = [start(path, run, 60, 2) for run in ("a", "b")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.read().split()[-1] == "done"
        assert process.wait() == 0
    assert sorted(open_store(path).run_names()) == ["a", "b"]
    for run in ("a", "b"):
        assert check(path, run, 60) == 60


def merge_slowly(meanwhile):
    """Let something happen between the plan and the commit of a merge."""

    def compact_files(self, *, target_rows_per_fragment):
        plan = Compaction.plan(
            self._dataset, {"target_rows_per_fragment": target_rows_per_fragment}
        )
        meanwhile()
        Compaction.commit(self._dataset, [task.execute(self._dataset) for task in plan.tasks])

    return compact_files


def test_what_is_appended_during_a_merge_stays_behind_what_was_there(tmp_path, monkeypatch):
    schema = pa.schema([("row_id", pa.int64())])
    merging, appending = (tables.DurableTable(tmp_path / "rows", schema, shared=True) for _ in "ab")
    for n in range(3):
        appending.append(pa.table({"row_id": [n]}))
    append = threading.Thread(target=appending.append, args=(pa.table({"row_id": [3]}),))

    def meanwhile():
        append.start()
        append.join(0.5)

    monkeypatch.setattr(DatasetOptimizer, "compact_files", merge_slowly(meanwhile))
    merging.compact()
    append.join()
    dataset = lance.dataset(tmp_path / "rows")
    assert dataset.to_table()["row_id"].to_pylist() == [0, 1, 2, 3]
    assert len(dataset.get_fragments()) == 2


def test_a_merge_while_a_version_is_looked_at_is_no_damage(tmp_path, monkeypatch):
    schema = pa.schema([("row_id", pa.int64())])
    table = tables.DurableTable(tmp_path / "maps", schema, shared=False)
    for n in range(3):
        table.append(pa.table({"row_id": [n]}))
    look = tables._data_is_whole

    def look_late(dataset, path):
        monkeypatch.setattr(tables, "_data_is_whole", look)
        table.compact()
        assert not look(dataset, path)
        return look(dataset, path)

    monkeypatch.setattr(tables, "_data_is_whole", look_late)
    dataset, note = tables.open_whole(tmp_path / "maps")
    assert dataset.count_rows() == 3
    assert note is None


def test_of_the_folders_outside_only_the_one_that_names_the_store_is_touched(tmp_path, monkeypatch):
    synced = watch_fsync(monkeypatch)
    record(tmp_path / "new" / "store", "a", 4, 2)
    outside = {p for p in map(Path, synced) if not p.is_relative_to(tmp_path / "new" / "store")}
    assert outside == {tmp_path, tmp_path / "new"}


def keep_versions(monkeypatch):
    """Leave the store as it is when a recording is cut off: nothing merged, nothing dropped."""
    monkeypatch.setattr(tables.DurableTable, "compact", lambda self: None)
    monkeypatch.setattr(tables.DurableTable, "clean", lambda self, alone=False: None)


def manifests(dataset: Path) -> list[Path]:
    return sorted((dataset / "_versions").glob("*.manifest"))


@pytest.mark.parametrize("left", [0, 100])
@pytest.mark.parametrize("name", ["rows", "samples", "maps/a/8x8"])
def test_a_torn_manifest_gives_the_newest_whole_version(tmp_path, monkeypatch, name, left):
    path = tmp_path / "store"
    keep_versions(monkeypatch)
    record(path, "a", 6, 2)
    newest = manifests(path / name)[0]
    newest.write_bytes(newest.read_bytes()[:left])
    store = open_store(path)
    (note,) = store.notes
    assert "cannot be read" in note
    assert name in note
    if name == "rows":
        assert len(store.rows("a")) == 4
        assert store.select().maps().shape[0] == 4
        record(path, "a", 6, 2)
        assert check(path, "a", 6) == 6
        assert open_store(path).notes == []
        assert store.notes == []
        assert newest.with_name(newest.name + ".torn").exists()
    elif name == "samples":
        assert store.sample("v1").frames.tolist() == [[1] * 8]
    else:
        with pytest.raises(StoreDamaged, match="lacks maps"):
            store.select().maps().load()


def test_a_torn_data_file_gives_the_version_before_it(tmp_path, monkeypatch):
    path = tmp_path / "store"
    keep_versions(monkeypatch)
    record(path, "a", 6, 2)
    fragments = lance.dataset(path / "rows").get_fragments()
    file = path / "rows" / "data" / fragments[-1].data_files()[0].path
    file.write_bytes(file.read_bytes()[:-1])
    store = open_store(path)
    assert len(store.rows("a")) == 4
    assert len(store.notes) == 1
    record(path, "a", 6, 2)
    assert check(path, "a", 6) == 6


def test_what_others_added_behind_a_torn_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    schema = pa.schema([("row_id", pa.int64())])
    table = tables.DurableTable(path, schema, shared=True)
    for n in range(3):
        table.append(pa.table({"row_id": [n]}))
    (file,) = lance.dataset(path).get_fragments()[1].data_files()
    torn = path / "data" / file.path
    torn.write_bytes(torn.read_bytes()[:-1])
    tables.DurableTable(path, schema, shared=True).append(pa.table({"row_id": [3]}))
    dataset, note = tables.open_whole(path)
    assert note is None
    assert dataset.to_table()["row_id"].to_pylist() == [0, 2, 3]


def test_small_files_are_there_until_the_merged_one_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    schema = pa.schema([("row_id", pa.int64())])
    table = tables.DurableTable(path, schema, shared=True)
    for n in range(3):
        table.append(pa.table({"row_id": [n]}))
    monkeypatch.setattr(tables.DurableTable, "clean", lambda self, alone=False: None)
    table.compact()
    ((file,),) = (fragment.data_files() for fragment in lance.dataset(path).get_fragments())
    # As a power loss leaves it.
    (path / "data" / file.path).write_bytes(b"")
    tables.DurableTable(path, schema, shared=True).append(pa.table({"row_id": [3]}))
    dataset, note = tables.open_whole(path)
    assert note is None
    assert dataset.to_table()["row_id"].to_pylist() == [0, 1, 2, 3]


def test_a_store_without_any_whole_version_says_so(tmp_path):
    store = make_store(tmp_path / "s", subjects=2, cameras=(1,), replications=(1,), frames=4)
    for manifest in manifests(store.path / "rows"):
        manifest.write_bytes(b"")
    with pytest.raises(StoreDamaged, match="none of its"):
        open_store(store.url).rows("generated")


def test_a_manifest_that_looks_whole_is_never_set_aside(tmp_path, monkeypatch):
    path = tmp_path / "store"
    record(path, "a", 2, 2)
    newest = manifests(path / "rows")[0]
    content = newest.read_bytes()
    newest.write_bytes(b"\xff" * (len(content) - 4) + content[-4:])
    with pytest.raises(StoreDamaged):
        record(path, "a", 4, 2)
    assert newest.exists()


def watch_fsync(monkeypatch) -> list[str]:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    return synced


def test_acknowledged_means_fsynced(tmp_path, monkeypatch):
    synced = watch_fsync(monkeypatch)
    path = tmp_path / "store"
    store = open_store(path, create=True)
    writer = store.writer("a", sites=SITES, catalogue=make_catalogue(("put on jacket", "reading")))
    for n in range(3):
        synced.clear()
        before = {str(p) for p in path.rglob("*")}
        writer.add({"sample": [f"v{n}"]}, maps_of(n))
        writer.flush()
        new = {str(p) for p in path.rglob("*") if "_digests" not in p.parts} - before
        assert {p for p in new if not p.endswith(".lock")} <= set(synced)
        changed_folders = {str(Path(p).parent) for p in new if Path(p).is_file()}
        assert changed_folders <= set(synced)
        order = [p for p in synced if p.endswith(".lance") and "/data/" in p]
        assert "/maps/" in order[0]
        assert "/rows/" in order[-1]
    assert str(path / "maps" / "a") in {str(Path(p).parent) for p in before} | set(synced)
    writer.close()


def test_a_disk_that_fills_up_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "store"
    record(path, "a", 4, 4)
    store = open_store(path)
    catalogue = make_catalogue(("put on jacket", "reading"))
    writer = store.writer("a", sites=SITES, catalogue=catalogue)
    writer.add({"sample": ["v4"], "label": [0]}, maps_of(4))

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "sync_file", full)
    with pytest.raises(StoreWriteError, match="the disk is full") as caught:
        writer.flush()
    assert not caught.value.may_retry
    assert writer.rows_acknowledged == 0
    monkeypatch.undo()
    # After a failed fsync the system's word is worth nothing: the writer stays closed to it.
    with pytest.raises(StoreWriteError):
        writer.flush()
    with pytest.raises(StoreWriteError):
        writer.close()
    record(path, "a", 6, 2)
    rows = open_store(path).rows("a")
    assert rows["sample"].tolist() == [f"v{n}" for n in range(6)]
    assert open_store(path).select().maps().shape[0] == 6


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let the system refuse to write more into one file, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def four_stored_and_one_added(path):
    """A writer that has a row in memory, behind four on the disk."""
    record(path, "a", 4, 4)
    catalogue = make_catalogue(("put on jacket", "reading"))
    writer = open_store(path).writer("a", sites=SITES, catalogue=catalogue)
    maps = maps_of(4)
    peaks = {k: v.astype(np.float32).max(-1).mean(-1) for k, v in maps.items()}
    writer.add({"sample": ["v4"], "label": [0]}, maps, {"peak": peaks})
    return writer


def test_what_the_system_refuses_to_write_may_be_tried_again(tmp_path):
    path = tmp_path / "store"
    writer = four_stored_and_one_added(path)
    # Where the last bytes of a file do not come, Lance commits it all the same.
    for size in (0, 900, 1800, 2300):
        with files_no_longer_than(size), pytest.raises(StoreWriteError) as caught:
            writer.flush()
        assert caught.value.may_retry
        assert check(path, "a", 4) == 4
    writer.flush()
    writer.close()
    rows = open_store(path).rows("a")
    assert rows["sample"].tolist() == [f"v{n}" for n in range(5)]
    assert verify(open_store(path)).damaged == []


@pytest.mark.parametrize("missing", [1, 40, 400])
def test_a_merge_that_the_disk_had_no_room_for_loses_nothing(tmp_path, monkeypatch, missing):
    schema = pa.schema([("row_id", pa.int64())])
    table = tables.DurableTable(tmp_path / "rows", schema, shared=True)
    for n in range(3):
        table.append(pa.table({"row_id": [n]}))
    merged = tmp_path / "merged"
    lance.write_dataset(pa.table({"row_id": [0, 1, 2]}), merged)
    (size,) = (file.stat().st_size for file in (merged / "data").iterdir())
    write = DatasetOptimizer.compact_files

    def cut_short(self, **options):
        with files_no_longer_than(size - missing):
            return write(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DatasetOptimizer, "compact_files", cut_short)
        with pytest.warns(UserWarning, match="could not be merged"):
            table.compact()
    dataset, note = tables.open_whole(tmp_path / "rows")
    assert note is None
    assert dataset.to_table()["row_id"].to_pylist() == [0, 1, 2]
    table.append(pa.table({"row_id": [3]}))
    table.compact()
    dataset, note = tables.open_whole(tmp_path / "rows")
    assert dataset.to_table()["row_id"].to_pylist() == [0, 1, 2, 3]
    assert len(dataset.get_fragments()) == 1


@pytest.mark.parametrize("where", ["maps/a/8x8", "measures", "rows"])
def test_a_refused_append_may_be_tried_again(tmp_path, monkeypatch, where):
    path = tmp_path / "store"
    writer = four_stored_and_one_added(path)
    whole = lance.write_dataset

    def refuse(table, target, **options):
        if Path(target) == path / where:
            raise OSError("LanceError(IO): No space left on device (os error 28)")
        return whole(table, target, **options)

    monkeypatch.setattr(lance, "write_dataset", refuse)
    for _ in range(2):
        with pytest.raises(StoreWriteError, match="the disk is full") as caught:
            writer.flush()
    assert caught.value.may_retry
    monkeypatch.undo()
    writer.flush()
    assert writer.rows_acknowledged == 1
    writer.close()
    rows = open_store(path).rows("a")
    assert rows["sample"].tolist() == [f"v{n}" for n in range(5)]
    assert lance.dataset(path / "maps/a/8x8").count_rows() == 5
    assert lance.dataset(path / "measures").count_rows() == 20


def test_merging_that_fails_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "store"

    def fail(self, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(DatasetOptimizer, "compact_files", fail)
    with pytest.warns(UserWarning, match="could not be merged"):
        record(path, "a", 4, 2)
    monkeypatch.undo()
    assert check(path, "a", 4) == 4


def test_what_others_append_is_seen(tmp_path):
    path = tmp_path / "store"
    record(path, "a", 4, 4)
    store = open_store(path)
    before = store.select()
    assert len(before) == 4
    with start(path, "a", 10, 3) as process:
        assert process.stdout is not None
        assert process.stdout.read().split()[-1] == "done"
    assert len(store.select()) == 10
    assert store.select().maps().shape[0] == 10
    assert len(before) == 4
    assert before.maps().shape[0] == 4


def test_a_row_whose_addition_was_interrupted_is_not_stored_in_part(tmp_path, monkeypatch):
    store = open_store(tmp_path / "s", create=True)
    maps = maps_of(0)
    with store.writer("r", sites=SITES, catalogue=make_catalogue(("a", "b"))) as writer:
        made = writer._measure_table

        def interrupted(*of):
            monkeypatch.setattr(writer, "_measure_table", made)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_measure_table", interrupted)
        line = {"sample": ["v0"], "label": [0]}
        entropy = {"entropy": {site.name: np.ones((1, site.heads), np.float32) for site in SITES}}
        with pytest.raises(KeyboardInterrupt):
            writer.add(line, maps, entropy)
        writer.flush()
        assert writer.rows_acknowledged == 0
        writer.add(line, maps, entropy)
    found = verify(open_store(tmp_path / "s"))
    assert (found.damaged, found.rows) == ([], 1)
