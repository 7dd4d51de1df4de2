"""What is taken away of what was tested about explanation: curves as figure, and their numbers."""

from __future__ import annotations

import base64
import html
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from tssan_dash.figure_files import figure_bytes, write_file
from tssan_dash.work import answer_key
from tssan_viz.errors import UserError
from tssan_viz.evidence.kept import FAITHFULNESS, HEADS, kept_evidence

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.store import AttentionStore

Keep = Callable[[str, Any], None]

_TITLES = {
    FAITHFULNESS: "Frames taken away and put back: areas under the curves",
    HEADS: "Heads changed one at a time: rise of the loss",
}

FILES = {
    "pdf": "Curves (PDF)",
    "svg": "Curves (SVG)",
    "png": "Curves (PNG)",
    "html": "Page (HTML)",
    "heads": "Heads (CSV)",
}


def tested(store: AttentionStore, run: str) -> list[int | None]:
    """Return about which classes something was found; None, all of them, comes first."""
    labels = {finding["label"] for finding in kept_evidence(store, run)}
    return sorted(labels, key=lambda label: -1 if label is None else label)


def chosen(store: AttentionStore, run: str, class_name: str | None) -> list[dict[str, Any]]:
    """Return what was found about a class; about all, or the first, where none is named.

    Raises
    ------
    UserError
        There are findings, but none about this class.
    """
    labels = tested(store, run)
    if not labels:
        return []
    label = labels[0]
    if class_name is not None:
        label = store.catalogue(run).resolve(class_name).label
        if label not in labels:
            raise UserError(
                f"Nothing was tested about the class {class_name!r} of the run {run!r}."
            )
    return [finding for finding in kept_evidence(store, run) if finding["label"] == label]


def of_kind(findings: Sequence[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """Return the finding of a kind, None where there is none."""
    return next((finding for finding in findings if finding["kind"] == kind), None)


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
    about = [finding for finding in kept_evidence(store, run) if finding["label"] == label]
    found = of_kind(about, FAITHFULNESS)
    if found is not None:
        # As many videos as were asked about: all, where it was all.
        words += ["--limit", str(len(found["videos"]))]
        if found.get("replaced", "interpolated") != "interpolated":
            words += ["--replace", found["replaced"]]
        if found.get("seed"):
            words += ["--seed", str(found["seed"])]
    of = [] if label is None else ["--class", of_class(store, run, label)]
    heads = [] if of_kind(about, HEADS) is None else ["--heads"]
    return shlex.join([*words, *of, *heads, "--store", store.url, "--out", "faithfulness"])


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write the figure, the page or the table of heads; returns where it lies, and its name."""
    run = store.checked_run(str(wish.get("run") or "") or None)
    findings = chosen(store, run, str(wish.get("class") or "") or None)
    if not findings:
        raise UserError(f"Nothing was tested about the run {run!r} yet.")
    label = findings[0]["label"]

    def make(ending: str) -> PaperFigure | str:
        if ending == "heads":
            heads = of_kind(findings, HEADS)
            if heads is None:
                raise UserError("No head was taken out: tssan-viz faithfulness --heads does it.")
            return pd.DataFrame(heads["table"]).to_csv(index=False)
        from tssan_viz.evidence.drawing import curves_figure

        drawn = of_kind(findings, FAITHFULNESS)
        if drawn is None:
            raise UserError(f"There are no curves about {of_class(store, run, label)}.")
        figure = curves_figure(curves(drawn), title=f"{of_class(store, run, label)}, run {run}")
        return _page(store, run, figure, findings) if ending == "html" else figure

    return write_file(
        keep,
        wish,
        FILES,
        what="what was found",
        name=lambda ending: (
            "heads.csv"
            if ending == "heads"
            else f"{'evidence' if ending == 'html' else 'curves'}.{ending}"
        ),
        key=lambda ending: answer_key(
            {"what": "curves", "run": run, "label": label, "file": ending}, store.arrow_rows(run)
        ),
        make=make,
    )


def of_class(store: AttentionStore, run: str, label: int | None) -> str:
    """Say about which class something was found."""
    return "all classes" if label is None else str(store.catalogue(run).name_of(label))


def _page(
    store: AttentionStore, run: str, figure: PaperFigure, findings: Sequence[Mapping[str, Any]]
) -> str:
    """Return the curves and all tables of what was found about one class as a page of their own."""
    from tssan_viz.comparison.outputs.report import bare_page, table_html

    of = of_class(store, run, findings[0]["label"])
    title = f"Does attention point at what matters? {of}, run {run}"
    drawn = base64.b64encode(figure_bytes(figure, "svg")).decode()
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<figure><img src="data:image/svg+xml;base64,{drawn}" style="aspect-ratio: auto" '
        'alt="Curves of deletion and insertion; their areas stand in the table below"></figure>',
    ]
    for finding in findings:
        body += [f"<h2>{_TITLES[finding['kind']]}</h2>", table_html(pd.DataFrame(finding["table"]))]
        if finding.get("together"):
            together = pd.DataFrame(finding["together"])
            body += ["<h2>All heads changed at once</h2>", table_html(together)]
    return bare_page(title, body, of=f"store {store.url} · run {run}")
