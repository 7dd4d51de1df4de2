"""The command `tssan-viz`: one file per command, each importing what it needs when it runs."""

from __future__ import annotations

import sys

import typer
from rich.text import Text

from tssan_viz.cli import (
    benchmark,
    compare,
    demo,
    describe,
    evaluate,
    exchange,
    explain,
    export_network,
    faithfulness,
    figure,
    info,
    nearest,
    prepare,
    query,
    record,
    reproduce,
    serve,
    sites,
    train,
    upkeep,
    verify,
    view,
)
from tssan_viz.cli.common import err_console

app = typer.Typer(
    name="tssan-viz",
    help="See what a self-attention network for skeleton actions attends to, "
    "test whether classes really differ in it, and print the figure.",
    epilog="New here? `tssan-viz demo` makes everything that the other commands ask about.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
app.command()(demo.demo)
app.command()(prepare.prepare)
app.command()(describe.describe)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(reproduce.reproduce)
app.command("export-network")(export_network.export_network)
app.command()(record.record)
app.command()(sites.sites)
app.command()(info.info)
app.command()(verify.verify)
app.command()(query.query)
app.command()(nearest.nearest)
app.command()(nearest.index)
app.command()(upkeep.merge)
app.command()(upkeep.compact)
app.command()(upkeep.rm)
app.command()(exchange.export)
app.command("import")(exchange.import_)
app.command(context_settings={"allow_extra_args": True})(compare.compare)
app.command()(view.view)
app.add_typer(figure.app, name="figure")
app.command()(explain.explain)
app.command()(faithfulness.faithfulness)
app.command()(benchmark.benchmark)
app.command()(serve.serve)


def _user_errors() -> tuple[type[Exception], ...]:
    """Return the errors meant for the user, importing nothing that is not loaded."""
    from tssan_viz.errors import UserError

    errors: list[type[Exception]] = [UserError]
    if "tssan.errors" in sys.modules:
        errors.append(sys.modules["tssan.errors"].DataError)
    return tuple(errors)


def main() -> None:
    """Run the command line; what is wrong with the input is said in words and exits with 2."""
    try:
        app(standalone_mode=True)
    except Exception as error:
        if isinstance(error, _user_errors()):
            message = Text.assemble(("error: ", "bold red"), str(error))
            # Paths and commands in it are there to be copied, so no line is broken for a file.
            err_console.print(message, soft_wrap=not err_console.is_terminal)
            raise SystemExit(2) from None
        raise
