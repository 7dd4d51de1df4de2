"""Whom the dashboard answers when it asks for a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tssan_dash.app import create_app

from tssan_viz.store import AttentionStore

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def guarded(two_runs: AttentionStore) -> Iterator[FlaskClient]:
    with create_app(two_runs, local=False, token=TOKEN).server.test_client(False) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/", "/_dash-layout", "/_dash-update-component", "/_dash-tssan-buffer", "/explore"]
)
def test_without_the_token_nothing_is_answered(guarded: FlaskClient, path: str) -> None:
    for query in ("", "?token=", "?token=wrong", "?token=correct"):
        answer = guarded.get(path + query)
        assert answer.status_code == 401
        assert "token" in answer.text
        assert TOKEN not in answer.text
        assert "Set-Cookie" not in answer.headers


def test_the_token_is_shown_once_and_leaves_the_address(guarded: FlaskClient) -> None:
    answer = guarded.get("/compare", query_string={"class": "reading", "token": TOKEN})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/compare?class=reading"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    sent = {"Cookie": cookie.split(";")[0]}
    assert guarded.get("/compare", headers=sent).status_code == 200
    assert guarded.get("/compare", headers={"Cookie": f"tssan_viz={TOKEN}"}).status_code == 401


@pytest.mark.parametrize("path", ["//attacker.example", "///attacker.example/x"])
def test_the_token_leads_nobody_to_another_machine(guarded: FlaskClient, path: str) -> None:
    answer = guarded.get(path, query_string={"token": TOKEN})
    location = answer.headers.get("Location", "/")
    assert location.startswith("/")
    assert not location.startswith("//")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.text(max_size=40), st.text(alphabet=st.characters(codec="latin-1"), max_size=40))
def test_no_other_token_or_cookie_opens_it(guarded: FlaskClient, shown: str, kept: str) -> None:
    sent = {"Cookie": "tssan_viz=" + "".join(c for c in kept if c.isprintable())}
    if shown != TOKEN:
        answer = guarded.get("/", query_string={"token": shown}, headers=sent)
        assert answer.status_code == 401
