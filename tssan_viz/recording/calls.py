"""One call of attention, as the recorder sees it while the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tssan_viz.recording.probabilities import Source, maps_and_measures


@dataclass(frozen=True)
class WatchedSite:
    """One attention call of a model, before it is known how large its maps are.

    Parameters
    ----------
    name
        Path of the module that attends; ``path#2`` is its second call within one forward call of
        the model. How often a module attends shows when it is called: sites with ``#`` are in no
        list, they come with their first call.
    module
        Path of the module.
    layer
        Counted from 1 within the stream, in the order in which the model holds its modules; further
        calls of a module are counted behind these.
    stream
        ``main``, ``position``, ``motion``, ``encoder``, ``decoder`` or ``cross``.
    kind
        ``softmax`` (rows are probabilities), ``signed`` or ``adjacency``.
    provenance
        How the values are had.
    """

    name: str
    module: str
    layer: int
    stream: str = "main"
    kind: str = "softmax"
    provenance: str = "recomputed from the call's own q, k, scale and mask"


class AttentionCall:
    """One attention call under way; what it holds is the model's own and is read at once.

    Attributes
    ----------
    site
        Which call it is.
    rows, heads, query, key
        The sizes of its maps (r, h, q, s).
    device
        Where the maps are computed.
    """

    def __init__(self, site: WatchedSite, source: Source) -> None:
        self.site = site
        self.rows, self.heads, self.query, self.key = source.shape
        self.device = source.tensor.device
        self._source = source

    @property
    def row_valid(self) -> Tensor | None:
        """Which rows (r,) are rows at all: one whose every query sees nothing is none.

        None where nothing is masked. It stays on the device.
        """
        with torch.no_grad():
            return self._source.rows_seen()

    def compute(self, heads: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Compute the maps and their measures, in float32, without a trace in the model's autograd.

        Parameters
        ----------
        heads
            Which heads, counted from 0; all when None.

        Returns
        -------
        maps
            float16 (r, h, q, s). For kind ``softmax``: probabilities before any dropout; masked
            keys are exactly 0, and a query that sees nothing is a row of zeros.
        measures
            float32 (r, h, 4), in the order of `tssan_viz.recording.probabilities.MEASURES`; NaN
            for maps that are no probabilities.
        """
        return maps_and_measures(self._source, heads, measured=self.site.kind == "softmax")
