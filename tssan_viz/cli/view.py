"""The command `tssan-viz view`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import StoreOption, console, open_store

if TYPE_CHECKING:
    from tssan_viz.selection import Selection


def view(
    sample: Annotated[
        str | None,
        typer.Argument(
            help="The video's name, as `tssan-viz info` and the store have it; or a file of one "
            "skeleton sequence, to be shown to a trained network (--run)."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "view.html"
    ),
    store: StoreOption = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="Which recorded run. Default: the newest. For a file: the folder of a trained "
            "run.",
            show_default=False,
        ),
    ] = None,
    bertviz: Annotated[
        bool,
        typer.Option(
            "--bertviz", help="Write BertViz's own head view, made to work without a network."
        ),
    ] = False,
) -> None:
    """Write one video's attention as a web page that opens anywhere and needs no network.

    tssan-viz view S001C001P008R001A014 -o view.html

    tssan-viz view S001C001P008R001A014.skeleton --run runs/ntu60 -o view.html
    """
    from tssan_viz.errors import UserError

    if sample is not None and Path(sample).is_file():
        _view_file(Path(sample), out, store, run, bertviz=bertviz)
        return
    if run is not None and sample is not None and (Path(run) / "results.json").is_file():
        raise UserError(
            f"there is no file {sample}, and {run} is a trained run, which needs one to look at; "
            "recorded videos are shown without it, or with the name that `tssan-viz info` gives"
        )
    opened = open_store(store)
    chosen = opened.latest_run() if run is None else run
    if sample is None:
        table = opened.select(run=chosen).samples()
        names = table.drop_duplicates("class_name")["sample"].tolist()[:5]
        raise UserError(
            f"which video? Run {chosen} has {len(table)}, for instance {', '.join(names)}"
        )
    opened.sample(sample, run=chosen)  # says the nearest names of one that is not there
    _write(opened.select(run=chosen, sample=sample), out, bertviz=bertviz)


def _view_file(file: Path, out: Path, store: str | None, run: str | None, *, bertviz: bool) -> None:
    from tssan_viz.cli.one_file import recorded_file
    from tssan_viz.errors import UserError

    if run is None:
        raise UserError(
            f"{file} is a file; which network is to look at it? --run is a folder that "
            "`tssan-viz train` wrote"
        )
    if store is not None:
        raise UserError(f"{file} is a file, which needs no store: leave out --store {store}")
    with recorded_file(file, Path(run)) as selection:
        _write(selection, out, bertviz=bertviz)


def _write(selection: Selection, out: Path, *, bertviz: bool) -> None:
    from tssan_viz.views import save_bertviz, save_html

    path = save_bertviz(selection, out) if bertviz else save_html(selection, out, view="explore")
    console.print(f"{path}  ({path.stat().st_size / 1000:,.0f} kB)", soft_wrap=True, markup=False)
