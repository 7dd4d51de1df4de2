"""The table of a comparison for LaTeX, with booktabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tssan_viz.comparison.words import decimals, format_p
from tssan_viz.latex import escaped

if TYPE_CHECKING:
    from tssan_viz.comparison.comparison import Comparison

# Lines that go on one page, with the caption.
_LINES = 48

_BEYOND = (
    "% Some characters are beyond LaTeX's standard fonts: pdflatex prints the nearest Latin letter "
    "or ?;\n% XeLaTeX and LuaLaTeX print them as they are, with a font that has them (for Chinese: "
    r"\usepackage{xeCJK}, \usepackage{luatexja})."
)


def latex_table(comparison: Comparison) -> str:
    r"""Return a ``table`` that needs ``\usepackage{booktabs,graphicx}`` and nothing else.

    Lines with p max-T at or below alpha are bold; the caption has the summary. A table that is
    wider than the column is scaled to it. One with too many lines for a page is continued in
    further ones, under the same number.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare`.
    """
    columns = _columns(comparison)
    found = (comparison.table["p_max_t"] <= comparison.alpha).tolist()
    lines = [
        " & ".join(rf"\boldmath\textbf{{{cell}}}" if bold else cell for cell in cells) + r" \\"
        for bold, cells in zip(found, zip(*columns.values(), strict=True), strict=True)
    ]
    title = escaped(comparison.title)
    # The first goes into a list of tables.
    caption = rf"[{{{title}}}]{{{title}. {escaped(' '.join(comparison.summary))}}}"
    made = ["% needs \\usepackage{booktabs,graphicx}; table* gives it the width of two columns"]
    if r"\ifdefined" in caption:
        made.append(_BEYOND)
    # The pieces are equally long.
    pieces = -(-len(lines) // _LINES)
    size = -(-len(lines) // pieces)
    for start in range(0, len(lines), size):
        made += _table(list(columns), lines[start : start + size], caption)
        caption = ""
    return "\n".join([*made, ""])


def _table(heads: Sequence[str], lines: Sequence[str], caption: str) -> Iterator[str]:
    """Write one ``table``; without a caption it continues the one before."""
    yield r"\begin{table}"
    yield r"  \centering"
    if caption:
        yield rf"  \caption{caption}"
    else:
        yield r"  \addtocounter{table}{-1}"
        yield r"  \caption[(continued)]{(continued)}"
    # The standard classes leave no room below a caption, as it stands below a figure there.
    yield r"  \vspace{0.7ex}"
    yield r"  \footnotesize"
    yield r"  \setlength{\tabcolsep}{3pt}"
    yield r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"  \begin{{tabular}}{{{'r' * len(heads)}}}"
    yield r"    \toprule"
    yield "    " + " & ".join(heads) + r" \\"
    yield r"    \midrule"
    yield from (f"    {line}" for line in lines)
    yield r"    \bottomrule"
    yield r"  \end{tabular}}"
    yield r"\end{table}"


def _columns(comparison: Comparison) -> dict[str, list[str]]:
    """Return the cells of each column, by its heading."""
    table = comparison.table
    digits = decimals(table["delta"])

    def numbers(name: str, sign: str = "", places: int = digits) -> list[str]:
        return [_number(value, sign, places) for value in table[name]]

    def ps(name: str) -> list[str]:
        return [escaped(format_p(value)) for value in table[name]]

    columns = {"layer": [str(n) for n in table["layer"]], "head": [str(n) for n in table["head"]]}
    if "other_head" in table:
        columns["with"] = [str(n) for n in table["other_head"]]
    columns |= {"$W$": numbers("W"), "$B$": numbers("B"), r"$\Delta$": numbers("delta", "+")}
    if table["low"].notna().any():
        ends = zip(table["low"], numbers("low", "+"), numbers("high", "+"), strict=True)
        columns[rf"{100 * (1 - comparison.alpha):g}\% interval"] = [
            "---" if value != value else f"[{low}, {high}]" for value, low, high in ends
        ]
    columns["$g$"] = numbers("hedges_g", places=2)
    if comparison.tested:
        columns |= {"$p$": ps("p"), r"$p_{\max T}$": ps("p_max_t"), "$q$": ps("q")}
    if "delta_aligned" in table:
        columns[r"$\Delta$ aligned"] = numbers("delta_aligned", "+")
        if comparison.tested:
            columns[r"$p_{\max T}$ aligned"] = ps("p_max_t_aligned")
    return columns


def _number(value: float, sign: str = "", digits: int = 3) -> str:
    if value != value:
        return "---"
    return f"${value:{sign}.{digits}f}$"
