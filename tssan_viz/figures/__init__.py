"""Figures for paper: matplotlib only, vector, with fonts that publishers take.

Each function takes a store or a selection and returns a `PaperFigure`, which knows its caption and
the numbers behind it; `save_with_numbers` writes all three.
"""

from __future__ import annotations

from tssan_viz.figures.data import Figure5Data, Video, figure5_data
from tssan_viz.figures.decoding import decoding
from tssan_viz.figures.difference import difference
from tssan_viz.figures.evolution import evolution
from tssan_viz.figures.figure1 import figure1
from tssan_viz.figures.figure5 import figure5
from tssan_viz.figures.filmstrip import filmstrip
from tssan_viz.figures.maps import heads, model, subjects
from tssan_viz.figures.matrices import confusion, similarity
from tssan_viz.figures.rollout import rollout
from tssan_viz.figures.style import (
    FORMATS,
    VENUES,
    PaperFigure,
    save_figure,
    save_with_numbers,
    writable_figure,
)

__all__ = [
    "FORMATS",
    "VENUES",
    "Figure5Data",
    "PaperFigure",
    "Video",
    "confusion",
    "decoding",
    "difference",
    "evolution",
    "figure1",
    "figure5",
    "figure5_data",
    "filmstrip",
    "heads",
    "model",
    "rollout",
    "save_figure",
    "save_with_numbers",
    "similarity",
    "subjects",
    "writable_figure",
]
