"""Training a network by a recipe, and opening what came of it (see `tssan.run_folder`)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tssan.clips import Clips, make_clips, pad
from tssan.errors import DataError
from tssan.network import SkeletonNetwork, build_network
from tssan.recipe import Recipe, load_recipe
from tssan.run_folder import (
    CHECKPOINT,
    METRICS,
    RECIPE,
    RESULTS,
    RESUME,
    only_writer,
    refuse_to_overwrite,
    sha256,
    write_atomically,
    write_text,
)
from tssan.sequences import Sequences, hold_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run, with its network ready to be asked.

    Attributes
    ----------
    path
        Its folder.
    recipe
        As it was run.
    network
        With the trained weights, in evaluation mode, on the CPU.
    results
        What `results.json` holds: test_accuracy, seed, seconds, and so on.
    """

    path: Path
    recipe: Recipe
    network: SkeletonNetwork
    results: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of initialisation, order and augmentation."""
        return int(self.results["seed"])

    @property
    def protocol(self) -> str:
        """Which division into training and test subjects."""
        return str(self.results["protocol"])

    @property
    def dataset_name(self) -> str:
        """Name of the data set that it was trained on."""
        return str(self.results["dataset"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.results["classes"])

    @cached_property
    def checkpoint_sha256(self) -> str:
        """Fingerprint of the weights' file."""
        return sha256(self.path / CHECKPOINT)

    def clips(self, dataset: SkeletonDataset, indices: Sequence[int] | NDArray[np.int64]) -> Clips:
        """Return the test-time clips of some sequences: always the same for the same sequence.

        Raises
        ------
        DataError
            The data set has other joints than the one that the run was trained on.
        """
        if dataset.topology.name != self.results["topology"]:
            raise DataError(
                f"{self.path} was trained on the joints {self.results['topology']}, but the data "
                f"set {dataset.name} has {dataset.topology.name}; give --data the folder of "
                f"{self.dataset_name}"
            )
        recipe = self.recipe.clips
        batch = pad([dataset[int(i)] for i in indices], recipe.persons)
        return make_clips(batch, recipe, train=False)


def load_run(path: str | Path) -> TrainedRun:
    """Open the folder of a finished run.

    Parameters
    ----------
    path
        What `train` was given as `out`.

    Returns
    -------
    TrainedRun
        Its network in evaluation mode on the CPU.

    Raises
    ------
    DataError
        There is no run, or it is unfinished, or its weights do not fit its recipe.
    """
    path = Path(path)
    if not (path / RESULTS).is_file():
        if (path / RESUME).is_file():
            raise DataError(
                f"{path} holds an unfinished run; go on with it by `tssan-viz train … "
                f"--out {path} --resume`"
            )
        raise DataError(f"{path} holds no trained run; make one with `tssan-viz train`")
    try:
        results = json.loads((path / RESULTS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path / RESULTS}: not JSON: {error}") from None
    if not isinstance(results, dict):
        found = type(results).__name__
        raise DataError(f"{path / RESULTS}: expected a JSON object, found {found}")
    recipe = load_recipe(path / RECIPE)
    try:
        network = build_network(
            recipe,
            joints=results["joints"],
            coordinates=results["coordinates"],
            classes=len(results["classes"]),
        )
        network.load_state_dict(load_file(path / CHECKPOINT))
    except KeyError as error:
        raise DataError(f"{path / RESULTS}: the entry {error} is missing") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path / CHECKPOINT}: the weights cannot be read: {error}") from None
    except RuntimeError as error:
        raise DataError(
            f"{path / CHECKPOINT}: the weights do not fit {path / RECIPE}: {error}"
        ) from None
    return TrainedRun(path, recipe, network.eval(), results)


def train(
    recipe: Recipe,
    dataset: SkeletonDataset,
    out: str | Path,
    *,
    seed: int = 0,
    progress: bool = True,
    resume: bool = False,
) -> TrainedRun:
    """Train by a recipe, and measure once on the test part.

    Parameters
    ----------
    recipe
        What to do; its `protocol`, or else the data set's first, divides the data.
    dataset
        A prepared data set.
    out
        The run's folder.
    seed
        Of the held-out part, the initialisation, the order and the augmentation. The same seed on
        the same machine gives the same weights.
    progress
        Show a progress bar.
    resume
        Go on with an interrupted run, after its last finished epoch. It ends with the same weights
        as if it had not been interrupted.

    Returns
    -------
    TrainedRun
        Opened from what was written.

    Raises
    ------
    DataError
        `out` holds a finished run, or an unfinished one and `resume` is not asked for, or none and
        it is; the data set does not know the protocol, or is too small to hold anything out of.
    Interrupted
        Ctrl-C; the folder can be gone on from.
    """
    out = Path(out)
    protocol = dataset.protocol(recipe.protocol).name
    split = dataset.split(protocol)
    refuse_to_overwrite(out, resume)
    fitted_indices, held_out_indices = hold_out(
        dataset.index, split.train, recipe.training.validation, seed
    )
    if recipe.training.validation and not len(held_out_indices):
        raise DataError(
            f"training.validation: a share of {recipe.training.validation} of the "
            f"{len(split.train)} training sequences is none; give a larger one"
        )

    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        _train_in(
            out,
            recipe,
            dataset,
            _Parts(protocol, fitted_indices, held_out_indices, split.test),
            seed=seed,
            progress=progress,
            resume=resume,
        )
    return load_run(out)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Positions in the data set: what is fitted, what is held out of it, what is measured."""

    protocol: str
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]
    test: NDArray[np.int64]


def _train_in(
    out: Path,
    recipe: Recipe,
    dataset: SkeletonDataset,
    parts: _Parts,
    *,
    seed: int,
    progress: bool,
    resume: bool,
) -> None:
    """Fit, measure once on the test part, and write the run's files."""
    facts = {
        "recipe": recipe.to_dict() | {"protocol": parts.protocol},
        "seed": seed,
        "dataset": dataset.name,
        "sequences": len(dataset),
    }
    resume = resume and (out / RESUME).exists()  # else it was stopped within its first epoch
    if not resume:
        (out / METRICS).unlink(missing_ok=True)
        write_text(out / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False))

    from tssan.loop import fit  # Lightning takes seconds to import; opening a run needs none of it

    persons = recipe.clips.persons
    fitted = Sequences.load(dataset, parts.fitted, persons)
    held_out = Sequences.load(dataset, parts.held_out, persons)
    torch.manual_seed(seed)
    network = build_network(
        recipe,
        joints=fitted.joints,
        coordinates=fitted.coordinates,
        classes=len(dataset.classes),
    )
    fitting = fit(
        network,
        recipe,
        fitted,
        held_out,
        out=out,
        facts=facts,
        seed=seed,
        progress=progress,
        resume=resume,
    )
    network.load_state_dict(fitting.weights)
    weights = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    write_atomically(out / CHECKPOINT, lambda path: save_file(weights, path))

    test = Sequences.load(dataset, parts.test, persons)
    predicted = predict(network.to(fitting.device), test, recipe)
    correct = int((predicted == test.labels).sum())
    results = {
        "recipe": recipe.name,
        "dataset": dataset.name,
        "protocol": parts.protocol,
        "seed": seed,
        "test_accuracy": correct / len(test),
        "test_correct": correct,
        "test_sequences": len(test),
        "validation_accuracy": fitting.validation_accuracy,
        "validation_sequences": len(held_out),
        "train_sequences": len(fitted),
        "kept_epoch": fitting.epoch,
        "epochs": recipe.training.epochs,
        "seconds": round(fitting.seconds, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint_sha256": sha256(out / CHECKPOINT),
        "classes": [entry.name for entry in dataset.classes],
        "topology": dataset.topology.name,
        "joints": fitted.joints,
        "coordinates": fitted.coordinates,
        "device": _device_name(fitting.device),
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_text(out / RESULTS, json.dumps(results, indent=2) + "\n")
    (out / RESUME).unlink(missing_ok=True)


@torch.no_grad()
def predict(network: SkeletonNetwork, sequences: Sequences, recipe: Recipe) -> Tensor:
    """Return the predicted labels (n,) of test-time clips; leave the network in evaluation."""
    network.eval()
    device = next(network.parameters()).device
    predicted = [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(sequences), recipe.training.batch_size):
        places = range(start, min(start + recipe.training.batch_size, len(sequences)))
        clips = make_clips(sequences.batch(places).to(device), recipe.clips, train=False)
        logits = network(clips.position, clips.motion, clips.present)
        predicted.append(logits.argmax(dim=1).cpu())
    return torch.cat(predicted)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
