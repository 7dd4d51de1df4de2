"""Views of recorded attention: one ES module in a page of its own, a notebook and the dashboard."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "HeadView": "tssan_viz.views.widget",
    "Payload": "tssan_viz.views.payload",
    "head_view": "tssan_viz.views.widget",
    "head_view_payload": "tssan_viz.views.payload",
    "heatmaps_payload": "tssan_viz.views.payload",
    "module_path": "tssan_viz.views.payload",
    "page": "tssan_viz.views.html",
    "save_html": "tssan_viz.views.html",
    "to_bertviz": "tssan_viz.views.bertviz",
}

__all__ = [
    "HeadView",
    "Payload",
    "head_view",
    "head_view_payload",
    "heatmaps_payload",
    "module_path",
    "page",
    "save_html",
    "to_bertviz",
]

if TYPE_CHECKING:
    from tssan_viz.views.bertviz import to_bertviz
    from tssan_viz.views.html import page, save_html
    from tssan_viz.views.payload import (
        Payload,
        head_view_payload,
        heatmaps_payload,
        module_path,
    )
    from tssan_viz.views.widget import HeadView, head_view


def __getattr__(name: str) -> Any:
    # anywidget is an extra: whoever only saves pages need not have it.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tssan_viz.views' has no attribute {name!r}")
