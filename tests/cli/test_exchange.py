from __future__ import annotations

import numpy as np
from typer.testing import CliRunner

from tests.stores import make_store
from tssan_viz.cli import app
from tssan_viz.errors import UserError
from tssan_viz.store import open_store


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_run_goes_out_and_comes_back(tmp_path):
    store = make_store(tmp_path / "s", subjects=2, cameras=(1,), frames=4)
    out = tmp_path / "run.npz"
    chosen = ("--class", "A011", "--class", "put on jacket", "--layer", 2)
    said = call("export", "-o", out, "--store", store.url, *chosen)
    assert said.exit_code == 0, said.output
    assert "8 rows of 8 videos" in " ".join(said.output.split())
    said = call("import", out, "-o", tmp_path / "new", "--run", "mine")
    assert said.exit_code == 0, said.output
    assert "run 'mine' has 8 rows" in " ".join(said.output.split())
    expected = store.select(class_name=["reading", "put on jacket"], layer=2)
    back = open_store(tmp_path / "new").select()
    np.testing.assert_array_equal(back.maps().values, expected.maps().values)
    said = call("export", "-o", out, "--store", store.url)
    assert isinstance(said.exception, UserError)
    assert "there already" in str(said.exception)


def test_what_cannot_be_imported_leaves_no_store(tmp_path):
    said = call("import", tmp_path / "run.npz", "--store", tmp_path / "new")
    assert isinstance(said.exception, UserError)
    assert "is not there" in str(said.exception)
    (tmp_path / "thesis.npz").write_bytes(b"words")
    for name in ("thesis.npz", "thesis.tex", "."):
        said = call("import", tmp_path / name, "--store", tmp_path / "new")
        assert isinstance(said.exception, UserError)
    assert not (tmp_path / "new").exists()


def test_what_was_there_already_is_said(tmp_path):
    store = make_store(tmp_path / "s", subjects=2, cameras=(1,), frames=4)
    out = tmp_path / "run.npz"
    call("export", "-o", out, "--store", store.url, "--class", "reading")
    said = call("import", out, "-o", store.url)
    assert "has 16 rows (0 of them added)" in " ".join(said.output.split())
