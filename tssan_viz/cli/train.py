"""The command `tssan-viz train`."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tssan_viz.cli.common import DataOption, console, err_console
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan.training import TrainedRun


# Fewer than these held out, and one sequence more or less right moves accuracy by over 5 %.
FEW_SEQUENCES = 20


class Precision(StrEnum):
    """Of the arithmetic in training."""

    full = "32"
    bf16 = "bf16"
    fp16 = "fp16"


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Another value for a field of the recipe, as often as needed: training.epochs=10.",
        metavar="FIELD=VALUE",
        show_default=False,
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option(help="So many GPUs, or processes where there is none, share every batch.", min=1),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="32 bits, or mixed with 16. fp16 needs a GPU."),
]


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="The name of a recipe that comes with the package (demo, utd-mhad, nw-ucla, "
            "t1_ts-san-v2, …; `tssan-viz describe` lists them), or the path of a YAML file.",
            show_default=False,
        ),
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="The folder for the run.", show_default=False)],
    seed: Annotated[
        int, typer.Option(help="Of initialisation, order and augmentation.", min=0)
    ] = 0,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Which subjects or cameras train and which test. Default: the recipe's.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="So many epochs instead of the recipe's, to try something out.",
            min=1,
            show_default=False,
        ),
    ] = None,
    set_: SetOption = None,
    validation_subjects: Annotated[
        str | None,
        typer.Option(
            help="Hold out these training subjects, such as 7 or 5,7, and select by them.",
            show_default=False,
        ),
    ] = None,
    devices: DevicesOption = 1,
    precision: PrecisionOption = Precision.full,
    paper_protocol: Annotated[
        bool,
        typer.Option(
            "--paper-protocol",
            help="Select on the test part, as the literature does; every number then says so.",
        ),
    ] = False,
    no_test: Annotated[
        bool, typer.Option("--no-test", help="For development: leave the test part alone.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in the folder.")
    ] = False,
    record: Annotated[
        str | None,
        typer.Option(
            "--record",
            help="A store, created if need be: the attention of some training videos is recorded "
            "into it before and after each epoch.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        int,
        typer.Option(
            help="So many videos for --record, evenly from all classes and their subjects.", min=1
        ),
    ] = 64,
) -> None:
    """Train a network on a prepared data set and measure it once on the test part.

    The test part is not looked at before, unless `--paper-protocol` wants it: what the recipe
    selects by is held out of the training part. Ctrl-C leaves a run that `--resume` goes on with.

        tssan-viz train utd-mhad --data utd --out run

        tssan-viz train t1_ts-san-v2 --data ntu60 --out run-xview --protocol xview --precision bf16

        tssan-viz train demo --data made-up --out try --set network.heads=4
    """
    import dataclasses

    from tssan.dataset import SkeletonDataset
    from tssan.recipe import load_recipe, override
    from tssan.run_folder import Interrupted
    from tssan.training import train as train_run

    chosen = load_recipe(recipe)
    if epochs is not None and any(one.partition("=")[0] == "training.epochs" for one in set_ or ()):
        raise UserError("--epochs and --set training.epochs=… say the same thing; give one of them")
    if set_:
        chosen = override(chosen, set_)
    if protocol is not None:
        chosen = dataclasses.replace(chosen, protocol=protocol)
    changed: dict[str, Any] = {}
    if epochs is not None:
        changed["epochs"] = epochs
    if validation_subjects is not None:
        changed["validation_subjects"] = _numbers(validation_subjects)
    if paper_protocol:
        changed["select_on"] = "test"
    chosen = dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, **changed))
    dataset = SkeletonDataset.open(data)
    watching = []
    if record is not None:
        from tssan_viz.cli.watched_training import probe_callback

        watching = [probe_callback(chosen, dataset, record, out, videos=probe, seed=seed)]
    try:
        run = train_run(
            chosen,
            dataset,
            out,
            seed=seed,
            resume=resume,
            devices=devices,
            precision=precision.value,
            test=not no_test,
            command=typed(),
            callbacks=watching,
        )
    except Interrupted as stop:
        err_console.print(f"[bold yellow]interrupted:[/] {stop}", highlight=False)
        raise typer.Exit(130) from None
    _print_outcome(run)
    for watched in watching:
        assert watched.report is not None
        console.print(
            f"recorded {watched.report.rows} rows of run {watched.report.run} into {record}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    next_command = shlex.join(["tssan-viz", "record", "--run", str(out), "--data", str(data)])
    console.print(f"next: {next_command}", markup=False, highlight=False, soft_wrap=True)


def typed() -> str:
    """Return the command line as it was typed."""
    return shlex.join(["tssan-viz", *sys.argv[1:]])


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UserError(
            f"--validation-subjects {text}: give the numbers of subjects, such as 7 or 5,7"
        ) from None


def _print_outcome(run: TrainedRun) -> None:
    results = run.results
    how = (
        f"{results['dataset']} {results['protocol']}, recipe {results['recipe']}, "
        f"seed {results['seed']}, {_duration(results['seconds'])} of training "
        f"on {results['device']}"
    )
    on_test = results["selected_on"] == "test"
    if results["test_evaluated"]:
        label = f", {results['selection']}" if on_test else ""
        console.print(
            f"test accuracy {100 * results['test_accuracy']:.1f} % "
            f"({results['test_correct']} of {results['test_sequences']} sequences{label}), {how}",
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print(
            f"the test part was left alone (--no-test), {how}", highlight=False, soft_wrap=True
        )
    if results["validation_accuracy"] is not None and not on_test:
        who = run.recipe.training.validation_subjects
        part = (
            f"held-out training subjects {', '.join(map(str, who))}"
            if who
            else "held-out part of the training subjects"
        )
        console.print(
            f"{part}: {100 * results['validation_accuracy']:.1f} % of "
            f"{results['validation_sequences']} sequences (epoch {results['kept_epoch']})",
            highlight=False,
            soft_wrap=True,
        )
        if results["validation_sequences"] < FEW_SEQUENCES:
            err_console.print(
                "[bold yellow]note:[/] so few held-out sequences hardly tell one epoch from "
                "another; hold out more, as a larger share (--set training.validation=…) or as "
                "whole subjects (--validation-subjects)",
                highlight=False,
            )


def _duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
