"""The sequences that a training takes its batches from, and which of them it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from torch import Tensor

from tssan.clips import Batch, pad
from tssan.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset
    from tssan.recipe import TrainingRecipe
    from tssan.skeletons.sequence import SkeletonSequence


class _OnDisk(Sequence["SkeletonSequence"]):
    """Some sequences of a data set, which need not fit into memory."""

    def __init__(self, dataset: SkeletonDataset, indices: NDArray[np.int64]) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> SkeletonSequence: ...
    @overload
    def __getitem__(self, place: slice) -> list[SkeletonSequence]: ...
    def __getitem__(self, place: int | slice) -> SkeletonSequence | list[SkeletonSequence]:
        if isinstance(place, slice):
            return [self._dataset[int(i)] for i in self._indices[place]]
        return self._dataset[int(self._indices[place])]


class Sequences:
    """Sequences of a prepared data set, from which batches are laid together.

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
        """Take some sequences of a data set; each is read when a batch asks for it."""
        labels = dataset.index["label"].to_numpy()[indices].astype(np.int64)
        return cls(_OnDisk(dataset, indices), torch.as_tensor(labels), persons)

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


def divide(
    training: TrainingRecipe,
    index: pd.DataFrame,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what is fitted and what selection looks at, as the recipe wants it.

    Parameters
    ----------
    training
        Its fields `select_on`, `validation_subjects` and `validation` decide, in this order.
    index
        The data set's.
    train, test
        Positions of the parts of the protocol.
    seed
        As in `hold_out`.

    Raises
    ------
    DataError
        There is nothing to hold out, or nothing left to fit.
    """
    if training.select_on == "test":
        return train, test
    if training.validation_subjects:
        return hold_out_subjects(index, train, training.validation_subjects)
    fitted, held_out = hold_out(index, train, training.validation, seed)
    if training.validation and not len(held_out):
        raise DataError(
            f"training.validation: a share of {training.validation} of the "
            f"{len(train)} training sequences is none; give a larger one"
        )
    return fitted, held_out


def hold_out_subjects(
    index: pd.DataFrame, train: NDArray[np.int64], subjects: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the training part into what is fitted and all that some of its subjects do.

    Parameters
    ----------
    index, train
        As in `hold_out`.
    subjects
        Who is held out.

    Returns
    -------
    fitted, held_out
        Positions, sorted, without overlap, together `train`.

    Raises
    ------
    DataError
        A subject is not in the training part, or nobody else is.
    """
    who = index["subject"].iloc[train]
    known = sorted(int(subject) for subject in who.dropna().unique())
    strangers = [subject for subject in subjects if subject not in known]
    if strangers:
        there = f"it has {', '.join(map(str, known))}" if known else "it names no subject at all"
        raise DataError(
            f"training.validation_subjects: {strangers[0]} is not in the training part; {there}"
        )
    held = who.isin(subjects).to_numpy(dtype=bool)
    if held.all():
        raise DataError(
            "training.validation_subjects: all subjects of the training part are held out; "
            f"leave some of {', '.join(map(str, known))} to fit"
        )
    return train[~held], train[held]


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
