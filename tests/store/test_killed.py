from __future__ import annotations

import pytest

from tests.store.kill_writers import kill_often


@pytest.mark.slow
def test_two_writers_killed_while_somebody_reads_lose_nothing(tmp_path):
    found = kill_often(tmp_path / "store", 4, writers=2)
    assert found.kills >= 4
    assert found.readings > 0
    assert all(found.stored[run] >= rows > 0 for run, rows in found.acknowledged.items())
