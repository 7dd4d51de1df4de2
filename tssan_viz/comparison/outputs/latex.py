"""The table of a comparison for LaTeX, with booktabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tssan_viz.comparison.words import decimals, format_p

if TYPE_CHECKING:
    from tssan_viz.comparison.comparison import Comparison

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "“": "``",
    "”": "''",
    "Δ": r"$\Delta$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
}


def escaped(text: str) -> str:
    """Return text as LaTeX prints it, whatever characters are in it."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex_table(comparison: Comparison) -> str:
    r"""Return a ``table`` that needs ``\usepackage{booktabs}`` and nothing else.

    Lines with p max-T at or below alpha are bold; the caption has the summary.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare`.
    """
    table = comparison.table
    intervals = table["low"].notna().any()
    heads = ["layer", "head", "$W$", "$B$", r"$\Delta$"]
    if intervals:
        heads.append(f"{1 - comparison.alpha:.0%} interval".replace("%", r"\%"))
    heads.append("$g$")
    if comparison.tested:
        heads += ["$p$", r"$p_{\max T}$", "$q$"]
    digits = decimals(table["delta"])
    lines = []
    for line in table.to_dict(orient="records"):
        cells = [
            f"{line['layer']}",
            f"{line['head']}",
            _number(line["W"], digits=digits),
            _number(line["B"], digits=digits),
            _number(line["delta"], "+", digits),
        ]
        if intervals:
            missing = line["low"] != line["low"]
            pair = f"{_number(line['low'], '+', digits)}, {_number(line['high'], '+', digits)}"
            cells.append("---" if missing else f"[{pair}]")
        cells.append(_number(line["hedges_g"], digits=2))
        if comparison.tested:
            cells += [escaped(format_p(line[name])) for name in ("p", "p_max_t", "q")]
        if line["p_max_t"] <= comparison.alpha:
            cells = [rf"\boldmath\textbf{{{cell}}}" for cell in cells]
        lines.append(" & ".join(f"{{{cell}}}" for cell in cells) + r" \\")
    caption = escaped(" ".join([f"{comparison.title}.", *comparison.summary]))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{{'r' * len(heads)}}}",
            r"    \toprule",
            "    " + " & ".join(heads) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _number(value: float, sign: str = "", digits: int = 3) -> str:
    if value != value:
        return "---"
    return f"${value:{sign}.{digits}f}$"
