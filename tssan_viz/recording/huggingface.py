"""Recording while the Trainer of Hugging Face transformers trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from transformers import TrainerCallback

from tssan_viz.recording.following import Followed, Following, check_anything
from tssan_viz.recording.policies import Probe
from tssan_viz.recording.recorder import record


class AttentionRecording(Followed, TrainerCallback):
    """Records a model's attention while it is trained; a callback for `Trainer(callbacks=[…])`.

    The Trainer tells its callbacks nothing of an exception. Used as a context manager around
    `trainer.train()`, the recording is brought to its place even then.

    Parameters
    ----------
    store
        As for `tssan_viz.record`.
    describe
        What is in a training batch, from the keyword arguments that the model is called with: what
        `Recorder.samples` would be told. None: training steps are not recorded. A step's rows have
        the phase ``train``, the step (from 0) and the epoch (from 1).
    probe
        A fixed set that is recorded before the first epoch, as epoch 0, and then after every
        `every_n_epochs`; or a function that makes it from the network when training begins.
    every_n_epochs
        How often the probe is recorded.
    loggers
        What `tssan_viz.recording.loggers` can log to.
    figures
        Patterns of the sites whose heads are drawn for the loggers.
    **options
        For `tssan_viz.record`: run, catalogue, policy, only, heads and so on.

    Attributes
    ----------
    recorder : Recorder or None
        While the Trainer trains.
    report : Report or None
        After it.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        probe: Probe | Callable[[Any], Probe] | None = None,
        every_n_epochs: int = 1,
        loggers: Sequence[Any] = (),
        figures: Sequence[str] = (),
        **options: Any,
    ) -> None:
        check_anything(describe, probe)
        self._store = store
        self._describe = describe
        self._probe = probe
        self._every = every_n_epochs
        self._loggers = tuple(loggers)
        self._figures = tuple(figures)
        self._options = options
        self._step = 0
        self._epoch = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(error)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin to watch, and look at the probe before anything is learnt."""
        model = given["model"]

        def describe(args: tuple[Any, ...], inputs: dict[str, Any]) -> Mapping[str, Any] | None:
            if not model.training:
                return None  # the Trainer evaluates; it does not say when it begins to
            assert self._describe is not None
            counters = {"phase": "train", "step": self._step, "epoch": self._epoch}
            return {**counters, **self._describe(inputs)}

        self.recorder = record(
            model,
            self._store,
            **{
                "phase": "train",
                "describe": None if self._describe is None else describe,
                **self._options,
            },
        )
        self._following = Following(
            self.recorder,
            probe=self._probe,
            every_n_epochs=self._every,
            loggers=self._loggers if state.is_world_process_zero else (),
            figures=self._figures,
            steps=self._describe is not None,
        )
        self._following.begin()
        if state.global_step == 0:
            self._following.look(0, 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take over the counters."""
        self._step, self._epoch = state.global_step, int(state.epoch or 0) + 1

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at the probe, if it is its turn."""
        assert self._following is not None
        # An epoch that `max_steps` cuts short counts, as its training rows say and Lightning does.
        self._following.look(state.global_step, math.ceil(state.epoch - 1e-6))

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Bring everything to its place."""
        self._end(None)
