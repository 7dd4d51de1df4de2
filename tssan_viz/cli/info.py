"""The command `tssan-viz info`: what a store holds, and what to ask it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tssan_viz.cli.common import StoreArgument, StoreOption, console, open_store, quoted
from tssan_viz.site import counted_heads

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore


def info(
    store: StoreArgument = None,
    named: StoreOption = None,
) -> None:
    """Say what a store holds: runs, classes, subjects, cameras, layers and heads."""
    from rich import box
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    opened = open_store(store, named)
    runs = opened.runs()
    kept = opened.size("cells")
    where = "in the bucket" if opened.url.startswith("s3://") else "on the disk"
    of_it = "on this machine, besides," if opened.url.startswith("s3://") else "of it"
    of_which = f", {decimal(kept)} {of_it} sums that comparisons keep" if kept else ""
    console.print(
        Text.assemble((opened.url, "bold"), f"  {decimal(opened.size())} {where}{of_which}")
    )
    for note in opened.notes:
        console.print(Text(note, style="yellow"))
    if runs.empty:
        console.print(Text("It holds no run yet. Next: tssan-viz record --run RUN --data DIR"))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("recorded (UTC)", min_width=10)
    table.add_column("what", min_width=12)
    for heading in ("videos", "rows", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in runs.to_dict("records"):
        # Names come from the data: they are text, never markup.
        table.add_row(*(Text(cell) for cell in _cells(line)))
    console.print(table)
    newest = opened.latest_run()
    _say_more(opened, newest)


def _cells(line: Mapping[Any, Any]) -> list[str]:
    accuracy = line["accuracy"]
    what = [
        f"{line['dataset']}" + (f", {' and '.join(line['splits'])}" if line["splits"] else ""),
        _count(line["classes"], "class", "classes"),
        _count(line["subjects"], "subject"),
        *([_count(line["cameras"], "camera")] if line["cameras"] else []),
        f"{_count(line['sites'], 'site')} × {_count(line['heads'], 'head')}",
    ]
    return [
        line["run"],
        f"{line['created']:%Y-%m-%d %H:%M}",
        "\n".join(what),
        f"{line['samples']:,}",
        f"{line['rows']:,}",
        "–" if math.isnan(accuracy) else f"{100 * accuracy:.1f} %",
    ]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _say_more(store: AttentionStore, run: str) -> None:
    from rich.text import Text

    catalogue, rows = store.catalogue(run), store.rows(run)
    counts = rows.drop_duplicates("sample")["label"].value_counts()
    present = [entry for entry in catalogue.classes if entry.label in counts.index]
    said = [f"{entry} {counts[entry.label]}" for entry in present]
    for heading, values in (
        ("classes (videos)", said),
        ("subjects", sorted(rows["subject"].dropna().unique())),
        ("cameras", sorted(rows["camera"].dropna().unique())),
        (
            "sites",
            [
                f"{s.stream} layer {s.layer}: {counted_heads(s.numbers)} of {s.query} × {s.key}, "
                f"{s.kind}"
                for s in store.stored_sites(run)
            ],
        ),
    ):
        words = ", ".join(map(str, values)) if values else "not recorded"
        console.print(Text.assemble((f"{heading}: ", "bold"), words))
    option = "" if store.url == "attention-store" else f" --store {quoted(store.url)}"
    if len(present) > 1:
        chosen = _most_telling(present)
        console.print(
            Text.assemble(
                ("next: ", "bold"), f"tssan-viz compare --class {quoted(chosen)}{option}"
            ),
            soft_wrap=True,
        )
    if len(rows):
        sample = quoted(rows["sample"].iloc[0])
        console.print(
            Text.assemble(("      ", "bold"), f"tssan-viz view {sample}{option}"), soft_wrap=True
        )


def _most_telling(classes: list[Any]) -> str:
    """Return the class to try first: the project's example where the data has it."""
    example = [entry for entry in classes if "put on jacket" in (entry.name, *entry.aliases)]
    return "put on jacket" if example else classes[0].name
