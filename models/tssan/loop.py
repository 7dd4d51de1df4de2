"""The training loop, as Lightning runs it: one epoch, one validation, one resumable state."""

from __future__ import annotations

import csv
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from tssan.clips import make_clips
from tssan.errors import DataError
from tssan.network import SkeletonNetwork
from tssan.recipe import Recipe
from tssan.run_folder import METRICS, RESUME, Interrupted
from tssan.sequences import Sequences

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

EPOCH_COLUMNS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "seconds",
)


@dataclass(frozen=True)
class Fitting:
    """What a finished training leaves.

    Attributes
    ----------
    weights
        The kept ones.
    epoch
        After which epoch, from 1.
    validation_accuracy
        On the held-out part at that epoch; None if nothing was held out.
    seconds
        Of training, over all sittings.
    device
        Where it ran.
    """

    weights: dict[str, Tensor]
    epoch: int
    validation_accuracy: float | None
    seconds: float
    device: torch.device


class Order:
    """The batches of an epoch, as places in `sequences`, in an order of seed and epoch alone."""

    def __init__(self, sequences: Sequences, batch_size: int, seed: int | None) -> None:
        self.count = len(sequences)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        places = torch.arange(self.count)
        if self.seed is not None:
            places = torch.randperm(self.count, generator=seeded(self.seed, self.epoch, purpose=1))
        yield from places.split(self.batch_size)


class Fit(pl.LightningModule):
    """Cross-entropy on clips, and the optimiser and schedule that the recipe names.

    All that is random hangs on (seed, epoch) alone, so that a run that is gone on from its last
    finished epoch ends like one that was never interrupted.
    """

    def __init__(
        self,
        network: SkeletonNetwork,
        recipe: Recipe,
        train: Sequences,
        validation: Sequences,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.train_part = train
        self.validation_part = validation
        self.seed = seed
        self.order = Order(train, recipe.training.batch_size, seed)
        self.clip_randomness = torch.Generator()

    def train_dataloader(self) -> Order:
        """Return the training batches."""
        return self.order

    def val_dataloader(self) -> Order | list[Any]:
        """Return the validation batches."""
        if not len(self.validation_part):
            return []
        return Order(self.validation_part, self.recipe.training.batch_size, None)

    def on_train_epoch_start(self) -> None:
        """Give the epoch its own randomness: order, clips, dropout."""
        self.order.epoch = self.current_epoch
        self.clip_randomness = seeded(self.seed, self.current_epoch, purpose=2)
        torch.manual_seed(seed_of(self.seed, self.current_epoch, purpose=3))

    def training_step(self, places: Tensor, _: int) -> Tensor:
        """Return the loss of one batch."""
        loss, correct = self._look(
            self.train_part, places, train=True, smoothing=self.recipe.training.label_smoothing
        )
        self._log("train", loss, correct, len(places))
        return loss

    def validation_step(self, places: Tensor, _: int) -> None:
        """Measure one batch of the held-out part."""
        loss, correct = self._look(self.validation_part, places, train=False, smoothing=0.0)
        self._log("validation", loss, correct, len(places))

    def _look(
        self, part: Sequences, places: Tensor, *, train: bool, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        clips = make_clips(
            part.batch(places.tolist()).to(self.device),
            self.recipe.clips,
            train=train,
            generator=self.clip_randomness if train else None,
        )
        labels = part.labels[places.cpu()].to(self.device)
        every = self.network(clips.position, clips.motion, clips.present, every_classifier=True)
        loss = self.network.loss(every, labels, label_smoothing=smoothing)
        return loss, (self.network.score(every).argmax(dim=1) == labels).float().mean()

    def _log(self, part: str, loss: Tensor, accuracy: Tensor, size: int) -> None:
        self.log_dict(
            {f"{part}_loss": loss.detach(), f"{part}_accuracy": accuracy},
            on_step=False,
            on_epoch=True,
            batch_size=size,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and its schedule."""
        training = self.recipe.training
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
        optimizer = make(
            self.network.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
        )
        if training.schedule == "one_cycle":
            cycle = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=training.learning_rate,
                total_steps=training.epochs * len(self.order),
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": cycle, "interval": "step"},
            }
        if training.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer,
                mode="max",
                factor=training.plateau_factor,
                # PyTorch acts when more than `patience` epochs were bad, so 4 is "after 5".
                patience=training.plateau_epochs - 1,
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {
                    "scheduler": plateau,
                    "monitor": "validation_accuracy",
                    # Once per epoch, after the last step. By "epoch" Lightning would act only after
                    # the resumable state is saved, and a resumed run would miss it.
                    "interval": "step",
                    "frequency": len(self.order),
                },
            }
        return {"optimizer": optimizer}


class Keep(Callback):
    """Hold the weights that the recipe wants kept."""

    def __init__(self, which: str) -> None:
        self.which = which
        self.best = 0.0
        self.epoch = 0
        self.accuracy: float | None = None
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the weights if they are better, or the last ones."""
        metrics = trainer.callback_metrics
        accuracy = metrics.get("validation_accuracy")
        if self.which == "best":
            assert accuracy is not None
            # Small held-out parts tie often; of equals the later one has learned more.
            if float(accuracy) < self.best:
                return
            self.best = float(accuracy)
        elif trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            return
        assert isinstance(pl_module, Fit)
        self.epoch = trainer.current_epoch + 1
        self.accuracy = None if accuracy is None else float(accuracy)
        self.weights = {
            name: tensor.detach().cpu().clone()
            for name, tensor in pl_module.network.state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what the resumable state carries."""
        return {
            "best": self.best,
            "epoch": self.epoch,
            "accuracy": self.accuracy,
            "weights": self.weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best = state_dict["best"]
        self.epoch = state_dict["epoch"]
        self.accuracy = state_dict["accuracy"]
        self.weights = state_dict["weights"]


class Metrics(Callback):
    """Write one line of metrics.csv per epoch, and keep the time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = 0.0
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, earlier sittings included."""
        return self.before + time.perf_counter() - self.began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; drop the lines of epochs that are done again."""
        self.began = time.perf_counter()
        lines: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                lines = [
                    x for x in csv.DictReader(file) if int(x["epoch"]) <= trainer.current_epoch
                ]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, EPOCH_COLUMNS)
            writer.writeheader()
            writer.writerows(lines)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line of the epoch."""
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        line: dict[str, float | str] = {
            name: f"{measured[name]:.6g}" for name in EPOCH_COLUMNS if name in measured
        }
        line |= {
            "epoch": trainer.current_epoch + 1,
            "learning_rate": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}",
            "seconds": f"{self.seconds:.1f}",
        }
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, EPOCH_COLUMNS, restval="").writerow(line)

    def state_dict(self) -> dict[str, Any]:
        """Return what the resumable state carries."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.before = state_dict["seconds"]


class Resumable(Checkpoint):
    """After every epoch, put the whole state where `resume` looks; whole or not at all."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.facts = dict(facts)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save. Lightning calls this kind of callback after all others."""
        part = self.path.with_name(f".{self.path.name}.part")
        trainer.save_checkpoint(part)
        os.replace(part, self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return which run this is, for `check_same_run`."""
        return self.facts


class Bar(Callback):
    """One progress bar over the whole training."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("training, epoch"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self.task = self.progress.add_task(
            "training", total=trainer.max_epochs, completed=trainer.current_epoch, note="starting"
        )
        self.progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the bar."""
        metrics = trainer.callback_metrics
        note = f"loss {float(metrics['train_loss']):.2f}"
        if "validation_accuracy" in metrics:
            note += f" · validation {100 * float(metrics['validation_accuracy']):.1f} %"
        self.progress.update(self.task, completed=trainer.current_epoch + 1, note=note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it stands."""
        self.progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self.progress.stop()


def fit(
    network: SkeletonNetwork,
    recipe: Recipe,
    train: Sequences,
    validation: Sequences,
    *,
    out: Path,
    facts: Mapping[str, Any],
    seed: int,
    progress: bool,
    resume: bool,
) -> Fitting:
    """Train `network` in place.

    Parameters
    ----------
    network, recipe
        Freshly initialised, and how to train it.
    train, validation
        The fitted part and the held-out part, which may be empty.
    out
        Folder for metrics and resumable state.
    facts
        What makes this run this run; on `resume` the state found must agree.
    seed
        Of order, clips and dropout.
    progress, resume
        As in `tssan.training.train`.

    Returns
    -------
    Fitting
        The weights that the recipe keeps.

    Raises
    ------
    DataError
        The state found is that of another run.
    Interrupted
        Ctrl-C.
    """
    if resume:
        check_same_run(out / RESUME, facts)
    keep = Keep(recipe.training.keep)
    metrics = Metrics(out / METRICS)
    callbacks: list[Callback] = [metrics, keep, Resumable(out / RESUME, facts)]
    if progress:
        callbacks.append(Bar())
    module = Fit(network, recipe, train, validation, seed)
    handler = signal.getsignal(signal.SIGINT)
    with _quiet():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=recipe.training.epochs,
            gradient_clip_val=recipe.training.clip_gradient,
            callbacks=callbacks,
            default_root_dir=out,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if len(validation) else 0,
        )
        device = trainer.strategy.root_device
        try:
            trainer.fit(module, ckpt_path=out / RESUME if resume else None, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            signal.signal(signal.SIGINT, handler)
            done = trainer.current_epoch
            raise Interrupted(
                f"stopped after {done} of {recipe.training.epochs} epochs; "
                + (
                    f"{out} can be gone on from with --resume"
                    if done
                    else "nothing is kept of them"
                )
            ) from None
    return Fitting(keep.weights, keep.epoch, keep.accuracy, metrics.seconds, device)


def check_same_run(path: Path, facts: Mapping[str, Any]) -> None:
    """Raise DataError unless the resumable state at `path` is of the run that `facts` describe."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["callbacks"]["Resumable"]
    except (OSError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise DataError(
            f"{path}: the state of the unfinished run cannot be read ({error}); "
            "remove the folder and start anew"
        ) from None
    for name, value in facts.items():
        if found.get(name) != value:
            raise DataError(
                f"{path.parent} holds an unfinished run with another {name}: "
                f"{_difference(found.get(name), value)}; give the same, or another --out"
            )


def _difference(found: Any, wanted: Any) -> str:
    """Say where two values part, down to the key."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in wanted:
            if found.get(key) != wanted[key]:
                inner = _difference(found.get(key), wanted[key])
                return f"{key}.{inner}" if isinstance(wanted[key], Mapping) else f"{key}: {inner}"
    return f"{found!r} there, {wanted!r} now"


def seeded(seed: int, epoch: int, *, purpose: int) -> torch.Generator:
    """Return a CPU generator that hangs on its arguments alone."""
    return torch.Generator().manual_seed(seed_of(seed, epoch, purpose=purpose))


def seed_of(seed: int, epoch: int, *, purpose: int) -> int:
    """Mix seed, epoch and purpose into one number."""
    return int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's tips and its advice for other loops out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
