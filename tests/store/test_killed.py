from __future__ import annotations

import pytest

from tests.store.kill_writers import kill_often


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 2])
def test_writers_killed_while_somebody_reads_lose_nothing(tmp_path, writers):
    found = kill_often(tmp_path / "store", 4, writers, seed=writers)
    assert found.kills >= 4
    assert found.readings > 0
    assert all(found.stored[run] >= rows > 0 for run, rows in found.acknowledged.items())
