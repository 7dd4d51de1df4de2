from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.stores import make_catalogue, make_sites, make_store, softmax_maps
from tssan_viz.errors import UserError
from tssan_viz.store import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql") / "store"
    make_store(path, subjects=3, frames=8)
    make_store(path, subjects=2, frames=8, run="second", split="train", seed=4)
    return open_store(path)


def test_the_means_of_a_measure_are_those_of_pandas(store):
    answer = store.sql(
        "select class_name, layer, head, avg(entropy) as mean, count(*) as n from maps "
        "where run = 'generated' group by all order by all"
    )
    measures = store.select(run="generated").measures()
    expected = measures.groupby(["class_name", "layer", "head"])["entropy"].agg(["mean", "size"])
    assert len(answer) == 4 * 2 * 4
    np.testing.assert_allclose(answer["mean"], expected["mean"], rtol=1e-6)
    assert answer["n"].tolist() == expected["size"].tolist()
    assert answer["class_name"].tolist() == expected.index.get_level_values(0).tolist()


def test_every_table_has_what_it_says(store):
    count = "select run, count(*) as n from {} group by run order by run"
    for table, counts in {
        "rows": [48, 32],
        "maps": [48 * 8, 32 * 8],
        "samples": [48, 32],
        "sites": [2, 2],
        "runs": [1, 1],
    }.items():
        answer = store.sql(count.format(table))
        assert answer["run"].tolist() == ["generated", "second"]
        assert answer["n"].tolist() == counts, table
    assert store.sql("select distinct site from maps order by 1")["site"].tolist() == [
        "blocks.0.attend",
        "blocks.1.attend",
    ]
    rows = store.sql("select * from rows where run = 'second' order by sample")
    expected = store.rows("second").sort_values("sample", ignore_index=True)
    pd.testing.assert_frame_equal(
        rows[["sample", "label", "subject", "confidence"]],
        expected[["sample", "label", "subject", "confidence"]],
    )
    assert "frames" not in store.sql("select * from samples limit 1")
    assert store.sql("select accuracy from runs")["accuracy"].notna().all()
    assert store.sql("select json_extract(info, '$.seed') as seed from runs").shape == (2, 1)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("select * from map", "Did you mean"),
        ("select entropie from maps", "entropy"),
        ("selct 1", "syntax error"),
        ("", "one SELECT"),
        ("select 1; select 2", "one SELECT"),
        ("drop view maps", "one SELECT"),
        ("create table x as select 1", "one SELECT"),
        ("copy rows to 'x.csv'", "one SELECT"),
        ("attach 'x.db'", "one SELECT"),
        ("set lock_configuration = false", "one SELECT"),
        ("install httpfs", "one SELECT"),
        ("select * from '/etc/passwd'", "cannot be answered"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
        ("select * from read_text('/etc/hostname')", "disabled"),
        ("select * from glob('/etc/*')", "disabled"),
        ("select * from 'https://example.org/x.parquet'", "cannot be answered"),
        ("select * from secret", "does not exist"),
    ],
)
def test_what_is_no_question_about_the_store_is_refused(
    store, tmp_path, monkeypatch, question, message
):
    monkeypatch.chdir(tmp_path)
    secret = pd.DataFrame({"a": [1]})  # noqa: F841 - must not be found by DuckDB
    with pytest.raises(UserError, match=message):
        store.sql(question)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "question", ["from runs", "describe maps", "summarize rows", "show tables"]
)
def test_short_forms_of_a_question_are_answered(store, question):
    assert len(store.sql(question))


def test_runs_differ_in_measures_and_metadata(tmp_path):
    store = open_store(tmp_path / "s", create=True)
    sites = make_sites(2, 2, 4)
    rng = np.random.default_rng(0)
    for run, measure, extra in (
        ("a", "entropy", "age"),
        ("b", "sharpness", "hand"),
        ("c", None, "entropy"),
    ):
        with store.writer(run, sites=sites, catalogue=make_catalogue(("reading",))) as writer:
            maps = {s.name: softmax_maps(rng, (2, 2, 4, 4)).astype(np.float16) for s in sites}
            measures = {measure: {s.name: np.full((2, 2), 3.0) for s in sites}} if measure else None
            writer.add({"sample": ["u", "v"], extra: [5, 6]}, maps, measures)
    answer = store.sql(
        "select run, sum(entropy) e, sum(sharpness) s, sum(age) a from maps group by 1 order by 1"
    )
    assert answer["e"].fillna(0).tolist() == [24.0, 0.0, 0.0]
    assert answer["s"].fillna(0).tolist() == [0.0, 24.0, 0.0]
    assert answer["a"].fillna(0).tolist() == [44.0, 0.0, 0.0]
    assert store.sql("select count(*) n from maps")["n"][0] == 24


def test_a_row_of_two_ranks_counts_once(tmp_path):
    from tests.store.test_ranks import add, open_rank

    path = tmp_path / "store"
    zero, one = open_rank(path, 0), open_rank(path, 1)
    add(zero, [0, 1])
    zero.close()
    add(one, [1], value=7)
    one.close()
    store = open_store(path)
    assert store.sql("select count(*) n from rows")["n"][0] == 2
    assert store.sql("select count(*) n from maps")["n"][0] == 8


def test_an_empty_store_has_empty_tables(tmp_path):
    store = open_store(tmp_path / "s", create=True)
    for table in ("maps", "rows", "samples", "sites", "runs"):
        assert store.sql(f"select * from {table}").empty
