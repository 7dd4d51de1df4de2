"""The words that recorder and store share: what a site is, what is known of a sample.

Imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tssan_viz.errors import UserError

KINDS = ("softmax", "signed", "adjacency")

# What a data set may know of a sample beside its name, in the order in which tables show it.
SAMPLE_COLUMNS = (
    "label",
    "class_name",
    "class_code",
    "subject",
    "camera",
    "setup",
    "replication",
)


@dataclass(frozen=True)
class Site:
    """One attention module's call.

    Parameters
    ----------
    name
        The module's name in the network, for instance ``blocks.0.attend``.
    layer
        Counted from 1 within its stream.
    heads, query, key
        The sizes of its maps ``(h, q, s)``.
    numbers
        Which heads of the module these are, counted from 1, in the order of the maps; all of them
        when nothing is said.
    stream
        ``main``, ``position``, ``motion``, ``encoder``, ``decoder`` or ``cross``.
    kind
        ``softmax`` (rows are probabilities), ``signed`` or ``adjacency``.
    provenance
        How the values were had.
    """

    name: str
    layer: int
    heads: int
    query: int
    key: int
    stream: str = "main"
    kind: str = "softmax"
    provenance: str = "recomputed from q and k"
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for size in ("layer", "heads", "query", "key"):
            if getattr(self, size) < 1:
                raise UserError(
                    f"site {self.name!r}: {size} is {getattr(self, size)}, it is at least 1"
                )
        if self.kind not in KINDS:
            raise UserError(f"site {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        numbers = tuple(self.numbers) or tuple(range(1, self.heads + 1))
        if len(numbers) != self.heads or len(set(numbers)) < len(numbers) or min(numbers) < 1:
            raise UserError(
                f"site {self.name!r}: the numbers of {self.heads} heads are given as {numbers}; "
                "they would be as many, from 1 and each once"
            )
        object.__setattr__(self, "numbers", numbers)


def counted_heads(numbers: Sequence[int]) -> str:
    """Say how many heads a site holds, or which, where those of the module are not all."""
    if list(numbers) == list(range(1, len(numbers) + 1)):
        return f"{len(numbers)} head{'s' * (len(numbers) > 1)}"
    return f"head{'s' * (len(numbers) > 1)} {ranges(numbers)}"


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as a person writes them: 1–4, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)
