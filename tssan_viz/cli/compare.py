"""The command `tssan-viz compare`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import RunOption, StoreOption, console, err_console, open_store

if TYPE_CHECKING:
    import pandas as pd

    from tssan_viz.comparison import ClassComparison


def compare(
    class_name: Annotated[
        str,
        typer.Option("--class", help="The class: name, code, alias or label.", show_default=False),
    ],
    with_class: Annotated[
        str | None,
        typer.Option("--with", help="Against this class alone.", show_default="all others"),
    ] = None,
    store: StoreOption = None,
    run: RunOption = None,
    layer: Annotated[str, typer.Option(help="all, last or a number from 1.")] = "all",
    head: Annotated[
        int | None, typer.Option(help="A number from 1.", show_default="all heads")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Subjects of different splits are never pooled.", show_default="test"),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Similarity of two maps: cosine, pearson, hellinger or cka.")
    ] = "cosine",
    permutations: Annotated[
        int, typer.Option(help="Exchanges to draw; fewer exist with few subjects: then all.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to the standard output.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Write the table to this file too.", show_default=False),
    ] = None,
) -> None:
    """Test whether maps of a class resemble each other across subjects more than other classes' do.

    Similarity within the class (W) and to other classes (B), always between different subjects,
    for each layer and head; the difference Δ = W − B is tested by exchanging classes within each
    subject.
    """
    from tssan_viz.comparison import compare_class
    from tssan_viz.errors import UserError

    if csv is not None and not csv.absolute().parent.is_dir():
        raise UserError(f"--csv {csv}: there is no folder {csv.parent}")
    opened = open_store(store)
    with _progress() as report:
        result = compare_class(
            opened if run is None else opened.select(run=run),
            class_name,
            with_class=with_class,
            layer=_layer(layer),
            head=head,
            split=split,
            metric=metric,
            permutations=permutations,
            seed=seed,
            progress=report,
        )
    if csv is not None:
        try:
            result.table.to_csv(csv, index=False)
        except OSError as error:
            raise UserError(f"--csv {csv} cannot be written: {error.strerror}") from error
        err_console.print(Text(f"table written to {csv}"), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    print_comparison(result)


def _layer(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on the standard error, where it disturbs neither a table nor JSON."""
    seen = err_console.is_terminal
    with Progress(console=err_console, transient=True, disable=not seen) as bar:
        task = bar.add_task("reading maps", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report


def print_comparison(result: ClassComparison) -> None:
    """Print the table, the nearest and farthest classes, the sentences and the notes."""
    against = "all other classes" if result.other is None else str(result.other)
    console.print(Text(f"{result.entry} against {against}", style="bold"))
    split = "no split" if result.split is None else f"split {result.split}"
    console.print(
        Text(
            f"{len(result.subjects)} subjects · {result.n_samples} videos, "
            f"{result.n_class_samples} of the class · run {result.run} · {split} · {result.metric}",
            style="dim",
        )
    )
    console.print(_table(result, console.width))
    if len(result.significant):
        console.print(
            Text(
                f"* p max-T ≤ {result.alpha:g}: holds for all {len(result.table)} heads together",
                style="dim",
            )
        )
    if len(result.neighbours) > 1:
        shown = min(3, len(result.neighbours) // 2)
        console.print(_named("nearest", result.neighbours.head(shown)))
        console.print(_named("farthest", result.neighbours.tail(shown)[::-1]))
    console.print()
    for sentence in result.summary:
        console.print(Text(sentence))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="dim"))


def _named(what: str, classes: pd.DataFrame) -> Text:
    pairs = zip(classes["class_name"], classes["similarity"], strict=True)
    return Text.assemble(
        (f"{what}: ", "bold"), ", ".join(f"{name} {similarity:.3f}" for name, similarity in pairs)
    )


def _table(result: ClassComparison, width: int) -> Table:
    """Draw the table; a narrow terminal gets fewer columns, --json and --csv have all."""
    from tssan_viz.comparison.summary import format_p

    def number(digits: int, sign: str = "") -> Callable[[float], str]:
        return lambda value: "—" if value != value else f"{value:{sign}.{digits}f}"

    wide, roomy, tight = width >= 78, width >= 56, width < 46
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("layer", "layer", str),
        ("head", "head", str),
    ]
    if not tight:
        columns += [("W", "W", number(3)), ("B", "B", number(3))]
    columns.append(("Δ", "delta", number(3, "+")))
    if wide:
        columns += [
            ("low", "low", number(3, "+")),
            ("high", "high", number(3, "+")),
        ]
    if roomy:
        columns.append(("g", "hedges_g", number(2)))
    columns.append(("p", "p", format_p))
    columns.append(("p max-T", "p_max_t", format_p))
    if roomy:
        columns.append(("q", "q", format_p))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    for title, _, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for line in result.table.to_dict(orient="records"):
        found = line["p_max_t"] <= result.alpha
        cells = [write(line[name]) for _, name, write in columns]
        table.add_row("*" if found else "", *cells, style="bold" if found else None)
    return table
