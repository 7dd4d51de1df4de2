"""The dashboard's pages: each a `register(app, recordings)`."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import dash_mantine_components as dmc

from tssan_dash.recordings import current
from tssan_viz.errors import UserError

log = logging.getLogger(__name__)

# Dash's own name for the address that its pages listen to.
PAGE_ADDRESS = "_pages_location"


def alert(words: str, *, title: str = "That does not work", color: str = "red") -> dmc.Alert:
    """Return words that say what is wrong; text, never markup."""
    return dmc.Alert(
        words,
        title=title,
        color=color,
        variant="light",
        my="sm",
        # Yellow words on their own tint cannot be read.
        styles={"title": {"color": "var(--mantine-color-text)"}},
    )


def in_words(layout: Callable[..., Any]) -> Callable[..., Any]:
    """Let a layout or a part of one show its errors as words in its place."""

    @functools.wraps(layout)
    def guarded(*args: Any, **query: Any) -> Any:
        try:
            return layout(*args, **query)
        except UserError as error:
            if _nothing_recorded(one(query, "run")):
                return alert(str(error), title="Nothing recorded so far", color="blue")
            return alert(str(error))
        except Exception as error:
            log.exception("A page of the dashboard failed.")
            return alert(
                f"{type(error).__name__}: {error}. The terminal that serves it says where.",
                title="The dashboard met an error of its own",
            )

    return guarded


def _nothing_recorded(run: str | None) -> bool:
    """Tell whether the store has no run, or the run no row."""
    recordings = current()
    try:
        return not recordings.runs() or recordings.store.rows(recordings.run(run)).empty
    except UserError:
        return False


def one(query: dict[str, Any], name: str) -> str | None:
    """Return a query parameter; the last of several, None where it is missing or empty."""
    value = query.get(name)
    if isinstance(value, list):
        value = value[-1]
    return value or None


def parameters(search: str | None) -> dict[str, str]:
    """Return the parameters of an address, ``?a=1&b=2``; the last of several."""
    given = parse_qs((search or "").removeprefix("?"))
    return {name: values[-1] for name, values in given.items()}


def go_to(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the store `go` holds to send the browser to other parameters of its page.

    Not ``dcc.Location``: it holds the address as it was before the views rewrote it in place, and
    goes back there. The token makes two equal wishes differ, so that the second is heard, too.
    """
    return {"search": "?" + urlencode(query), "wish": secrets.token_hex(8)}


def class_options(classes: Any) -> list[dict[str, Any]]:
    """Return what a select of classes offers: the name with its code; the label as the value."""
    return [{"value": str(c.label), "label": str(c)} for c in classes]


def alias_filter(classes: Any) -> dict[str, Any]:
    """Return the search of a select of classes, which also finds them by alias and code."""
    words = {str(c.label): [c.name, *([c.code] if c.code else []), *c.aliases] for c in classes}
    return {"function": "tssan_dash.byAlias", "options": {"words": words}}
