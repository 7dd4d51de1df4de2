"""The commands `tssan-viz nearest` and `index`: which rows hold maps like one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import RunOption, StoreOption, console, counting_bar, open_store
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tssan_viz.selection import Selection

LayerOption = Annotated[int, typer.Option(help="A number from 1.", show_default=False)]
HeadOption = Annotated[int, typer.Option(help="A number from 1.", show_default=False)]
WhereOption = Annotated[
    str | None,
    typer.Option(
        help='Only among rows that fit a condition in SQL, like "confidence > 0.9".',
        show_default=False,
    ),
]
SplitOption = Annotated[
    str | None, typer.Option(help="Only among rows of this split.", show_default=False)
]
StepOption = Annotated[
    int | None, typer.Option(help="Only among rows of this step of training.", show_default=False)
]

_SHOWN = ("sample", "class_name", "subject", "camera", "segment", "person", "step")


def nearest(
    sample: Annotated[
        str,
        typer.Argument(
            help="Whose map: a video's name, as the store has it; or a .npy file of one map "
            "(queries × keys).",
            show_default=False,
        ),
    ],
    layer: LayerOption,
    head: HeadOption,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    segment: Annotated[int, typer.Option(help="Which segment of the video.")] = 1,
    person: Annotated[int, typer.Option(help="Which person of the video.")] = 1,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--index",
            help="Compare every map, or ask the index that `tssan-viz index` made.",
            show_default="every map up to 50,000, and beyond without an index",
        ),
    ] = None,
    split: SplitOption = None,
    step: StepOption = None,
    where: WhereOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Print the rows whose map is most like one video's: cosine of one layer's and head's maps.

    tssan-viz nearest S001C001P008R001A014 --layer 4 --head 8
    """
    selection = open_store(store).select(
        layer=layer, head=head, split=split, step=step, where=where, run=run
    )
    if sample.endswith(".npy"):
        wanted, own = _map_in(Path(sample)), None
    else:
        wanted, own = _map_of(selection, sample, segment, person)
    # The map itself is in the store, and is no answer.
    found = selection.nearest(wanted, k + (own is not None), exact=exact)
    recall, compared = found.attrs["recall"], found.attrs["exact"]
    found = found[found["row_id"] != own].head(k)
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in _SHOWN if found[name].notna().any()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("similarity", *shown):
        number = name not in ("sample", "class_name")
        table.add_column(Text(name.replace("_", " ")), justify="right" if number else "left")
    for line in found.to_dict("records"):
        values = (Text("–" if line[n] != line[n] else str(line[n])) for n in shown)
        table.add_row(Text(f"{line['similarity']:.4f}"), *values)
    console.print(table)
    how = (
        f"each of {len(selection):,} maps was compared"
        if compared
        else f"an index of {len(selection):,} maps was asked: it finds {recall:.1%} of the ten "
        "nearest, as measured when it was made; --exact compares every map"
    )
    console.print(Text(how))


def _map_in(file: Path) -> np.ndarray:
    import numpy as np

    try:
        wanted = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a map: {error}") from error
    if wanted.ndim != 2:
        raise UserError(f"{file} holds an array of shape {wanted.shape}; a map is queries × keys")
    return wanted


def _map_of(selection: Selection, sample: str, segment: int, person: int) -> tuple[np.ndarray, int]:
    """Return the newest map of a video, and its row's number."""
    from tssan_viz.store.schema import decode

    mine = selection.store.select(
        run=selection.run,
        layer=selection.layers,
        head=selection.heads,
        sample=sample,
        segment=segment,
        person=person,
    )
    if not len(mine):
        raise UserError(f"{sample} has no such map: {mine.empty_because}")
    rows = mine.rows()
    newest = rows.sort_values("step", kind="stable").tail(1)
    _, maps = next(mine.parts_of(newest, 1))
    return decode(maps)[0, 0, 0], int(newest["row_id"].iloc[0])


def index(
    layer: LayerOption,
    head: HeadOption,
    split: SplitOption = None,
    step: StepOption = None,
    where: WhereOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Make an index of one layer's and head's maps, for `tssan-viz nearest` among very many.

    It is kept beside the maps and takes about twice their bytes. `tssan-viz nearest` uses it for
    questions about the same rows; its recall is measured and printed.
    """
    from rich.text import Text

    selection = open_store(store).select(
        layer=layer, head=head, split=split, step=step, where=where, run=run
    )
    with counting_bar() as bar:
        task = bar.add_task("reading maps", total=None)

        def say(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        made = selection.index(say).described
    console.print(
        Text(
            f"an index of {made.rows:,} maps of layer {layer}, head {head} of run "
            f"{selection.run!r}: {made.lists} lists, of which a question looks into "
            f"{made.probes}; it finds {made.recall:.1%} of the ten nearest (over "
            f"{len(made.questions)} rows drawn at random)"
        )
    )
