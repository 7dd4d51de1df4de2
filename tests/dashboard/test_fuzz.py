"""Nothing that a browser or a stranger sends makes the server fail."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from dash import Dash
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

ROUTES = [
    *("/", "/explore", "/compare", "/subjects", "/training", "/evidence", "/nothing"),
    *("/_dash-layout", "/_dash-dependencies", "/_dash-tssan-buffer", "/_dash-tssan-views.mjs"),
    *("/_reload-hash", "/_favicon.ico", "/_dash-component-suites/dash/deps/react"),
    *("/_dash-component-suites/tssan_dash/bridge.js", "/_dash-update-component", "/assets/x"),
]
PARAMETERS = [
    *("run", "sample", "class", "with", "by", "a", "b", "subjects", "cameras", "correct", "step"),
    *("where", "layer", "head", "heads", "locked", "segment", "person", "threshold", "view"),
    *("measure", "find", "filter", "sort", "confused", "answer", "part", "hash", "token"),
]
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *("wide", "narrow", "S001C001P002R001A014", "reading", "class 9", "1", "0", "-1"),
            *("1e999", "nan", "None", "[]", "{}", "head", "query-3", "' or 1=1 --", "\x00"),
            *("../../etc/passwd", "9" * 40),
        ]
    ),
)
QUERIES = st.dictionaries(st.sampled_from(PARAMETERS) | st.text(max_size=5), VALUES, max_size=4)
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(PARAMETERS), inner, max_size=3)
    ),
    max_leaves=6,
)
QUIET = settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@pytest.fixture(autouse=True)
def unheard(caplog: pytest.LogCaptureFixture) -> None:
    """What the server logs of garbage says nothing here."""
    caplog.set_level(logging.CRITICAL + 1)


@pytest.fixture(scope="module")
def client(app: Dash) -> FlaskClient:
    client = app.server.test_client()
    client.get("/")
    return client


def fine(answer: TestResponse) -> bool:
    return answer.status_code < 500 and b"Traceback" not in answer.data


@QUIET
@given(st.sampled_from(ROUTES) | st.text(max_size=20).map(lambda t: "/" + quote(t)), QUERIES)
def test_no_address_fails(client: FlaskClient, path: str, query: dict[str, str]) -> None:
    answer = client.get(path, query_string=query)
    assert fine(answer), (path, query, answer.status)


@QUIET
@given(
    st.sampled_from(ROUTES),
    st.sampled_from(["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"]),
    st.binary(max_size=30),
    st.sampled_from(["application/json", "text/plain", "multipart/form-data", ""]),
)
def test_no_method_or_body_fails(
    client: FlaskClient, path: str, method: str, body: bytes, kind: str
) -> None:
    answer = client.open(path, method=method, data=body, content_type=kind)
    assert fine(answer), (path, method, body, kind, answer.status)


def request_of(app: Dash, output: str, value: Any) -> dict[str, Any]:
    """Return a request as a page of ours makes it, with the same value everywhere."""
    one = app.callback_map[output]
    targets = one["output"] if isinstance(one["output"], list) else [one["output"]]
    outputs = [{"id": t.component_id, "property": t.component_property} for t in targets]
    return {
        "output": output,
        "outputs": outputs if isinstance(one["output"], list) else outputs[0],
        "inputs": [i | {"value": value} for i in one["inputs"]],
        "state": [i | {"value": value} for i in one["state"]],
        "changedPropIds": [f"{i['id']}.{i['property']}" for i in one["inputs"]],
    }


def called(app: Dash) -> list[str]:
    """Return the callbacks that the server answers; background ones begin a process."""
    return sorted(
        output
        for output, one in app.callback_map.items()
        if "callback" in one and not one.get("background")
    )


@settings(QUIET, max_examples=200)
@given(data=st.data(), value=GARBAGE)
def test_no_value_makes_a_callback_fail(
    client: FlaskClient, app: Dash, data: st.DataObject, value: Any
) -> None:
    output = data.draw(st.sampled_from(called(app)))
    answer = client.post("/_dash-update-component", json=request_of(app, output, value))
    assert fine(answer), (output, value, answer.status)


@QUIET
@given(
    data=st.data(), part=st.sampled_from(["output", "outputs", "inputs", "state"]), wrong=GARBAGE
)
def test_a_request_that_no_page_makes_is_refused_in_words(
    client: FlaskClient, app: Dash, data: st.DataObject, part: str, wrong: Any
) -> None:
    output = data.draw(st.sampled_from(called(app)))
    request = request_of(app, output, None)
    if request[part] != wrong:
        answer = client.post("/_dash-update-component", json=request | {part: wrong})
        assert answer.status_code in (400, 404), (output, part, wrong)
        assert answer.mimetype == "text/plain"
        assert "Reload the page" in answer.text


@QUIET
@given(GARBAGE)
def test_no_body_of_a_request_makes_it_fail(client: FlaskClient, body: Any) -> None:
    answer = client.post("/_dash-update-component", data=json.dumps(body))
    assert 400 <= answer.status_code < 500
    answer = client.post("/_dash-update-component", json=body)
    assert 400 <= answer.status_code < 500


@QUIET
@given(st.sampled_from(ROUTES[:7]), QUERIES)
def test_every_address_gives_a_page_in_words(
    client: FlaskClient, app: Dash, path: str, query: dict[str, str]
) -> None:
    (output,) = [name for name in app.callback_map if "_pages_content.children" in name]
    request = request_of(app, output, None)
    request["inputs"] = [
        i | {"value": path if i["property"] == "pathname" else "?" + urlencode(query)}
        for i in request["inputs"]
    ]
    answer = client.post("/_dash-update-component", json=request)
    assert answer.status_code == 200
    content = json.dumps(answer.json["response"]["_pages_content"])
    assert "error of its own" not in content, (path, query, content)
