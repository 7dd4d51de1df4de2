"""The dashboard: choose a video and see what the network attends to; compare classes.

``tssan-viz serve`` starts it; `create_app` makes it for another server or a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tssan_dash.app import create_app

__version__ = "0.1.0"
__all__ = ["create_app"]

# Dash reads the scripts of a component from its top-level package.
_js_dist = [{"relative_package_path": "bridge.js", "namespace": "tssan_dash"}]


def __getattr__(name: str) -> Any:
    # Long work of the pages runs in processes that need no app, and would wait for its import.
    if name == "create_app":
        from tssan_dash.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
