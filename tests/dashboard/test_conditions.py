"""Conditions of a person far away: they mean what DuckDB says, or are refused in words."""

from __future__ import annotations

import json

import duckdb
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tssan_dash.conditions import checked

from tssan_viz.errors import UserError

ROWS = pd.DataFrame(
    {
        "row_id": range(6),
        "camera": pd.array([1, 2, 3, 1, 2, None], "Int64"),
        "confidence": [0.1, 0.5, 0.9, 0.95, 0.2, 0.99],
        "split": ["test", "test", "train", "it's", None, "train"],
        "correct": pd.array([True, False, True, None, True, False], "boolean"),
    }
)
COLUMNS = list(ROWS.columns)

numbers = st.one_of(st.integers(-9, 9).map(str), st.sampled_from(["0.5", ".9", "1e-1", "2."]))
texts = st.sampled_from(["'test'", "'it''s'", "''", "'x; drop table t --'"])
signs = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])
number_columns = st.sampled_from(["camera", "confidence", '"camera"', "row_id"])
tests = st.one_of(
    st.tuples(number_columns, signs, numbers).map(" ".join),
    st.tuples(st.just("split"), signs, texts).map(" ".join),
    st.tuples(number_columns, st.lists(numbers, min_size=1, max_size=3)).map(
        lambda t: f"{t[0]} not in ({', '.join(t[1])})"
    ),
    st.tuples(number_columns, numbers, numbers).map(lambda t: f"{t[0]} between {t[1]} AND {t[2]}"),
    st.sampled_from(["camera is null", "split IS NOT NULL", "correct", "correct = false"]),
)
conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " OR "]), inner).map("".join),
        inner.map("not {}".format),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


def rows_where(condition: str) -> list[int]:
    relation = duckdb.connect().from_df(ROWS).filter(condition)
    return sorted(row[0] for row in relation.project("row_id").fetchall())


@given(conditions)
@example("camera = 1 or camera = 2 and confidence > 0.4")
@example("not camera = 1 and confidence > 0.4")
def test_it_means_what_the_sql_means(condition: str) -> None:
    assert rows_where(checked(condition, COLUMNS)) == rows_where(condition)


def node_kinds(tree: object) -> set[str]:
    """What DuckDB's own parser finds in a condition."""
    if isinstance(tree, list):
        return {kind for item in tree for kind in node_kinds(item)}
    if not isinstance(tree, dict):
        return set()
    here = {tree["class"]} if isinstance(tree.get("class"), str) else set()
    return here | {kind for item in tree.values() for kind in node_kinds(item)}


pieces = st.sampled_from(
    [
        *(*COLUMNS, "and", "or", "not", "in", "between", "is", "null", "true", "(", ")", ",", "="),
        *("1", "0.5", "'a'", "''", "'", '"', ";", "--", "/*", "*/", "select", "read_csv", "::"),
        *("$$", "E'\\''", "x'00'", "\\", "\n", "*", "+", "||", "CAST", "é", "\u2019", "\0"),
    ]
)


@given(st.one_of(conditions, st.lists(pieces, max_size=14).map(" ".join), st.text(max_size=30)))
@example("1e")
@example("confidence = 1e400")
def test_nothing_passes_but_columns_and_literals(text: str) -> None:
    try:
        sql = checked(text, COLUMNS)
    except UserError:
        return
    query = "SELECT json_serialize_sql(?)"
    answer = duckdb.execute(query, [f"SELECT 1 FROM rows WHERE {sql}"]).fetchone()
    assert answer is not None
    parsed = json.loads(answer[0])
    assert not parsed["error"], sql
    assert len(parsed["statements"]) == 1
    kinds = node_kinds(parsed["statements"][0]["node"]["where_clause"])
    allowed = {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN"}
    # DuckDB writes true and false, and numbers in exponents, as casts of constants.
    assert kinds <= allowed | {"CAST"}, sql


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("confidense > 0.9", "did you mean 'confidence'"),
        ("camera = 1; drop table rows", "cannot be read"),
        ("read_text('/etc/passwd') = 'x'", "no column 'read_text'"),
        ("camera in (select 1)", "a number"),
        ("split = test", "a 'text'"),
        ("split = 'test", "single quotes"),
        ("camera >", "the end"),
        ("camera = 1 camera = 2", "AND, OR"),
        ("(" * 200 + "correct" + ")" * 200, "levels deep"),
        ("correct or " * 200 + "correct", "characters"),
        ("", "a column"),
    ],
)
def test_what_it_does_not_know_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        checked(text, COLUMNS)
