"""Watch a model without a recorder, and keep what comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tssan_viz.recording.calls import AttentionCall, WatchedSite
from tssan_viz.recording.watching import Watcher, find_sites


@dataclass
class Seen:
    site: WatchedSite
    exact: Tensor  # float32, before the cast
    maps: Tensor
    measures: Tensor
    row_valid: Tensor | None


class Watch(Watcher):
    """A watcher that keeps every call."""

    def __init__(self, model: nn.Module, *, only: Any = None, softmax: Any = None) -> None:
        self.calls: list[Seen] = []
        self.began = self.ended = 0
        sites = find_sites(model, only=only, softmax=softmax)
        super().__init__(
            model,
            sites,
            self._keep,
            forward_began=self._begin,
            forward_ended=self._end,
            softmax=softmax,
        )

    def _begin(self) -> None:
        self.began += 1

    def _end(self) -> None:
        self.ended += 1

    def _keep(self, call: AttentionCall) -> None:
        maps, measures = call.compute()
        everything = slice(None)
        exact, _ = call._source.probabilities(everything, everything, everything)
        assert maps.shape == (call.rows, call.heads, call.query, call.key)
        self.calls.append(Seen(call.site, exact, maps, measures, call.row_valid))

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.fault is not None and error[0] is None:
            raise self.fault

    @property
    def names(self) -> list[str]:
        return [call.site.name for call in self.calls]


def watch(model: nn.Module, *args: Any, softmax: Any = None, only: Any = None, **kwargs: Any):
    """Call a model once, watched: its output, and what was seen."""
    with Watch(model, softmax=softmax, only=only) as watcher:
        output = model(*args, **kwargs)
    return output, watcher.calls


def assert_near(seen: Seen, expected: Tensor) -> None:
    """The bars of the project, before the cast to float16 and behind it."""
    expected = expected.detach().float()
    assert seen.exact.shape == expected.shape
    assert (seen.exact - expected).abs().max() <= 1e-6
    assert (seen.maps.float() - expected).abs().max() <= 2.5e-4
    assert (seen.maps[expected == 0] == 0).all()


def all_equal(a: Any, b: Any) -> bool:
    """Whether two outputs are bit for bit the same."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(all_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b
