"""The fourth notebook runs as it stands: views, then figures."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_views_and_figures.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    accuracy = re.search(r"six people, ([\d.]+)% named rightly", printed)
    assert accuracy is not None
    assert float(accuracy[1]) >= 70, "thirteen classes, so that guessing has 8"
    assert re.search(r"view\.html \d+ kB", printed)
    assert "6 subjects" in printed, "the caption of the difference says of how many"
    for name in ("heads.pdf", "heads.txt", "heads.csv"):
        assert f"{name} True" in printed
    shown = [output.get("data", {}) for output in outputs]
    views = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert len(views) == 2
    assert all("<iframe" in data["text/html"] for data in views)
    assert sum("image/png" in data for data in shown) == 10, "one for each kind"
    assert not [one for one in outputs if one.output_type == "stream" and one.name == "stderr"]
