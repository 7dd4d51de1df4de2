"""The long work of the page Compare, as `tssan_dash.work` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_dash.asked import Asked, asked_in
from tssan_dash.figure_files import write_file
from tssan_dash.work import answer_key
from tssan_viz.comparison import compare
from tssan_viz.comparison.class_matrix import class_matrix
from tssan_viz.comparison.further import analyse
from tssan_viz.errors import UserError
from tssan_viz.views.groups import difference_payload
from tssan_viz.views.payload import heatmaps_payload

if TYPE_CHECKING:
    from tssan_viz.comparison import Comparison
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.store import AttentionStore
    from tssan_viz.views.payload import Payload

Keep = Callable[[str, Any], None]

# What can be taken away, by the ending of its file.
FILES = {"pdf": "PDF", "svg": "SVG", "png": "PNG", "html": "Report (HTML)"}


@dataclass(frozen=True)
class Answer:
    """What the page shows of a comparison.

    Attributes
    ----------
    title, summary, notes
        In words.
    n_subjects, n_samples
        Who and what took part.
    table
        As `tssan_viz.comparison.Comparison.table`.
    alpha
        The level of significance.
    strongest
        Layer and head shown first; None without any Δ.
    maps
        For the compare view; None where there are not two sides, and `maps_notes` says why.
    class_names, similarity
        Of all classes of the rows, (c, c), like by like; none where it cannot be told.
    """

    title: str
    summary: list[str]
    notes: list[str]
    n_subjects: int
    n_samples: int
    table: pd.DataFrame
    alpha: float
    strongest: tuple[int, int] | None
    maps: Payload | None
    maps_notes: list[str]
    class_names: list[str]
    similarity: NDArray[np.float64] | None

    @property
    def matrix(self) -> Payload | None:
        """Similarity of the classes as a picture."""
        if self.similarity is None:
            return None
        return heatmaps_payload(
            np.nan_to_num(self.similarity)[None],
            titles=["similarity"],
            labels=self.class_names,
            units={"seq": "mean similarity over subjects"},
        )

    @property
    def buffers(self) -> dict[str, bytes]:
        """What the views of the page are drawn from, by name."""
        found = {} if self.maps is None else dict(self.maps.buffers)
        return found if self.matrix is None else {**found, "matrix": self.matrix.buffers["maps"]}


def key_of(store: AttentionStore, asked: Asked) -> str:
    """Return the name under which the answer to a question lies."""
    return answer_key(asked.plain(), store.arrow_rows(asked.run))


def compare_job(
    store: AttentionStore, report: Progress, keep: Keep, question: Mapping[str, Any]
) -> dict[str, str]:
    """Answer a question that came from a browser; returns where the answer lies."""
    asked = asked_in(Asked.of, store, question)
    keep(key_of(store, asked), _answer(store, asked, report))
    return {"key": key_of(store, asked)}


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write a file with a figure or the report; returns where its bytes lie, and its name."""
    asked = asked_in(Asked.of, store, wish)

    def make(ending: str) -> PaperFigure | str:
        comparison = _compare(store, asked, report)
        if ending == "html":
            from tssan_viz.comparison.further import ANALYSES
            from tssan_viz.comparison.outputs.report import report as page

            return page(comparison, analyse(comparison, list(ANALYSES), progress=report))
        return comparison.plot()

    return write_file(
        keep,
        wish,
        FILES,
        what="a comparison",
        name=lambda ending: f"comparison.{ending}",
        key=lambda ending: answer_key(
            {**asked.plain(), "ending": ending}, store.arrow_rows(asked.run)
        ),
        make=make,
    )


def _compare(store: AttentionStore, asked: Asked, report: Progress) -> Comparison:
    return compare(asked.rows(store), **asked.comparing(), progress=report)


def _answer(store: AttentionStore, asked: Asked, report: Progress) -> Answer:
    comparison = _compare(store, asked, report)
    (difference,) = analyse(comparison, ["difference"], progress=report)
    names: list[str] = []
    similarity = None
    try:
        found = class_matrix(
            asked.rows(store),
            metric=comparison.metric,
            split=comparison.split,
            person=comparison.person,
            progress=report,
        )
        names = [found.names[i] for i in found.order]
        similarity = found.similarity[np.ix_(found.order, found.order)]
    except UserError:
        # One class or one subject: there is nothing to be like.
        pass
    strongest = comparison.strongest
    maps = None
    if difference.result is not None:
        first, second = comparison.side_names
        maps = difference_payload(difference.result, (first, second))
    return Answer(
        title=comparison.title,
        summary=comparison.summary,
        notes=comparison.notes,
        n_subjects=len(comparison.subjects),
        n_samples=comparison.n_samples,
        table=comparison.table,
        alpha=comparison.alpha,
        strongest=None if strongest is None else (int(strongest["layer"]), int(strongest["head"])),
        maps=maps,
        maps_notes=difference.notes,
        class_names=names,
        similarity=similarity,
    )
