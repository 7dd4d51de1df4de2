from __future__ import annotations

import pytest

from tests.training import toy


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory):
    return toy.make(tmp_path_factory.mktemp("toys") / "toy")
