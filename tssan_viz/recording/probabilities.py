"""Attention probabilities from a call's own queries and keys, and the measures of each map."""

from __future__ import annotations

import functools
import math
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

MEASURES = ("entropy", "distance", "look_ahead", "peak")

# Bounds the float32 probabilities that exist at one time; what does not depend on each other
# (rows, then heads, then queries) goes in turns.
# On a CPU a turn that stays in the cache takes half the time; a GPU wants few and large ones.
CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**27}


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in plain float32: no autocast, no TF32 or bfloat16 products, nothing for autograd."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _ieee_products:
        yield


class _IeeeProducts:
    """Float32 products in full for as long as somebody computes, in however many threads.

    Afterwards all is as the user had chosen it. What is in full precision already is not touched,
    so that what other threads compute meanwhile is left alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._restore: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._restore = list(self._switch())

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for restore in self._restore:
                    restore()

    @staticmethod
    def _switch() -> Iterator[Callable[[], None]]:
        backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
        if not hasattr(backends[0], "fp32_precision"):  # before torch 2.9
            chosen = torch.get_float32_matmul_precision()
            if chosen != "highest":
                torch.set_float32_matmul_precision("highest")
                yield functools.partial(torch.set_float32_matmul_precision, chosen)
            return
        # Per backend: the general setter of older days refuses to be read once both were used.
        for backend in backends:
            if backend.fp32_precision not in ("ieee", "none"):
                yield functools.partial(setattr, backend, "fp32_precision", backend.fp32_precision)
                backend.fp32_precision = "ieee"


_ieee_products = _IeeeProducts()


def attention_probabilities(
    q: Tensor,
    k: Tensor,
    scale: float | Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Compute softmax(q kᵀ · scale + mask) in float32.

    Parameters
    ----------
    q
        Queries (r, h, q, d).
    k
        Keys (r, h, s, d); with fewer heads, each key head serves as many query heads in a row
        (grouped queries, Ainslie et al. 2023).
    scale
        What the scores are multiplied by; 1/√d when None (Vaswani et al. 2017, equation 1).
    mask
        Broadcast to (r, h, q, s). bool: True may be seen. float: added to the scores.
    causal
        Query i sees the keys 0 … i alone.

    Returns
    -------
    Tensor
        float32 (r, h, q, s); every row sums to 1, masked keys are exactly 0, and a query that may
        see nothing is a row of zeros.
    """
    everything = slice(None)
    with exact_float32(q.device):
        products = Products(q, k, scale, mask, causal)
        return products.probabilities(everything, everything, everything)[0]


@dataclass(frozen=True)
class Products:
    """A call that is known by its queries (r, h, q, d) and keys (r, g, s, d), g dividing h.

    `modify` changes scores (r, h, q, s) as the call itself does before its softmax, given the
    indices of their rows, heads, queries and keys; what it sets to −inf is masked.
    """

    q: Tensor
    k: Tensor
    scale: float | Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False
    modify: Callable[..., Tensor] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The sizes of its maps (r, h, q, s)."""
        r, h, n_q, _ = self.q.shape
        return r, h, n_q, self.k.shape[-2]

    @property
    def tensor(self) -> Tensor:
        """A tensor of the call."""
        return self.q

    def rows_seen(self) -> Tensor | None:
        """Which rows (r,) have a query that sees a key; None where all have."""
        if self.modify is not None:
            return self._rows_seen_by_index()
        if self.mask is None:
            return None
        seen = _four(may_be_seen(self.mask)).flatten(1).any(1)
        return seen.expand(self.q.shape[0])

    def probabilities(self, rows: slice, heads: slice, queries: slice) -> tuple[Tensor, Valid]:
        """Return float32 probabilities of a part, and which keys its queries may see."""
        _, h, n_q, n_s = self.shape
        q, k = self.q[rows, heads, queries], self.k[rows]
        if k.shape[1] == h:
            k = k[:, heads]
        elif k.shape[1] > 1:
            k = k[:, torch.arange(h, device=k.device)[heads] // (h // k.shape[1])]
        scale = self.q.shape[-1] ** -0.5 if self.scale is None else self.scale
        if isinstance(scale, Tensor):
            scale = _part(scale.float(), rows, heads, queries)
        scores = torch.matmul(q.float(), k.float().transpose(-1, -2)) * scale
        if self.modify is not None:
            scores = self.modify(scores, *self._indices(rows, heads, queries))
            return _softmax(scores, may_be_seen(scores))
        valid: Valid = None
        if self.mask is not None:
            mask = _part(self.mask, rows, heads, queries)
            valid = may_be_seen(mask)
            if mask.dtype != torch.bool:
                scores = scores + mask
        if self.causal:
            causal = torch.ones(n_q, n_s, dtype=torch.bool, device=q.device).tril()[queries]
            valid = causal if valid is None else valid & causal
        return _softmax(scores, valid)

    def _indices(self, rows: slice, heads: slice, queries: slice) -> tuple[Tensor, ...]:
        parts = zip(self.shape, (rows, heads, queries, slice(None)), strict=True)
        return tuple(torch.arange(n, device=self.q.device)[part] for n, part in parts)

    def _rows_seen_by_index(self) -> Tensor:
        assert self.modify is not None
        r, h, n_q, n_s = self.shape
        everything = slice(None)
        seen = torch.zeros(r, dtype=torch.bool, device=self.q.device)
        for head in range(h):
            blank = torch.zeros((r, 1, n_q, n_s), device=self.q.device)
            indices = self._indices(everything, slice(head, head + 1), everything)
            seen |= may_be_seen(self.modify(blank, *indices)).flatten(1).any(1)
        return seen


@dataclass(frozen=True)
class Scores:
    """A call that is known by its scores (r, h, q, s), masked already, whose softmax it takes."""

    scores: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The sizes of its maps (r, h, q, s)."""
        r, h, n_q, n_s = self.scores.shape
        return r, h, n_q, n_s

    @property
    def tensor(self) -> Tensor:
        """A tensor of the call."""
        return self.scores

    def rows_seen(self) -> Tensor | None:
        """Which rows (r,) have a query that sees a key."""
        # NaN is no mask: it stays, so that it can be found.
        return ~(self.scores.flatten(1).amax(1) <= _masked_below(self.scores.dtype))

    def probabilities(self, rows: slice, heads: slice, queries: slice) -> tuple[Tensor, Valid]:
        """Return float32 probabilities of a part, and which keys its queries may see."""
        scores = self.scores[rows, heads, queries]
        return _softmax(scores.float(), may_be_seen(scores))


@dataclass(frozen=True)
class Values:
    """A call whose map (r, h, q, s) is taken as it is."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The sizes of its maps (r, h, q, s)."""
        r, h, n_q, n_s = self.values.shape
        return r, h, n_q, n_s

    @property
    def tensor(self) -> Tensor:
        """A tensor of the call."""
        return self.values

    def rows_seen(self) -> Tensor | None:
        """All rows are rows."""
        return None

    def probabilities(self, rows: slice, heads: slice, queries: slice) -> tuple[Tensor, Valid]:
        """Return the float32 values of a part."""
        return self.values[rows, heads, queries].float(), None


Valid = Tensor | None
Source = Products | Scores | Values


def may_be_seen(mask: Tensor) -> Tensor:
    """Say where a mask lets a query see a key: a bool one where it is True, a float one by value.

    Masks are written with −inf or with the smallest number of their type; both are meant.
    """
    return mask if mask.dtype == torch.bool else ~(mask <= _masked_below(mask.dtype))


def _masked_below(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min / 2


def _softmax(scores: Tensor, valid: Valid) -> tuple[Tensor, Valid]:
    if valid is None:
        return torch.softmax(scores, dim=-1), None
    scores = scores.masked_fill(~valid, -math.inf)
    # A query that sees nothing would divide 0 by 0.
    blind = ~valid.any(-1, keepdim=True)
    return torch.softmax(scores, dim=-1).masked_fill(blind, 0.0), valid


def _four(x: Tensor) -> Tensor:
    return x.reshape((1,) * (4 - x.ndim) + tuple(x.shape))


def _part(x: Tensor, rows: slice, heads: slice, queries: slice) -> Tensor:
    """Cut the part of rows, heads and queries out of what broadcasts to (r, h, q, s)."""
    x = _four(x)
    everything = slice(None)
    parts = zip(x.shape, (rows, heads, queries, everything), strict=True)
    return x[tuple(everything if size == 1 else part for size, part in parts)]


def map_measures(p: Tensor, valid: Tensor | None = None) -> Tensor:
    """Measure maps, each as the mean over its query frames.

    entropy
        −Σ_s p ln p / ln n over the n key frames that the query may see: 0 looks at one frame, 1 at
        all of them alike.
    distance
        Σ_s p |s − q| in frames.
    look_ahead
        Σ_s p (s − q) in frames: positive looks ahead, negative looks back.
    peak
        max_s p, the confidence of the head (Voita et al. 2019).

    Parameters
    ----------
    p
        float32 probabilities (r, h, q, s). Maps of another kind (signed, adjacency) have no
        entropy; these measures do not hold for them.
    valid
        Which keys a query may see, broadcast to (r, h, q, s); all when None. Queries that see
        nothing do not count.

    Returns
    -------
    Tensor
        float32 (r, h, 4), in the order of `MEASURES`. Distances are NaN when query and key are not
        the same frames.
    """
    with exact_float32(p.device):
        square = p.shape[-1] == p.shape[-2]
        return _means(*_measure_sums(p, valid, first=0, square=square))


def _means(sums: Tensor, queries: Tensor | int) -> Tensor:
    return sums / (queries.clamp(min=1) if isinstance(queries, Tensor) else max(queries, 1))


def _measure_sums(
    p: Tensor, valid: Tensor | None, *, first: int, square: bool
) -> tuple[Tensor, Tensor | int]:
    """Sum the measures over queries that begin with number `first`, and count those that see."""
    n_q, n_s = p.shape[-2:]
    entropy = torch.special.entr(p).sum(-1)
    if valid is None:
        entropy = entropy.sum(-1) / math.log(max(n_s, 2))
        queries: Tensor | int = n_q
    else:
        keys = valid.sum(-1)
        entropy = (entropy / keys.clamp(min=2).log()).sum(-1)
        queries = (keys > 0).expand(p.shape[:-1]).sum(-1, keepdim=True)
    peak = p.amax(-1).sum(-1)
    if square:
        frames = torch.arange(n_s, device=p.device, dtype=torch.float32)
        offset = frames[None, :] - (frames[first : first + n_q])[:, None]
        weights = torch.stack([offset.abs(), offset], dim=-1).reshape(-1, 2)
        distance, look_ahead = torch.matmul(p.flatten(-2), weights).unbind(-1)
    else:
        distance = look_ahead = torch.full_like(peak, math.nan)
    return torch.stack([entropy, distance, look_ahead, peak], dim=-1), queries


def maps_and_measures(
    source: Source, heads: Sequence[int] | None = None, *, measured: bool = True
) -> tuple[Tensor, Tensor]:
    """Compute what is stored of one call: float16 maps (r, h, q, s), float32 measures (r, h, 4).

    The measures are had from the float32 probabilities; the cast is done on the device. Beside the
    result only `CHUNK_BYTES` of probabilities exist at a time.

    Parameters
    ----------
    source
        The call.
    heads
        Which heads, from 0; all when None.
    measured
        False for maps that are no probabilities: their measures are NaN.
    """
    r, h, n_q, n_s = source.shape
    chosen = [slice(i, i + 1) for i in heads] if heads is not None else [slice(0, h)]
    count = sum(part.stop - part.start for part in chosen)
    device = source.tensor.device
    maps = torch.empty((r, count, n_q, n_s), dtype=torch.float16, device=device)
    measures = torch.full((r, count, len(MEASURES)), math.nan, device=device, dtype=torch.float32)
    with exact_float32(device):
        at = 0
        for part in chosen:
            width = part.stop - part.start
            into = maps[:, at : at + width], measures[:, at : at + width]
            _compute_part(source, part, *into, measured=measured)
            at += width
    return maps, measures


def _compute_part(
    source: Source, part: slice, maps: Tensor, measures: Tensor, *, measured: bool
) -> None:
    r, h, n_q, n_s = maps.shape
    budget = CHUNK_BYTES.get(maps.device.type, 2**24)
    step_q = min(max(1, budget // max(1, 4 * n_s)), max(n_q, 1))
    step_h = min(max(1, budget // max(1, 4 * n_s * step_q)), max(h, 1)) if step_q == n_q else 1
    step_r = max(1, budget // max(1, 4 * n_s * n_q * h)) if step_h == h else 1
    for first_r in range(0, r, step_r):
        rows = slice(first_r, first_r + step_r)
        for first_h in range(0, h, step_h):
            heads = slice(first_h, min(first_h + step_h, h))
            own = slice(part.start + heads.start, part.start + heads.stop)
            totals: list[tuple[Tensor, Tensor | int]] = []
            for first_q in range(0, n_q, step_q):
                queries = slice(first_q, first_q + step_q)
                p, valid = source.probabilities(rows, own, queries)
                maps[rows, heads, queries] = p
                if measured:
                    totals.append(_measure_sums(p, valid, first=first_q, square=n_q == n_s))
            if measured:
                sums, counts = (
                    functools.reduce(operator.add, x) for x in zip(*totals, strict=True)
                )
                measures[rows, heads] = _means(sums, counts)
