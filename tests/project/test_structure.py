"""The direction of the imports, and what must stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "tssan": ROOT / "models/tssan",
    "tssan_viz": ROOT / "tssan_viz",
    "tssan_dash": ROOT / "dashboards/tssan_dash",
}


def imported_packages(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports_run_one_way() -> None:
    for file in FOLDERS["tssan"].rglob("*.py"):
        assert not imported_packages(file) & {"tssan_viz", "tssan_dash"}, file
    for file in FOLDERS["tssan_viz"].rglob("*.py"):
        above = {"tssan", "tssan_dash"} & imported_packages(file)
        assert not above or file.parent.name == "cli", (file, above)
    for file in FOLDERS["tssan_dash"].rglob("*.py"):
        assert "tssan" not in imported_packages(file), file


@pytest.mark.parametrize(
    "module",
    [
        "tssan_viz",
        "tssan_viz.cli",
        "tssan_viz.store",
        "tssan_viz.selection",
        "tssan_viz.comparison",
        "tssan_viz.figures",
        "tssan_viz.views",
        "tssan_dash.app",
    ],
)
def test_questions_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_absolute_path_of_anybody_and_no_large_file_is_tracked() -> None:
    somebodys_path = re.compile(r"(?<![\w.])/(?:home|Users|work|root)/\w")
    for file in tracked_files():
        assert file.stat().st_size < 2_000_000, f"{file} is large for a source repository"
        assert file.suffix not in {".skeleton", ".mat", ".npz", ".npy", ".pkl", ".safetensors"}, (
            file
        )
        if file.suffix in {".png", ".pdf", ".mjs"} or file == Path(__file__):
            continue
        found = somebodys_path.search(file.read_text(errors="replace"))
        assert found is None, f"{file}: {found}"
