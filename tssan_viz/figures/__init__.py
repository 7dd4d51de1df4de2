"""Figures for paper: matplotlib only, vector, with fonts that publishers take."""

from __future__ import annotations

from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.figure5 import figure5
from tssan_viz.figures.style import FORMATS, PaperFigure, save_figure, writable_figure

__all__ = [
    "FORMATS",
    "Figure5Data",
    "PaperFigure",
    "Video",
    "figure5",
    "figure5_data",
    "save_figure",
    "writable_figure",
]
