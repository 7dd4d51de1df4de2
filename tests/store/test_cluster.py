"""Sums of maps made by a Dask cluster of two workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.comparison.stores import every, write
from tssan_viz import compare_class
from tssan_viz.cli import app
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, StoreNotFound

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def scheduler():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def filled(path: Path, **sizes: int) -> AttentionStore:
    rows = every(subjects=4, classes=3, cameras=2, segments=2)
    return write(path, rows, layers=2, heads=3, **sizes)


def kept(store: AttentionStore) -> dict[str, bytes]:
    """The kept sums by what they are: their names carry a random part."""
    found = {}
    for file in sorted((store.path / "cells").rglob("*.npy")):
        *layer, _, what = file.stem.split("-")
        found[f"{layer} {what}"] = file.read_bytes()
    return found


def test_two_workers_make_the_same_sums_to_the_last_bit(tmp_path, scheduler):
    here, there = filled(tmp_path / "here"), filled(tmp_path / "there")
    expected = compare_class(here, "reading", permutations=20)
    told: list[tuple[int, int]] = []
    with distributed.Client(scheduler) as client:
        found = compare_class(
            there,
            "reading",
            permutations=20,
            progress=lambda what, done, total: told.append((done, total)),
        )
        done = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert "sums_elsewhere" in done
    assert found.table.equals(expected.table)
    assert kept(there) == kept(here)
    assert kept(here)
    assert told[-1][0] == told[-1][1]


def test_what_was_appended_is_added_by_workers(tmp_path, scheduler):
    store = filled(tmp_path / "grown")
    compare_class(store, "reading", permutations=20)
    rows = every(subjects=6, classes=3, cameras=2, segments=2)
    more = rows[rows["subject"] > 4].reset_index(drop=True)
    write(tmp_path / "grown", more, layers=2, heads=3)
    with distributed.Client(scheduler):
        found = compare_class(AttentionStore(store.path), "reading", permutations=20)
    for file in (store.path / "cells").rglob("*"):
        if file.is_file() and file.name != ".lock":
            file.unlink()
    expected = compare_class(AttentionStore(store.path), "reading", permutations=20)
    for column in ("W", "B", "delta", "p"):
        assert found.table[column].to_numpy() == pytest.approx(
            expected.table[column].to_numpy(), abs=1e-6
        )


def test_workers_that_do_not_see_the_store_leave_nothing(tmp_path, scheduler, monkeypatch):
    store = filled(tmp_path / "s")
    monkeypatch.setattr(
        AttentionStore, "__reduce__", lambda self: (AttentionStore, (Path("/nowhere/store"),))
    )
    with distributed.Client(scheduler), pytest.raises(StoreNotFound, match="/nowhere/store"):
        compare_class(store, "reading", permutations=20)
    assert not kept(store)
    monkeypatch.undo()
    assert len(compare_class(store, "reading", permutations=20).table)


def test_a_cluster_is_named_at_the_prompt(tmp_path, scheduler):
    store = filled(tmp_path / "s")
    question = ["compare", "--class", "reading", "--permutations", "20", "--store", store.url]
    said = CliRunner().invoke(app, [*question, "--scheduler", scheduler])
    assert said.exit_code == 0, said.output
    assert kept(store) == kept(_alone(tmp_path))


def _alone(tmp_path: Path) -> AttentionStore:
    store = filled(tmp_path / "alone")
    compare_class(store, "reading", permutations=20)
    return store


def test_no_scheduler_there_is_said(tmp_path):
    store = filled(tmp_path / "s")
    with pytest.raises(UserError, match="no Dask scheduler answers there"):
        CliRunner().invoke(
            app,
            ["compare", "--class", "reading", "--store", store.url, "--scheduler", "nonsense"],
            catch_exceptions=False,
        )
