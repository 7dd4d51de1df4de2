"""Training a network by a recipe, and opening what came of it (see `tssan.run_folder`)."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tssan.building import build_network
from tssan.clips import Clips, make_clips, pad
from tssan.errors import DataError
from tssan.network import SkeletonNetwork, mean_of_softmax
from tssan.ranks import Rank, check_devices, started
from tssan.recipe import Recipe, load_recipe
from tssan.run_folder import (
    CHECKPOINT,
    CURVES,
    EVALUATIONS,
    METRICS,
    RECIPE,
    RESULTS,
    RESUME,
    Interrupted,
    cannot_write,
    note_evaluation,
    now,
    only_writer,
    read_evaluations,
    refuse_to_overwrite,
    sha256,
    write_atomically,
    write_text,
)
from tssan.sequences import Sequences, divide

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from numpy.typing import NDArray

    from tssan.dataset import SkeletonDataset
    from tssan.loop import Fitting


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

    @property
    def evaluations(self) -> int:
        """How often the test part was looked at with this run: by training, and since."""
        return sum(int(entry["times"]) for entry in read_evaluations(self.path))

    def refuse_other(self, dataset: SkeletonDataset) -> None:
        """Raise DataError unless the data set has this run's name, joints and classes."""
        if dataset.name != self.dataset_name:
            raise DataError(
                f"{self.path} was trained on {self.dataset_name}, and the data set given is "
                f"{dataset.name}; give --data the folder of {self.dataset_name}"
            )
        self._refuse_other_joints(dataset)
        if tuple(entry.name for entry in dataset.classes) != self.classes:
            raise DataError(
                f"{self.path} tells {len(self.classes)} classes apart, and the data set given has "
                f"{len(dataset.classes)}, or others; give --data the folder that it was trained on"
            )

    def clips(self, dataset: SkeletonDataset, indices: Sequence[int] | NDArray[np.int64]) -> Clips:
        """Return the test-time clips of some sequences: always the same for the same sequence.

        Raises
        ------
        DataError
            The data set has other joints than the one that the run was trained on.
        """
        self._refuse_other_joints(dataset)
        recipe = self.recipe.clips
        batch = pad([dataset[int(i)] for i in indices], recipe.persons)
        return make_clips(batch, recipe, train=False)

    def _refuse_other_joints(self, dataset: SkeletonDataset) -> None:
        if dataset.topology.name != self.results["topology"]:
            raise DataError(
                f"{self.path} was trained on the joints {self.results['topology']}, but the data "
                f"set {dataset.name} has {dataset.topology.name}; give --data the folder of "
                f"{self.dataset_name}"
            )


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
    devices: int = 1,
    precision: str = "32",
    test: bool = True,
    command: str | None = None,
    callbacks: Sequence[Callback] = (),
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
    devices
        How many GPUs, or processes where there is no GPU, share every batch.
    precision
        ``32``, or mixed with ``bf16`` or ``fp16``. Tests are always in 32 bits.
    test
        False: for development; the test part is not read, and the results say so.
    command
        What was typed, for the results.
    callbacks
        Lightning's, that look on in the process that writes.

    Returns
    -------
    TrainedRun
        Opened from what was written.

    Raises
    ------
    DataError
        `out` holds a finished run, or an unfinished one and `resume` is not asked for, or none and
        it is; the data set does not know the protocol, or is too small to hold anything out of, or
        its skeleton lacks joints that the clips are laid by; the devices are not there; the loss
        is no number any more; the disk is full, or `out` not to be written.
    Interrupted
        Ctrl-C; the folder can be gone on from.
    """
    out = Path(out)
    protocol = dataset.protocol(recipe.protocol).name
    split = dataset.split(protocol)
    refuse_to_overwrite(out, resume)
    check_devices(devices, precision, recipe.training.batch_size)
    if not test and recipe.training.select_on == "test":
        raise DataError(
            "select_on: test looks at the test part after every epoch, and the run was to leave it "
            "alone; give one of them up"
        )
    fitted, held_out = divide(recipe.training, dataset.index, split.train, split.test, seed)
    parts = _Parts(protocol, fitted, held_out, split.test)
    facts = {
        "recipe": recipe.to_dict() | {"protocol": protocol},
        "seed": seed,
        "dataset": dataset.name,
        "sequences": len(dataset),
        "fingerprint": dataset.fingerprint,
        "devices": devices,
        "precision": precision,
    }

    # What the clips need of the skeleton and it lacks is said before anything is written.
    make_clips(pad([dataset[int(fitted[0])]], recipe.clips.persons), recipe.clips, train=False)
    with _how_to_go_on(out):
        out.mkdir(parents=True, exist_ok=True)
    with only_writer(out), _how_to_go_on(out):
        resume = resume and (out / RESUME).exists()  # else it was stopped within its first epoch
        if not resume:
            (out / METRICS).unlink(missing_ok=True)
            (out / EVALUATIONS).unlink(missing_ok=True)
            write_text(out / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        arguments = (recipe, dataset, parts, out, facts, seed, progress, resume, precision)
        with started(devices, _fit_parts, arguments) as rank:
            network, fitting = _fit_parts(rank, *arguments, callbacks=callbacks)
        results = {
            "recipe": recipe.name,
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
            "protocol": protocol,
            "seed": seed,
            "selected_on": recipe.training.select_on,
            "selection": recipe.training.selection,
            **_measure(out, recipe, dataset, parts, network, fitting, test=test),
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
            "joints": dataset.joints.shape[1],
            "coordinates": dataset.joints.shape[2] + recipe.clips.score_as_coordinate,
            "device": _device_name(fitting.device, devices),
            "devices": devices,
            "precision": precision,
            "command": command,
            "versions": versions(),
            "finished": now(),
        }
        write_text(out / RESULTS, json.dumps(results, indent=2) + "\n")
        (out / RESUME).unlink(missing_ok=True)
    return load_run(out)


@contextmanager
def _how_to_go_on(out: Path) -> Iterator[None]:
    """Let no Ctrl-C, before the first epoch or after the last, and no full disk go without a word.

    Raises
    ------
    Interrupted, DataError
        Say what is kept, and how to go on.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        if (out / RESUME).exists():
            raise Interrupted(f"{out} can be gone on from with --resume") from None
        raise Interrupted("stopped before an epoch was finished; nothing is kept") from None
    except OSError as error:
        kept = "; the last finished epoch is kept, and --resume goes on from it"
        raise DataError(
            f"{cannot_write(out, error)}{kept if (out / RESUME).exists() else ''}"
        ) from error


@dataclass(frozen=True, eq=False)
class _Parts:
    """Positions in the data set: what is fitted, what selection looks at, what is measured."""

    protocol: str
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]
    test: NDArray[np.int64]


def _fit_parts(
    rank: Rank,
    recipe: Recipe,
    dataset: SkeletonDataset,
    parts: _Parts,
    out: Path,
    facts: dict[str, Any],
    seed: int,
    progress: bool,
    resume: bool,
    precision: str,
    callbacks: Sequence[Callback] = (),
) -> tuple[SkeletonNetwork, Fitting]:
    """Build and fit the network as one of the ranks; return it with the kept weights."""
    from tssan.loop import fit  # Lightning takes seconds to import; opening a run needs none of it

    persons = recipe.clips.persons
    fitted = Sequences.load(dataset, parts.fitted, persons)
    held_out = Sequences.load(dataset, parts.held_out, persons)
    torch.manual_seed(seed)
    network = build_network(
        recipe,
        joints=fitted.joints,
        coordinates=fitted.coordinates + recipe.clips.score_as_coordinate,
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
        precision=precision,
        rank=rank,
        callbacks=callbacks,
    )
    network.load_state_dict(fitting.weights)
    return network.to(fitting.device), fitting


def _measure(
    out: Path,
    recipe: Recipe,
    dataset: SkeletonDataset,
    parts: _Parts,
    network: SkeletonNetwork,
    fitting: Fitting,
    *,
    test: bool,
) -> dict[str, Any]:
    """Write weights and curves, measure once on the test part if wanted, and note that it was."""
    from tssan.plots import draw_curves

    weights = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    # Not by safetensors' own `save_file`, which gives the file to nobody but its owner.
    write_atomically(out / CHECKPOINT, lambda path: path.write_bytes(save(weights)))
    draw_curves(out / METRICS, out / CURVES, title=recipe.name)
    if not test:
        names = ("test_accuracy", "test_top5", "test_correct", "test_sequences")
        return {"test_evaluated": False} | dict.fromkeys(names)
    sequences = Sequences.load(dataset, parts.test, recipe.clips.persons)
    logits = scores(network, sequences, recipe)
    correct = int((logits.argmax(dim=1) == sequences.labels).sum())
    accuracy = correct / len(sequences)
    if recipe.training.select_on == "test":
        epochs = recipe.training.epochs
        note_evaluation(out, "selection", times=epochs, accuracy=fitting.validation_accuracy)
    note_evaluation(out, "train", times=1, accuracy=accuracy)
    return {
        "test_evaluated": True,
        "test_accuracy": accuracy,
        "test_top5": _top5(logits, sequences.labels),
        "test_correct": correct,
        "test_sequences": len(sequences),
    }


def versions() -> dict[str, str]:
    """Return what the numbers of a run hang on besides its recipe and data."""
    packages = {name: importlib.metadata.version(name) for name in ("tssan-viz", "lightning")}
    return {
        **packages,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


@torch.no_grad()
def scores(
    network: SkeletonNetwork, sequences: Sequences, recipe: Recipe, *, progress: bool = False
) -> Tensor:
    """Return the logits (n, classes) of test-time clips; leave the network in evaluation.

    Where the recipe averages over crops, these are the logarithms of the mean probabilities.
    """
    network.eval()
    device = next(network.parameters()).device
    further = [
        (share, place)
        for share in recipe.clips.averaged_crops
        for place in ((0.0, 0.5, 1.0) if share < 1 else (0.5,))
    ]
    crops = list(dict.fromkeys([(recipe.clips.test_crop, 0.5), *further]))
    logits = []
    batches = torch.arange(len(sequences)).split(recipe.training.batch_size)
    for places in track(batches, "evaluating", console=Console(stderr=True), disable=not progress):
        batch = sequences.batch(places.tolist()).to(device)
        each = []
        for crop in crops:
            clips = make_clips(batch, recipe.clips, train=False, test_crop=crop)
            each.append(network(clips.position, clips.motion, clips.present).float().cpu())
        every = torch.stack(each)  # (crops, n, classes)
        logits.append(every[0] if len(crops) == 1 else mean_of_softmax(every, dim=0))
    return torch.cat(logits)


def _top5(logits: Tensor, labels: Tensor) -> float | None:
    """Return how often the true class is among the first five; None where there are no more."""
    if logits.shape[1] <= 5:
        return None
    return float((logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1).float().mean())


def _device_name(device: torch.device, count: int) -> str:
    if device.type == "cuda":
        return (f"{count} × " if count > 1 else "") + torch.cuda.get_device_name(device)
    if count > 1:
        return f"{count} CPU processes"
    return f"{torch.get_num_threads()} CPU threads"
