"""Free conditions of a person far away, as SQL that holds nothing but columns and literals.

The grammar, in which words may be written in either case::

    condition   = conjunction {OR conjunction}
    conjunction = negation {AND negation}
    negation    = NOT negation | "(" condition ")" | test
    test        = column comparison literal
                | column [NOT] IN "(" literal {"," literal} ")"
                | column [NOT] BETWEEN literal AND literal
                | column IS [NOT] NULL
                | column

What is returned is written anew from what was understood: columns that the rows have, in quotes,
and literals. No function, subquery, comment or further statement can be said in it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from tssan_viz.errors import UserError

# Longer or deeper ones are not written by hand.
_LONGEST, _DEEPEST = 1000, 30

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)
      | (?P<text>'(?:[^'\0]|'')*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*|"[A-Za-z_][A-Za-z0-9_]*")
      | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.ASCII,
)
_COMPARISONS = {
    "=": "=",
    "==": "=",
    "!=": "<>",
    "<>": "<>",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_WORDS = ("and", "or", "not", "in", "is", "null", "between", "true", "false")


def checked(text: str, columns: Collection[str]) -> str:
    """Return a condition as SQL that is safe to ask, meaning what `text` means.

    Parameters
    ----------
    text
        What somebody wrote, for instance ``confidence > 0.9 and camera in (1, 2)``.
    columns
        The names of the columns there are.

    Raises
    ------
    UserError
        It is no condition of this grammar, or names a column that there is not.
    """
    if len(text) > _LONGEST:
        raise UserError(f"a condition has at most {_LONGEST} characters; this has {len(text)}")
    reading = _Reading(text, _tokens(text), columns)
    found = reading.condition(0)
    if reading.now.kind != "end":
        raise reading.expected("AND, OR or the end")
    return found


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int

    def says(self, *words: str) -> bool:
        return self.kind in ("word", "sign") and self.text in words


def _tokens(text: str) -> list[_Token]:
    found = []
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            advice = "a text stands in single quotes, like 'test'" if rest[0] in "'\"" else ""
            raise UserError(
                f"the condition cannot be read at {rest[:12]!r}"
                + (
                    f": {advice}"
                    if advice
                    else ": it takes columns, numbers, 'texts', comparisons, "
                    "AND, OR, NOT, IN, BETWEEN and IS NULL"
                )
            )
        kind = str(match.lastgroup)
        token = match[kind]
        start = match.start(kind)
        if kind == "name" and token.lower() in _WORDS:
            kind, token = "word", token.lower()
        found.append(_Token(kind, token, start))
        place = match.end()
    return [*found, _Token("end", "", len(text))]


class _Reading:
    """A condition that is read from left to right."""

    def __init__(self, text: str, tokens: list[_Token], columns: Collection[str]) -> None:
        self._text = text
        self._tokens = tokens
        self._columns = {name.lower(): name for name in columns}
        self._at = 0

    @property
    def now(self) -> _Token:
        return self._tokens[self._at]

    def expected(self, what: str) -> UserError:
        token = self.now
        seen = "the end" if token.kind == "end" else repr(self._text[token.place :][:12])
        return UserError(f"the condition needs {what} where {seen} stands")

    def _takes(self, *words: str) -> str | None:
        """Go past one of these words or signs, if it stands here."""
        if not self.now.says(*words):
            return None
        self._at += 1
        return self._tokens[self._at - 1].text

    def _needs(self, word: str) -> None:
        if self._takes(word) is None:
            raise self.expected(word.upper())

    def condition(self, depth: int) -> str:
        parts = [self._conjunction(depth)]
        while self._takes("or"):
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _conjunction(self, depth: int) -> str:
        parts = [self._negation(depth)]
        while self._takes("and"):
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def _negation(self, depth: int) -> str:
        if depth > _DEEPEST:
            raise UserError(f"a condition is at most {_DEEPEST} levels deep")
        if self._takes("not"):
            return f"(NOT {self._negation(depth + 1)})"
        if self._takes("("):
            inner = self.condition(depth + 1)
            self._needs(")")
            return inner
        return self._test()

    def _test(self) -> str:
        column = self._column()
        sign = self._takes(*_COMPARISONS)
        if sign is not None:
            return f"({column} {_COMPARISONS[sign]} {self._literal()})"
        if self._takes("is"):
            negated = "NOT " if self._takes("not") else ""
            self._needs("null")
            return f"({column} IS {negated}NULL)"
        negated = "NOT " if self._takes("not") else ""
        if self._takes("in"):
            self._needs("(")
            values = [self._literal()]
            while self._takes(","):
                values.append(self._literal())
            self._needs(")")
            return f"({column} {negated}IN ({', '.join(values)}))"
        if self._takes("between"):
            low = self._literal()
            self._needs("and")
            return f"({column} {negated}BETWEEN {low} AND {self._literal()})"
        if negated:
            raise self.expected("IN or BETWEEN")
        return column

    def _column(self) -> str:
        if self.now.kind != "name":
            raise self.expected("a column")
        name = self.now.text.strip('"')
        if name.lower() not in self._columns:
            near = difflib.get_close_matches(name.lower(), self._columns, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"there is no column {name!r}: {hint}"
                f"columns are {', '.join(self._columns.values())}"
            )
        self._at += 1
        return f'"{self._columns[name.lower()]}"'

    def _literal(self) -> str:
        token = self.now
        if token.kind not in ("number", "text") and not token.says("true", "false"):
            raise self.expected("a number, a 'text', TRUE or FALSE")
        self._at += 1
        return token.text.upper() if token.kind == "word" else token.text
