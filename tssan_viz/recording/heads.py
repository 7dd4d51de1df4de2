"""Which heads of which sites are recorded."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

from tssan_viz.recording.announcements import some
from tssan_viz.recording.errors import RecordingError

Heads = Sequence[int] | Mapping[str, Sequence[int]]


class ChosenHeads:
    """Heads, counted from 1, for all sites or by patterns of their names.

    Parameters
    ----------
    asked
        As given to `tssan_viz.record`; None for all heads of all sites.
    names
        Of the sites that are watched.
    """

    def __init__(self, asked: Heads | None, names: Sequence[str]) -> None:
        self._by_pattern: dict[str, tuple[int, ...]] = {}
        if asked is None:
            return
        by_pattern = asked if isinstance(asked, Mapping) else {"*": asked}
        for pattern, heads in by_pattern.items():
            chosen = tuple(heads) if isinstance(heads, Iterable) else ()
            whole = bool(chosen) and all(isinstance(head, Integral) and head > 0 for head in chosen)
            if not whole or len(set(chosen)) < len(chosen):
                raise RecordingError(
                    f"heads= asks for {heads!r}; it would be a list of numbers from 1, each once"
                )
            if not fnmatch.filter(names, pattern):
                raise RecordingError(
                    f"heads= names {pattern!r}, and no site is called so; watched are "
                    f"{some(list(names))}"
                )
            self._by_pattern[pattern] = chosen

    def of(self, name: str) -> tuple[int, ...] | None:
        """Return which heads of a site are recorded; None for all."""
        for pattern, heads in self._by_pattern.items():
            if fnmatch.fnmatchcase(name, pattern):
                return heads
        return None
