"""One run against another: heads matched on their mean maps, described and not tested.

Two runs are two networks, and between two there is nothing to exchange. Heads of networks that
began from different numbers share no order: head 6 of one is not head 6 of another. They are
matched within each layer, one to one, so that the similarity of matched mean maps is largest
(Kuhn 1955), and the answer says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.comparison.cells import PLAIN, Cells, Layout, lay_out, sum_units
from tssan_viz.comparison.choosing import choose_layers, choose_rows
from tssan_viz.comparison.comparison import Accuracy, Comparison
from tssan_viz.comparison.reading import Progress, heads_of_layers, map_reader, site_of
from tssan_viz.comparison.similarity import check_metric, unit_vectors
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

REASON = (
    "one run against another is one network against another: between two there is nothing to "
    "exchange, and a claim about the method needs at least three seeds of each"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class RunComparison(Comparison):
    """What a comparison of two runs found; `Comparison` describes what it shares with others.

    Attributes
    ----------
    other_run : str
        The run that `run` is compared with.
    matched : bool
        Heads were matched, as the runs began from different numbers.
    table : DataFrame
        `head` is the first run's, `other_head` the second's. `mean_maps`: similarity of the two
        heads' mean maps; `W`: similarity of one class in two subjects, the mean of both runs
        (`W_1`, `W_2`); `B`: of one class in two subjects, one in each run.
    """

    other_run: str
    matched: bool
    _layout: Layout = field(repr=False)
    _other: tuple[Selection, Layout] = field(repr=False)

    @property
    def title(self) -> str:
        """What is compared with what, as a heading."""
        return f"run {self.run} against run {self.other_run}"

    @property
    def exchange_words(self) -> tuple[str, str]:
        """Nothing is exchanged."""
        return "nothing", "within"

    @property
    def claim(self) -> str:
        """What a significant head would show, as a clause."""
        return (
            "maps of one class in two subjects resemble each other more within a run than "
            "between the two"
        )

    @property
    def sides(self) -> None:
        """Rows of two runs lie in two selections of different runs: no analysis takes both."""
        return

    @property
    def side_names(self) -> tuple[str, ...]:
        """The runs."""
        return self.run, self.other_run

    def group_maps(self, layer: int, head: int) -> NDArray[np.float32]:
        """Return the mean maps of a head and of the one that it is matched with: (2, q, s)."""
        lines = self.table[(self.table["layer"] == layer) & (self.table["head"] == head)]
        if lines.empty:
            raise UserError(f"layer {layer} head {head} is not in the comparison")
        heads = (head, int(lines["other_head"].iloc[0]))
        sides = ((self._selection, self._layout), self._other)
        found = []
        for (selection, layout), one in zip(sides, heads, strict=True):
            part = selection.select(layer=layer, head=one)
            site = site_of(part, layer)
            means = _cells(part, layout, PLAIN)
            there = means.present[:, 0].sum(axis=1)[:, None]
            flat = (means.units[:, 0].sum(axis=1) / there).mean(axis=0)
            found.append(flat.reshape(site["query"], site["key"]))
        return np.stack(found).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as plain values for JSON; what is not defined is None."""
        shared = self._described()
        table = shared.pop("table")
        return {
            "schema": 1,
            "by": "run",
            "other_run": self.other_run,
            "heads_matched": self.matched,
            **shared,
            "table": table,
            "summary": self.summary,
            "notes": self.notes,
        }


def compare_runs(
    first: Selection,
    second: Selection,
    *,
    layer: int | str = "all",
    head: int | None = None,
    metric: str = "cosine",
    split: str | None = None,
    person: int = 1,
    seed: int = 0,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> RunComparison:
    """Describe how alike the maps of two runs are, head by head.

    Parameters
    ----------
    first, second
        Rows of two runs; only classes of subjects that both have are compared.
    layer, head, metric, split, person, seed, alpha, progress
        As in `tssan_viz.compare_class`; `head` needs runs that began from the same numbers.

    Raises
    ------
    UserError
        Maps differ in length, nothing is in both runs, or a head was named that cannot be matched.
    """
    check_metric(metric)
    notes: list[str] = []
    matched = not _same_beginning(first, second)
    if matched and head is not None:
        raise UserError(
            f"head {head} of run {first.run!r} is not head {head} of run {second.run!r}: they "
            "began from different numbers, and their heads have no common order; leave out --head, "
            "and heads are matched on their mean maps"
        )
    parts, layouts, splits = [], [], []
    for selection in (first, second):
        part, chosen = choose_rows(choose_layers(selection, layer, head), split, person, notes)
        parts.append(part)
        splits.append(chosen)
        layouts.append(lay_out(part.rows()))
    if splits[0] != splits[1]:
        raise UserError(
            f"one run has rows of split {splits[0]!r}, the other of {splits[1]!r}, which are "
            "never pooled: record the same split of both"
        )
    _check_shapes(*parts)
    ours, theirs = _shared_cells(*layouts)
    heads_of = heads_of_layers(parts[0])
    lines = []
    for done, (number, (heads, _)) in enumerate(heads_of.items()):
        units = []
        for side, (part, layout, at) in enumerate(zip(parts, layouts, (ours, theirs), strict=True)):
            if progress is not None:
                progress("reading maps", 2 * done + side, 2 * len(heads_of))
            chosen_part = part.select(layer=number, head=heads)
            units.append((_cells(chosen_part, layout, metric), at, chosen_part, layout))
        lines.append(_layer_table(number, heads, units, metric, matched))
    if progress is not None:
        progress("reading maps", 1, 1)
    table = pd.concat(lines, ignore_index=True)
    if matched:
        moved = int((table["head"] != table["other_head"]).sum())
        notes.append(
            "the runs began from different numbers, so head 6 of one is not head 6 of the other: "
            f"heads were matched by assignment on their mean maps ({moved} of {len(table)} got "
            "another number)"
        )
    subject = layouts[0].subject[ours]
    subjects = [int(layouts[0].subjects[s]) for s in np.unique(subject)]
    accuracy = Accuracy.of(parts[0])
    other_accuracy = Accuracy.of(parts[1])
    for found in (accuracy, other_accuracy):
        notes += [] if found is None else found.note()
    return RunComparison(
        table=table,
        other_run=second.run,
        matched=matched,
        subjects=subjects,
        n_exchanged=0,
        n_samples=int(parts[0].rows()["sample"].nunique()),
        accuracy=accuracy,
        run=first.run,
        store=first.store.url,
        split=splits[0],
        metric=metric,
        person=person,
        layers=tuple(parts[0].layers),
        heads=tuple(parts[0].heads),
        n_permutations=0,
        n_assignments=1,
        enumerated=True,
        smallest_p=1.0,
        seed=seed,
        alpha=alpha,
        reason=REASON,
        notes=list(dict.fromkeys(notes)),
        _selection=parts[0],
        _layout=layouts[0],
        _other=(parts[1], layouts[1]),
    )


def _same_beginning(first: Selection, second: Selection) -> bool:
    """Whether both networks began from the same numbers: one recipe's network and one seed."""
    infos = [part.store.info(part.run) for part in (first, second)]
    seeds = [info.get("seed") for info in infos]
    networks = [(info.get("recipe") or {}) for info in infos]
    shapes = [net.get("network") if isinstance(net, dict) else net for net in networks]
    checkpoints = [info.get("checkpoint_sha256") for info in infos]
    if checkpoints[0] is not None and checkpoints[0] == checkpoints[1]:
        return True
    return seeds[0] is not None and seeds[0] == seeds[1] and shapes[0] == shapes[1]


def _check_shapes(first: Selection, second: Selection) -> None:
    if first.layers != second.layers:
        raise UserError(
            f"run {first.run!r} has layers {_listed(first.layers)}, run {second.run!r} "
            f"{_listed(second.layers)}: compare a layer that both have, with --layer"
        )
    for layer in first.layers:
        a, b = site_of(first, layer), site_of(second, layer)
        if (a["query"], a["key"]) != (b["query"], b["key"]):
            raise UserError(
                f"maps of layer {layer} are {a['query']} × {a['key']} in run {first.run!r} and "
                f"{b['query']} × {b['key']} in run {second.run!r}: maps of different lengths are "
                "not compared; record both with as many frames"
            )
        if a["heads"] != b["heads"]:
            raise UserError(
                f"layer {layer} has {a['heads']} heads in run {first.run!r} and {b['heads']} in "
                f"run {second.run!r}: they cannot be matched one to one"
            )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _shared_cells(first: Layout, second: Layout) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of the cells, by subject and class, that both have."""

    def keys(layout: Layout) -> dict[tuple[int, int], int]:
        subjects = [layout.subjects[s] for s in layout.subject]
        pairs = zip(subjects, layout.label.tolist(), strict=True)
        return {pair: place for place, pair in enumerate(pairs)}

    ours, theirs = keys(first), keys(second)
    shared = [key for key in ours if key in theirs]
    if len({subject for subject, _ in shared}) < 2:
        raise UserError(
            "fewer than two subjects have a class in both runs: record the same videos with both"
        )
    return np.array([ours[key] for key in shared]), np.array([theirs[key] for key in shared])


def _cells(selection: Selection, layout: Layout, metric: str) -> Cells:
    site = site_of(selection, selection.layers[0])
    return sum_units(
        layout,
        (np.zeros(len(layout.cell), np.intp), 1),
        map_reader(selection),
        metric,
        heads=len(selection.heads),
        size=(site["query"], site["key"]),
    )


def _layer_table(
    layer: int,
    heads: list[int],
    sides: list[tuple[Cells, NDArray[np.intp], Selection, Layout]],
    metric: str,
    matched: bool,
) -> pd.DataFrame:
    """Match the heads of one layer and describe each pair."""
    means = []
    for _, at, part, layout in sides:
        site = site_of(part, layer)
        plain = _cells(part, layout, PLAIN).units[at].mean(axis=(0, 2))
        means.append(unit_vectors(plain.reshape(-1, site["query"], site["key"]), metric)[0])
    similarity = means[0].astype(np.float64) @ means[1].T.astype(np.float64)
    order = np.arange(len(heads))
    if matched:
        from scipy.optimize import linear_sum_assignment

        order = linear_sum_assignment(similarity, maximize=True)[1]
    (cells_1, at_1, _, layout_1), (cells_2, at_2, _, _) = sides
    first, second = cells_1.units[at_1], cells_2.units[at_2][:, order]
    subject, label = layout_1.subject[at_1], layout_1.label[at_1]
    pairs = (subject[:, None] != subject) & (label[:, None] == label)

    def mean(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        products = np.einsum("rhkd,chkd->rch", a, b, optimize=True) / a.shape[2]
        return np.asarray(products[pairs].mean(axis=0), np.float64)

    w_1, w_2, between = mean(first, first), mean(second, second), mean(first, second)
    within = (w_1 + w_2) / 2
    return pd.DataFrame(
        {
            "layer": layer,
            "head": heads,
            "W": within,
            "B": between,
            "delta": within - between,
            **dict.fromkeys(("hedges_g", "low", "high", "p", "p_max_t", "q"), np.nan),
            "W_1": w_1,
            "W_2": w_2,
            "other_head": np.array(heads)[order],
            "mean_maps": similarity[np.arange(len(heads)), order],
        }
    )
