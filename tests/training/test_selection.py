"""What a run may look at to choose its epoch, and how it says so."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader
from tssan.errors import DataError
from tssan.evaluation import evaluate
from tssan.run_folder import read_evaluations
from tssan.sequences import Sequences, divide
from tssan.training import load_run, train

from tests.training.toy import RECIPE

PAPER = "selected on the test part, as the paper's protocol does"


def recipe(**values):
    return replace(RECIPE, training=replace(RECIPE.training, **values))


def selections(path: Path) -> set[str]:
    with (path / "metrics.csv").open() as file:
        return {line["selection"] for line in csv.DictReader(file)}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Note which sequences are read."""
    load, positions = Sequences.load, []

    def loading(dataset, indices, persons):
        positions.append(np.asarray(indices))
        return load(dataset, indices, persons)

    monkeypatch.setattr(Sequences, "load", loading)
    return positions


def test_whole_subjects_are_held_out(toys, tmp_path: Path) -> None:
    run = train(recipe(epochs=2, validation_subjects=(2,)), toys, tmp_path / "run", progress=False)
    split = toys.split()
    fitted, held_out = divide(run.recipe.training, toys.index, split.train, split.test, seed=0)
    subject = toys.index["subject"]
    assert set(subject.iloc[fitted]) == {1, 3}
    assert set(subject.iloc[held_out]) == {2}
    assert sorted([*fitted, *held_out]) == split.train.tolist()
    assert run.results["validation_sequences"] == len(held_out) == 18
    assert run.results["selection"] == "selected on held-out training subjects: 2"
    assert selections(run.path) == {run.results["selection"]}
    seen = evaluate(run, toys, "validation", progress=False)
    assert set(seen.predictions["subject"]) == {2}
    assert seen.top1 == pytest.approx(run.results["validation_accuracy"])


@pytest.mark.parametrize(
    ("subjects", "says"),
    [
        ((4,), r"4 is not in the training part; it has 1, 2, 3"),
        ((1, 2, 3), r"all subjects of the training part are held out"),
    ],
)
def test_who_cannot_be_held_out(toys, tmp_path: Path, subjects, says: str) -> None:
    with pytest.raises(DataError, match=says):
        train(recipe(validation_subjects=subjects), toys, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_papers_protocol_is_labelled_wherever_its_number_appears(toys, tmp_path: Path) -> None:
    chosen = recipe(epochs=3, schedule="plateau", select_on="test")
    run = train(chosen, toys, tmp_path / "run", progress=False)
    assert run.results["selection"] == PAPER
    assert run.results["selected_on"] == "test"
    assert selections(run.path) == {PAPER}
    assert run.results["train_sequences"] == 54, "nothing is held out"
    assert run.results["test_accuracy"] == pytest.approx(run.results["validation_accuracy"])
    looks = [(entry["by"], entry["times"]) for entry in read_evaluations(run.path)]
    assert looks == [("selection", 3), ("train", 1)]
    assert run.evaluations == 4
    (page,) = PdfReader(run.path / "curves.pdf").pages
    assert PAPER in page.extract_text()
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    assert all(font["/Subtype"] != "/Type3" for font in fonts), "journals refuse Type 3"
    evaluation = evaluate(run, toys, progress=False)
    assert evaluation.summary()["selection"] == PAPER
    assert evaluation.test_evaluations == 5
    with pytest.raises(DataError, match=f"no validation part: it was {PAPER}"):
        evaluate(run, toys, "validation", progress=False)


def test_a_development_run_never_reads_the_test_part(
    toys, tmp_path: Path, loaded: list[np.ndarray]
) -> None:
    run = train(recipe(epochs=1), toys, tmp_path / "run", progress=False, test=False)
    assert set(np.concatenate(loaded)) == set(toys.split().train)
    assert run.results["test_evaluated"] is False
    assert run.results["test_accuracy"] is None
    assert run.evaluations == 0
    assert load_run(run.path).clips(toys, [0]).position.shape[0] == 1
    with pytest.raises(DataError, match="give one of them up"):
        train(recipe(select_on="test"), toys, tmp_path / "other", progress=False, test=False)


def test_a_run_that_selects_by_nothing_says_so(toys, tmp_path: Path) -> None:
    run = train(recipe(epochs=1, keep="last"), toys, tmp_path / "run", progress=False)
    assert run.results["selection"] == "nothing selected: the last epoch is kept"
    assert run.results["validation_accuracy"] is not None, "it is watched all the same"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"select_on": "train"}, "select_on: 'train' does not exist"),
        ({"select_on": "test", "validation_subjects": (1,)}, "holds nobody out"),
        ({"schedule": "plateau", "warmup_epochs": 1}, r"warmup_epochs: 1 does not go with"),
        ({"schedule": "cosine", "warmup_epochs": 4}, "leaves nothing of 4 epochs"),
        ({"validation": 0.0}, "holds nothing out"),
    ],
)
def test_what_does_not_fit_together_is_refused(values: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        recipe(**values)


def test_held_out_subjects_do_without_a_share() -> None:
    assert recipe(validation=0.0, validation_subjects=(1,)).training.keep == "best"
