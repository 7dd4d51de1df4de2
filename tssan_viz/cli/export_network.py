"""The command `tssan-viz export-network`: a trained network as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tssan_viz.cli.common import console


def export_network(
    run: Annotated[
        Path, typer.Argument(help="A folder that `tssan-viz train` wrote.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The file to write: .onnx, or .pt2 for torch.export.",
            show_default=False,
        ),
    ],
) -> None:
    """Write a trained network as ONNX or torch.export and check that it says the same.

    The file takes clips of the recipe's shape, any number of them at once, and gives logits. It is
    opened again right away and compared with the network before it gets its name.

        tssan-viz export-network run -o ts-san.onnx
    """
    from rich.filesize import decimal
    from rich.text import Text
    from tssan.export import export_network as export
    from tssan.training import load_run

    opened = load_run(run)
    written = export(
        opened.network,
        opened.recipe,
        out,
        joints=opened.results["joints"],
        coordinates=opened.results["coordinates"],
    )
    for name, shape in written.inputs.items():
        kind = "bool" if name == "present" else "float32"
        console.print(Text(f"{name:<9} {kind} ({', '.join(map(str, shape))})"))
    console.print(Text(f"logits    float32 (n, {len(opened.classes)})"))
    checked = (
        "not checked, as onnxruntime is not installed: pip install 'tssan-viz[onnx]'"
        if written.difference is None
        else f"checked: its logits differ from the network's by {written.difference:.1e} at most"
    )
    console.print(Text(f"{written.path}  {decimal(written.size)}, {checked}"), soft_wrap=True)
