"""One attention module's call: the word that recorder and store share. Imports next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

from tssan_viz.errors import UserError

KINDS = ("softmax", "signed", "adjacency")


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

    def __post_init__(self) -> None:
        for size in ("layer", "heads", "query", "key"):
            if getattr(self, size) < 1:
                raise UserError(
                    f"site {self.name!r}: {size} is {getattr(self, size)}, it is at least 1"
                )
        if self.kind not in KINDS:
            raise UserError(f"site {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
