"""Contrasts of measures: effect sizes by hand, stored measures as they are, what is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from tests.comparison.stores import every, write
from tests.stores import make_store
from tssan_viz import measures as of_maps
from tssan_viz.comparison.measure_contrasts import (
    cliffs_delta,
    hedges_g_of_groups,
    measure_contrasts,
)
from tssan_viz.errors import UserError
from tssan_viz.measures import MEASURES
from tssan_viz.store import AttentionStore, Site


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> AttentionStore:
    return make_store(
        tmp_path_factory.mktemp("planted") / "store", subjects=7, planted="put on jacket"
    )


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_effect_sizes_are_those_of_the_books(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(5, 1)), rng.normal(size=(8, 1)) + 0.5
    u = stats.mannwhitneyu(a[:, 0], b[:, 0]).statistic
    assert cliffs_delta(a, b)[0] == pytest.approx(2 * u / 40 - 1)
    t = stats.ttest_ind(a[:, 0], b[:, 0]).statistic
    m = 11
    exact = special.gamma(m / 2) / (np.sqrt(m / 2) * special.gamma((m - 1) / 2))
    assert hedges_g_of_groups(a, b)[0] == pytest.approx(t * np.sqrt(1 / 5 + 1 / 8) * exact)


def test_values_are_means_over_views_then_classes_then_subjects(tmp_path: Path) -> None:
    rows = every(subjects=3, classes=3, cameras=2)
    rows = rows.drop(rows.index[rows["sample"] == "S1L1C2"]).reset_index(drop=True)
    store = write(tmp_path / "store", rows)
    own = store.select(label=0)
    found = measure_contrasts(own, store.select() - own, measures=["gini"], head=2)
    rows = store.select().rows()
    rows["gini"] = of_maps.gini(store.select(head=2).maps().values[:, 0, 0])
    cells = rows.groupby(["subject", "label"])["gini"].mean().unstack()
    line = found.table.iloc[0]
    assert line["mean_a"] == pytest.approx(cells[0].mean(), abs=1e-6)
    assert line["mean_b"] == pytest.approx(cells[[1, 2]].mean(axis=1).mean(), abs=1e-6)
    assert found.subjects["a"].to_numpy() == pytest.approx(cells[0].to_numpy(), abs=1e-6)


def test_stored_measures_are_read_and_not_made_anew(planted: AttentionStore) -> None:
    """Of recorded measures the ones in the store count, which keep what float16 maps lose."""
    own = planted.select(class_name="put on jacket")
    rest = planted.select() - own
    stored = measure_contrasts(own, rest, measures=["entropy", "confidence"])
    mean = own.measures().groupby(["layer", "head"])[["entropy", "peak"]].mean()
    table = stored.table.pivot(index=["layer", "head"], columns="measure", values="mean_a")
    np.testing.assert_allclose(table["entropy"], mean["entropy"], atol=1e-6)
    np.testing.assert_allclose(table["confidence"], mean["peak"], atol=1e-6)


def test_a_planted_difference_is_found_where_it_is(tmp_path: Path) -> None:
    def maps(rows: pd.DataFrame, site: Site) -> np.ndarray:
        rng = np.random.default_rng(site.layer)
        p = rng.gamma(1.0, size=(len(rows), site.heads, site.query, site.key))
        wanted = (rows["label"] == 1).to_numpy()
        p[wanted, 1] += 3 * np.eye(site.query)
        return (p / p.sum(-1, keepdims=True)).astype(np.float16)

    store = write(tmp_path / "store", every(subjects=8, classes=4), maps=maps)
    own = store.select(label=1)
    found = measure_contrasts(own, store.select() - own, permutations=2000)
    table = found.table.set_index(["head", "measure"])
    assert table.loc[(2, "diagonality"), "p_max_t"] <= 0.05
    assert table.loc[(2, "diagonality"), "difference"] > 0
    assert table.loc[(2, "diagonality"), "low"] > 0
    assert table.loc[(2, "diagonality"), "cliffs_delta"] == 1
    assert not (table.loc[1, "p_max_t"] <= 0.05).any()
    assert any("coupling_to_motion" in note for note in found.notes)
    assert np.isnan(table.loc[(2, "coupling_to_motion"), "p"])
    assert len(table) == 2 * len(MEASURES)
    assert found.to_dict()["table"][0]["layer"] == 1


def test_motion_counts_where_poses_were_recorded(planted: AttentionStore) -> None:
    found = measure_contrasts(
        planted.select(subject=[1, 2, 3]),
        planted.select(subject=[4, 5, 6, 7]),
        measures=["coupling_to_motion", "peak_motion_mass", "distance_seconds", "distance"],
    )
    assert found.exchange == "whole subjects"
    assert found.table["p"].notna().all()
    assert found.table["low"].isna().all()
    wide = found.table.pivot(index=["layer", "head"], columns="measure", values="mean_a")
    # Frames lie 2.5 source frames apart, at 30 a second.
    np.testing.assert_allclose(wide["distance_seconds"], wide["distance"] * 2.5 / 30, rtol=1e-3)


def test_six_subjects_and_more_have_an_interval_that_is_the_t_interval(
    planted: AttentionStore,
) -> None:
    a, b = planted.select(class_name="reading"), planted.select(class_name="hand waving")
    found = measure_contrasts(a, b, measures=["gini"], layer=1, head=1)
    d = (found.subjects["a"] - found.subjects["b"]).to_numpy()
    low, high = stats.t.interval(0.95, 6, d.mean(), stats.sem(d))
    assert found.table[["low", "high"]].to_numpy()[0] == pytest.approx([low, high])
    assert found.n_assignments == 128
    few = measure_contrasts(
        a.select(subject=[1, 2, 3]), b.select(subject=[1, 2, 3]), measures=["gini"]
    )
    assert few.table["low"].isna().all()
    assert any("no interval" in note for note in few.notes)
    assert any("out of reach" in note for note in few.notes)


def test_bad_questions(planted: AttentionStore, tmp_path: Path) -> None:
    own = planted.select(class_name="reading")
    rest = planted.select() - own
    with pytest.raises(UserError, match="no measure is called 'ginny'"):
        measure_contrasts(own, rest, measures=["ginny"])
    with pytest.raises(UserError, match="at least one measure"):
        measure_contrasts(own, rest, measures=[])
    with pytest.raises(UserError, match="lies between 0 and 1"):
        measure_contrasts(own, rest, alpha=0)
    with pytest.raises(UserError, match="share 28 of 28 rows"):
        measure_contrasts(own, own)
    other = make_store(tmp_path / "other", subjects=2, run="another")
    with pytest.raises(UserError, match="head 6 of one network"):
        measure_contrasts(own, other.select())
