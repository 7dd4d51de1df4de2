from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.stores import make_store
from tssan_viz.cli import app
from tssan_viz.errors import UserError

QUESTION = "select class_name, avg(entropy) as entropy from maps group by all order by all"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("query") / "s"
    return make_store(path, subjects=2, cameras=(1,), frames=4, classes=("[b]x[/b]", "reading"))


def ask(store, *arguments):
    return CliRunner().invoke(app, ["query", *arguments, "--store", store.url])


def test_an_answer_is_a_table_on_the_screen(store):
    said = ask(store, QUESTION)
    assert said.exit_code == 0
    means = store.select().measures().groupby("class_name")["entropy"].mean()
    for name, mean in means.items():
        assert name in said.output
        assert f"{mean:.6g}"[:6] in said.output


def test_csv_and_json_say_the_same(store):
    csv = pd.read_csv(io.StringIO(ask(store, QUESTION, "--format", "csv").output))
    lines = json.loads(ask(store, QUESTION, "--format", "json").output)
    assert csv["class_name"].tolist() == [line["class_name"] for line in lines]
    assert csv["entropy"].tolist() == pytest.approx([line["entropy"] for line in lines])


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_the_file_s_ending_says_how(store, tmp_path, ending):
    out = tmp_path / f"answer.{ending}"
    said = ask(store, QUESTION, "-o", str(out))
    assert said.exit_code == 0, said.output
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[ending]
    assert read(out)["class_name"].tolist() == ["[b]x[/b]", "reading"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["select * from map"], "Did you mean"),
        ([QUESTION, "-o", "x.xls"], "not 'xls'"),
        ([QUESTION, "--format", "parquet"], "name one with --out"),
        ([QUESTION, "--format", "table", "-o", "x.csv"], "for the screen"),
        (["delete from rows"], "not changed through SQL"),
        ([QUESTION, "-o", "nowhere/x.csv"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_said(store, arguments, message):
    said = ask(store, *arguments)
    assert isinstance(said.exception, UserError)
    assert message in str(said.exception)
