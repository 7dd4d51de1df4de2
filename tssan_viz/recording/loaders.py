"""Announcing the batches of a loader as they come out of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tssan_viz.recording.errors import RecordingError

Describe = Callable[[Any], Mapping[str, Any]] | Mapping[str, Any]


class WatchedLoader:
    """A loader whose batches are announced to a recorder; made by `Recorder.watch_loader`."""

    def __init__(
        self,
        announce: Callable[..., None],
        loader: Iterable[Any],
        describe: Describe | None,
        dataset: Any,
    ) -> None:
        if (describe is None) == (dataset is None):
            raise RecordingError(
                "watch_loader() needs to know what is in a batch: give describe= (a function of "
                "the batch, or names and the batch's keys) or dataset= (what is known of each "
                "index of the loader's data set)"
            )
        self._announce = announce
        self._loader = loader
        self._describe = describe
        self._dataset = dataset
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        self._epoch += 1
        batches = self._described() if self._dataset is None else self._indexed()
        for batch, said in batches:
            self._announce(**{"epoch": self._epoch, **said})
            yield batch

    def _described(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        assert self._describe is not None
        for batch in self._loader:
            yield batch, said_of(batch, self._describe)

    def _indexed(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        sampler = getattr(self._loader, "batch_sampler", None)
        if sampler is None:
            raise RecordingError(
                "dataset= follows the loader's batch sampler, and this loader has none: give "
                "describe= instead"
            )
        drawn: deque[list[int]] = deque()
        # A DataLoader refuses another batch sampler once it is made; this one draws the same
        # indices in the same order, and is gone when the epoch is.
        vars(self._loader)["batch_sampler"] = _Remembering(sampler, drawn)
        try:
            for batch in self._loader:
                yield batch, _known(self._dataset, drawn.popleft())
        finally:
            vars(self._loader)["batch_sampler"] = sampler


class _Remembering:
    """A batch sampler that keeps what it drew until the batch has come."""

    def __init__(self, sampler: Any, drawn: deque[list[int]]) -> None:
        self._sampler = sampler
        self._drawn = drawn

    def __iter__(self) -> Iterator[Any]:
        for indices in self._sampler:
            self._drawn.append(list(indices))
            yield indices

    def __len__(self) -> int:
        return len(self._sampler)


def said_of(batch: Any, describe: Describe) -> Mapping[str, Any]:
    """Return what `Recorder.samples` is to be told of a batch.

    Parameters
    ----------
    batch
        As the loader made it.
    describe
        A function of the batch; or a mapping from the names that `samples` knows to the batch's
        own: a key of a mapping, a place in a list or tuple, or the name of an attribute.
    """
    if callable(describe):
        return describe(batch)
    return {name: _entry(batch, key, name) for name, key in describe.items()}


def _entry(batch: Any, key: Any, name: str) -> Any:
    try:
        if isinstance(key, str) and not isinstance(batch, Mapping):
            return getattr(batch, key)
        return batch[key]
    except (KeyError, IndexError, AttributeError, TypeError):
        there = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise RecordingError(
            f"describe= says that {name} is the batch's {key!r}, and the batch has no such entry: "
            f"it is {there}"
        ) from None


def _known(dataset: Any, indices: Sequence[int]) -> Mapping[str, Any]:
    if hasattr(dataset, "iloc"):
        lines = dataset.iloc[list(indices)]
        return {name: lines[name].tolist() for name in lines.columns}
    lines = [dataset(i) if callable(dataset) else dataset[i] for i in indices]
    return {name: [line[name] for line in lines] for name in lines[0]}
