"""The command `tssan-viz view`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import StoreOption, console, open_store

if TYPE_CHECKING:
    from torch import Tensor

    from tssan_viz.selection import Selection


class Kind(StrEnum):
    """What is written."""

    explore = "explore"
    head = "head"
    model = "model"
    heat = "heat"
    player = "player"
    query_key = "query-key"


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
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="Which view: all of a video's, linked (explore), or one of them. Queries and keys "
            "(query-key) are there of a file, and of what `record --queries` recorded.",
        ),
    ] = Kind.explore,
    bertviz: Annotated[
        bool,
        typer.Option(
            "--bertviz",
            help="Write BertViz's own page, made to work without a network: its head view, or "
            "with --kind model its model view.",
        ),
    ] = False,
) -> None:
    """Write one video's attention as a web page that opens anywhere and needs no network.

    tssan-viz view S001C001P008R001A014 -o view.html

    tssan-viz view S001C001P008R001A014.skeleton --run runs/ntu60 -o view.html

    tssan-viz view S001C001P008R001A014.skeleton --run runs/ntu60 --kind query-key -o view.html

    The player lights joints by what `tssan-viz explain` found out, which a store keeps: of a file,
    which has none, it lights what the maps are between (`tssan-viz record` first to have both).
    """
    from tssan_viz.errors import UserError

    if sample is not None and Path(sample).is_file():
        _view_file(Path(sample), out, store, run, kind, bertviz=bertviz)
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
    _write(opened.select(run=chosen, sample=sample), out, kind, bertviz=bertviz)


def _view_file(
    file: Path, out: Path, store: str | None, run: str | None, kind: Kind, *, bertviz: bool
) -> None:
    from tssan_viz.cli.one_file import queries_and_keys, recorded_file
    from tssan_viz.errors import UserError

    if run is None:
        raise UserError(
            f"{file} is a file; which network is to look at it? --run is a folder that "
            "`tssan-viz train` wrote"
        )
    if store is not None:
        raise UserError(f"{file} is a file, which needs no store: leave out --store {store}")
    from tssan_viz.views import keep_queries

    attended: dict[str, tuple[Tensor, Tensor]] = {}
    with recorded_file(file, Path(run), attended=attended) as selection:
        if kind in (Kind.explore, Kind.query_key) and not bertviz:
            keep_queries(selection, *queries_and_keys(selection, attended))
        _write(selection, out, kind, bertviz=bertviz)


def _write(selection: Selection, out: Path, kind: Kind, *, bertviz: bool) -> None:
    from tssan_viz.errors import UserError
    from tssan_viz.views import save_bertviz, save_html

    if not bertviz:
        _say(save_html(selection, out, view=kind.value))
        return
    if kind not in (Kind.explore, Kind.head, Kind.model):
        raise UserError(f"BertViz has a head view and a model view, and no {kind.value}")
    _say(save_bertviz(selection, out, view="model" if kind is Kind.model else "head"))


def _say(path: Path) -> None:
    console.print(f"{path}  ({path.stat().st_size / 1000:,.0f} kB)", soft_wrap=True, markup=False)
