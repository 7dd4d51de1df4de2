"""`tssan-viz view`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tssan_viz.cli import main; main()", "view"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def sample(small_store) -> str:
    return small_store.select(class_name="reading").samples()["sample"].iloc[0]


def test_a_page_is_written_and_named(small_store, sample: str, tmp_path: Path) -> None:
    result = run(sample, "--store", small_store.url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = tmp_path / "view.html"
    assert f"view.html  ({page.stat().st_size / 1000:,.0f} kB)" in result.stdout
    assert sample in page.read_text()
    result = run(
        sample,
        "-o",
        "pages/one.html",
        "--run",
        "generated",
        "--store",
        small_store.url,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "pages" / "one.html").exists()


def test_without_a_name_some_are_named(small_store, sample: str, tmp_path: Path) -> None:
    result = run("--store", small_store.url, cwd=tmp_path)
    assert result.returncode == 2
    assert "which video?" in result.stderr
    assert sample in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_name_brings_the_nearest(small_store, sample: str, tmp_path: Path) -> None:
    result = run(sample[:-1], "--store", small_store.url, cwd=tmp_path)
    assert result.returncode == 2
    assert sample in result.stderr
    assert not (tmp_path / "view.html").exists()


def test_a_place_that_cannot_be_written_is_said(small_store, sample: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for place in ("taken/view.html", "."):
        result = run(sample, "-o", place, "--store", small_store.url, cwd=tmp_path)
        assert result.returncode == 2
        assert "cannot be written" in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr


def test_a_wrong_run_or_store_is_said(small_store, sample: str, tmp_path: Path) -> None:
    result = run(sample, "--run", "generate", "--store", small_store.url, cwd=tmp_path)
    assert result.returncode == 2
    assert "generated" in result.stderr
    result = run(sample, "--store", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "tssan-viz demo" in " ".join(result.stderr.split())


def test_bertvizs_page_is_written(small_store, sample: str, tmp_path: Path) -> None:
    result = run(sample, "--bertviz", "-o", "page.html", "--store", small_store.url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "page.html" in result.stdout
    assert "requirejs(['jquery', 'd3']" in (tmp_path / "page.html").read_text()
