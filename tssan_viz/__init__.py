"""See what a self-attention network for skeleton actions attends to, and compare classes in it.

The public names are loaded when they are first used, so that asking a store a question does not
import torch, and recording does not import matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tssan_viz.version import VERSION

__version__ = VERSION

_HOME = {
    "record": "tssan_viz.recording",
    "open_store": "tssan_viz.store",
    "Selection": "tssan_viz.selection",
    "compare": "tssan_viz.comparison",
    "compare_class": "tssan_viz.comparison",
    "figure5": "tssan_viz.figures",
    "compare_view": "tssan_viz.views",
    "evolution_view": "tssan_viz.views",
    "explore": "tssan_viz.views",
    "from_attentions": "tssan_viz.views",
    "head_view": "tssan_viz.views",
    "heat_map": "tssan_viz.views",
    "model_view": "tssan_viz.views",
    "player": "tssan_viz.views",
    "keep_queries": "tssan_viz.views",
    "query_key_view": "tssan_viz.views",
    "record_attentions": "tssan_viz.views",
    "save_bertviz": "tssan_viz.views",
    "save_html": "tssan_viz.views",
    "to_bertviz": "tssan_viz.views",
}

__all__ = [
    "Selection",
    "compare",
    "compare_class",
    "compare_view",
    "evolution_view",
    "explore",
    "figure5",
    "from_attentions",
    "head_view",
    "heat_map",
    "keep_queries",
    "model_view",
    "open_store",
    "player",
    "query_key_view",
    "record",
    "record_attentions",
    "save_bertviz",
    "save_html",
    "to_bertviz",
]

if TYPE_CHECKING:
    from tssan_viz.comparison import compare, compare_class
    from tssan_viz.figures import figure5
    from tssan_viz.recording import record
    from tssan_viz.selection import Selection
    from tssan_viz.store import open_store
    from tssan_viz.views import (
        compare_view,
        evolution_view,
        explore,
        from_attentions,
        head_view,
        heat_map,
        keep_queries,
        model_view,
        player,
        query_key_view,
        record_attentions,
        save_bertviz,
        save_html,
        to_bertviz,
    )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tssan_viz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
