"""Each page has something sensible to show of stores that are not like others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tssan_dash.app import create_app
from tssan_dash.asked import Asked
from tssan_dash.comparing import Answer, compare_job

from tests.dashboard.test_pages import visiting, wait_drawn, wait_text
from tests.dashboard.test_store_troubles import PAGES, Shown
from tests.stores import SKELETON, make_sites, make_store, softmax_maps
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, Catalogue, open_store

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARKUP = "<img src=x onerror=alert(1)>"
STRANGE = ("喝水", MARKUP, '穿上夾克 & "quotes"', "naïve, 100%_; --")


def unlabelled(path: Path) -> AttentionStore:
    """Maps and nothing else, as of a network that somebody else records."""
    store = open_store(path, create=True)
    sites = make_sites(2, 4, 16)
    catalogue = Catalogue(dataset="own", classes=(), skeleton=SKELETON, fps=None)
    maps = softmax_maps(np.random.default_rng(0), (6, 2, 4, 16, 16)).astype(np.float16)
    with store.writer("plain", sites=sites, catalogue=catalogue) as writer:
        rows = {"sample": [f"video {n}" for n in range(6)]}
        writer.add(rows, {site.name: maps[:, n] for n, site in enumerate(sites)})
    return store


def without_rows(path: Path) -> AttentionStore:
    """A run that has just begun."""
    store = open_store(path, create=True)
    catalogue = Catalogue(dataset="own", classes=(), skeleton=SKELETON, fps=None)
    with store.writer("begun", sites=make_sites(1, 2, 8), catalogue=catalogue):
        pass
    return store


STORES: dict[str, Callable[[Path], AttentionStore]] = {
    "empty": lambda path: open_store(path, create=True),
    "begun": without_rows,
    "unlabelled": unlabelled,
    "one-subject": lambda path: make_store(path, subjects=1),
    "one-layer": lambda path: make_store(path, subjects=3, cameras=(1,), layers=1, heads=1),
    "one-class": lambda path: make_store(path, subjects=3, classes=("reading",)),
    "144-heads": lambda path: make_store(
        path, subjects=3, cameras=(1,), replications=(1,), layers=12, heads=12, frames=8
    ),
    "300-frames": lambda path: make_store(
        path,
        subjects=2,
        classes=("reading", "hand waving"),
        cameras=(1,),
        replications=(1,),
        heads=2,
        frames=300,
    ),
    "no-poses": lambda path: make_store(path, subjects=2, cameras=(1,), poses=False),
    "strange-names": lambda path: make_store(path, subjects=3, cameras=(1,), classes=STRANGE),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AttentionStore]:
    folder = tmp_path_factory.mktemp("unusual")
    return {name: make(folder / name) for name, make in STORES.items()}


@pytest.mark.parametrize("name", STORES)
def test_no_page_of_it_fails(
    stores: dict[str, AttentionStore], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    shown = Shown(stores[name])
    shown.header()
    for path in PAGES:
        words = shown.page(path)
        assert "error of its own" not in words, path
        assert len(words) > 200, path
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_nothing_recorded_is_no_fault(stores: dict[str, AttentionStore]) -> None:
    for path in PAGES:
        words = Shown(stores["empty"]).page(path)
        assert "Nothing recorded so far" in words
        assert "That does not work" not in words


def test_videos_without_a_label_can_be_chosen(stores: dict[str, AttentionStore]) -> None:
    words = Shown(stores["unlabelled"]).page("/explore")
    assert '{"value": "video 5", "label": "video 5"}' in words


@pytest.mark.parametrize("name", sorted(set(STORES) - {"empty", "begun", "144-heads"}))
def test_a_comparison_of_it_is_answered_or_refused_in_words(
    stores: dict[str, AttentionStore], name: str
) -> None:
    store = stores[name]
    kept: dict[str, object] = {}

    def compared() -> str:
        query = Asked.of(store, store.checked_run(None), {}).query()
        return compare_job(store, lambda *_: None, kept.__setitem__, {"query": query})["key"]

    if name in ("unlabelled", "one-subject", "one-class"):
        with pytest.raises(UserError, match=r"class|subject"):
            compared()
        return
    answer = kept[compared()]
    assert isinstance(answer, Answer)
    assert len(answer.table) == store.sites()["heads"].sum()


def test_what_is_missing_for_a_comparison_is_said(stores: dict[str, AttentionStore]) -> None:
    for path in ("/compare", "/subjects"):
        words = Shown(stores["unlabelled"]).page(path)
        assert words.count("not recorded") == 4
        assert words.count('"needed"') == 2
        assert "recorder.samples(" in words
        assert '"href": "/explore"' in words


def test_a_run_that_has_just_begun_is_no_fault(stores: dict[str, AttentionStore]) -> None:
    for path in PAGES[:-1]:
        words = Shown(stores["begun"]).page(path)
        assert "Nothing recorded so far" in words
        assert "That does not work" not in words


def test_a_run_without_class_names_is_compared_by_groups(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    sites = make_sites(1, 2, 8)
    catalogue = Catalogue(dataset="own", classes=(), skeleton=SKELETON, fps=None)
    rows = [
        {"sample": f"{label}-{subject}-{camera}", "label": label}
        | {"subject": subject}
        | {"camera": camera}
        for label in (0, 1)
        for subject in (1, 2, 3)
        for camera in (1, 2)
    ]
    maps = softmax_maps(np.random.default_rng(0), (len(rows), 2, 8, 8)).astype(np.float16)
    with store.writer("numbers", sites=sites, catalogue=catalogue) as writer:
        writer.add({name: [row[name] for row in rows] for name in rows[0]}, {sites[0].name: maps})
    words = Shown(store).page("/compare")
    assert "compare-by" in words
    assert '"by": "camera", "a": "1"' in words
    kept: dict[str, object] = {}
    query = {"run": "numbers", "by": "camera", "a": "1"}
    answer = compare_job(store, lambda *_: None, kept.__setitem__, {"query": query})
    found = kept[answer["key"]]
    assert isinstance(found, Answer)
    assert len(found.table) == 2


def test_names_with_markup_stay_words_on_every_page(
    page: Page, stores: dict[str, AttentionStore]
) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a name was run as a script: {dialog.message}"))
    with visiting(page, create_app(stores["strange-names"])) as address:
        page.goto(address)
        for name in STRANGE:
            wait_text(page, "#overview-classes", name)
        page.goto(f"{address}/explore?class=A101")
        wait_drawn(page, "explore-head")
        wait_text(page, "#explore-head", MARKUP)
        page.goto(f"{address}/compare?class=A101")
        wait_drawn(page, "compare-maps")
        wait_text(page, "#compare-result", MARKUP)
        wait_text(page, "#compare-result", "喝水")
        for path in ("/subjects", "/training", "/evidence"):
            page.goto(address + path)
            page.locator("#_pages_content *").first.wait_for()
            page.wait_for_timeout(500)
            assert page.locator("img[src=x]").count() == 0
