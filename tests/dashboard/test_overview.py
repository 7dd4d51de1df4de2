"""The page that opens first, and those of training and evidence."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from dash import Dash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tssan_dash.app import create_app
from tssan_dash.pages.parts import shades
from typer.testing import CliRunner

from tests.dashboard.test_pages import (
    FAINT_WORDS,
    PATIENCE_SECONDS,
    comes_to,
    until,
    visiting,
    wait_drawn,
    wait_query,
    wait_text,
)
from tests.stores import make_sites, make_store
from tssan_viz.cli import app as cli
from tssan_viz.evidence.kept import HEADS, keep
from tssan_viz.store import AttentionStore, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page


def test_the_overview_has_the_stores_numbers_and_a_cell_leads_to_its_head(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    page.goto(dashboard)
    wait_text(page, "#overview-cards", "Accuracy")
    samples = two_runs.select(run="wide").samples()
    words = page.locator("#overview-cards").inner_text()
    assert f"{samples['correct'].astype(float).mean():.1%}" in words
    assert f"\n{len(samples)}\n" in words.replace("\n\n", "\n")
    mean = two_runs.measures("wide").groupby(["layer", "head"])["entropy"].mean()
    cells = page.locator("#overview-heads td a")
    comes_to(page, cells.all_inner_texts, [f"{value:.2f}" for value in mean])
    page.locator("#overview-heads td a").nth(5).click()
    wait_drawn(page, "compare-maps")
    until(
        page,
        "() => { const s = dash_component_api.getLayout('compare-maps').props.state;"
        " return s.layer === 2 && s.head === 2 }",
    )


def test_another_measure_is_in_the_address(
    page: Page, dashboard: str, two_runs: AttentionStore
) -> None:
    page.goto(f"{dashboard}/?run=wide")
    page.click("#overview-measure")
    page.locator(".mantine-Select-option:visible").filter(has_text="look ahead").click()
    wait_query(page, measure="look_ahead", run="wide")
    mean = two_runs.measures("wide").groupby(["layer", "head"])["look_ahead"].mean()
    form = "z.1f" if mean.abs().max() >= 10 else "z.2f"
    wait_text(page, "#overview-heads tr:nth-child(1) td:nth-child(2)", f"{mean.iloc[0]:{form}}")


def test_the_class_goes_along_from_page_to_page(page: Page, dashboard: str) -> None:
    page.goto(dashboard)
    page.get_by_role("link", name="Explore reading").click()
    wait_drawn(page, "explore-head")
    comes_to(page, page.locator("#explore-class").input_value, "reading (A011)")
    page.click("#link-compare")
    wait_drawn(page, "compare-maps")
    wait_query(page, **{"class": "reading"})
    page.click("#link-explore")
    wait_drawn(page, "explore-head")
    comes_to(page, page.locator("#explore-class").input_value, "reading (A011)")


def test_training_without_steps_and_evidence_without_tests_teach_the_command(
    page: Page, dashboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.goto(f"{dashboard}/training")
    wait_text(page, "#training-charts", "--record")
    for here in ("training", "evidence"):
        page.click(f"#link-{here}")
        # Until the page is there, the last one's command stands in its place.
        asked = "tssan-viz train" if here == "training" else "tssan-viz faithfulness"
        command = page.locator("main .mantine-Code-root").filter(has_text=asked)
        words = shlex.split(command.inner_text())
        # Every option is one there is; only what the words stand for is not there.
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            result = CliRunner().invoke(cli, words[1:])
        assert ("no recipe" if here == "training" else "no trained run") in str(result.exception)
    wait_text(page, "main", "tssan-viz faithfulness --run wide")


def test_a_step_that_is_recorded_meanwhile_appears_by_itself(page: Page, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=2, cameras=(1,), classes=("reading",))
    with visiting(page, create_app(store)) as address:
        page.goto(f"{address}/training")
        wait_text(page, "#training-charts", "One step only")
        sites = make_sites(2, 4, 16)
        with open_store(tmp_path / "store").writer(
            "generated",
            sites=sites,
            catalogue=store.catalogue("generated"),
            info=store.info("generated"),
        ) as writer:
            maps = {site.name: np.full((1, 4, 16, 16), 1 / 16, np.float16) for site in sites}
            row = {"sample": "S001C001P001R001A011", "label": 0, "class_name": "reading"}
            row |= {"subject": 1, "segment": 1, "person": 1, "step": 10, "correct": True}
            row["train_loss"] = 1.25
            values = {site.name: np.full((1, 4), 0.5, np.float32) for site in sites}
            writer.add({name: [value] for name, value in row.items()}, maps, {"entropy": values})
        page.locator("#training-charts .js-plotly-plot").first.wait_for(
            timeout=1000 * PATIENCE_SECONDS
        )
        wait_text(page, "#training-charts", "Entropy")
        wait_text(page, "#training-charts", "Loss")
        wait_drawn(page, "training-evolution")
        wait_text(page, "#training-share-result", "No class share is shown")
        with page.expect_download() as download:
            page.click("#training-save-csv")
        table = pd.read_csv(download.value.path())
        assert len(table) == 2 * 2 * 4
        assert table.loc[table["step"] == 10, "train_loss"].eq(1.25).all()


def test_what_was_kept_of_heads_is_shown(page: Page, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=2, cameras=(1,), classes=("reading",))
    table = [
        {"stream": "main", "layer": layer, "head": head, "zero_loss": layer + head / 10}
        for layer in (1, 2)
        for head in (1, 2)
    ]
    keep(store, "generated", HEADS, 0, {"videos": 4, "table": table})
    with visiting(page, create_app(store)) as address:
        page.goto(f"{address}/evidence")
        wait_text(page, "main", "Heads taken out, reading")
        cells = page.locator("#evidence-heads-0 td")
        comes_to(page, cells.all_inner_texts, ["1.100", "1.200", "2.100", "2.200"])


def test_new_pages_can_be_read_and_fit_a_phone(page: Page, dashboard: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for path, there in (
            ("/", "#overview-heads"),
            ("/subjects", "#subjects-decoding"),
            ("/training", "[role=alert]"),
            ("/evidence", "main .mantine-Code-root"),
        ):
            page.goto(dashboard + path)
            page.locator(there).wait_for()
            where = f"{path} in {scheme}"
            comes_to(page, lambda w=where: (w, page.evaluate(FAINT_WORDS)), (where, []))
            until(page, "document.documentElement.scrollWidth <= 390")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(
        ["/", "/explore", "/compare", "/subjects", "/training", "/evidence", "/x"]
    ),
    query=st.dictionaries(
        st.sampled_from(["run", "class", "with", "sample", "measure", "layer", "head", "heads"]),
        st.one_of(st.text(max_size=20), st.sampled_from(["wide", "reading", "entropy", "1"])),
        max_size=4,
    ),
)
def test_no_address_of_any_page_breaks_the_server(app: Dash, path: str, query: dict) -> None:
    from urllib.parse import urlencode

    client = app.server.test_client()
    search = "?" + urlencode(query, errors="replace")
    assert client.get(path + search).status_code == 200
    body = {
        "output": ".._pages_content.children..._pages_store.data..",
        "outputs": [
            {"id": "_pages_content", "property": "children"},
            {"id": "_pages_store", "property": "data"},
        ],
        "inputs": [
            {"id": "_pages_location", "property": "pathname", "value": path},
            {"id": "_pages_location", "property": "search", "value": search},
        ],
        "changedPropIds": ["_pages_location.search"],
    }
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code == 200, answer.text[:200]
    assert "error of its own" not in answer.text


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=20))
def test_numbers_stand_out_from_their_shade(values: list[float]) -> None:
    def light(colour: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    found = shades(np.array(values))
    assert len(found) == len(values)
    for value, shade in zip(values, found, strict=True):
        assert (shade is None) == np.isnan(value)
        if shade is not None:
            ink = {"#000": 0.0, "#fff": 1.0}[shade[1]]
            both = sorted([light(shade[0]), ink])
            assert (both[1] + 0.05) / (both[0] + 0.05) >= 4.5
