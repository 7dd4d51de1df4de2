"""Build the API documentation from the docstrings: `python docs/build.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
import pdoc.render

MODULES = [
    "tssan_viz",
    "tssan_viz.recording",
    "tssan_viz.recording.lightning",
    "tssan_viz.recording.huggingface",
    "tssan_viz.recording.loggers",
    "tssan_viz.recording.policies",
    "tssan_viz.recording.sinks",
    "tssan_viz.store",
    "tssan_viz.selection",
    "tssan_viz.comparison",
    "tssan_viz.figures",
    "tssan_viz.views",
    "tssan",
    "tssan.skeletons",
    "tssan.clips",
    "tssan.dataset",
    "tssan.network",
    "tssan.hcn",
    "tssan.building",
    "tssan.describe",
    "tssan.recipe",
    "tssan.tables",
    "tssan.training",
    "tssan.evaluation",
    "tssan.reproduction",
    "tssan.export",
    "tssan_dash",
]


def build(folder: Path) -> None:
    """Write one page per module, and an index, into `folder`."""
    pdoc.render.configure(docformat="numpy", footer_text="tssan-viz")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/build.py FOLDER")
    build(Path(sys.argv[1]))
    print(f"written: {sys.argv[1]}/index.html")
