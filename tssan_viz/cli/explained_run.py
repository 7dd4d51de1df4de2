"""A trained run as something to be explained: a model of positions alone, and its videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tssan.network import MultiHeadAttention, SelfAttentionBlock, SkeletonNetwork

from tssan_viz.errors import UserError
from tssan_viz.evidence.attributions import Explained

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tssan.clips import Clips
    from tssan.dataset import SkeletonDataset
    from tssan.training import TrainedRun

    from tssan_viz.store import AttentionStore

BATCH = 16
"""Videos of which explanations are asked at once: what fits with a gradient of each."""


class FromPositions(nn.Module):
    """A network that is given positions and makes the motion itself.

    Frames that are taken out of the positions are thus gone from the motion too, and a gradient
    comes back through both.

    Parameters
    ----------
    network
        In evaluation mode.
    motion_scale
        `ClipsRecipe.motion_scale`.
    """

    def __init__(self, network: SkeletonNetwork, motion_scale: float) -> None:
        super().__init__()
        self.network = network
        self.motion_scale = motion_scale

    def forward(self, x: Tensor, position: Tensor, motion: Tensor, present: Tensor) -> Tensor:
        """Return the logits (n, classes) of changed positions.

        Parameters
        ----------
        x
            Positions (n, k, m, t, v, c), changed.
        position, motion, present
            `Clips` as they were. The motion changes by as much as the positions do, so that it is
            exactly what it was where nothing was changed.
        """
        t = x.shape[3]
        moved = (x - position).movedim(2, 1).flatten(2, 3)  # (n, m, k·t, v, c)
        change = torch.diff(moved, dim=2, prepend=moved[:, :, :1])
        change = change.unflatten(2, (-1, t)).movedim(1, 2)
        logits: Tensor = self.network(x, motion + self.motion_scale * change, present)
        return logits


@dataclass(frozen=True, eq=False)
class Videos:
    """Clips of some videos, ready to be asked about.

    Attributes
    ----------
    indices
        Where they are in the data set.
    clips
        The positions are what is explained.
    labels
        int64 (n,).
    """

    indices: list[int]
    clips: Clips
    labels: Tensor

    @property
    def extra(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `FromPositions` is given besides."""
        return self.clips.position, self.clips.motion, self.clips.present


@dataclass(frozen=True, eq=False)
class ExplainedRun:
    """A run with its data set."""

    trained: TrainedRun
    dataset: SkeletonDataset
    explained: Explained
    layers: tuple[tuple[str, int], ...]
    """Stream and layer (from 1) of every call of attention."""

    def videos(self, indices: Sequence[int]) -> Videos:
        """Lay some videos together.

        Where absent persons are masked, places that nobody in these videos takes are left out:
        they would cost time and change nothing.
        """
        clips = self.trained.clips(self.dataset, list(indices))
        if self.trained.recipe.network.mask_absent_person and "m" in self.explained.row_axes:
            taken = clips.present.any(dim=0).any(dim=0)  # (m,)
            m = int(taken.nonzero().max()) + 1 if taken.any() else 1
            clips = clips._replace(
                position=clips.position[:, :, :m],
                motion=clips.motion[:, :, :m],
                present=clips.present[:, :, :m],
            )
        labels = self.dataset.index["label"].to_numpy()[list(indices)].astype(np.int64)
        return Videos(list(indices), clips, torch.as_tensor(labels))

    def batches(self, indices: Sequence[int], size: int = 64) -> Iterator[Videos]:
        """Lay videos together in batches, those with as many persons in the same ones."""
        persons = self.dataset.index["persons"].to_numpy()
        order = sorted(indices, key=lambda i: (persons[i], i))
        for count in sorted({int(persons[i]) for i in order}):
            same = [i for i in order if int(persons[i]) == count]
            for start in range(0, len(same), size):
                yield self.videos(same[start : start + size])

    def subjects(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Return whose the videos are; where nobody knows, below zero, each its own."""
        who = self.dataset.index["subject"].iloc[list(indices)]
        # Below zero, and by the video's place, so that it is the same one in every batch.
        own = -1 - np.asarray(indices, dtype=np.int64)
        return np.where(who.isna(), own, who.fillna(0).to_numpy(dtype=np.int64))

    def of_class(self, name: str, split: str = "test") -> tuple[str, list[int]]:
        """Return a class's name and where its videos are.

        Raises
        ------
        UserError
            There is no such class, or it has no video in that part.
        """
        from tssan_viz.cli.record import make_catalogue

        entry = make_catalogue(self.dataset).resolve(name)
        part = self.part(split)
        labels = self.dataset.index["label"].to_numpy()
        indices = [i for i in part if labels[i] == entry.label]
        if not indices:
            raise UserError(f"no video of the {split} part is of class {entry.name}")
        return entry.name, indices

    @staticmethod
    def projections_of(model: nn.Module) -> tuple[Tensor, ...]:
        """Return the output projections of a model's attention, call by call."""
        attentions = [m for m in model.modules() if isinstance(m, MultiHeadAttention)]
        return tuple(attention.out.weight.detach() for attention in attentions)

    def part(self, split: str) -> list[int]:
        """Return where the videos of ``test`` or ``train`` are."""
        parts = self.dataset.split(self.trained.protocol)
        return [int(i) for i in (parts.test if split == "test" else parts.train)]

    def sample(self, name: str) -> int:
        """Return where a video is.

        Raises
        ------
        UserError
            There is none of that name.
        """
        from difflib import get_close_matches

        names = self.dataset.index["sample"].astype(str).tolist()
        if name in names:
            return names.index(name)
        near = get_close_matches(name, names, 1, 0.0)
        raise UserError(f"{self.dataset.path} has no video {name!r}; the nearest name is {near[0]}")


def explained_run(trained: TrainedRun, dataset: SkeletonDataset) -> ExplainedRun:
    """Bring a run and its data set together.

    Raises
    ------
    DataError
        The data set is another one.
    UserError
        The network has no attention.
    """
    trained.refuse_other(dataset)
    # The order in memory in which a processor's convolutions are fastest; the weights are the same.
    network = trained.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    blocks = [m for m in network.named_modules() if isinstance(m[1], SelfAttentionBlock)]
    if not blocks:
        raise UserError(
            f"{trained.path}: a network of variant {trained.recipe.network.variant} attends to "
            "nothing"
        )
    streams = {"position_block": "position", "motion_block": "motion"}
    explained = Explained(
        FromPositions(network, trained.recipe.clips.motion_scale).eval(),
        tuple(network.row_axes),
        tuple(len(block.layers) for _, block in blocks),
        ExplainedRun.projections_of(network),
    )
    layers = tuple(
        (streams.get(name, "main"), layer + 1)
        for name, block in blocks
        for layer in range(len(block.layers))
    )
    return ExplainedRun(trained, dataset, explained, layers)


def open_explained(run: Any, data: Any) -> ExplainedRun:
    """Open the folders of a run and of its data set."""
    from tssan.dataset import SkeletonDataset
    from tssan.training import load_run

    return explained_run(load_run(run), SkeletonDataset.open(data))


def store_of(url: str | None, opened: ExplainedRun) -> tuple[AttentionStore | None, str]:
    """Return the store that holds the run's maps, or why there is none."""
    from tssan_viz.store import StoreNotFound, open_store

    run = opened.trained.path.resolve().name
    try:
        store = open_store(url)
    except StoreNotFound:
        if url is not None:
            raise
        return None, "there is no store here that holds the run's maps"
    if run not in store.run_names():
        return None, f"{store.url} holds no maps of {run}; record them first"
    if store.info(run).get("checkpoint_sha256") != opened.trained.checkpoint_sha256:
        return None, f"the maps of {run} in {store.url} were made with other weights"
    return store, ""
