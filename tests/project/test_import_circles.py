"""Modules do not import each other in circles, imports for types included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"tssan": ROOT / "models/tssan", "tssan_viz": ROOT / "tssan_viz"}
# `store.select(…)` gives a selection, and a selection asks its store: they are one thing in parts.
ONE_THING = {
    "tssan_viz.selection",
    "tssan_viz.store.lazy",
    "tssan_viz.store.nearest",
    "tssan_viz.store.reader",
}
Functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def modules(package: str) -> dict[str, ast.Module]:
    """Return the modules of a package by name."""
    folder, found = PACKAGES[package], {}
    for file in folder.rglob("*.py"):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imported(node: ast.AST, known: set[str], *, late: bool = False) -> Iterator[tuple[str, bool]]:
    """Go through the known modules that are imported, and whether only within a function."""
    for child in ast.iter_child_nodes(node):
        names: list[str] = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are not followed here"
            inner = [f"{child.module}.{alias.name}" for alias in child.names]
            names = [name if name in known else str(child.module) for name in inner]
        yield from ((name, late) for name in names if name in known)
        yield from imported(child, known, late=late or isinstance(child, Functions))


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return a circle of modules, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_one_that_imports_it(package: str) -> None:
    trees = modules(package)
    graph = {
        name: {
            other
            for other, late in imported(tree, set(trees))
            if not late and other != name and not {name, other} <= ONE_THING
        }
        for name, tree in trees.items()
    }
    assert not circle(graph)


def test_what_is_one_thing_is_still_one() -> None:
    trees = {name: tree for name, tree in modules("tssan_viz").items() if name in ONE_THING}
    assert set(trees) == ONE_THING
    graph = {
        name: {o for o, _ in imported(tree, ONE_THING)} - {name} for name, tree in trees.items()
    }
    assert circle(graph), "the exception is needed no more"


def test_a_circle_is_found_and_late_imports_are_told_apart() -> None:
    known = {"a", "a.b", "c"}
    early = "if TYPE_CHECKING:\n    from a import b\ndef f():\n    import c\n"
    assert list(imported(ast.parse(early), known)) == [("a.b", False), ("c", True)]
    assert set(circle({"a": {"c"}, "c": {"a"}})) == {"a", "c"}
    assert not circle({"a": {"c"}, "c": set()})
