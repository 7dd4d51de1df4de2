"""One file that holds a whole data set: what its readers return.

    annotations = pyskl.open_annotations("ntu60_3danno.pkl")      # or ctr_gcn.open_annotations(…)
    annotations.name, annotations.classes, annotations.topology, annotations.protocols
    for position in range(len(annotations)):
        sequence = annotations[position]      # DataError if this one is damaged; others are not

Going through them in order is the fast way.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import overload

from tssan.skeletons.classes import ActionClass
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import Topology


class Annotations(Sequence[SkeletonSequence]):
    """The sequences of one archive, each read when it is asked for.

    Attributes
    ----------
    name : str
        The data set: ``ntu60``, ``ntu120``, ``ntu60-hrnet17``, …; other data are called as the file
        is.
    topology : Topology
    classes : tuple of ActionClass
        In the order of their labels.
    protocols : tuple of Protocol
        The divisions that the archive states.
    samples : sequence of str
        The names of the sequences.
    remarks : tuple of str
        Sentences for who prepares them: what the archive does not say or says wrongly.
    subject_names : mapping of int to str
        Who the numbers of the subjects are, where the archive has names.
    """

    name: str
    topology: Topology
    classes: tuple[ActionClass, ...]
    protocols: tuple[Protocol, ...]
    samples: Sequence[str]
    remarks: tuple[str, ...] = ()
    subject_names: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def read(self, position: int) -> SkeletonSequence:
        """Return the sequence at a position from 0.

        Raises
        ------
        DataError
            If what the archive holds there is no sequence.
        """

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, position: int) -> SkeletonSequence: ...
    @overload
    def __getitem__(self, position: slice) -> list[SkeletonSequence]: ...
    def __getitem__(self, position: int | slice) -> SkeletonSequence | list[SkeletonSequence]:
        if isinstance(position, slice):
            return [self.read(at) for at in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(f"sequence {position}; {self.name} holds {len(self)}")
        return self.read(position % len(self))
