"""The page Compare: its numbers, what it is asked, and what is taken away from it."""

from __future__ import annotations

import json
import re
import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tssan_dash.asked import Asked
from tssan_dash.comparing import Answer, compare_job, export_job, key_of
from tssan_dash.first_look import first_look
from tssan_dash.jobs import Jobs
from tssan_dash.recordings import Recordings
from typer.testing import CliRunner

from tests.dashboard.test_pages import (
    PATIENCE_SECONDS,
    choose,
    comes_to,
    open_page,
    wait_drawn,
    wait_query,
    wait_text,
)
from tests.stores import make_store
from tssan_viz.cli import app as cli
from tssan_viz.comparison import compare_class
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUESTIONS: list[dict[str, str]] = [
    {"class": "put on jacket"},
    {
        "class": "reading",
        "with": "A023",
        "subjects": "1,2,3,4,5",
        "where": "confidence > 0.5 and not split = 'it''s'",
    },
    {"by": "subject", "a": "1,2,3", "cameras": "1", "class": "reading", "step": "0"},
]


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def answered(store: AttentionStore, query: dict[str, str]) -> tuple[Asked, Answer]:
    kept: dict[str, Answer] = {}
    asked = Asked.of(store, "wide", query)
    found = compare_job(store, quiet, kept.__setitem__, {"query": asked.query()})
    assert found == {"key": key_of(store, asked)}
    return asked, kept[found["key"]]


@pytest.mark.parametrize("query", QUESTIONS)
def test_page_python_and_command_give_the_same_numbers(
    two_runs: AttentionStore,
    query: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked, answer = answered(two_runs, query)
    names: dict[str, object] = {}
    *lines, last = asked.python(two_runs).splitlines()
    exec("\n".join(lines), names)
    pd.testing.assert_frame_equal(eval(last, names), answer.table)
    words = shlex.split(asked.command(two_runs))[1:]
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    table = pd.DataFrame(json.loads(result.stdout)["table"])
    shared = ["layer", "head", "W", "B", "delta", "p", "p_max_t", "q"]
    pd.testing.assert_frame_equal(
        table[shared].astype(float), answer.table[shared].astype(float), check_exact=False
    )
    assert len(pd.read_csv("comparison.csv")) == len(answer.table)
    assert Path("comparison.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"class": "put on jackett"}, "put on jacket"),
        ({"by": "weather"}, "not of 'weather'"),
        ({"subjects": "1;2"}, "numbers like 1,3"),
        ({"subjects": "99"}, "no row"),
        ({"where": "camera=1; drop table rows"}, "cannot be read"),
        ({"where": "getenv('HOME') = 'x'"}, "no column"),
        ({"correct": "maybe"}, "true or false"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(
    two_runs: AttentionStore, query: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        Asked.of(two_runs, "wide", query).rows(two_runs)


@pytest.mark.parametrize(
    "query",
    [
        {"class": "put on jacket"},
        {"class": "reading", "with": "A023"},
        {"class": "reading", "subjects": "1,3,4"},
    ],
)
def test_what_cells_say_at_once_is_what_the_comparison_says(
    two_runs: AttentionStore, query: dict[str, str]
) -> None:
    asked, answer = answered(two_runs, query)
    recordings = Recordings(two_runs)
    found, again = first_look(recordings, asked), first_look(recordings, asked)
    assert found is not None
    pd.testing.assert_frame_equal(found, again)
    table = answer.table[["layer", "head", "W", "B", "delta"]]
    pd.testing.assert_frame_equal(found, table, check_dtype=False, check_exact=False, atol=1e-6)


def test_without_kept_cells_nothing_is_said_at_once(tmp_path: Path) -> None:
    store = make_store(tmp_path / "attention-store", subjects=3, cameras=(1,))
    recordings = Recordings(store)
    asked = Asked.of(store, "generated", {"class": "reading"})
    assert first_look(recordings, asked) is None
    # What was kept meanwhile is seen, although no row has changed.
    compare_class(store.select(), "put on jacket")
    assert first_look(recordings, asked) is not None
    assert first_look(recordings, Asked.of(store, "generated", {"by": "subject"})) is None
    # Segments of a video are a part of a cell, whose answer is in the maps.
    where = {"class": "reading", "where": "replication = 1"}
    assert first_look(recordings, Asked.of(store, "generated", where)) is None
    for file in (tmp_path / "attention-store" / "cells").rglob("*gram*.npy"):
        values = np.load(file)
        np.save(file, np.zeros_like(values))
    assert first_look(Recordings(store), asked) is None


def test_the_page_shows_what_cells_say_while_the_test_runs(
    page: Page, dashboard: str, two_runs: AttentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = compare_class(
        two_runs.select(run="wide"), "hand waving", with_class="drink water"
    ).table
    begin, go_on = Jobs.call_job_fn, threading.Event()

    def later(jobs: Jobs, *given: Any) -> int:
        # The table gives way to the answer, which is kept back until it was read.
        assert go_on.wait(PATIENCE_SECONDS)
        return begin(jobs, *given)

    monkeypatch.setattr(Jobs, "call_job_fn", later)
    page.goto(f"{dashboard}/compare?class=hand+waving&with=drink+water")
    titles = page.locator("#compare-first").evaluate(
        "e => [...e.querySelectorAll('[title]')].map(cell => cell.title)"
    )
    go_on.set()
    assert titles == [
        f"layer {int(cell['layer'])}, head {int(cell['head'])}: W {cell['W']:.4f}, "
        f"B {cell['B']:.4f}, Δ: {cell['delta']:.4f}"
        for _, cell in expected.iterrows()
    ]
    wait_drawn(page, "compare-maps")
    comes_to(page, page.locator("#compare-first").count, 0)


PARAMETERS = ("class", "with", "by", "a", "b", "subjects", "cameras", "correct", "step", "where")


@given(st.dictionaries(st.sampled_from(PARAMETERS), st.text(max_size=12)))
def test_no_address_breaks_the_question(two_runs: AttentionStore, query: dict[str, str]) -> None:
    try:
        asked = Asked.of(two_runs, "wide", query)
    except UserError:
        return
    assert Asked.of(two_runs, "wide", asked.query()) == asked


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("html", b"<!DOCTYPE html>")])
def test_files_are_written(two_runs: AttentionStore, ending: str, start: bytes) -> None:
    kept: dict[str, bytes] = {}
    query = {"run": "wide", "class": "reading"}
    found = export_job(two_runs, quiet, kept.__setitem__, {"query": query, "ending": ending})
    assert found["name"] == f"comparison.{ending}"
    assert kept[found["key"]][:40].lower().startswith(start.lower())


def place_of(page: Page) -> tuple[int, int]:
    state = page.evaluate("dash_component_api.getLayout('compare-maps').props.state")
    return state["layer"], state["head"]


def test_the_table_has_the_numbers_and_a_row_shows_its_maps(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    open_page(page, f"{dashboard}/compare?class=wear+jacket")
    expected = compare_class(two_runs.select(run="wide"), "put on jacket")
    page.wait_for_selector("#compare-table .ag-row")
    rows = page.evaluate("dash_component_api.getLayout('compare-table').props.rowData")
    for column in ("layer", "head", "W", "B", "delta", "low", "high", "p", "p_max_t", "q"):
        assert [row[column] for row in rows] == pytest.approx(list(expected.table[column]))
    for sentence in ("7 subjects", *expected.summary):
        wait_text(page, "#compare-summary", sentence)
    neighbours = page.locator("#compare-neighbours a")
    comes_to(page, neighbours.all_inner_texts, list(expected.neighbours["class_name"]))
    captions = page.locator("#compare-maps figcaption")
    comes_to(page, captions.all_inner_texts, ["put on jacket", "the others", "difference"])
    comes_to(page, lambda: place_of(page), (2, 1))  # the planted head is shown first
    page.locator("#compare-table [row-id='1-3'] [col-id=W]").click()
    wait_query(page, layer="1", head="3")
    open_page(page, page.url)
    comes_to(page, lambda: place_of(page), (1, 3))
    chosen = page.locator("#compare-table .ag-row-selected").first
    comes_to(page, lambda: chosen.get_attribute("row-id"), "1-3")


def test_two_classes_are_compared_and_the_table_taken_away(
    page: Page, dashboard: str, tmp_path: Path
) -> None:
    open_page(page, f"{dashboard}/compare?class=reading")
    choose(page, "compare-class", "wear", "put on jacket")
    wait_query(page, **{"class": "put on jacket"})
    wait_drawn(page, "compare-maps")
    choose(page, "compare-with", "wave", "hand waving")
    wait_query(page, **{"class": "put on jacket", "with": "hand waving"})
    wait_text(page, "#compare-maps figure:nth-child(2) figcaption", "hand waving")
    with page.expect_download() as download:
        page.click("#compare-save-csv")
    download.value.save_as(tmp_path / "table.csv")
    assert len(pd.read_csv(tmp_path / "table.csv")) == 8
    page.locator("#compare-neighbours a").filter(has_text="reading").click()
    wait_query(page, **{"with": "reading"})
    wait_text(page, "#compare-maps figure:nth-child(2) figcaption", "reading")
