"""The command `tssan-viz figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tssan_viz.cli.common import RunOption, StoreOption, console, open_store


def figure(
    name: Annotated[str, typer.Argument(help="Which figure: figure5.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to: a .pdf, .svg or .png file.")
    ] = Path("figure5.pdf"),
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class by name, code, alias or label; two subjects are shown of the first, one "
            "of each further. Default: put on jacket, and reading.",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        list[int] | None,
        typer.Option("--subject", help="Show these subjects only.", show_default=False),
    ] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Default: the last.", show_default=False)
    ] = None,
    head: Annotated[
        list[int] | None,
        typer.Option("--head", help="Default: all, up to eight.", show_default=False),
    ] = None,
    style: Annotated[str, typer.Option("--style", help="lines or heat.")] = "lines",
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Write the numbers behind it here.", show_default=False),
    ] = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Print a figure of the paper from a store, as PDF, SVG or PNG."""
    from tssan_viz.errors import UserError
    from tssan_viz.figures import figure5, figure5_data, save_figure, writable_figure

    if name != "figure5":
        raise UserError(f"there is no figure {name!r}; there is figure5")
    target = writable_figure(out)
    source = open_store(store)
    data = figure5_data(
        source,
        class_name,
        subject=subject or None,
        layer=layer,
        head=head,
        run=run,
    )
    drawn = figure5(data, style=style)
    if csv is not None:
        try:
            data.table().to_csv(csv, index=False)
        except OSError as error:
            raise UserError(f"{csv} cannot be written: {error.strerror}") from error
    save_figure(drawn, target)

    console.print(f"[bold]{escape(str(target))}[/bold]")
    for video in data.videos:
        console.print(f"  {escape(video.title)}  [dim]{escape(video.sample)}[/dim]")
    heads = ", ".join(map(str, data.heads))
    console.print(f"  layer {data.layer} of {data.layers}, heads {heads}, run {escape(data.run)}")
    if csv is not None:
        console.print(f"  numbers: {escape(str(csv))}")
    for note in data.notes:
        console.print(f"  note: {escape(note)}", style="dim")
