"""Class × class similarity: what a loop over cells finds, and SciPy's clustering of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster

from tests.comparison.stores import every, write
from tests.stores import make_store
from tssan_viz import compare_class
from tssan_viz.comparison.class_matrix import class_matrix, class_similarity_matrix, cluster
from tssan_viz.comparison.statistics import Gram
from tssan_viz.errors import UserError


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5))
@settings(deadline=None, max_examples=40)
def test_it_is_the_mean_over_pairs_of_different_subjects(seed: int, s: int, c: int) -> None:
    rng = np.random.default_rng(seed)
    subject, label = np.divmod(np.arange(s * c), c)
    gone = rng.integers(s * c)
    subject, label = np.delete(subject, gone), np.delete(label, gone)
    units = rng.normal(size=(len(subject), 2, 7)).astype(np.float32)
    gram = np.einsum("rhd,chd->rch", units, units)
    found = class_similarity_matrix(Gram(gram, None), subject, label)
    for a in range(c):
        for b in range(c):
            pairs = [
                gram[i, j]
                for i in np.flatnonzero(label == a)
                for j in np.flatnonzero(label == b)
                if subject[i] != subject[j]
            ]
            expected = np.mean(pairs, axis=0) if pairs else np.full(2, np.nan)
            np.testing.assert_allclose(found[:, a, b], expected, atol=1e-5)


def test_it_agrees_with_the_comparison_of_one_class(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=5, planted="put on jacket")
    found = class_matrix(store.select(), layer=2)
    one = compare_class(store, "put on jacket", layer=2, permutations=10)
    at = found.names.index("put on jacket")
    assert found.similarity[at, at] == pytest.approx(one.table["W"].mean(), abs=1e-6)
    for line in one.neighbours.itertuples():
        other = found.names.index(str(line.class_name))
        assert found.similarity[at, other] == pytest.approx(line.similarity, abs=1e-6)
    assert found.per_head.shape == (4, 4, 4)
    assert (
        found.table.set_index("class_name").loc["put on jacket", "nearest"]
        == (one.neighbours["class_name"][0])
    )
    np.testing.assert_allclose(found.similarity, found.similarity.T, atol=1e-12)
    assert sorted(found.order) == [0, 1, 2, 3]
    assert found.to_dict()["per_head"][0]["layer"] == 2


def test_classes_that_are_alike_are_put_together() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(3, 20)), 4, axis=0)
    shuffle = rng.permutation(12)
    vectors = (centres + 0.1 * rng.normal(size=(12, 20)))[shuffle]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tree, order = cluster(vectors @ vectors.T)
    groups = (np.arange(12) // 4)[shuffle]
    clusters = fcluster(tree, 3, "maxclust")
    assert len({(int(a), int(b)) for a, b in zip(groups, clusters, strict=True)}) == 3
    assert (np.diff(groups[order]) != 0).sum() == 2


def test_bad_questions(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=3, classes=3))
    with pytest.raises(UserError, match="at least 2 subjects"):
        class_matrix(store.select(subject=1))
    with pytest.raises(UserError, match="at least 2 classes"):
        class_matrix(store.select(label=1))
    with pytest.raises(UserError, match="unknown metric"):
        class_matrix(store.select(), metric="jsd")
    rows = every(subjects=3, classes=2)
    rows = rows[(rows["subject"] == 1) | (rows["label"] == 0)].reset_index(drop=True)
    lonely = write(tmp_path / "lonely", rows)
    found = class_matrix(lonely.select())
    assert "only one subject has reading" in found.notes[-1]
    assert found.to_dict()["similarity"][1][1] is None
    rows = every(subjects=2, classes=3)
    of_first = (rows["subject"] == 1) & (rows["label"] < 2)
    rows = rows[of_first | ((rows["subject"] == 2) & (rows["label"] == 2))].reset_index(drop=True)
    with pytest.raises(UserError, match="no two subjects have 'put on jacket' and 'reading'"):
        class_matrix(write(tmp_path / "apart", rows).select())
