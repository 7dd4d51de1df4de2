"""The command `tssan-viz view`."""

from pathlib import Path
from typing import Annotated

import typer

from tssan_viz.cli.common import RunOption, StoreOption, console, open_store


def view(
    sample: Annotated[
        str | None,
        typer.Argument(help="The video's name, as `tssan-viz info` and the store have it."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "view.html"
    ),
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Write one video's attention as a web page that opens anywhere and needs no network."""
    from tssan_viz.errors import UserError
    from tssan_viz.views import save_html

    opened = open_store(store)
    chosen = opened.latest_run() if run is None else run
    if sample is None:
        table = opened.select(run=chosen).samples()
        names = table.drop_duplicates("class_name")["sample"].tolist()[:5]
        raise UserError(
            f"which video? Run {chosen} has {len(table)}, for instance {', '.join(names)}"
        )
    opened.sample(sample, run=chosen)  # says the nearest names of one that is not there
    path = save_html(opened.select(run=chosen, sample=sample), out, view="explore")
    console.print(f"{path}  ({path.stat().st_size / 1000:,.0f} kB)", soft_wrap=True, markup=False)
