"""The dashboard: choose a video and see what the network attends to; compare classes.

``tssan-viz serve`` starts it; `tssan_dash.app.create_app` makes it for another server.
"""

from __future__ import annotations

__version__ = "0.1.0"

# Dash reads the scripts of a component from its top-level package.
_js_dist = [{"relative_package_path": "bridge.js", "namespace": "tssan_dash"}]
