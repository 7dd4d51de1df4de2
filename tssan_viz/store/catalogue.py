"""What a store knows of the data: class names, codes, aliases, and the skeleton to draw."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Integral

from tssan_viz.errors import UserError


class UnknownClass(UserError):
    """No class, or more than one, goes by the name that was given.

    Attributes
    ----------
    suggestions : tuple of str
        Names of classes that may have been meant, nearest first.
    """

    def __init__(self, message: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


@dataclass(frozen=True)
class ClassEntry:
    """An action class: `label` counts from 0, `code` is the data set's own (A014)."""

    label: int
    name: str
    code: str | None = None
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" if self.code else self.name


@dataclass(frozen=True)
class SkeletonInfo:
    """What drawing a skeleton takes.

    Parameters
    ----------
    name
        The topology's name.
    joints
        Names of the joints, in the order of the coordinates.
    bones
        Pairs of joint indices.
    sides
        For each joint ``left``, ``right`` or ``centre``.
    units
        ``m`` or ``image``.
    head_joint
        The joint at which a head is drawn.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    sides: tuple[str, ...]
    units: str
    head_joint: int | None = None


def _squeeze(text: str) -> str:
    """Return the letters and digits of a name, without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in plain if character.isalnum())


def _as_code(squeezed: str) -> str:
    """Return a code without leading zeros, so that A014, a14 and A-14 are the same."""
    return re.sub(r"^([a-z]+)0+(?=\d)", r"\1", squeezed)


def _words(text: str) -> set[str]:
    """Return the words of a name that are long enough to say something."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2}


@dataclass(frozen=True)
class Catalogue:
    """The classes of a run's data set and its skeleton.

    Parameters
    ----------
    dataset
        The data set's name.
    classes
        Its classes.
    skeleton
        What drawing takes; None where nothing can be drawn.
    fps
        Frames per second of the source; None where unknown.
    """

    dataset: str
    classes: tuple[ClassEntry, ...]
    skeleton: SkeletonInfo | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        seen: set[int] = set()
        for entry in self.classes:
            if entry.label in seen:
                raise UserError(
                    f"catalogue of {self.dataset!r}: label {entry.label} is given to two classes"
                )
            seen.add(entry.label)

    @cached_property
    def by_label(self) -> dict[int, ClassEntry]:
        """The classes by label."""
        return {entry.label: entry for entry in self.classes}

    def name_of(self, label: int | None) -> str | None:
        """Return the name of a label's class; None for no label, the digits for an unknown one."""
        if label is None:
            return None
        entry = self.by_label.get(int(label))
        return entry.name if entry else str(label)

    def resolve(self, query: str | int) -> ClassEntry:
        """Return the class that goes by a name, an alias, a code or a label.

        Case, punctuation, spaces and accents do not count ("Put-on Jacket"), nor do leading zeros
        of a code ("a14" is A014). Names go before aliases, those before codes; digits are a label.

        Raises
        ------
        UnknownClass
            None, or more than one, goes by it; `suggestions` holds the nearest names.
        """
        if isinstance(query, bool) or not isinstance(query, str | Integral):
            raise UnknownClass(
                f"a class is given by its name, code, alias or label, not by {query!r}"
            )
        if isinstance(query, Integral):
            return self._by_label(int(query))
        text = query.strip()
        exact = [entry for entry in self.classes if entry.name == text]
        if len(exact) == 1:
            return exact[0]
        wanted = _squeeze(text)
        names, aliases, codes = self._spellings
        for found in (names.get(wanted), aliases.get(wanted), codes.get(_as_code(wanted))):
            if found is None:
                continue
            if len(found) == 1:
                return found[0]
            raise UnknownClass(
                f"{query!r} may be {' or '.join(repr(str(entry)) for entry in found)}; "
                f"say which by its label ({' or '.join(str(entry.label) for entry in found)})",
                tuple(entry.name for entry in found),
            )
        if re.fullmatch(r"\d+", text):
            return self._by_label(int(text))
        raise self._unknown(query)

    @cached_property
    def _spellings(self) -> tuple[dict[str, list[ClassEntry]], ...]:
        """The classes by squeezed name, by squeezed alias and by code."""
        names: dict[str, list[ClassEntry]] = {}
        aliases: dict[str, list[ClassEntry]] = {}
        codes: dict[str, list[ClassEntry]] = {}
        for entry in self.classes:
            names.setdefault(_squeeze(entry.name), []).append(entry)
            for alias in sorted({_squeeze(alias) for alias in entry.aliases}):
                aliases.setdefault(alias, []).append(entry)
            if entry.code:
                codes.setdefault(_as_code(_squeeze(entry.code)), []).append(entry)
        for spellings in (names, aliases, codes):
            spellings.pop("", None)
        return names, aliases, codes

    def _by_label(self, label: int) -> ClassEntry:
        if label not in self.by_label:
            labels = sorted(self.by_label)
            there = f"labels {labels[0]} to {labels[-1]}" if labels else "no classes"
            raise UnknownClass(f"{self.dataset} has no class with label {label}; it has {there}")
        return self.by_label[label]

    def _unknown(self, query: str) -> UnknownClass:
        spellings: dict[str, ClassEntry] = {}
        for entry in self.classes:
            for spelling in (entry.name, *entry.aliases, entry.code or ""):
                spellings.setdefault(_squeeze(spelling), entry)
        near = difflib.get_close_matches(_squeeze(query), spellings, n=5, cutoff=0.6)
        words = _words(query)
        shared = {entry: len(words & _words(entry.name)) for entry in self.classes}
        sharing = sorted((e for e in shared if shared[e]), key=lambda e: -shared[e])
        found = [*(spellings[spelling] for spelling in near), *sharing]
        suggestions = tuple(dict.fromkeys(entry.name for entry in found))[:3]
        if suggestions:
            advice = f"; nearest: {', '.join(map(repr, suggestions))}"
        elif self.classes:
            some = ", ".join(repr(entry.name) for entry in self.classes[:5])
            advice = f"; its {len(self.classes)} classes begin with {some}"
        else:
            advice = "; the run was recorded without class names"
        return UnknownClass(f"{self.dataset} has no class {query!r}{advice}", suggestions)

    def to_json(self) -> str:
        """Return the catalogue as it is stored."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Catalogue:
        """Return the catalogue that `to_json` wrote."""
        raw = json.loads(text)
        skeleton = raw["skeleton"]
        return cls(
            dataset=raw["dataset"],
            classes=tuple(
                ClassEntry(c["label"], c["name"], c["code"], tuple(c["aliases"]))
                for c in raw["classes"]
            ),
            skeleton=None
            if skeleton is None
            else SkeletonInfo(
                name=skeleton["name"],
                joints=tuple(skeleton["joints"]),
                bones=tuple((int(a), int(b)) for a, b in skeleton["bones"]),
                sides=tuple(skeleton["sides"]),
                units=skeleton["units"],
                head_joint=skeleton["head_joint"],
            ),
            fps=raw["fps"],
        )
