"""Attributions scored against an answer that is known: average precision over frames and joints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score

BASELINES = ("integrated-gradients", "occlusion")
RANDOM = "random"


def average_precision(
    truth: NDArray[np.bool_], scores: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return scikit-learn's average precision of each video, (n,).

    Parameters
    ----------
    truth : (n, f)
        What carries the class.
    scores : (n, f)
        What an attribution says; the greatest come first.
    """
    pairs = zip(truth, scores, strict=True)
    return np.array([average_precision_score(true, score) for true, score in pairs])


def of_random_scores(
    truth: NDArray[np.bool_], *, draws: int = 20, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean average precision of random scores, (n,)."""
    rng = np.random.default_rng(seed)
    return np.mean(
        [average_precision(truth, rng.random(truth.shape)) for _ in range(draws)], axis=0
    )


def over_seeds(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put the results of several seeds together.

    Parameters
    ----------
    results
        One per setting and seed: ``setting``, ``seed``, ``accuracy``, and ``frames`` and ``joints``
        with the mean average precision of each method.

    Returns
    -------
    DataFrame
        One line per setting, ``of`` (frames or joints) and method: mean over seeds, ``low`` and
        ``high`` (Student's t, 95 %; a seed is a data set and a network of its own), how many seeds,
        and their mean accuracy. ``beats_random``: the interval lies above that of random.
    """
    lines = [
        {
            "setting": one["setting"],
            "of": of,
            "method": method,
            "value": value,
            "accuracy": one["accuracy"],
        }
        for one in results
        for of in ("frames", "joints")
        for method, value in one[of].items()
    ]
    groups = pd.DataFrame(lines).groupby(["setting", "of", "method"], sort=False)
    table = groups.agg(
        precision=("value", "mean"),
        spread=("value", "std"),
        seeds=("value", "size"),
        accuracy=("accuracy", "mean"),
    ).reset_index()
    quantile = stats.t.ppf(0.975, np.maximum(table["seeds"] - 1, 1))
    half = np.where(
        table["seeds"] > 1, quantile * table["spread"] / np.sqrt(table["seeds"]), np.nan
    )
    table["low"], table["high"] = table["precision"] - half, table["precision"] + half
    chance = table[table["method"] == RANDOM].set_index(["setting", "of"])["high"]
    keys = pd.MultiIndex.from_frame(table[["setting", "of"]])
    table["beats_random"] = table["low"].to_numpy() > chance.reindex(keys).to_numpy()
    return table.drop(columns="spread")


def is_valid(table: pd.DataFrame, settings: Sequence[str], *, seeds: int = 5) -> dict[str, bool]:
    """Say of each setting whether a baseline that needs no attention finds the plant.

    Where integrated gradients and occlusion do no better than chance, either the network does not
    use what was planted or the question is too hard, and nothing follows for attention.
    """
    frames = table[(table["of"] == "frames") & (table["seeds"] >= seeds)]
    found = frames[frames["method"].isin(BASELINES) & frames["beats_random"]]
    return {setting: bool((found["setting"] == setting).any()) for setting in settings}
