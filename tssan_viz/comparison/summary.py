"""What a comparison found, in sentences that claim no more than what was tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tssan_viz.comparison.words import counted, decimals, format_p

if TYPE_CHECKING:
    import pandas as pd

    from tssan_viz.comparison.comparison import Comparison


def sentences(comparison: Comparison) -> list[str]:
    """Say the answer, its strongest head, and the test.

    Parameters
    ----------
    comparison
        From `tssan_viz.compare` or `tssan_viz.compare_class`.

    Returns
    -------
    list of str
        Two or three plain sentences.
    """
    said = [_answer(comparison)]
    strongest = _strongest(comparison)
    if strongest:
        said.append(strongest)
    said.append(_test(comparison))
    return said


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
