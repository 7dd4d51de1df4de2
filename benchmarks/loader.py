"""Measure how much faster batches are made than the network consumes them, and opening a data set.

The loader alone (memory map → padded batch → clips, as in training) and the network's training step
(forward, loss, backward, optimiser) on the same batches, one after the other in the same run; the
ratio of their sequences per second is asked to be at least 5.

    python benchmarks/loader.py
    python benchmarks/loader.py --recipe t1_ts-san-v2 --batch 4 --steps 2
    python benchmarks/loader.py --open 56578
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from tssan.building import build_network
from tssan.clips import make_clips
from tssan.dataset import SkeletonDataset, prepare
from tssan.recipe import load_recipe
from tssan.sequences import Sequences
from tssan.skeletons.classes import NTU_RGBD, named_classes
from tssan.skeletons.protocols import NTU60, first_half_trains
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import KINECT_V2_25, UTD_MHAD_20, Topology

ASKED = 5
CLASSES = 27


def generated(
    path: Path, topology: Topology, persons: int, frames: tuple[int, int], number: int
) -> SkeletonDataset:
    """Prepare sequences of random walks, as long and as many as asked for."""
    rng = np.random.default_rng(0)
    names = [f"class {label:03d}" for label in range(CLASSES)]

    def sequences():
        for i in range(number):
            t = int(rng.integers(*frames))
            steps = rng.normal(0, 0.01, (persons, t, len(topology.joints), 3))
            joints = rng.uniform(0, 1, (1, 1, len(topology.joints), 3)) + steps.cumsum(axis=1)
            yield SkeletonSequence(
                joints=joints.astype(np.float32),
                present=np.ones((persons, t), bool),
                topology=topology,
                units="m",
                fps=30.0,
                sample=f"{i:06d}",
                label=i % CLASSES,
                class_name=names[i % CLASSES],
                subject=1 + i // CLASSES % 8,
            )

    return prepare(
        sequences(),
        path,
        name="generated",
        classes=named_classes(names),
        protocols=first_half_trains(range(1, 9)),
    )


def ratio(console: Console, name: str, batch_size: int | None, steps: int) -> float:
    """Time loader and training step of a recipe; return how many times faster the loader is."""
    recipe = load_recipe(name)
    ntu = name.startswith("t")
    topology = KINECT_V2_25 if ntu else UTD_MHAD_20
    frames, number = ((32, 300), 1000) if ntu else ((41, 126), 861)
    persons = 2 if ntu else 1
    batch_size = batch_size or recipe.training.batch_size
    with tempfile.TemporaryDirectory() as folder:
        generated(Path(folder, "data"), topology, persons, frames, number)
        data = SkeletonDataset.open(Path(folder, "data"))
        train = Sequences.load(data, data.split().train, recipe.clips.persons)
        network = build_network(
            recipe,
            joints=train.joints,
            coordinates=train.coordinates + recipe.clips.score_as_coordinate,
            classes=CLASSES,
        ).train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        generator = torch.Generator().manual_seed(0)
        loading, training = [], []
        for step in range(steps + 1):
            places = torch.randperm(len(train), generator=generator)[:batch_size]
            begin = time.perf_counter()
            batch = train.batch(places.tolist())
            clips = make_clips(batch, recipe.clips, train=True, generator=generator)
            made = time.perf_counter()
            every = network(clips.position, clips.motion, clips.present, every_classifier=True)
            loss = network.loss(every, train.labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = time.perf_counter()
            if step:  # the first one warms up
                loading.append(made - begin)
                training.append(done - made)
    load, step_time = statistics.median(loading), statistics.median(training)
    console.print(
        f"{name}: batches of {batch_size}; loader {batch_size / load:,.0f} sequences/s "
        f"({load * 1e3:.1f} ms a batch), training step {batch_size / step_time:,.1f} sequences/s "
        f"({step_time * 1e3:,.0f} ms): loader is {step_time / load:.1f} × faster "
        f"({ASKED} × asked)"
    )
    return step_time / load


def opening(console: Console, number: int) -> None:
    """Prepare so many sequences of one frame, and time opening them in a fresh process."""
    joints = np.random.default_rng(0).normal(size=(number, 25, 3)).astype(np.float32)

    def sequences():
        for i in range(number):
            numbers = i % 17 + 1, i // 60 % 3 + 1, i // 180 % 40 + 1, i // 7200 % 2 + 1, i % 60 + 1
            name = "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*numbers)
            action = NTU_RGBD[i % 60]
            yield SkeletonSequence(
                joints=joints[i][None, None],
                present=np.ones((1, 1), bool),
                topology=KINECT_V2_25,
                units="m",
                fps=30.0,
                sample=f"{name}-{i}",
                label=action.label,
                class_name=action.name,
                class_code=action.code,
                setup=numbers[0],
                camera=numbers[1],
                subject=numbers[2],
                replication=numbers[3],
                source=f"nturgbd_skeletons_s001_to_s017.zip/nturgb+d_skeletons/{name}.skeleton",
            )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        prepare(sequences(), path, name="ntu60", classes=NTU_RGBD[:60], protocols=NTU60)
        code = (
            "import sys, time\n"
            "from tssan.dataset import SkeletonDataset\n"
            "begin = time.perf_counter()\n"
            "data = SkeletonDataset.open(sys.argv[1])\n"
            "opened = time.perf_counter()\n"
            "data.split(), data[0], data.fingerprint\n"
            "print(f'{opened - begin:.2f} {time.perf_counter() - opened:.2f}')\n"
        )
        times = [
            subprocess.run(
                [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
            ).stdout.split()
            for _ in range(3)
        ]
    opened, first = (min(map(float, column)) for column in zip(*times, strict=True))
    console.print(
        f"opening {number:,} sequences: {opened:.2f} s (1 s asked), "
        f"then split and first sequence {first:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", nargs="*", default=["utd-mhad", "t1_ts-san-v2"])
    parser.add_argument("--batch", type=int, help="default: 64 and, at the paper's width, 4")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--open", type=int, default=56_578, help="0: leave it out")
    options = parser.parse_args()
    console = Console()
    ratios = []
    for name in options.recipe:
        wide = load_recipe(name).network.width is None
        batch = options.batch or (4 if wide else None)
        ratios.append(ratio(console, name, batch, min(options.steps, 2) if wide else options.steps))
    if options.open:
        opening(console, options.open)
    if ratios and min(ratios) < ASKED:
        raise SystemExit(f"the loader is less than {ASKED} × faster than the network")


if __name__ == "__main__":
    main()
