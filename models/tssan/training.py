"""Training a network by a recipe, and opening what came of it.

A run is a folder:

    recipe.yaml             the recipe as it was run
    metrics.csv             one line per epoch
    resume.ckpt             everything needed to go on; there only while the run is unfinished
    checkpoint.safetensors  the weights
    results.json            accuracy, seed, time, data set; written last: where it is, all is
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
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

from tssan.clips import Batch, Clips, make_clips, pad
from tssan.errors import DataError
from tssan.network import TSSAN, build_network
from tssan.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.sequence import SkeletonSequence

RECIPE, METRICS, RESUME = "recipe.yaml", "metrics.csv", "resume.ckpt"
CHECKPOINT, RESULTS = "checkpoint.safetensors", "results.json"


class Interrupted(KeyboardInterrupt):
    """Training was stopped at the keyboard; the message says how to go on."""


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
    network: TSSAN
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
        return _sha256(self.path / CHECKPOINT)

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
    _look_into(out, resume)
    fitted_indices, held_out_indices = hold_out(
        dataset.index, split.train, recipe.training.validation, seed
    )
    if recipe.training.validation and not len(held_out_indices):
        raise DataError(
            f"training.validation: a share of {recipe.training.validation} of the "
            f"{len(split.train)} training sequences is none; give a larger one"
        )

    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "recipe": recipe.to_dict() | {"protocol": protocol},
        "seed": seed,
        "dataset": dataset.name,
        "sequences": len(dataset),
    }
    resume = resume and (out / RESUME).exists()  # else it was stopped within its first epoch
    if not resume:
        (out / METRICS).unlink(missing_ok=True)
        _write(out / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False))

    from tssan.loop import fit  # Lightning takes seconds to import; opening a run needs none of it

    persons = recipe.clips.persons
    fitted = Sequences.load(dataset, fitted_indices, persons)
    held_out = Sequences.load(dataset, held_out_indices, persons)
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
    _atomically(out / CHECKPOINT, lambda path: save_file(weights, path))

    test = Sequences.load(dataset, split.test, persons)
    predicted = predict(network.to(fitting.device), test, recipe)
    correct = int((predicted == test.labels).sum())
    results = {
        "recipe": recipe.name,
        "dataset": dataset.name,
        "protocol": protocol,
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
        "checkpoint_sha256": _sha256(out / CHECKPOINT),
        "classes": [entry.name for entry in dataset.classes],
        "topology": dataset.topology.name,
        "joints": fitted.joints,
        "coordinates": fitted.coordinates,
        "device": _device_name(fitting.device),
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write(out / RESULTS, json.dumps(results, indent=2) + "\n")
    (out / RESUME).unlink(missing_ok=True)
    return load_run(out)


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


@torch.no_grad()
def predict(network: TSSAN, sequences: Sequences, recipe: Recipe) -> Tensor:
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


def _look_into(out: Path, resume: bool) -> None:
    """Refuse to write over a run, and to go on with one that is not there."""
    if (out / RESULTS).exists():
        raise DataError(
            f"{out} holds a finished run already; give another --out, or remove that folder first"
        )
    if resume and not (out / RECIPE).exists():
        raise DataError(f"{out} holds no unfinished run to go on with; leave --resume out")
    if not resume and (out / RESUME).exists():
        raise DataError(
            f"{out} holds an unfinished run; --resume goes on with it, "
            "or remove that folder to start anew"
        )
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; --out must be a folder")


def _write(path: Path, text: str) -> None:
    _atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, and move it there whole."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    os.replace(part, path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
