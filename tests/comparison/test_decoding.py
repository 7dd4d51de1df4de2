"""Decodability: scikit-learn's accuracies, chance from permuted labels, planted heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from tests.comparison.stores import every, write
from tests.stores import make_store
from tssan_viz.comparison.decoding import decodability, decode_left_out
from tssan_viz.comparison.label_permutation import permuted_within
from tssan_viz.errors import UserError


def cells(seed: int, s: int, c: int, drop: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (r, h, d) that carry something of class and subject, and both."""
    rng = np.random.default_rng(seed)
    subject, label = np.divmod(np.arange(s * c), c)
    keep = np.sort(rng.permutation(s * c)[drop:])
    subject, label = subject[keep], label[keep]
    vectors = rng.normal(size=(len(keep), 2, 6))
    vectors += 0.7 * rng.normal(size=(c, 2, 6))[label] + 0.7 * rng.normal(size=(s, 2, 6))[subject]
    return vectors, label, subject


@given(st.integers(0, 10_000), st.integers(0, 4))
@settings(deadline=None, max_examples=12)
def test_accuracies_are_those_of_scikit_learn(seed: int, drop: int) -> None:
    vectors, label, subject = cells(seed, 5, 4, drop)
    gram = np.einsum("rhd,chd->rch", vectors, vectors)
    for method, model in (
        ("nearest mean", NearestCentroid()),
        ("nearest neighbour", KNeighborsClassifier(1)),
    ):
        for target, group in ((label, subject), (subject, label)):
            found = decode_left_out(gram, target, group, method=method, permutations=3, seed=1)
            # The same permuted labels, so that each line can be compared.
            for line, labels in zip(
                found, permuted_within(target, group, 3, 1).labels, strict=True
            ):
                for head in range(2):
                    guess = cross_val_predict(
                        model, vectors[:, head], labels, groups=group, cv=LeaveOneGroupOut()
                    )
                    assert line[head] == pytest.approx((guess == labels).mean())


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=4)
def test_logistic_decoding_is_scikit_learns_on_the_vectors(seed: int) -> None:
    vectors, label, subject = cells(seed, 5, 4)
    gram = np.einsum("rhd,chd->rch", vectors, vectors)
    found = decode_left_out(gram, label, subject, method="logistic", permutations=1, seed=1)
    for line, labels in zip(found, permuted_within(label, subject, 1, 1).labels, strict=True):
        for head in range(2):
            right = 0
            for s in range(5):
                own = vectors[subject != s, head]
                mean, spread = own.mean(axis=0), np.sqrt(own.var(axis=0).mean())
                model = LogisticRegression(max_iter=1000, tol=1e-3)
                model.fit((own - mean) / spread, labels[subject != s])
                guess = model.predict((vectors[subject == s, head] - mean) / spread)
                right += (guess == labels[subject == s]).sum()
            # The solver stops near the optimum, not in it: one cell in twenty may be on the line.
            assert line[head] == pytest.approx(right / 20, abs=1 / 20 + 1e-9)


def test_labels_are_permuted_within_groups_only() -> None:
    _, label, subject = cells(0, 6, 5, 3)
    made = permuted_within(label, subject, 50, 0)
    drawn = made.labels
    assert (made.enumerated, made.n_drawn, made.smallest_p) == (False, 50, 1 / 51)
    assert (drawn[0] == label).all()
    assert (drawn[1:] != label).any()
    for s in np.unique(subject):
        mine = subject == s
        assert (np.sort(drawn[:, mine], axis=1) == np.sort(label[mine])).all()


def test_few_permutations_are_all_gone_through() -> None:
    """Two classes of 5 subjects are sign flips: 2/2⁵, as exchanging both everywhere changes nil."""
    vectors, label, subject = cells(0, 5, 2)
    made = permuted_within(label, subject, 100, 0)
    assert (made.enumerated, made.n_drawn, made.smallest_p) == (True, 31, 2 / 32)
    assert len(np.unique(made.labels, axis=0)) == 32
    assert (made.labels[0] == label).all()
    gram = np.einsum("rhd,chd->rch", vectors, vectors)
    apart = vectors + 100 * label[:, None, None]
    perfect = decode_left_out(np.einsum("rhd,chd->rch", apart, apart), label, subject)
    assert (perfect >= perfect[0]).mean(axis=0).tolist() == [2 / 32, 2 / 32]
    swapped = decode_left_out(gram, label, subject)
    assert np.allclose(np.sort(swapped, axis=0)[::2], np.sort(swapped, axis=0)[1::2])
    holes = permuted_within(label[1:], subject[1:], 100, 0)
    assert (holes.n_drawn, holes.smallest_p) == (15, 1 / 16)
    alone = permuted_within(np.arange(3), np.arange(3), 100, 0)
    assert (alone.n_drawn, alone.smallest_p) == (0, 1)
    many = permuted_within(*cells(0, 3, 4)[1:], 1000, 0)
    assert (many.enumerated, many.smallest_p) == (False, 24 / 24**3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nearest mean", "nearest neighbour"])
def test_it_rejects_as_often_as_it_says_when_there_is_nothing(method: str) -> None:
    """1,000 data sets with strong subject effects and without classes."""
    rejected = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        subject, label = np.divmod(np.arange(40), 5)
        vectors = rng.normal(size=(40, 1, 6)) + 2 * rng.normal(size=(8, 1, 6))[subject]
        gram = np.einsum("rhd,chd->rch", vectors, vectors)
        found = decode_left_out(gram, label, subject, method=method, permutations=99, seed=seed)
        rejected.append((found[:, 0] >= found[0, 0]).mean() <= 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.07


def test_a_planted_class_is_read_and_chance_is_not(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=6, planted="put on jacket")
    found = decodability(store.select(), permutations=200)
    table = found.table.set_index(["layer", "head"])
    # Every subject has a manner in every head, which is what the maps are made of.
    assert (table["subject_accuracy"] > 0.9).all()
    assert (table["subject_p_max_t"] <= 0.05).all()
    assert table["class_accuracy"].idxmax() == (2, 1)
    assert (table["class_p_max_t"] <= 0.05).sum() <= 1
    assert table["class_chance"].between(0.15, 0.35).all()
    assert table["subject_chance"].between(0.1, 0.25).all()
    assert found.smallest_p == pytest.approx(1 / 201)
    two = decodability(
        store.select(class_name=["reading", "hand waving"], subject=[1, 2, 3]), permutations=200
    )
    assert (two.n_permutations, two.smallest_p) == (7, 2 / 8)
    assert (two.subject_permutations, two.subject_smallest_p) == (35, 6 / 36)
    assert any("the class is 0.25" in note for note in two.notes)
    fitted = decodability(store.select(layer=2, head=1), method="logistic", permutations=2)
    assert fitted.table["class_accuracy"].iloc[0] > 0.35
    assert fitted.method == "logistic"
    again = decodability(store.select(), permutations=200)
    assert again.table.equals(found.table)
    assert found.to_dict()["n_subjects"] == 6


def test_cells_without_a_common_segment_are_left_out(tmp_path: Path) -> None:
    rows = every(subjects=3, classes=3, segments=2)
    one = (rows["subject"] == 1) & (rows["label"] == 0)
    gone = (one & (rows["segment"] == 1)) | (~one & (rows["segment"] == 2))
    store = write(tmp_path / "store", rows[~gone].reset_index(drop=True))
    found = decodability(store.select(), permutations=20)
    assert any("1 cells share no segment" in note for note in found.notes)
    assert found.table["class_accuracy"].notna().all()


def test_bad_questions(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=2, classes=2))
    with pytest.raises(UserError, match="at least 2 subjects"):
        decodability(store.select(subject=1))
    with pytest.raises(UserError, match="choose one of nearest mean"):
        decodability(store.select(), method="svm")
    with pytest.raises(UserError, match="at least 1 is needed"):
        decodability(store.select(), permutations=0)
    gram = np.full((4, 4, 1), np.nan)
    labels = np.array([0, 1, 0, 1])
    with pytest.raises(UserError, match="no numbers"):
        decode_left_out(gram, labels, np.array([0, 0, 1, 1]))
    with pytest.raises(UserError, match="two groups"):
        decode_left_out(np.ones((4, 4, 1)), labels, np.zeros(4, int))
