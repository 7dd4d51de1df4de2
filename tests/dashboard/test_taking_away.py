"""What is taken away from the pages: files, and lines that give the same."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from tssan_dash import (
    evidence_files,
    evolving,
    head_findings,
    overview_files,
    sample_files,
    subject_maps,
)
from tssan_dash.app import create_app
from tssan_dash.recordings import Recordings
from tssan_dash.sample_files import SampleAsked
from tssan_dash.subject_maps import SubjectMaps, SubjectsAsked
from typer.testing import CliRunner

from tests.dashboard.test_pages import (
    SAMPLE,
    comes_to,
    open_page,
    until,
    visiting,
    wait_drawn,
    wait_query,
    wait_text,
)
from tests.dashboard.test_pages import choose as choose_option
from tests.evidence.networks import planted_clips
from tests.evidence.test_ablation import Small, batches
from tests.evidence.test_faithfulness import known
from tests.stores import make_store
from tssan_viz.cli import app as cli
from tssan_viz.comparison.camera_means import camera_mean_maps
from tssan_viz.comparison.cell_layers import choose
from tssan_viz.errors import UserError
from tssan_viz.evidence.ablation import head_importance
from tssan_viz.evidence.kept import FAITHFULNESS, HEADS, keep
from tssan_viz.store import AttentionStore

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def written(job: Any, store: AttentionStore, wish: dict[str, Any]) -> tuple[str, bytes]:
    kept: dict[str, bytes] = {}
    found = job(store, quiet, kept.__setitem__, wish)
    return found["name"], kept[found["key"]]


def numbers_of(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Run the first of the commands that a page shows; return the numbers of its figure."""
    monkeypatch.chdir(folder)
    words = shlex.split(command.splitlines()[0])
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, result.output
    return pd.read_csv((folder / words[words.index("--out") + 1]).with_suffix(".csv"))


@pytest.mark.parametrize("view", ["head", "model", "heat", "player", "explore"])
def test_python_and_command_draw_what_the_page_saves(
    two_runs: AttentionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    shown = {"run": "wide", "sample": SAMPLE, "layer": 1, "segment": 2, "person": 1, "view": view}
    asked = SampleAsked.of(two_runs, shown | {"heads": [2, 3]})
    names: dict[str, Any] = {}
    *lines, last = asked.python(two_runs).splitlines()
    exec("\n".join(lines), names)
    drawn = eval(last, names).table
    page = asked.figure(two_runs).table
    pd.testing.assert_frame_equal(drawn, page)
    table = numbers_of(asked.command(two_runs), tmp_path, monkeypatch)
    weight = "weight" if "weight" in table else table.columns[-1]
    np.testing.assert_allclose(table[weight], page[weight], rtol=1e-5)


def test_the_maps_of_a_video_are_taken_away_as_they_are_stored(two_runs: AttentionStore) -> None:
    shown = {"run": "wide", "sample": SAMPLE, "layer": 2, "segment": 1, "person": 2}
    table = SampleAsked.of(two_runs, shown | {"heads": [4]}).numbers(two_runs)
    assert set(table["head"]) == {4}
    maps = two_runs.select(run="wide", sample=SAMPLE, layer=2, head=4, segment=1, person=2).maps()
    np.testing.assert_array_equal(table["weight"], maps.values.ravel())


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("html", b"<!doctype html>")])
def test_a_video_is_saved(two_runs: AttentionStore, ending: str, start: bytes) -> None:
    wish = {"run": "wide", "sample": SAMPLE, "view": "heat", "ending": ending}
    name, data = written(sample_files.export_job, two_runs, wish)
    assert name == f"{SAMPLE}.{ending}"
    assert data[:40].lower().startswith(start)


def answered(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Run the last of the commands that a page shows, a question in SQL; return its answer."""
    monkeypatch.chdir(folder)
    words = shlex.split(command.splitlines()[-1])
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, result.output
    return pd.read_csv(folder / words[words.index("--out") + 1])


MEASURES = ["entropy", "distance", "look_ahead", "peak"]


def test_lines_of_the_overview_give_its_figure_and_its_numbers(
    two_runs: AttentionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = overview_files.command(two_runs, "wide", MEASURES)
    shown = Recordings(two_runs).head_measures("wide")[["layer", "head", *MEASURES]]
    table = answered(command, tmp_path, monkeypatch)
    pd.testing.assert_frame_equal(table, shown, check_dtype=False, rtol=1e-6)
    names: dict[str, Any] = {}
    *lines, mean, last = overview_files.python(two_runs, "wide", MEASURES).splitlines()
    exec("\n".join(lines), names)
    means = eval(mean, names).reset_index()
    pd.testing.assert_frame_equal(means, shown, check_dtype=False, rtol=1e-6)
    drawn = eval(last, names).table
    figure = numbers_of(command, tmp_path, monkeypatch)
    np.testing.assert_allclose(figure["weight"], drawn["weight"], rtol=1e-5)


def test_lines_of_the_training_give_the_numbers_of_each_step(
    two_runs: AttentionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = evolving.EvolutionAsked.of(two_runs, "wide", {})
    table = answered(asked.command(two_runs, MEASURES), tmp_path, monkeypatch)
    names: dict[str, Any] = {}
    *lines, mean, _ = asked.python(two_runs, MEASURES).splitlines()
    exec("\n".join(lines), names)
    pd.testing.assert_frame_equal(
        table, eval(mean, names).reset_index(), check_dtype=False, rtol=1e-6
    )
    assert (table["step"] == 0).all()


@pytest.mark.parametrize("job", [overview_files.export_job, subject_maps.export_job])
def test_pages_of_their_own_need_nobody(two_runs: AttentionStore, job: Any) -> None:
    query = {"run": "wide", "class": "reading", "layer": "1", "head": "2"}
    name, data = written(job, two_runs, {"query": query, "ending": "html"})
    assert name.endswith(".html")
    text = data.decode()
    assert "default-src 'none'" in text
    payload = json.loads(
        text.split('<script type="application/json" id="payload">')[1].split("</script>")[0]
    )
    titles = payload["manifest"]["titles"]
    assert titles[:2] in (["layer 1, head 1", "layer 1, head 2"], ["subject 1", "subject 2"])
    assert len(titles) == (8 if "layer" in titles[0] else 7)


@pytest.mark.parametrize(
    "job", [sample_files.export_job, subject_maps.export_job, evolving.export_job]
)
def test_another_ending_is_refused(two_runs: AttentionStore, job: Any) -> None:
    wish = {"sample": SAMPLE, "query": {"run": "wide"}, "run": "wide", "ending": "exe"}
    with pytest.raises(UserError, match="not as 'exe'"):
        written(job, two_runs, wish)


def maps_of(store: AttentionStore, query: dict[str, str]) -> SubjectMaps:
    kept: dict[str, SubjectMaps] = {}
    found = subject_maps.maps_job(store, quiet, kept.__setitem__, {"query": query})
    return kept[found["key"]]


def test_small_maps_are_the_means_of_the_store(small_store: AttentionStore) -> None:
    run = small_store.latest_run()
    query = {"run": run, "layer": "1", "head": "2"}
    found = maps_of(small_store, query)
    rows = small_store.select(run=run, layer=1, head=2, person=1)
    means = rows.mean(["label", "subject"])
    assert found.subjects == means["subject"].values.tolist()
    np.testing.assert_allclose(found.by_subject, means.values[:, :, 0, 0], atol=2e-4)
    who, maps = found.at_large(found.classes[0])
    np.testing.assert_allclose(maps, means.values[0, :, 0, 0], atol=2e-4)
    assert who == found.subjects
    assert found.low < 1 / maps.shape[-1] < found.high
    assert found.even == 1 / maps.shape[-1]
    asked = SubjectsAsked.of(small_store, run, query)
    assert asked.figure(small_store).table["subject"].nunique() == len(who)


def test_cameras_are_averaged_with_and_without_kept_sums(
    small_store: AttentionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_store.latest_run()
    chosen = choose(small_store.select(run=run), layer=1)
    means = small_store.select(run=run, layer=1, person=1).mean(["label", "camera", "subject"])
    expected = np.nanmean(means.values[:, :, :, 0], axis=2)
    labels, cameras, maps = camera_mean_maps(chosen, 1)
    assert (labels, cameras) == (means["label"].values.tolist(), means["camera"].values.tolist())
    np.testing.assert_allclose(maps, expected, atol=2e-4)
    monkeypatch.setattr("tssan_viz.comparison.camera_means.kept_cells", lambda *_: None)
    np.testing.assert_allclose(camera_mean_maps(chosen, 1)[2], maps, atol=1e-6)


def test_large_maps_are_averaged_for_the_screen() -> None:
    one = np.random.default_rng(0).random((100, 300)).astype(np.float32)
    small = subject_maps._small(one)
    assert small.shape == (64, 64)
    even = np.full((128, 128), 1 / 128, np.float32)
    np.testing.assert_allclose(subject_maps._small(even), 1 / 128, rtol=1e-6)


def test_findings_are_those_of_the_comparison(two_runs: AttentionStore) -> None:
    from tssan_viz.comparison.decoding import decodability
    from tssan_viz.comparison.variance import variance_shares

    kept: dict[str, Any] = {}
    found = head_findings.findings_job(
        two_runs, quiet, kept.__setitem__, {"query": {"run": "wide"}}
    )
    answer = kept[found["key"]]
    rows = two_runs.select(run="wide")
    pd.testing.assert_frame_equal(answer.shares, variance_shares(rows).wide())
    pd.testing.assert_frame_equal(answer.decoding, decodability(rows).table)


def test_explore_says_the_lines_and_saves_the_weights(
    page: Page, dashboard: str, tmp_path: Path
) -> None:
    open_page(page, f"{dashboard}/explore?sample={SAMPLE}&layer=1&heads=1-3")
    page.click("#explore-taking button")
    wait_text(page, "#explore-command", "--layer 1 --head 1 --head 3")
    page.locator("#explore-view label", has_text="Heat map").click()
    wait_text(page, "#explore-command", "figure heads")
    until(
        page,
        "() => document.querySelector('#explore-link').search === location.search",
    )
    with page.expect_download() as download:
        page.click("#explore-save-csv")
    table = pd.read_csv(io.StringIO(download.value.path().read_text()))
    assert sorted(table["head"].unique()) == [1, 3]
    with page.expect_download(timeout=60_000) as download:
        page.click("#explore-save-pdf")
    assert download.value.suggested_filename == f"{SAMPLE}.pdf"
    assert download.value.path().read_bytes().startswith(b"%PDF")


def test_subjects_are_beside_each_other_and_another_head_is_in_the_address(
    page: Page, dashboard: str
) -> None:
    page.goto(f"{dashboard}/subjects")
    page.locator("#subjects-grid table").wait_for(timeout=60_000)
    comes_to(page, page.locator("#subjects-subjects-maps [role=img]").count, 4 * 7)
    wait_drawn(page, "subjects-large")
    page.locator("#subjects-decoding .js-plotly-plot").wait_for(timeout=60_000)
    choose_option(page, "subjects-class", "wear", "put on jacket")
    wait_query(page, **{"class": "put on jacket", "layer": "2", "head": "1"})
    wait_text(page, "main", "Put on jacket: layer 2, head 1")
    page.click("#subjects-head")
    page.locator(".mantine-Select-option:visible").filter(has_text="3").click()
    wait_query(page, **{"class": "put on jacket", "head": "3"})
    wait_text(page, "main", "Put on jacket: layer 2, head 3")
    with page.expect_download() as download:
        page.click("#subjects-save-csv")
    assert len(pd.read_csv(download.value.path())) == 8
    page.locator("#subjects-subjects-maps a").nth(9).click()
    wait_drawn(page, "explore-head")


def test_curves_are_shown_and_taken_away(page: Page, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=3, cameras=(1,), classes=("reading", "jump"))
    found = known()
    keep(store, "generated", FAITHFULNESS, 0, found.to_dict())
    name, data = written(evidence_files.export_job, store, {"class": "reading", "ending": "svg"})
    assert name == "curves.svg"
    assert found.methods[0].encode() in data
    names: dict[str, Any] = {}
    *lines, last = evidence_files.python(store, "generated", 0).splitlines()
    exec("\n".join(lines), names)
    assert eval(last, names)["insertion"].tolist() == found.curves["insertion"].tolist()
    assert "--class reading" in evidence_files.command(store, "generated", 0)
    with visiting(page, create_app(store)) as address:
        page.goto(f"{address}/evidence")
        page.locator("main .js-plotly-plot").nth(1).wait_for(timeout=20_000)
        with page.expect_download() as download:
            page.click("#evidence-save-csv")
        table = pd.read_csv(download.value.path())
        assert len(table) == len(found.curves)
        np.testing.assert_allclose(table["deletion"], found.curves["deletion"])
        page.goto(f"{address}/evidence?class=jump")
        wait_text(page, "body", "Nothing was tested about the class 'jump'")


def test_heads_that_are_needed_stand_beside_what_their_maps_tell(
    page: Page, tmp_path: Path
) -> None:
    classes = ("reading", "jump", "<b>throw</b>")
    store = make_store(tmp_path / "store", subjects=3, cameras=(1,), classes=classes)
    importance = head_importance(Small().eval(), batches(planted_clips(16)))
    told = replace(importance, decodable=np.array([[0.2, 0.4], [0.3, 0.9]]))
    keep(store, "generated", HEADS, None, told.to_dict())
    keep(store, "generated", FAITHFULNESS, None, known().to_dict())
    keep(store, "generated", FAITHFULNESS, 2, known().to_dict())
    assert evidence_files.tested(store, "generated") == [None, 2]
    assert "--heads" in evidence_files.command(store, "generated", None)
    assert "--heads" not in evidence_files.command(store, "generated", 2)
    name, data = written(evidence_files.export_job, store, {"run": "generated", "ending": "html"})
    assert name == "evidence.html"
    assert b"All heads changed at once" in data
    name, data = written(
        evidence_files.export_job, store, {"class": "<b>throw</b>", "ending": "html"}
    )
    assert b"<b>throw</b>" not in data
    with visiting(page, create_app(store)) as address:
        page.goto(f"{address}/evidence")
        wait_text(page, "main", "Set to their means")
        wait_text(page, "main", f"rank correlation {told.goes_with_decodability:+.2f}")
        lines = page.locator("main tr").filter(has_text="Attending to all frames alike")
        together = told.together.set_index("edit").loc["uniform"]
        comes_to(page, lambda: f"{together['loss']:+.3f}" in lines.inner_text(), True)
        with page.expect_download() as download:
            page.click("#evidence-save-heads")
        table = pd.read_csv(download.value.path())
        np.testing.assert_allclose(table["zero_loss"], told.table["zero_loss"])
        np.testing.assert_allclose(table["decodable"], told.table["decodable"])
        choose_option(page, "evidence-class", "throw", "<b>throw</b>")
        wait_query(page, **{"class": "<b>throw</b>"})
        wait_text(page, "main", "Deletion and insertion, <b>throw</b>")
        assert page.locator("#evidence-save-heads").is_hidden()
