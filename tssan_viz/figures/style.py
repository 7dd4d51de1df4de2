"""What every figure shares: fonts, colours, and how it becomes a file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tssan_viz.errors import UserError

WIDTH = 7.0
"""Width of a figure over both columns of a page, in inches."""

FORMATS = ("pdf", "svg", "png")
PNG_DPI = 300

# Type 3 fonts, matplotlib's default, are refused by most publishers; text in an SVG stays text.
# A fixed salt gives the same names inside an SVG every time.
RC: Any = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "tssan-viz",
    # Class names are names, also those with dollar signs in them.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
}

# The colours of Okabe and Ito (2008), which people with any colour vision tell apart; their yellow,
# too pale for a thin line on white paper, is replaced by Tol's wine.
HEAD_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#882255",
    "#000000",
)
SIDE_COLOURS = {"left": "#0072B2", "right": "#D55E00", "centre": "#333333"}
OTHER_PERSON = "#BBBBBB"
FAINT = "#767676"


class PaperFigure(Figure):
    """A figure that is saved with embedded TrueType fonts, and the same bytes every time."""

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save as matplotlib does, without a date in the file."""
        kind = kwargs.get("format")
        if kind is None and isinstance(fname, str | os.PathLike):
            kind = Path(fname).suffix[1:].lower()
        undated: dict[str, dict[str, Any]] = {
            "pdf": {"CreationDate": None},
            "svg": {"Date": None},
        }
        metadata = {**undated.get(kind or "", {}), **(kwargs.pop("metadata", None) or {})}
        with matplotlib.rc_context(RC):
            super().savefig(fname, metadata=metadata or None, **kwargs)

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook, also where nothing imported pyplot."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def writable_figure(path: str | os.PathLike[str]) -> Path:
    """Return where a figure can be written.

    Raises
    ------
    UserError
        The ending is none of .pdf, .svg and .png, or there is no such folder.
    """
    target = Path(path).expanduser()
    if target.suffix[1:].lower() not in FORMATS:
        given = f"{target.suffix!r}" if target.suffix else "no ending"
        raise UserError(
            f"{target}: a figure is saved as .pdf, .svg or .png, by the ending of its name; "
            f"this has {given}"
        )
    if not target.parent.is_dir():
        raise UserError(f"{target}: there is no folder {target.parent}")
    return target


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure as PDF, SVG or PNG (300 dots per inch), by the ending of the name.

    Parameters
    ----------
    figure
        What `tssan_viz.figures.figure5` returned.
    path
        Where to. An older file is replaced only when the new one is complete.

    Raises
    ------
    UserError
        The ending is another, the folder is not there or cannot be written.
    """
    target = writable_figure(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=target.suffix[1:].lower(), dpi=PNG_DPI)
    beside = target.with_name(target.name + ".part")
    try:
        beside.write_bytes(buffer.getvalue())
        beside.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    return target
