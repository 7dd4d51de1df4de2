"""How much each frame of a video counts for a class, by eight methods.

    by the attention alone        received, rollout, flow, value-norm
    by attention and gradient     relevance, attention-gradient
    without the attention         integrated-gradients, occlusion (both by Captum)

Axis letters: n video, k segment, m person, t frame, v joint, c coordinate, r row of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tssan_viz.errors import UserError
from tssan_viz.evidence.perturbing import Replacement, replaced, rested_joints
from tssan_viz.evidence.relevance import attention_times_gradient, relevance, value_norms
from tssan_viz.evidence.rollout import averaged, flow, rollout
from tssan_viz.evidence.tapping import Call, Tap

OF_ATTENTION = ("received", "rollout", "flow", "value-norm", "relevance", "attention-gradient")
WITHOUT_ATTENTION = ("integrated-gradients", "occlusion")
METHODS = OF_ATTENTION + WITHOUT_ATTENTION

WINDOWS = 8
"""Occlusion takes so large a part of the frames away at once, and goes on by half of it."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A model and how its rows of attention come about.

    Parameters
    ----------
    model
        In evaluation mode; ``model(clips, *extra)`` gives logits (n, classes) of clips
        (n, k, m, t, v, c). What is asked about one video must not hang on the others in its batch.
    row_axes
        What the rows of its attention are made of, in that order: n, k and m, or n and k where
        persons meet before it.
    chains
        How many calls of attention follow each other, stream by stream: ``(4,)`` for four layers,
        ``(4, 4)`` for two streams of four. None: all calls are one stream.
    projections
        Weight of the output projection of each call, for `value_norms`.
    """

    model: Callable[..., Tensor]
    row_axes: tuple[str, ...] = ("n", "k", "m")
    chains: tuple[int, ...] | None = None
    projections: tuple[Tensor | None, ...] | None = None


@dataclass(frozen=True, eq=False)
class Watched:
    """One forward and backward pass.

    Attributes
    ----------
    logits
        (n, classes).
    calls
        One per call of attention, detached.
    gradients
        (r, h, q, s) per call: of the target's logit with respect to the probabilities.
    """

    logits: Tensor
    calls: list[Call]
    gradients: list[Tensor]


@dataclass(frozen=True, eq=False)
class Attributions:
    """How much each frame counts, by each method.

    Attributes
    ----------
    logits
        (n, classes).
    persons
        Per method (n, k, m, t); m is 1 where persons meet before the attention, and for occlusion,
        which takes a frame from everybody at once.
    heads
        (n, call, h, k, m, t): attention that each frame receives in each layer and head.
    """

    logits: Tensor
    persons: dict[str, Tensor]
    heads: Tensor | None = None

    def frames(self, method: str) -> Tensor:
        """Return the sum over the persons, (n, k, t)."""
        return self.persons[method].sum(dim=2)


def checked_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the methods.

    Raises
    ------
    UserError
        One is none, or it is Captum's and Captum is not installed.
    """
    from difflib import get_close_matches

    for method in methods:
        if method not in METHODS:
            near = get_close_matches(method, METHODS, 1, 0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"no method {method!r}{hint} There are: {', '.join(METHODS)}")
    if set(methods) & set(WITHOUT_ATTENTION):
        _captum()
    return tuple(methods)


def watch(model: Callable[..., Tensor], inputs: Sequence[Any], target: Tensor) -> Watched:
    """Run a model once and take the gradient of each video's target logit.

    Parameters
    ----------
    model, inputs
        ``model(*inputs)`` gives logits (n, classes).
    target
        int64 (n,): the class that is asked about.

    Raises
    ------
    UserError
        The model attended to nothing that could be seen.
    """
    with torch.enable_grad(), Tap() as tap:
        logits = model(*inputs)
        if not tap.calls:
            raise UserError(
                "the model attended to nothing under PyTorch's own names (scaled_dot_product_"
                "attention, softmax over the last of three axes or more), so there is no attention "
                "to explain it by"
            )
        chosen = logits.gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(
            chosen, [call.probabilities for call in tap.calls], allow_unused=True
        )
    calls = [
        Call(
            call.probabilities.detach(),
            None if call.values is None else call.values.detach(),
            None if call.gathered is None else call.gathered.detach(),
        )
        for call in tap.calls
    ]
    filled = [
        torch.zeros_like(call.probabilities) if gradient is None else gradient.detach()
        for call, gradient in zip(calls, gradients, strict=True)
    ]
    return Watched(logits.detach(), calls, filled)


def of_rows(watched: Watched, method: str, explained: Explained) -> Tensor:
    """Return what a method of `OF_ATTENTION` gives to each frame of each row, (r, t).

    Streams that stand side by side are treated each by itself, and averaged.
    """
    chains = explained.chains or (len(watched.calls),)
    if sum(chains) != len(watched.calls):
        raise UserError(
            f"the model made {len(watched.calls)} calls of attention, and the streams described "
            f"have {' + '.join(map(str, chains))} layers"
        )
    parts, first = [], 0
    for length in chains:
        part = slice(first, first + length)
        first += length
        maps = [call.probabilities for call in watched.calls[part]]
        gradients = watched.gradients[part]
        if method == "received":
            parts.append(averaged([a.mean(dim=1) for a in maps]))
        elif method == "rollout":
            parts.append(averaged(rollout(maps)))
        elif method == "flow":
            parts.append(averaged(flow(maps)))
        elif method == "relevance":
            parts.append(averaged(relevance(maps, gradients)))
        elif method == "attention-gradient":
            parts.append(attention_times_gradient(maps, gradients))
        else:
            weights = explained.projections or (None,) * len(watched.calls)
            norms = zip(watched.calls[part], weights[part], strict=True)
            parts.append(averaged([value_norms(call, weight) for call, weight in norms]))
    return torch.stack(parts).mean(dim=0)


def attribute(
    explained: Explained,
    clips: Tensor,
    target: Tensor,
    *,
    methods: Sequence[str] = METHODS,
    extra: Sequence[Tensor] = (),
    present: Tensor | None = None,
    replacement: Replacement | None = None,
    steps: int = 16,
    heads: bool = False,
) -> Attributions:
    """Say of each frame how much it counts for a class.

    Parameters
    ----------
    explained
        The model, and how it attends.
    clips
        (n, k, m, t, v, c).
    target
        int64 (n,): the class that is asked about, in each video.
    methods
        Some of `METHODS`.
    extra
        Further arguments of the model, each with a line per video.
    present
        bool (n, k, m): absent persons count nothing. None: everybody is there.
    replacement
        What takes the place of a frame in occlusion; interpolation when None.
    steps
        Of the integral in integrated gradients.
    heads
        Return what frames receive in every layer and head too.

    Returns
    -------
    Attributions

    Raises
    ------
    UserError
        A method is none, or the model does not attend as `explained` says.
    """
    methods = checked_methods(methods)
    n, k, m = clips.shape[:3]
    everybody = torch.ones(n, k, m, dtype=torch.bool, device=clips.device)
    present = everybody if present is None else present
    due = n * k * (m if "m" in explained.row_axes else 1)
    there = present if "m" in explained.row_axes else present.any(dim=2, keepdim=True)

    def unfold(rows: Tensor) -> Tensor:
        """Return (n, k, m, t) of (r, t), absent persons at zero."""
        if len(rows) != due:
            raise UserError(
                f"the model attends in {len(rows)} rows, and {' × '.join(explained.row_axes)} of "
                f"the clips makes {due}"
            )
        return rows.reshape(n, k, m if "m" in explained.row_axes else 1, -1) * there[..., None]

    persons: dict[str, Tensor] = {}
    received = None
    logits = None
    if heads or set(methods) & set(OF_ATTENTION):
        watched = watch(explained.model, (clips, *extra), target)
        logits = watched.logits
        for method in methods:
            if method in OF_ATTENTION:
                persons[method] = unfold(of_rows(watched, method, explained))
        if heads:
            received = torch.stack(
                [
                    torch.stack(
                        [unfold(one) for one in call.probabilities.mean(dim=-2).unbind(dim=1)], 1
                    )
                    for call in watched.calls
                ],
                dim=1,
            )  # (n, call, h, k, m, t)
    if "integrated-gradients" in methods:
        whole = integrated_gradients(explained.model, clips, target, extra=extra, steps=steps)
        persons["integrated-gradients"] = whole.sum(dim=(-1, -2)) * present[..., None]
    if "occlusion" in methods:
        lost = occlusion_by_frame(
            explained.model, clips, target, extra=extra, replacement=replacement or Replacement()
        )
        persons["occlusion"] = lost[:, :, None]
    if logits is None:
        with torch.no_grad():
            logits = explained.model(clips, *extra)
    return Attributions(logits, {method: persons[method] for method in methods}, received)


def integrated_gradients(
    model: Callable[..., Tensor],
    clips: Tensor,
    target: Tensor,
    *,
    extra: Sequence[Tensor] = (),
    steps: int = 16,
) -> Tensor:
    """Integrate the gradient from a person at rest to the video (Sundararajan et al. 2017).

    The baseline is each person's mean pose over the video, held still: what the pose alone says of
    the class is thus no frame's merit. By Captum, Gauss-Legendre.

    Returns
    -------
    Tensor
        (n, k, m, t, v, c); its sum over a video is what the video's logit exceeds the baseline's by
        (to the error of the integral).
    """
    still = clips.mean(dim=(1, 3), keepdim=True).expand_as(clips)
    with torch.enable_grad():
        whole: Tensor = (
            _captum()
            .IntegratedGradients(_module(model))
            .attribute(
                clips,
                baselines=still,
                target=target,
                additional_forward_args=tuple(extra) or None,
                n_steps=steps,
                internal_batch_size=max(clips.shape[0], 32),
            )
        )
    return whole.detach().to(clips.dtype)


def occlusion_by_frame(
    model: Callable[..., Tensor],
    clips: Tensor,
    target: Tensor,
    *,
    extra: Sequence[Tensor] = (),
    replacement: Replacement,
    window: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """Take some frames at a time away and see what the target's logit loses (Zeiler, Fergus 2014).

    By Captum's `Occlusion`, over a tensor that says which frames are kept; a frame in several
    windows gets their mean. One frame alone is hardly missed, as its neighbours tell it: windows
    are an eighth of the frames long and half as far apart, unless others are asked for.

    Returns
    -------
    Tensor
        (n, k, t).
    """
    n, k, _, t = clips.shape[:4]

    # Captum repeats what goes through its arguments along with the videos.
    other = () if replacement.other is None else (replacement.other,)

    def kept_only(keep: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
        shown = keep.unflatten(1, (k, t)) > 0.5
        instead = Replacement(replacement.how, rest[0] if other else None)
        return model(replaced(x, shown, instead), *rest[len(other) :])

    keep = clips.new_ones(n, k * t)
    window = max(1, round(k * t / WINDOWS)) if window is None else min(window, k * t)
    stride = max(1, window // 2) if stride is None else min(stride, window)
    with torch.no_grad():
        lost: Tensor = (
            _captum()
            .Occlusion(kept_only)
            .attribute(
                keep,
                sliding_window_shapes=(window,),
                strides=(stride,),
                baselines=0,
                target=target,
                additional_forward_args=(clips, *other, *extra),
                perturbations_per_eval=max(1, 64 // n),
            )
        )
    return lost.unflatten(1, (k, t)).to(clips.dtype)


def occlusion_by_joint(
    model: Callable[..., Tensor], clips: Tensor, target: Tensor, *, extra: Sequence[Tensor] = ()
) -> Tensor:
    """Let one joint of one person rest in its mean place, and see what the target's logit loses.

    Returns
    -------
    Tensor
        (n, m, v).
    """
    n, _, m, _, v = clips.shape[:5]

    def moving_only(moving: Tensor, x: Tensor, *others: Tensor) -> Tensor:
        return model(rested_joints(x, moving.unflatten(1, (m, v)) > 0.5), *others)

    with torch.no_grad():
        lost: Tensor = (
            _captum()
            .Occlusion(moving_only)
            .attribute(
                clips.new_ones(n, m * v),
                sliding_window_shapes=(1,),
                baselines=0,
                target=target,
                additional_forward_args=(clips, *extra),
                perturbations_per_eval=max(1, 64 // n),
            )
        )
    return lost.unflatten(1, (m, v)).to(clips.dtype)


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise UserError(
            f"{' and '.join(WITHOUT_ATTENTION)} need Captum: pip install 'tssan-viz[evidence]'; "
            "the methods of attention do without"
        ) from error
    return attr


def _module(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return model.forward if isinstance(model, nn.Module) else model
