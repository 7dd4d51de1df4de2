"""Which forward calls, and which of their samples, are worth recording; and fixed probe sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tssan_viz.recording.announcements import Announcement
from tssan_viz.recording.errors import RecordingError

REASONS = ("every", "per_class", "max_bytes", "max_share", "failed")


@dataclass(frozen=True)
class Policy:
    """What is recorded of the calls that are announced; what is not is counted in the report.

    Parameters
    ----------
    every
        One step in so many: those whose number can be divided by it. Calls that were announced
        without a step are counted instead. Probes are always recorded.
    per_class
        So many samples of each class, the first that come; whenever they come again they are
        recorded again, so that they can be followed through training.
    max_bytes
        No more than so many bytes of maps.
    max_share
        No more than this share of the time, 0.02 for 2 %: the recorder measures what it costs and
        leaves calls out until it is within the budget again.
    """

    every: int = 1
    per_class: int | None = None
    max_bytes: int | None = None
    max_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "per_class", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecordingError(f"{name} is {value}; it is at least 1")
        if self.max_share is not None and not 0 < self.max_share < 1:
            raise RecordingError(
                f"max_share is {self.max_share}; it is a share of the time, 0.02 for 2 %"
            )


@dataclass
class Choice:
    """Applies a policy, call by call.

    Attributes
    ----------
    left_out
        Calls that were not recorded, by reason; ``failed`` are those in which the model raised.
    """

    policy: Policy
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    _members: dict[Hashable, set[str]] = field(default_factory=dict)

    def wants(
        self,
        announcement: Announcement,
        number: int,
        *,
        probe: bool,
        bytes_so_far: int,
        bytes_of_a_call: int,
        share: float,
    ) -> bool:
        """Return whether a call is recorded, and mark in the announcement which samples are."""
        policy = self.policy
        reason = None
        if not probe and number % policy.every:
            reason = "every"
        elif policy.max_bytes and bytes_so_far + bytes_of_a_call > policy.max_bytes:
            reason = "max_bytes"
        elif not probe and policy.max_share and share > policy.max_share:
            reason = "max_share"
        elif not probe and policy.per_class:
            announcement.kept = self._members_of(announcement, policy.per_class)
            if not announcement.kept.any():
                reason = "per_class"
        if reason:
            self.left_out[reason] += 1
        return reason is None

    def _members_of(self, announcement: Announcement, quota: int) -> np.ndarray:
        columns = announcement.columns
        classes = columns.get("label") or columns.get("class_name") or columns.get("class_code")
        if classes is None:
            raise RecordingError(
                "a quota per class needs to know the class: give samples() label= or class_name="
            )
        kept = np.zeros(len(classes), bool)
        for i, (sample, name) in enumerate(zip(announcement.samples, classes, strict=True)):
            members = self._members.setdefault(name, set())
            if len(members) < quota:
                members.add(sample)
            kept[i] = sample in members
        return kept


@dataclass(frozen=True)
class Probe:
    """A fixed set of samples that is looked at again and again while a model learns.

    Parameters
    ----------
    batches
        Pairs: what `Recorder.samples` is to be told, and what the model is called with: a mapping
        for keyword arguments, a list or tuple for positional ones, else the one argument.
    logits
        Finds the logits (n, classes) in the model's output. None: the output itself, its attribute
        ``logits`` or its entry ``"logits"``, where that has two axes and one line per sample.
    """

    batches: Sequence[tuple[Mapping[str, Any], Any]]
    logits: Callable[[Any], Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self.batches):
            raise RecordingError("a probe needs at least one batch")

    def answers(self, output: Any, samples: int) -> Tensor | None:
        """Return the logits of an output; None where there are none."""
        if self.logits is not None:
            return self.logits(output)
        found = output
        if isinstance(output, Mapping):
            found = output.get("logits")
        elif not isinstance(output, Tensor):
            found = getattr(output, "logits", None)
        if isinstance(found, Tensor) and found.ndim == 2 and len(found) == samples:
            return found
        return None


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model with the inputs of a probe's batch, on the device of its parameters."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = _to(inputs, device)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, list | tuple):
        return model(*inputs)
    return model(inputs)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation without gradients; leave it and all random states as they were.

    Each module goes back into its own mode: parts that were frozen in evaluation stay so.
    """
    training = [module for module in model.modules() if module.training]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the user's
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _to(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: _to(value, device) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [_to(value, device) for value in inputs]
    return inputs
