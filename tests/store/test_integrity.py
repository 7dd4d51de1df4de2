"""Damage that Lance does not notice: flipped bits in data and versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import lance
import numpy as np
import pytest

from tests.store.record_until_killed import SITES, maps_of, record
from tests.store.test_durability import check, keep_versions, manifests
from tests.stores import make_catalogue, make_store
from tssan_viz.errors import UserError
from tssan_viz.store import (
    StoreDamaged,
    StoreNotFound,
    StoreWriteError,
    digests,
    open_store,
    tables,
)
from tssan_viz.store.verification import verify


def flip(file: Path, at: float = 0.5) -> None:
    """Turn one bit of a file."""
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 0x10
    file.write_bytes(bytes(content))


def data_of(store, name):
    return tables.data_files(lance.dataset(store.path / name), store.path / name)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "store"
    for run, seed in (("a", 0), ("b", 1)):
        make_store(path, subjects=3, cameras=(1,), replications=(1,), frames=8, run=run, seed=seed)
    return path


@pytest.fixture
def store(two_runs, tmp_path):
    shutil.copytree(two_runs, tmp_path / "store")
    return open_store(tmp_path / "store")


def test_everything_that_was_written_has_a_digest(store):
    assert store.notes == []
    for name in ("runs", "sites", "catalogue", "rows", "measures", "samples", "reports"):
        dataset = store.path / name
        (newest,) = manifests(dataset)[:1]
        assert digests.is_known(dataset, newest)
        for file in data_of(store, name):
            assert digests.is_known(dataset, file)
            assert not digests.is_damaged(dataset, file)


@pytest.mark.parametrize("at", [0.05, 0.3, 0.55, 0.8])
def test_a_flipped_bit_in_maps_is_noticed_where_it_is_read(store, at):
    (file,) = data_of(store, "maps/a/8x8")
    before = store.select(run="a").maps().values
    flip(file, at)
    store = open_store(store.path)
    wrong = []
    for sample in store.rows("a")["sample"]:
        # Few rows at a time, so that each of them is compared.
        one = store.select(run="a", sample=sample)
        try:
            np.testing.assert_array_equal(
                one.maps().values, before[store.rows("a")["sample"] == sample]
            )
        except StoreDamaged as error:
            wrong.append((sample, str(error)))
    # Padding between the columns is the one place where a bit means nothing.
    assert len(wrong) <= 1
    for sample, said in wrong:
        assert "maps/a/8x8 is damaged: site" in said
        assert sample in said
    assert store.select(run="b").maps().values.shape == before.shape


def test_damaged_maps_are_noticed_in_long_readings_too(store):
    (file,) = data_of(store, "maps/a/8x8")
    content = file.read_bytes()
    file.write_bytes(
        bytes(b ^ 0x01 for b in content[: len(content) // 2]) + content[len(content) // 2 :]
    )
    with pytest.raises(StoreDamaged):
        open_store(store.path).select(run="a").maps().load()


@pytest.mark.parametrize("name", ["rows", "sites", "catalogue"])
def test_a_flipped_bit_in_what_all_hangs_on_is_an_error(tmp_path, monkeypatch, name):
    path = tmp_path / "store"
    keep_versions(monkeypatch)
    for run in ("a", "b"):
        record(path, run, 4, 4)
    store = open_store(path)
    # Each run's lines lie in a file of its own.
    files = data_of(store, name)
    flip(files[-1])
    store = open_store(path)
    assert any(str(files[-1]) in note for note in store.notes)
    with pytest.raises(StoreDamaged, match=f"{files[-1].name} is damaged.*'b'"):
        store.select(run="b").maps()
    assert check(path, "a", 4) == 4


def test_a_flipped_bit_in_the_list_of_runs_is_an_error(store):
    (file,) = data_of(store, "runs")[-1:]
    flip(file)
    with pytest.raises(StoreDamaged, match=f"{file.name} is damaged.*the runs are listed"):
        open_store(store.path).run_names()


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_a_manifest_gives_the_version_before_it(tmp_path, monkeypatch, at):
    path = tmp_path / "store"
    keep_versions(monkeypatch)
    record(path, "a", 6, 2)
    newest = manifests(path / "rows")[0]
    whole = newest.read_bytes()
    flip(newest, at)
    store = open_store(path)
    with pytest.warns(UserWarning, match="is damaged: it is not what was written"):
        assert len(store.rows("a")) == 4
    assert any(str(newest) in note for note in store.notes)
    with pytest.raises(StoreDamaged, match=newest.name):
        record(path, "a", 8, 2)
    assert newest.exists(), "what looks whole is not ours to take away"
    newest.write_bytes(whole)
    record(path, "a", 8, 2)
    assert check(path, "a", 8) == 8


def test_a_damaged_manifest_without_one_before_it_is_an_error(store):
    newest = manifests(store.path / "maps/a/8x8")[0]
    flip(newest)
    store = open_store(store.path)
    with pytest.raises(StoreDamaged, match=newest.name):
        store.select(run="a").maps().load()
    assert store.select(run="b").maps().shape[0] == len(store.rows("b"))


def test_a_version_that_was_set_aside_leaves_no_digest_behind(tmp_path, monkeypatch):
    path = tmp_path / "store"
    keep_versions(monkeypatch)
    record(path, "a", 4, 2)
    newest = manifests(path / "rows")[0]
    newest.write_bytes(b"")
    record(path, "a", 8, 2)
    assert open_store(path).notes == []
    assert check(path, "a", 8) == 8


def test_digests_go_with_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_KEEP", tables.timedelta(0))
    path = tmp_path / "store"
    record(path, "a", 8, 1)
    for name in ("rows", "measures", "samples", "maps/a/8x8"):
        left = {entry.name.rpartition(".")[0] for entry in (path / name / "_digests").iterdir()}
        there = {p.name for p in (path / name).glob("*/*")} - {
            e.name for e in (path / name / "_digests").iterdir()
        }
        assert left <= there
        assert len(left) <= 3


def test_a_store_that_vanishes_while_it_is_written_is_no_new_store(tmp_path):
    path = tmp_path / "store"
    record(path, "a", 4, 4)
    catalogue = make_catalogue(("put on jacket", "reading"))
    store = open_store(path)
    writer = store.writer("a", sites=SITES, catalogue=catalogue)
    writer.add({"sample": ["v4"], "label": [0]}, maps_of(4))
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreWriteError, match="is gone") as caught:
        writer.flush()
    assert caught.value.may_retry
    assert not path.exists()
    with pytest.raises(StoreNotFound, match="is gone"):
        store.select()
    (tmp_path / "elsewhere").rename(path)
    writer.flush()
    writer.close()
    assert len(open_store(path).rows("a")) == 5


def test_a_folder_that_cannot_be_written_is_refused_in_words(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made a store"):
        open_store(tmp_path / "file" / "store", create=True)
    store = open_store(tmp_path / "store", create=True)

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreWriteError, match="cannot be written: Permission denied"):
        store.writer("a", sites=SITES, catalogue=make_catalogue(("reading",)))


def test_a_sound_store_is_found_sound(store):
    found = verify(store)
    assert found.damaged == []
    assert found.rows == 24
    assert found.maps == 24 * 2 * 4
    assert found.files >= 14


@pytest.mark.parametrize(
    "name", ["runs", "sites", "catalogue", "rows", "measures", "samples", "reports"]
)
def test_verify_names_the_damaged_file(store, name):
    file = data_of(store, name)[-1]
    flip(file)
    found = verify(open_store(store.path))
    assert any(str(file) in said for said in found.damaged)


def test_verify_names_the_damaged_map(store):
    (file,) = data_of(store, "maps/b/8x8")
    flip(file, 0.4)
    found = verify(open_store(store.path))
    (said,) = (said for said in found.damaged if "is not what was recorded" in said)
    assert "maps/b/8x8: site" in said
    assert found.maps == 24 * 2 * 4


def test_verify_names_the_damaged_version(store):
    newest = manifests(store.path / "measures")[0]
    flip(newest)
    found = verify(open_store(store.path))
    assert any(str(newest) in said for said in found.damaged)


def test_verify_counts_rows_maps_and_measures(store):
    dataset = lance.dataset(store.path / "maps/a/8x8")
    lost = store.rows("a").iloc[3]
    dataset.delete(f"row_id = {lost['row_id']}")
    lance.dataset(store.path / "measures").delete(f"row_id = {store.rows('b')['row_id'][0]}")
    (said_maps, said_measures) = verify(open_store(store.path)).damaged
    assert f"lacks the maps of 1 rows of run 'a': {lost['sample']}" in said_maps
    assert "run 'b': 1 of 12 rows have not 8 lines of measures" in said_measures
    lance.dataset(store.path / "rows").delete("run = 'a'")
    assert any(
        "run 'a': 0 rows are there, 12 were reported" in said
        for said in verify(open_store(store.path)).damaged
    )


@pytest.mark.parametrize(
    ("name", "said"), [("rows", "0 rows are there, 12 were reported"), ("runs", "runs is missing")]
)
def test_verify_misses_a_table_that_is_gone(store, name, said):
    shutil.rmtree(store.path / name)
    found = verify(open_store(store.path))
    assert any(said in line for line in found.damaged), found.damaged


@pytest.mark.parametrize("name", ["rows", "measures"])
def test_what_is_damaged_is_not_merged_with_the_rest(store, name):
    damaged = data_of(store, name)[0]
    flip(damaged)
    make = {"subjects": 3, "cameras": (1,), "replications": (1,), "frames": 8}
    with pytest.warns(UserWarning, match="could not be merged: .* is not what was written"):
        make_store(store.path, **make, run="c", seed=2)
    assert damaged in data_of(store, name), "merged, it would have a digest of its own"
    assert any(damaged.name in line for line in verify(open_store(store.path)).damaged)


def test_verify_sees_maps_of_another_row(store):
    path = store.path / "maps/a/8x8"
    lines = lance.dataset(path).to_table()
    numbers = lines["row_id"].to_numpy().copy()
    numbers[[0, 1]] = numbers[[1, 0]]
    shutil.rmtree(path)
    lance.write_dataset(lines.set_column(0, "row_id", [numbers]), path)
    damaged = verify(open_store(store.path)).damaged
    assert len(damaged) == 2
    assert all("do not belong together" in said for said in damaged)


def test_verify_reads_the_first_format(store):
    from tests.store.test_writing import make_first_format

    make_first_format(store.path, "maps/a/8x8", "maps/b/8x8")
    rows = lance.dataset(store.path / "rows").to_table()
    found = verify(open_store(store.path))
    # Checksums of the second format stand in its rows: all are found to differ.
    assert len(found.damaged) == rows.num_rows
    assert all("are not what was recorded" in said for said in found.damaged)


def test_a_digest_entered_between_two_looks_is_no_damage(tmp_path, monkeypatch):
    manifest = tmp_path / "7.manifest"
    manifest.write_bytes(b"whole")
    there = Path.exists

    def just_before_the_other_process_enters_it(path):
        found = there(path)
        digests.enter(tmp_path, [manifest])
        return found

    monkeypatch.setattr(Path, "exists", just_before_the_other_process_enters_it)
    assert not digests.is_damaged(tmp_path, manifest)
    manifest.write_bytes(b"other")
    monkeypatch.undo()
    assert digests.is_damaged(tmp_path, manifest)
