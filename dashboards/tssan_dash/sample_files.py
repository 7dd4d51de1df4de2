"""What is taken away of one video: the figure of what is shown, the stand-alone page, the maps."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tssan_dash.asked import whole_number
from tssan_dash.figure_files import write_file
from tssan_dash.work import answer_key

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

FILES = {"pdf": "PDF", "svg": "SVG", "png": "PNG", "html": "Page (HTML)"}

# What of a video is drawn for paper, by the view of the page.
_LINKS, _MAPS, _POSES = "figure1", "heads", "filmstrip"
_DRAWN = {"head": _LINKS, "model": "model", "heat": _MAPS, "player": _POSES, "explore": _LINKS}


@dataclass(frozen=True)
class SampleAsked:
    """One video as a view shows it.

    Attributes
    ----------
    run, sample
        Which.
    layer, heads, segment, person
        What of its maps; no heads are all.
    view
        One of ``head``, ``model``, ``heat``, ``player``, ``explore``.
    """

    run: str
    sample: str
    layer: int
    heads: tuple[int, ...]
    segment: int | None
    person: int
    view: str = "head"

    @classmethod
    def of(cls, store: AttentionStore, given: Mapping[str, Any]) -> SampleAsked:
        """Read what a browser says that it shows.

        Raises
        ------
        UserError
            Something in it does not exist.
        """
        run = store.checked_run(str(given.get("run") or "") or None)
        sample = str(given.get("sample") or "")
        store.sample(sample, run)  # says the nearest names of one that is not there
        rows = store.select(run=run, sample=sample)
        words = {name: str(given.get(name) or "") for name in ("layer", "segment", "person")}
        layers = list(rows.layers)
        layer = whole_number(words, "layer", layers, layers[-1], "The run")
        there = list(rows.select(layer=layer).heads)
        wanted = given.get("heads")
        chosen = [h for h in there if isinstance(wanted, list) and h in wanted]
        segments, persons = (
            sorted(rows.rows()[name].dropna().astype(int).unique().tolist())
            for name in ("segment", "person")
        )
        view = given.get("view")
        segment = None
        if segments:
            segment = whole_number(words, "segment", segments, segments[0], "The video")
        return cls(
            run,
            sample,
            layer,
            tuple(chosen) if chosen != there else (),
            segment,
            whole_number(words, "person", persons, persons[0], "The video") if persons else 1,
            view if view in _DRAWN else "head",
        )

    def figure(self, store: AttentionStore) -> PaperFigure:
        """Draw for paper what the view shows."""
        import tssan_viz.figures

        draw: Callable[..., PaperFigure] = getattr(tssan_viz.figures, self._kind(store))
        return draw(self._rows(store), **self._drawing(store))

    def python(self, store: AttentionStore) -> str:
        """Return the lines of Python that give the same."""
        rows = ", ".join(f"{name}={value!r}" for name, value in self._selecting().items())
        drawing = "".join(f", {name}={v!r}" for name, v in self._drawing(store).items())
        return "\n".join(
            [
                "import tssan_viz.figures",
                f"store = tssan_viz.open_store({store.url!r})",
                f"rows = store.select({rows})",
                f"rows.select(layer={self.layer}).maps()",
                f"tssan_viz.figures.{self._kind(store)}(rows{drawing})",
            ]
        )

    def command(self, store: AttentionStore) -> str:
        """Return the commands that give the same."""
        where = ["--store", store.url, "--run", self.run]
        words = ["tssan-viz", "figure", self._kind(store), "--sample", self.sample]
        if self.segment is not None:
            words += ["--segment", str(self.segment)]
        words += ["--person", str(self.person)]
        drawing = self._drawing(store)
        if "layer" in drawing:
            words += ["--layer", str(self.layer)]
        for head in drawing.get("head") or ():
            words += ["--head", str(head)]
        kind = self._kind(store)
        return "\n".join(
            shlex.join(line)
            for line in (
                [*words, *where, "--out", f"{kind}.pdf"],
                ["tssan-viz", "view", self.sample, *where, "--out", f"{self.sample}.html"],
            )
        )

    def numbers(self, store: AttentionStore) -> pd.DataFrame:
        """Return the weights of the layer that is shown, one line per head, query and key."""
        rows = self._rows(store).select(layer=self.layer, head=list(self.heads) or None)
        maps = rows.maps().values[-1, 0]
        h, q, s = (index.ravel() for index in np.indices(maps.shape))
        return pd.DataFrame(
            {
                "run": self.run,
                "sample": self.sample,
                "segment": self.segment,
                "person": self.person,
                "layer": self.layer,
                "head": np.array(rows.heads)[h],
                "query": q,
                "key": s,
                "weight": maps.ravel(),
            }
        )

    def key(self, store: AttentionStore, ending: str) -> str:
        """Return the name under which a file lies."""
        return answer_key({**self.__dict__, "file": ending}, store.arrow_rows(self.run))

    def _kind(self, store: AttentionStore) -> str:
        kind = _DRAWN[self.view]
        if kind in (_LINKS, _POSES) and store.sample(self.sample, self.run).poses is None:
            return _MAPS
        return kind

    def _selecting(self) -> dict[str, Any]:
        found: dict[str, Any] = {"run": self.run, "sample": self.sample}
        if self.segment is not None:
            found["segment"] = self.segment
        return found

    def _rows(self, store: AttentionStore) -> Selection:
        return store.select(**self._selecting())

    def _drawing(self, store: AttentionStore) -> dict[str, Any]:
        kind = self._kind(store)
        if kind == "model":
            return {"person": self.person}
        found: dict[str, Any] = {"layer": self.layer}
        if self.heads:
            found["head"] = list(self.heads)
        if kind in (_LINKS, _POSES):
            found["segment"] = self.segment
        return found | {"person": self.person}


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure or the page; returns where its bytes lie, and its name."""
    asked = SampleAsked.of(store, wish)

    def make(ending: str) -> PaperFigure | str:
        if ending == "html":
            from tssan_viz.views.html import page
            from tssan_viz.views.payload import sample_payload

            rows = store.select(run=asked.run, sample=asked.sample)
            state = {"layer": asked.layer, "segment": asked.segment or 1, "person": asked.person}
            heads = {"heads": list(asked.heads)} if asked.heads else {}
            return page(sample_payload(rows, asked.sample, view="explore"), state | heads)
        return asked.figure(store)

    return write_file(
        keep,
        wish,
        FILES,
        what="a video",
        name=lambda ending: f"{asked.sample}.{ending}",
        key=lambda ending: asked.key(store, ending),
        make=make,
    )
