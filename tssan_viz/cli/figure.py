"""The commands `tssan-viz figure KIND`: each draws one kind of figure, with caption and numbers."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from tssan_viz.cli.common import RunOption, StoreOption, console, open_store

if TYPE_CHECKING:
    from tssan_viz.figures import PaperFigure

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Where to: a .pdf, .svg, .png or .pgf file (its maps beside it as .png); its caption "
        "goes beside it as .txt, its numbers as .csv. Default: KIND.pdf.",
        show_default=False,
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", help="Another place for the numbers.", show_default=False),
]
VenueOption = Annotated[
    str | None,
    typer.Option(
        "--venue",
        help="Width of whose columns: cvpr, ieee, elsevier, springer or neurips. "
        "Default: 7 inches over two columns, 3.4 over one.",
        show_default=False,
    ),
]
WideOption = Annotated[int, typer.Option("--columns", help="Over how many columns: 1 or 2.")]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="A class by name, code, alias or label; may be given several times.",
        show_default=False,
    ),
]
SubjectOption = Annotated[
    list[int] | None,
    typer.Option("--subject", help="These subjects only.", show_default=False),
]
LayerOption = Annotated[
    int | None, typer.Option("--layer", help="Default: the last.", show_default=False)
]
HeadsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--head", help="From 1; may be given several times. Default: all.", show_default=False
    ),
]
SegmentOption = Annotated[
    int | None, typer.Option("--segment", help="Default: the middle one.", show_default=False)
]
VideoOption = Annotated[
    str | None, typer.Option("--sample", help="Of this video alone.", show_default=False)
]
OneSegmentOption = Annotated[
    int | None, typer.Option("--segment", help="Default: all of them.", show_default=False)
]
PersonOption = Annotated[int, typer.Option("--person", help="From 1.")]
PermutationsOption = Annotated[
    int, typer.Option("--permutations", help="How many to draw where not all are gone through.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the permutations.")]
MetricOption = Annotated[str, typer.Option("--metric", help="cosine, pearson, hellinger or cka.")]


def refuse_repeated(command: Any, ctx: Any, args: list[str]) -> None:
    """Refuse an option that takes one value and is given twice: the first would go unheard.

    Raises
    ------
    UserError
        Such an option is there.
    """
    from tssan_viz.errors import UserError

    given = Counter(command.make_parser(ctx).parse_args(list(args))[2])
    for option, times in given.items():
        if times > 1 and option.nargs == 1 and not option.multiple and not option.is_flag:
            raise UserError(
                f"{option.opts[0]} is given {times} times, and one is meant; "
                f"`{ctx.command_path} {command.name} --help` says which options take several"
            )


class _Kinds(TyperGroup):
    """The kinds of figures; one that does not exist is answered with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        kinds = self.list_commands(ctx)
        if args and args[0] not in kinds and not args[0].startswith("-"):
            from tssan_viz.errors import UserError

            near = difflib.get_close_matches(args[0], kinds, n=1, cutoff=0.5)
            # The nearest comes first.
            order = [*near, *(kind for kind in kinds if kind not in near)]
            raise UserError(f"there is no figure {args[0]!r}; there is {', '.join(order)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            refuse_repeated(command, ctx, rest)
        return name, command, rest


app = typer.Typer(
    cls=_Kinds,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Print a figure for a paper from a store: as PDF, SVG, PNG or PGF, with its caption and "
    "the numbers behind it beside it. `tssan-viz figure KIND --help` says what each kind shows.",
)


def _print(
    kind: str,
    out: Path | None,
    csv: Path | None,
    store: str | None,
    draw: Callable[[Any], PaperFigure],
) -> PaperFigure:
    """Draw a figure, write it with caption and numbers, and say what was written."""
    from tssan_viz.errors import UserError
    from tssan_viz.figures import save_with_numbers, writable_figure

    target = writable_figure(out if out is not None else Path(f"{kind}.pdf"))
    if csv is not None and not csv.expanduser().parent.is_dir():
        raise UserError(f"{csv}: there is no folder {csv.parent}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure = draw(open_store(store))
        written = save_with_numbers(figure, target, csv)
    console.print(f"[bold]{escape(str(written[0]))}[/bold]")
    console.print(f"  caption: {escape(str(written[1]))}")
    console.print(f"  numbers: {escape(str(written[2]))}")
    console.print(f"  {escape(figure.caption)}")
    told = [str(one.message) for one in said if one.category is UserWarning]
    for note in dict.fromkeys([*figure.notes, *told]):
        console.print(f"  note: {escape(note)}", style="dim")
    return figure


def _of_video(store: Any, sample: str | None, segment: int | None, run: str | None) -> Any:
    """Return what is drawn from: the store, or of one video or segment what it holds."""
    if sample is None and segment is None:
        return store
    if sample is None:
        from tssan_viz.figures.data import considered

        return considered(store, run, None)[0].select(segment=segment)
    chosen = store.checked_run(run)
    store.sample(sample, chosen)  # says the nearest names of one that is not there
    return store.select(run=chosen, sample=sample, segment=segment)


@app.command()
def figure1(
    out: OutOption = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="Default: put on jacket.", show_default=False),
    ] = None,
    sample: Annotated[
        str | None, typer.Option("--sample", help="This video.", show_default=False)
    ] = None,
    subject: Annotated[
        int | None, typer.Option("--subject", help="Of this subject.", show_default=False)
    ] = None,
    layer: LayerOption = None,
    head: Annotated[
        list[int] | None,
        typer.Option("--head", help="Default: the two with the highest peaks.", show_default=False),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", help="How many poses.")] = 8,
    links: Annotated[int, typer.Option("--links", help="How many links of each head.")] = 16,
    segment: SegmentOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Figure 1 of the paper: poses of one video and the strongest links of two heads.

    For example `tssan-viz figure figure1 --class "put on jacket" --head 2 --head 5 -o fig1.pdf`.
    The upper poses attend, the lower ones are attended to. Takes a store with poses.
    """
    _print("figure1", out, csv, store, lambda source: _kind("figure1")(
        source, class_name, sample=sample, subject=subject, layer=layer, head=head or None,
        frames=frames, links=links, segment=segment, person=person, run=run, venue=venue,
        columns=columns,
    ))  # fmt: skip


@app.command()
def figure5(
    out: OutOption = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class by name, code, alias or label; two subjects are shown of the first, one "
            "of each further. Default: put on jacket, and reading.",
            show_default=False,
        ),
    ] = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: Annotated[
        list[int] | None,
        typer.Option("--head", help="Default: all, up to eight.", show_default=False),
    ] = None,
    style: Annotated[str, typer.Option("--style", help="lines or heat.")] = "lines",
    segment: SegmentOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Figure 5 of the paper: all heads of a layer in two subjects of a class and one of another.

    For example `tssan-viz figure figure5 --class A014 --class A011 --style heat -o fig5.pdf`.
    """

    def draw(source: Any) -> PaperFigure:
        from tssan_viz.figures import figure5, figure5_data

        data = figure5_data(
            source, class_name, subject=subject or None, layer=layer, head=head or None,
            segment=segment, person=person, run=run,
        )  # fmt: skip
        drawn = figure5(data, style=style, venue=venue, columns=columns)
        lines.extend(f"  {escape(video.title)}  [dim]{escape(video.sample)}[/dim]"
                     for video in data.videos)  # fmt: skip
        return drawn

    lines: list[str] = []
    _print("figure5", out, csv, store, draw)
    for line in lines:
        console.print(line)


@app.command()
def filmstrip(
    out: OutOption = None,
    class_name: ClassesOption = None,
    sample: Annotated[
        list[str] | None, typer.Option("--sample", help="These videos.", show_default=False)
    ] = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: HeadsOption = None,
    frames: Annotated[int, typer.Option("--frames", help="How many poses in a strip.")] = 12,
    segment: SegmentOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Poses along time, shaded by the attention that their frames receive.

    For example `tssan-viz figure filmstrip --class reading --layer 2 --head 5 -o strip.pdf`.
    Takes a store with poses.
    """
    _print("filmstrip", out, csv, store, lambda source: _kind("filmstrip")(
        source, class_name or None, sample=sample or None, subject=subject or None, layer=layer,
        head=head or None, frames=frames, segment=segment, person=person, run=run, venue=venue,
        columns=columns,
    ))  # fmt: skip


@app.command()
def heads(
    out: OutOption = None,
    class_name: ClassesOption = None,
    sample: VideoOption = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: HeadsOption = None,
    segment: OneSegmentOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Mean map of each head of a layer, on one scale.

    For example `tssan-viz figure heads --class "hand waving" --layer 1 -o heads.pdf`.
    """
    _print("heads", out, csv, store, lambda source: _kind("heads")(
        _of_video(source, sample, segment, run), class_name or None, layer=layer,
        head=head or None, subject=subject or None,
        person=person, run=run, venue=venue, columns=columns,
    ))  # fmt: skip


@app.command()
def model(
    out: OutOption = None,
    class_name: ClassesOption = None,
    sample: VideoOption = None,
    subject: SubjectOption = None,
    segment: OneSegmentOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Mean map of every layer (rows) and head (columns), on one scale.

    For example `tssan-viz figure model --venue cvpr -o model.pdf`.
    """
    _print("model", out, csv, store, lambda source: _kind("model")(
        _of_video(source, sample, segment, run), class_name or None, subject=subject or None,
        person=person, run=run, venue=venue,
        columns=columns,
    ))  # fmt: skip


@app.command()
def difference(
    class_name: Annotated[
        list[str],
        typer.Option(
            "--class",
            help="The class: name, code, alias or label. A second --class says what --with says.",
            show_default=False,
        ),
    ],
    other: Annotated[
        str | None,
        typer.Option("--with", help="Default: all other classes.", show_default=False),
    ] = None,
    out: OutOption = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: HeadsOption = None,
    permutations: PermutationsOption = 5000,
    seed: SeedOption = 0,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of the outlines.")] = 0.05,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Mean maps of two classes and their difference; cells that survive the test are outlined.

    For example `tssan-viz figure difference --class "put on jacket" --with "take off jacket"`.
    The test permutes what may be exchanged between subjects, corrected over all cells and heads.
    """
    named = [*class_name, *([] if other is None else [other])]
    if len(named) > 2:
        from tssan_viz.errors import UserError

        raise UserError(
            f"a difference is of two classes, and {len(named)} are named: {', '.join(named)}"
        )
    _print("difference", out, csv, store, lambda source: _kind("difference")(
        source, *named, layer=layer, head=head or None, permutations=permutations,
        seed=seed, alpha=alpha, subject=subject or None, person=person, run=run, venue=venue,
        columns=columns,
    ))  # fmt: skip


@app.command()
def subjects(
    out: OutOption = None,
    class_name: ClassesOption = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: Annotated[int, typer.Option("--head", help="From 1.")] = 1,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """One head's mean map of each subject, side by side on one scale.

    For example `tssan-viz figure subjects --class "put on jacket" --head 5 -o subjects.pdf`.
    """
    _print("subjects", out, csv, store, lambda source: _kind("subjects")(
        source, class_name or None, layer=layer, head=head, subject=subject or None,
        person=person, run=run, venue=venue, columns=columns,
    ))  # fmt: skip


@app.command()
def evolution(
    out: OutOption = None,
    class_name: ClassesOption = None,
    subject: SubjectOption = None,
    layer: LayerOption = None,
    head: Annotated[int, typer.Option("--head", help="From 1.")] = 1,
    maps: Annotated[int, typer.Option("--maps", help="At how many steps a map is drawn.")] = 7,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """One head along the steps of training: mean maps, and the entropy of its rows.

    For example `tssan-viz figure evolution --layer 2 --head 5 -o evolution.pdf`, of a run that was
    recorded in training (`tssan-viz train … --record STORE --probe 100`).
    """
    _print("evolution", out, csv, store, lambda source: _kind("evolution")(
        source, class_name or None, layer=layer, head=head, maps=maps, subject=subject or None,
        person=person, run=run, venue=venue, columns=columns,
    ))  # fmt: skip


@app.command()
def similarity(
    out: OutOption = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Default: all.", show_default=False)
    ] = None,
    head: Annotated[
        int | None, typer.Option("--head", help="Default: all.", show_default=False)
    ] = None,
    metric: MetricOption = "cosine",
    subject: SubjectOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 1,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """How alike the maps of each two classes are in different subjects, clustered.

    For example `tssan-viz figure similarity --layer 2 --metric pearson -o similarity.pdf`.
    """
    _print("similarity", out, csv, store, lambda source: _kind("similarity")(
        source, layer="all" if layer is None else layer, head=head, metric=metric,
        subject=subject or None, person=person, run=run, venue=venue, columns=columns,
    ))  # fmt: skip


@app.command()
def decoding(
    out: OutOption = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Default: all.", show_default=False)
    ] = None,
    head: Annotated[
        int | None, typer.Option("--head", help="Default: all.", show_default=False)
    ] = None,
    metric: MetricOption = "cosine",
    method: Annotated[
        str, typer.Option("--method", help="nearest mean or nearest neighbour.")
    ] = "nearest mean",
    permutations: PermutationsOption = 1000,
    seed: SeedOption = 0,
    subject: SubjectOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 1,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """How well class and subject can be read from each head's map, with chance.

    For example `tssan-viz figure decoding --permutations 1000 -o decoding.pdf`.
    """
    _print("decoding", out, csv, store, lambda source: _kind("decoding")(
        source, layer="all" if layer is None else layer, head=head, metric=metric, method=method,
        permutations=permutations, seed=seed, subject=subject or None, person=person, run=run,
        venue=venue, columns=columns,
    ))  # fmt: skip


@app.command()
def rollout(
    out: OutOption = None,
    class_name: ClassesOption = None,
    subject: SubjectOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 2,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Attention rollout after each layer, and what each input frame contributes.

    For example `tssan-viz figure rollout --class "jump up" -o rollout.pdf`.
    """
    _print("rollout", out, csv, store, lambda source: _kind("rollout")(
        source, class_name or None, subject=subject or None, person=person, run=run, venue=venue,
        columns=columns,
    ))  # fmt: skip


@app.command()
def confusion(
    out: OutOption = None,
    subject: SubjectOption = None,
    person: PersonOption = 1,
    venue: VenueOption = None,
    columns: WideOption = 1,
    csv: CsvOption = None,
    store: StoreOption = None,
    run: RunOption = None,
) -> None:
    """Confusion matrix: what share of each class's videos is taken for which class.

    For example `tssan-viz figure confusion --venue ieee -o confusion.pdf`.
    """
    _print("confusion", out, csv, store, lambda source: _kind("confusion")(
        source, subject=subject or None, person=person, run=run, venue=venue, columns=columns,
    ))  # fmt: skip


def _kind(name: str) -> Callable[..., PaperFigure]:
    import tssan_viz.figures

    draw: Callable[..., PaperFigure] = getattr(tssan_viz.figures, name)
    return draw
