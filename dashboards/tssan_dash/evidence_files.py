"""What is taken away of what was tested about explanation: curves as figure, and their numbers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from tssan_dash.figure_files import figure_bytes
from tssan_dash.work import answer_key
from tssan_viz.errors import UserError
from tssan_viz.evidence.kept import FAITHFULNESS, kept_evidence

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

FILES = {"pdf": "Curves (PDF)", "svg": "Curves (SVG)", "png": "Curves (PNG)"}


def chosen(store: AttentionStore, run: str, class_name: str | None) -> dict[str, Any] | None:
    """Return the curves that a page gives away: of a class, or the first; None if there are none.

    Raises
    ------
    UserError
        There are curves, but none of this class.
    """
    found = kept_evidence(store, run, kind=FAITHFULNESS)
    if class_name is None or not found:
        return found[0] if found else None
    label = store.catalogue(run).resolve(class_name).label
    for finding in found:
        if finding["label"] == label:
            return finding
    raise UserError(f"Nothing was tested about the class {class_name!r} of the run {run!r}.")


def curves(finding: Mapping[str, Any]) -> pd.DataFrame:
    """Return the curves of a finding: a line per method and share of the frames."""
    return pd.DataFrame(finding["curves"])


def python(store: AttentionStore, run: str, label: int | None) -> str:
    """Return the lines of Python that give the same."""
    return "\n".join(
        [
            "import pandas as pd",
            "import tssan_viz",
            "from tssan_viz.evidence.kept import kept_evidence",
            f"store = tssan_viz.open_store({store.url!r})",
            f"kept = kept_evidence(store, {run!r}, kind={FAITHFULNESS!r})",
            f'(finding,) = [one for one in kept if one["label"] == {label}]',
            'pd.DataFrame(finding["curves"])',
        ]
    )


def command(store: AttentionStore, run: str, label: int | None) -> str:
    """Return the command that tests the same; DIR stands for the folder of the prepared data."""
    words = ["tssan-viz", "faithfulness", "--run", run, "--data", "DIR"]
    of = [] if label is None else ["--class", str(store.catalogue(run).name_of(label))]
    return shlex.join([*words, *of, "--store", store.url, "--out", "faithfulness"])


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure; returns where its bytes lie, and its name."""
    run = store.checked_run(str(wish.get("run") or "") or None)
    name = str(wish.get("class") or "") or None
    ending = wish["ending"]
    if ending not in FILES:
        raise UserError(f"curves are saved as {', '.join(FILES)}, not as {ending!r}")
    finding = chosen(store, run, name)
    if finding is None:
        raise UserError(f"Nothing was tested about the run {run!r} yet.")
    report("drawing", 0, 1)
    from tssan_viz.evidence.drawing import curves_figure

    label = finding["label"]
    of = "all classes" if label is None else store.catalogue(run).name_of(label)
    figure = curves_figure(curves(finding), title=f"{of}, run {run}")
    key = answer_key(
        {"what": "curves", "run": run, "label": label, "file": ending}, store.arrow_rows(run)
    )
    keep(key, figure_bytes(figure, ending))
    return {"key": key, "name": f"curves.{ending}"}
