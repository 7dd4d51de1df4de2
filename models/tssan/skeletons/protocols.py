"""Evaluation protocols: which subjects, cameras or set-ups train and which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """A division of a data set into training and test part.

    Parameters
    ----------
    name
        What `--protocol` takes.
    by
        The column that decides: ``"subject"``, ``"camera"``, ``"setup"``, ``"split"`` (what the
        data set's own files say) or ``"sample"`` (a list of names).
    train, test
        The values of that column on either side; a sequence with neither belongs to no side.
    leaves_out_copies
        Whether test sequences that are exact copies of a training sequence are left out.
    """

    name: str
    by: Literal["subject", "camera", "setup", "split", "sample"]
    train: tuple[int | str, ...]
    test: tuple[int | str, ...]
    leaves_out_copies: bool = True


UTD_MHAD = (Protocol("cross-subject", "subject", (1, 3, 5, 7), (2, 4, 6, 8)),)

# All copies in Northwestern-UCLA lie between views 2 and 3, so that the usual cross-view protocol
# tests a fifth of view 3 on sequences that it was trained on.
NW_UCLA = (
    Protocol("cross-subject", "subject", (1, 3, 5, 7, 9), (2, 4, 6, 8, 10)),
    Protocol("cross-view", "camera", (1, 2), (3,)),
    Protocol("cross-view-with-leak", "camera", (1, 2), (3,), leaves_out_copies=False),
)

# The subjects of NTU RGB+D 120's training part; the first twenty are those of NTU RGB+D.
_NTU_TRAIN = (
    *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
_NTU_TEST = tuple(subject for subject in range(1, 107) if subject not in _NTU_TRAIN)

NTU60 = (
    Protocol(
        "xsub",
        "subject",
        tuple(subject for subject in _NTU_TRAIN if subject <= 40),
        tuple(subject for subject in _NTU_TEST if subject <= 40),
    ),
    Protocol("xview", "camera", (2, 3), (1,)),
)

NTU120 = (
    Protocol("xsub", "subject", _NTU_TRAIN, _NTU_TEST),
    Protocol("xset", "setup", tuple(range(2, 33, 2)), tuple(range(1, 33, 2))),
)

KINETICS = (Protocol("train-val", "split", ("train",), ("val",)),)


def first_half_trains(subjects: Sequence[int]) -> tuple[Protocol, ...]:
    """Return cross-subject with the lower half of the subject numbers for training."""
    ordered = tuple(sorted(subjects))
    half = len(ordered) // 2
    return (Protocol("cross-subject", "subject", ordered[:half], ordered[half:]),)
