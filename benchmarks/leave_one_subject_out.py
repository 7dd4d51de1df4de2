"""Measure a recipe by leaving out each training subject once; the test part is never read.

For every training subject of a cross-subject protocol a network is trained without them, for as
many epochs as the recipe says, and asked about them; the weights are those after the last epoch, so
that the subject who is left out chooses nothing. The headers of the recipes state means that were
found so. Finished runs in the folder are kept: what was interrupted is gone on with.

    python benchmarks/leave_one_subject_out.py utd-mhad --data utd --out left-out
    python benchmarks/leave_one_subject_out.py utd-mhad --data utd --out left-out-24 \
        --set clips.frames=24
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tssan.dataset import SkeletonDataset
from tssan.errors import DataError
from tssan.recipe import Recipe, load_recipe, override
from tssan.run_folder import RESULTS, RESUME
from tssan.training import load_run, train


def left_out_accuracies(
    recipe: Recipe, dataset: SkeletonDataset, out: Path, *, seed: int, precision: str
) -> dict[int, float]:
    """Train without each training subject in turn, and return the accuracy on each, from 0 to 1.

    Parameters
    ----------
    recipe
        Its protocol, or else the data set's first, divides by subject.
    dataset
        A prepared data set.
    out
        The folder for the runs, one per subject and seed; finished ones of the same recipe are read
        instead of made again.
    seed
        Of initialisation, order and augmentation.
    precision
        ``32``, or mixed with ``bf16``, which takes half the time where the processor knows it.

    Raises
    ------
    DataError
        The protocol does not divide by subject, or the folder holds runs of another recipe or
        precision.
    """
    protocol = dataset.protocol(recipe.protocol)
    if protocol.by != "subject":
        raise DataError(
            f"{protocol.name} divides by {protocol.by}; give a recipe whose protocol divides by "
            "subject"
        )
    accuracies = {}
    for subject in map(int, protocol.train):
        without = replace(
            recipe,
            training=replace(recipe.training, validation_subjects=(subject,), keep="last"),
        )
        folder = out / f"without-{subject}-seed-{seed}"
        if (folder / RESULTS).is_file():
            run = load_run(folder)
            if run.recipe != without:
                raise DataError(f"{folder} holds a run of another recipe; give another --out")
            # Means over seeds must not mix what bf16 and what full precision reach.
            if run.results["precision"] != precision:
                raise DataError(
                    f"{folder} holds a run with --precision {run.results['precision']}, and this "
                    f"is one with {precision}; give the same, or another --out"
                )
        else:
            run = train(
                without,
                dataset,
                folder,
                seed=seed,
                progress=False,
                resume=(folder / RESUME).is_file(),
                precision=precision,
                test=False,
            )
        accuracies[subject] = float(run.results["validation_accuracy"])
    return accuracies


def parser(description: str, *, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """Return what reads the options --data, --out, --seeds and --precision."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--data", type=Path, required=True, help="a prepared data set")
    options.add_argument("--out", type=Path, required=True, help="the folder for the runs")
    options.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    options.add_argument("--precision", choices=["32", "bf16"], default="32")
    return options


def main() -> None:
    options = parser(__doc__.split("\n")[0], seeds=[0])
    options.add_argument("recipe", help="the name of a recipe, or the path of a YAML file")
    options.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    given = options.parse_args()
    recipe = override(load_recipe(given.recipe), given.set)
    dataset = SkeletonDataset.open(given.data)
    rows = [
        left_out_accuracies(recipe, dataset, given.out, seed=seed, precision=given.precision)
        for seed in track(given.seeds, description="training", transient=True)
    ]
    table = Table("seed", *(f"subject {subject}" for subject in rows[0]), "mean")
    for seed, row in zip(given.seeds, rows, strict=True):
        cells = [*row.values(), float(np.mean(list(row.values())))]
        table.add_row(str(seed), *(f"{100 * cell:.1f} %" for cell in cells))
    console = Console()
    console.print(table)
    mean = 100 * np.mean([list(row.values()) for row in rows])
    console.print(
        f"recipe {recipe.name}{' '.join(['', *given.set])}: {mean:.1f} % of the subjects left out"
    )


if __name__ == "__main__":
    main()
