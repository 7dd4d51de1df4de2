"""The sequences that a training holds in memory, and which of them it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tssan.clips import Batch, pad

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.sequence import SkeletonSequence


class Sequences:
    """Sequences of a prepared data set in memory, from which batches are laid together.

    Parameters
    ----------
    items
        The sequences.
    labels
        int64 (n,).
    persons
        As in `pad`.
    """

    def __init__(self, items: Sequence[SkeletonSequence], labels: Tensor, persons: int) -> None:
        self.items = items
        self.labels = labels
        self.persons = persons

    @classmethod
    def load(cls, dataset: SkeletonDataset, indices: NDArray[np.int64], persons: int) -> Sequences:
        """Read some sequences of a data set."""
        labels = dataset.index["label"].to_numpy()[indices].astype(np.int64)
        return cls([dataset[int(i)] for i in indices], torch.as_tensor(labels), persons)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def joints(self) -> int:
        """Size of the axis v."""
        return int(self.items[0].joints.shape[2])

    @property
    def coordinates(self) -> int:
        """Size of the axis c."""
        return int(self.items[0].joints.shape[3])

    def batch(self, places: Iterable[int]) -> Batch:
        """Lay some of the sequences together."""
        return pad([self.items[i] for i in places], self.persons)


def hold_out(
    index: pd.DataFrame, train: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the training part into what is fitted and what selection looks at.

    Whole performances are held out, class by class: all cameras that saw one go together. Subjects
    are not held out, since small data sets have four or five to train on; the held-out accuracy is
    thus that of known subjects, higher than on the test part, and good for choosing between epochs
    only.

    Parameters
    ----------
    index
        The data set's, one line per sequence: label, subject, setup, replication.
    train
        Positions of the training part.
    share
        Which share of it to hold out; 0: nothing.
    seed
        Chooses which.

    Returns
    -------
    fitted, held_out
        Positions, sorted, without overlap, together `train`. Of each class at least one performance
        is fitted.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    part = index.iloc[train].reset_index(drop=True)
    # Where the data set does not tell performances apart, each sequence is one.
    told = part["subject"].notna() & part["replication"].notna()
    part["alone"] = np.where(told, -1, np.arange(len(part)))
    performance = part.groupby(
        ["label", "subject", "setup", "replication", "alone"], dropna=False, sort=True
    ).ngroup()
    held: list[NDArray[np.int64]] = []
    due = 0.0
    for _, groups in performance.groupby(part["label"]):
        due += share * len(groups)
        numbers = rng.permutation(groups.unique())
        for number in numbers[:-1]:
            members = groups.index[groups == number]
            # What rounding owes one class the next one pays, so that the total comes out right.
            if len(members) / 2 > due:
                break
            due -= len(members)
            held.append(train[members])
    held_out = np.sort(np.concatenate(held)) if held else train[:0]
    return np.setdiff1d(train, held_out), held_out
