"""What is taken away from the overview: the mean map of every head, and its measures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tssan_dash.figure_files import figure_bytes
from tssan_dash.work import answer_key
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

FILES = {"pdf": "PDF", "svg": "SVG", "png": "PNG"}


def python(store: AttentionStore, run: str) -> str:
    """Return the lines of Python that give the same."""
    return "\n".join(
        [
            "import tssan_viz.figures",
            f"store = tssan_viz.open_store({store.url!r})",
            f'store.select(run={run!r}).measures().groupby(["layer", "head"]).mean('
            "numeric_only=True)",
            f"tssan_viz.figures.model(store, run={run!r})",
        ]
    )


def command(store: AttentionStore, run: str) -> str:
    """Return the commands that give the same."""
    where = ["--store", store.url, "--run", run]
    return "\n".join(
        shlex.join(line)
        for line in (
            ["tssan-viz", "figure", "model", *where, "--out", "model.pdf"],
            ["tssan-viz", "info", "--store", store.url],
        )
    )


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure; returns where its bytes lie, and its name."""
    run = store.checked_run(str(wish["query"].get("run") or "") or None)
    ending = wish["ending"]
    if ending not in FILES:
        raise UserError(f"the overview is saved as {', '.join(FILES)}, not as {ending!r}")
    report("drawing", 0, 1)
    from tssan_viz.figures import model

    key = answer_key({"what": "overview", "run": run, "file": ending}, store.arrow_rows(run))
    keep(key, figure_bytes(model(store, run=run), ending))
    return {"key": key, "name": f"model.{ending}"}
