"""The dashboard's pages: each a `register(app, recordings)`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc

from tssan_viz.errors import UserError

log = logging.getLogger(__name__)


def alert(words: str, *, title: str = "That does not work", color: str = "red") -> dmc.Alert:
    """Return words that say what is wrong; text, never markup."""
    return dmc.Alert(words, title=title, color=color, variant="light", my="sm")


def in_words(layout: Callable[..., Any]) -> Callable[..., Any]:
    """Let a layout or a part of one show its errors as words in its place."""

    @functools.wraps(layout)
    def guarded(*args: Any, **query: Any) -> Any:
        try:
            return layout(*args, **query)
        except UserError as error:
            return alert(str(error))
        except Exception as error:
            log.exception("A page of the dashboard failed.")
            return alert(
                f"{type(error).__name__}: {error}. The terminal that serves it says where.",
                title="The dashboard met an error of its own",
            )

    return guarded


def one(query: dict[str, Any], name: str) -> str | None:
    """Return a query parameter; the last of several, None where it is missing or empty."""
    value = query.get(name)
    if isinstance(value, list):
        value = value[-1]
    return value or None


def class_options(classes: Any) -> list[dict[str, Any]]:
    """Return what a select of classes offers: the name with its code; the label as the value."""
    return [{"value": str(c.label), "label": str(c)} for c in classes]


def alias_filter(classes: Any) -> dict[str, Any]:
    """Return the search of a select of classes, which also finds them by alias and code."""
    words = {str(c.label): [c.name, *([c.code] if c.code else []), *c.aliases] for c in classes}
    return {"function": "tssan_dash.byAlias", "options": {"words": words}}
