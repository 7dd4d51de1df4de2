"""The examples that `--help` gives are commands that exist, with options that they have."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from tssan_viz.cli import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in (command.help or "").splitlines()
    if re.match(r" *tssan-viz \w", line)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_parsed(example: str) -> None:
    _, name, *arguments = shlex.split(example)
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize("name", ["prepare", "train", "evaluate", "record", "view", "explain"])
def test_what_a_newcomer_types_first_has_an_example(name: str) -> None:
    assert any(example.startswith(f"tssan-viz {name} ") for example in EXAMPLES)
