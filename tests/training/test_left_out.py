"""Leaving out one training subject at a time, as the recipes' choices were made."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tssan.errors import DataError
from tssan.recipe import load_recipe, override

from tests.training import toy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ONE_EPOCH = replace(
    toy.RECIPE, protocol="cross-subject", training=replace(toy.RECIPE.training, epochs=1)
)


def load(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_training_subject_is_left_out_once_and_no_test_subject_is_read(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("leave_one_subject_out", monkeypatch)
    first = module.left_out_accuracies(ONE_EPOCH, toys, tmp_path, seed=0, precision="32")
    assert set(first) == {1, 2, 3}
    for subject, accuracy in first.items():
        folder = tmp_path / f"without-{subject}-seed-0"
        results = json.loads((folder / "results.json").read_text())
        assert results["test_accuracy"] is None
        assert results["validation_accuracy"] == accuracy
        theirs = int((toys.index["subject"] == subject).sum())
        assert results["validation_sequences"] == theirs
        assert load_recipe(folder / "recipe.yaml").training.keep == "last"

    # What is there is read, not trained again; of another recipe nothing is read.
    monkeypatch.setattr(module, "train", None)
    assert module.left_out_accuracies(ONE_EPOCH, toys, tmp_path, seed=0, precision="32") == first
    other = override(ONE_EPOCH, ["network.width=32"])
    with pytest.raises(DataError, match="another recipe"):
        module.left_out_accuracies(other, toys, tmp_path, seed=0, precision="32")
    with pytest.raises(DataError, match="a run with --precision 32, and this is one with bf16"):
        module.left_out_accuracies(ONE_EPOCH, toys, tmp_path, seed=0, precision="bf16")


def test_only_subjects_can_be_left_out(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("leave_one_subject_out", monkeypatch)
    with pytest.raises(DataError, match="cross-view divides by camera"):
        module.left_out_accuracies(
            replace(ONE_EPOCH, protocol="cross-view"), toys, tmp_path, seed=0, precision="32"
        )


def test_orderings_compare_networks_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("orderings", monkeypatch)
    small = override(load_recipe("utd-mhad"), module.SMALL)
    recipes = [override(small, settings) for settings, _ in module.NETWORKS.values()]
    assert all(one != other for i, one in enumerate(recipes) for other in recipes[:i])
    assert {name for _, *pair in module.ORDERINGS for name in pair} == set(module.NETWORKS)
