"""Class × class: how alike their maps are, and what the network takes for what."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from tssan_viz.comparison.class_matrix import ClassMatrix, class_matrix
from tssan_viz.errors import UserError
from tssan_viz.figures.means import ask
from tssan_viz.figures.sheet import MARGIN, Sheet, colour_bar, foot, map_panel, measured, shorten
from tssan_viz.figures.style import RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# All sizes in inches.
_TITLE = 0.22
_TREE = 0.42
_BAR = 0.66
_FOOT = 0.22

# A name may take so much of the figure's width before it is cut.
_NAMES = 0.30
# With more classes than that, shares are not written into the cells.
_WRITTEN = 15
# Publishers ask for no smaller letters, in points.
_READABLE = 5.0


def similarity(
    source: AttentionStore | Selection | ClassMatrix,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 1,
) -> PaperFigure:
    """Draw how alike the maps of each two classes are in different subjects, clustered.

    Parameters
    ----------
    source
        A store (its test videos), a selection, or what `class_matrix` returned.
    layer, head
        Counted from 1; default: the mean over all layers and heads.
    metric
        ``cosine``, ``pearson``, ``hellinger`` or ``cka``.
    subject, person, run
        Whose rows.
    venue, columns
        For which publisher's columns, and over how many.

    Returns
    -------
    PaperFigure
        With caption and numbers.

    Raises
    ------
    UserError
        Nothing fits, or there are fewer than two classes or subjects.
    """
    width = paper_width(venue, columns)
    said = ""
    if isinstance(source, ClassMatrix):
        found = source
    else:
        asked = ask(source, subject=subject, person=person, run=run)
        found = class_matrix(asked.rows, layer=layer, head=head, metric=metric, person=person)
        said = f" {asked.said()}."
    order = found.order
    values = found.similarity[np.ix_(order, order)]
    names = [found.names[n] for n in order]
    where = "all layers and heads" if len(found.sites) > 1 else "one head"
    if len(found.sites) == 1:
        where = f"layer {found.sites['layer'].iloc[0]}, head {found.sites['head'].iloc[0]}"
    with matplotlib.rc_context(RC):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        figure = _matrix(
            values,
            names,
            title=f"similarity of maps ({found.metric}), {where}",
            width=width,
            norm=Normalize(low, max(high, low + 1e-6)),
            label="mean similarity",
            axes_names=("", ""),
            tree=found.linkage,
            said=f"n = {found.n_subjects} subjects; pairs of different subjects only",
        )
    a, b = (index.ravel() for index in np.indices(values.shape))
    figure.table = pd.DataFrame(
        {
            "class_a": np.array(names)[a],
            "class_b": np.array(names)[b],
            "metric": found.metric,
            "similarity": values.ravel(),
        }
    )
    figure.caption = (
        f"Mean {found.metric} similarity of the maps of two classes over all pairs of different "
        f"subjects, {where}; on the diagonal one class in two subjects. Classes are ordered by "
        f"average linkage of 1 − similarity (the tree above). n = {found.n_subjects} subjects. "
        f"Described, not tested.{said}"
    )
    figure.notes = (*figure.notes, *found.notes)
    return figure


def confusion(
    source: AttentionStore | Selection,
    *,
    subject: int | Sequence[int] | None = None,
    person: int = 1,
    run: str | None = None,
    venue: str | None = None,
    columns: int = 1,
) -> PaperFigure:
    """Draw what share of each class's videos the network takes for which class.

    Parameters are those of `similarity`.

    Raises
    ------
    UserError
        Nothing fits, or the run was recorded without predictions or without classes.
    """
    width = paper_width(venue, columns)
    asked = ask(source, subject=subject, person=person, run=run)
    samples = asked.rows.samples()
    for column, what in (("predicted", "predictions"), ("label", "classes")):
        if not samples[column].notna().any():
            raise UserError(
                f"run {asked.rows.run!r} was recorded without {what}, so that there is no "
                "confusion to draw; `tssan-viz record` stores both"
            )
    known = samples.dropna(subset=["label", "predicted"])
    labels = sorted({int(n) for n in known["label"]} | {int(n) for n in known["predicted"]})
    names = [str(asked.rows.catalogue.name_of(label)) for label in labels]
    counts = (
        pd.crosstab(known["label"].astype(int), known["predicted"].astype(int))
        .reindex(index=labels, columns=labels, fill_value=0)
        .to_numpy()
    )
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = counts / total
    right = int(np.trace(counts))
    with matplotlib.rc_context(RC):
        figure = _matrix(
            shares,
            names,
            title=f"predictions, {right / len(known):.1%} right",
            width=width,
            norm=Normalize(0.0, 1.0),
            label="share of the class's videos",
            axes_names=("predicted class", "class"),
            written=shares if len(labels) <= _WRITTEN else None,
            said=asked.said(),
        )
    a, b = (index.ravel() for index in np.indices(counts.shape))
    figure.table = pd.DataFrame(
        {
            "class_name": np.array(names)[a],
            "predicted_name": np.array(names)[b],
            "videos": counts.ravel(),
            "share": shares.ravel(),
        }
    )
    figure.caption = (
        f"Share of each class's videos (rows) by predicted class (columns); {right} of "
        f"{len(known)} videos are recognised. {asked.said()}. Described, not tested."
    )
    without = len(samples) - len(known)
    notes = [f"{without} videos without class or prediction are left out"] if without else []
    figure.notes = (*figure.notes, *asked.notes, *notes)
    return figure


def _matrix(
    values: NDArray[np.floating],
    names: Sequence[str],
    *,
    title: str,
    width: float,
    norm: Normalize,
    label: str,
    axes_names: tuple[str, str],
    said: str,
    tree: NDArray[np.floating] | None = None,
    written: NDArray[np.floating] | None = None,
) -> PaperFigure:
    """Draw a square matrix with names at both sides, and above it the tree of its order."""
    probe = Sheet(1.0, width)
    size = 7.0
    shown, room = _fitting(probe, names, size, _NAMES * width)
    axis = 0.17 if axes_names[0] else 0.0
    left = MARGIN + axis + room + 0.06
    side = min(width - left - _BAR - MARGIN, 5.2)
    step = side / len(names)
    if step * 72 < 1.15 * size:
        size = max(step * 72 / 1.15, 3.5)
        shown, room = _fitting(probe, names, size, _NAMES * width)
        left = MARGIN + axis + room + 0.06
        side = min(width - left - _BAR - MARGIN, 5.2)
    above = _TREE if tree is not None and len(tree) else 0.0
    sheet = Sheet(_TITLE + above + side + 0.06 + room + axis + _FOOT, width)
    sheet.title(title, _TITLE / 2)
    if size < _READABLE:
        sheet.figure.notes = (
            f"the names of {len(names)} classes are printed at {size:.1f} points; over two columns "
            "(--columns 2), or of fewer classes, they are larger",
        )
    top = _TITLE + above
    if tree is not None and len(tree):
        _draw_tree(sheet.axes(left, _TITLE, side, above - 0.03, "tree"), tree)
    axes = sheet.axes(left, top, side, side, "matrix")
    mesh = map_panel(axes, values, norm)
    places = np.arange(len(names))
    axes.set_xticks(places, labels=shown, rotation=90, fontsize=size)
    axes.set_yticks(places, labels=shown, fontsize=size)
    axes.tick_params(length=1.2)
    if axes_names[0]:
        sheet.text(left + side / 2, sheet.height - _FOOT - axis / 2, axes_names[0])
        sheet.text(MARGIN + axis / 2, top + side / 2, axes_names[1], rotation=90)
    if written is not None:
        small = min(6.0, side / len(names) * 72 / 2.6)
        for (i, j), share in np.ndenumerate(written):
            if share > 0 and small >= 4.5:
                axes.text(
                    j, i, f"{100 * share:.0f}", ha="center", va="center_baseline", fontsize=small,
                    color="#000000" if norm(share) > 0.6 else "#FFFFFF",
                )  # fmt: skip
    colour_bar(sheet, mesh, left + side + 0.1, top, min(side, 2.2), label)
    foot(sheet, said)
    return sheet.figure


def _fitting(
    probe: Sheet, names: Sequence[str], size: float, most: float
) -> tuple[list[str], float]:
    """Return the names, the long ones cut, and the width of the widest in inches."""
    shown, widest = [], 0.0
    for name in names:
        text = probe.figure.text(0, 0, name, fontsize=size)
        shorten(text, most)
        widest = max(widest, measured(text))
        shown.append(text.get_text())
    return shown, widest


def _draw_tree(axes: Axes, tree: NDArray[np.floating]) -> None:
    """Draw the clustering, its leaves over the columns of the matrix."""
    from scipy.cluster.hierarchy import dendrogram

    drawn = dendrogram(tree, no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        # SciPy puts leaves at 5, 15, 25 …
        axes.plot((np.array(x) - 5) / 10, y, color="#333333", linewidth=0.6)
    axes.set(xlim=(-0.5, len(tree) + 0.5), ylim=(0, 1.02 * float(tree[:, 2].max()) + 1e-9))
