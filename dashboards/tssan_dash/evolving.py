"""The long work of the page Training: one head's maps along the steps."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tssan_dash.asked import asked_in, whole_number
from tssan_dash.figure_files import write_file
from tssan_dash.overview_files import measures_sql
from tssan_dash.work import answer_key
from tssan_viz.errors import UserError
from tssan_viz.views.groups import evolution_payload

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

FILES = {"pdf": "PDF", "svg": "SVG", "png": "PNG", "html": "Page (HTML)"}


@dataclass(frozen=True)
class EvolutionAsked:
    """Which head is followed."""

    run: str
    layer: int
    head: int

    @classmethod
    def of(cls, store: AttentionStore, run: str, query: Mapping[str, str]) -> EvolutionAsked:
        """Read the question of an address.

        Raises
        ------
        UserError
            There is no such layer or head; says which there are.
        """
        selection = store.select(run=run)
        if not len(selection):
            raise UserError(f"The run {run!r} holds no video yet.")
        layers = list(selection.layers)
        layer = whole_number(query, "layer", layers, layers[-1], f"The run {run!r}")
        heads = list(selection.select(layer=layer).heads)
        return cls(run, layer, whole_number(query, "head", heads, heads[0], f"Layer {layer}"))

    def query(self) -> dict[str, str]:
        """Return the parameters of the address that asks this."""
        return {"run": self.run, "layer": str(self.layer), "head": str(self.head)}

    def key(self, store: AttentionStore, ending: str = "") -> str:
        """Return the name under which the answer lies, or a file of it."""
        question = {"what": "evolution", "file": ending, **self.query()}
        return answer_key(question, store.arrow_rows(self.run))

    def python(self, store: AttentionStore, measures: Sequence[str]) -> str:
        """Return the lines of Python that give the same, where these measures were recorded."""
        place = f"layer={self.layer}, head={self.head}"
        return "\n".join(
            [
                "import tssan_viz.figures",
                f"store = tssan_viz.open_store({store.url!r})",
                f"rows = store.select(run={self.run!r})",
                *(
                    [
                        'rows.measures().groupby(["step", "layer", "head"])'
                        f"[{list(measures)!r}].mean()"
                    ]
                    if measures
                    else []
                ),
                f"tssan_viz.figures.evolution(rows, {place})",
            ]
        )

    def command(self, store: AttentionStore, measures: Sequence[str]) -> str:
        """Return the commands that give the same."""
        lines = [
            [
                *("tssan-viz", "figure", "evolution"),
                *("--layer", str(self.layer), "--head", str(self.head)),
                *("--store", store.url, "--run", self.run, "--out", "evolution.pdf"),
            ]
        ]
        if measures:
            question = measures_sql(store, self.run, measures, by="step, layer, head")
            out = ["--store", store.url, "--out", "training.csv"]
            lines.append(["tssan-viz", "query", question, *out])
        return "\n".join(shlex.join(line) for line in lines)


def evolution_job(
    store: AttentionStore, report: Progress, keep: Keep, question: Mapping[str, Any]
) -> dict[str, str]:
    """Average one head's maps at each step."""
    asked = asked_in(EvolutionAsked.of, store, question)
    report("averaging maps", 0, 1)
    rows = store.select(run=asked.run)
    keep(asked.key(store), evolution_payload(rows, layer=asked.layer, head=asked.head))
    return {"key": asked.key(store)}


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure or the page; returns where its bytes lie, and its name."""
    asked = asked_in(EvolutionAsked.of, store, wish)
    rows = store.select(run=asked.run)

    def make(ending: str) -> PaperFigure | str:
        if ending == "html":
            from tssan_viz.views.html import page

            payload = evolution_payload(rows, layer=asked.layer, head=asked.head)
            return page(payload, title=payload.manifest["title"])
        from tssan_viz.figures import evolution

        return evolution(rows, layer=asked.layer, head=asked.head)

    return write_file(
        keep,
        wish,
        FILES,
        what="the page",
        name=lambda ending: f"evolution.{ending}",
        key=lambda ending: asked.key(store, ending),
        make=make,
    )
