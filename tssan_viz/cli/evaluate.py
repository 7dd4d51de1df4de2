"""The command `tssan-viz evaluate`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import DataOption, console, make_folder

if TYPE_CHECKING:
    from tssan.evaluation import Evaluation

LOWEST = 5  # classes that are printed; all are in per-class.csv


class PartChoice(StrEnum):
    """Which part of the data set is evaluated."""

    test = "test"
    train = "train"
    validation = "validation"


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="A folder that `tssan-viz train` wrote.", show_default=False)
    ],
    data: DataOption,
    split: Annotated[
        PartChoice,
        typer.Option(
            help="The test part, what was fitted, or what was held out of the training part."
        ),
    ] = PartChoice.test,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for tables and picture. Default: evaluation-SPLIT in the run's folder.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON and nothing else.")
    ] = False,
) -> None:
    """Say how often a trained network is right, class by class, and how sure that is.

    Writes predictions, per-class accuracy and the confusion matrix as tables and as a picture.
    Each look at the test part is counted in the run's folder.

        tssan-viz evaluate run --data utd
    """
    from tssan.dataset import SkeletonDataset
    from tssan.evaluation import evaluate as evaluate_run
    from tssan.training import load_run

    trained = load_run(run)
    dataset = SkeletonDataset.open(data)
    folder = out or run / f"evaluation-{split.value}"
    trained.refuse_other(dataset)
    make_folder(folder)
    evaluation = evaluate_run(trained, dataset, split.value)
    files = evaluation.write(folder)
    if as_json:
        typer.echo(json.dumps(evaluation.summary(), indent=2, allow_nan=False))
        return
    for line in [*sentences(evaluation), f"written to {files[0].parent}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def sentences(evaluation: Evaluation) -> list[str]:
    """Return what the command prints, line by line."""
    found = evaluation.summary()
    lines = [
        f"{found['dataset']} {found['protocol']}, {found['part']} part, recipe {found['recipe']}, "
        f"{found['selection']}",
        f"top-1   {100 * found['top1']:.1f} % ({found['correct']} of {found['sequences']})"
        + ("" if found["top5"] is None else f" · top-5 {100 * found['top5']:.1f} %")
        + f" · mean over classes {100 * found['mean_class_accuracy']:.1f} %",
    ]
    interval = evaluation.interval
    if interval is None:
        lines.append(f"no 95 % interval: {evaluation.no_interval}")
    else:
        lines.append(
            f"95 %    {100 * interval.low:.1f} to {100 * interval.high:.1f} % ({interval.method})"
        )
    lowest = evaluation.per_class.dropna(subset="accuracy").sort_values("accuracy", kind="stable")
    lowest = lowest[lowest["accuracy"] < 1].head(LOWEST)
    if len(lowest):
        lines.append("lowest  class · right · mostly taken for")
    lines += [
        f"        {line.class_name} · {line.correct} of {line.sequences} · {line.taken_for}"
        for line in lowest.itertuples()
    ]
    if not evaluation.same_data:
        lines.append("the data are not bit for bit those that the run was trained on")
    times = evaluation.test_evaluations
    lines.append(
        f"the test part was looked at {times} time{'' if times == 1 else 's'} with this run"
    )
    return lines
