"""The command `tssan-viz verify`: is all that was recorded still what was recorded."""

from __future__ import annotations

import typer

from tssan_viz.cli.common import StoreArgument, StoreOption, console, open_store, rows_bar


def verify(
    store: StoreArgument = None,
    named: StoreOption = None,
) -> None:
    """Check a store: files, every map, sums and counts. Exits with 1 when something is damaged."""
    from rich.text import Text

    from tssan_viz.store.verification import verify as verify_store

    opened = open_store(store, named)
    with rows_bar() as progress:
        found = verify_store(opened, progress)
    # What is named comes from the data: it is text, never markup.
    for said in found.damaged:
        console.print(Text(said, style="red"), soft_wrap=True)
    compared = f"{found.rows:,} rows with {found.maps:,} maps, {found.files:,} files"
    if found.damaged:
        console.print(Text(f"{opened.url} is damaged: {len(found.damaged)} faults; {compared}"))
        raise typer.Exit(1)
    console.print(Text(f"{opened.url} is sound: {compared} are what was recorded"))
