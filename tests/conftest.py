"""Fixtures that all tests share: real data, a real browser, a small recorded store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

IN_CI = os.environ.get("CI", "").lower() == "true"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

# What a busy machine does slowly is not wrong. In CI the examples are the same each time.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """In CI data and browser are there, so a test that skips has found a reason not to look."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped although CI=true: {report.longrepr}"
    return report


def _real(relative: str) -> Path:
    root = os.environ.get("TSSAN_DATA")
    if not root:
        pytest.skip("real data are not here: set TSSAN_DATA to the folder that holds them")
    path = Path(root) / relative
    if not path.exists():
        pytest.skip(f"TSSAN_DATA={root} holds no {relative}")
    return path.resolve()


@pytest.fixture(scope="session")
def utd_mhad_zip() -> Path:
    return _real("utd-mhad/Skeleton.zip")


@pytest.fixture(scope="session")
def nw_ucla_zip() -> Path:
    return _real("nw-ucla/all_sqe.zip")


@pytest.fixture(scope="session")
def ntu_files() -> list[Path]:
    return sorted(_real("ntu-rgbd").glob("*.skeleton"))


@pytest.fixture(scope="session")
def kinetics_json() -> Path:
    return _real("kinetics-skeleton/--33Lscn6sk.json")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no browser: install Debian's `chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


def stays_on_this_machine(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"file", "data", "blob", "about"} or parts.hostname in {
        "127.0.0.1",
        "localhost",
        "::1",
    }


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose test fails on a script error or a request that leaves the machine."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(90_000)
    page = context.new_page()
    strangers: list[str] = []
    faults: list[str] = []

    def on_request(request: Request) -> None:
        if not stays_on_this_machine(request.url):
            strangers.append(request.url)

    page.on("request", on_request)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    yield page
    context.close()
    assert not strangers, f"the page asked other machines: {strangers}"
    assert not faults, f"the page reported errors: {faults}"


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory):
    """A small generated store that tests read and never write."""
    from tests.stores import make_store

    return make_store(tmp_path_factory.mktemp("small") / "attention-store")
