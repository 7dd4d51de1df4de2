"""Records a run whose values follow from the row's number, and says after each flush what is safe.

python record_until_killed.py STORE RUN ROWS ROWS_PER_FLUSH [RANK RANKS]

Of several ranks, each records every RANKS-th row.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from tests.stores import make_catalogue, make_poses, make_sites, softmax_maps
from tssan_viz.store import StoredSample, open_store

SITES = make_sites(2, 2, 8)


def maps_of(row: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(row)
    return {s.name: softmax_maps(rng, (1, 2, 8, 8)).astype(np.float16) for s in SITES}


def record(
    path: Path, run: str, rows: int, per_flush: int, rank: int = 0, ranks: int = 1, first: int = 0
) -> None:
    store = open_store(path, create=True)
    catalogue = make_catalogue(("put on jacket", "reading"))
    with store.writer(run, sites=SITES, catalogue=catalogue, rank=rank) as writer:
        print("open", flush=True)
        mine = range(first + rank, rows, ranks)
        for start in range(0, len(mine), per_flush):
            numbers = mine[start : start + per_flush]
            maps = [maps_of(n) for n in numbers]
            joined = {s.name: np.concatenate([m[s.name] for m in maps]) for s in SITES}
            measure = {s.name: joined[s.name].astype(np.float32).max(-1).mean(-1) for s in SITES}
            rng = np.random.default_rng(0)
            writer.add_samples(
                [
                    StoredSample(
                        f"v{n}",
                        n % 2,
                        None,
                        None,
                        n,
                        1,
                        frames=np.full((1, 8), n),
                        poses=make_poses(rng, 1, 1, 8),
                    )
                    for n in numbers
                ]
            )
            writer.add(
                {"sample": [f"v{n}" for n in numbers], "label": [n % 2 for n in numbers]},
                joined,
                {"peak": measure},
            )
            writer.flush()
            print(numbers[-1] + 1, flush=True)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
    print("done", flush=True)
