"""The command `tssan-viz describe`: what a recipe builds, and why it is as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tssan_viz.cli.common import console

if TYPE_CHECKING:
    from tssan.describe import Description

_DATA = "those of the recipe's data set"


def describe(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="The name of a recipe that comes with the package, or the path of a YAML file. "
            "Default: list those that come with it.",
            show_default=False,
        ),
    ] = None,
    joints: Annotated[
        int | None, typer.Option(help="Joints of a skeleton.", min=1, show_default=_DATA)
    ] = None,
    coordinates: Annotated[
        int | None,
        typer.Option(help="Coordinates of a joint.", min=1, max=3, show_default=_DATA),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes to tell apart.", min=1, show_default=_DATA)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Another value for a field, such as network.heads=4; can be repeated.",
            metavar="FIELD=VALUE",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the network of a recipe: stages, parameters, operations, open values and reasons.

    Everything is counted from the network that is built for the skeletons of the recipe's data set
    (of your own recipes: NTU RGB+D's), or for those that you give.

        tssan-viz describe

        tssan-viz describe t1_ts-san-v2 --set network.norm=pre
    """
    if recipe is None:
        _list(as_json)
        return
    from tssan.describe import describe as describe_recipe
    from tssan.recipe import load_recipe, override, recipe_path
    from tssan.tables import skeletons_of

    made = override(load_recipe(recipe), setting or [])
    asked = {"joints": joints, "coordinates": coordinates, "classes": classes}
    sizes = skeletons_of(made.name) | {axis: n for axis, n in asked.items() if n is not None}
    described = describe_recipe(made, path=recipe_path(recipe), **sizes)
    if as_json:
        typer.echo(json.dumps(described.to_dict(), indent=2))
        return
    _say(described, setting or [])


def _list(as_json: bool) -> None:
    """Print the shipped recipes, what each is, and its other names."""
    from rich import box
    from rich.table import Table
    from rich.text import Text
    from tssan.describe import read_header
    from tssan.recipe import recipe_names, recipe_path
    from tssan.tables import recipe_aliases

    titles = {
        name: read_header(recipe_path(name).read_text(encoding="utf-8")).get("title", "")
        for name in recipe_names()
    }
    aliases = {
        name: [alias for alias, meant in recipe_aliases().items() if meant == name]
        for name in titles
    }
    if as_json:
        listed = [
            {"recipe": name, "title": title, "aliases": aliases[name]}
            for name, title in titles.items()
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name, title in titles.items():
        also = f"\nalso called {', '.join(aliases[name])}" if aliases[name] else ""
        table.add_row(name, Text(title + also))
    console.print(table)


def _say(described: Description, changed: list[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    recipe, clips, header = described.recipe, described.recipe.clips, described.header
    if "title" in header:
        console.print(Text(header["title"]))
    lines = Table.grid(padding=(0, 2))
    rows = " · ".join(f"{axis} {size}" for axis, size in described.attention_rows.items())
    facts = {
        "recipe": recipe.name,
        "variant": f"{recipe.network.variant}"
        + (f", {recipe.network.encoder} encoder" if described.attention_rows else ""),
        "input": f"segments k {clips.segments}, persons m {clips.persons}, frames t {clips.frames},"
        f" joints v {described.joints}, coordinates c {described.coordinates}",
        "answer": f"{described.classes} classes",
        "attention": f"{rows} rows of a sample, {recipe.network.layers} layers of "
        f"{recipe.network.heads} heads"
        if rows
        else "none",
        "parameters": f"{described.parameters:,} ({described.parameters / 1e6:.2f} million)",
        "operations": f"{described.flops / 1e9:.2f} GFLOP for one sample forward",
    }
    if changed:
        facts["changed"] = f"{', '.join(changed)}; what follows is said of the recipe without that"
    facts |= {heading.lower(): said for heading, said in header.items() if heading != "title"}
    for heading, said in facts.items():
        lines.add_row(Text(heading, style="bold"), Text(said))
    console.print(lines)
    stages = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    stages.add_column("stage", overflow="fold")
    stages.add_column("kind")
    stages.add_column("for one sample")
    stages.add_column("parameters", justify="right")
    stages.add_column("MFLOP", justify="right")
    for stage in described.stages:
        stages.add_row(
            stage.name,
            stage.kind,
            " × ".join(map(str, stage.shape)),
            f"{stage.parameters:,}" if stage.parameters else "",
            f"{stage.flops / 1e6:,.1f}" if stage.flops else "",
        )
    console.print(stages)
    console.print("What the paper leaves open; \\[S] is stated there, \\[C] chosen here:")
    values = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    values.add_column("value", overflow="fold")
    values.add_column("is", overflow="fold", min_width=7)
    values.add_column("reason", overflow="fold")
    for value in described.open_values:
        here = f"\nhere: {value.here}" if value.here else ""
        values.add_row(value.name, _plain(value.value), Text(value.reason + here))
    console.print(values)


def _plain(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
