"""Figures as the bytes of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_bytes(figure: Figure, ending: str) -> bytes:
    """Return a figure as a file of this ending (``pdf``, ``svg``, ``png``) would hold it."""
    from tssan_viz.figures import save_figure

    with tempfile.TemporaryDirectory() as folder:
        return save_figure(figure, Path(folder) / f"figure.{ending}").read_bytes()
