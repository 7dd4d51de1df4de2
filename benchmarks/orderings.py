"""Hold the paper's orderings against UTD-MHAD: CNN > FF, V2 ≥ V1, TS ≥ plain, average ≥ maximum.

Six small networks are trained with the data path of the recipe utd-mhad, each of them without one
of the training subjects at a time, and asked about the one left out; the test part is never read.
Of every network the mean over these subjects and the seeds is taken, of every ordering the mean
difference and its spread, subject by subject and seed by seed, with the paper's difference on NTU
RGB+D (cross-subject) beside it. Clips have 16 frames, half the paper's: most of these sequences
have fewer than 3 · 32. Finished runs in the folder are kept: what was interrupted is gone on with.

    python benchmarks/orderings.py --data utd --out orderings
    python benchmarks/orderings.py --data utd --out orderings --seeds 0 1 2
"""

from __future__ import annotations

import numpy as np
from leave_one_subject_out import left_out_accuracies, parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tssan.dataset import SkeletonDataset
from tssan.recipe import load_recipe, override

# What the networks share: narrow and short of layers, for a comparison in minutes. The learning
# rate is high so that all of them fit their training part within the epochs.
SMALL = (
    "clips.frames=16",
    "network.width=64",
    "network.layers=2",
    "network.heads=4",
    "network.encoder_dropout=0.3",
    "training.batch_size=16",
    "training.learning_rate=0.002",
)

# Name, what it sets, and the paper's accuracy on NTU RGB+D, cross-subject (tables 3 and 5).
NETWORKS = {
    "V1 FF": (("network.variant=san-v1", "network.encoder=ff", "clips.segments=1"), 75.4),
    "V1 CNN": (("network.variant=san-v1", "clips.segments=1"), 80.1),
    "V2 FF": (("network.encoder=ff", "clips.segments=1"), 80.3),
    "V2 CNN": (("clips.segments=1",), 85.9),
    "TS (avg) V2 CNN": (("clips.segments=3", "network.consensus=avg"), 87.2),
    "TS (max) V2 CNN": (("clips.segments=3", "network.consensus=max"), 86.1),
}

ORDERINGS = (
    ("CNN > FF, in V1", "V1 CNN", "V1 FF"),
    ("CNN > FF, in V2", "V2 CNN", "V2 FF"),
    ("V2 ≥ V1, with CNN", "V2 CNN", "V1 CNN"),
    ("V2 ≥ V1, with FF", "V2 FF", "V1 FF"),
    ("TS ≥ plain", "TS (avg) V2 CNN", "V2 CNN"),
    ("average ≥ maximum", "TS (avg) V2 CNN", "TS (max) V2 CNN"),
)


def main() -> None:
    options = parser(__doc__.split("\n")[0], seeds=[0])
    options.add_argument("--epochs", type=int, default=40)
    given = options.parse_args()
    dataset = SkeletonDataset.open(given.data)
    small = override(load_recipe("utd-mhad"), [*SMALL, f"training.epochs={given.epochs}"])

    # By seed first, so that an interruption leaves whole comparisons.
    found: dict[str, list[float]] = {name: [] for name in NETWORKS}
    turns = [(seed, name) for seed in given.seeds for name in NETWORKS]
    for seed, name in track(turns, description="training", transient=True):
        accuracies = left_out_accuracies(
            override(small, NETWORKS[name][0]),
            dataset,
            given.out / name.replace(" ", "-"),
            seed=seed,
            precision=given.precision,
        )
        found[name] += [100 * accuracy for accuracy in accuracies.values()]

    console = Console()
    networks = Table("network", "left-out subjects, %", "paper, NTU RGB+D X-Sub, %")
    for name, (_, paper) in NETWORKS.items():
        networks.add_row(name, _spread(found[name]), f"{paper:.1f}")
    console.print(networks)
    orderings = Table("ordering", "difference, points", "paper", "here")
    for words, better, worse in ORDERINGS:
        # Both leave out the same subject; the difference has less spread than its sides.
        differences = list(np.subtract(found[better], found[worse]))
        paper = NETWORKS[better][1] - NETWORKS[worse][1]
        direction = "as in the paper" if np.mean(differences) > 0 else "the other way round"
        if abs(np.mean(differences)) < 2 * _standard_error(differences):
            direction += ", within two standard errors of none"
        orderings.add_row(words, _spread(differences, sign="+"), f"{paper:+.1f}", direction)
    console.print(orderings)
    trainings = len(found["V2 CNN"])
    console.print(f"means ± standard errors over {trainings} trainings: subjects left out × seeds")


def _spread(values: list[float], sign: str = "") -> str:
    return f"{np.mean(values):{sign}.1f} ± {_standard_error(values):.1f}"


def _standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
