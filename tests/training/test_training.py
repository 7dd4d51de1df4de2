"""A run from the first epoch to the opened folder: what it may look at, and what it must repeat."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import tssan.training
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tssan.clips import make_clips
from tssan.errors import DataError
from tssan.recipe import TrainingRecipe, load_recipe
from tssan.run_folder import Interrupted
from tssan.sequences import Sequences, hold_out
from tssan.training import TrainedRun, load_run, scores, train

from tests.training.toy import RECIPE


def training(**values) -> TrainingRecipe:
    return replace(RECIPE.training, **values)


def recipe(**values):
    return replace(RECIPE, training=training(**values))


@pytest.fixture(scope="module")
def finished(toys, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return train(RECIPE, toys, tmp_path_factory.mktemp("run") / "run", seed=1, progress=False)


def test_the_run_folder_holds_what_is_promised_and_nothing_else(finished: TrainedRun) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == [
        "checkpoint.safetensors",
        "curves.pdf",
        "curves.png",
        "evaluations.json",
        "metrics.csv",
        "recipe.yaml",
        "results.json",
    ]
    assert load_recipe(finished.path / "recipe.yaml") == RECIPE
    with (finished.path / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3", "4"]
    assert all(float(line["train_loss"]) > 0 for line in lines)
    assert all(0 <= float(line["validation_accuracy"]) <= 1 for line in lines)


def test_a_test_averages_the_probabilities_of_its_crops(finished: TrainedRun, toys) -> None:
    part = Sequences.load(toys, toys.split().test, 2)
    clips = replace(RECIPE.clips, averaged_crops=(0.9, 1.0))
    batch = part.batch(range(len(part)))
    crops = [(0.9, 0.5), (0.9, 0.0), (0.9, 1.0), (1.0, 0.5)]
    with torch.no_grad():
        each = [
            finished.network(*make_clips(batch, clips, train=False, test_crop=crop)[:3]).softmax(1)
            for crop in crops
        ]
    found = scores(finished.network, part, replace(RECIPE, clips=clips))
    torch.testing.assert_close(found.exp(), torch.stack(each).mean(dim=0))


def test_results_say_how_it_was_done(finished: TrainedRun, toys) -> None:
    results = json.loads((finished.path / "results.json").read_text())
    assert results["seed"] == finished.seed == 1
    assert results["protocol"] == finished.protocol == "cross-subject"
    assert results["test_sequences"] == 54
    assert results["train_sequences"] + results["validation_sequences"] == 54
    assert results["test_accuracy"] == results["test_correct"] / 54
    assert results["versions"]["torch"] == torch.__version__
    assert results["versions"].keys() >= {"tssan-viz", "python", "platform", "numpy", "lightning"}
    assert results["fingerprint"] == toys.fingerprint
    assert results["devices"] == 1
    assert results["precision"] == "32"
    assert results["selection"] == "selected on a held-out part of the training subjects"
    assert finished.evaluations == 1
    assert finished.classes == ("rise", "sway", "approach")
    assert finished.dataset_name == "toy"
    assert results["checkpoint_sha256"] == finished.checkpoint_sha256
    assert results["kept_epoch"] in range(1, 5)
    assert results["parameters"] == sum(p.numel() for p in finished.network.parameters())


def test_the_opened_run_gives_the_reported_accuracy(finished: TrainedRun, toys) -> None:
    run = load_run(finished.path)
    assert not run.network.training
    test = toys.split().test
    clips = run.clips(toys, test)
    assert clips.position.shape == (54, 2, 2, 8, 6, 3)
    with torch.no_grad():
        predicted = run.network(clips.position, clips.motion, clips.present).argmax(dim=1)
    correct = (predicted.numpy() == toys.index["label"].to_numpy()[test]).sum()
    assert correct == run.results["test_correct"]
    assert all(
        torch.equal(one, other) for one, other in zip(clips, run.clips(toys, test), strict=True)
    )


def test_same_seed_same_weights_other_seed_other_weights(
    finished: TrainedRun, toys, tmp_path: Path
) -> None:
    again = train(RECIPE, toys, tmp_path / "again", seed=1, progress=False)
    other = train(RECIPE, toys, tmp_path / "other", seed=2, progress=False)
    assert again.checkpoint_sha256 == finished.checkpoint_sha256
    assert other.checkpoint_sha256 != finished.checkpoint_sha256


def test_a_run_learns(toys, tmp_path: Path) -> None:
    run = train(recipe(epochs=25), toys, tmp_path / "run", seed=0, progress=False)
    assert run.results["test_accuracy"] > 0.9
    assert run.results["validation_accuracy"] > 0.9


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, np.ndarray]]:
    """Note which sequences are read, and for what, in the order of events."""
    events: list[tuple[str, np.ndarray]] = []
    load, ask = Sequences.load, scores

    def loading(dataset, indices, persons):
        events.append(("load", np.asarray(indices)))
        return load(dataset, indices, persons)

    def asking(*arguments):
        events.append(("ask", np.array([])))
        return ask(*arguments)

    monkeypatch.setattr(Sequences, "load", loading)
    monkeypatch.setattr(tssan.training, "scores", asking)
    return events


@pytest.mark.parametrize("protocol", ["cross-subject", "cross-view"])
def test_selection_never_sees_the_test_part(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    events = watched(monkeypatch)
    import tssan.loop

    fit, fitted = tssan.loop.fit, []

    def fitting(*arguments, **others):
        result = fit(*arguments, **others)
        fitted.append(len(events))
        return result

    monkeypatch.setattr(tssan.loop, "fit", fitting)
    train(replace(recipe(epochs=1), protocol=protocol), toys, tmp_path / "run", progress=False)
    split = toys.split(protocol)
    before, after = events[: fitted[0]], events[fitted[0] :]
    seen = np.concatenate([indices for what, indices in before if what == "load"])
    assert sorted(seen) == sorted(split.train), "fitted and held out are the training part, once"
    assert not set(seen) & set(split.test)
    assert [what for what, _ in after] == ["load", "ask"], "the test part is measured once"
    assert sorted(after[0][1]) == sorted(split.test)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    cameras=st.integers(1, 3),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_holding_out(sizes: list[int], cameras: int, share: float, seed: int) -> None:
    index = pd.DataFrame(
        [
            {"label": label, "subject": 1 + r % 3, "setup": None, "replication": r, "camera": c}
            for label, size in enumerate(sizes)
            for r in range(size)
            for c in range(cameras)
        ]
    ).astype({"setup": "Int64", "replication": "Int64", "subject": "Int64"})
    train_part = np.arange(len(index))[1:]
    fitted, held_out = hold_out(index, train_part, share, seed)
    assert sorted([*fitted, *held_out]) == list(train_part)
    assert set(index["label"].iloc[fitted]) == set(index["label"].iloc[train_part])
    if min(sizes) > 2:
        assert abs(len(held_out) - share * len(train_part)) <= cameras
    key = ["label", "replication"]
    together = index.iloc[fitted].merge(index.iloc[held_out], on=key)
    assert together.empty, "no performance is on both sides"
    again = hold_out(index, train_part, share, seed)
    assert np.array_equal(again[1], held_out)


def test_holding_out_single_sequences_where_performances_are_not_told_apart() -> None:
    index = pd.DataFrame({"label": [0] * 40, "subject": None, "setup": None, "replication": None})
    assert len(hold_out(index, np.arange(40), 0.25, 0)[1]) == 10


def test_holding_out_is_stratified(toys) -> None:
    _, held_out = hold_out(toys.index, toys.split().train, 0.2, 0)
    assert toys.index["label"].iloc[held_out].value_counts().between(2, 6).all()


class Stop(Exception):
    """What the tests stop a run with."""


def stop_after(epochs: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Let the epoch after `epochs` fail in the middle."""
    import tssan.loop

    step = tssan.loop.Fit.training_step

    def failing(self, places, number):
        if self.current_epoch == epochs and number == 1:
            raise error
        return step(self, places, number)

    monkeypatch.setattr(tssan.loop.Fit, "training_step", failing)


def stopped_run(epochs: int, *arguments, **others) -> None:
    """Leave an unfinished run behind."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(epochs, patch, Stop)
        with pytest.raises(Stop):
            train(*arguments, **others)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"schedule": "plateau", "optimizer": "adam", "plateau_epochs": 1},
        {"keep": "last", "validation": 0.0, "clip_gradient": 0.5},
        {"schedule": "cosine", "warmup_epochs": 3, "validation_subjects": (2,)},
    ],
)
def test_resuming_ends_like_an_uninterrupted_run(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict
) -> None:
    chosen = recipe(**values)
    whole = train(chosen, toys, tmp_path / "whole", seed=3, progress=False)
    stopped_run(2, chosen, toys, tmp_path / "broken", seed=3, progress=False)
    assert not (tmp_path / "broken" / "results.json").exists()
    with pytest.raises(DataError, match=r"unfinished run.*--resume"):
        load_run(tmp_path / "broken")
    with pytest.raises(DataError, match="unfinished run; --resume goes on"):
        train(chosen, toys, tmp_path / "broken", seed=3, progress=False)
    torch.manual_seed(99)  # whatever happened in between
    resumed = train(chosen, toys, tmp_path / "broken", seed=3, progress=False, resume=True)
    assert resumed.checkpoint_sha256 == whole.checkpoint_sha256

    def lines(run: TrainedRun) -> list[dict[str, str]]:
        with (run.path / "metrics.csv").open() as file:
            return [{**line, "seconds": ""} for line in csv.DictReader(file)]

    assert lines(resumed) == lines(whole)
    unlike = {"seconds", "finished"}
    for name in whole.results.keys() - unlike:
        assert resumed.results[name] == whole.results[name]
    assert not (resumed.path / "resume.ckpt").exists()


def test_a_run_stopped_after_its_last_epoch_needs_no_further_training(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainedRun
) -> None:
    def no_space_left(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(tssan.training, "save", no_space_left)
        with pytest.raises(Stop):
            train(RECIPE, toys, tmp_path / "run", seed=1, progress=False)
    run = train(RECIPE, toys, tmp_path / "run", seed=1, progress=False, resume=True)
    assert run.checkpoint_sha256 == finished.checkpoint_sha256


def test_a_run_stopped_in_its_first_epoch_starts_anew(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainedRun
) -> None:
    stopped_run(0, RECIPE, toys, tmp_path / "run", seed=1, progress=False)
    run = train(RECIPE, toys, tmp_path / "run", seed=1, progress=False, resume=True)
    assert run.checkpoint_sha256 == finished.checkpoint_sha256


def test_resuming_as_another_run_is_refused(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(2, RECIPE, toys, tmp_path / "run", seed=3, progress=False)
    with pytest.raises(DataError, match="another seed: 3 there, 4 now"):
        train(RECIPE, toys, tmp_path / "run", seed=4, progress=False, resume=True)
    with pytest.raises(DataError, match=r"training\.batch_size: 16 there, 8 now"):
        train(recipe(batch_size=8), toys, tmp_path / "run", seed=3, progress=False, resume=True)
    other = replace(RECIPE, protocol="cross-view")
    with pytest.raises(DataError, match="protocol: 'cross-subject' there, 'cross-view' now"):
        train(other, toys, tmp_path / "run", seed=3, progress=False, resume=True)


@pytest.mark.parametrize(
    ("which", "accuracies", "expected"),
    [("best", [0.5, 0.8, 0.8, 0.7], 3), ("best", [0, 0, 0, 0], 4), ("last", [1, 0, 0, 0], 4)],
)
def test_which_epoch_is_kept(which: str, accuracies: list[float], expected: int) -> None:
    from types import SimpleNamespace

    from tssan.callbacks import Keep
    from tssan.loop import Fit

    keep, module = Keep(which), Fit.__new__(Fit)
    torch.nn.Module.__init__(module)
    module.network = torch.nn.Linear(1, 1)
    for epoch, accuracy in enumerate(accuracies):
        torch.nn.init.constant_(module.network.weight, epoch + 1)
        metrics = {"validation_accuracy": torch.tensor(accuracy)}
        trainer = SimpleNamespace(callback_metrics=metrics, current_epoch=epoch, max_epochs=4)
        keep.on_train_epoch_end(trainer, module)
    assert keep.epoch == keep.weights["weight"].item() == expected


def test_plateau_is_five_epochs_without_improvement(toys) -> None:
    from tssan.loop import Fit

    chosen = recipe(schedule="plateau", optimizer="adam", plateau_epochs=5, learning_rate=1.0)
    part = Sequences.load(toys, toys.split().train, 2)
    module = Fit(torch.nn.Linear(1, 1), chosen, part, part, seed=0)
    schedule = module.configure_optimizers()["lr_scheduler"]["scheduler"]
    rates = []
    for accuracy in [0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]:
        schedule.step(accuracy)
        rates.append(schedule.get_last_lr()[0])
    assert rates == [1, 1, 1, 1, 1, 1, 0.5], "epochs 3 to 7 are five without a better one"


def test_a_finished_run_is_not_written_over(finished: TrainedRun, toys) -> None:
    before = {path: path.read_bytes() for path in finished.path.iterdir()}
    for resume in (False, True):
        with pytest.raises(DataError, match="finished run already"):
            train(RECIPE, toys, finished.path, progress=False, resume=resume)
    assert {path: path.read_bytes() for path in finished.path.iterdir()} == before


def test_nothing_to_resume(toys, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no unfinished run"):
        train(RECIPE, toys, tmp_path / "run", progress=False, resume=True)


def test_ctrl_c_says_how_to_go_on(toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_after(2, patch, KeyboardInterrupt)
        with pytest.raises(Interrupted) as stop:
            train(RECIPE, toys, tmp_path / "run", progress=False)
    assert "stopped after 2 of 4 epochs" in str(stop.value)
    assert "--resume" in str(stop.value)
    assert signal.getsignal(signal.SIGINT) is handler
    train(RECIPE, toys, tmp_path / "run", progress=False, resume=True)


def test_ctrl_c_outside_the_epochs_is_answered_too(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainedRun
) -> None:
    out = tmp_path / "run"

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tssan.training, "build_network", pressed)
        with pytest.raises(Interrupted, match="before an epoch was finished; nothing is kept"):
            train(RECIPE, toys, out, seed=1, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(tssan.training, "scores", pressed)
        with pytest.raises(Interrupted, match="can be gone on from with --resume"):
            train(RECIPE, toys, out, seed=1, progress=False)
    run = train(RECIPE, toys, out, seed=1, progress=False, resume=True)
    assert run.checkpoint_sha256 == finished.checkpoint_sha256


def test_a_full_disk_is_said_and_costs_an_epoch_at_the_most(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainedRun
) -> None:
    from lightning.pytorch import Trainer

    out, save = tmp_path / "run", Trainer.save_checkpoint

    def half_of_it(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        if trainer.current_epoch == 2:
            os.truncate(path, path.stat().st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", half_of_it)
        with pytest.raises(DataError, match=r"run: No space left on device; .* --resume goes on"):
            train(RECIPE, toys, out, seed=1, progress=False)
    assert {path.name for path in out.iterdir()} == {"metrics.csv", "recipe.yaml", "resume.ckpt"}
    run = train(RECIPE, toys, out, seed=1, progress=False, resume=True)
    assert run.checkpoint_sha256 == finished.checkpoint_sha256


def test_whoever_may_read_the_run_may_read_its_weights(finished: TrainedRun) -> None:
    modes = {path.stat().st_mode for path in finished.path.iterdir() if path.is_file()}
    assert len(modes) == 1


def test_joints_that_the_clips_need_are_missed_before_anything_is_written(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys, "topology", replace(toys.topology, shoulders=None))
    with pytest.raises(DataError, match=r"yaw needs the shoulders.*set clips\.align to none"):
        train(RECIPE, toys, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_resumable_state_is_read_without_executing_it(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(2, RECIPE, toys, tmp_path / "run", seed=3, progress=False)

    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "executed").touch, ())

    state = torch.load(tmp_path / "run" / "resume.ckpt", weights_only=True)
    torch.save(state | {"evil": Evil()}, tmp_path / "run" / "resume.ckpt")
    with pytest.raises(DataError, match=r"resume\.ckpt.*cannot be read"):
        train(RECIPE, toys, tmp_path / "run", seed=3, progress=False, resume=True)
    assert not (tmp_path / "executed").exists()


def test_unknown_protocol_is_refused_before_anything_is_written(toys, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cross-subjekt"):
        train(replace(RECIPE, protocol="cross-subjekt"), toys, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_holding_out_nothing_is_refused(toys, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation: a share of 0\.001 of the 54"):
        train(recipe(validation=0.001), toys, tmp_path / "run", progress=False)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tssan-viz train"):
        load_run(tmp_path)


def test_weights_that_do_not_fit_the_recipe_are_refused(
    finished: TrainedRun, tmp_path: Path
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("width: 16", "width: 32"))
    with pytest.raises(DataError, match="do not fit"):
        load_run(run)
    (run / "recipe.yaml").write_text(text)
    (run / "checkpoint.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"checkpoint\.safetensors"):
        load_run(run)
    (run / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json"):
        load_run(run)
    (run / "results.json").write_text("[]")
    with pytest.raises(DataError, match=r"results\.json: expected a JSON object, found list"):
        load_run(run)


def test_clips_of_another_skeleton_are_refused(finished: TrainedRun, toys, tmp_path: Path) -> None:
    other = TrainedRun(
        finished.path,
        finished.recipe,
        finished.network,
        finished.results | {"topology": "kinect-v2-25"},
    )
    with pytest.raises(DataError, match=r"kinect-v2-25.*toy-6"):
        other.clips(toys, [0])


def test_training_says_nothing_but_its_bar(
    toys, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(recipe(epochs=1), toys, tmp_path / "quiet", progress=False)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    train(recipe(epochs=1), toys, tmp_path / "loud", progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "1/1" in captured.err
    assert "loss" in captured.err


def test_nothing_is_left_in_the_working_folder(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(recipe(epochs=1), toys, tmp_path / "run", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_opening_a_run_imports_no_lightning(finished: TrainedRun) -> None:
    code = (
        "import sys; from tssan.training import load_run; load_run(sys.argv[1]); "
        "print('lightning' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_weights_file_is_plain_safetensors(finished: TrainedRun) -> None:
    weights = load_file(finished.path / "checkpoint.safetensors")
    assert weights.keys() == finished.network.state_dict().keys()


def test_global_random_state_does_not_matter(finished: TrainedRun, toys, tmp_path: Path) -> None:
    torch.manual_seed(123)
    torch.rand(7)
    np.random.seed(5)  # noqa: NPY002
    run = train(RECIPE, toys, tmp_path / "run", seed=1, progress=False)
    assert run.checkpoint_sha256 == finished.checkpoint_sha256


def test_a_real_ctrl_c_leaves_a_resumable_run(toys, tmp_path: Path) -> None:
    """Not an exception thrown by a test but the signal itself, in the middle of an epoch."""

    def press() -> None:
        while not (tmp_path / "run" / "resume.ckpt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted):
        train(recipe(epochs=500), toys, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "resume.ckpt").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_two_trainings_do_not_write_into_one_folder(toys, tmp_path: Path) -> None:
    from tssan.run_folder import only_writer

    out = tmp_path / "run"
    out.mkdir()
    with only_writer(out), pytest.raises(DataError, match="written by another training"):
        train(RECIPE, toys, out, progress=False)
    with only_writer(out):  # the lock is free again, also after the refusal
        pass
