"""The long work about all heads: shares of variance and decodability, also along training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.compute as pc

from tssan_dash.work import answer_key, answers, folder_of
from tssan_viz.comparison.decoding import decodability
from tssan_viz.comparison.variance import variance_shares
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

PERMUTATIONS = 1000


@dataclass(frozen=True)
class HeadFindings:
    """What was found about all heads of a run.

    Attributes
    ----------
    shares : DataFrame or None
        ``layer``, ``head``, and the share of each effect in the variance of the maps.
    decoding : DataFrame or None
        As `tssan_viz.comparison.decoding.Decodability.table`.
    notes : list of str
        What was decided without being asked, or why there is no answer.
    said : str
        Of how many videos, classes and subjects.
    """

    shares: pd.DataFrame | None
    decoding: pd.DataFrame | None
    notes: list[str]
    said: str

    def measures(self) -> pd.DataFrame:
        """Return per layer and head what the overview can colour its cells by."""
        parts = []
        if self.shares is not None:
            parts.append(
                self.shares.set_index(["layer", "head"])[["class", "subject"]].rename(
                    columns={"class": "class_share", "subject": "subject_share"}
                )
            )
        if self.decoding is not None:
            names = ["class_accuracy", "subject_accuracy"]
            parts.append(self.decoding.set_index(["layer", "head"])[names])
        return pd.concat(parts, axis=1).reset_index() if parts else pd.DataFrame()


def key_of(store: AttentionStore, run: str) -> str:
    """Return the name under which the findings of a run lie."""
    return answer_key({"what": "heads", "run": run}, store.arrow_rows(run))


def step_key(store: AttentionStore, run: str, step: int) -> str:
    """Return the name under which the class shares of a step lie; other steps do not change it."""
    rows = store.arrow_rows(run)
    mine = rows.filter(pc.equal(rows["step"], step))
    return answer_key({"what": "class share", "run": run, "step": step}, mine)


def findings_job(
    store: AttentionStore, report: Progress, keep: Keep, question: Mapping[str, Any]
) -> dict[str, str]:
    """Find out about all heads of the run of a question."""
    run = store.checked_run(str(question["query"].get("run") or "") or None)
    rows = store.select(run=run)
    notes: list[str] = []
    shares = decoding = None
    said = ""
    try:
        found = variance_shares(rows, progress=report)
        shares, said = found.wide(), f"{found.n_samples:,} videos, {found.n_classes} classes, "
        said += f"{found.n_subjects} subjects"
        notes += found.notes
    except UserError as error:
        notes.append(str(error))
    try:
        told = decodability(rows, permutations=PERMUTATIONS, progress=report)
        decoding = told.table
        notes += told.notes
    except UserError as error:
        notes.append(str(error))
    notes = list(dict.fromkeys(notes))
    keep(key_of(store, run), HeadFindings(shares, decoding, notes, said))
    return {"key": key_of(store, run)}


def steps_job(
    store: AttentionStore, report: Progress, keep: Keep, question: Mapping[str, Any]
) -> dict[str, str]:
    """Find the class's share of each head at every step of which it is not known yet."""
    run = store.checked_run(str(question["query"].get("run") or "") or None)
    known = answers(folder_of(store))
    steps = sorted(int(n) for n in store.rows(run)["step"].dropna().unique())
    wanted = [step for step in steps if step_key(store, run, step) not in known]
    for done, step in enumerate(wanted):
        try:
            found = variance_shares(store.select(run=run, step=step)).wide()
            answer: pd.DataFrame | str = found[["layer", "head", "class"]].assign(step=step)
        except UserError as error:
            answer = str(error)
        keep(step_key(store, run, step), answer)
        report("class share of each step", done + 1, len(wanted))
    return {"key": run}
