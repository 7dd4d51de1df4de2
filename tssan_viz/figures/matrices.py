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
from tssan_viz.figures.sheet import (
    BAR,
    FOOT,
    MARGIN,
    TITLE,
    Scale,
    Sheet,
    colour_bar,
    foot,
    map_panel,
    measured,
    shorten,
)
from tssan_viz.figures.style import RC, PaperFigure, paper_width
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore

# All sizes in inches.
_TREE = 0.42

# A name may take so much of the figure's width before it is cut.
_NAMES = 0.30
_KEY_LINE = 0.11
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
    where = _where(found.sites)
    with matplotlib.rc_context(RC):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        figure = _matrix(
            values,
            names,
            title=f"{found.metric} similarity, {where}",
            width=width,
            scale=Scale(Normalize(low, max(high, low + 1e-6))),
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
    figure.notes = tuple(found.notes)
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
            # White where nothing is, so that rare mistakes show.
            scale=Scale(Normalize(0.0, 1.0), "Blues"),
            label="share of videos",
            axes_names=("predicted class", "class"),
            written=shares,
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
    figure.notes = (*asked.notes, *notes)
    return figure


def _matrix(
    values: NDArray[np.floating],
    names: Sequence[str],
    *,
    title: str,
    width: float,
    scale: Scale,
    label: str,
    axes_names: tuple[str, str],
    said: str,
    tree: NDArray[np.floating] | None = None,
    written: NDArray[np.floating] | None = None,
) -> PaperFigure:
    """Draw a square matrix with names at both sides, and above it the tree of its order.

    Where names would be too small to print, numbers stand for them, and the names below.
    """
    probe = Sheet(1.0, width)
    size = 7.0
    axis = 0.17 if axes_names[0] else 0.0
    shown, room = _fitting(probe, names, size, _NAMES * width)
    left, side, lying = _place(width, axis, room)
    size = min(size, side / len(names) * 72 / 1.15)
    key: list[str] = []
    every = 1
    if size < _READABLE:
        size = 6.0
        key = [f"{n} {name}" for n, name in enumerate(names, start=1)]
        shown = [str(n) for n in range(1, len(names) + 1)]
        _, room = _fitting(probe, shown, size, width)
        left, side, lying = _place(width, axis, room)
        every = next(n for n in (1, 2, 5, 10, 20, 50, 100) if n * side / len(names) * 72 >= 7.0)
    above = _TREE if tree is not None and len(tree) else 0.0
    top = TITLE + above
    under = top + side + 0.06 + room + axis
    across, lines = _key_grid(probe, key, width)
    sheet = Sheet(under + lines * _KEY_LINE + 0.06 + FOOT, width)
    sheet.title(title, TITLE / 2)
    if tree is not None and len(tree):
        _draw_tree(sheet.axes(left, TITLE, side, above - 0.03, "tree"), tree)
    axes = sheet.axes(left, top, side, side, "matrix")
    map_panel(axes, values, scale)
    named = [n for n in range(len(names)) if (n + 1) % every == 0]
    words = [shown[n] for n in named]
    axes.set_xticks(named, labels=words, rotation=90, fontsize=size)
    axes.set_yticks(named, labels=words, fontsize=size)
    axes.tick_params(length=1.2)
    if axes_names[0]:
        sheet.text(left + side / 2, under - axis / 2, axes_names[0])
        sheet.text(MARGIN + axis / 2, top + side / 2, axes_names[1], rotation=90)
    if written is not None:
        _write_shares(axes, written, side, scale)
    if lying:
        colour_bar(sheet, scale, MARGIN + 0.1, top + side + 0.12, left - 0.4, label, lying=True)
    else:
        colour_bar(sheet, scale, left + side + 0.1, top, min(side, 2.2), label)
    for n, word in enumerate(key):
        column, line = divmod(n, lines)
        text = sheet.figure.text(
            (MARGIN + column * (width - 2 * MARGIN) / across) / width,
            1 - (under + (line + 0.5) * _KEY_LINE) / sheet.height,
            word,
            fontsize=6,
            va="center_baseline",
        )
        shorten(text, (width - 2 * MARGIN) / across - 0.05)
    foot(sheet, said)
    return sheet.figure


def _place(width: float, axis: float, room: float) -> tuple[float, float, bool]:
    """Return the left edge and the side of the matrix, and whether the scale lies below the names.

    In the corner between long names of rows and of columns there is room for it.
    """
    left = MARGIN + axis + room + 0.06
    lying = room + axis >= 0.85
    return left, min(width - left - MARGIN - (0.06 if lying else BAR), 5.2), lying


def _key_grid(probe: Sheet, key: Sequence[str], width: float) -> tuple[int, int]:
    """Return in how many columns and lines numbers are explained."""
    if not key:
        return 1, 0
    _, widest = _fitting(probe, key, 6.0, (width - 2 * MARGIN) / 2)
    across = max(1, int((width - 2 * MARGIN) / (widest + 0.06)))
    return across, -(-len(key) // across)


def _write_shares(axes: Axes, shares: NDArray[np.floating], side: float, scale: Scale) -> None:
    """Write percentages into the cells, where they can be read."""
    size = min(6.5, side / len(shares) * 72 / 2.15)
    if size < _READABLE:
        return
    for (i, j), share in np.ndenumerate(shares):
        if share > 0:
            axes.text(
                j, i, f"{100 * share:.0f}", ha="center", va="center_baseline", fontsize=size,
                color="#FFFFFF" if scale.norm(share) > 0.55 else "#000000",
            )  # fmt: skip


def _where(sites: pd.DataFrame) -> str:
    """Return of which layers and heads the similarities are the mean."""
    layers = ", ".join(str(n) for n in dict.fromkeys(sites["layer"]))
    if len(sites) == 1:
        return f"layer {layers}, head {sites['head'].iloc[0]}"
    if sites["layer"].nunique() == 1:
        return f"layer {layers}, mean of {len(sites)} heads"
    return f"mean of {len(sites)} heads of layers {layers}"


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
