"""A store that is written, compacted, damaged or gone while it is shown."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from tssan_dash.app import create_app
from tssan_dash.recordings import Recordings

from tests.dashboard.test_fuzz import request_of
from tests.stores import make_store
from tssan_viz.store import AttentionStore, open_store
from tssan_viz.store.upkeep import compact

PAGES = ["/", "/explore", "/compare", "/subjects", "/training", "/evidence"]


class Shown:
    """A dashboard, as a browser sees it."""

    def __init__(self, store: AttentionStore) -> None:
        self.store = store
        self.app: Dash = create_app(store)
        self.client = self.app.server.test_client()
        assert self.client.get("/").status_code == 200

    def page(self, path: str, search: str = "") -> str:
        """Return what the router draws of an address, as JSON."""
        (output,) = [name for name in self.app.callback_map if "_pages_content.children" in name]
        request = request_of(self.app, output, None)
        given = {"pathname": path, "search": search}
        request["inputs"] = [i | {"value": given[i["property"]]} for i in request["inputs"]]
        answer = self.client.post("/_dash-update-component", json=request)
        assert answer.status_code == 200
        assert "Traceback" not in answer.text
        return json.dumps(answer.json["response"]["_pages_content"], ensure_ascii=False)

    def header(self) -> dict[str, Any]:
        """Return the answer of what stands in the header."""
        (output,) = [name for name in self.app.callback_map if "run.data" in name]
        request = request_of(self.app, output, None)
        answer = self.client.post("/_dash-update-component", json=request)
        assert answer.status_code == 200
        return answer.json

    def maps(self) -> tuple[int, str]:
        """Return the status and bytes of a video's maps, as its page asks for them."""
        page = json.loads(self.page("/explore", "?run=generated&class=reading"))
        urls = [part for part in json.dumps(page).split('"') if "part=maps" in part]
        answer = self.client.get(urls[0])
        return answer.status_code, answer.data.decode("latin-1")


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    shown = Shown(make_store(tmp_path / "attention-store", subjects=3, cameras=(1,)))
    for path in PAGES:
        assert "error of its own" not in shown.page(path)
    return shown


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR)
    return caplog


@pytest.mark.parametrize("path", PAGES)
def test_a_store_that_vanishes_is_said(
    shown: Shown, path: str, logged: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(shown.store.url)
    words = shown.page(path)
    assert "is gone" in words
    assert "error of its own" not in words
    assert "is gone" in json.dumps(shown.header()["sideUpdate"])
    assert not logged.records


def test_maps_of_a_store_that_vanishes_are_said(shown: Shown) -> None:
    page = shown.page("/explore")
    url = next(part for part in page.split('"') if "part=maps" in part)
    fresh = create_app(shown.store).server.test_client()
    shutil.rmtree(shown.store.url)
    answer = fresh.get(url)
    assert answer.status_code == 404
    assert "is gone" in answer.text


def test_what_cannot_be_read_ahead_stops_no_worker(tmp_path: Path) -> None:
    store = make_store(tmp_path / "attention-store", subjects=2, cameras=(1,))
    recordings = Recordings(store)
    recordings.read_ahead()
    assert recordings.samples("generated") is recordings.samples("generated")
    shutil.rmtree(store.url)
    Recordings(store).read_ahead()
    Recordings(open_store(tmp_path / "empty", create=True)).read_ahead()


def test_a_store_that_comes_back_is_shown_again(shown: Shown) -> None:
    folder = Path(shown.store.url)
    folder.rename(folder.with_name("away"))
    assert "is gone" in shown.page("/")
    folder.with_name("away").rename(folder)
    assert "overview-cards" in shown.page("/")


def test_a_store_that_is_compacted_is_shown_as_before(shown: Shown) -> None:
    before = shown.maps()
    assert before[0] == 200
    for seed in (1, 2):
        make_store(Path(shown.store.url), subjects=2, cameras=(1,), seed=seed, run=f"more-{seed}")
    compact(shown.store)
    for path in PAGES:
        assert "error of its own" not in shown.page(path, "?run=generated")
    assert shown.maps() == before


def test_a_run_that_is_added_appears(shown: Shown) -> None:
    make_store(Path(shown.store.url), subjects=2, cameras=(1,), seed=1, run="later")
    (data,) = [part["data"] for name, part in shown.header()["response"].items() if name == "run"]
    assert data == ["later", "generated"]
    assert "later" in shown.page("/")


def test_pages_are_answered_while_another_process_records(
    shown: Shown, logged: pytest.LogCaptureFixture
) -> None:
    recorder = Path(__file__).parents[1] / "store" / "record_until_killed.py"
    process = subprocess.Popen(
        [sys.executable, str(recorder), shown.store.url, "later", "240", "4"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    assert int(process.stdout.readline()) == 4
    rounds = 0
    while rounds == 0 or process.poll() is None:
        for path in PAGES:
            words = shown.page(path, "?run=later")
            assert "error of its own" not in words, path
            assert "cannot be read" not in words, path
        page = shown.page("/explore", "?run=later&sample=v3")
        url = next(part for part in page.split('"') if "part=maps" in part)
        assert shown.client.get(url).status_code == 200
        assert shown.header()["response"]["run"]["data"] == ["later", "generated"]
        rounds += 1
    assert process.stdout.read().endswith("240\ndone\n")
    assert process.wait(timeout=60) == 0
    assert "240" in shown.page("/", "?run=later")
    assert "v239" in shown.page("/explore", "?run=later&sample=v239")
    assert not logged.records


@pytest.mark.parametrize("part", ["rows", "maps", "samples", "measures", "sites", "catalogue"])
def test_damage_is_said_where_it_matters_and_nowhere_is_a_stack_trace(
    shown: Shown, part: str, logged: pytest.LogCaptureFixture
) -> None:
    files = [file for file in (Path(shown.store.url) / part).rglob("*.lance") if file.is_file()]
    assert files
    for file in files:
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(64)
        data[-40:] = bytes(40)
        file.write_bytes(bytes(data))
    damaged = Shown(open_store(shown.store.url))
    pages = {path: damaged.page(path) for path in PAGES}
    for path, words in pages.items():
        assert "error of its own" not in words, path
    said = json.dumps(damaged.header()["response"]["store-notes"])
    assert part in said
    assert any(words in said for words in ("damaged", "cannot be read", "can be read"))
    assert not logged.records
