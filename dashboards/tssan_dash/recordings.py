"""What the pages ask of one store, remembered for as long as the run's rows stand as they are."""

from __future__ import annotations

import difflib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import pyarrow as pa
from flask import Flask, current_app

from tssan_dash.filtering import Question, find
from tssan_viz.errors import UserError
from tssan_viz.store.schema import MEASURES
from tssan_viz.views.payload import head_view_payload

if TYPE_CHECKING:
    from tssan_dash.first_look import Cells
    from tssan_dash.jobs import Jobs
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore, Catalogue
    from tssan_viz.views.payload import Payload

T = TypeVar("T")

log = logging.getLogger(__name__)

_EXTENSION = "tssan_dash"

_ORDER = ["class_name", "subject", "camera", "replication", "sample"]


class Recordings:
    """One store, as the pages read it.

    Answers are worked out once, however many tabs ask at the same time, and again when the run has
    other rows than before, so that a page that was open during a recording shows what was added.

    Parameters
    ----------
    store
        The store.
    kept
        How many answers are remembered (a head view of 3 segments × 2 persons × 8 layers × 8 heads
        × 32 × 32 frames takes 0.8 MB).
    prefix
        The path below which browsers find the dashboard.
    """

    def __init__(self, store: AttentionStore, *, kept: int = 64, prefix: str = "/") -> None:
        self.store = store
        self.prefix = prefix
        self._kept = kept
        self._answers: OrderedDict[tuple[Any, ...], tuple[pa.Table, Future[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def jobs(self) -> Jobs:
        """What is worked out in processes of their own, and the answers kept of it."""
        from tssan_dash.jobs import Jobs

        return Jobs(self.store)

    def attach(self, server: Flask) -> None:
        """Make these the recordings that `current` gives while `server` answers a request."""
        server.extensions[_EXTENSION] = self

    def read_ahead(self) -> None:
        """Read what the first page asks of the newest run, so that its visitor need not wait."""
        try:
            run = self.run(None)
            self.samples(run)
            self.head_measures(run)
        except UserError as error:
            # Whoever opens the page is told.
            log.info("Nothing is read ahead: %s", error)

    def _once(self, run: str, question: tuple[Any, ...], work: Callable[[], T]) -> T:
        # The store gives the same object until a run's rows have a new version.
        rows = self.store.arrow_rows(run)
        key = (run, *question)
        with self._lock:
            known = self._answers.get(key)
            first = known is None or known[0] is not rows
            answer: Future[T] = Future() if known is None or first else known[1]
            self._answers[key] = (rows, answer)
            self._answers.move_to_end(key)
            if len(self._answers) > self._kept:
                self._answers.popitem(last=False)
        if first:
            # Outside the lock: who asks something else meanwhile does not wait.
            try:
                answer.set_result(work())
            except BaseException as error:
                with self._lock:
                    self._answers.pop(key, None)
                answer.set_exception(error)
        return answer.result()

    def runs(self) -> list[str]:
        """Return the names of the runs, the newest first."""
        return self.store.run_names()[::-1]

    def run(self, asked: str | None) -> str:
        """Return the run that was asked for, or the newest one; a UserError where there is none."""
        return self.store.checked_run(asked)

    def catalogue(self, run: str) -> Catalogue:
        """Return the classes and the skeleton that were recorded with the run."""
        return self.store.catalogue(run)

    def everything(self, run: str) -> Selection:
        """Return all rows of a run, to be narrowed."""
        return self._once(run, ("everything",), lambda: self.store.select(run=run))

    def samples(self, run: str) -> pd.DataFrame:
        """Return one line per video, by class, subject, camera and repetition."""

        def read() -> pd.DataFrame:
            samples = self.everything(run).samples()
            return samples.sort_values(_ORDER, ignore_index=True)

        return self._once(run, ("samples",), read)

    def head_measures(self, run: str) -> pd.DataFrame:
        """Return the mean of each recorded measure per layer and head, over the newest step."""
        means = self._mean_measures(run)
        if means["step"].notna().any():
            means = means[means["step"] == means["step"].max()]
        return means.drop(columns="step").reset_index(drop=True)

    def steps(self, run: str) -> pd.DataFrame:
        """Return per step and head the mean of each recorded measure, and the accuracy of the step.

        Returns
        -------
        DataFrame
            ``step``, ``layer``, ``head``, a column per measure, and ``accuracy``.
        """

        def read() -> pd.DataFrame:
            means = self._mean_measures(run).dropna(subset="step")
            rows = self.store.rows(run)
            once = rows.drop_duplicates(["step", "sample"]).dropna(subset=["correct"])
            right = once["correct"].astype(float).groupby(once["step"]).mean()
            return means.assign(accuracy=means["step"].map(right).astype(float))

        return self._once(run, ("steps",), read)

    def _mean_measures(self, run: str) -> pd.DataFrame:
        """Return the mean of each recorded measure per step, layer and head."""

        def read() -> pd.DataFrame:
            # Millions of lines, of which a table in memory would take as much as all else together.
            measures = self.store.dataset("measures")
            there = [] if measures is None else measures.schema.names
            names = [f'"{name}"' for name in there if name not in MEASURES.names]
            means = "".join(f", avg({n}) FILTER (NOT isnan({n})) AS {n}" for n in names)
            name, stream = (
                word.replace("'", "''") for word in (run, self.store.select(run=run).stream)
            )
            found = self.store.sql(
                f"SELECT step, layer, head{means} FROM maps WHERE run = '{name}' "
                f"AND stream = '{stream}' GROUP BY ALL ORDER BY ALL"
            )
            return found.drop(columns=[n for n in found.columns[3:] if found[n].isna().all()])

        return self._once(run, ("measures",), read)

    def classes(self, run: str) -> list[Any]:
        """Return the catalogue's classes of which the run has videos."""

        def read() -> list[Any]:
            recorded = set(self.samples(run)["label"].dropna().astype(int))
            return [c for c in self.catalogue(run).classes if c.label in recorded]

        return self._once(run, ("classes",), read)

    def videos(self, run: str) -> Videos:
        """Return of every video what a click on it asks, in the order of `samples`."""
        return self._once(run, ("videos",), lambda: Videos.of(self.samples(run)))

    def found(self, run: str, question: Question) -> pd.Index:
        """Return the places of the videos that a question finds, in its order."""
        samples = self.samples(run)
        if question == Question():
            return samples.index
        asked = json.dumps(question.to_dict(), sort_keys=True)
        # Searching tens of thousands of names takes longer than all else of a click.
        return self._once(
            run, ("found", asked), lambda: find(samples, self.catalogue(run), question).index
        )

    def cells(self, run: str, conditions: Mapping[str, Any]) -> Cells | None:
        """Return where the kept cells of the rows of some conditions lie, None where not all do."""
        from tssan_dash.first_look import Cells

        asked = ("cells", json.dumps(conditions, sort_keys=True))
        found = self._once(run, asked, lambda: Cells.of(self.store.select(**conditions)))
        if found is None:
            # Whoever compares next keeps them, and the rows stay as they are.
            with self._lock:
                self._answers.pop((run, *asked), None)
        return found

    def position(self, run: str, sample: str) -> int:
        """Return the place of a video among `samples`.

        Raises
        ------
        UserError
            If the run has no such video; names the nearest ones.
        """
        known = self.videos(run).places
        if sample not in known:
            near = difflib.get_close_matches(sample, list(known), n=3, cutoff=0.5)
            advice = (
                f"nearest: {', '.join(near)}"
                if near
                else f"it has {len(known)}, {next(iter(known), 'none')} among them"
            )
            raise UserError(f"The run {run!r} has no video {sample!r}; {advice}.")
        return known[sample]

    def head_view(self, run: str, sample: str) -> Payload:
        """Return the maps, poses and words of one video."""
        self.position(run, sample)
        return self._once(
            run,
            ("head view", sample),
            lambda: head_view_payload(self.everything(run).of_sample(sample), sample),
        )


@dataclass(frozen=True)
class Videos:
    """The videos of a run as plain values: for one video a table costs more than its maps.

    Attributes
    ----------
    names
        In the order of `Recordings.samples`.
    places
        The place of each name.
    labels, subjects, predicted
        None where nothing was recorded.
    of_label
        The places of each class's videos.
    """

    names: list[str]
    places: dict[str, int]
    labels: list[int | None]
    subjects: list[int | None]
    predicted: list[int | None]
    of_label: dict[int, list[int]]

    @classmethod
    def of(cls, samples: pd.DataFrame) -> Videos:
        """Read them from `Recordings.samples`."""
        names = samples["sample"].tolist()
        labels, subjects, predicted = (
            [None if pd.isna(value) else int(value) for value in samples[name].tolist()]
            for name in ("label", "subject", "predicted")
        )
        of_label: dict[int, list[int]] = {}
        for place, label in enumerate(labels):
            if label is not None:
                of_label.setdefault(label, []).append(place)
        places = {name: place for place, name in enumerate(names)}
        return cls(names, places, labels, subjects, predicted, of_label)


def of_server(server: Flask) -> Recordings:
    """Return the recordings that a dashboard's server shows."""
    return server.extensions[_EXTENSION]


def current() -> Recordings:
    """Return the recordings of the server that answers the present request.

    Dash keeps one table of pages for all apps of a process, so that a page's layout cannot hold
    the recordings of its app.
    """
    return current_app.extensions[_EXTENSION]
