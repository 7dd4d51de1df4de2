"""The API documentation builds from the docstrings, and every public name has one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import tssan_viz

ROOT = Path(__file__).parents[2]


def test_the_documentation_builds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "docs/build.py"), str(tmp_path)], check=True)
    page = (tmp_path / "tssan_viz.html").read_text()
    for name in tssan_viz.__all__:
        assert f'id="{name}"' in page, f"{name} is missing from the page"


def test_public_names_explain_themselves() -> None:
    for name in tssan_viz.__all__:
        text = inspect.getdoc(getattr(tssan_viz, name))
        assert text, f"{name} has no docstring"
        assert len(text) > 80, f"{name}: {text!r} explains little"
