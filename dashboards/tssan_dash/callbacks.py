"""Which requests for a callback are answered: those that a page of the app can send.

Dash takes the rest of a request for granted and fails on what is not as it expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import Dash
from dash.exceptions import DependencyException
from flask import Response, request


def refuse_strange_requests(app: Dash) -> None:
    """Answer 400 or 404, in words, to what no page of `app` asks for."""

    @app.server.errorhandler(DependencyException)
    def no_such_script(_: DependencyException) -> Response:
        return Response("There is no such script.", status=404, mimetype="text/plain")

    @app.server.before_request
    def check() -> Response | None:
        if request.endpoint is None or not request.path.endswith("/_dash-update-component"):
            return None
        if request.method != "POST":
            return None
        body = request.get_json(silent=True)
        words = _fault(body, app.callback_map)
        if words is None:
            return None
        status = 404 if words.startswith("There is no callback") else 400
        return Response(
            f"{words} Reload the page, which may be from before the server was started anew.",
            status=status,
            mimetype="text/plain",
        )


def _fault(body: Any, known: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what is wrong with the body of a request, None if nothing is."""
    if not isinstance(body, dict):
        return "A request for a callback is a JSON object."
    output = body.get("output")
    if not isinstance(output, str) or output not in known:
        return "There is no callback with this output."
    callback = known[output]
    for part in ("inputs", "state"):
        if not _are(body.get(part, []), callback[part]):
            return f"The {part} are not those of the callback."
    targets = callback["output"]
    many = isinstance(targets, (list, tuple))
    # The name of a property that several callbacks write ends in @ and the callback's mark.
    given = body.get("outputs") if many else [body.get("outputs")]
    wanted = [
        {"id": target.component_id, "property": target.component_property}
        for target in (targets if many else [targets])
    ]
    if not callback["no_output"] and not _are(given, wanted):
        return "The outputs are not those of the callback."
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(name, str) for name in changed):
        return "What has changed is a list of names."
    return None


def _are(given: Any, wanted: list[dict[str, Any]]) -> bool:
    """Tell whether these are just the properties that are wanted, in their order."""
    return (
        isinstance(given, list)
        and len(given) == len(wanted)
        and all(_is(one, other) for one, other in zip(given, wanted, strict=True))
    )


def _is(given: Any, wanted: dict[str, Any]) -> bool:
    if isinstance(wanted["id"], dict) or wanted["id"].startswith("{"):
        # A pattern stands for as many as the page has.
        found = given if isinstance(given, list) else [given]
        return all(
            isinstance(one, dict)
            and isinstance(one.get("id"), dict)
            and one.get("property") == wanted["property"]
            for one in found
        )
    return (
        isinstance(given, dict)
        and given.get("id") == wanted["id"]
        and isinstance(given.get("property"), str)
        and given["property"].split("@")[0] == wanted["property"]
    )
