"""Per-head measures and pictures of chosen heads, for TensorBoard, Weights & Biases or a function.

What can be logged to is found by what it can do, so that nothing is imported for it:

* a Lightning logger: `log_metrics` for numbers; `log_image` (Weights & Biases) or an `experiment`
  with `add_figure` (TensorBoard) for pictures;
* TensorBoard's own `SummaryWriter`: `add_scalar` and `add_figure`;
* a run of Weights & Biases: `log`;
* a function of ``(name, value, step)``, called with numbers and with matplotlib figures.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tssan_viz.recording.errors import RecordingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_measures(
    loggers: Iterable[Any],
    measures: Mapping[str, Mapping[str, np.ndarray]],
    *,
    step: int,
    phase: str = "train",
    heads: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Log the mean measures of every head.

    Parameters
    ----------
    loggers
        Where to; see `tssan_viz.recording.loggers`.
    measures
        Site's name → measure's name → values (h,), as `Recorder.means` returns them. They are
        logged as ``attention/<phase>/<measure>/<site>/head<number from 1>``; what is no number
        is left out.
    step
        Steps taken.
    phase
        What the rows were of: ``train`` or ``probe``.
    heads
        The numbers of each site's heads, where not all of them were recorded.
    """
    numbers = {
        f"attention/{phase}/{measure}/{site}/head{head}": float(value)
        for site, by_measure in measures.items()
        for measure, values in by_measure.items()
        for head, value in zip(
            (heads or {}).get(site, range(1, len(values) + 1)), values, strict=True
        )
        if np.isfinite(value)
    }
    for logger in loggers:
        if hasattr(logger, "log_metrics"):
            logger.log_metrics(numbers, step=step)
        elif hasattr(logger, "add_scalar"):
            for name, number in numbers.items():
                logger.add_scalar(name, number, step)
        elif hasattr(logger, "log"):
            logger.log(numbers, step=step)
        elif callable(logger):
            for name, number in numbers.items():
                logger(name, number, step)
        else:
            raise _cannot(logger)


def log_figure(loggers: Iterable[Any], name: str, figure: Figure, *, step: int) -> None:
    """Log a picture to all that take one; a logger that knows numbers alone is passed over."""
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            logger.log_image(name, [_pixels(figure)], step=step)
        elif hasattr(experiment, "add_figure"):
            experiment.add_figure(name, figure, step, close=False)
        elif hasattr(logger, "add_figure"):
            logger.add_figure(name, figure, step, close=False)
        elif hasattr(logger, "log_metrics"):
            continue
        elif hasattr(logger, "log"):
            import wandb

            logger.log({name: wandb.Image(_pixels(figure))}, step=step)
        elif callable(logger):
            logger(name, figure, step)
        else:
            raise _cannot(logger)


def heads_figure(maps: Mapping[tuple[str, int], np.ndarray]) -> Figure:
    """Draw maps side by side, each from 0 to its own maximum.

    Parameters
    ----------
    maps
        (site's name, head from 1) → map (q, s).

    Returns
    -------
    Figure
        Not known to pyplot, so that nothing has to be closed.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(maps))
    lines = -(-len(maps) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.5 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    for axis, ((site, head), values) in zip(axes, maps.items(), strict=False):
        axis.imshow(values, vmin=0, cmap="viridis", interpolation="nearest")
        axis.set_title(f"{_short(site)}, head {head}", fontsize=7)
        axis.set_xlabel("key", fontsize=6)
        axis.set_ylabel("query", fontsize=6)
        axis.tick_params(labelsize=5)
    return figure


def _short(site: str, length: int = 28) -> str:
    return site if len(site) <= length else f"…{site[1 - length :]}"


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.image import imread

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    buffer.seek(0)
    return (imread(buffer)[..., :3] * 255).round().astype(np.uint8)


def _cannot(logger: Any) -> RecordingError:
    return RecordingError(
        f"nothing can be logged to a {type(logger).__name__}: give a Lightning logger, a "
        "SummaryWriter, a run of Weights & Biases, or a function of (name, value, step)"
    )
