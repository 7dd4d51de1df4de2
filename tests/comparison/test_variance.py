"""Shares of variance: statsmodels' sums of squares, the textbook's components, planted shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from tests.comparison.stores import every, random_maps, write
from tests.stores import make_store
from tssan_viz.comparison.class_matrix import class_matrix
from tssan_viz.comparison.similarity import unit_vectors
from tssan_viz.comparison.variance import ORDERS, variance_shares
from tssan_viz.comparison.variance_components import EFFECTS, shares_of_variance
from tssan_viz.errors import UserError


def design(
    c: int, s: int, v: int, r: int, repeats: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    grid = np.indices((c, s, v, r, repeats)).reshape(5, -1)
    return grid[0], grid[1], grid[2], grid[3]


@pytest.mark.parametrize("drop", [0, 9, 25])
@pytest.mark.parametrize("class_first", [True, False])
def test_sums_of_squares_are_those_of_statsmodels(drop: int, class_first: bool) -> None:
    """Type I sums of squares of scalar data, balanced and not."""
    rng = np.random.default_rng(drop)
    frame = pd.DataFrame(dict(zip("csvr", design(3, 4, 2, 2, 2), strict=True)))
    frame = frame.drop(rng.choice(len(frame), drop, replace=False)).reset_index(drop=True)
    frame["y"] = (
        rng.normal(size=3)[frame["c"]]
        + 2 * rng.normal(size=4)[frame["s"]]
        + rng.normal(size=(3, 4))[frame["c"], frame["s"]]
        + rng.normal(size=2)[frame["v"]]
        + rng.normal(size=len(frame))
    )
    mains = "C(c) + C(s)" if class_first else "C(s) + C(c)"
    # anova_lm moves interactions last; a factor of the cells keeps ours before camera.
    first = anova_lm(ols(f"y ~ {mains} + C(c):C(s)", frame).fit())
    frame["cell"] = frame["c"] * 4 + frame["s"]
    whole = anova_lm(ols("y ~ C(cell) + C(v) + C(r)", frame).fit())
    found = shares_of_variance(
        frame[["y"]].to_numpy(),
        *(frame[name].to_numpy() for name in "csvr"),
        class_first=class_first,
    )
    expected = [
        first.loc["C(c)"],
        first.loc["C(s)"],
        first.loc["C(c):C(s)"],
        whole.loc["C(v)"],
        whole.loc["C(r)"],
        whole.loc["Residual"],
    ]
    np.testing.assert_allclose(found.df, [line["df"] for line in expected])
    np.testing.assert_allclose(found.ss[0], [line["sum_sq"] for line in expected], atol=1e-9)
    assert found.eta2.sum() == pytest.approx(1)
    error = whole.loc["Residual", "mean_sq"]
    line = first.loc["C(c)"]
    assert found.omega2[0, 0] == pytest.approx(
        (line["sum_sq"] - line["df"] * error) / (found.ss.sum() + error)
    )


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_components_are_the_textbooks_in_a_balanced_design(seed: int) -> None:
    """Mean squares and their expectations, worked out by hand (negative ones stay negative)."""
    rng = np.random.default_rng(seed)
    c, s, v, r = 3, 4, 2, 3
    label, subject, camera, replication = design(c, s, v, r)
    y = rng.normal(size=(len(label), 2)) + rng.normal(size=(c, 2))[label]
    found = shares_of_variance(y, label, subject, camera, replication)
    by_class, by_subject, crossed, by_camera, by_replication, residual = found.ss[0] / found.df
    expected = [
        (by_class - crossed) / (s * v * r),
        (by_subject - crossed) / (c * v * r),
        (crossed - residual) / (v * r),
        (by_camera - residual) / (c * s * r),
        (by_replication - residual) / (c * s * v),
        residual,
    ]
    np.testing.assert_allclose(found.component[0], expected, atol=1e-10)
    assert np.nansum(found.share) == pytest.approx(1)


def test_estimates_are_right_on_average_in_an_unbalanced_design() -> None:
    """Planted components come back; the bias that eta squared has does not."""
    rng = np.random.default_rng(1)
    label, subject, camera, replication = design(8, 8, 2, 2)
    keep = rng.random(len(label)) < 0.7
    label, subject, camera, replication = (x[keep] for x in (label, subject, camera, replication))
    true = {"class": 1.0, "subject": 0.5, "class × subject": 0.3, "camera": 0.0, "residual": 1.5}
    found = []
    for _ in range(300):
        y = (
            rng.normal(size=8)[label] * np.sqrt(true["class"])
            + rng.normal(size=8)[subject] * np.sqrt(true["subject"])
            + rng.normal(size=(8, 8))[label, subject] * np.sqrt(true["class × subject"])
            + rng.normal(size=len(label)) * np.sqrt(true["residual"])
        )
        found.append(shares_of_variance(y[:, None], label, subject, camera, replication).component)
    means = pd.Series(np.mean(found, axis=0)[0], index=EFFECTS)
    errors = pd.Series(np.std(found, axis=0)[0] / np.sqrt(300), index=EFFECTS)
    for effect, value in true.items():
        assert abs(means[effect] - value) < 4 * errors[effect], effect
    assert np.mean(np.array(found)[:, 0, 3] < 0) > 0.3


def test_vectors_are_decomposed_coordinate_by_coordinate() -> None:
    rng = np.random.default_rng(0)
    label, subject, camera, replication = design(3, 3, 2, 2)
    y = rng.normal(size=(len(label), 5))
    whole = shares_of_variance(y, label, subject, camera, replication)
    each = [shares_of_variance(y[:, [d]], label, subject, camera, replication).ss for d in range(5)]
    np.testing.assert_allclose(whole.ss, np.sum(each, axis=0))


def test_a_store_gives_what_its_unit_vectors_give(tmp_path: Path) -> None:
    rows = every(subjects=3, classes=3, cameras=2, segments=2)
    rows = rows.drop(rows.index[rows["sample"] == "S1L0C2"]).reset_index(drop=True)
    store = write(tmp_path / "store", rows)
    found = variance_shares(store.select())
    assert not found.balanced
    assert any("not balanced" in note for note in found.notes)
    assert any("nothing to tell replication by" in note for note in found.notes)
    units, _ = unit_vectors(store.select().maps().values[:, 0])
    rows = store.select().rows()
    for order, class_first in zip(ORDERS, (True, False), strict=True):
        line = found.wide(order, "eta2").iloc[1]
        ss = 0
        for k in (1, 2):
            mine = (rows["segment"] == k).to_numpy()
            part = rows[mine]
            ss = (
                ss
                + shares_of_variance(
                    units[mine, 1],
                    *(part[name].to_numpy(int) for name in ("label", "subject", "camera")),
                    class_first=class_first,
                ).ss
            )
        expected = ss[0] / ss.sum()
        for effect, value in zip(EFFECTS, expected, strict=True):
            if effect != "replication":
                assert line[effect] == pytest.approx(value, abs=1e-5)


def test_a_planted_class_is_where_the_variance_is(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=6, planted="put on jacket")
    found = variance_shares(store.select())
    assert found.balanced
    wide = found.wide().set_index(["layer", "head"])
    assert wide["class"].idxmax() == (2, 1)
    # Each subject has a manner of its own in every head.
    assert (wide["subject"] > 0.3).all()
    assert (wide[["camera", "replication"]].abs() < 0.02).all().all()
    np.testing.assert_allclose(wide[list(EFFECTS)].sum(axis=1), 1, atol=1e-6)
    assert found.n_subjects == 6
    assert found.n_samples == 96
    assert any("negative estimates" in note for note in found.notes)
    first = found.to_dict()["table"][0]
    assert first["effect"] == "class"


def test_one_video_per_cell_leaves_no_residual(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=3, classes=3))
    found = variance_shares(store.select())
    line = found.wide().iloc[0]
    assert np.isnan(line["residual"])
    assert any("one video per class × subject" in note for note in found.notes)
    assert found.to_dict()["table"][5]["share"] is None


def test_uniform_maps_are_counted_and_left_out(tmp_path: Path) -> None:
    """Of maps and of kept cells, under a metric that gives them no direction."""

    def some_uniform(rows: pd.DataFrame, site: object) -> np.ndarray:
        maps = random_maps(rows, site)
        maps[:3, 0] = 1 / 6
        return maps

    store = write(tmp_path / "store", every(subjects=3, cameras=2), maps=some_uniform)
    expected = "were left out: 3 in layer 1"
    found = variance_shares(store.select(), metric="pearson")
    assert any(note.endswith(expected) for note in found.notes)
    assert found.table["eta2"].notna().sum() > 0
    for source in (store.select(), store.select(), store.select(where="camera > 0")):
        told = class_matrix(source, metric="pearson")
        assert any(note.endswith(expected) for note in told.notes)
    assert not any("direction" in note for note in variance_shares(store.select()).notes)


def test_bad_questions(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=2, classes=2))
    with pytest.raises(UserError, match="at least 2 subjects"):
        variance_shares(store.select(subject=1))
    with pytest.raises(UserError, match="at least 2 classes"):
        variance_shares(store.select(label=0))
    with pytest.raises(UserError, match="unknown metric"):
        variance_shares(store.select(), metric="tv")
