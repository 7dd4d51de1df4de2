"""The fifth notebook runs as it stands, and what it says of the methods is so."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_is_it_an_explanation.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


def test_the_notebook_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    # Tables of the command line come as displays with a plain text.
    printed = "".join(
        output.get("text", "") or str(output.get("data", {}).get("text/plain", "")) + "\n"
        for output in outputs
    )
    accuracy = re.search(r"accuracy on unseen people ([\d.]+)%", printed)
    assert accuracy is not None
    assert float(accuracy[1]) >= 90
    precision = dict(re.findall(r"^([a-z-]+(?:, best head)?) +([\d.]+)$", printed, re.MULTILINE))
    assert float(precision["occlusion"]) > float(precision["random"]) + 0.1
    assert float(precision["integrated-gradients"]) > float(precision["random"]) + 0.1
    assert re.search(r"planted from ([\d.]+) s to ([\d.]+) s", printed)
    assert re.search(r"Frames matter more than random ones \(p max-T\) by: .*occlusion", printed)
    shown = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in data for data in shown) == 2, "the video and the curves"
    assert not [one for one in outputs if one.output_type == "stream" and one.name == "stderr"]
