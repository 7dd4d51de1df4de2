"""The commands `tssan-viz export` and `import`: a run as one file, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tssan_viz.cli.common import RunOption, StoreOption, console, open_store, rows_bar


def export(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The file: .parquet, .nc (netCDF), .zarr or .npz.",
            show_default=False,
        ),
    ],
    store: StoreOption = None,
    run: RunOption = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option("--class", help="These classes only.", show_default="all"),
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(help="These layers only, from 1.", show_default="all")
    ] = None,
    head: Annotated[
        list[int] | None, typer.Option(help="These heads only, from 1.", show_default="all")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='A condition in SQL on the rows, for instance "confidence > 0.9".',
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a run, or a part of it, to one file that other programs read."""
    from rich.filesize import decimal
    from rich.text import Text

    from tssan_viz.store.exchange import export as write

    selection = open_store(store).select(
        run=run, class_name=class_name or None, layer=layer or None, head=head or None, where=where
    )
    with rows_bar() as progress:
        write(selection, out, progress)
    size = sum(f.stat().st_size for f in [out, *out.rglob("*")] if f.is_file())
    console.print(Text(f"{out}: {selection}, {decimal(size)}"), soft_wrap=True)


def import_(
    source: Annotated[
        Path, typer.Argument(help="A file that `tssan-viz export` wrote.", show_default=False)
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            "--store",
            help="The store, made if needed. Default: $TSSAN_STORE, else ./attention-store.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run's name.", show_default="the one it had")
    ] = None,
) -> None:
    """Make a run of a file that `tssan-viz export` wrote."""
    from rich.text import Text

    from tssan_viz.store import open_store as open_attention_store
    from tssan_viz.store.exchange import import_run, read_exported

    exported = read_exported(source)
    # Only now: for a file that is none, no store is made.
    into = open_attention_store(out, create=True)
    before = {name: len(into.rows(name)) for name in into.run_names()}
    with rows_bar() as progress:
        name = import_run(exported, into, run=run, progress=progress)
    rows = len(into.rows(name))
    added = rows - before.get(name, 0)
    there = f" ({added:,} of them added)" if name in before else ""
    console.print(Text(f"{into.url}: run {name!r} has {rows:,} rows{there}"))
