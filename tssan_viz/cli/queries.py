"""The queries and keys of a trained network's attention, kept beside its recorded maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tssan_viz.cli.common import counting_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from tssan.dataset import SkeletonDataset
    from tssan.training import TrainedRun

    from tssan_viz.site import Site
    from tssan_viz.store import AttentionStore


@contextmanager
def attending(network: nn.Module, attended: dict[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Fill ``attended`` with the queries and keys (r, h, t, d) of each forward, by site's name."""
    from tssan.network import Attend

    handles = []
    for site, module in network.named_modules():
        if isinstance(module, Attend):

            def keep(_: nn.Module, given: tuple[Tensor, ...], site: str = site) -> None:
                attended[site] = (given[0].detach().cpu(), given[1].detach().cpu())

            handles.append(module.register_forward_pre_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_queries(
    trained: TrainedRun,
    dataset: SkeletonDataset,
    store: AttentionStore,
    indices: Sequence[int],
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> int:
    """Keep the queries and keys of recorded videos, where none are kept yet.

    Parameters
    ----------
    trained, dataset, store
        As for `tssan_viz.cli.record.record_run`, which was done before.
    indices
        Of the videos in the data set.
    batch_size
        Videos at a time.
    progress
        Show a progress bar.

    Returns
    -------
    int
        Of how many videos they were kept now.
    """
    import torch

    from tssan_viz.views.vectors import is_kept, write_queries

    run = trained.path.resolve().name
    streams: dict[str, list[Site]] = {}
    for site in store.stored_sites(run):
        streams.setdefault(site.stream, []).append(site)
    samples = dataset.index["sample"].astype(str)
    due = [i for i in indices if not all(is_kept(store, run, s, samples[i]) for s in streams)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = trained.network.to(device).eval()
    attended: dict[str, tuple[Tensor, Tensor]] = {}
    with (
        attending(network, attended),
        torch.inference_mode(),
        counting_bar("videos", shown=progress and bool(due)) as bar,
    ):
        task = bar.add_task("queries and keys", total=len(due))
        for start in range(0, len(due), batch_size):
            batch = due[start : start + batch_size]
            clips = trained.clips(dataset, batch)
            network(*(part.to(device) for part in clips[:3]))
            k = clips.position.shape[1]
            for stream, sites in streams.items():
                q, keys = (_by_video(attended, sites, which, len(batch), k) for which in (0, 1))
                at = {
                    "segments": range(1, k + 1),
                    "persons": range(1, q.shape[2] + 1),
                    "layers": [site.layer for site in sites],
                    "heads": range(1, q.shape[4] + 1),
                }
                for n, i in enumerate(batch):
                    write_queries(store, run, stream, samples[i], (q[n], keys[n]), at)
            bar.advance(task, len(batch))
    return len(due)


def _by_video(
    attended: dict[str, tuple[Tensor, Tensor]], sites: Sequence[Site], which: int, n: int, k: int
) -> NDArray[np.float32]:
    """Return queries (which 0) or keys (1) of a stream, (n, k, m, layer, h, t, d)."""
    import numpy as np

    # Rows are videos, their segments, and persons within them where they go their own ways.
    layers = [attended[site.name][which].float().numpy() for site in sites]
    return np.stack([rows.reshape(n, k, -1, *rows.shape[1:]) for rows in layers], axis=3)
