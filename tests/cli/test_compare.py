"""`tssan-viz compare` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tests.stores import make_store
from tssan_viz.cli import main
from tssan_viz.cli.common import console

COLUMNS = [
    "layer",
    "head",
    "W",
    "B",
    "delta",
    "hedges_g",
    "low",
    "high",
    "p",
    "p_max_t",
    "q",
    "W_pairs",
    "B_pairs",
    "W_class",
    "W_other",
]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store by its default name, in which "put on jacket" is planted."""
    folder = tmp_path_factory.mktemp("compare")
    make_store(folder / "attention-store", planted="put on jacket")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    monkeypatch.chdir(folder)

    def run(*arguments: str, width: int = 100) -> Done:
        monkeypatch.setattr(console, "width", width)
        monkeypatch.setattr(sys, "argv", ["tssan-viz", "compare", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(stop.value.code or 0, *capsys.readouterr())

    return run


def test_a_table_and_what_it_says(run: Run) -> None:
    done = run("--class", "put on jacket")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = " ".join(done.stdout.split())
    assert "put on jacket (A014) against all other classes" in said
    assert "8 subjects · 128 videos, 32 of the class · run generated · split test" in said
    assert "10,000 random exchanges of class means (seed 0) within each of 8 subjects" in said
    assert "max-T (Westfall–Young) and q (Benjamini–Hochberg) account for the 8 heads" in said
    assert "nearest: " in said
    assert "farthest: " in said
    lines = [line.split() for line in done.stdout.splitlines()]
    marked = [line for line in lines if line[:1] == ["*"] and len(line) == 12]
    assert [line[1:3] for line in marked] == [["2", "1"]]
    assert sum(line[0] in "12" and len(line) == 11 for line in lines if line) == 7


def test_a_split_that_was_asked_for_and_is_not_there_is_an_error(run: Run) -> None:
    done = run("--class", "reading", "--split", "train", "--permutations", "9", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no row is of split 'train'; all are of 'test'\n"


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 120])
def test_narrow_terminals_cut_no_number(run: Run, width: int) -> None:
    done = run("--class", "reading", "--layer", "last", "--permutations", "99", width=width)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= width for line in done.stdout.splitlines())
    if width >= 40:
        assert "…" not in done.stdout


def test_two_classes(run: Run) -> None:
    done = run("--class", "wear jacket", "--with", "a11", "--layer", "2", "--head", "1")
    said = " ".join(done.stdout.split())
    assert "put on jacket (A014) against reading (A011)" in said
    assert "all 256 ways to exchange the two labels within each of 8 subjects" in said
    assert "smallest possible p 0.0078" in said


def test_json_alone_on_the_standard_output(folder: Path, run: Run) -> None:
    done = run("--class", "A014", "--json", "--csv", "table.csv", "--with", "reading")
    read = json.loads(done.stdout)
    assert {
        "schema",
        "class",
        "with",
        "store",
        "run",
        "split",
        "metric",
        "n_subjects",
        "n_samples",
        "test",
        "table",
        "neighbours",
        "summary",
        "notes",
    } <= read.keys()
    assert read["class"]["name"] == "put on jacket"
    assert read["with"]["code"] == "A011"
    assert read["test"]["smallest_p"] == 2 / 2**8
    assert list(read["table"][0]) == COLUMNS
    assert "table.csv" in done.stderr
    table = pd.read_csv(folder / "table.csv")
    assert list(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, pd.DataFrame(read["table"]))


def test_unknown_names_exit_with_2_and_the_nearest(run: Run) -> None:
    for arguments, expected in (
        (("--class", "put jacket"), "put on jacket"),
        (("--class", "reading", "--with", "hand wave"), "hand waving"),
        (("--class", "reading", "--run", "generatd"), "generated"),
        (("--class", "reading", "--layer", "9"), "layer 9"),
        (("--class", "reading", "--layer", "first"), "'last' or 'all'"),
        (("--class", "reading", "--head", "9"), "head 9"),
        (("--class", "reading", "--metric", "cosin"), "cosine, pearson"),
        (("--class", "reading", "--permutations", "0"), "at least 1"),
        (("--class", "reading", "--seed", "-1"), "from 0"),
        (("--class", "reading", "--csv", "nowhere/t.csv"), "nowhere"),
        (("--class", "reading", "--store", "elsewhere"), "tssan-viz demo"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert done.stdout == ""
        assert expected in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_names_are_text_and_not_markup(tmp_path: Path, run: Run) -> None:
    make_store(
        tmp_path / "s",
        subjects=3,
        classes=("[bold]loud[/bold]", "[link=x]"),
        heads=1,
        layers=1,
        poses=False,
    )
    done = run("--class", "[bold]loud[/bold]", "--with", "1", "--store", str(tmp_path / "s"))
    assert done.returncode == 0, done.stderr
    assert "[bold]loud[/bold] (A100) against [link=x] (A101)" in done.stdout


def test_compare_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys; sys.argv = ['tssan-viz', 'compare', '--class', 'reading', "
        "'--permutations', '9']\n"
        "from tssan_viz.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'tssan_viz.comparison' in sys.modules\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'dash', 'tssan'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
