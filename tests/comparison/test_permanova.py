"""PERMANOVA: scikit-bio's F, its p under free permutation, blocks that hold under the null."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from skbio.stats.distance import DistanceMatrix, permdisp
from skbio.stats.distance import permanova as skbio_permanova

from tests.comparison.stores import every, random_maps, write
from tests.stores import make_store
from tssan_viz.comparison.label_permutation import permuted_within, sampled_within
from tssan_viz.comparison.permanova import permanova, pseudo_f
from tssan_viz.errors import UserError
from tssan_viz.store import Site


def vectors_of(seed: int, s: int = 5, c: int = 4, effect: float = 0.5) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    subject, label = np.divmod(np.arange(s * c), c)
    keep = np.sort(rng.permutation(s * c)[seed % 3 :])
    subject, label = subject[keep], label[keep]
    vectors = rng.normal(size=(len(keep), 5)) + effect * rng.normal(size=(c, 5))[label]
    return vectors * (1 + 0.2 * label[:, None]), label, subject


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_f_is_that_of_scikit_bio(seed: int) -> None:
    vectors, label, _ = vectors_of(seed)
    distance = DistanceMatrix(squareform(pdist(vectors)))
    found = pseudo_f((vectors @ vectors.T)[..., None], label[None])
    expected = skbio_permanova(distance, label, permutations=0)
    assert found.f[0, 0] == pytest.approx(expected["test statistic"], rel=1e-9)
    n, levels = len(label), len(np.unique(label))
    f = found.f[0, 0]
    assert found.r2[0] == pytest.approx(f * (levels - 1) / (f * (levels - 1) + n - levels))
    spread = permdisp(distance, label, test="centroid", permutations=0, method="eigh")
    assert found.dispersion[0, 0] == pytest.approx(spread["test statistic"], rel=1e-4)


def test_p_is_that_of_scikit_bio_when_all_may_be_permuted() -> None:
    vectors, label, _ = vectors_of(4, effect=0.3)
    everybody = np.zeros(len(label), int)
    found = pseudo_f((vectors @ vectors.T)[..., None], sampled_within(label, everybody, 4999, 0)).f[
        :, 0
    ]
    p = (found >= found[0] - 1e-12).mean()
    expected = skbio_permanova(
        DistanceMatrix(squareform(pdist(vectors))), label, permutations=4999, seed=1
    )["p-value"]
    assert 0.001 < expected < 0.5
    assert p == pytest.approx(expected, abs=4 * np.sqrt(expected / 5000) * 1.5)


@pytest.mark.slow
def test_it_rejects_as_often_as_it_says_when_there_is_nothing() -> None:
    """1,000 data sets with strong subject effects, permuted within subjects."""
    rejected = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        subject, label = np.divmod(np.arange(32), 4)
        v = rng.normal(size=(32, 6)) + 2 * rng.normal(size=(8, 6))[subject]
        drawn = permuted_within(label, subject, 99, seed).labels
        found = pseudo_f((v @ v.T)[..., None], drawn, subject)
        rejected.append(
            [(f[:, 0] >= f[0, 0] - 1e-12).mean() <= 0.05 for f in (found.f, found.dispersion)]
        )
    of_class, of_dispersion = np.mean(rejected, axis=0)
    assert 0.03 <= of_class <= 0.07
    assert 0.03 <= of_dispersion <= 0.07


def test_a_planted_class_is_found_and_spread_is_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=6, planted="put on jacket")
    found = permanova(store.select(), permutations=199)
    table = found.table.set_index(["layer", "head"])
    assert table["R2"].idxmax() == (2, 1)
    assert table.loc[(2, 1), "p_max_t"] <= 0.05
    assert (table["p_max_t"] <= 0.05).sum() == 1
    by_subject = permanova(store.select(), by="subject", permutations=199)
    assert (by_subject.table["p_max_t"] <= 0.05).all()
    assert by_subject.block == "class"
    assert found.to_dict()["permuted_within"] == "subject"
    assert permanova(store.select(), permutations=199).table.equals(found.table)


def test_cameras_are_permuted_within_subjects_over_classes_that_all_of_them_saw(
    tmp_path: Path,
) -> None:
    rows = every(subjects=6, classes=3, cameras=2)
    gone = (rows["subject"] == 2) & (rows["label"] == 1) & (rows["camera"] == 2)

    def imprinted(rows: pd.DataFrame, site: Site) -> np.ndarray:
        maps = random_maps(rows, site).astype(np.float64)
        maps[:, 0, :, 0] += 0.5 * (rows["camera"].to_numpy(int) == 1)[:, None]
        return (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)

    store = write(tmp_path / "store", rows[~gone].reset_index(drop=True), maps=imprinted)
    found = permanova(store.select(), by="camera")
    assert (found.factor, found.block, found.n_cells, found.n_levels) == (
        "camera",
        "subject",
        12,
        2,
    )
    assert (found.enumerated, found.smallest_p) == (True, 2 / 2**6)
    assert found.table["p"].tolist()[0] == 2 / 2**6
    assert found.table["p"].tolist()[1] > 0.05
    assert "left out: 1 class of a subject that was not seen by all of its cameras" in found.notes
    # F is scikit-bio's over the means that each subject has with each camera.
    whole = store.select(where="NOT (subject = 2 AND label = 1)")
    maps = whole.select(head=1).maps().values[:, 0, 0].astype(np.float64).reshape(len(whole), -1)
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    keys = whole.rows()[["subject", "camera"]]
    means = pd.DataFrame(maps).groupby([keys["subject"].values, keys["camera"].values]).mean()
    distances = DistanceMatrix(squareform(pdist(means.to_numpy())))
    levels = [str(camera) for camera in means.index.get_level_values(1)]
    expected = skbio_permanova(distances, levels, permutations=0)
    assert found.table["F"].iloc[0] == pytest.approx(expected["test statistic"], rel=1e-4)


def test_two_classes_of_few_subjects(tmp_path: Path) -> None:
    """All 2⁵ exchanges; of two classes in each subject the spread cannot be told."""
    store = make_store(tmp_path / "store", subjects=5, planted="put on jacket")
    found = permanova(store.select(class_name=["put on jacket", "reading"]), permutations=199)
    assert (found.enumerated, found.n_permutations, found.smallest_p) == (True, 31, 2 / 32)
    table = found.table.set_index(["layer", "head"])
    assert table.loc[(2, 1), "p"] == 2 / 32
    assert (table["p"] >= 2 / 32).all()
    assert table["dispersion_p"].isna().all()
    assert any("spread is not tested" in note for note in found.notes)
    assert any("out of reach" in note for note in found.notes)
    assert found.to_dict()["seed"] is None


def test_bad_questions(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=2, classes=2))
    with pytest.raises(UserError, match="choose one of class, subject, camera"):
        permanova(store.select(), by="view")
    with pytest.raises(UserError, match="all rows are of camera 1"):
        permanova(store.select(), by="camera")
    with pytest.raises(UserError, match="at least 1 is needed"):
        permanova(store.select(), permutations=0)
    with pytest.raises(UserError, match="at least 2 subjects"):
        permanova(store.select(subject=1))
    with pytest.raises(UserError, match="nothing within the levels"):
        pseudo_f(np.ones((3, 3, 1)), np.arange(3)[None])
    with pytest.raises(UserError, match="one level"):
        pseudo_f(np.ones((3, 3, 1)), np.zeros((1, 3), int))
    with pytest.raises(UserError, match="no numbers"):
        pseudo_f(np.full((3, 3, 1), np.nan), np.array([[0, 1, 1]]))
