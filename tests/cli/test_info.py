from __future__ import annotations

import subprocess
import sys

import pytest

from tests.stores import make_store
from tssan_viz.store import open_store


def info(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tssan_viz.cli import main; main()", "info", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_info_says_what_there_is_and_what_to_ask(tmp_path, monkeypatch):
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    make_store(tmp_path / "attention-store", subjects=3, frames=4)
    result = info(cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    for words in (
        "attention-store",
        "kB on the disk",
        "generated",
        "48",
        "put on jacket (A014) 12",
        "subjects: 1, 2, 3",
        "cameras: 1, 2",
        "layer 1: 4 heads of 4 × 4",
        'tssan-viz compare --class "put on jacket"',
        "tssan-viz view S001C001P001R001A014",
    ):
        assert words in said, f"{words!r} is not in {said}"
    assert "%" in said
    assert "--store" not in said
    named = info(str(tmp_path / "attention-store"))
    assert f"--store {tmp_path}/attention-store" in named.stdout


def test_info_on_nothing(tmp_path):
    result = info(str(tmp_path / "none"))
    assert result.returncode == 2
    assert "tssan-viz demo" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    open_store(tmp_path / "new", create=True)
    result = info(str(tmp_path / "new"))
    assert result.returncode == 0
    assert "no run yet" in result.stdout


@pytest.mark.parametrize("name", ["[red]x[/red]", "$(touch pwned)", 'a"b'])
def test_names_from_the_data_are_text(tmp_path, name):
    make_store(tmp_path / "s", subjects=2, classes=(name, "other"), frames=4, run=name)
    result = info("s", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert name in result.stdout
    line = next(x for x in result.stdout.splitlines() if x.startswith("next:"))
    import shlex

    assert name in shlex.split(line)


def test_info_says_what_kept_sums_take(tmp_path):
    store = make_store(tmp_path / "s", subjects=3, frames=4)
    assert "that comparisons keep" not in " ".join(info(store.url).stdout.split())
    (store.path / "cells").mkdir()
    (store.path / "cells" / "sums").write_bytes(bytes(2_000_000))
    assert "2.0 MB of it sums that comparisons keep" in " ".join(info(store.url).stdout.split())
