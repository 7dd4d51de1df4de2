"""Small models with attention, and a store that only remembers what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tssan_viz.store.catalogue import Catalogue, ClassEntry

CATALOGUE = Catalogue(
    dataset="made up",
    classes=(ClassEntry(0, "wave", "A01"), ClassEntry(1, "read", "A02"), ClassEntry(2, "sit")),
)


class Attend(nn.Module):
    def __init__(self, dropout: float = 0.0, fused: bool = True) -> None:
        super().__init__()
        self.dropout = dropout
        self.fused = fused

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        p = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return F.dropout(p, dropout) @ v


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = Attend(dropout, fused)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1)
        )
        return x + self.attend(q, k, v).transpose(1, 2).flatten(2)


class Model(nn.Module):
    """(n, …, t, width) → logits (n, 3); all axes between n and t are rows."""

    def __init__(
        self,
        layers: int = 2,
        heads: int = 2,
        width: int = 8,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, dropout, fused) for _ in range(layers))
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = x.reshape(-1, *x.shape[-2:])
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x.mean(1).reshape(n, -1, x.shape[-1]).mean(1))


def watch_calls(model: nn.Module) -> dict[str, list[Tensor]]:
    """Explicit probabilities of every call, had by other means than the recorder's."""
    calls: dict[str, list[Tensor]] = {}

    def keep(name: str, q: Tensor, k: Tensor) -> None:
        q64, k64 = q.detach().double(), k.detach().double()
        scores = torch.einsum("rhqd,rhsd->rhqs", q64, k64) / q.shape[-1] ** 0.5
        e = torch.exp(scores - scores.amax(-1, keepdim=True))
        calls.setdefault(name, []).append(e / e.sum(-1, keepdim=True))

    for name, module in model.named_modules():
        if name.endswith("attend"):
            module.register_forward_hook(
                lambda module, args, output, name=name: keep(name, args[0], args[1])
            )
    return calls


class MemoryWriter:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.closed = False

    def add(
        self,
        rows: Mapping[str, Sequence[Any]],
        maps: Mapping[str, np.ndarray],
        measures: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        assert not self.closed
        self.store.adds.append((dict(rows), dict(maps), dict(measures or {})))

    def add_samples(self, samples: Sequence[Any]) -> None:
        self.store.samples.extend(samples)

    def flush(self) -> None:
        self.store.flushed = len(self.store.adds)

    def close(self) -> None:
        self.flush()
        self.closed = True

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


class MemoryStore:
    """Takes what the recorder hands to a writer, as it is."""

    def __init__(self) -> None:
        self.adds: list[tuple[dict, dict, dict]] = []
        self.samples: list[Any] = []
        self.flushed = 0
        self.writers: list[tuple[str, list, Catalogue, dict]] = []
        self.last: MemoryWriter | None = None

    def writer(self, run: str, *, sites: Any, catalogue: Catalogue, info: dict) -> MemoryWriter:
        self.writers.append((run, list(sites), catalogue, info))
        self.last = MemoryWriter(self)
        return self.last

    def column(self, name: str) -> list[Any]:
        return [value for rows, _, _ in self.adds for value in rows[name]]

    def maps(self, site: str) -> np.ndarray:
        return np.concatenate([maps[site] for _, maps, _ in self.adds])

    def measure(self, measure: str, site: str) -> np.ndarray:
        return np.concatenate([measures[measure][site] for _, _, measures in self.adds])
