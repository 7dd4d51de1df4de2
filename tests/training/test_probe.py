"""Which videos are recorded while a network is trained."""

from __future__ import annotations

import pytest

from tssan_viz.cli.watched_training import _evenly
from tssan_viz.errors import UserError


@pytest.mark.parametrize(("count", "a_class", "a_subject"), [(9, 3, 1), (18, 6, 2), (54, 18, 6)])
def test_a_probe_is_spread_over_classes_and_subjects(
    toys, count: int, a_class: int, a_subject: int
) -> None:
    train = toys.split().train
    chosen = _evenly(toys, train.tolist(), count)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(train)
    lines = toys.index.iloc[chosen]
    assert set(lines["label"].value_counts()) == {a_class}
    assert set(lines.groupby(["label", "subject"]).size()) == {a_subject}


def test_more_videos_than_there_are_is_refused(toys) -> None:
    with pytest.raises(UserError, match="--probe 55: the training part has 54 videos"):
        _evenly(toys, toys.split().train.tolist(), 55)
