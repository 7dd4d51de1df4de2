"""What every answer of a comparison has, whatever was compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from tssan_viz.comparison.similarity import METRICS
from tssan_viz.comparison.words import counted, decimals, format_p

if TYPE_CHECKING:
    from tssan_viz.figures import PaperFigure
    from tssan_viz.selection import Selection


@dataclass(frozen=True)
class Accuracy:
    """How often the network was right on the videos of a comparison.

    Attributes
    ----------
    right, videos : int
    classes : int
        How many classes the run has, so that chance is one in so many.
    """

    right: int
    videos: int
    classes: int

    @classmethod
    def of(cls, selection: Selection) -> Accuracy | None:
        """Count the videos of a selection; None where no prediction was recorded."""
        videos = selection.rows().drop_duplicates("sample", keep="last")
        known = videos["correct"].dropna()
        if known.empty:
            return None
        classes = selection.store.rows(selection.run)["label"].nunique()
        return cls(int(known.sum()), len(known), max(int(classes), 1))

    @property
    def share(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.right / self.videos

    @property
    def at_chance(self) -> bool:
        """Whether guessing would do as well (one-sided binomial test at 0.05)."""
        chance = 1 / self.classes
        # P(at least so many right), as `scipy.stats.binomtest` has it.
        return bool(special.bdtrc(self.right - 1, self.videos, chance) > 0.05)

    def __str__(self) -> str:
        return f"the network is right on {self.share:.1%} of them"

    def note(self) -> list[str]:
        """Say it where there is something to be said."""
        if not self.at_chance:
            return []
        return [
            f"the network names {self.share:.0%} of these {self.videos} videos right, no more "
            f"than guessing among {self.classes} classes would: a comparison of what it attends "
            "to says little about the classes; train it first"
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(ABC):
    """What a comparison found; see `tssan_viz.compare`.

    Attributes
    ----------
    table : DataFrame
        One line per layer and head. `W`: mean similarity of two maps that have in common what is
        asked about, of two subjects; `B`: where they have not; `delta` = W − B; `hedges_g`;
        `low`, `high`: the jackknife interval of delta, NaN under six subjects; `p`: permutation p
        of this head alone, one-sided; `p_max_t`: corrected for all lines of the table; `q`: false
        discovery rate; `W_pairs`, `B_pairs`: the same means over all single pairs of videos. Of a
        distance (jsd, wasserstein, tv) W and B are distances and delta = B − W, so that more than
        0 says the same; `W_error`, `B_error`: the standard error that comes from drawing pairs.
    subjects : list of int
        They are the unit of every statement.
    n_exchanged : int
        Subjects within (or between) which labels could be exchanged.
    n_samples : int
        Videos that took part.
    accuracy : Accuracy or None
        Of the network on them.
    run, store, split, metric, person
        Where the maps come from and how they were compared. `split` is None where rows have none.
    layers, heads : tuple of int
        What was compared.
    n_permutations, n_assignments, enumerated, smallest_p, seed, alpha
        How it was tested: exchanges that were compared with the observed labels, how many there
        are in all, whether all were gone through, and the smallest p that this can give.
    reason : str or None
        Why there is no test; None when there is one.
    notes : list of str
        What was decided without being asked, and what was left out.
    aligned : Comparison or None
        The same of aligned maps, where that was asked for; its Δ, interval and p max-T stand in
        the table as `…_aligned`.
    """

    table: pd.DataFrame
    subjects: list[int]
    n_exchanged: int
    n_samples: int
    accuracy: Accuracy | None
    run: str
    store: str
    split: str | None
    metric: str
    person: int
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    n_permutations: int
    n_assignments: int
    enumerated: bool
    smallest_p: float
    seed: int
    alpha: float
    reason: str | None
    notes: list[str]
    aligned: Comparison | None = field(default=None, repr=False)
    _selection: Selection = field(repr=False)

    @property
    def tested(self) -> bool:
        """Whether there was anything to exchange, so that there are p-values."""
        return self.reason is None

    @property
    def significant(self) -> pd.DataFrame:
        """The lines of `table` with p max-T at or below alpha."""
        return self.table[self.table["p_max_t"] <= self.alpha]

    @property
    def strongest(self) -> pd.Series | None:
        """The line with the smallest p max-T, among equals with the largest Δ; None without Δ."""
        table = self.table.dropna(subset=["delta"])
        if table.empty:
            return None
        order = table.sort_values(["p_max_t", "delta"], ascending=[True, False], kind="stable")
        return order.iloc[0]

    @property
    def is_distance(self) -> bool:
        """Whether W and B are distances, so that Δ is B − W."""
        return self.metric not in METRICS

    @property
    def selection(self) -> Selection:
        """The rows that took part."""
        return self._selection

    @property
    @abstractmethod
    def title(self) -> str:
        """What is compared with what, as a heading."""

    @property
    @abstractmethod
    def exchange_words(self) -> tuple[str, str]:
        """What the test exchanges, and where: ("class means", "within each of")."""

    @property
    def exchanged(self) -> str:
        """What the test exchanges, in words."""
        return " ".join([*self.exchange_words, counted(self.n_exchanged, "subject")])

    @property
    @abstractmethod
    def claim(self) -> str:
        """What a significant head shows, as a clause."""

    @property
    @abstractmethod
    def sides(self) -> tuple[Selection, Selection] | None:
        """The rows of the two sides, where there are two."""

    @property
    @abstractmethod
    def side_names(self) -> tuple[str, ...]:
        """What the groups of `group_maps` are called."""

    @abstractmethod
    def group_maps(self, layer: int, head: int) -> NDArray[np.float32]:
        """Return the mean map of each group, (g, q, s), every subject weighing the same."""

    @property
    def summary(self) -> list[str]:
        """The answer in two or three sentences, which claim no more than what was tested."""
        said = [_answer(self), _strongest(self), _test(self)]
        return [sentence for sentence in said if sentence is not None]

    def plot(self) -> PaperFigure:
        """Draw Δ with intervals for every head, and the mean maps of the strongest."""
        from tssan_viz.comparison.outputs.picture import comparison_figure

        return comparison_figure(self)

    def _repr_html_(self) -> str:
        from tssan_viz.comparison.outputs.report import fragment

        return fragment(self)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as plain values for JSON; what is not defined is None."""

    def _described(self) -> dict[str, Any]:
        """Return what the dictionaries of all comparisons share."""
        accuracy = self.accuracy
        return {
            "store": self.store,
            "run": self.run,
            "split": self.split,
            "person": self.person,
            "metric": self.metric,
            "layers": list(self.layers),
            "heads": list(self.heads),
            "n_subjects": len(self.subjects),
            "subjects": self.subjects,
            "n_samples": self.n_samples,
            "accuracy": None
            if accuracy is None
            else {
                "share": accuracy.share,
                "videos": accuracy.videos,
                "classes": accuracy.classes,
                "at_chance": accuracy.at_chance,
            },
            "test": {
                "statistic": "delta = B - W" if self.is_distance else "delta = W - B",
                "alternative": "greater",
                "exchange": self.exchanged if self.tested else None,
                "subjects_exchanged": self.n_exchanged,
                "permutations": self.n_permutations,
                "assignments": self.n_assignments,
                "enumerated": self.enumerated,
                "smallest_p": self.smallest_p if self.tested else None,
                "seed": None if self.enumerated else self.seed,
                "alpha": self.alpha,
                "reason_for_no_test": self.reason,
                "corrections": {
                    "p_max_t": f"max-T (Westfall-Young) over {len(self.table)} heads",
                    "q": f"Benjamini-Hochberg over {len(self.table)} heads",
                },
                "interval": f"{1 - self.alpha:.0%} leave-one-subject-out jackknife, t quantiles",
            },
            "table": records(self.table),
        }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the lines of a table as plain values; what is missing is None."""
    plain = frame.astype(object)
    lines = plain.where(plain.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in line.items()} for line in lines]


def reversals(table: pd.DataFrame, alpha: float) -> list[str]:
    """Explain heads that have a smaller p than another, but a larger p max-T.

    The one counts a head's own exchanges, the other how far Δ lies out in units of their spread;
    where their distributions differ in shape, the orders differ.
    """
    found = table[table["p_max_t"] <= alpha]
    missed = table[(table["p_max_t"] > alpha) & table["p"].notna()]
    if found.empty or missed.empty or missed["p"].min() >= found["p"].max():
        return []
    line = missed.sort_values("p", kind="stable").iloc[0]
    other = found.sort_values("p", kind="stable").iloc[-1]
    return [
        f"layer {line['layer']:.0f} head {line['head']:.0f} has a smaller p than layer "
        f"{other['layer']:.0f} head {other['head']:.0f} and a larger p max-T: p counts the head's "
        "own exchanges, max-T measures how far Δ lies out in units of their spread, and the tails "
        "of the two heads differ; what counts for many heads is p max-T"
    ]


def intervals_without_p(table: pd.DataFrame, alpha: float) -> list[str]:
    """Explain heads whose interval is above 0 while their p is large."""
    if not ((table["low"] > 0) & (table["p"] > alpha)).any():
        return []
    return [
        "where the interval is above 0 and p is large, other classes stand out as much: the "
        "interval asks about other subjects (would Δ be above 0 again?), the test about other "
        "classes (is Δ larger than that of any class?)"
    ]


# ---- the sentences of a summary


def _answer(c: Comparison) -> str:
    videos = f"{counted(len(c.subjects), 'subject')}, {counted(c.n_samples, 'video')}"
    if not c.tested:
        return f"Described, not tested: whether {c.claim} ({videos}, for this network)."
    found = c.significant
    n = int(c.table["p_max_t"].notna().sum())
    level = f"p max-T ≤ {c.alpha:g}"
    if found.empty:
        none = "The one head tested does not show" if n == 1 else f"No head of {n} shows"
        return (
            f"{none} that {c.claim} ({level}; {videos}, for this network). "
            "That is no evidence that they do not."
        )
    where = "the one head tested" if n == 1 else f"{len(found)} of {n} heads"
    return f"In {where} {c.claim} ({level}; {videos}, for this network): {_heads(found)}."


def _heads(found: pd.DataFrame) -> str:
    layers = [
        f"layer {layer} head{'s' * (len(lines) > 1)} {', '.join(map(str, lines['head']))}"
        for layer, lines in found.groupby("layer")
    ]
    return "; ".join(layers)


def _strongest(c: Comparison) -> str | None:
    line = c.strongest
    if line is None:
        return None
    digits = decimals(line["delta"])
    interval = ""
    if not np.isnan(line["low"]):
        ends = f"{line['low']:+.{digits}f} to {line['high']:+.{digits}f}"
        interval = f" ({1 - c.alpha:.0%} interval {ends})"
    by = "Largest Δ" if np.isnan(line["p_max_t"]) else "Smallest p max-T"
    tested = "" if np.isnan(line["p_max_t"]) else f", p max-T {format_p(line['p_max_t'])}"
    return (
        f"{by} in layer {line['layer']:.0f} head {line['head']:.0f}: "
        f"{f'distance ({c.metric})' if c.is_distance else 'similarity'} "
        f"{line['W']:.{digits}f} within, {line['B']:.{digits}f} between, "
        f"Δ {line['delta']:+.{digits}f}{interval}{tested}."
    )


def _test(c: Comparison) -> str:
    if not c.tested:
        return f"There are no p-values: {c.reason}."
    what, where = c.exchange_words
    how = (
        f"all {c.n_assignments:,} ways to exchange {what}"
        if c.enumerated
        else f"{c.n_permutations:,} random exchanges of {what} (seed {c.seed})"
    )
    sentence = (
        f"One-sided permutation test: {how} {where} {counted(c.n_exchanged, 'subject')}; smallest "
        f"possible p {format_p(c.smallest_p)}"
    )
    if c.smallest_p > c.alpha:
        sentence += f", so that p ≤ {c.alpha:g} is out of reach with so few subjects"
    n = int(c.table["p_max_t"].notna().sum())
    if n > 1:
        sentence += (
            f"; p max-T (Westfall–Young) and q (Benjamini–Hochberg) account for the {n} heads"
        )
    return sentence + "."
