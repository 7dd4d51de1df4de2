from __future__ import annotations

import lance
import numpy as np
import pandas as pd
import pytest

from tests.store.record_until_killed import SITES, maps_of, record
from tests.store.test_durability import check
from tests.store.test_integrity import data_of, flip
from tests.store.test_ranks import add, open_rank
from tests.store.test_writing import make_first_format
from tests.stores import make_catalogue, make_store
from tssan_viz.errors import UserError
from tssan_viz.store import open_store, tables
from tssan_viz.store.upkeep import compact, merge, remove
from tssan_viz.store.verification import verify


def bytes_in(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def test_many_small_commits_leave_little_behind(tmp_path):
    record(tmp_path / "one", "a", 80, 80)
    record(tmp_path / "many", "a", 80, 1)
    assert check(tmp_path / "many", "a", 80) == 80
    assert verify(open_store(tmp_path / "many")).damaged == []
    for name in ("rows", "measures", "samples", "maps/a/8x8"):
        dataset = lance.dataset(tmp_path / "many" / name)
        assert len(dataset.versions()) <= 2
        assert len(dataset.get_fragments()) == 1
    assert bytes_in(tmp_path / "many") < 1.05 * bytes_in(tmp_path / "one")


def test_a_long_recording_merges_its_small_files_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_SMALL_FILES", 4)
    path = tmp_path / "store"
    writer = open_rank(path, 0)
    for n in range(18):
        add(writer, [n])
        writer.flush()
    for name in ("rows", "measures", "maps/a/8x8"):
        assert len(lance.dataset(path / name).get_fragments()) <= 5
    # Others see every row while it goes on, in the order in which they came.
    store = open_store(path)
    assert store.rows()["sample"].tolist() == [f"v{n}" for n in range(18)]
    assert len(store.select().maps().values) == 18
    writer.close()
    assert verify(open_store(path)).damaged == []


def test_a_store_whose_recording_was_killed_is_compacted(tmp_path, monkeypatch):
    path = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(tables.DurableTable, "compact", lambda self: None)
        patch.setattr(tables.DurableTable, "clean", lambda self, alone=False: None)
        record(path, "a", 40, 1)
    before, after = compact(open_store(path))
    assert after < before / 3
    assert after == open_store(path).size()
    assert check(path, "a", 40) == 40
    assert verify(open_store(path)).damaged == []


def test_what_is_being_recorded_is_left_to_its_end(tmp_path):
    path = tmp_path / "store"
    zero = open_rank(path, 0)
    for n in range(4):
        add(zero, [n])
        zero.flush()
    compact(open_store(path))
    assert len(lance.dataset(path / "maps/a/8x8").get_fragments()) == 4
    add(zero, [4])
    zero.close()
    assert len(open_store(path).select().maps()) == 5


def test_a_removed_run_leaves_nothing_and_the_others_whole(tmp_path):
    path = tmp_path / "store"
    for run in ("a", "b"):
        record(path, run, 6, 3)
    before = bytes_in(path)
    freed = remove(open_store(path), "a")
    store = open_store(path)
    assert freed == before - bytes_in(path) > 0
    assert store.run_names() == ["b"]
    assert check(path, "b", 6) == 6
    assert verify(store).damaged == []
    assert not (path / "maps" / "a").exists()
    for name in ("rows", "measures", "samples", "sites", "catalogue", "reports", "runs"):
        assert set(lance.dataset(path / name).to_table()["run"].to_pylist()) == {"b"}
    record(path, "a", 4, 2)
    assert check(path, "a", 4) == 4


def test_a_removal_that_was_interrupted_is_finished_by_the_next_run_of_that_name(
    tmp_path, monkeypatch
):
    path = tmp_path / "store"
    record(path, "a", 6, 3)

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables.DurableTable, "compact", stop)
    with pytest.raises(KeyboardInterrupt):
        remove(open_store(path), "a")
    monkeypatch.undo()
    assert open_store(path).run_names() == []
    record(path, "a", 3, 3)
    assert check(path, "a", 3) == 3
    assert lance.dataset(path / "measures").count_rows() == 12


def test_a_run_that_is_being_recorded_is_not_removed(tmp_path):
    path = tmp_path / "store"
    with open_rank(path, 1), pytest.raises(UserError, match="being recorded"):
        remove(open_store(path), "a")
    with pytest.raises(UserError, match="no run 'b'"):
        remove(open_store(path), "b")
    assert open_store(path).run_names() == ["a"]


def test_merged_runs_are_those_of_their_stores(tmp_path):
    sizes = {"subjects": 2, "cameras": (1,), "frames": 4, "layers": 2}
    one = make_store(tmp_path / "one", **sizes)
    two = make_store(tmp_path / "two", **sizes, run="second", seed=5, split="train")
    into = open_store(tmp_path / "all", create=True)
    merged = merge([one, two], into)
    assert merged.runs == ["generated", "second"]
    assert (merged.rows, merged.skipped, merged.damaged) == (32, 0, [])
    for source in (one, two):
        run = source.latest_run()
        old, new = source.select(run=run), open_store(into.url).select(run=run)
        pd.testing.assert_frame_equal(new.rows(), old.rows())
        pd.testing.assert_frame_equal(new.measures(), old.measures())
        np.testing.assert_array_equal(new.maps().values, old.maps().values)
        assert into.created(run) == source.created(run)
        assert into.info(run) == source.info(run)
        for name in new.samples()["sample"]:
            np.testing.assert_array_equal(new.sample(name).poses, old.sample(name).poses)
    again = merge([one], open_store(into.url))
    assert (again.rows, again.skipped) == (0, 16)
    assert verify(open_store(into.url)).damaged == []


def test_parts_of_one_run_become_one(tmp_path):
    whole = tmp_path / "whole"
    for folder, numbers in (("x", [0, 1]), ("y", [1, 2])):
        with open_rank(tmp_path / folder, 0) as writer:
            add(writer, numbers)
    merged = merge([open_store(tmp_path / f) for f in "xy"], open_store(whole, create=True))
    assert (merged.rows, merged.skipped) == (3, 1)
    assert sorted(open_store(whole).rows("a")["sample"]) == ["v0", "v1", "v2"]


def test_a_store_of_the_first_format_becomes_one_of_the_newest(tmp_path):
    old = make_store(tmp_path / "old", subjects=2, frames=4, cameras=(1,))
    expected = old.select().maps().values
    make_first_format(old.path, "maps/generated/4x4")
    into = open_store(tmp_path / "new", create=True)
    merge([open_store(old.url)], into)
    np.testing.assert_array_equal(into.select().maps().values, expected)
    assert verify(into).damaged == []


def test_damaged_rows_are_left_out_and_named(tmp_path):
    old = make_store(tmp_path / "old", subjects=2, frames=8, cameras=(1,), replications=(1,))
    (file,) = data_of(old, "maps/generated/8x8")
    flip(file, 0.4)
    into = open_store(tmp_path / "new", create=True)
    merged = merge([open_store(old.url)], into)
    assert merged.rows == 7
    (said,) = merged.damaged
    assert "is not what was recorded" in said
    assert verify(into).damaged == []


def test_a_run_of_another_kind_is_not_mixed_in(tmp_path):
    store = make_store(tmp_path / "old", subjects=2, frames=4)
    other = make_store(tmp_path / "other", subjects=2, frames=4, heads=2)
    with pytest.raises(UserError, match="other sites"):
        merge([other], store)
    with pytest.raises(UserError, match="no run 'x'"):
        merge([other], store, run="x")


def test_metadata_and_codes_are_copied(tmp_path):
    store = open_store(tmp_path / "old", create=True)
    catalogue = make_catalogue(("put on jacket", "reading"))
    with store.writer("a", sites=SITES, catalogue=catalogue, code="compact") as writer:
        for n in range(3):
            writer.add({"sample": [f"v{n}"], "age": [30 + n], "left": [n > 1]}, maps_of(n))
    into = open_store(tmp_path / "new", create=True)
    merge([store], into)
    assert into.stored_code("a") == "compact"
    assert into.rows("a")["age"].tolist() == [30, 31, 32]
    assert into.rows("a")["left"].tolist() == [False, False, True]
    np.testing.assert_allclose(into.select().maps().values, store.select().maps().values, atol=1e-6)
