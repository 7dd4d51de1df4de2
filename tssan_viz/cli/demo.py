"""The command `tssan-viz demo`: the whole way on generated skeletons, in three minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tssan_viz.cli.common import console, err_console

if TYPE_CHECKING:
    from tssan.dataset import SkeletonDataset
    from tssan.training import TrainedRun

    from tssan_viz.store import AttentionStore

SUBJECTS = 12  # the first half trains, the other half is met in the test alone
CLASS = "put on jacket"
OTHER_CLASS = "reading"


def demo(
    out: Annotated[
        Path,
        typer.Option(help="Where the skeletons, the trained run, the page and the figure go."),
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the skeletons and of the training.")] = 0,
) -> None:
    """Make skeletons, train on them, record the attention, compare, and draw.

    Takes about three minutes on two cores, without a GPU. Afterwards
    `tssan-viz compare --class "put on jacket"` works in the same folder.
    What a run that was interrupted has finished is not done again.
    """
    from tssan_viz.store import open_store

    started = time.perf_counter()
    skeletons = _skeletons(out / "skeletons", seed)
    trained = _train(out / "ts-san", skeletons, seed)
    store = open_store(create=True)
    _record(trained, skeletons, store)
    _compare(store, trained.path.name)
    page, figure = _draw(store, trained.path.name, out)

    console.print()
    console.rule(f"done in {time.perf_counter() - started:.0f} s", style="green")
    console.print(f"The page      {page}   (open it in a browser; it needs no network)")
    console.print(f"The figure    {figure}")
    console.print(f"The store     {store.url}")
    console.print("\nNext, in this folder:")
    console.print(f'  tssan-viz compare --class "{CLASS}"', style="bold")
    console.print(f'  tssan-viz compare --class "{CLASS}" --with {OTHER_CLASS}', style="bold")
    console.print("  tssan-viz serve", style="bold")


def _skeletons(folder: Path, seed: int) -> SkeletonDataset:
    from tssan.dataset import SkeletonDataset

    from tssan_viz.cli.prepare import prepare_synthetic

    console.rule("1  skeletons", align="left")
    if (folder / "dataset.json").exists():
        console.print(f"{folder} is there already")
        return SkeletonDataset.open(folder)
    return prepare_synthetic(folder, subjects=SUBJECTS, seed=seed)


def _train(folder: Path, skeletons: SkeletonDataset, seed: int) -> TrainedRun:
    from tssan.recipe import load_recipe
    from tssan.run_folder import Interrupted
    from tssan.training import load_run, train

    console.rule("2  training", align="left")
    if (folder / "results.json").exists():
        console.print(f"{folder} is there already")
        trained = load_run(folder)
    else:
        begun = (folder / "recipe.yaml").exists()
        try:
            trained = train(load_recipe("demo"), skeletons, folder, seed=seed, resume=begun)
        except Interrupted:
            err_console.print("interrupted: `tssan-viz demo` goes on where it stopped")
            raise typer.Exit(130) from None
    accuracy = trained.results["test_accuracy"]
    console.print(f"accuracy on the unseen subjects: {accuracy:.1%} (seed {seed})")
    return trained


def _record(trained: TrainedRun, skeletons: SkeletonDataset, store: AttentionStore) -> None:
    from tssan_viz.cli.record import record_run

    console.rule("3  recording", align="left")
    record_run(trained, skeletons, store, split="test")


def _compare(store: AttentionStore, run: str) -> None:
    from tssan_viz.cli.compare import print_comparison
    from tssan_viz.comparison import compare_class

    console.rule("4  comparison", align="left")
    print_comparison(compare_class(store.select(run=run, split="test"), CLASS))


def _draw(store: AttentionStore, run: str, out: Path) -> tuple[Path, Path]:
    from tssan_viz.figures import figure5
    from tssan_viz.views import save_html

    console.rule("5  pictures", align="left")
    page, figure = out / "head-view.html", out / "figure5.pdf"
    save_html(store.select(run=run, split="test", class_name=CLASS), page)
    figure5(store.select(run=run, split="test", class_name=[CLASS, OTHER_CLASS])).savefig(figure)
    return page, figure
