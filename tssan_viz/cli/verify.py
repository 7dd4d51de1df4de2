"""The command `tssan-viz verify`: is all that was recorded still what was recorded."""

from __future__ import annotations

from typing import Annotated

import typer

from tssan_viz.cli.common import console, err_console, open_store


def verify(
    store: Annotated[
        str | None,
        typer.Argument(
            help="The attention store: a folder. Default: $TSSAN_STORE, else ./attention-store.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a store: files, every map, sums and counts. Exits with 1 when something is damaged."""
    from rich.progress import Progress
    from rich.text import Text

    from tssan_viz.store.verification import verify as verify_store

    opened = open_store(store)
    with Progress(console=err_console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        found = verify_store(
            opened, lambda done, total: bar.update(task, completed=done, total=total)
        )
    # What is named comes from the data: it is text, never markup.
    for said in found.damaged:
        console.print(Text(said, style="red"), soft_wrap=True)
    compared = f"{found.rows:,} rows with {found.maps:,} maps, {found.files:,} files"
    if found.damaged:
        console.print(Text(f"{opened.url} is damaged: {len(found.damaged)} faults; {compared}"))
        raise typer.Exit(1)
    console.print(Text(f"{opened.url} is sound: {compared} are what was recorded"))
