"""The commands `tssan-viz compact`, `rm` and `merge`: keeping stores."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from tssan_viz.cli.common import (
    StoreArgument,
    StoreOption,
    console,
    err_console,
    open_store,
    rows_bar,
)


def compact(store: StoreArgument = None, named: StoreOption = None) -> None:
    """Merge a store's small files and drop old versions (recordings end with it by themselves)."""
    from rich.filesize import decimal
    from rich.text import Text

    from tssan_viz.store.upkeep import compact as compact_store

    opened = open_store(store, named)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, after = compact_store(opened)
    # What could not be merged is safe where it is.
    for warning in caught:
        err_console.print(Text(f"warning: {warning.message}", style="yellow"), soft_wrap=True)
    console.print(Text(f"{opened.url}: {decimal(before)} before, {decimal(after)} now"))
    if caught:
        raise typer.Exit(1)


def rm(
    run: Annotated[str, typer.Option("--run", help="Which run to remove.", show_default=False)],
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a run from a store, with its maps and all that belongs to it."""
    from rich.filesize import decimal
    from rich.text import Text

    from tssan_viz.store.upkeep import remove

    opened = open_store(store)
    run = opened.checked_run(run)
    if not yes:
        question = f"Remove run {run!r} with {len(opened.rows(run)):,} rows from {opened.url}?"
        typer.confirm(question, abort=True)
    freed = remove(opened, run)
    console.print(Text(f"run {run!r} is removed; {decimal(freed)} became free"))


def merge(
    sources: Annotated[
        list[str], typer.Argument(help="Stores whose runs are copied.", show_default=False)
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="The store they go to, made if needed.", show_default=False
        ),
    ],
    run: Annotated[
        str | None, typer.Option("--run", help="This run only.", show_default="all")
    ] = None,
) -> None:
    """Copy the runs of stores into one, each map compared with its checksum on the way.

    Exits with 1 when something damaged had to be left out.
    """
    from rich.text import Text

    from tssan_viz.evidence.kept import copy_evidence
    from tssan_viz.store import open_store as open_attention_store
    from tssan_viz.store.upkeep import merge as merge_stores
    from tssan_viz.views.vectors import copy_queries

    opened = [open_store(source) for source in sources]
    if run is not None:
        for source in opened:
            # Before a store is made for it.
            source.checked_run(run)
    into = open_attention_store(out, create=True)
    with rows_bar() as progress:
        merged = merge_stores(opened, into, run=run, progress=progress)
    for source in opened:
        for name in merged.runs:
            copy_evidence(source, into, name)
            copy_queries(source, into, name)
    for said in merged.damaged:
        console.print(Text(f"left out: {said}", style="red"), soft_wrap=True)
    there = f", {merged.skipped:,} were there already" if merged.skipped else ""
    console.print(Text(f"{into.url}: {merged.rows:,} rows of {', '.join(merged.runs)}{there}"))
    if merged.damaged:
        raise typer.Exit(1)
