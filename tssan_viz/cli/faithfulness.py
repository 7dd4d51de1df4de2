"""The command `tssan-viz faithfulness`: whether the frames that attention points at matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import (
    DataOption,
    StoreOption,
    console,
    make_folder,
    progress_bar,
    signed,
)
from tssan_viz.cli.explain import TrainedRunOption
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from tssan_viz.cli.explained_run import ExplainedRun, Videos
    from tssan_viz.evidence.ablation import HeadImportance
    from tssan_viz.evidence.faithfulness import Faithfulness
    from tssan_viz.evidence.perturbing import Replacement
    from tssan_viz.evidence.sanity import SanityCheck

STEPS = 8
"""Of the integral of integrated gradients, where it is asked of hundreds of videos."""

_SHUFFLED_VIDEOS = 18


def faithfulness(
    run: TrainedRunOption,
    data: DataOption,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="The class: name, code, alias or label.",
            show_default="all test videos, each asked about its own class",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="As for `explain`; several times.", show_default="all but flow"
        ),
    ] = None,
    replace: Annotated[
        str,
        typer.Option(
            "--replace",
            help="What stands where a frame was taken away: interpolated (the way between its "
            "neighbours), frozen (the last frame that is left) or other (another video's).",
        ),
    ] = "interpolated",
    heads: Annotated[
        bool,
        typer.Option("--heads", help="Also take out, and change, every head: which are needed?"),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            help="So many videos at most, spread over subjects.",
            show_default="all",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A folder for the table and the curves: CSV, JSON, PDF and PNG.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(help="Of random orders, ties and draws.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to the standard output.")
    ] = False,
) -> None:
    """Take frames away in the order of each attribution, and ask the network again.

    Beside each method stand random orders and occlusion; subjects are the units of all intervals
    and tests. What comes out is kept beside the maps of the run where a store holds it.

        tssan-viz faithfulness --class "draw X" --run run --data utd -o evidence

        tssan-viz faithfulness --run run --data utd --limit 100 --heads -o evidence
    """
    from tssan_viz.cli.explained_run import open_explained, store_of
    from tssan_viz.cli.needed_heads import ask_heads, print_heads, with_decodability
    from tssan_viz.evidence.attributions import METHODS, checked_methods
    from tssan_viz.evidence.perturbing import WAYS

    methods = checked_methods(method or [one for one in METHODS if one != "flow"])
    if replace not in WAYS:
        raise UserError(f"--replace {replace}: there are {', '.join(WAYS)}")
    if out is not None:
        if not out.absolute().parent.is_dir():
            raise UserError(f"--out {out}: there is no folder {out.absolute().parent}")
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: this is a file, and a folder is needed")
    opened = open_explained(run, data)
    store_of(store, opened)  # a store that is named and not there is said before the work
    indices, label = opened.part("test"), None
    what = "all classes"
    if class_name is not None:
        what, indices = opened.of_class(class_name)
        label = int(opened.dataset.index["label"].iloc[indices[0]])
    if limit is not None:
        indices = spread(opened, indices, limit)
    if out is not None:
        make_folder(out)
    found = ask_faithfulness(opened, what, indices, methods, replace=replace, seed=seed)
    sanity = ask_sanity(opened, indices, methods, seed=seed)
    importance = ask_heads(opened, what, indices, seed=seed) if heads else None
    if importance is not None:
        importance = with_decodability(importance, store, opened)
    finding = found.to_dict() | {"sanity": _plain(sanity.table)}
    if out is not None:
        write(found, sanity, importance, out)
    kept = _keep(store, opened, label, finding, importance)
    if as_json:
        whole = finding | ({"heads": importance.to_dict()} if importance else {})
        typer.echo(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
        return
    print_faithfulness(found, sanity)
    if importance is not None:
        print_heads(importance, what)
    if out is not None:
        console.print(Text(f"table and curves: {out}", style="dim"), soft_wrap=True)
    console.print(Text(kept, style="dim"), soft_wrap=True)


def spread(opened: ExplainedRun, indices: Sequence[int], limit: int) -> list[int]:
    """Choose so many of some videos, turn by turn one of each subject."""
    import numpy as np

    who = opened.subjects(indices)
    turn = np.zeros(len(who), dtype=int)
    for subject in np.unique(who):
        turn[who == subject] = np.arange((who == subject).sum())
    order = np.lexsort((np.arange(len(who)), turn))
    return sorted(indices[int(place)] for place in order[:limit])


def ask_faithfulness(
    opened: ExplainedRun,
    what: str,
    indices: Sequence[int],
    methods: Sequence[str],
    *,
    replace: str = "interpolated",
    random_orders: int = 3,
    seed: int = 0,
) -> Faithfulness:
    """Make deletion and insertion curves of some videos, each asked about its own class."""
    import numpy as np

    from tssan_viz.cli.explained_run import BATCH
    from tssan_viz.evidence.attributions import attribute
    from tssan_viz.evidence.faithfulness import (
        RANDOM,
        SHARES,
        Faithfulness,
        probabilities_by_order,
    )

    deletion, insertion, order = [], [], []
    with progress_bar("taking frames away", len(indices)) as done:
        for number, videos in enumerate(opened.batches(indices, BATCH)):
            instead = _replacement(opened, videos, replace, seed)
            found = attribute(
                opened.explained,
                videos.clips.position,
                videos.labels,
                methods=methods,
                extra=videos.extra,
                present=videos.clips.present,
                replacement=instead,
                steps=STEPS,
            )
            curves = probabilities_by_order(
                opened.explained.model,
                videos.clips.position,
                videos.labels,
                {method: found.frames(method) for method in methods},
                extra=videos.extra,
                replacement=instead,
                random_orders=random_orders,
                seed=seed + number,
            )
            deletion.append(curves[0])
            insertion.append(curves[1])
            order += videos.indices
            done(len(videos.indices))
    return Faithfulness(
        [*methods, RANDOM],
        np.array(SHARES),
        np.concatenate(deletion, axis=1),
        np.concatenate(insertion, axis=1),
        opened.dataset.index["sample"].iloc[order].astype(str).tolist(),
        opened.subjects(order),
        {
            "class": what,
            "run": opened.trained.path.resolve().name,
            "dataset": opened.dataset.name,
            "protocol": opened.trained.protocol,
            "replaced": replace,
            "random_orders": random_orders,
            "integration_steps": STEPS,
            "seed": seed,
        },
    )


def _replacement(opened: ExplainedRun, videos: Videos, how: str, seed: int) -> Replacement:
    from tssan_viz.evidence.perturbing import Replacement, other_videos

    if how != "other":
        return Replacement(how)
    index = opened.dataset.index
    chosen = other_videos(
        videos.indices,
        opened.part("test"),
        index["label"].to_numpy(dtype=int),
        index["persons"].to_numpy(dtype=int),
        seed=seed + videos.indices[0],
    )
    position = opened.trained.clips(opened.dataset, chosen).position
    return Replacement(how, position[:, :, : videos.clips.position.shape[2]])


def ask_sanity(
    opened: ExplainedRun, indices: Sequence[int], methods: Sequence[str], *, seed: int = 0
) -> SanityCheck:
    """Shuffle the network's weights part by part, and see how alike attributions stay."""
    from dataclasses import replace

    import numpy as np
    from torch import nn

    from tssan_viz.cli.explained_run import BATCH
    from tssan_viz.evidence.attributions import attribute
    from tssan_viz.evidence.sanity import check

    few = spread(opened, indices, _SHUFFLED_VIDEOS)
    batches = list(opened.batches(few, BATCH))
    order = [i for videos in batches for i in videos.indices]
    model = opened.explained.model
    assert isinstance(model, nn.Module)

    def attributed(shuffled: nn.Module) -> dict[str, Any]:
        explained = replace(
            opened.explained, model=shuffled, projections=opened.projections_of(shuffled)
        )
        parts: dict[str, list[Any]] = {method: [] for method in methods}
        for videos in batches:
            found = attribute(
                explained,
                videos.clips.position,
                videos.labels,
                methods=methods,
                extra=videos.extra,
                present=videos.clips.present,
                steps=STEPS,
            )
            for method in methods:
                parts[method].append(found.frames(method).flatten(1).numpy())
        done(1)
        return {method: np.concatenate(values) for method, values in parts.items()}

    with progress_bar("shuffling weights", None) as done:
        return check(attributed, model, opened.subjects(order), seed=seed)


def write(
    found: Faithfulness, sanity: SanityCheck, heads: HeadImportance | None, folder: Path
) -> None:
    """Write table, curves, sanity check and heads: CSV, JSON, PDF and PNG."""
    from tssan_viz.evidence.drawing import curves_figure
    from tssan_viz.figures.style import save_figure
    from tssan_viz.store.durable import write_atomically

    finding = found.to_dict() | {"sanity": _plain(sanity.table)}
    try:
        folder.mkdir(exist_ok=True)
        tables = {"faithfulness": found.table, "curves": found.curves, "sanity": sanity.table}
        if heads is not None:
            tables["heads"] = heads.table
            finding["heads"] = heads.to_dict()
        for name, table in tables.items():
            write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
        text = json.dumps(finding, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / "faithfulness.json", text + "\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    asked = found.asked
    figure = curves_figure(
        found.curves,
        title=f"{asked['class']} · {asked['run']} on {asked['dataset']}, "
        f"{found.table['subjects'].iloc[0]} subjects · frames {asked['replaced']}",
    )
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"curves.{ending}")


def _keep(
    url: str | None,
    opened: ExplainedRun,
    label: int | None,
    finding: dict[str, Any],
    heads: HeadImportance | None,
) -> str:
    """Keep what was found where a store holds the run's maps; say what was done."""
    from tssan_viz.cli.explained_run import store_of
    from tssan_viz.evidence.kept import FAITHFULNESS, HEADS, keep

    store, why_not = store_of(url, opened)
    if store is None:
        return f"not kept: {why_not}"
    run = opened.trained.path.resolve().name
    keep(store, run, FAITHFULNESS, label, finding)
    if heads is not None:
        keep(store, run, HEADS, label, heads.to_dict())
    return f"kept beside the maps of {run} in {store.url}"


def print_faithfulness(found: Faithfulness, sanity: SanityCheck) -> None:
    """Print the table, what random orders come to, and which methods beat them."""
    asked, table = found.asked, found.table
    subjects = int(table["subjects"].iloc[0])
    console.print(Text(f"{asked['class']}", style="bold"))
    console.print(
        Text(
            f"{subjects} subjects · {len(found.samples)} videos · run {asked['run']} on "
            f"{asked['dataset']} · frames {asked['replaced']}",
            style="dim",
        )
    )
    passes = dict(zip(sanity.table["method"], sanity.table["passes"], strict=True))
    alike = dict(zip(sanity.table["method"], sanity.table["similarity"], strict=True))
    wide = console.width >= 92
    bounds = ("low", "high") if wide else ()
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column("")
    shown.add_column("method", no_wrap=True)
    for title in ("deletion", "gain", *bounds, "p", "insertion", "gain", "shuffled"):
        shown.add_column(title, justify="right", no_wrap=True)
    for line in table.to_dict(orient="records"):
        method = line["method"]
        if method == "random":
            half = (line["deletion_high"] - line["deletion_low"]) / 2
            deletion = f"{line['deletion']:.2f}" + (f"±{half:.2f}" if half == half else "")
            blank = [""] * (2 + len(bounds))
            insertion = f"{line['insertion']:.2f}"
            shown.add_row("", "random", deletion, *blank, insertion, "", "", style="dim")
            continue
        better = line["deletion_p"] <= 0.05
        shown.add_row(
            "*" if better else "",
            method,
            f"{line['deletion']:.2f}",
            f"{line['deletion_gain']:+.3f}",
            *(signed(line[f"deletion_gain_{bound}"]) for bound in bounds),
            f"{line['deletion_p']:.3f}",
            f"{line['insertion']:.2f}",
            f"{line['insertion_gain']:+.3f}",
            f"{alike[method]:+.2f}{'' if passes[method] else ' !'}",
            style="bold" if better else None,
        )
    console.print(shown)
    for sentence in sentences(table, subjects, passes):
        console.print(Text(sentence))
    if (found.subjects < 0).any():
        console.print(
            Text(
                "The data set does not tell all subjects: such videos count as one subject each, "
                "so that intervals are too narrow and p too small if a person is in several."
            )
        )


def sentences(table: pd.DataFrame, subjects: int, passes: dict[str, bool]) -> list[str]:
    """Say which methods beat random orders, and where attention does not."""
    methods = table[table["method"] != "random"]
    beat = methods[methods["deletion_p"] <= 0.05]["method"].tolist()
    not_beat = [method for method in methods["method"] if method not in beat]
    said = []
    if subjects < 5:
        said.append(
            f"With {subjects} subjects the least possible p is {0.5**subjects:.3g}, so that no "
            "method can be shown to beat random orders; the gains describe these subjects."
        )
    elif not beat:
        said.append(
            "No method's frames are shown to matter more than random ones (deletion, p max-T over "
            "methods): do not take these maps for explanations here."
        )
    else:
        said.append(f"Frames matter more than random ones (p max-T) by: {', '.join(beat)}.")
        if not_beat:
            said.append(f"Not shown of: {', '.join(not_beat)}.")
    said.append("gain: how much better than random orders, whichever way the area goes.")
    failing = [method for method, passed in passes.items() if not passed]
    if failing:
        said.append(
            f"! {', '.join(failing)}: hardly changed when the weights are shuffled, so that it "
            "tells of the input more than of what was learnt."
        )
    return said


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(key): None if isinstance(value, float) and value != value else value
            for key, value in line.items()
        }
        for line in table.to_dict(orient="records")
    ]
