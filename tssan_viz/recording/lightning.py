"""Recording while PyTorch Lightning trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tssan_viz.recording.following import Followed, Following, check_anything
from tssan_viz.recording.loaders import Describe, said_of
from tssan_viz.recording.policies import Probe
from tssan_viz.recording.recorder import record

if TYPE_CHECKING:
    from torch import nn


class AttentionRecording(Followed, Callback):
    """Records a network's attention while it is trained; a callback for `Trainer(callbacks=[…])`.

    Parameters
    ----------
    store
        As for `tssan_viz.record`.
    module
        Path of the network within the LightningModule, ``"network"``; empty for the whole of it.
    describe
        What is in a training batch, as for `Recorder.watch_loader`; None: training steps are not
        recorded. A step's rows have the phase ``train``, the step (from 0) and the epoch (from 1).
    probe
        A fixed set that is recorded before the first epoch, as epoch 0, and then after every
        `every_n_epochs`; or a function that makes it from the network when training begins.
        Training goes on as if there were no probe.
    every_n_epochs
        How often the probe is recorded.
    log
        Log the probe's per-head measures to the trainer's loggers and to `loggers`.
    loggers
        More of what `tssan_viz.recording.loggers` can log to.
    figures
        Patterns of the sites whose heads are drawn for the loggers.
    **options
        For `tssan_viz.record`: run, catalogue, policy, only, heads and so on.

    Attributes
    ----------
    recorder : Recorder or None
        While the trainer fits.
    report : Report or None
        After it.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        module: str = "",
        describe: Describe | None = None,
        probe: Probe | Callable[[Any], Probe] | None = None,
        every_n_epochs: int = 1,
        log: bool = True,
        loggers: Sequence[Any] = (),
        figures: Sequence[str] = (),
        **options: Any,
    ) -> None:
        check_anything(describe, probe)
        self._store = store
        self._module = module
        self._describe = describe
        self._probe = probe
        self._every = every_n_epochs
        self._log = log
        self._loggers = tuple(loggers)
        self._figures = tuple(figures)
        self._options: Mapping[str, Any] = options

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        network: nn.Module = pl_module.get_submodule(self._module) if self._module else pl_module
        self.recorder = record(network, self._store, **{"phase": "train", **self._options})
        loggers = [*(trainer.loggers if self._log else []), *self._loggers]
        self._following = Following(
            self.recorder,
            probe=self._probe,
            every_n_epochs=self._every,
            loggers=loggers if trainer.is_global_zero else [],
            figures=self._figures,
            steps=self._describe is not None,
        )
        self._following.begin()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the probe before anything is learnt."""
        assert self._following is not None
        if trainer.current_epoch == 0:
            self._following.look(trainer.global_step, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Announce the batch."""
        if self._describe is None:
            return
        assert self.recorder is not None
        counters = {
            "phase": "train",
            "step": trainer.global_step,
            "epoch": trainer.current_epoch + 1,
        }
        self.recorder.samples(**{**counters, **said_of(batch, self._describe)})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the probe, if it is its turn."""
        assert self._following is not None
        self._following.look(trainer.global_step, trainer.current_epoch + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sleep while Lightning validates."""
        if self._following is not None:
            self._following.sleep()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        if self._following is not None:
            self._following.wake()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what is whole."""
        self._end(exception)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring everything to its place."""
        self._end(None)
