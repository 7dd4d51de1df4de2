"""The training loop, as Lightning runs it: one epoch, one validation, one resumable state."""

from __future__ import annotations

import logging
import math
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from tssan.callbacks import Bar, Keep, Metrics, Resumable, check_same_run
from tssan.clips import Clips, make_clips, mix
from tssan.errors import LostLoss
from tssan.network import SkeletonNetwork
from tssan.ranks import Rank
from tssan.recipe import Recipe
from tssan.run_folder import METRICS, RESUME, Interrupted
from tssan.sequences import Sequences

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

LOOK_EVERY = 50  # steps between two looks at the losses, each of which waits for the device
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


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
        On the part that selection looks at, at that epoch; None if there is none.
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


class Tally:
    """Loss, right answers and number of what an epoch has seen, summed over batches and ranks."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.batches: list[Tensor] = []
        self.looked_at = 0
        self.sums = torch.zeros(3, dtype=torch.float64)

    def add(self, loss: Tensor, right: Tensor, size: int) -> None:
        """Take over one batch of this rank: its mean loss, how many were right, and of how many."""
        loss, right = loss.detach().float(), right.float()
        self.batches.append(torch.stack([loss * size, right, torch.full_like(loss, size)]))

    def look(self) -> int | None:
        """Sum what came since the last look; return the first batch without a finite loss, from 1.

        Every rank has to call this after the same batch, and gets the same answer.
        """
        batches = torch.stack(self.batches)  # (batches, 3)
        if self.ranks > 1:
            torch.distributed.all_reduce(batches)
        batches = batches.cpu().double()
        lost = (~batches[:, 0].isfinite()).nonzero()
        first = self.looked_at + int(lost[0]) + 1 if len(lost) else None
        self.looked_at += len(self.batches)
        self.batches.clear()
        self.sums += batches.sum(dim=0)
        return first

    def means(self) -> tuple[float, float]:
        """Return mean loss and accuracy per sequence."""
        loss, right, size = self.sums.tolist()
        return loss / size, right / size


class Fit(pl.LightningModule):
    """The network's loss on clips, and the optimiser and schedule that the recipe names.

    All that is random hangs on (seed, epoch) alone, so that a run that is gone on from its last
    finished epoch ends like one that was never interrupted. Several ranks divide every batch: order
    and clips are those of one process. Two things are each rank's own: what dropout draws, and the
    statistics of batch norm where a recipe asks for it, which are those of the rank's share.
    """

    def __init__(
        self,
        network: SkeletonNetwork,
        recipe: Recipe,
        train: Sequences,
        validation: Sequences,
        seed: int,
        rank: Rank = Rank(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.train_part = train
        self.validation_part = validation
        self.seed = seed
        self.rank = rank
        self.order = Order(train, recipe.training.batch_size, seed)
        self.validation_order = Order(validation, recipe.training.batch_size, None)
        self.clip_randomness = torch.Generator()
        self.tally = Tally(rank.count)
        self.validation_tally = Tally(rank.count)

    def train_dataloader(self) -> Order:
        """Return the training batches."""
        return self.order

    def val_dataloader(self) -> Order | list[Any]:
        """Return the validation batches."""
        return self.validation_order if len(self.validation_part) else []

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, _: int) -> Tensor:
        """Leave places where they are: the sequences that they point to are on the host."""
        return batch

    def on_train_epoch_start(self) -> None:
        """Give the epoch its own randomness: order, clips, dropout."""
        self.order.epoch = self.current_epoch
        self.clip_randomness = seeded(self.seed, self.current_epoch, purpose=2)
        torch.manual_seed(seed_of(self.seed, self.current_epoch, purpose=3, rank=self.rank.number))
        self.tally = Tally(self.rank.count)

    def training_step(self, places: Tensor, number: int) -> Tensor:
        """Return the loss of this rank's share of a batch."""
        mine = self._share(len(places))
        # All ranks make the clips of the whole batch, a small part of a step, so that what is
        # random in them does not hang on how many ranks there are.
        clips = self._clips(self.train_part, places, train=True)
        mixture = None
        if self.recipe.training.mixup:
            mate, share = self._mixture(len(places))
            clips = mix(clips, mate.to(clips.position.device), share)
            mixture = self.train_part.labels[places[mate[mine]]], share
        if self.rank.count > 1:
            clips = Clips(*(part[mine.to(part.device)] for part in clips))
        loss, right = self._look(
            clips,
            self.train_part.labels[places[mine]],
            smoothing=self.recipe.training.label_smoothing,
            mixture=mixture,
        )
        size = len(mine) if self.rank.number < len(places) else 0
        self.tally.add(loss, right, size)
        last = number + 1 == len(self.order)
        if last or (number + 1) % LOOK_EVERY == 0:
            self._refuse_lost(self.tally.look())
        if last:
            mean, accuracy = self.tally.means()
            measured = {"train_loss": mean, "train_accuracy": accuracy}
            self.log_dict(measured, on_step=False, on_epoch=True, batch_size=1)
        if self.rank.count == 1:
            return loss
        # The gradient is averaged over ranks, each with its own mean: weigh them by their share.
        return loss * (size * self.rank.count / len(places))

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.validation_tally = Tally(self.rank.count)

    def validation_step(self, places: Tensor, _: int) -> None:
        """Measure this rank's share of a batch of the part that selection looks at."""
        mine = places[self._share(len(places))]
        clips = self._clips(self.validation_part, mine, train=False)
        loss, right = self._look(clips, self.validation_part.labels[mine], smoothing=0.0)
        size = len(mine) if self.rank.number < len(places) else 0
        self.validation_tally.add(loss, right, size)

    def on_validation_epoch_end(self) -> None:
        """Say how it went to whoever asks: the schedule, the kept weights, the metrics."""
        if self.validation_tally.look() is not None:
            self._refuse_lost(len(self.order))
        mean, accuracy = self.validation_tally.means()
        self.log_dict({"validation_loss": mean, "validation_accuracy": accuracy})

    def _share(self, size: int) -> Tensor:
        """Return which of a batch's places are this rank's; the first where nothing is left."""
        # Every rank has to step with the others; a stand-in goes in with weight 0.
        return torch.tensor([*range(self.rank.number, size, self.rank.count)] or [0])

    def _clips(self, part: Sequences, places: Tensor, *, train: bool) -> Clips:
        return make_clips(
            part.batch(places.tolist()).to(self.device),
            self.recipe.clips,
            train=train,
            generator=self.clip_randomness if train else None,
        )

    def _mixture(self, size: int) -> tuple[Tensor, float]:
        """Return which clip of the batch each is mixed with, and how much it keeps of itself."""
        # Drawn like the clips, the same on every rank.
        seed = int(torch.randint(2**62, (), generator=self.clip_randomness))
        draw = np.random.default_rng(seed)
        alpha = self.recipe.training.mixup
        return torch.as_tensor(draw.permutation(size)), float(draw.beta(alpha, alpha))

    def _look(
        self,
        clips: Clips,
        labels: Tensor,
        *,
        smoothing: float,
        mixture: tuple[Tensor, float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and how many are right.

        A mixture gives the labels of the other clips that are in these, and how much is not
        theirs; what is right is the label of the clip itself.
        """
        labels = labels.to(self.device)
        every = self.network(clips.position, clips.motion, clips.present, every_classifier=True)
        loss = self.network.loss(every, labels, label_smoothing=smoothing)
        if mixture is not None:
            # Cross-entropy is linear in its target: this is the loss of the mixed targets.
            others, share = mixture
            other = self.network.loss(every, others.to(self.device), label_smoothing=smoothing)
            loss = share * loss + (1 - share) * other
        right = (self.network.score(every.detach()).argmax(dim=1) == labels).sum()
        return loss, right

    def _refuse_lost(self, step: int | None) -> None:
        """Stop with what to try if the loss of a step is no number."""
        if step is None:
            return
        training = self.recipe.training
        tries = [f"a lower learning_rate than {training.learning_rate:g}"]
        if training.clip_gradient is None:
            tries.append("clip_gradient, such as 1.0")
        if training.schedule in ("cosine", "constant") and not training.warmup_epochs:
            tries.append("warmup_epochs, such as 5")
        if str(self.trainer.precision) == PRECISIONS["fp16"]:
            tries.append("bf16 or 32 instead of fp16")
        done = self.current_epoch
        kept = f"the state after epoch {done} is kept" if done else "no epoch was finished"
        raise LostLoss(
            f"the loss is no finite number any more in epoch {done + 1}, step {step} of "
            f"{len(self.order)}; {kept}. Start anew in another folder with "
            + ", or with ".join(tries)
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
        steps = len(self.order)
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
                    "frequency": steps,
                },
            }
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if training.schedule == "one_cycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=training.learning_rate, total_steps=training.epochs * steps
            )
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: learning_rate_share(
                    step,
                    warmup=training.warmup_epochs * steps,
                    total=training.epochs * steps,
                    falls=training.schedule == "cosine",
                ),
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def learning_rate_share(step: int, *, warmup: int, total: int, falls: bool) -> float:
    """Return the share of the highest learning rate at a step.

    Parameters
    ----------
    step
        From 0.
    warmup
        So many steps rise evenly; the first one is at 1 / warmup.
    total
        Steps of the whole training.
    falls
        True: from there down half a cosine, which would be at 0 after the last step (Loshchilov,
        Hutter, *SGDR*, 2017, equation 5, with one period). False: at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if not falls:
        return 1.0
    return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


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
    precision: str = "32",
    rank: Rank = Rank(),  # noqa: B008 - frozen
    callbacks: Sequence[Callback] = (),
) -> Fitting:
    """Train `network` in place.

    Parameters
    ----------
    network, recipe
        Freshly initialised, and how to train it.
    train, validation
        The fitted part and the part that selection looks at, which may be empty.
    out
        Folder for metrics and resumable state.
    facts
        What makes this run this run; on `resume` the state found must agree.
    seed
        Of order, clips and dropout.
    progress, resume
        As in `tssan.training.train`.
    precision
        ``32``, or mixed with ``bf16`` or ``fp16``.
    rank
        Which of several processes this is; only rank 0 writes.
    callbacks
        Lightning's, that look on.

    Returns
    -------
    Fitting
        The weights that the recipe keeps.

    Raises
    ------
    DataError
        The state found is that of another run.
    LostLoss
        The loss is no finite number any more.
    Interrupted
        Ctrl-C.
    """
    if resume:
        check_same_run(out / RESUME, facts)
    training = recipe.training
    keep = Keep(training.keep)
    metrics = Metrics(out / METRICS, training.selection)
    every: list[Callback] = [keep, Resumable(out / RESUME, facts), *callbacks]
    if rank.number == 0:
        every.insert(0, metrics)
        if progress:
            every.append(Bar(training.select_on))
    module = Fit(network, recipe, train, validation, seed, rank)
    handler = signal.getsignal(signal.SIGINT)
    with _quiet():
        trainer = pl.Trainer(
            accelerator=_accelerator(rank),
            devices=rank.count,
            strategy="auto" if rank.count == 1 else "ddp",
            plugins=None if rank.count == 1 else [rank.environment()],
            precision=PRECISIONS[precision],
            max_epochs=training.epochs,
            gradient_clip_val=training.clip_gradient,
            callbacks=every,
            default_root_dir=out,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if len(validation) else 0,
            use_distributed_sampler=False,  # the batches are divided above
        )
        device = trainer.strategy.root_device
        try:
            trainer.fit(module, ckpt_path=out / RESUME if resume else None, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            signal.signal(signal.SIGINT, handler)
            done = trainer.current_epoch
            raise Interrupted(
                f"stopped after {done} of {training.epochs} epochs; "
                + (
                    f"{out} can be gone on from with --resume"
                    if done
                    else "nothing is kept of them"
                )
            ) from None
    return Fitting(keep.weights, keep.epoch, keep.accuracy, metrics.seconds, device)


def _accelerator(rank: Rank) -> str:
    if rank.count == 1:
        return "auto"
    return "gpu" if torch.cuda.is_available() else "cpu"


def seeded(seed: int, epoch: int, *, purpose: int) -> torch.Generator:
    """Return a CPU generator that hangs on its arguments alone."""
    return torch.Generator().manual_seed(seed_of(seed, epoch, purpose=purpose))


def seed_of(seed: int, epoch: int, *, purpose: int, rank: int = 0) -> int:
    """Mix its arguments into one number; rank 0 draws what a single process does."""
    entropy = [seed, epoch, purpose, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


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
            # Of the few weights of a 1 × 1 convolution, in DistributedDataParallel's buckets.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
