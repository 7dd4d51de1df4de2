"""The notebook about comparisons runs as it stands."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_compare_classes.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    for expected in (
        "156 videos of six people",
        "One-sided permutation test",
        "smallest possible p 0.031, 64 exchanges",
        "camera 1 against camera 2 | exchanged: the groups over all classes at once within each of "
        "6 subjects",
        "whole subjects between the groups, of 6 subjects",
        "| exchanged: nothing",
        "about the action or about the person",
        r"\toprule",
    ):
        assert expected in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 4
