"""Curves of networks whose answer is known, against definitions and scikit-learn's areas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import auc

from tests.evidence.networks import Planted, planted_clips
from tssan_viz.evidence.faithfulness import (
    RANDOM,
    SHARES,
    Faithfulness,
    kept_when,
    probabilities_by_order,
)
from tssan_viz.evidence.over_subjects import interval, sign_flips
from tssan_viz.evidence.perturbing import Replacement


def known() -> Faithfulness:
    """Sixteen videos of eight subjects, in the right order, the wrong one, and none."""
    clips = planted_clips(16)
    truth = torch.zeros(16, 1, 32)
    truth[:, :, 8:16] = 1.0
    scores = {"right": truth, "wrong": -truth, "constant": torch.zeros(16, 1, 32)}
    deletion, insertion = probabilities_by_order(
        Planted(),
        clips,
        torch.ones(16, dtype=torch.long),
        scores,
        replacement=Replacement(),
        random_orders=20,
    )
    return Faithfulness(
        [*scores, RANDOM],
        np.array(SHARES),
        deletion,
        insertion,
        [f"v{i}" for i in range(16)],
        np.arange(16) // 2,
    )


def test_the_right_order_is_better_than_chance_and_the_wrong_one_worse() -> None:
    found = known()
    table = found.table.set_index("method")
    for measure in ("deletion", "insertion", "comprehensiveness", "sufficiency"):
        assert table.loc["right", f"{measure}_gain_low"] > 0, measure
        assert table.loc["wrong", f"{measure}_gain"] < 0, measure
        assert table.loc["right", f"{measure}_p"] < 0.05, measure
        # An attribution that says nothing is worth as much as chance.
        assert abs(table.loc["constant", f"{measure}_gain"]) < 0.1, measure
    assert table.loc["right", "subjects"] == 8
    # A quarter of the frames is planted: with half of all gone, nothing of the class is left.
    half = found.curves.query("method == 'right' and share == 0.5")
    assert half["deletion"].item() < 0.6
    assert half["insertion"].item() == pytest.approx(found.curves["deletion"].max(), abs=0.05)


def test_areas_and_intervals_are_those_of_the_libraries() -> None:
    found = known()
    areas = np.array([auc(found.shares, curve) for curve in found.deletion[0]])
    np.testing.assert_allclose(found.per_video["deletion"][0], areas)
    subjects = areas.reshape(8, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 7, subjects.mean(), stats.sem(subjects))
    line = found.table.set_index("method").loc["right"]
    assert line["deletion"] == pytest.approx(subjects.mean())
    assert (line["deletion_low"], line["deletion_high"]) == pytest.approx((low, high))


def test_there_is_no_interval_of_few_subjects_and_p_has_its_floor() -> None:
    low, high = interval(np.random.default_rng(0).normal(size=(5, 3)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    differences = np.abs(np.random.default_rng(0).normal(size=(5, 3)))
    assert sign_flips(differences).p == pytest.approx(1 / 32)


def test_sign_flips_are_scipy_s_permutation_test() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=8)
    expected = stats.permutation_test(
        (values, np.zeros(8)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        alternative="greater",
    ).pvalue
    assert sign_flips(values[:, None]).p[0] == pytest.approx(expected)


def test_both_curves_share_their_ends() -> None:
    found = known()
    np.testing.assert_array_equal(found.deletion[..., 0], found.insertion[..., -1])
    np.testing.assert_array_equal(found.deletion[..., -1], found.insertion[..., 0])
    assert np.ptp(found.deletion[..., 0], axis=0).max() == 0.0


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_the_greatest_go_first(share: float, count: int) -> None:
    scores = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    first = kept_when(scores, share, inserted=True, generator=torch.Generator().manual_seed(1))
    assert (first.sum(dim=1) == count).all()
    if 0 < count < 12:
        least = torch.where(first, scores, torch.inf).amin(dim=1)
        greatest = torch.where(first, -torch.inf, scores).amax(dim=1)
        assert (least >= greatest).all()
    gone = kept_when(scores, share, inserted=False, generator=torch.Generator().manual_seed(1))
    assert torch.equal(gone, ~first)


def test_it_becomes_plain_values() -> None:
    import json

    found = known().to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["videos"][3]["subject"] == 1
