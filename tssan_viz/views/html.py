"""A view as one HTML file that needs nobody: it opens from a disk and asks no other address."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tssan_viz.errors import UserError
from tssan_viz.views.payload import Payload, SampleView, sample_payload
from tssan_viz.views.schema import head_module_path, module_path

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

_SHOW = """
tssan.mount(
  document.getElementById("view"), JSON.parse(document.getElementById("payload").textContent)
);
"""

# The module of all views comes packed, as inert text. Its own hash lets it run as an inline script,
# which is there sooner than an import, and while the browser still reads the payload below.
_UNPACK = f"""
(async () => {{
  const letters = document.getElementById("module").textContent;
  const bytes = (letters) => Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
  const packed = (Uint8Array.fromBase64 ?? bytes)(letters);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  if (document.readyState === "loading") {{
    await new Promise((go) => document.addEventListener("DOMContentLoaded", go));
  }}
  {_SHOW.strip()}
}})();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
/* The view's own font: the browser looks each other one up before it can paint. */
html {{ color-scheme: light dark; background: #fff;
  font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
body {{ margin: 0 auto; padding: 12px 16px; max-width: 1600px; }}
/* The view says it to the eye; a screen reader looks for a heading. */
h1 {{ font: inherit; position: absolute; width: 1px; height: 1px; margin: 0; clip-path: inset(50%);
  overflow: hidden; }}
@media (prefers-color-scheme: dark) {{ html {{ background: #16191e; }} }}
@media (max-width: 600px) {{ body {{ padding: 8px; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<main id="view"></main>
{before}<script type="application/json" id="payload">{payload}</script>
{after}</body>
</html>
"""


def page(payload: Payload, state: dict[str, Any] | None = None, *, title: str | None = None) -> str:
    """Return a stand-alone HTML page that shows a payload.

    Its Content-Security-Policy allows the page's own script and nothing from anywhere else; what
    comes from data lies in it as escaped JSON and is shown as text.

    Parameters
    ----------
    payload
        From `head_view_payload` or `heatmaps_payload`.
    state
        With what the view begins: any of layer, heads, locked, segment, person, orientation,
        threshold, frame.
    title
        The page's title; by default sample and class.
    """
    manifest = payload.manifest
    if title is None:
        named = [manifest.get("sample"), manifest.get("class_name")]
        title = " · ".join(str(part) for part in named if part) or "Attention maps"
    values: dict[str, Any] = {"manifest": manifest, **(state or {})}
    for name, buffer in payload.buffers.items():
        values[name] = base64.b64encode(buffer).decode("ascii")
    if manifest["view"] == "head":
        # Its own code is no larger than the packed module, and runs without being unpacked.
        runs = [classic_script(head_module_path()) + _SHOW]
        before, after = "", f"<script>{runs[0]}</script>\n"
    else:
        runs = [_UNPACK, classic_script(module_path())]
        packed = base64.b64encode(gzip.compress(runs[1].encode(), mtime=0)).decode("ascii")
        before = f'<script type="text/plain" id="module">{packed}</script>\n'
        before += f"<script>{_UNPACK}</script>\n"
        after = ""
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_allowed, runs))}; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=html.escape(policy, quote=True).replace("&#x27;", "'"),
        title=html.escape(title),
        before=before,
        payload=json_for_script(values),
        after=after,
    )


def classic_script(module: Path) -> str:
    """Return a module as a script without imports and exports, which sets ``tssan.mount``."""
    text = module.read_text(encoding="utf-8").rstrip()
    found = re.search(r"export\{([^}]*)\};$", text)
    if found is None:
        raise RuntimeError(f"{module} does not end in its exports")
    exported = [part.split(" as ") for part in found[1].split(",")]
    names = {pair[-1]: pair[0] for pair in exported}
    return (
        f'(()=>{{"use strict";{text[: found.start()]}window.tssan={{mount:{names["mount"]}}}}})();'
    )


def _allowed(script: str) -> str:
    """Return how a Content-Security-Policy names an inline script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def json_for_script(values: Any) -> str:
    """Return JSON that no HTML parser takes for markup: ``<``, ``>`` and ``&`` are escaped."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def save_html(
    selection: Selection,
    path: str | os.PathLike[str],
    sample: str | None = None,
    *,
    view: SampleView = "head",
) -> Path:
    """Write a view of one sample as a stand-alone HTML file.

    Parameters
    ----------
    selection
        Where to look; see `head_view_payload`.
    path
        The file to write.
    sample
        The sample's name; by default the selection's first.
    view
        ``"head"``, ``"model"`` (layers × heads), ``"heat"`` (one map with poses), ``"player"``,
        ``"query-key"``, or ``"explore"``: all of them on one page, linked.

    Returns
    -------
    pathlib.Path
        The file written: 2.7 bytes per attention value, per coordinate of the poses and, where
        they were recorded, of queries and keys, and 35 KB of script.

    Raises
    ------
    UserError
        If the selection holds no row of the sample, or the file cannot be written.
    """
    return write_page(page(sample_payload(selection, sample, view=view)), path)


def write_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page as UTF-8; a missing folder is made.

    Raises
    ------
    UserError
        If the folder cannot be made or the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    return target
