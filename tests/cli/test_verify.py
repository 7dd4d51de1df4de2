from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tests.store.test_integrity import data_of, flip
from tests.stores import make_store
from tssan_viz.cli import app


@pytest.fixture
def store(tmp_path):
    return make_store(
        tmp_path / "s", subjects=2, cameras=(1,), replications=(1,), frames=8, persons=1
    )


def test_a_sound_store_exits_with_0(store):
    said = CliRunner().invoke(app, ["verify", store.url])
    assert said.exit_code == 0
    assert "is sound: 8 rows with 64 maps" in " ".join(said.output.split())


def test_a_damaged_store_exits_with_1_and_is_told_what(store):
    (file,) = data_of(store, "maps/generated/8x8")
    flip(file, 0.4)
    said = CliRunner().invoke(app, ["verify", store.url])
    assert said.exit_code == 1
    text = " ".join(said.output.split())
    assert "is not what was recorded" in text
    assert "is damaged" in text
