"""What every figure shares: fonts, colours, and how it becomes a file."""

from __future__ import annotations

import difflib
import io
import os
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter

from tssan_viz.errors import UserError
from tssan_viz.latex import escaped

MILLIMETRE = 1 / 25.4

VENUES = {
    "cvpr": (3.25, 6.875),
    "ieee": (3.5, 7.16),
    "elsevier": (90 * MILLIMETRE, 190 * MILLIMETRE),
    "springer": (84 * MILLIMETRE, 174 * MILLIMETRE),
    "neurips": (5.5, 5.5),
}
"""Inches of one column and of both.

CVPR and NeurIPS: columns and text of their LaTeX styles. IEEE: "Size requirements for graphics" of
its author centre. Elsevier: its artwork sizing. Springer: its instructions for authors, where
figures of large journals are 84 or 174 mm wide.
"""

_NO_VENUE = (3.4, 7.0)

FORMATS = ("pdf", "svg", "png", "pgf")
PNG_DPI = 300

# Fonts with the scripts that class names are written in, as far as they are installed.
_FURTHER = [
    name
    for name in (
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "Noto Sans CJK KR",
        "Source Han Sans SC",
        "WenQuanYi Zen Hei",
        "PingFang SC",
        "Microsoft YaHei",
        "Malgun Gothic",
        "Arial Unicode MS",
    )
    if name in set(font_manager.get_font_names())
]

# Type 3 fonts, matplotlib's default, are refused by most publishers; text in an SVG stays text.
# A fixed salt gives the same names inside an SVG every time.
RC: Any = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "tssan-viz",
    # Class names are names, also those with dollar signs in them.
    "text.parse_math": False,
    # Where a letter is in none of the first, the next is asked, so that names in any script show.
    "font.family": ["DejaVu Sans", *_FURTHER],
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


def paper_width(venue: str | None, columns: int) -> float:
    """Return the width of a figure, in inches.

    Raises
    ------
    UserError
        There is no such venue, or it has another number of columns.
    """
    if venue is not None and venue.lower() not in VENUES:
        near = difflib.get_close_matches(venue.lower(), VENUES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VENUES)}"
        raise UserError(f"there is no venue {venue!r}; {hint}")
    if columns not in (1, 2):
        raise UserError(f"columns is {columns}; a figure is 1 or 2 columns wide")
    return (_NO_VENUE if venue is None else VENUES[venue.lower()])[columns - 1]


class PaperFigure(Figure):
    """A figure that is saved with embedded TrueType fonts, and the same bytes every time.

    Attributes
    ----------
    caption : str
        What a caption has to say: what is shown, of how many videos and subjects, how it was
        tested.
    table : DataFrame
        The numbers behind it.
    notes : tuple of str
        What was decided without being asked.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.caption = ""
        self.table = pd.DataFrame()
        self.notes: tuple[str, ...] = ()

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save as matplotlib does, without a date in the file."""
        kind = kwargs.get("format")
        if kind is None and isinstance(fname, str | os.PathLike):
            kind = Path(fname).suffix[1:].lower()
        undated: dict[str, dict[str, Any]] = {
            "pdf": {"CreationDate": None},
            "svg": {"Date": None},
        }
        # PGF has none, and refuses to be told so.
        metadata = {**undated.get(kind or "", {}), **(kwargs.pop("metadata", None) or {})}
        if metadata:
            kwargs["metadata"] = metadata
        with matplotlib.rc_context(RC), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            super().savefig(fname, **kwargs)
        self._say(said)

    @staticmethod
    def _say(said: list[warnings.WarningMessage]) -> None:
        """Say once which characters no font has, and pass other warnings on."""
        missing = []
        for one in said:
            found = re.match(r"Glyph (\d+) .*missing from", str(one.message))
            if found:
                missing.append(chr(int(found[1])))
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        if missing:
            warnings.warn(
                f"no font on this machine has the characters {''.join(dict.fromkeys(missing))}, "
                "which are drawn as boxes; install one that has (Debian: fonts-noto-cjk), or save "
                "as .svg, which keeps them as text",
                stacklevel=3,
            )

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
        The ending is none of .pdf, .svg, .png and .pgf, or there is no such folder.
    """
    target = Path(path).expanduser()
    if target.suffix[1:].lower() not in FORMATS:
        given = f"{target.suffix!r}" if target.suffix else "no ending"
        raise UserError(
            f"{target}: a figure is saved as .pdf, .svg or .png (or .pgf), by the ending of its "
            f"name; this has {given}"
        )
    if not target.parent.is_dir():
        raise UserError(f"{target}: there is no folder {target.parent}")
    return target


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure as PDF, SVG, PNG (300 dots per inch) or PGF, by the ending of the name.

    Parameters
    ----------
    figure
        What `tssan_viz.figures.figure5` returned.
    path
        Where to. An older file is replaced only when the new one is complete. The maps of a .pgf
        lie beside it as .png files, which LaTeX needs as well.

    Raises
    ------
    UserError
        The ending is another, the folder is not there or cannot be written.
    """
    target = writable_figure(path)
    kind = target.suffix[1:].lower()
    if kind == "pgf":
        _write_pgf(figure, target)
        return target
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=PNG_DPI)
    _replace(target, buffer.getvalue())
    return target


def save_with_numbers(
    figure: PaperFigure, path: str | os.PathLike[str], csv: str | os.PathLike[str] | None = None
) -> tuple[Path, Path, Path]:
    """Save a figure, its caption as .txt and its numbers as .csv beside it.

    Parameters
    ----------
    figure
        What a function of `tssan_viz.figures` returned.
    path
        Where the figure goes.
    csv
        Where the numbers go; default: the figure's name with the ending .csv.

    Returns
    -------
    figure, caption, numbers : Path

    Raises
    ------
    UserError
        As `save_figure`.
    """
    target = writable_figure(path)
    words = target.with_suffix(".txt")
    numbers = Path(csv).expanduser() if csv is not None else target.with_suffix(".csv")
    if not numbers.parent.is_dir():
        raise UserError(f"{numbers}: there is no folder {numbers.parent}")
    save_figure(figure, target)
    _replace(words, (figure.caption + "\n").encode())
    _replace(numbers, figure.table.to_csv(index=False, lineterminator="\n").encode())
    return target, words, numbers


def _replace(target: Path, content: bytes) -> None:
    beside = target.with_name(target.name + ".part")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        with suppress(OSError):  # a read-only folder says no even where nothing is there
            beside.unlink()
        raise UserError(f"{target} cannot be written: {error.strerror}") from error


def latex_escaped(text: str) -> str:
    """Return text that LaTeX prints as it is, line by line."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _escaped_label(label: Formatter, value: float, position: int | None) -> str:
    return latex_escaped(label(value, position))


def _write_pgf(figure: Figure, target: Path) -> None:
    """Write the figure as PGF, in which all text is text and none of it markup.

    Maps lie beside it as pictures of one pixel per cell, ``<name>-img0.png`` and so on: as shapes,
    those of one page exceed the memory of pdflatex.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    before = [text.get_text() for text in texts]
    # Labels of ticks are written anew at each draw.
    named = [
        (axis, axis.get_major_formatter())
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)
    ]
    engine = next((name for name in ("xelatex", "lualatex", "pdflatex") if shutil.which(name)), "")
    if not engine:
        raise UserError(
            "a .pgf needs LaTeX on this machine, which measures the text: none of xelatex, "
            "lualatex and pdflatex was found (Debian: texlive-xetex). A .pdf needs nothing"
        )
    if refused := sorted(set(target.stem) & set("%#{}\\~$&^")):
        raise UserError(
            f"{target}: LaTeX finds no picture whose name holds {refused[0]!r}; choose another name"
        )
    try:
        for text, words in zip(texts, before, strict=True):
            text.set_text(latex_escaped(words))
        for axis, label in named:
            axis.set_major_formatter(FuncFormatter(partial(_escaped_label, label)))
        with (
            matplotlib.rc_context({"pgf.texsystem": engine, "pgf.rcfonts": False}),
            # Pictures are named after the file that they are written for.
            tempfile.TemporaryDirectory() as folder,
        ):
            written = Path(folder) / target.name
            figure.savefig(written, format="pgf")
            for picture in sorted(Path(folder).glob("*.png")):
                _replace(target.with_name(picture.name), picture.read_bytes())
            _replace(target, written.read_bytes())
    finally:
        for axis, label in named:
            axis.set_major_formatter(label)
        for text, words in zip(texts, before, strict=True):
            text.set_text(words)
