"""What each head is needed for: what the loss does when it is taken out, or attends otherwise.

    zero       what the head gathers is nothing (Michel, Levy, Neubig, NeurIPS 2019, section 2.3)
    mean       it is what the head gathers on average over these videos and frames
    uniform    the head attends to all frames alike (Wiegreffe, Pinter, EMNLP 2019)
    rows       each frame attends as some other frame of the same video does

The same is done to all heads at once: a network that is as good when all its heads attend
uniformly, or when their rows change places, does not need what its maps show (Jain, Wallace, NAACL
2019; Wiegreffe, Pinter, section 3.2, who train such a network anew).

Beside them Michel's gradient score, |Σ gathered · ∂loss/∂gathered|, mean over videos, each layer at
unit ℓ² norm (section 4.1): one backward pass for all heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from tssan_viz.errors import UserError
from tssan_viz.evidence.over_subjects import interval, sign_flips, subject_means
from tssan_viz.evidence.tapping import Tap

EDITS = ("zero", "mean", "uniform", "rows")


class Batch(NamedTuple):
    """Some videos: the model's arguments, int64 labels (n,), and whose they are (n,)."""

    inputs: Sequence[Tensor]
    labels: Tensor
    subjects: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeadImportance:
    """What it costs to change each head, video by video.

    Attributes
    ----------
    layers : list of (stream, layer)
        Of each call of attention.
    loss, correct : (n,) float64
        Cross-entropy of the true class, and whether it came first, of the network as it is.
    changed_loss, changed_correct : dict of (call, h, n) float64
        The same with one head changed, per `EDITS`.
    gradient : (call, h, n) float64
        Michel's score, not normalised.
    subjects, labels : (n,) int64
    together_loss, together_correct : dict of (n,) float64
        With all heads changed at once, per `EDITS`.
    decodable : (call, h) float64 or None
        How well the class can be read from each head's maps, where that is known.
    """

    layers: list[tuple[str, int]]
    loss: NDArray[np.float64]
    correct: NDArray[np.float64]
    changed_loss: dict[str, NDArray[np.float64]]
    changed_correct: dict[str, NDArray[np.float64]]
    gradient: NDArray[np.float64]
    subjects: NDArray[np.int64]
    labels: NDArray[np.int64]
    together_loss: dict[str, NDArray[np.float64]]
    together_correct: dict[str, NDArray[np.float64]]
    asked: dict[str, Any] = field(default_factory=dict)
    decodable: NDArray[np.float64] | None = None

    @property
    def together(self) -> pd.DataFrame:
        """One line per edit of all heads at once.

        ``loss``: by how much it rises, mean over subjects, with ``loss_low``, ``loss_high`` and
        ``p`` (one-sided, sign flips of subjects, corrected over the edits by max-T);
        ``accuracy``: the change of accuracy, with its interval.
        """
        edits = list(self.together_loss)
        rise = np.stack([self.together_loss[edit] - self.loss for edit in edits], axis=1)
        change = np.stack([self.together_correct[edit] - self.correct for edit in edits], axis=1)
        _, rises = subject_means(rise, self.subjects)
        _, changes = subject_means(change, self.subjects)
        table = pd.DataFrame({"edit": edits, "loss": rises.mean(axis=0)})
        table["loss_low"], table["loss_high"] = interval(rises)
        table["p"] = sign_flips(rises).p_max_t
        table["accuracy"] = changes.mean(axis=0)
        table["accuracy_low"], table["accuracy_high"] = interval(changes)
        return table

    @property
    def goes_with_decodability(self) -> float | None:
        """Spearman correlation, over the heads, of being needed and of telling the class.

        Needed is by how much the loss rises without the head. A description of this network: its
        heads are no sample of anything. None where it is not known, or either is the same in all.
        """
        if self.decodable is None or "zero" not in self.changed_loss:
            return None
        needed, read = self.table["zero_loss"], self.decodable.ravel()
        if not np.isfinite(read).all() or np.ptp(read) == 0 or np.ptp(needed) == 0:
            return None
        return float(stats.spearmanr(needed, read).statistic)

    @property
    def table(self) -> pd.DataFrame:
        """One line per head.

        ``zero_loss``: by how much the loss rises, mean over subjects, with interval and
        ``zero_p`` (one-sided, sign flips of subjects, corrected over all heads by max-T);
        ``zero_accuracy``: the change of accuracy; so for each edit; ``gradient``: Michel's score.
        """
        heads = self.gradient.shape[1]
        table = pd.DataFrame(
            [
                {"stream": stream, "layer": layer, "head": head + 1}
                for stream, layer in self.layers
                for head in range(heads)
            ]
        )
        for edit in self.changed_loss:
            rise = (self.changed_loss[edit] - self.loss).reshape(len(table), -1)
            _, means = subject_means(rise.T, self.subjects)  # (s, heads)
            table[f"{edit}_loss"] = means.mean(axis=0)
            table[f"{edit}_low"], table[f"{edit}_high"] = interval(means)
            table[f"{edit}_p"] = sign_flips(means).p_max_t
            change = (self.changed_correct[edit] - self.correct).reshape(len(table), -1)
            _, means = subject_means(change.T, self.subjects)
            table[f"{edit}_accuracy"] = means.mean(axis=0)
        _, means = subject_means(self.gradient.reshape(len(table), -1).T, self.subjects)
        score = means.mean(axis=0).reshape(-1, heads)
        norm = np.linalg.norm(score, axis=1, keepdims=True)
        table["gradient"] = (score / np.where(norm > 0, norm, 1.0)).ravel()
        if self.decodable is not None:
            table["decodable"] = self.decodable.ravel()
        return table

    def of(self, videos: NDArray[np.bool_]) -> HeadImportance:
        """Return the same for some of the videos, such as those of one class."""
        return HeadImportance(
            self.layers,
            self.loss[videos],
            self.correct[videos],
            {edit: values[..., videos] for edit, values in self.changed_loss.items()},
            {edit: values[..., videos] for edit, values in self.changed_correct.items()},
            self.gradient[..., videos],
            self.subjects[videos],
            self.labels[videos],
            {edit: values[videos] for edit, values in self.together_loss.items()},
            {edit: values[videos] for edit, values in self.together_correct.items()},
            self.asked,
            self.decodable,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as plain values, ready for JSON; what is not defined is None."""

        def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
            return [
                {
                    str(key): None if isinstance(value, float) and not np.isfinite(value) else value
                    for key, value in line.items()
                }
                for line in table.to_dict(orient="records")
            ]

        return {
            **self.asked,
            "videos": len(self.loss),
            "subjects": len(np.unique(self.subjects)),
            "loss": float(self.loss.mean()),
            "accuracy": float(self.correct.mean()),
            "table": plain(self.table),
            "together": plain(self.together),
            "goes_with_decodability": self.goes_with_decodability,
        }


def head_importance(
    model: Callable[..., Tensor],
    batches: Callable[[], Iterable[Batch]],
    *,
    layers: Sequence[tuple[str, int]] | None = None,
    edits: Sequence[str] = EDITS,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> HeadImportance:
    """Change one head after the other and see what the loss does.

    Parameters
    ----------
    model
        In evaluation mode; ``model(*inputs)`` gives logits.
    batches
        Gives the videos, the same ones every time; they are gone through twice.
    layers
        Stream and layer of every call of attention; by default numbers.
    edits
        Some of `EDITS`.
    seed
        Of the permutation of rows.
    progress
        Called with the number of videos that are done.

    Raises
    ------
    UserError
        An edit is none, or what heads gather is not in reach.
    """
    for edit in edits:
        if edit not in EDITS:
            raise UserError(f"no change {edit!r} of a head; there are: {', '.join(EDITS)}")
    means = _means(model, batches())
    count, heads = len(means), means[0].shape[0]
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Any]] = {"loss": [], "correct": [], "gradient": []}
    changed: dict[tuple[str, str], list[NDArray[np.float64]]] = {
        (edit, what): [] for edit in edits for what in ("loss", "correct")
    }
    together: dict[tuple[str, str], list[NDArray[np.float64]]] = {key: [] for key in changed}
    subjects, labels = [], []
    for batch in batches():
        parts["gradient"].append(_gradient_scores(model, batch))
        loss, correct = _outcome(model, batch)
        parts["loss"].append(loss)
        parts["correct"].append(correct)
        for edit in edits:
            values = np.empty((2, count, heads, len(batch.labels)))
            for call in range(count):
                for head in range(heads):
                    with _tap(edit, {(call, head)}, means, generator):
                        values[:, call, head] = _outcome(model, batch)
            with _tap(edit, set(product(range(count), range(heads))), means, generator):
                loss, correct = _outcome(model, batch)
            changed[edit, "loss"].append(values[0])
            changed[edit, "correct"].append(values[1])
            together[edit, "loss"].append(loss)
            together[edit, "correct"].append(correct)
        subjects.append(batch.subjects)
        labels.append(batch.labels.cpu().numpy())
        if progress is not None:
            progress(len(batch.labels))
    return HeadImportance(
        list(layers) if layers is not None else [("main", call + 1) for call in range(count)],
        np.concatenate(parts["loss"]),
        np.concatenate(parts["correct"]),
        {edit: np.concatenate(changed[edit, "loss"], axis=-1) for edit in edits},
        {edit: np.concatenate(changed[edit, "correct"], axis=-1) for edit in edits},
        np.concatenate(parts["gradient"], axis=-1),
        np.concatenate(subjects),
        np.concatenate(labels),
        {edit: np.concatenate(together[edit, "loss"]) for edit in edits},
        {edit: np.concatenate(together[edit, "correct"]) for edit in edits},
    )


@torch.no_grad()
def _outcome(
    model: Callable[..., Tensor], batch: Batch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    logits = model(*batch.inputs)
    loss = F.cross_entropy(logits, batch.labels, reduction="none")
    correct = logits.argmax(dim=1) == batch.labels
    return loss.double().cpu().numpy(), correct.double().cpu().numpy()


@torch.no_grad()
def _means(model: Callable[..., Tensor], batches: Iterable[Batch]) -> list[Tensor]:
    """Return per call what each head gathers on average, (h, d)."""
    sums: list[Tensor] = []
    rows = 0
    for batch in batches:
        with Tap() as tap:
            model(*batch.inputs)
        if any(call.gathered is None for call in tap.calls) or not tap.calls:
            raise UserError(
                "what heads gather is not in reach in this model; let it call PyTorch's "
                "scaled_dot_product_attention"
            )
        found = [call.gathered.mean(dim=2).sum(dim=0) for call in tap.calls]  # type: ignore[union-attr]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        rows += len(tap.calls[0].probabilities)
    return [total / rows for total in sums]


def _gradient_scores(model: Callable[..., Tensor], batch: Batch) -> NDArray[np.float64]:
    """Return |Σ gathered · ∂loss/∂gathered| of each video, (call, h, n)."""
    n = len(batch.labels)
    with torch.enable_grad(), Tap() as tap:
        logits = model(*batch.inputs)
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        gathered = [call.gathered for call in tap.calls if call.gathered is not None]
        gradients = torch.autograd.grad(loss, gathered, allow_unused=True)
    scores = []
    for one, gradient in zip(gathered, gradients, strict=True):
        slope = torch.zeros_like(one) if gradient is None else gradient
        of_rows = (one * slope).sum(dim=(-1, -2)).detach()  # (r, h)
        # A head's gate is one for all rows of a video: they add up before the sign is dropped.
        scores.append(of_rows.unflatten(0, (n, -1)).sum(dim=1).abs().T)
    return torch.stack(scores).double().cpu().numpy()


def _tap(
    edit: str, chosen: set[tuple[int, int]], means: list[Tensor], generator: torch.Generator
) -> Tap:
    """Return what changes some heads, each given as its call and its number."""

    def gathered(call: int, x: Tensor) -> Tensor:
        x = x.clone()
        for head in range(x.shape[1]):
            if (call, head) in chosen:
                x[:, head] = 0.0 if edit == "zero" else means[call][head]
        return x

    def probabilities(call: int, a: Tensor) -> Tensor:
        a = a.clone()
        for head in range(a.shape[1]):
            if (call, head) not in chosen:
                continue
            if edit == "rows":
                order = torch.randperm(a.shape[2], generator=generator).to(a.device)
                a[:, head] = a[:, head][:, order]
            else:
                seen = (a[:, head] > 0).to(a.dtype)
                a[:, head] = seen / seen.sum(dim=-1, keepdim=True).clamp(min=1)
        return a

    if edit in ("zero", "mean"):
        return Tap(gathered=gathered, keep=False)
    return Tap(probabilities=probabilities, keep=False)
