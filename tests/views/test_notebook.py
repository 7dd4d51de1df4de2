"""The notebook runs as it stands, beside a store such as the demo leaves."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tests.stores import make_store

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "first-look.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "attention-store", subjects=6, planted="put on jacket")
    beside = tmp_path / "notebooks"
    beside.mkdir()
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(cwd=str(beside))

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "put on jacket" in printed
    shown = [output.get("data", {}) for output in outputs]
    (view,) = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert "<iframe" in view["text/html"], "a saved notebook shows the page"
    assert any("image/png" in data for data in shown)
    notebook.metadata.pop("widgets", None)
    exported, _ = HTMLExporter().from_notebook_node(notebook)
    assert "<iframe" in exported, "so does one that nbconvert exports"
    assert not [
        output for output in outputs if output.output_type == "stream" and output.name == "stderr"
    ]
