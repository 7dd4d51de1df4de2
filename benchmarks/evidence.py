"""Measure what explanations cost: one video by every method, and faithfulness over 400 videos.

Both on the network and the data of `tssan-viz demo`, with as many threads as PyTorch is told to
use. Explaining is measured once everything is imported, over several videos; what the import takes
stands beside it. Faithfulness is the whole question of the command: attributions, curves and the
check with shuffled weights, with the default methods.

    tssan-viz demo
    OMP_NUM_THREADS=2 python benchmarks/evidence.py --run demo/ts-san --data demo/skeletons
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tssan_viz.cli.explain import explain_videos
from tssan_viz.cli.explained_run import open_explained
from tssan_viz.cli.faithfulness import ask_faithfulness, ask_sanity, spread
from tssan_viz.cli.needed_heads import ask_heads
from tssan_viz.evidence.attributions import METHODS

EXPLAIN_SECONDS = 1.0
FAITHFULNESS_SECONDS = 120.0
IMPORT = "import torch, captum.attr, matplotlib.figure, tssan_viz.cli.explained_run"


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds by the clock, and those of all cores together, that work takes."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def megabytes() -> float:
    """Return the greatest memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def verdict(seconds: float, bar: float) -> str:
    """Say whether a bar is met."""
    return f"{'met' if seconds <= bar else 'MISSED'}: ≤ {bar:g} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=400, help="of the faithfulness")
    parser.add_argument("--repeats", type=int, default=9, help="videos that are explained")
    parser.add_argument("--heads", action="store_true", help="take heads out as well")
    given = parser.parse_args()

    importing, _ = spent(lambda: subprocess.run([sys.executable, "-c", IMPORT], check=True))
    opened = open_explained(given.run, given.data)
    test = opened.part("test")
    table = Table("what", "seconds", "CPU seconds", "least – most", "")
    table.add_row("importing what is needed", f"{importing:.2f}")

    def explained(video: int) -> tuple[float, float]:
        return spent(lambda: explain_videos(opened, "one", [video], METHODS))

    explained(test[0])  # imports what is imported at the first call
    step = max(1, len(test) // given.repeats)
    times = [explained(video) for video in test[::step][: given.repeats]]
    clock = statistics.median(one for one, _ in times)
    table.add_row(
        f"explaining a video by {len(METHODS)} methods, and its joints",
        f"{clock:.2f}",
        f"{statistics.median(cores for _, cores in times):.2f}",
        f"{min(one for one, _ in times):.2f} – {max(one for one, _ in times):.2f}",
        verdict(clock, EXPLAIN_SECONDS),
    )

    videos = spread(opened, test, given.videos)
    methods = [method for method in METHODS if method != "flow"]
    before = megabytes()
    asked = spent(lambda: ask_faithfulness(opened, "all classes", videos, methods))
    checked = spent(lambda: ask_sanity(opened, videos, methods))
    peak = megabytes()
    table.add_row(f"frames of {len(videos)} videos taken away", *(f"{one:.1f}" for one in asked))
    table.add_row("weights shuffled", *(f"{one:.1f}" for one in checked))
    clock, cores = (a + b for a, b in zip(asked, checked, strict=True))
    table.add_row(
        f"faithfulness over {len(videos)} videos",
        f"{clock:.1f}",
        f"{cores:.1f}",
        "",
        verdict(clock, FAITHFULNESS_SECONDS),
    )
    if given.heads:
        taken = spent(lambda: ask_heads(opened, "all classes", videos))
        table.add_row("every head taken out", *(f"{one:.1f}" for one in taken))
    console = Console()
    console.print(table)
    console.print(
        f"{torch.get_num_threads()} threads; peak memory {peak:.0f} MB, before faithfulness "
        f"{before:.0f} MB; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores "
        "(with more than there are threads, others took part of the seconds)"
    )


if __name__ == "__main__":
    main()
