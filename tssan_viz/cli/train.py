"""The command `tssan-viz train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tssan_viz.cli.common import DataOption, console, err_console


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="The name of a recipe that comes with the package (demo, utd-mhad, nw-ucla, "
            "ts-san-ntu60), or the path of a YAML file.",
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in the folder.")
    ] = False,
) -> None:
    """Train a network on a prepared data set and measure it once on the test part.

    The test part is never looked at before: what the recipe selects by is held out of the training
    part. Ctrl-C leaves a run that `--resume` goes on with.
    """
    import dataclasses

    from tssan.dataset import SkeletonDataset
    from tssan.recipe import load_recipe
    from tssan.run_folder import Interrupted
    from tssan.training import train as train_run

    chosen = load_recipe(recipe)
    if protocol is not None:
        chosen = dataclasses.replace(chosen, protocol=protocol)
    if epochs is not None:
        chosen = dataclasses.replace(
            chosen, training=dataclasses.replace(chosen.training, epochs=epochs)
        )
    dataset = SkeletonDataset.open(data)
    try:
        run = train_run(chosen, dataset, out, seed=seed, resume=resume)
    except Interrupted as stop:
        err_console.print(f"[bold yellow]interrupted:[/] {stop}", highlight=False)
        raise typer.Exit(130) from None
    results = run.results
    console.print(
        f"test accuracy {100 * results['test_accuracy']:.1f} % "
        f"({results['test_correct']} of {results['test_sequences']} sequences), "
        f"{results['dataset']} {results['protocol']}, recipe {results['recipe']}, seed {seed}, "
        f"{_duration(results['seconds'])} of training on {results['device']}",
        highlight=False,
        soft_wrap=True,
    )
    if results["validation_accuracy"] is not None:
        console.print(
            f"held-out part of the training subjects: "
            f"{100 * results['validation_accuracy']:.1f} % of "
            f"{results['validation_sequences']} sequences (epoch {results['kept_epoch']})",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"next: tssan-viz record --run {out} --data {data}", highlight=False, soft_wrap=True
    )


def _duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
