"""Whether an attribution depends on what was learnt (Adebayo et al., NeurIPS 2018).

Weights are shuffled within each tensor, from the classifier downwards, one part after the other.
An attribution that is the same for a network that knows nothing tells of the input or of the
architecture, and explains nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from tssan_viz.evidence.over_subjects import interval, subject_means

PASSES_BELOW = 0.5
"""Mean rank correlation with the attribution of a shuffled network up to which one passes."""


@dataclass(frozen=True, eq=False)
class SanityCheck:
    """How alike attributions stay while the network forgets.

    Attributes
    ----------
    stages : list of str
        Up to which part the weights were shuffled, from the output; the last one: all.
    similarity : dict of (stages, n) ndarray
        Per method: Spearman correlation over the frames, with the trained network's attribution.
    subjects : (n,)
    """

    stages: list[str]
    similarity: dict[str, NDArray[np.float64]]
    subjects: NDArray[np.int64]

    @property
    def table(self) -> pd.DataFrame:
        """One line per method: similarity when all is shuffled, its interval, whether it passes."""
        lines = []
        for method, values in self.similarity.items():
            _, means = subject_means(values.T, self.subjects)  # (s, stages)
            low, high = interval(means)
            all_shuffled = float(means[:, -1].mean())
            lines.append(
                {
                    "method": method,
                    "similarity": all_shuffled,
                    "similarity_low": low[-1],
                    "similarity_high": high[-1],
                    "passes": all_shuffled <= PASSES_BELOW,
                    **{
                        f"after {stage}": value
                        for stage, value in zip(self.stages, means.mean(axis=0), strict=True)
                    },
                }
            )
        return pd.DataFrame(lines)


def stages_of(model: nn.Module) -> list[str]:
    """Return the names of a model's parts that have weights, the one next to the output first.

    Parts are the children in the order of their definition; a model that only wraps another is
    looked into.
    """
    prefix = ""
    while True:
        parts = [
            name for name, part in model.named_children() if any(True for _ in part.parameters())
        ]
        if len(parts) != 1 or any(True for _ in model.parameters(recurse=False)):
            break
        prefix += parts[0] + "."
        model = getattr(model, parts[0])
    return [prefix + name for name in reversed(parts)]


def shuffled(model: nn.Module, parts: Sequence[str], *, seed: int = 0) -> nn.Module:
    """Return a copy whose weights in some parts are shuffled, tensor by tensor."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in parts:
            for weight in model.get_submodule(name).parameters():
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
    return model.eval()


def check(
    attribute_with: Callable[[nn.Module], dict[str, NDArray[np.floating]]],
    model: nn.Module,
    subjects: NDArray[np.int64],
    *,
    seed: int = 0,
) -> SanityCheck:
    """Shuffle a network part by part, and compare what is attributed.

    Parameters
    ----------
    attribute_with
        Takes a model and returns (n, f) per method: the attributions of the same videos.
    model
        The trained one.
    subjects
        (n,): whose the videos are.
    seed
        Of the shuffling.
    """
    parts = stages_of(model)
    trained = attribute_with(model)
    found: dict[str, list[NDArray[np.float64]]] = {method: [] for method in trained}
    for stage in range(1, len(parts) + 1):
        forgetful = attribute_with(shuffled(model, parts[:stage], seed=seed))
        for method, values in forgetful.items():
            found[method].append(rank_correlations(trained[method], values))
    return SanityCheck(
        [part.rpartition(".")[2] for part in parts],
        {method: np.stack(values) for method, values in found.items()},
        subjects,
    )


def rank_correlations(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return Spearman's correlation of each line (n, f) of two arrays.

    A line that is constant in both is the same in both: 1. One that is constant in one alone has
    nothing in common with the other: 0.
    """
    ranks = [rankdata(np.round(x, 12), axis=1) for x in (a, b)]
    centred = [x - x.mean(axis=1, keepdims=True) for x in ranks]
    norms = [np.sqrt((x**2).sum(axis=1)) for x in centred]
    product = norms[0] * norms[1]
    correlation = (centred[0] * centred[1]).sum(axis=1) / np.where(product > 0, product, 1.0)
    constant = (norms[0] == 0) & (norms[1] == 0)
    result: NDArray[np.float64] = np.where(constant, 1.0, np.where(product > 0, correlation, 0.0))
    return result
