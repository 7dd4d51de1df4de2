"""What watches a training: the kept weights, the metrics, the resumable state, the bar."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
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

from tssan.errors import DataError
from tssan.run_folder import differences, nothing_left

EPOCH_COLUMNS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "seconds",
    "selection",
)


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
        network = pl_module.get_submodule("network")
        self.epoch = trainer.current_epoch + 1
        self.accuracy = None if accuracy is None else float(accuracy)
        self.weights = {
            name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()
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

    def __init__(self, path: Path, selection: str) -> None:
        self.path = path
        self.selection = selection
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
            "selection": self.selection,
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
        with nothing_left(part) if trainer.is_global_zero else nullcontext():
            trainer.save_checkpoint(part)  # of all ranks together; rank 0 writes
            if trainer.is_global_zero:
                os.replace(part, self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return which run this is, for `check_same_run`."""
        return self.facts


class Bar(Callback):
    """One progress bar over the whole training; `looks_at` is the part that it shows beside."""

    def __init__(self, looks_at: str) -> None:
        self.looks_at = looks_at
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
            note += f" · {self.looks_at} {100 * float(metrics['validation_accuracy']):.1f} %"
        self.progress.update(self.task, completed=trainer.current_epoch + 1, note=note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it stands."""
        self.progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self.progress.stop()


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
        if (difference := differences(found.get(name), value)) is not None:
            raise DataError(
                f"{path.parent} holds an unfinished run with another {name}: {difference}; "
                "give the same, or another --out"
            )
