"""`tssan-viz compare` as a person runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import tssan_viz
from tests.comparison.stores import every, write
from tests.stores import make_store
from tssan_viz.cli import main
from tssan_viz.cli.common import console
from tssan_viz.comparison.outputs.latex import latex_table

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
        "heavy = {'torch', 'lightning', 'matplotlib', 'dash', 'tssan', 'scipy.stats'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_groups_filters_and_further_answers(run: Run) -> None:
    cameras = run("--by", "camera", "--class", "reading", "--permutations", "200")
    assert cameras.returncode == 0, cameras.stderr
    assert "camera 1 against camera 2" in cameras.stdout
    assert "camera 1: 16 videos of 8 subjects" in cameras.stdout
    groups = run("--group", "subject:1,2,3,4", "--layer", "last", "--permutations", "200")
    said = " ".join(groups.stdout.split())
    assert "all 70 ways to exchange whole subjects between the groups, of 8 subjects" in said
    alone = run("--by", "subject", "--layer", "last")
    assert "Described, not tested" in alone.stdout
    assert "p max-T" not in alone.stdout.split("\n\n")[0]
    few = run("--class", "reading", "--subjects", "1,3,5", "--where", "camera = 1", "--layer", "1")
    assert "3 subjects · 24 videos" in few.stdout
    further = run(
        "--class", "reading", "--show", "variance,decoding,matrix", "--permutations", "99"
    )
    for question in ("How much is class", "about the action or about the person", "are alike"):
        assert question in further.stdout
    assert "across subjects and views" in further.stdout
    assert "the network is right on" in " ".join(further.stdout.split())


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize(
    "question",
    [("--by", "camera"), ("--class", "reading", "--show", "all"), ("--by", "subject")],
)
def test_every_answer_fits_the_terminal(run: Run, width: int, question: tuple[str, ...]) -> None:
    done = run(*question, "--layer", "last", "--permutations", "99", width=width)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= width for line in done.stdout.splitlines())


def test_json_of_groups_has_what_is_documented(run: Run) -> None:
    done = run("--by", "camera", "--json", "--show", "permanova", "--permutations", "99")
    read = json.loads(done.stdout)
    assert {"schema", "by", "groups", "between", "test", "table", "summary", "notes"} <= set(read)
    assert read["groups"][0].keys() == {"group", "videos", "subjects", "similarity"}
    assert (
        read["test"]["exchange"] == "the groups over all classes at once within each of 8 subjects"
    )
    assert read["test"]["reason_for_no_test"] is None
    assert list(read["table"][0])[:11] == COLUMNS[:11]
    assert list(read["further"]) == ["permanova"]
    assert read["further"]["permanova"]["table"]
    described = json.loads(run("--by", "subject", "--json").stdout)
    assert described["test"]["smallest_p"] is None
    assert "single subjects" in described["test"]["reason_for_no_test"]
    assert all(line["p"] is None for line in described["table"])


@pytest.mark.parametrize(
    "question",
    [
        ("--class", "reading"),
        ("--class", "reading", "--with", "hand waving", "--metric", "tv", "--layer", "1"),
        ("--class", "reading", "--align", "seconds", "--layer", "last"),
        ("--by", "camera", "--show", "all", "--layer", "last"),
        ("--class", "reading", "--show", "all", "--layer", "last"),
        ("--by", "subject"),
        ("--by", "correct"),
        ("--group", "subject:1,2,3,4"),
    ],
)
def test_json_is_what_its_schema_says(run: Run, question: tuple[str, ...]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from tssan_viz.comparison.outputs.schema import JSON_SCHEMA

    done = run(*question, "--json", "--permutations", "50")
    assert done.returncode == 0, done.stderr
    jsonschema.Draft202012Validator(JSON_SCHEMA).validate(json.loads(done.stdout))


class _Page(HTMLParser):
    """What a page would ask for, execute, and say."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.policy = ""
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_is_one_file_that_asks_for_nothing(tmp_path: Path, run: Run) -> None:
    name = "<script>alert(1)</script> & $x_1$"
    make_store(
        tmp_path / "s", subjects=6, classes=(name, "b", "c"), planted=name, heads=2, frames=8
    )
    targets = {kind: tmp_path / f"report.{kind}" for kind in ("html", "tex", "pdf", "csv")}
    done = run(
        *("--class", "0", "--store", str(tmp_path / "s"), "--permutations", "99"),
        *("--html", str(targets["html"]), "--latex", str(targets["tex"])),
        *("--figure", str(targets["pdf"]), "--csv", str(targets["csv"])),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        f"report.{kind}" for kind in ("csv", "html", "pdf", "tex")
    ]
    page = _Page()
    page.feed(targets["html"].read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert page.policy.startswith("default-src 'none'")
    said = " ".join(" ".join(page.text).split())
    assert name in said
    for part in ("Mean maps", "about the person?", "Which classes are alike?", "across views"):
        assert part in said
    assert targets["pdf"].read_bytes().startswith(b"%PDF")
    latex = targets["tex"].read_text(encoding="utf-8")
    assert r"\toprule" in latex
    assert r"\& \$x\_1\$" in latex
    assert latex.count("{") == latex.count("}")


def test_latex_is_a_table_of_booktabs_whatever_the_names(tmp_path: Path) -> None:
    """No compiler is needed: every special character is escaped, and every line has its cells."""
    store = make_store(tmp_path / "s", subjects=4, planted="put on jacket")
    result = tssan_viz.compare_class(store, "put on jacket", permutations=50)
    name = r"50 % & $x_1$ #{a} ~^\ “b” <c>–d…"
    table = latex_table(replace(result, entry=replace(result.entry, name=name)))
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", table)
    assert environments == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    columns = re.search(r"\\begin\{tabular\}\{(r+)\}", table)
    assert columns is not None
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(result.table)
    unescaped = re.compile(r"(?<!\\)&")
    assert {len(unescaped.findall(line)) + 1 for line in lines} == {len(columns[1])}
    caption = re.search(r"\\caption\[.*\]\{(.*)\}\n", table)
    assert caption is not None
    assert not re.search(r"(?<!\\)[%#_&]", caption[1])
    # Outside commands, ^ and ~ print nothing; dollars and braces are in pairs.
    assert not re.search(r"[~^“”–…<>]", caption[1])
    assert len(re.findall(r"(?<!\\)\$", table)) % 2 == 0
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", table):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert r"50 \% \& \$x\_1\$ \#\{a\} \textasciitilde{}\textasciicircum{}" in caption[1]
    allowed = "textbackslash textasciitilde textasciicircum textless textgreater Delta leq ldots"
    assert set(re.findall(r"\\([a-zA-Z]+)", caption[1])) <= set(allowed.split())


if shutil.which("pdflatex"):  # no skip: there is none in continuous integration

    @pytest.mark.parametrize("options", ["", "twocolumn"])
    def test_latex_compiles_and_fits_whatever_the_names(tmp_path: Path, options: str) -> None:
        names = (r"50 % & $x_1$ #{a} ~^\end|“b” <c>–d…[e]", "穿外套 Ąą für ½ café\n", "c")
        store = make_store(tmp_path / "s", subjects=7, classes=names, planted=names[0])
        tables = []
        for name, other in ((names[0], None), (names[0], "c"), (names[1], None)):
            found = tssan_viz.compare_class(store, name, with_class=other, permutations=50)
            tables.append(latex_table(found))
        many = pd.concat([found.table] * 20, ignore_index=True)
        tables.append(latex_table(replace(found, table=many)))
        document = (
            rf"\documentclass[{options}]{{article}}\usepackage{{booktabs,graphicx}}"
            rf"\begin{{document}}\listoftables {' '.join(tables)} \end{{document}}"
        )
        (tmp_path / "d.tex").write_text(document, encoding="utf-8")
        for _ in range(2):
            done = subprocess.run(
                ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
        too_wide = re.findall(r"Overfull .hbox \((\d+\.\d+)pt", done.stdout)
        assert max(map(float, too_wide), default=0) < 2
        assert "too large" not in done.stdout


def test_questions_that_cannot_be_asked_exit_with_2(tmp_path: Path, run: Run) -> None:
    for arguments, expected in (
        ((), "what is to be compared?"),
        (("--by", "cameras"), "did you mean 'camera'"),
        (("--group", "subject:99"), "no video has subject 99"),
        (("--class", "reading", "--subjects", "1,x"), "numbers like 1,3"),
        (("--class", "reading", "--subjects", "99"), "there is nothing to compare"),
        (("--class", "reading", "--subjects", "1"), "at least two"),
        (("--class", "reading", "--where", "confidence >"), "cannot be used"),
        (("--class", "reading", "--show", "everything"), "cannot show 'everything'"),
        (("--class", "reading", "--html", "nowhere/r.html"), "there is no folder"),
        (("--class", "reading", "--figure", "f.gif"), ".pdf, .svg or .png"),
        (("--class", "reading", "--latex", "."), "this is a folder"),
        (("--by", "step"), "all rows are of step"),
        ((".",), "a store is named by --store ."),
        (("put on jacket",), "a class is named by --class 'put on jacket'"),
        (("--class", "reading", "--metric", "cosin"), "did you mean 'cosine'"),
        (("--class", "reading", "--decoder", "svm"), "logistic"),
        (("--by", "camera", "--metric", "jsd"), "cuts through"),
        (("--class", "reading", "--align", "speed"), "none, seconds, dtw"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert expected in " ".join(done.stderr.split()), done.stderr
        assert "Traceback" not in done.stderr


def test_a_store_without_labels_says_what_to_record(tmp_path: Path, run: Run) -> None:
    rows = every(subjects=3, classes=2)
    rows["subject"] = None
    write(tmp_path / "s", rows)
    done = run("--class", "reading", "--store", str(tmp_path / "s"))
    assert done.returncode == 2
    assert "recorder.samples(subject=" in done.stderr
    write(tmp_path / "t", every(subjects=3, label=None))
    for question in (("--class", "reading"), ("--by", "camera")):
        done = run(*question, "--store", str(tmp_path / "t"))
        assert done.returncode == 2
        assert "the rows name no class" in done.stderr


def test_an_interrupt_leaves_nothing_half_written(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tssan_viz.comparison.outputs import report

    before = tmp_path / "report.html"
    before.write_text("of yesterday", encoding="utf-8")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_main_table", interrupted)
    done = run("--class", "reading", "--permutations", "99", "--html", str(before))
    assert done.returncode != 0
    assert before.read_text(encoding="utf-8") == "of yesterday"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
