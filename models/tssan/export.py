"""Writing a trained network as ONNX or as a `torch.export` program, and checking what was written.

The file takes clips of the recipe's shape, any number of samples at once, and gives the logits that
a test counts by. It needs neither this package nor its classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from tssan.errors import DataError
from tssan.network import SkeletonNetwork
from tssan.recipe import Recipe
from tssan.run_folder import cannot_write, nothing_left

TOLERANCES = {".onnx": 1e-4, ".pt2": 1e-6}
CHECKED_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path, size
        The file, and its bytes.
    inputs
        Shapes by name, the number of samples as ``n``.
    difference
        Greatest difference of the file's logits from the network's over batches of one, two and
        five samples, in shares of the greatest logit where that is above 1; None: there was nothing
        to run the file with.
    """

    path: Path
    size: int
    inputs: dict[str, tuple[str | int, ...]]
    difference: float | None


def export_network(
    network: SkeletonNetwork,
    recipe: Recipe,
    out: str | Path,
    *,
    joints: int,
    coordinates: int,
) -> Exported:
    """Write a network to a file, open the file again, and compare what both say.

    Parameters
    ----------
    network
        On the CPU; it is left in evaluation mode, in which it is exported.
    recipe
        By which it was built.
    out
        The file: .onnx for ONNX, .pt2 for a `torch.export` program. One that is there is replaced,
        but only by one that passed the comparison.
    joints, coordinates
        Sizes of the axes v and c.

    Returns
    -------
    Exported
        With the difference that was found: at most 1e-4 for ONNX, 1e-6 for `torch.export`.

    Raises
    ------
    DataError
        The ending is another one, a package is missing, the file cannot be written, or it says
        something else than the network.
    """
    out = Path(out)
    if out.suffix not in TOLERANCES:
        raise DataError(f"{out}: expected a name that ends in .onnx, or in .pt2 for torch.export")
    if out.is_dir():
        raise DataError(f"{out} is a folder; expected the name of a file to write")
    if not out.parent.is_dir():
        raise DataError(f"{out}: the folder {out.parent} does not exist")
    network.eval()
    clips = recipe.clips
    shape = (clips.segments, clips.persons, clips.frames, joints, coordinates)
    masked = network.mask_absent_person
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    write, opened = {
        ".onnx": (_write_onnx, _open_onnx),
        ".pt2": (_write_program, _open_program),
    }[out.suffix]
    try:
        with nothing_left(partial):
            with _quiet():
                write(network, _inputs(shape, 2, masked), partial)
                run = opened(partial)
            difference = None
            if run is not None:
                with torch.no_grad():
                    difference = max(
                        _difference(network, run, _inputs(shape, n, masked))
                        for n in CHECKED_BATCHES
                    )
                if not difference <= TOLERANCES[out.suffix]:
                    raise DataError(
                        f"{out}: the exported network's logits differ by {difference:.1e}, more "
                        f"than {TOLERANCES[out.suffix]:.0e}; nothing was written"
                    )
            partial.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from None
    inputs: dict[str, tuple[str | int, ...]] = {
        "position": ("n", *shape),
        "motion": ("n", *shape),
    }
    if masked:
        inputs["present"] = ("n", *shape[:2])
    return Exported(out, out.stat().st_size, inputs, difference)


def _inputs(shape: Sequence[int], n: int, masked: bool) -> tuple[Tensor, ...]:
    """Return n random samples; with `masked`, too, who is there in them: the first at least."""
    generator = torch.Generator().manual_seed(n)
    clips = [torch.randn(n, *shape, generator=generator) for _ in range(2)]
    if not masked:
        return tuple(clips)
    present = torch.rand(n, *shape[:2], generator=generator) < 0.5
    present[:, :, 0] = True
    return (*clips, present)


def _difference(
    network: SkeletonNetwork, run: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> float:
    wanted, found = network(*inputs), run(*inputs)
    if wanted.shape != found.shape:
        raise DataError(
            f"the exported network gives logits of shape {tuple(found.shape)} where the network "
            f"gives {tuple(wanted.shape)}; nothing was written"
        )
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))


def _dynamic_batch(inputs: tuple[Tensor, ...]) -> dict[str, dict[int, torch.export.Dim]]:
    n = torch.export.Dim("n", min=1)
    return {name: {0: n} for name in ("position", "motion", "present")[: len(inputs)]}


def _write_program(network: SkeletonNetwork, inputs: tuple[Tensor, ...], path: Path) -> None:
    program = torch.export.export(network, inputs, dynamic_shapes=_dynamic_batch(inputs))
    torch.export.save(program, path)


def _open_program(path: Path) -> Callable[..., Tensor]:
    module = torch.export.load(path).module()
    return lambda *inputs: module(*inputs)


def _write_onnx(network: SkeletonNetwork, inputs: tuple[Tensor, ...], path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError:
            raise DataError(
                f"writing ONNX needs the package {package}: pip install 'tssan-viz[onnx]'; "
                "or let the file's name end in .pt2, for torch.export, which needs nothing"
            ) from None
    names = ["position", "motion", "present"][: len(inputs)]
    torch.onnx.export(
        network,
        inputs,
        path,
        dynamo=True,
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=_dynamic_batch(inputs),
        external_data=False,  # one file; 2 GB, where ONNX would need a second one, is far
        verbose=False,
    )


def _open_onnx(path: Path) -> Callable[..., Tensor] | None:
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        names = [entry.name for entry in session.get_inputs()]
        values = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notes to their own developers out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
