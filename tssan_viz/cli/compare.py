"""The command `tssan-viz compare`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import (
    RunOption,
    SchedulerOption,
    StoreOption,
    cluster,
    console,
    err_console,
    open_store,
)

if TYPE_CHECKING:
    import pandas as pd

    from tssan_viz.comparison import ClassComparison, Comparison
    from tssan_viz.comparison.further import Analysis
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore

_QUESTION = "What is compared"
_WHICH = "Which maps"
_TEST = "How"
_OUTPUT = "What becomes of it"


def compare(
    context: typer.Context,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="The class: name, code, alias or label. With --by or --group: look at it alone.",
            show_default=False,
            rich_help_panel=_QUESTION,
        ),
    ] = None,
    with_class: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="Against this class alone.",
            show_default="all others",
            rich_help_panel=_QUESTION,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Compare groups instead of classes: by subject, camera, correct, predicted, "
            "step, duration (thirds within each class) or run.",
            show_default=False,
            rich_help_panel=_QUESTION,
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="A group of your own, like subject:1,3; once for a group against the rest, "
            "twice for two groups.",
            show_default=False,
            rich_help_panel=_QUESTION,
        ),
    ] = None,
    store: StoreOption = None,
    run: RunOption = None,
    subjects: Annotated[
        str | None,
        typer.Option(
            help="Only these subjects, like 1,3.", show_default="all", rich_help_panel=_WHICH
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Only rows that fit a condition in SQL, like "confidence > 0.9".',
            show_default=False,
            rich_help_panel=_WHICH,
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="all, last or a number from 1.", rich_help_panel=_WHICH)
    ] = "all",
    head: Annotated[
        int | None,
        typer.Option(help="A number from 1.", show_default="all heads", rich_help_panel=_WHICH),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Subjects of different splits are never pooled.",
            show_default="test",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Similarity of two maps: cosine, pearson, hellinger or cka; or a distance, from "
            "pairs that are drawn: jsd, wasserstein or tv.",
            rich_help_panel=_TEST,
        ),
    ] = "cosine",
    align: Annotated[
        str,
        typer.Option(
            help="none, or beside it seconds (real time) or dtw (along the skeletons' motion).",
            rich_help_panel=_TEST,
        ),
    ] = "none",
    permutations: Annotated[
        int,
        typer.Option(
            help="Exchanges to draw; fewer exist with few subjects: then all.",
            rich_help_panel=_TEST,
        ),
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draw.", rich_help_panel=_TEST)] = 0,
    scheduler: SchedulerOption = None,
    show: Annotated[
        str | None,
        typer.Option(
            help="Further answers: variance, decoding, difference, measures, permanova, matrix, "
            "separated by commas, or all.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    decoder: Annotated[
        str,
        typer.Option(
            help="What --show decoding reads with: nearest-mean, nearest-neighbour or logistic "
            "(scikit-learn's regression, minutes).",
            rich_help_panel=_OUTPUT,
        ),
    ] = "nearest-mean",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON, and nothing else, to the standard output.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Write the table to this file too.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write a page with everything, all further answers too: one file, no requests.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            help="Draw it to a .pdf, .svg or .png.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option(
            "--latex",
            help="Write the table for LaTeX (booktabs, graphicx).",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
) -> None:
    """Test whether maps of a class, or of a group, resemble each other across subjects.

    Similarity within what is asked about (W) and to the rest (B), always between different
    subjects, for each layer and head; the difference Δ = W − B is tested by exchanging what the
    question allows: classes within each subject, a person's cameras in all classes at once, whole
    subjects between groups. Where nothing can be exchanged, the answer describes, and says why.
    """
    from tssan_viz.comparison import compare as compare_maps
    from tssan_viz.comparison.decoding import check_method
    from tssan_viz.comparison.further import ANALYSES, analyse, parse_analyses
    from tssan_viz.comparison.outputs.files import check_target
    from tssan_viz.errors import UserError

    if context.args:
        raise UserError(_where_it_goes(context.args[0]))
    further = parse_analyses(show)
    decoder = check_method(decoder)
    targets = {
        option: check_target(path, option)
        for option, path in (("--csv", csv), ("--html", html), ("--latex", latex))
        if path is not None
    }
    if figure is not None:
        from tssan_viz.figures import writable_figure

        targets["--figure"] = writable_figure(figure)
    opened = open_store(store)
    with cluster(scheduler), _progress() as report:
        result = compare_maps(
            _source(opened, class_name, run, subjects, where),
            class_name=class_name,
            with_class=with_class,
            by=by,
            groups=group or (),
            layer=_layer(layer),
            head=head,
            split=split,
            metric=metric,
            align=align,
            permutations=permutations,
            seed=seed,
            progress=report,
        )
        wanted = list(ANALYSES) if "--html" in targets else further
        analyses = analyse(result, wanted, decoder=decoder, progress=report)
        _write(result, analyses, targets)
    shown = [analysis for analysis in analyses if analysis.name in further]
    if as_json:
        answer = result.to_dict()
        if further:
            answer["further"] = {analysis.name: analysis.to_dict() for analysis in shown}
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))
        return
    print_comparison(result)
    for analysis in shown:
        print_analysis(analysis)


def _where_it_goes(word: str) -> str:
    """Say to which option a word without one belongs."""
    if Path(word).exists():
        return f"{word!r} stands alone: a store is named by --store {word}"
    return f"{word!r} stands alone: a class is named by --class {word!r}, a store by --store"


def _layer(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _source(
    opened: AttentionStore,
    class_name: str | None,
    run: str | None,
    subjects: str | None,
    where: str | None,
) -> AttentionStore | Selection:
    """Return the store, or what of it is asked about."""
    from tssan_viz.errors import UserError

    conditions: dict[str, Any] = {}
    if run is not None:
        conditions["run"] = run
    if subjects is not None:
        numbers = [part.strip() for part in subjects.split(",") if part.strip()]
        if not numbers or not all(number.isdecimal() for number in numbers):
            raise UserError(f"--subjects takes numbers like 1,3, not {subjects!r}")
        conditions["subject"] = [int(number) for number in numbers]
    if where is not None:
        conditions["where"] = where
    if not conditions:
        return opened
    if run is None and class_name is not None:
        # The newest run in which the class occurs, as without filters.
        conditions["run"] = opened.select(class_name=class_name).run
    selection = opened.select(**conditions)
    if not len(selection):
        raise UserError(f"there is nothing to compare: {selection.empty_because}")
    return selection


def _write(result: Comparison, analyses: Sequence[Analysis], targets: dict[str, Path]) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from tssan_viz.comparison.outputs.files import write_text

    for option, target in targets.items():
        if option == "--figure":
            from tssan_viz.figures import save_figure

            save_figure(result.plot(), target)
            what = "figure"
        else:
            if option == "--csv":
                what, text = "table", result.table.to_csv(index=False)
            elif option == "--latex":
                from tssan_viz.comparison.outputs.latex import latex_table

                what, text = "LaTeX table", latex_table(result)
            else:
                from tssan_viz.comparison.outputs.report import report

                what, text = "report", report(result, analyses)
            write_text(target, text, option)
        err_console.print(Text(f"{what} written to {target}"), soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on the standard error, where it disturbs neither a table nor JSON."""
    seen = err_console.is_terminal
    with Progress(console=err_console, transient=True, disable=not seen) as bar:
        task = bar.add_task("reading maps", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report


def print_comparison(result: Comparison) -> None:
    """Print the table, what stands around it, the sentences and the notes."""
    from tssan_viz.comparison import ClassComparison, GroupComparison
    from tssan_viz.comparison.words import counted

    console.print(Text(result.title, style="bold"))
    split = "no split" if result.split is None else f"split {result.split}"
    of_class = ""
    if isinstance(result, ClassComparison):
        of_class = f", {result.n_class_samples} of the class"
    console.print(
        Text(
            f"{counted(len(result.subjects), 'subject')} · "
            f"{counted(result.n_samples, 'video')}{of_class} · "
            f"run {result.run} · {split} · {result.metric}"
            + (f" · {result.accuracy}" if result.accuracy is not None else ""),
            style="dim",
        )
    )
    console.print(_table(result, console.width))
    if len(result.significant):
        console.print(
            Text(
                f"* p max-T ≤ {result.alpha:g}: holds for all {len(result.table)} heads together",
                style="dim",
            )
        )
    if isinstance(result, ClassComparison):
        _print_around_class(result)
    if isinstance(result, GroupComparison):
        for line in result.groups.to_dict(orient="records"):
            console.print(
                Text.assemble(
                    (f"{line['group']}: ", "bold"),
                    f"{counted(line['videos'], 'video')} of "
                    f"{counted(line['subjects'], 'subject')}, "
                    f"similarity {_value(line['similarity'])}",
                )
            )
    console.print()
    for sentence in result.summary:
        console.print(Text(sentence))
    for note in result.notes:
        console.print(Text(f"note: {note}", style="dim"))


def _print_around_class(result: ClassComparison) -> None:
    """Print the nearest and farthest classes, and the class across views."""
    neighbours, views, strongest = result.neighbours, result.views, result.strongest
    if len(neighbours) > 1:
        shown = min(3, len(neighbours) // 2)
        console.print(_named("nearest", neighbours.head(shown)))
        console.print(_named("farthest", neighbours.tail(shown)[::-1]))
    if not len(views):
        return
    lines = [("mean of all heads", views.mean(numeric_only=True))]
    if strongest is not None:
        layer, head = strongest["layer"], strongest["head"]
        same = views[(views["layer"] == layer) & (views["head"] == head)]
        lines += [(f"layer {layer:.0f} head {head:.0f}", line) for _, line in same.iterrows()]
    for name, line in lines:
        console.print(
            Text.assemble(
                ("across subjects and views, ", "bold"),
                f"{name}: two subjects {_value(line['same_view'])} in one view, "
                f"{_value(line['other_view'])} in two; one subject "
                f"{_value(line['subject_same_view'])} and {_value(line['subject_other_view'])}",
            )
        )


def _value(value: float) -> str:
    return "—" if value != value else f"{value:.3f}"


def _named(what: str, classes: pd.DataFrame) -> Text:
    pairs = zip(classes["class_name"], classes["similarity"], strict=True)
    return Text.assemble(
        (f"{what}: ", "bold"),
        # Of a distance the similarity is minus it.
        ", ".join(f"{name} {abs(similarity):.3f}" for name, similarity in pairs),
    )


def print_analysis(analysis: Analysis) -> None:
    """Print a further answer: its question, its table, its notes."""
    from tssan_viz.comparison.further import is_p
    from tssan_viz.comparison.words import format_p

    console.print()
    console.print(Text(analysis.title, style="bold"))
    if analysis.table is not None:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for name in analysis.table:
            numeric = analysis.table[name].dtype.kind in "iuf"
            table.add_column(
                Text(str(name).replace("_", " ")),
                justify="right" if numeric else "left",
                overflow="fold",
            )
        for line in analysis.table.to_dict(orient="records"):
            cells = []
            for name, value in line.items():
                if isinstance(value, float):
                    cells.append(Text(format_p(value) if is_p(name) else _value(value)))
                else:
                    cells.append(Text(str(value)))
            table.add_row(*cells)
        console.print(table)
    for note in analysis.notes:
        console.print(Text(f"note: {note}", style="dim"))


def _table(result: Comparison, width: int) -> Table:
    """Draw the table; a narrow terminal gets fewer columns, --json and --csv have all."""
    from tssan_viz.comparison.words import decimals, format_p

    def number(digits: int, sign: str = "") -> Callable[[float], str]:
        return lambda value: "—" if value != value else f"{value:{sign}.{digits}f}"

    digits = decimals(result.table["delta"])
    wide, roomy, tight = width >= 78, width >= 56, width < 46
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("layer", "layer", str),
        ("head", "head", str),
    ]
    if "other_head" in result.table:
        columns += [("with", "other_head", str), ("maps", "mean_maps", number(3))]
    if not tight:
        of_maps = number(digits if width >= 90 else 3)
        columns += [("W", "W", of_maps), ("B", "B", of_maps)]
    columns.append(("Δ", "delta", number(digits, "+")))
    if wide and result.table["low"].notna().any():
        columns += [
            ("low", "low", number(digits, "+")),
            ("high", "high", number(digits, "+")),
        ]
    if roomy and result.table["hedges_g"].notna().any():
        columns.append(("g", "hedges_g", number(2)))
    if result.tested:
        columns.append(("p", "p", format_p))
        columns.append(("p max-T", "p_max_t", format_p))
        if roomy:
            columns.append(("q", "q", format_p))
    if "delta_aligned" in result.table and roomy:
        columns.append(("Δ aligned", "delta_aligned", number(digits, "+")))
        if result.tested and wide:
            columns.append(("p max-T", "p_max_t_aligned", format_p))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    for title, _, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for line in result.table.to_dict(orient="records"):
        found = line["p_max_t"] <= result.alpha
        cells = [write(line[name]) for _, name, write in columns]
        table.add_row("*" if found else "", *cells, style="bold" if found else None)
    return table
