"""The first notebook runs as it stands, from nothing to maps."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_train_and_record.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(tmp_path))

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    accuracy = re.search(r"test accuracy ([\d.]+)%", printed)
    assert accuracy is not None
    assert float(accuracy[1]) >= 80, "thirteen classes, so that guessing has 8"
    assert "looks at the test part: 2" in printed
    assert "put on jacket" in printed
    shown = [output.get("data", {}) for output in outputs]
    (view,) = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert "<iframe" in view["text/html"], "a saved notebook shows the page"
    assert sum("image/png" in data for data in shown) == 2, "the curves and a map"
    notebook.metadata.pop("widgets", None)
    exported, _ = HTMLExporter().from_notebook_node(notebook)
    assert "<iframe" in exported, "so does one that nbconvert exports"
    assert not [
        output for output in outputs if output.output_type == "stream" and output.name == "stderr"
    ]
