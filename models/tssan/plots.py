"""Pictures of a training and of an evaluation, for paper and screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tssan.run_folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

TRAINED, LOOKED_AT = "#0072b2", "#d55e00"  # blue and vermilion, told apart by everybody


def draw_curves(metrics: Path, stem: Path, *, title: str) -> None:
    """Draw loss and accuracy over epochs, as `stem`.png and `stem`.pdf.

    Parameters
    ----------
    metrics
        The run's metrics.csv.
    stem
        Path without a suffix.
    title
        Written above the picture.
    """
    lines = pd.read_csv(metrics)
    on_test = bool(lines["selection"].str.contains("test part").any())
    other = "test part" if on_test else "held-out part"
    if on_test:
        title += f" · {lines['selection'].iloc[0]}"
    figure = _figure(7.2, 2.9)
    loss, accuracy = figure.subplots(1, 2)
    for axes, what, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for part, name, colour in (
            ("train", "training part", TRAINED),
            ("validation", other, LOOKED_AT),
        ):
            values = lines[f"{part}_{what}"]
            if values.notna().any():
                marker = "o" if len(lines) == 1 else None
                axes.plot(lines["epoch"], scale * values, colour, label=name, marker=marker)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    loss.set_ylabel("loss")
    loss.legend(frameon=False)
    accuracy.set_ylabel("accuracy (%)")
    figure.suptitle(title, fontsize=9)
    _save(figure, stem)


def draw_confusion(
    counts: NDArray[np.int64], names: Sequence[str], stem: Path, *, title: str
) -> None:
    """Draw a confusion matrix, rows scaled to 100 %, as `stem`.png and `stem`.pdf.

    Parameters
    ----------
    counts
        (classes, classes): true class by predicted class.
    names
        Of the classes.
    stem
        Path without a suffix.
    title
        Written above the picture.
    """
    total = counts.sum(axis=1, keepdims=True)
    share = 100 * counts / np.maximum(total, 1)
    side = max(3.6, 1.6 + 0.17 * len(names))
    figure = _figure(side + 0.9, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    places = range(len(names))
    labels = [name if len(name) <= 28 else f"{name[:27]}…" for name in names]
    axes.set_xticks(places, labels, rotation=90, fontsize=6)
    axes.set_yticks(places, labels, fontsize=6)
    axes.set_xlabel("predicted class", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)
    figure.suptitle(title, fontsize=8)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the true class (%)", fontsize=8)
    bar.ax.tick_params(labelsize=6)
    _save(figure, stem)


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without a window system behind it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, stem: Path) -> None:
    import matplotlib as mpl

    # Type 42: journals refuse Type 3. Without dates the same run gives the same files.
    with mpl.rc_context({"pdf.fonttype": 42}):
        write_atomically(
            stem.with_name(f"{stem.name}.pdf"),
            lambda part: figure.savefig(part, format="pdf", metadata={"CreationDate": None}),
        )
        write_atomically(
            stem.with_name(f"{stem.name}.png"),
            lambda part: figure.savefig(part, format="png", dpi=150),
        )
