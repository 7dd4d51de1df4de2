"""What the server answers, and to whom."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from dash import Dash
from flask.testing import FlaskClient
from tssan_dash.app import create_app
from tssan_dash.recordings import Recordings
from tssan_dash.routes import buffer_url, module_url

from tssan_viz.store import AttentionStore
from tssan_viz.views.payload import module_path

SAMPLE = "S001C001P002R001A014"


@pytest.fixture
def client(app: Dash) -> FlaskClient:
    return app.server.test_client()


@pytest.fixture
def maps_url(two_runs: AttentionStore) -> str:
    payload = Recordings(two_runs).head_view("wide", SAMPLE)
    return buffer_url(payload.buffers["maps"], run="wide", sample=SAMPLE, part="maps")


def changed(url: str, **keys: str | None) -> str:
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()} | keys
    kept = {name: value for name, value in query.items() if value is not None}
    return f"{urlsplit(url).path}?{urlencode(kept)}"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8050", "127.0.0.1:1", "[::1]", "[::1]:80"]
)
def test_names_of_this_machine_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8050", "127.0.0.1.attacker.example", "[::2]:80"]
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(client: FlaskClient, host: str) -> None:
    for path in ("/", "/_dash-layout", "/_dash-tssan-buffer", module_url()):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 403
        assert "this dashboard serves its own machine only" in answer.text.lower()


def test_a_server_for_others_answers_to_any_name(two_runs: AttentionStore) -> None:
    client = create_app(two_runs, local=False).server.test_client()
    assert client.get("/", headers={"Host": "lab.example"}).status_code == 200


def test_only_scripts_of_this_server_may_run(client: FlaskClient) -> None:
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    script_rule = next(rule for rule in policy.split("; ") if rule.startswith("script-src"))
    assert "unsafe" not in script_rule
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.text, flags=re.S)
    assert scripts
    for attributes, text in scripts:
        if "application/json" in attributes:
            continue
        source = re.search(r'src="([^"]*)"', attributes)
        if source:
            assert source[1].startswith("/"), source[1]
        else:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in script_rule
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


def test_only_pages_of_this_machine_may_hold_it_in_a_frame(
    client: FlaskClient, two_runs: AttentionStore
) -> None:
    def ancestors(answer) -> str:
        rules = answer.headers["Content-Security-Policy"].split("; ")
        return next(rule for rule in rules if rule.startswith("frame-ancestors"))

    own = client.get("/explore")
    assert ancestors(own) == "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
    for_others = create_app(two_runs, local=False).server.test_client().get("/explore")
    assert ancestors(for_others) == "frame-ancestors 'self'"
    assert for_others.headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    "path", ["/", "/explore", "/compare", "/subjects", "/training", "/evidence", "/nothing"]
)
def test_every_page_has_the_policy(client: FlaskClient, path: str) -> None:
    policy = client.get(path).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "http" not in policy.split("frame-ancestors")[0]


def test_every_answer_is_closed_to_other_sites(client: FlaskClient, maps_url: str) -> None:
    for path in ("/", maps_url, module_url()):
        headers = client.get(path).headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_module_comes_under_a_name_that_changes_with_it(client: FlaskClient) -> None:
    answer = client.get(module_url())
    assert answer.data == module_path().read_bytes()
    assert answer.mimetype == "text/javascript"
    assert "immutable" in answer.headers["Cache-Control"]
    assert client.get(changed(module_url(), hash="0")).status_code == 409


def test_a_buffer_holds_the_stores_own_bits(
    client: FlaskClient, two_runs: AttentionStore, maps_url: str
) -> None:
    answer = client.get(maps_url)
    assert answer.status_code == 200
    sent = np.frombuffer(answer.data, "<f2").reshape(2, 2, 2, 4, 16, 16)
    selection = two_runs.select(run="wide", sample=SAMPLE)
    rows, maps = selection.rows(), selection.maps()
    for place, (segment, person) in enumerate(zip(rows["segment"], rows["person"], strict=True)):
        np.testing.assert_array_equal(sent[segment - 1, person - 1], maps[place])


def test_a_buffer_is_asked_for_once(client: FlaskClient, maps_url: str) -> None:
    first = client.get(maps_url)
    assert first.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    again = client.get(maps_url, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert not again.data


@pytest.mark.parametrize("wrong", ["", "0" * 32, "../../etc/passwd"])
def test_bytes_that_the_page_does_not_know_are_not_sent(
    client: FlaskClient, maps_url: str, wrong: str
) -> None:
    answer = client.get(changed(maps_url, hash=wrong))
    assert answer.status_code == 409
    assert "reload the page" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sample": "S001C001P002R001A01"}, SAMPLE),
        ({"sample": "../../../etc/passwd"}, "has no video"),
        ({"run": "wild"}, "wide"),
        ({"part": "recipe"}, "maps, poses"),
        ({"sample": None}, "by sample"),
    ],
)
def test_a_key_that_the_store_does_not_have_is_refused_in_words(
    client: FlaskClient, maps_url: str, keys: dict[str, str | None], words: str
) -> None:
    answer = client.get(changed(maps_url, **keys))
    assert answer.status_code == 404
    assert answer.mimetype == "text/plain"
    assert words in answer.text
