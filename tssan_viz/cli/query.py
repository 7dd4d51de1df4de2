"""The command `tssan-viz query`: a question in SQL about what a store says of its maps."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import StoreOption, console, open_store
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


class Output(StrEnum):
    """How an answer is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    question: Annotated[
        str,
        typer.Argument(
            help="One SELECT over maps (one line per row × layer × head, with its measures), "
            "rows, samples, sites and runs.",
            show_default=False,
        ),
    ],
    store: StoreOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the answer to this file: .csv, .json or .parquet.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Output | None,
        typer.Option(
            "--format",
            help="How to write it. Default: what the file's ending says, else a table.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Answer a question in SQL, for instance "select head, avg(entropy) from maps group by all"."""
    from tssan_viz.store.sql import query as answer

    form = form or _by_ending(out)
    table = answer(open_store(store), question)
    if form is Output.table:
        if out is not None:
            raise UserError(f"{out}: a table is for the screen; name a .csv, .json or .parquet")
        _show(table)
    elif form is Output.parquet:
        import pyarrow.parquet as pq

        if out is None:
            raise UserError("parquet is written to a file: name one with --out")
        buffer = BytesIO()
        pq.write_table(table, buffer)
        _write(out, buffer.getvalue())
    else:
        text = _csv(table) if form is Output.csv else _json(table)
        if out is None:
            sys.stdout.write(text)
        else:
            _write(out, text)


def _write(out: Path, content: str | bytes) -> None:
    from tssan_viz.store.durable import write_atomically

    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    write_atomically(out, content)


def _by_ending(out: Path | None) -> Output:
    if out is None:
        return Output.table
    ending = out.suffix.removeprefix(".").lower()
    if ending not in {"csv", "json", "parquet"}:
        raise UserError(f"{out}: an answer is written as .csv, .json or .parquet, not {ending!r}")
    return Output(ending)


def _csv(table: pa.Table) -> str:
    from tssan_viz.store.reader import readable

    return readable(table).to_csv(index=False)


def _json(table: pa.Table) -> str:
    """Return one object per line of the answer; what is no number becomes null."""
    from tssan_viz.store.reader import readable

    lines = json.loads(readable(table).to_json(orient="records", date_format="iso"))
    return json.dumps(lines, ensure_ascii=False, indent=2) + "\n"


def _show(table: pa.Table) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for field in table.schema:
        number = str(field.type).startswith(("int", "uint", "float", "double", "decimal"))
        shown.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for line in table.to_pylist():
        # Values come from the data: they are text, never markup.
        shown.add_row(*(Text(_cell(value)) for value in line.values()))
    console.print(shown)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
