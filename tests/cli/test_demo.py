"""What the demo does when it is stopped; that it works is tested with the README's commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from tssan.run_folder import Interrupted
from typer.testing import CliRunner

from tssan_viz.cli import app


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_demo_says_how_to_go_on(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def stopped(*args: object, resume: bool, **rest: object) -> None:
        asked.append(resume)
        raise Interrupted

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tssan_viz.cli.demo._skeletons", lambda folder, seed: None)
    monkeypatch.setattr("tssan.training.train", stopped)
    if begun:
        run = tmp_path / "demo/ts-san"
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text("")
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 130
    assert "tssan-viz demo` goes on where it stopped" in result.stderr
    assert asked == [begun]
