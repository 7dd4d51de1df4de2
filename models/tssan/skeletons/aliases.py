"""What else people call an action: other words for the same, where only one class can be meant."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

# Each line says one thing; its words stand at the beginning of a name, what it is done to follows.
SYNONYMS = (
    ("put on", "wear", "don", "wear on", "putting on", "wearing"),
    ("take off", "remove", "doff", "taking off", "removing"),
    ("pick up", "pickup", "picking up"),
    ("shake", "shaking"),
)

# Verbs whose -ing form does not follow from the rules of spelling in `_infinitive`.
_IRREGULAR = {
    "arranging": "arrange",
    "changing": "change",
    "dying": "dye",
    "exchanging": "exchange",
    "headbutting": "headbutt",
    "paragliding": "paraglide",
    "pasting": "paste",
    "slacklining": "slackline",
    "saluting": "salute",
    "snowkiting": "snowkite",
    "snowmobiling": "snowmobile",
    "tasting": "taste",
    "tying": "tie",
}
_NO_VERBS = frozenset(("finger-guessing", "handshaking", "swing"))


def squeeze(name: str) -> str:
    """Return the letters and digits of a name, without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in plain if character.isalnum())


def other_names(names: Sequence[str], known: Mapping[int, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return for each class of a data set what else it may be called.

    Parameters
    ----------
    names
        The classes.
    known
        By position: other names that no rule would find. They are kept as they are.

    Returns
    -------
    list of tuple of str
        Those that are known, then what the rules make of them and of the name: without what stands
        in parentheses, without articles, with the infinitive, with `SYNONYMS`. A name that two
        classes could go by, or that one of them has already, is left out.
    """
    taken = {squeeze(name) for name in names}
    taken |= {squeeze(alias) for aliases in known.values() for alias in aliases}
    made = []
    for position, name in enumerate(names):
        sources = [name, *known.get(position, ())]
        made.append(list(dict.fromkeys(way for source in sources for way in _ways(source))))
    users = Counter(spelling for ways in made for spelling in {squeeze(way) for way in ways})
    result = []
    for position, ways in enumerate(made):
        kept = {squeeze(alias): alias for alias in known.get(position, ())}
        for way in ways:
            spelling = squeeze(way)
            if spelling and spelling not in taken and users[spelling] == 1:
                kept.setdefault(spelling, way)
        result.append(tuple(kept.values()))
    return result


def _ways(name: str) -> list[str]:
    """Return other ways to write a name, the name itself among them."""
    ways = [name]
    for change in (_without_parentheses, _synonyms, _infinitives, _articles):
        ways = list(dict.fromkeys(itertools.chain.from_iterable(map(change, ways))))
    return ways


def _without_parentheses(name: str) -> list[str]:
    plain = " ".join(re.sub(r"\([^)]*\)", " ", name).split())
    return [name, plain] if plain else [name]


def _synonyms(name: str) -> list[str]:
    ways = [name]
    lower = name.casefold()
    for group in SYNONYMS:
        for words in sorted(group, key=len, reverse=True):
            if lower.startswith(words + " "):
                ways += [other + name[len(words) :] for other in group]
                break
    return ways


def _infinitives(name: str) -> list[str]:
    first, space, rest = name.partition(" ")
    other = _infinitive(first.casefold())
    return [name, other + space + rest] if other else [name]


def _infinitive(word: str) -> str | None:
    """Return read for reading, make for making, sit for sitting; None if it is no such form."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    stem = word.removesuffix("ing")
    if stem == word or word in _NO_VERBS or not re.search("[aeiouy]", stem):
        return None
    if re.search(r"([bdgmnprt])\1$", stem):  # sitting; but not rolling, passing
        return stem[:-1]
    if re.search(r"[cuvz]$|[^n]g$|[aeiou]s$|[bcdfgkptz]l$|.[^aeiou]at$|rat$", stem):
        return stem + "e"  # dancing, using, driving, massaging, exercising, juggling, decorating
    one_syllable = len(re.findall("[aeiouy]+", stem)) == 1
    if one_syllable and re.search(r"(^|[^aeiou])[aeiouy][bdfgklmnprst]$", stem):  # making, riding
        return stem + "e"
    return stem


def _articles(name: str) -> list[str]:
    without = re.sub(r"(?<=\w) (a|an|the) (?=\w)", " ", name)
    return [name, without]
