"""The command `tssan-viz sites`: which attention calls of a network can be recorded."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tssan_viz.cli.common import console
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from tssan_viz.recording.calls import WatchedSite
    from tssan_viz.site import Site


def sites(
    factory: Annotated[
        str | None,
        typer.Argument(
            help="A function of yours that makes the model, as package.module:function. It is "
            "imported and called.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A folder that `tssan-viz train` wrote.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Patterns of names, as of files: encoder.*", show_default=False
        ),
    ] = None,
) -> None:
    """List the attention that a recording of a network would hold.

    tssan-viz sites --run run

    tssan-viz sites my_package.networks:make_network --only "encoder.*"
    """
    from tssan_viz.recording import find_sites

    if (factory is None) == (run is None):
        raise UserError(
            "give a function that makes a model, as package.module:function, or --run with a "
            "folder that `tssan-viz train` wrote"
        )
    if run is not None:
        found, sizes = _of_run(run, only)
    else:
        assert factory is not None
        found, sizes = find_sites(_made_by(factory), only=only), {}
    _print_sites(found, sizes)


def _of_run(run: Path, only: list[str] | None) -> tuple[list[WatchedSite], dict[str, Site]]:
    """Find the sites of a trained run, with the sizes that one made-up clip gives them."""
    import torch
    from tssan.training import load_run

    from tssan_viz.recording import record

    trained = load_run(run)
    clips, results = trained.recipe.clips, trained.results
    shape = (1, clips.segments, clips.persons, clips.frames)
    position = torch.zeros(*shape, results["joints"], results["coordinates"])
    present = torch.ones(shape[:3], dtype=torch.bool)
    recorder = record(trained.network, only=only, unlabelled=True)
    with recorder, torch.inference_mode():
        trained.network(position, position, present)
    return recorder.watched, {site.name: site for site in recorder.sites}


def _made_by(factory: str) -> nn.Module:
    """Import the user's function and call it."""
    from torch import nn
    from tssan.recipe import recipe_names

    module_name, colon, name = factory.partition(":")
    if not colon or not module_name or not name:
        what = f"{factory!r} would be package.module:function, the function that makes the model"
        if Path(factory).is_dir():
            raise UserError(f"{what}; for a run of `tssan-viz train` give --run {factory}")
        if factory in recipe_names():
            raise UserError(
                f"{what}; {factory} is a recipe: train it, and give --run with the run's folder"
            )
        raise UserError(what)
    console.print(f"importing {module_name} and calling {name}()", markup=False, highlight=False)
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{module_name} cannot be imported: {error}. It is looked for in this folder and among "
            "the installed packages"
        ) from None
    finally:
        sys.path.pop(0)
    make: Any = getattr(module, name, None)
    if not callable(make):
        functions = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        raise UserError(
            f"{module_name} has no function {name!r}; it has {', '.join(functions) or 'none'}"
        )
    model = make()
    if not isinstance(model, nn.Module):
        raise UserError(f"{factory} returned a {type(model).__name__}; a torch.nn.Module is wanted")
    return model


def _print_sites(found: list[WatchedSite], sizes: dict[str, Site]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("site", no_wrap=True)
    table.add_column("stream")
    table.add_column("layer", justify="right")
    table.add_column("kind")
    if sizes:
        for name in ("heads", "queries", "keys"):
            table.add_column(name, justify="right")
    for site in found:
        size = sizes.get(site.name)
        numbers = (size.heads, size.query, size.key) if size else ()
        table.add_row(site.name, site.stream, f"{site.layer}", site.kind, *map(str, numbers))
    console.print(table)
    if not sizes:
        console.print(
            "heads, queries and keys show when the model is called", style="dim", highlight=False
        )
