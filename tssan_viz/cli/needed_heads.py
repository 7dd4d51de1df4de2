"""Which heads of a trained run are needed: asked, set beside what their maps tell, and printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from tssan_viz.cli.common import console, err_console, progress_bar, signed
from tssan_viz.cli.explained_run import BATCH, ExplainedRun, store_of
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.evidence.ablation import Batch, HeadImportance


def ask_heads(
    opened: ExplainedRun, what: str, indices: Sequence[int], *, seed: int = 0
) -> HeadImportance:
    """Change one head after the other, and see what the loss of these videos does."""
    from tssan_viz.evidence.ablation import Batch, head_importance

    def batches() -> Iterator[Batch]:
        for videos in opened.batches(indices, 4 * BATCH):
            yield Batch(
                (videos.clips.position, *videos.extra),
                videos.labels,
                opened.subjects(videos.indices),
            )

    with progress_bar("taking heads out", len(indices)) as done:
        found = head_importance(
            opened.explained.model, batches, layers=opened.layers, seed=seed, progress=done
        )
    found.asked.update({"class": what, "run": opened.trained.path.resolve().name})
    return found


def with_decodability(
    found: HeadImportance, url: str | None, opened: ExplainedRun
) -> HeadImportance:
    """Add how well the class can be read from each head's maps, where a store holds them."""
    from tssan_viz.comparison.decoding import decodability

    store, _ = store_of(url, opened)
    if store is None:
        return found
    run = opened.trained.path.resolve().name
    try:
        table = decodability(store.select(run=run, split="test"), permutations=1).table
    except UserError as error:  # one class, say, or one subject: nothing to tell apart
        err_console.print(Text(f"decodability is left out: {error}", style="dim"))
        return found
    accuracy = table["class_accuracy"].to_numpy(dtype=np.float64)
    if accuracy.size != found.gradient[..., 0].size:
        return found
    # Layers are recorded in the order in which the network calls them.
    return replace(found, decodable=accuracy.reshape(found.gradient.shape[:2]))


def print_heads(found: HeadImportance, what: str) -> None:
    """Print which heads the class needs, those that cost most first."""
    table = found.table.sort_values("zero_loss", ascending=False)
    console.print()
    console.print(Text(f"which heads {what} needs: rise of the loss", style="bold"))
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    streams = table["stream"].nunique() > 1
    told = found.decodable is not None
    bounds = ("low", "high") if console.width >= 104 else ()
    titles = [*(["stream"] if streams else []), "layer", "head", "to zero", *bounds, "p", "acc."]
    titles += ["to mean", "uniform", "acc.", "rows", "gradient", *(["told"] if told else [])]
    shown.add_column("")
    for title in titles:
        shown.add_column(title, justify="right", no_wrap=True)
    for line in table.to_dict(orient="records"):
        needed = line["zero_p"] <= 0.05
        shown.add_row(
            "*" if needed else "",
            *([line["stream"]] if streams else []),
            str(line["layer"]),
            str(line["head"]),
            f"{line['zero_loss']:+.3f}",
            *(signed(line[f"zero_{bound}"]) for bound in bounds),
            f"{line['zero_p']:.3f}",
            f"{line['zero_accuracy']:+.3f}",
            f"{line['mean_loss']:+.3f}",
            f"{line['uniform_loss']:+.3f}",
            f"{line['uniform_accuracy']:+.3f}",
            f"{line['rows_loss']:+.3f}",
            f"{line['gradient']:.2f}",
            *([f"{line['decodable']:.2f}"] if told else []),
            style="bold" if needed else None,
        )
    console.print(shown)
    console.print(
        Text(
            f"* p max-T ≤ 0.05 over all {len(table)} heads; loss as it is {found.loss.mean():.3f}, "
            f"accuracy {found.correct.mean():.3f}",
            style="dim",
        )
    )
    together = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    together.add_column("all heads at once", no_wrap=True)
    for title in ("loss", "low", "high", "p", "accuracy", "low", "high"):
        together.add_column(title, justify="right", no_wrap=True)
    for line in found.together.to_dict(orient="records"):
        together.add_row(
            {"zero": "to zero", "mean": "to their mean"}.get(line["edit"], line["edit"]),
            *(signed(line[key]) for key in ("loss", "loss_low", "loss_high")),
            f"{line['p']:.3f}",
            *(signed(line[key]) for key in ("accuracy", "accuracy_low", "accuracy_high")),
        )
    console.print(together)
    rho = found.goes_with_decodability
    if rho is not None:
        console.print(
            Text(
                "told: how well the class of unseen people can be read from the head's maps. How "
                f"much heads are needed goes with it at rank correlation {rho:+.2f}, over the "
                f"{len(table)} heads of this network (a description; heads are no sample)."
            )
        )
