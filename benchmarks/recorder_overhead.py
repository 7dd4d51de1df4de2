"""What recording costs: the time of a step with and without it, in one process, in turns.

    python benchmarks/recorder_overhead.py [--paper] [--device cuda] [--steps 20]

A round times steps in turns, one unwatched and one recorded into a store on the disk, and the
table shows medians. On a machine that does other things too, look at the ratio of CPU time. "once"
is what a recording takes but once, for opening the run, the last commit and merging files.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from tssan.network import SkeletonNetwork, build_network
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe

from tssan_viz.recording import Recorder, record
from tssan_viz.store import Catalogue

CLASSES, JOINTS = 60, 25
CATALOGUE = Catalogue(dataset="benchmark", classes=())


def inference(network: SkeletonNetwork, clips: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return network(*clips)


def training(network: SkeletonNetwork, clips: tuple[torch.Tensor, ...]) -> torch.Tensor:
    logits = network(*clips)
    logits.logsumexp(-1).mean().backward()
    network.zero_grad(set_to_none=True)
    return logits


def timed(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Milliseconds: on the wall, and of this process's processors."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - busy) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paper", action="store_true", help="the paper's network, d = 1024")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    device, n = options.device, options.batch_size

    recipe = Recipe(
        name="benchmark",
        clips=ClipsRecipe(),
        network=NetworkRecipe() if options.paper else NetworkRecipe(layers=2, width=128),
    )
    k, m, t = recipe.clips.segments, recipe.clips.persons, recipe.clips.frames
    torch.manual_seed(0)
    network = build_network(recipe, joints=JOINTS, coordinates=3, classes=CLASSES).to(device)
    position = torch.randn(n, k, m, t, JOINTS, 3, device=device)
    clips = (position, position.roll(1, 3), torch.ones(n, k, m, dtype=torch.bool, device=device))

    table = Table(
        title=f"{recipe.network.layers} layers, d = {recipe.network.width or 1024}, "
        f"{n} videos × {k} segments × {m} persons × {t} frames a step, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for column in ("step", "alone, ms", "recorded, ms", "ratio", "of CPU time", "once, ms"):
        table.add_column(column, justify="left" if column == "step" else "right")

    def announced(recorder: Recorder, step: Callable, number: int) -> None:
        recorder.samples(
            sample=[str(i) for i in range(n)],
            step=number,
            axes=("n", "k", "m"),
            present=clips[2],
        )
        recorder.predictions(step(network, clips))

    for step, train in ((inference, False), (training, True)):
        network.train(train)
        # A copy with the same weights runs unwatched, so that turns can be as short as one step.
        unwatched = copy.deepcopy(network)
        alone, recorded = [], []
        with tempfile.TemporaryDirectory() as folder:
            timed(partial(step, unwatched, clips), device)
            recorder = record(network, folder, run="r", catalogue=CATALOGUE)
            once, _ = timed(recorder.__enter__, device)
            first, _ = timed(partial(announced, recorder, step, 0), device)
            for number in range(1, options.steps + 1):
                alone.append(timed(partial(step, unwatched, clips), device))
                recorded.append(timed(partial(announced, recorder, step, number), device))
            # The run is opened when the first batch is written, which is at the second step.
            once += max(0.0, recorded.pop(0)[0] - first)
            once += timed(partial(recorder.__exit__, None, None, None), device)[0]
        (a, a_cpu), (b, b_cpu) = (
            [statistics.median(column) for column in zip(*turns, strict=True)]
            for turns in (alone, recorded)
        )
        figures = f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}", f"{b_cpu / a_cpu:.2f}", f"{once:.0f}"
        table.add_row(step.__name__, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
