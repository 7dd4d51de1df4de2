"""Evaluation: against scikit-learn, and intervals that hold what 95 % promises."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from tssan.errors import DataError
from tssan.evaluation import (
    FEW_SUBJECTS,
    Interval,
    accuracy_interval,
    confusion,
    evaluate,
    tabulate,
)
from tssan.run_folder import read_evaluations
from tssan.skeletons.classes import ActionClass
from tssan.training import TrainedRun, load_run, train

from tests.training.toy import RECIPE

CLASSES = 8


def many_classes(labels: list[int]) -> SimpleNamespace:
    """What `tabulate` reads of a data set."""
    classes = tuple(ActionClass(i, f"class {i}", f"A{i:03d}") for i in range(CLASSES))
    index = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(len(labels))],
            "label": labels,
            "class_name": [f"class {label}" for label in labels],
            "subject": [i % 3 for i in range(len(labels))],
            "camera": 1,
        }
    )
    return SimpleNamespace(classes=classes, index=index)


@given(
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=60), seed=st.integers(0, 9)
)
@settings(max_examples=50, deadline=None)
def test_predictions_agree_with_scikit_learn(labels: list[int], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(len(labels), CLASSES)).astype(np.float32)
    table = tabulate(logits, many_classes(labels), np.arange(len(labels)))
    every = np.arange(CLASSES)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(labels, logits, k=k, labels=every)
        assert (table["rank"] <= k).mean() == pytest.approx(expected)
    assert (table["correct"] == (table["rank"] == 1)).all()
    assert np.array_equal(
        confusion(table["label"].to_numpy(), table["predicted"].to_numpy(), CLASSES),
        confusion_matrix(labels, logits.argmax(axis=1), labels=every),
    )
    expected = torch.as_tensor(logits).softmax(dim=1).amax(dim=1).numpy()
    np.testing.assert_allclose(table["confidence"], expected, rtol=1e-5)


def test_a_network_that_says_the_same_of_everything_is_not_right_about_everything() -> None:
    table = tabulate(np.zeros((8, CLASSES), np.float32), many_classes(list(range(8))), np.arange(8))
    assert table["rank"].tolist() == list(range(1, 9))
    assert table["correct"].sum() == 1


def people(accuracies: np.ndarray, videos: int, rng: np.random.Generator):
    subject = np.repeat(np.arange(len(accuracies)), videos)
    return pd.Series(rng.random(len(subject)) < accuracies[subject]), pd.Series(subject)


@pytest.mark.parametrize(("subjects", "least"), [(4, 0.90), (20, 0.88)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(subjects: int, least: float) -> None:
    """People differ; an interval over videos would cover their mean half of the time only."""
    rng = np.random.default_rng(0)
    truth = 0.8  # the mean of Beta(8, 2)
    covered, naive, rounds = 0, 0, 300
    for _ in range(rounds):
        correct, subject = people(rng.beta(8, 2, size=subjects), 100, rng)
        interval = accuracy_interval(correct, subject, draws=400)
        assert isinstance(interval, Interval)
        covered += interval.low <= truth <= interval.high
        half = 1.96 * np.sqrt(correct.mean() * (1 - correct.mean()) / len(correct))
        naive += abs(correct.mean() - truth) <= half
    assert least <= covered / rounds <= 0.99
    assert naive / rounds < 0.6


def test_few_subjects_get_students_t_and_are_told_so() -> None:
    right = pd.Series([1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1])
    interval = accuracy_interval(right.astype(bool), pd.Series(np.repeat([1, 2, 3], 4)))
    assert isinstance(interval, Interval)
    assert not interval.reliable
    assert (interval.units, interval.unit) == (3, "subject")
    assert "too few" in interval.method
    # Of equally many videos each, the ratio's interval is that of the subjects' mean.
    low, high = stats.t.interval(0.95, 2, loc=0.75, scale=stats.sem([0.75, 0.5, 1.0]))
    assert interval.low == pytest.approx(low)
    assert interval.high == 1.0 < high


def test_many_subjects_are_drawn_whole() -> None:
    rng = np.random.default_rng(1)
    correct, subject = people(rng.beta(8, 2, size=25), 40, rng)
    interval = accuracy_interval(correct, subject)
    assert isinstance(interval, Interval)
    assert interval.reliable
    assert interval.method == "bootstrap over 25 subjects"
    shares = correct.groupby(subject).mean().to_numpy()
    expected = stats.bootstrap((shares,), np.mean, method="percentile", rng=rng)
    assert interval.low == pytest.approx(expected.confidence_interval.low, abs=0.004)
    assert interval.high == pytest.approx(expected.confidence_interval.high, abs=0.004)
    assert interval == accuracy_interval(correct, subject), "the same every time"


def test_where_no_interval_can_be_given_the_reason_is() -> None:
    right = pd.Series([True, False, True])
    assert "one subject" in str(accuracy_interval(right, pd.Series([7, 7, 7])))
    assert "same accuracy" in str(accuracy_interval(right | True, pd.Series([1, 2, 3])))


def test_videos_of_unknown_people_are_units_that_are_no_people() -> None:
    right = pd.Series([True] * 300 + [False] * 100)
    interval = accuracy_interval(right, pd.Series([pd.NA] * 400, dtype="Int64"))
    assert isinstance(interval, Interval)
    assert not interval.reliable
    assert (interval.units, interval.unit) == (400, "video")
    assert "too narrow if people recur" in interval.method
    exact = stats.binomtest(300, 400).proportion_ci(method="wilson")
    assert interval.low == pytest.approx(exact.low, abs=0.01)
    assert interval.high == pytest.approx(exact.high, abs=0.01)


@pytest.fixture(scope="module")
def trained(toys, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(RECIPE, toys, out, seed=1, progress=False)


@pytest.fixture
def run(trained: TrainedRun, tmp_path: Path) -> TrainedRun:
    """A run of one's own: looks at its test part are written into it."""
    return load_run(shutil.copytree(trained.path, tmp_path / "run"))


def test_evaluating_says_what_training_said_and_counts_the_looks(
    run: TrainedRun, toys, tmp_path: Path
) -> None:
    assert run.evaluations == 1
    evaluation = evaluate(run, toys, progress=False)
    assert evaluation.top1 == run.results["test_accuracy"]
    assert evaluation.top5 is None, "three classes have no five"
    assert run.evaluations == evaluation.test_evaluations == 2
    assert [entry["by"] for entry in read_evaluations(run.path)] == ["train", "evaluate"]
    assert evaluation.confusion.sum() == 54
    assert evaluation.per_class["correct"].sum() == run.results["test_correct"]
    assert set(evaluation.predictions["subject"]) == {4, 5, 6}
    if evaluation.interval is not None:
        assert evaluation.interval.units == 3 < FEW_SUBJECTS

    held_out = evaluate(run, toys, "validation", progress=False)
    assert held_out.top1 == pytest.approx(run.results["validation_accuracy"])
    fitted = evaluate(run, toys, "train", progress=False)
    assert len(fitted.predictions) == run.results["train_sequences"]
    both = {*fitted.predictions["sample"], *held_out.predictions["sample"]}
    assert both == set(toys.index["sample"].iloc[toys.split().train])
    assert load_run(run.path).evaluations == 2, "only the test part is counted"


def test_what_is_written_can_be_read(run: TrainedRun, toys, tmp_path: Path) -> None:
    evaluation = evaluate(run, toys, progress=False)
    files = evaluation.write(tmp_path / "evaluation")
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == sorted(
        path.name for path in files
    )
    summary = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert summary["top1"] == evaluation.top1
    predictions = pd.read_csv(tmp_path / "evaluation/predictions.csv")
    assert predictions["correct"].sum() == summary["correct"]
    matrix = pd.read_csv(tmp_path / "evaluation/confusion.csv", index_col="true")
    assert np.array_equal(matrix.to_numpy(), evaluation.confusion)
    assert matrix.columns.tolist() == ["rise", "sway", "approach"]
    assert (tmp_path / "evaluation/confusion.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "evaluation/confusion.png").read_bytes().startswith(b"\x89PNG")


def test_another_data_set_is_refused(run: TrainedRun, toys) -> None:
    other = SimpleNamespace(name="tog", topology=toys.topology, classes=toys.classes)
    with pytest.raises(DataError, match=r"trained on toy.*given is tog"):
        evaluate(run, other, progress=False)  # type: ignore[arg-type]
    other = SimpleNamespace(name="toy", topology=toys.topology, classes=toys.classes[:2])
    with pytest.raises(DataError, match="tells 3 classes apart"):
        evaluate(run, other, progress=False)  # type: ignore[arg-type]
    assert run.evaluations == 1


def test_data_that_were_changed_are_told(run: TrainedRun, toys) -> None:
    assert evaluate(run, toys, progress=False).same_data
    before = TrainedRun(run.path, run.recipe, run.network, run.results | {"fingerprint": "0"})
    assert not evaluate(before, toys, progress=False).same_data
    with pytest.raises(DataError, match="trained on other data than"):
        evaluate(before, toys, "train", progress=False)


def test_a_part_that_is_not_there_is_refused(toys, tmp_path: Path) -> None:
    chosen = replace(
        RECIPE, training=replace(RECIPE.training, epochs=1, validation=0.0, keep="last")
    )
    run = train(chosen, toys, tmp_path / "run", progress=False, test=False)
    with pytest.raises(DataError, match="holds nothing out"):
        evaluate(run, toys, "validation", progress=False)
