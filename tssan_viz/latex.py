"""Text that LaTeX prints as it is."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

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
    "|": r"\textbar{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "▸": r"$\triangleright$",
    "°": r"$^{\circ}$",
    "Δ": r"$\Delta$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
}


# Letters of Latin-1 and Latin Extended-A that LaTeX's standard fonts have no accent or sign for.
_NO_SIGN = set("ÐðÞþĄąĐđĘęĮįĸŊŋŲųſŉ×÷")


def escaped(text: str) -> str:
    r"""Return text as LaTeX prints it, whatever characters are in it.

    Characters that pdflatex has no sign for would stop it; it skips them, and prints the nearest
    Latin letter or ``?``, where XeLaTeX and LuaLaTeX print what is there.

    Parameters
    ----------
    text
        Line breaks become spaces.

    Returns
    -------
    str
    """
    parts = []
    # A hyphen before a number is its sign.
    words = re.sub(r"(?<!\S)-(?=\d)", "−", " ".join(text.split()))
    for printable, characters in groupby(words, _everywhere):
        if printable:
            parts += [_SPECIAL.get(character, character) for character in characters]
        else:
            beyond = "".join(characters)
            parts.append(rf"{{\ifdefined\Umathcode {beyond}\else {_nearest(beyond)}\fi}}")
    return "".join(parts)


def _everywhere(character: str) -> bool:
    """Whether every LaTeX prints the character, as it is or by a command."""
    if character in _SPECIAL or " " <= character <= "~":
        return True
    return "À" <= character <= "ž" and character not in _NO_SIGN


def _nearest(text: str) -> str:
    found = ""
    for character in text:
        parts = unicodedata.normalize("NFKD", character).replace("⁄", "/")
        plain = parts.encode("ascii", "ignore").decode()
        found += "".join(_SPECIAL.get(letter, letter) for letter in plain) or "?"
    return found
