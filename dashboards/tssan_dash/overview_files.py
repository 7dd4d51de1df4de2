"""What is taken away from the overview: the mean map of every head, and its measures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tssan_dash.figure_files import write_file
from tssan_dash.work import answer_key
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

FILES = {"pdf": "PDF", "svg": "SVG", "png": "PNG", "html": "Page (HTML)"}


def python(store: AttentionStore, run: str, measures: Sequence[str]) -> str:
    """Return the lines of Python that give the same, where these measures were recorded."""
    step = _newest_of_several(store, run)
    of = f"run={run!r}" + ("" if step is None else f", step={step}")
    mean = [
        f"rows = store.select({of})",
        f'rows.measures().groupby(["layer", "head"])[{list(measures)!r}].mean()',
    ]
    return "\n".join(
        [
            "import tssan_viz.figures",
            f"store = tssan_viz.open_store({store.url!r})",
            *(mean if measures else []),
            f"tssan_viz.figures.model(store, run={run!r})",
        ]
    )


def command(store: AttentionStore, run: str, measures: Sequence[str]) -> str:
    """Return the commands that give the same."""
    lines = [["tssan-viz", "figure", "model", "--store", store.url, "--run", run]]
    lines[0] += ["--out", "model.pdf"]
    if measures:
        question = measures_sql(store, run, measures, step=_newest_of_several(store, run))
        lines.append(["tssan-viz", "query", question, "--store", store.url, "--out", "heads.csv"])
    return "\n".join(shlex.join(line) for line in lines)


def measures_sql(
    store: AttentionStore,
    run: str,
    measures: Sequence[str],
    *,
    step: int | None = None,
    by: str = "layer, head",
) -> str:
    """Return the question whose answer are the means of measures per head, of one step or all."""
    # A measure that was not taken of a map is no number.
    means = ", ".join(f'avg("{n}") filter (not isnan("{n}")) as "{n}"' for n in measures)
    named = run.replace("'", "''")
    where = f"run = '{named}' and stream = '{store.select(run=run).stream}'"
    if step is not None:
        where += f" and step = {step}"
    return f"select {by}, {means} from maps where {where} group by all order by all"


def _newest_of_several(store: AttentionStore, run: str) -> int | None:
    """Return the newest step of a run that was recorded at more than one."""
    steps = store.rows(run)["step"].dropna()
    return int(steps.max()) if steps.nunique() > 1 else None


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure or the page; returns where its bytes lie, and its name."""
    run = store.checked_run(str(wish["query"].get("run") or "") or None)

    def make(ending: str) -> PaperFigure | str:
        from tssan_viz.figures import model

        figure = model(store, run=run)
        return _page(figure) if ending == "html" else figure

    return write_file(
        keep,
        wish,
        FILES,
        what="the overview",
        name=lambda ending: f"model.{ending}",
        key=lambda ending: answer_key(
            {"what": "overview", "run": run, "file": ending}, store.arrow_rows(run)
        ),
        make=make,
    )


def _page(figure: PaperFigure) -> str:
    """Return the maps of the figure as a page of their own."""
    import numpy as np

    from tssan_viz.views.html import page
    from tssan_viz.views.payload import heatmaps_payload

    maps, titles = [], []
    for (layer, head), part in figure.table.groupby(["layer", "head"]):
        maps.append(part.pivot(index="query", columns="key", values="weight").to_numpy(np.float32))
        titles.append(f"layer {layer}, head {head}")
    if len({one.shape for one in maps}) > 1:
        raise UserError("maps of different sizes are not shown on one page: save them as PDF")
    payload = heatmaps_payload(np.stack(maps), titles, units={"seq": "mean attention weight"})
    return page(payload, title=figure.caption)
