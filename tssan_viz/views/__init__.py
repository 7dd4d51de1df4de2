"""Views of recorded attention: one ES module in a page of its own, a notebook and the dashboard."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "CompareView": "tssan_viz.views.group_widgets",
    "EvolutionView": "tssan_viz.views.group_widgets",
    "Explore": "tssan_viz.views.widget",
    "HeadView": "tssan_viz.views.widget",
    "HeatMap": "tssan_viz.views.widget",
    "ModelView": "tssan_viz.views.widget",
    "Payload": "tssan_viz.views.schema",
    "Player": "tssan_viz.views.widget",
    "QueryKeyView": "tssan_viz.views.query_key",
    "compare_view": "tssan_viz.views.group_widgets",
    "difference_payload": "tssan_viz.views.groups",
    "evolution_payload": "tssan_viz.views.groups",
    "evolution_view": "tssan_viz.views.group_widgets",
    "explore": "tssan_viz.views.widget",
    "from_attentions": "tssan_viz.views.tokens",
    "head_view": "tssan_viz.views.widget",
    "head_view_payload": "tssan_viz.views.payload",
    "heat_map": "tssan_viz.views.widget",
    "heatmaps_payload": "tssan_viz.views.payload",
    "keep_queries": "tssan_viz.views.payload",
    "model_view": "tssan_viz.views.widget",
    "module_path": "tssan_viz.views.schema",
    "page": "tssan_viz.views.html",
    "player": "tssan_viz.views.widget",
    "sample_payload": "tssan_viz.views.payload",
    "query_key_payload": "tssan_viz.views.payload",
    "query_key_view": "tssan_viz.views.query_key",
    "record_attentions": "tssan_viz.views.tokens",
    "save_bertviz": "tssan_viz.views.bertviz",
    "save_html": "tssan_viz.views.html",
    "to_bertviz": "tssan_viz.views.bertviz",
}

__all__ = [
    "CompareView",
    "EvolutionView",
    "Explore",
    "HeadView",
    "HeatMap",
    "ModelView",
    "Payload",
    "Player",
    "QueryKeyView",
    "compare_view",
    "difference_payload",
    "evolution_payload",
    "evolution_view",
    "explore",
    "from_attentions",
    "head_view",
    "head_view_payload",
    "heat_map",
    "heatmaps_payload",
    "keep_queries",
    "model_view",
    "module_path",
    "page",
    "player",
    "query_key_payload",
    "query_key_view",
    "record_attentions",
    "sample_payload",
    "save_bertviz",
    "save_html",
    "to_bertviz",
]

if TYPE_CHECKING:
    from tssan_viz.views.bertviz import (
        save_bertviz,
        to_bertviz,
    )
    from tssan_viz.views.group_widgets import (
        CompareView,
        EvolutionView,
        compare_view,
        evolution_view,
    )
    from tssan_viz.views.groups import (
        difference_payload,
        evolution_payload,
    )
    from tssan_viz.views.html import (
        page,
        save_html,
    )
    from tssan_viz.views.payload import (
        Payload,
        head_view_payload,
        heatmaps_payload,
        keep_queries,
        module_path,
        query_key_payload,
        sample_payload,
    )
    from tssan_viz.views.query_key import (
        QueryKeyView,
        query_key_view,
    )
    from tssan_viz.views.tokens import from_attentions, record_attentions
    from tssan_viz.views.widget import (
        Explore,
        HeadView,
        HeatMap,
        ModelView,
        Player,
        explore,
        head_view,
        heat_map,
        model_view,
        player,
    )


def __getattr__(name: str) -> Any:
    # anywidget is an extra: whoever only saves pages need not have it.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tssan_viz.views' has no attribute {name!r}")
