"""Recording a fixed set of videos after each epoch of `tssan-viz train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import Trainer
    from tssan.dataset import SkeletonDataset
    from tssan.recipe import Recipe

    from tssan_viz.recording.lightning import AttentionRecording
    from tssan_viz.recording.policies import Probe

VIDEOS_AT_A_TIME = 32


def probe_callback(
    recipe: Recipe, dataset: SkeletonDataset, store: str, out: Path, *, videos: int, seed: int
) -> AttentionRecording:
    """Return a callback that records some training videos before and after each epoch.

    Each of its rows carries the loss and accuracy that the epoch was finished with
    (``train_loss``, ``train_accuracy`` and, where a part was held out, ``validation_…``), so that
    they can be seen beside the maps.

    They come from the training part, so that the test part is not looked at, and evenly from all
    classes and in each from its subjects in turn; the network sees them as it would in a test. The
    run's name in the store is that of the folder with ``-training`` behind it.

    Parameters
    ----------
    recipe, dataset
        What is trained.
    store
        Folder of the store.
    out
        The run's folder.
    videos
        How many.
    seed
        To be remembered with the run.
    """
    import torch

    import tssan_viz
    from tssan_viz.cli.record import make_catalogue

    protocol = dataset.protocol(recipe.protocol).name
    chosen = _evenly(dataset, dataset.split(protocol).train.tolist(), videos)
    info = {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "dataset": dataset.name,
        "protocol": protocol,
        "probe": len(chosen),
        "torch": torch.__version__,
        "tssan_viz": tssan_viz.__version__,
    }
    announced: list[Any] = []

    def make(network: Any) -> Probe:
        made = _probe(recipe, dataset, chosen, network.row_axes)
        announced.extend(said for said, _ in made.batches)
        return made

    return _with_curves(announced)(
        store,
        module="network",
        probe=make,
        run=f"{out.resolve().name}-training",
        catalogue=make_catalogue(dataset),
        split="train",
        info=info,
    )


def _with_curves(announced: list[Any]) -> Callable[..., AttentionRecording]:
    """Return a recording that announces with its samples what Lightning measured in the epoch."""
    from tssan_viz.recording.lightning import AttentionRecording

    class Recording(AttentionRecording):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            """Look at the probe, and say how the epoch went."""
            measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
            for said in announced:
                said.update(measured)
            super().on_train_epoch_end(trainer, pl_module)

    return Recording


def _probe(
    recipe: Recipe, dataset: SkeletonDataset, indices: list[int], axes: tuple[str, ...]
) -> Probe:
    from tssan.clips import make_clips, pad

    from tssan_viz.cli.record import announcement
    from tssan_viz.recording.policies import Probe

    batches: list[tuple[dict[str, Any], Any]] = []
    for start in range(0, len(indices), VIDEOS_AT_A_TIME):
        part = indices[start : start + VIDEOS_AT_A_TIME]
        sequences = pad([dataset[i] for i in part], recipe.clips.persons)
        clips = make_clips(sequences, recipe.clips, train=False)
        said = announcement(dataset, part, clips, axes)
        batches.append((said, (clips.position, clips.motion, clips.present)))
    return Probe(batches)


def _evenly(dataset: SkeletonDataset, indices: list[int], count: int) -> list[int]:
    """Return so many positions, in turns from each class and in it from each subject."""
    if count > len(indices):
        raise UserError(
            f"--probe {count}: the training part has {len(indices)} videos; give at most as many"
        )
    part = dataset.index.iloc[indices]
    # Of each class one video of every subject comes before the second of anybody.
    turns = part.groupby(["label", "subject"], dropna=False).cumcount().to_numpy()
    labels = part["label"].to_numpy()
    queues: dict[int, list[int]] = {}
    for place in np.argsort(turns, kind="stable"):
        queues.setdefault(int(labels[place]), []).append(indices[place])
    chosen: list[int] = []
    turn = 0
    while len(chosen) < count:
        chosen += [queue[turn] for _, queue in sorted(queues.items()) if turn < len(queue)]
        turn += 1
    return chosen[:count]
