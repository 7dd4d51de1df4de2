"""Do the frames that an attribution points at matter? Take them away, in its order, and ask again.

Deletion takes the frames with the greatest attribution away first and follows the probability of
the class: a faithful order makes it fall early. Insertion begins with nothing and puts them back:
it rises early (Petsiuk, Das, Saenko, *RISE*, BMVC 2018). Areas are by the trapezoid rule over the
share of frames. Comprehensiveness is the mean fall when the first 5, 10, 20 and 50 % are taken
away, sufficiency the mean fall when nothing but them is left (DeYoung et al., *ERASER*, ACL 2020,
section 4.1, without their 1 %, which is less than a frame). Every number stands beside that of
random orders. Frames are replaced as `tssan_viz.evidence.perturbing` says: where they are
interpolated, a few frames anywhere already tell the way of the movement, so that random insertion,
whose frames lie everywhere, is hard to beat, and deletion is the sharper question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tssan_viz.evidence.over_subjects import interval, sign_flips, subject_means
from tssan_viz.evidence.perturbing import Replacement, replaced

SHARES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Which shares of the frames are taken away, or put back."""

RANDOM = "random"
MEASURES = ("deletion", "insertion", "comprehensiveness", "sufficiency")

# Which way each is better: with +1, greater than random is.
_BETTER = {"deletion": -1.0, "insertion": 1.0, "comprehensiveness": 1.0, "sufficiency": -1.0}


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion curves of several orders of the frames of several videos.

    Attributes
    ----------
    methods : list of str
        The orders; the last is `RANDOM`, the mean over several random ones.
    shares : (f,)
    deletion, insertion : (o, n, f) float64
        Probability of the class that is asked about, per order, video and share.
    samples : list of str
    subjects : (n,) int64
    asked : dict
        What it was made with: how frames are replaced, how many random orders, and so on.
    """

    methods: list[str]
    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    samples: list[str]
    subjects: NDArray[np.int64]
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def per_video(self) -> dict[str, NDArray[np.float64]]:
        """Each of `MEASURES`, (o, n)."""
        inner = (self.shares > 0) & (self.shares <= 0.5)
        whole = self.deletion[..., :1]
        return {
            "deletion": np.trapezoid(self.deletion, self.shares, axis=-1),
            "insertion": np.trapezoid(self.insertion, self.shares, axis=-1),
            "comprehensiveness": (whole - self.deletion[..., inner]).mean(axis=-1),
            "sufficiency": (whole - self.insertion[..., inner]).mean(axis=-1),
        }

    @property
    def table(self) -> pd.DataFrame:
        """One line per method: means over subjects, intervals, and what random orders come to.

        For each measure ``x``: ``x``, ``x_low``, ``x_high``; ``x_gain`` is by how much it is better
        than random (above zero: better, whichever way the measure goes), with its interval, and
        ``x_p`` (sign flips of subjects, corrected over the methods by max-T).
        """
        lines: list[dict[str, Any]] = [{"method": method} for method in self.methods]
        for name, values in self.per_video.items():
            _, means = subject_means(values.T, self.subjects)  # (s, o)
            low, high = interval(means)
            gains = _BETTER[name] * (means - means[:, -1:])
            gain_low, gain_high = interval(gains)
            p = sign_flips(gains[:, :-1]).p_max_t
            for o, line in enumerate(lines):
                line |= {
                    name: means[:, o].mean(),
                    f"{name}_low": low[o],
                    f"{name}_high": high[o],
                }
                if self.methods[o] != RANDOM:
                    line |= {
                        f"{name}_gain": gains[:, o].mean(),
                        f"{name}_gain_low": gain_low[o],
                        f"{name}_gain_high": gain_high[o],
                        f"{name}_p": p[o],
                        f"{name}_better_in": int((gains[:, o] > 0).sum()),
                    }
        table = pd.DataFrame(lines)
        table["subjects"] = len(np.unique(self.subjects))
        table["videos"] = len(self.samples)
        return table

    @property
    def curves(self) -> pd.DataFrame:
        """One line per method and share: both curves, mean over subjects, with intervals."""
        parts = []
        for o, method in enumerate(self.methods):
            columns: dict[str, Any] = {"method": method, "share": self.shares}
            for name, values in (("deletion", self.deletion), ("insertion", self.insertion)):
                _, means = subject_means(values[o], self.subjects)
                low, high = interval(means)
                columns |= {name: means.mean(axis=0), f"{name}_low": low, f"{name}_high": high}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON; what is not defined is None."""

        def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
            return [
                {
                    str(key): None if isinstance(value, float) and not np.isfinite(value) else value
                    for key, value in line.items()
                }
                for line in frame.to_dict(orient="records")
            ]

        videos = []
        measures = self.per_video
        for n, sample in enumerate(self.samples):
            of_video = {
                method: {name: float(measures[name][o, n]) for name in MEASURES}
                for o, method in enumerate(self.methods)
            }
            videos.append({"sample": sample, "subject": int(self.subjects[n]), "methods": of_video})
        return {
            **self.asked,
            "shares": self.shares.tolist(),
            "table": plain(self.table),
            "curves": plain(self.curves),
            "videos": videos,
        }


def random_scores(
    videos: int, frames: int, *, orders: int, generator: torch.Generator
) -> list[Tensor]:
    """Return scores (n, k·t) that put the frames into random orders."""
    return [torch.rand(videos, frames, generator=generator) for _ in range(orders)]


def kept_when(
    scores: Tensor, share: float, *, inserted: bool, generator: torch.Generator
) -> Tensor:
    """Return which frames are there when a share of them was taken away, or put back.

    Parameters
    ----------
    scores
        (n, f): the greatest go first. Frames that tie go in random order, so that an attribution
        that says nothing is worth as much as chance.
    share
        Rounded to whole frames, at least one unless it is 0.
    inserted
        True: the share is what is there. False: it is what is gone.
    generator
        On the CPU.

    Returns
    -------
    Tensor
        bool (n, f).
    """
    n, frames = scores.shape
    chance = torch.rand(n, frames, generator=generator).argsort(dim=1).to(scores.device)
    order = scores.gather(1, chance).argsort(dim=1, descending=True, stable=True)
    order = chance.gather(1, order)  # the places in order of their scores
    count = 0 if share == 0 else max(1, round(share * frames))
    first = torch.zeros(n, frames, dtype=torch.bool, device=scores.device)
    first.scatter_(1, order[:, :count], True)
    return first if inserted else ~first


@torch.no_grad()
def probabilities_by_order(
    model: Callable[..., Tensor],
    clips: Tensor,
    target: Tensor,
    scores: Mapping[str, Tensor],
    *,
    extra: Sequence[Tensor] = (),
    replacement: Replacement,
    shares: Sequence[float] = SHARES,
    random_orders: int = 3,
    seed: int = 0,
    batch: int = 64,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Follow the probability of the class while frames go, and while they come back.

    Parameters
    ----------
    model, clips, target, extra
        As in `tssan_viz.evidence.attributions.attribute`.
    scores
        Per method (n, k, t).
    replacement
        What stands in the place of frames that are not there.
    shares
        From 0 to 1, rising.
    random_orders
        How many of them stand for chance.
    seed
        Of the random orders and of ties.
    batch
        Videos that go through the model at a time.

    Returns
    -------
    deletion, insertion
        float64 (o, n, f), the methods in order and then `RANDOM`.
    """
    n, k, _, t = clips.shape[:4]
    generator = torch.Generator().manual_seed(seed)
    orders = [score.reshape(n, k * t) for score in scores.values()]
    orders += random_scores(n, k * t, orders=random_orders, generator=generator)

    def ask(keeps: list[Tensor]) -> Tensor:
        """Return the probability of the class (p, n) when each of (n, f) is kept."""
        rows = torch.stack(keeps).flatten(0, 1)  # (p·n, f)
        found = []
        for part in torch.arange(len(rows)).split(batch):
            video = part % n
            shown = rows[part].unflatten(1, (k, t)).to(clips.device)
            x = replaced(clips[video], shown, replacement.part(video))
            logits = model(x, *(one[video] for one in extra))
            found.append(logits.softmax(dim=1).gather(1, target[video][:, None])[:, 0].cpu())
        return torch.cat(found).unflatten(0, (len(keeps), n))

    whole = torch.ones(n, k * t, dtype=torch.bool)
    both_ends = ask([whole, ~whole]).double().numpy()
    inner = [share for share in shares if 0 < share < 1]
    keeps = [
        kept_when(score.cpu(), share, inserted=inserted, generator=generator)
        for inserted in (False, True)
        for score in orders
        for share in inner
    ]
    between = ask(keeps).double().numpy().reshape(2, len(orders), len(inner), n)
    curves = []
    for inserted in (0, 1):
        first, last = both_ends[::-1] if inserted else both_ends
        values = np.empty((len(orders), n, len(shares)))
        for f, share in enumerate(shares):
            if share in inner:
                values[..., f] = between[inserted, :, inner.index(share)]
            else:
                values[..., f] = last if share else first
        chance = values[len(scores) :].mean(axis=0, keepdims=True)
        curves.append(np.concatenate([values[: len(scores)], chance]))
    return curves[0], curves[1]
