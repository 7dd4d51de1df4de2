"""The command `tssan-viz reproduce`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tssan_viz.cli.common import DataOption, console, err_console
from tssan_viz.cli.train import DevicesOption, Precision, PrecisionOption, SetOption, typed
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from tssan.reproduction import Planned


def reproduce(
    table: Annotated[
        str, typer.Argument(help="table1 to table6 of the paper.", show_default=False)
    ],
    data: DataOption,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="xsub or xview; train-val of Kinetics. Default: the table's first.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The folder above the runs' folders. Default: ./reproduction. Rows that several "
            "tables share are run once.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="One run each, such as 0,1,2.")] = "0",
    rows: Annotated[
        str | None,
        typer.Option(
            help='Some rows only, by recipe or name: "SAN-V2 + CNN, SAN-V2 + FF".',
            show_default=False,
        ),
    ] = None,
    set_: SetOption = None,
    devices: DevicesOption = 1,
    precision: PrecisionOption = Precision.full,
) -> None:
    """Run a table of the paper row by row and print it beside the paper's numbers.

    Finished runs are not done again and interrupted ones are gone on with: give the same command
    again. `--set training.select_on=test` selects as the literature does, and says so.

        tssan-viz reproduce table3 --data ntu60 --protocol xview --seeds 0,1,2
    """
    from tssan import reproduction
    from tssan.dataset import SkeletonDataset
    from tssan.run_folder import Interrupted, cannot_write, write_text

    found = reproduction.find_table(table)
    chosen = reproduction.find_rows(found, [one.strip() for one in rows.split(",")] if rows else [])
    dataset = SkeletonDataset.open(data)
    name = dataset.protocol(protocol or _default_protocol(found.protocols, dataset.protocols)).name
    folder = out or Path("reproduction")
    runs = reproduction.plan(chosen, name, folder, seeds=_seeds(seeds), settings=set_ or ())
    command = typed()
    if found.dataset != dataset.name:
        err_console.print(
            f"note: {found.name} is of {found.dataset}, and {data} holds {dataset.name}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    numbers = iter(range(1, len(runs) + 1))

    def run(planned: Planned) -> dict[str, Any]:
        number = next(numbers)
        begun = "there already" if (planned.path / "results.json").exists() else "training"
        what = " = ".join(row.row for row in planned.rows)
        _say(f"{number} of {len(runs)}  {what}, seed {planned.seed}: {begun} ({planned.path})")
        try:
            return reproduction.run_planned(
                planned, dataset, devices=devices, precision=precision.value, command=command
            )
        except reproduction.LostLoss as error:
            err_console.print(f"{what}, seed {planned.seed}: {error}", markup=False)
            raise

    try:
        lines = reproduction.reproduce(chosen, runs, run)
    except Interrupted as stop:
        err_console.print(f"[bold yellow]interrupted:[/] {stop}", highlight=False)
        err_console.print("the same command goes on where this one stopped")
        raise typer.Exit(130) from None
    console.print()
    _say(f"{found.name}  {found.title} · {dataset.name} {name}")
    _print_lines(lines)
    for selection in dict.fromkeys(lines["selection"][lines["selection"] != ""]):
        _say(f"ours: {selection}")
    if name not in found.protocols:
        _say(f"the paper's protocols for it are {', '.join(found.protocols)}; ours is {name}")
    if found.dataset != dataset.name:
        _say(f"the paper's numbers are for {found.dataset}, ours for {dataset.name}")
    if set_:
        _say(f"the recipes were run with other values: {', '.join(set_)}")
    path = folder / f"{found.name}-{name}.csv"
    try:
        write_text(path, lines.to_csv(index=False))
    except OSError as error:
        raise cannot_write(path, error) from error
    _say(f"written to {path}")
    if lines["failed"].any():
        raise typer.Exit(1)


def _default_protocol(wanted: tuple[str, ...], there: tuple[str, ...]) -> str | None:
    """Return the first of the table's protocols that the data set has; else the data set's own."""
    return next((name for name in wanted if name in there), None)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(one) for one in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: give whole numbers from 0, each once, such as 0,1,2")
    return seeds


def _print_lines(lines: pd.DataFrame) -> None:
    from rich.table import Table

    shown = Table("row", "measure", box=None, pad_edge=False, header_style="bold")
    for column in ("paper", "ours", "difference", "seeds", "minutes each"):
        shown.add_column(column, justify="right")
    for line in lines.to_dict("records"):
        spread = f" ± {line['spread']:.1f}" if line["seeds"] > 1 else ""
        lost = f" (lost: {line['failed']})" if line["failed"] else ""
        shown.add_row(
            line["row"],
            line["measure"],
            _number(line["paper"], ".1f"),
            _number(line["ours"], ".1f") + spread,
            _number(line["difference"], "+.1f"),
            f"{line['seeds']}{lost}",
            _number(line["minutes"], ".1f"),
        )
    console.print(shown)


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
