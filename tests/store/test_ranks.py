"""Several processes that record one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pytest

from tests.store.record_until_killed import SITES, maps_of
from tests.store.test_durability import check
from tests.stores import make_catalogue
from tssan_viz.errors import UserError
from tssan_viz.store import open_store, tables
from tssan_viz.store.schema import decode
from tssan_viz.store.verification import verify

SCRIPT = Path(__file__).with_name("record_until_killed.py")
CATALOGUE = make_catalogue(("put on jacket", "reading"))


def start(store, rank, rows, ranks, per_flush):
    command = [sys.executable, SCRIPT, store, "a", rows, per_flush, rank, ranks]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    said = process.stdout.read().split()
    assert process.wait() == 0
    return said


def add(writer, numbers, value=None):
    maps = [maps_of(n if value is None else value) for n in numbers]
    joined = {s.name: np.concatenate([m[s.name] for m in maps]) for s in SITES}
    peaks = {k: v.astype(np.float32).max(-1).mean(-1) for k, v in joined.items()}
    writer.add({"sample": [f"v{n}" for n in numbers]}, joined, {"peak": peaks})


def open_rank(path, rank):
    store = open_store(path, create=True)
    return store.writer("a", sites=SITES, catalogue=CATALOGUE, rank=rank)


def assert_whole(path, count):
    store = open_store(path)
    rows = store.rows("a")
    numbers = [int(name[1:]) for name in rows["sample"]]
    assert sorted(numbers) == list(range(count))
    values = store.select().maps().values
    for i, n in enumerate(numbers):
        for layer, site in enumerate(SITES):
            np.testing.assert_array_equal(values[i, layer], decode(maps_of(n)[site.name])[0])
    measures = store.select().measures().set_index(["sample", "layer", "head"])["peak"]
    assert len(measures) == count * 4
    for n in (0, count - 1):
        expected = maps_of(n)["blocks.1.attend"].astype(np.float32).max(-1).mean(-1)[0, 1]
        assert measures[(f"v{n}", 2, 2)] == pytest.approx(expected)


def test_three_ranks_record_one_run_at_once(tmp_path):
    path = tmp_path / "store"
    processes = [start(path, rank, 60, 3, 4) for rank in range(3)]
    assert [finish(process)[-1] for process in processes] == ["done"] * 3
    assert_whole(path, 60)
    rows = open_store(path).rows("a")
    assert rows["rank"].value_counts().to_dict() == {0: 20, 1: 20, 2: 20}
    assert open_store(path).run_names() == ["a"]


def kill_and_check(path, ranks, kills):
    """Kill all ranks at random moments, again and again; then let them finish."""
    rng = np.random.default_rng(ranks)
    acknowledged = dict.fromkeys(range(ranks), 0)
    done = 0
    # On a busy machine the first ones may die before anything is acknowledged.
    while done < kills or not any(acknowledged.values()):
        done += 1
        processes = [start(path, rank, 4000, ranks, 3) for rank in range(ranks)]
        for process in processes:
            assert process.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0.0, 0.5))
        for rank, process in enumerate(processes):
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            process.wait()
            if said:
                assert said[-1] != "done", "the process was to die at work: record more rows"
                acknowledged[rank] = max(acknowledged[rank], int(said[-1]))
        numbers = {int(name[1:]) for name in open_store(path).rows("a")["sample"]}
        for rank, last in acknowledged.items():
            assert {n for n in range(last) if n % ranks == rank} <= numbers
    stored = open_store(path).rows("a")
    count = max([max(acknowledged.values()), *(int(name[1:]) + 1 for name in stored["sample"])])
    processes = [start(path, rank, count, ranks, 50) for rank in range(ranks)]
    assert [finish(process)[-1] for process in processes] == ["done"] * ranks
    assert_whole(path, count)
    folders = ["8x8", *(f"8x8-rank{rank}" for rank in range(1, ranks))]
    lines = sum(lance.dataset(f"{path}/maps/a/{f}").count_rows() for f in folders)
    assert lines == count, "orphans were not dropped"
    assert lance.dataset(f"{path}/measures").count_rows() == count * 4
    assert verify(open_store(path)).damaged == []


def test_killed_ranks_lose_nothing_that_was_acknowledged(tmp_path):
    kill_and_check(tmp_path / "store", ranks=2, kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_9_at_25_random_moments(tmp_path, ranks):
    kill_and_check(tmp_path / "store", ranks, kills=25)


def test_a_rank_that_opens_leaves_another_s_unfinished_commit_alone(tmp_path, monkeypatch):
    path = tmp_path / "store"
    one = open_rank(path, 1)
    add(one, [1, 3])
    whole = tables.DurableTable.append

    def append(self, table):
        whole(self, table)
        if self.path.name == "measures":
            # Maps and measures of rank 1 are there, its rows are not: now rank 0 begins.
            monkeypatch.setattr(tables.DurableTable, "append", whole)
            with open_rank(path, 0) as zero:
                add(zero, [0, 2])

    monkeypatch.setattr(tables.DurableTable, "append", append)
    one.flush()
    one.close()
    assert_whole(path, 4)


def test_a_row_that_two_ranks_recorded_counts_once(tmp_path):
    path = tmp_path / "store"
    zero, one = open_rank(path, 0), open_rank(path, 1)
    add(zero, [0, 1])
    zero.flush()
    add(one, [1], value=7)
    add(one, [2])
    one.close()
    zero.close()
    assert_whole(path, 3)
    store = open_store(path)
    assert store.rows("a")["rank"].tolist() == [0, 0, 1]
    assert len(store.select(where="rank = 1")) == 1


def test_what_one_rank_stored_another_skips_the_next_time(tmp_path):
    path = tmp_path / "store"
    for rank in (0, 1):
        with open_rank(path, rank) as writer:
            add(writer, [rank])
    with open_rank(path, 0) as writer:
        add(writer, [0, 1, 2])
        assert writer.rows_skipped == 2
    assert_whole(path, 3)


def test_a_rank_is_one_process_at_a_time(tmp_path):
    with open_rank(tmp_path / "store", 1):
        with pytest.raises(UserError, match="by another process of rank 1"):
            open_rank(tmp_path / "store", 1)
        with open_rank(tmp_path / "store", 0):
            pass
    with pytest.raises(UserError, match="rank is -1"):
        open_rank(tmp_path / "store", -1)


def test_one_process_is_rank_0(tmp_path):
    path = tmp_path / "store"
    process = start(path, 0, 4, 1, 2)
    assert finish(process)[-1] == "done"
    assert check(path, "a", 4) == 4
    assert open_store(path).rows("a")["rank"].tolist() == [0] * 4
