"""The command `tssan-viz`: one file per command, each importing what it needs when it runs."""

from __future__ import annotations

import errno
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

# A disk that is full or may not be written on is the user's to mend, wherever a command meets it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

app = typer.Typer(
    name="tssan-viz",
    help="See what a self-attention network for skeleton actions attends to, "
    "test whether classes really differ in it, and print the figure.",
    epilog="New here? `tssan-viz demo` makes everything that the other commands ask about.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
# Commands in the order in which a newcomer meets them, under the headings of --help.
DATA, RECORDINGS = "Data and networks", "Recordings"
QUESTIONS, PICTURES = "Questions", "Pictures"
app.command(rich_help_panel=DATA)(demo.demo)
app.command(rich_help_panel=DATA)(prepare.prepare)
app.command(rich_help_panel=DATA)(describe.describe)
app.command(rich_help_panel=DATA)(train.train)
app.command(rich_help_panel=DATA)(evaluate.evaluate)
app.command(rich_help_panel=DATA)(reproduce.reproduce)
app.command("export-network", rich_help_panel=DATA)(export_network.export_network)
app.command(rich_help_panel=RECORDINGS)(record.record)
app.command(rich_help_panel=RECORDINGS)(sites.sites)
app.command(rich_help_panel=RECORDINGS)(info.info)
app.command(rich_help_panel=RECORDINGS)(verify.verify)
app.command(rich_help_panel=RECORDINGS)(upkeep.merge)
app.command(rich_help_panel=RECORDINGS)(upkeep.compact)
app.command(rich_help_panel=RECORDINGS)(upkeep.rm)
app.command(rich_help_panel=RECORDINGS)(exchange.export)
app.command("import", rich_help_panel=RECORDINGS)(exchange.import_)
app.command(rich_help_panel=QUESTIONS, context_settings={"allow_extra_args": True})(compare.compare)
app.command(rich_help_panel=QUESTIONS)(query.query)
app.command(rich_help_panel=QUESTIONS)(nearest.nearest)
app.command(rich_help_panel=QUESTIONS)(nearest.index)
app.command(rich_help_panel=QUESTIONS)(explain.explain)
app.command(rich_help_panel=QUESTIONS)(faithfulness.faithfulness)
app.command(rich_help_panel=QUESTIONS)(benchmark.benchmark)
app.command(rich_help_panel=PICTURES)(view.view)
app.add_typer(figure.app, name="figure", rich_help_panel=PICTURES)
app.command(rich_help_panel=PICTURES)(serve.serve)


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
    except KeyboardInterrupt:  # before the command has begun, or after it has ended
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, _user_errors()):
            message = Text.assemble(("error: ", "bold red"), str(error))
            # Paths and commands in it are there to be copied, so no line is broken for a file.
            err_console.print(message, soft_wrap=not err_console.is_terminal)
            raise SystemExit(2) from None
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            where = f" {error.filename}" if error.filename else ""
            err_console.print(f"error: cannot write{where}: {error.strerror}", soft_wrap=True)
            raise SystemExit(2) from None
        raise
