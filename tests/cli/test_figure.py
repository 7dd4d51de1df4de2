"""The command `tssan-viz figure`."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pypdf import PdfReader

from tests.stores import make_store
from tssan_viz import figures
from tssan_viz.cli import main
from tssan_viz.errors import UserError


@pytest.fixture
def run(monkeypatch, capsys, small_store, tmp_path):
    """Run `tssan-viz figure` in an empty folder; return exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TSSAN_STORE", str(small_store.url))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tssan-viz", "figure", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        # Rich breaks lines at the width of the terminal.
        return exit_.value.code or 0, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


def test_with_nothing_else_said_it_writes_figure5_pdf(run, tmp_path):
    code, out, _ = run("figure5")
    assert code == 0
    assert "figure5.pdf" in out
    assert "put on jacket (A014), subject" in out
    text = PdfReader(tmp_path / "figure5.pdf").pages[0].extract_text()
    assert "put on jacket" in text
    assert "reading" in text


@pytest.mark.parametrize("style", ["lines", "heat"])
@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_all_options_together_with_the_numbers_beside(run, tmp_path, small_store, style, ending):
    target = tmp_path / f"out.{ending}"
    code, out, _ = run(
        "figure5", "-o", target, "--class", "A023", "--class", "drink water",
        "--subject", 4, "--subject", 6, "--layer", 1, "--head", 3, "--head", 1,
        "--style", style, "--csv", tmp_path / "out.csv", "--run", small_store.latest_run(),
    )  # fmt: skip
    assert code == 0, out
    assert target.stat().st_size > 1000
    table = pd.read_csv(tmp_path / "out.csv")
    assert set(table["subject"]) == {4, 6}
    assert set(table["class_name"]) == {"hand waving", "drink water"}
    assert set(table["layer"]) == {1}
    assert list(dict.fromkeys(table["head"])) == [3, 1]
    for (sample, head), part in table.groupby(["sample", "head"]):
        stored = small_store.select(sample=sample, layer=1, head=head).maps().values.ravel()
        np.testing.assert_allclose(part["weight"], stored, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure6"], "there is no figure 'figure6'; there is figure5"),
        (["figure5", "-o", "out.jpg"], ".pdf, .svg or .png"),
        (["figure5", "-o", "nowhere/out.pdf"], "no folder"),
        (["figure5", "--class", "redaing"], "'reading'"),
        (["figure5", "--layer", "7"], "no layer 7"),
        (["figure5", "--head", "0"], "no head 0"),
        (["figure5", "--style", "dots"], "no style 'dots'"),
        (["figure5", "--subject", "99"], "99"),
        (["figure5", "--run", "other"], "other"),
        (["figure5", "--store", "missing"], "there is no attention store at missing"),
        (["figure5", "--csv", "nowhere/out.csv"], "nowhere"),
    ],
)
def test_mistakes_are_told_in_words(run, tmp_path, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.pdf"))


KINDS = (
    "figure1", "figure5", "filmstrip", "heads", "model", "difference", "subjects", "evolution",
    "similarity", "decoding", "rollout", "confusion",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_help_with_an_example(run, kind):
    code, out, _ = run(kind, "--help")
    assert code == 0
    assert f"tssan-viz figure {kind}" in out
    assert "--venue" in out


def test_a_kind_is_written_with_caption_and_numbers(run, tmp_path):
    code, out, _ = run("heads", "--class", "A011", "--venue", "ieee", "-o", "mine.svg")
    assert code == 0, out
    assert "n = 32 videos of 8 subjects" in out
    assert "reading (A011)" in (tmp_path / "mine.txt").read_text()
    assert set(pd.read_csv(tmp_path / "mine.csv")["head"]) == {1, 2, 3, 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "mine.svg", "mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["confusoin"], "there is no figure 'confusoin'; there is confusion"),
        (["evolution"], "step 0 only, and evolution takes at least 2"),
        (["difference", "--class", "reading", "--with", "reading"], "compared with itself"),
        (["heads", "--venue", "iee"], "did you mean ieee"),
        (["similarity", "--metric", "cosin"], "cosine"),
        (["figure1", "--sample", "S999"], "S999"),
    ],
)
def test_mistakes_about_kinds_are_told_in_words(run, tmp_path, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_pgf_says_what_it_needs_where_there_is_no_latex(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run("confusion", "-o", "mine.pgf")
    assert code == 2
    assert "needs LaTeX" in err
    assert not list(tmp_path.iterdir())


if shutil.which("pdflatex"):  # no skip: there is none in continuous integration

    def test_pgf_compiles_whatever_the_names(monkeypatch, tmp_path):
        names = (r"50 % & $x_1$ #{a} ~^\end", "穿外套 ▸ café", "c")
        store = make_store(tmp_path / "store", subjects=4, frames=6, heads=2, classes=names)
        monkeypatch.chdir(tmp_path)
        for kind in ("confusion", "similarity", "model"):
            figure = getattr(figures, kind)(store)
            figures.save_figure(figure, tmp_path / f"{kind}.pgf")
            files = {path: path.read_bytes() for path in tmp_path.glob(f"{kind}*")}
            shapes = sorted(
                image.get_array().shape[::-1] for axes in figure.axes for image in axes.images
            )
            # One pixel per cell, beside the file and named after it.
            pictures = [Image.open(path) for path in files if path.suffix == ".png"]
            assert sorted(picture.size for picture in pictures) == shapes
            assert f"{{{kind}-img0.png}}" in files[tmp_path / f"{kind}.pgf"].decode()
            figures.save_figure(figure, tmp_path / f"{kind}.pgf")
            assert files == {path: path.read_bytes() for path in files}
        with pytest.raises(UserError, match="finds no picture whose name holds '%'"):
            figures.save_figure(figure, tmp_path / "50%.pgf")
        assert not list(tmp_path.glob("*.part"))
        (tmp_path / "d.tex").write_text(
            r"\documentclass{article}\usepackage{pgf,lmodern}\def\mathdefault#1{#1}"
            r"\begin{document}\input{confusion.pgf}\input{similarity.pgf}\input{model.pgf}\end{document}"
        )
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_difference_takes_its_two_classes_either_way(run, tmp_path):
    of = ("--permutations", 20, "-o")
    assert run("difference", "--class", "A014", "--with", "A011", *of, "1.pdf")[0] == 0
    assert run("difference", "--class", "A014", "--class", "A011", *of, "2.pdf")[0] == 0
    assert (tmp_path / "1.pdf").read_bytes() == (tmp_path / "2.pdf").read_bytes()
    code, _, err = run(
        "difference", "--class", "A014", "--class", "A011", "--with", "A023", *of, "3.pdf"
    )
    assert code == 2
    assert "of two classes, and 3 are named: A014, A011, A023" in err


@pytest.mark.parametrize(
    "given",
    [
        ("figure1", "--class", "A014", "--class=A011"),
        ("heads", "--layer", "1", "--layer", "2"),
        ("subjects", "--head", "1", "--head", "2"),
        ("confusion", "-o", "1.pdf", "--out", "2.pdf"),
    ],
)
def test_an_option_of_one_value_given_twice_is_refused(run, given):
    code, _, err = run(*given)
    assert code == 2
    assert "given 2 times, and one is meant" in err
