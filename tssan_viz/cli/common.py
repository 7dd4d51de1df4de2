"""What every command shares: consoles, options that mean the same everywhere, the store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

    from tssan_viz.store import AttentionStore

console = Console()
err_console = Console(stderr=True)

_STORE = (
    "The attention store: a folder, or s3://BUCKET/NAME. "
    "Default: $TSSAN_STORE, else ./attention-store."
)
StoreOption = Annotated[str | None, typer.Option("--store", help=_STORE, show_default=False)]
StoreArgument = Annotated[str | None, typer.Argument(help=_STORE, show_default=False)]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="Which recorded run. Default: the newest.", show_default=False),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Add maps up on this Dask cluster (tcp://…), whose workers see the store's folder.",
        show_default="this machine's cores",
    ),
]
DataOption = Annotated[
    Path,
    typer.Option("--data", help="A folder that `tssan-viz prepare` wrote.", show_default=False),
]


def open_store(url: str | None, option: str | None = None) -> AttentionStore:
    """Open the store that an argument or `--store`, `$TSSAN_STORE` or the current folder names."""
    from tssan_viz.store import open_store as open_attention_store

    if url and option and url != option:
        raise UserError(f"two stores are named, {url} and --store {option}; give one of them")
    return open_attention_store(url or option)


def make_folder(path: Path) -> None:
    """Make the folder for what is asked now, so that no work is done for one that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"--out {path}: this is a file, and a folder is needed") from None
    except OSError as error:
        raise UserError(f"--out {path} cannot be made: {error.strerror}") from error


@contextmanager
def cluster(scheduler: str | None) -> Iterator[None]:
    """Let a Dask cluster do the work, where one is named."""
    if scheduler is None:
        yield
        return
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "--scheduler needs Dask; `pip install tssan-viz[distributed]` brings it"
        ) from None
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); "
            "`dask scheduler` prints its address, for instance tcp://10.0.0.5:8786"
        ) from error
    with client:
        yield


def counting_bar(unit: str = "", *, shown: bool = True) -> Progress:
    """Return a bar that counts what is done of what is due, gone when it is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn(unit)] if unit else []),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
        disable=not shown,
    )


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how much is done; what it gives is called with how many more are."""
    with counting_bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


@contextmanager
def rows_bar() -> Iterator[Callable[[int, int], None]]:
    """Show how many of the rows are done; what it gives is called with both numbers."""
    from rich.progress import Progress

    with Progress(console=err_console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def quoted(text: str) -> str:
    """Return text from the data as one word of a command, in double quotes where that is safe."""
    return f'"{text}"' if text.replace(" ", "").isalnum() and " " in text else shlex.quote(text)


def signed(value: float) -> str:
    """Return a signed number, or a dash where there is none."""
    return "—" if value != value else f"{value:+.3f}"
