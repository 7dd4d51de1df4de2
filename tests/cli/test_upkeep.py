from __future__ import annotations

import errno

import pytest
from lance.dataset import DatasetOptimizer
from typer.testing import CliRunner

from tests.store.test_integrity import data_of, flip
from tests.stores import make_store
from tssan_viz.cli import app
from tssan_viz.errors import UserError
from tssan_viz.store import open_store, upkeep


def call(*arguments, answer=None):
    said = CliRunner().invoke(app, list(map(str, arguments)), input=answer)
    return said.exit_code, " ".join(said.output.split())


@pytest.fixture
def store(tmp_path):
    sizes = {"subjects": 2, "cameras": (1,), "replications": (1,), "frames": 8}
    make_store(tmp_path / "s", **sizes)
    return make_store(tmp_path / "s", **sizes, run="second")


def test_a_store_is_compacted(store):
    code, said = call("compact", store.url)
    assert code == 0
    assert "before" in said
    assert store.select(run="second").maps().shape[0] == 8


def test_a_run_is_removed_when_the_answer_is_yes(store):
    code, said = call("rm", "--run", "second", "--store", store.url, answer="n\n")
    assert code == 1
    assert "with 8 rows" in said
    assert len(open_store(store.url).run_names()) == 2
    code, said = call("rm", "--run", "second", "--store", store.url, "--yes")
    assert code == 0
    assert "run 'second' is removed" in said
    assert open_store(store.url).run_names() == ["generated"]


def test_stores_are_merged(store, tmp_path):
    code, said = call("merge", store.url, "-o", tmp_path / "new", "--run", "second")
    assert code == 0
    assert "8 rows of second" in said
    code, said = call("merge", store.url, "-o", tmp_path / "new")
    assert "8 rows of generated, second, 8 were there already" in said
    assert open_store(tmp_path / "new").run_names() == ["generated", "second"]


def test_what_is_damaged_is_left_out_and_said(store, tmp_path):
    (file,) = data_of(store, "maps/second/8x8")
    flip(file, 0.4)
    code, said = call("merge", store.url, "-o", tmp_path / "new")
    assert code == 1
    assert "left out:" in said
    assert len(open_store(tmp_path / "new").rows("second")) == 7


def test_a_run_that_is_in_two_stores_is_named_once(store, tmp_path):
    code, said = call("merge", store.url, store.url, "-o", tmp_path / "new", "--run", "second")
    assert code == 0
    assert "8 rows of second, 8 were there already" in said


@pytest.mark.parametrize("command", ["info", "verify", "compact"])
def test_a_store_is_named_either_way(store, command):
    for named in ((store.url,), ("--store", store.url), (store.url, "--store", store.url)):
        code, said = call(command, *named)
        assert code == 0
        assert store.url in "".join(said.split())
    with pytest.raises(UserError, match="two stores are named"):
        CliRunner().invoke(app, [command, store.url, "--store", "other"], catch_exceptions=False)


def test_a_run_that_no_store_has_makes_no_store(store, tmp_path):
    with pytest.raises(UserError, match="did you mean 'second'"):
        CliRunner().invoke(
            app,
            ["merge", store.url, "-o", str(tmp_path / "new"), "--run", "secnd"],
            catch_exceptions=False,
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [("compact",), ("rm", "--run", "second", "--yes", "--store")])
def test_a_store_that_cannot_be_written_is_left_as_it_is(store, monkeypatch, words):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system", store.url)

    monkeypatch.setattr(upkeep, "RunLock", refuse)
    with pytest.raises(UserError, match="cannot be changed: Read-only file system"):
        CliRunner().invoke(app, [*words, store.url], catch_exceptions=False)
    assert open_store(store.url).run_names() == ["generated", "second"]


def test_what_could_not_be_merged_is_said(store, monkeypatch):
    def refuse(self, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DatasetOptimizer, "compact_files", refuse)
    with open_store(store.url).writer(
        "third", sites=store.stored_sites("second"), catalogue=store.catalogue("second")
    ) as writer:
        writer.add_samples([])
    code, said = call("compact", store.url)
    assert code == 1
    assert "could not be merged" in said
