"""The loop's own parts: schedules, mixed precision, losses that are lost, several processes."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tssan.building import build_network
from tssan.clips import make_clips, mix
from tssan.errors import DataError
from tssan.loop import Fit, Order, learning_rate_share
from tssan.ranks import Rank, check_devices
from tssan.sequences import Sequences
from tssan.training import TrainedRun, load_run, train

from tests.training.toy import RECIPE


def recipe(network: dict | None = None, **training):
    return replace(
        RECIPE,
        network=replace(RECIPE.network, **(network or {})),
        training=replace(RECIPE.training, **training),
    )


def curve(run: TrainedRun, column: str) -> np.ndarray:
    with (run.path / "metrics.csv").open() as file:
        return np.array([float(line[column]) for line in csv.DictReader(file)])


def rates(chosen, toys) -> list[float]:
    """The learning rates of all steps."""
    part = Sequences.load(toys, toys.split().train, 2)
    module = Fit(torch.nn.Linear(1, 1), chosen, part, part, seed=0)
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(chosen.training.epochs * len(module.order)):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_the_cosine_and_its_warm_up_are_pytorchs_own(toys) -> None:
    chosen = recipe(schedule="cosine", warmup_epochs=2, epochs=10, learning_rate=1.0)
    warm, total = 2 * 4, 10 * 4  # 54 sequences in batches of 16
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedules = torch.optim.lr_scheduler
    theirs = schedules.SequentialLR(
        other,
        [
            schedules.LinearLR(other, 1 / warm, 1.0, total_iters=warm - 1),
            schedules.CosineAnnealingLR(other, T_max=total - warm),
        ],
        milestones=[warm],
    )
    expected = []
    for _ in range(total):
        expected.append(other.param_groups[0]["lr"])
        other.step()
        theirs.step()
    assert rates(chosen, toys) == pytest.approx(expected)


def test_a_constant_rate_may_be_warmed_up() -> None:
    share = [learning_rate_share(s, warmup=4, total=8, falls=False) for s in range(8)]
    assert share == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert learning_rate_share(0, warmup=0, total=8, falls=True) == 1.0
    assert learning_rate_share(8, warmup=0, total=8, falls=True) == pytest.approx(0.0)


def test_mixed_precision_learns_the_same_to_rounding(toys, tmp_path: Path) -> None:
    whole = train(RECIPE, toys, tmp_path / "32", progress=False)
    mixed = train(RECIPE, toys, tmp_path / "bf16", progress=False, precision="bf16")
    assert mixed.results["precision"] == "bf16"
    assert mixed.checkpoint_sha256 != whole.checkpoint_sha256
    assert curve(mixed, "train_loss") == pytest.approx(curve(whole, "train_loss"), rel=0.1)
    assert all(p.dtype == torch.float32 for p in mixed.network.parameters())


class Stop(Exception):
    """What the tests stop a run with."""


def spoil(monkeypatch: pytest.MonkeyPatch, *, epoch: int, step: int) -> None:
    """Make one loss infinite times zero."""
    look = Fit._look

    def spoiled(self, clips, labels, **given):
        loss, right = look(self, clips, labels, **given)
        number = self.trainer.fit_loop.epoch_loop.batch_idx
        if self.training and (self.current_epoch, number) == (epoch, step):
            loss = loss * math.nan
        return loss, right

    monkeypatch.setattr(Fit, "_look", spoiled)


def test_a_lost_loss_stops_the_run_and_keeps_what_was_good(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    spoil(monkeypatch, epoch=2, step=1)
    with pytest.raises(DataError) as stop:
        train(recipe(schedule="constant"), toys, out, progress=False)
    said = str(stop.value)
    assert "no finite number any more in epoch 3, step 2 of 3" in said
    assert "the state after epoch 2 is kept" in said
    assert "learning_rate than 0.003" in said
    assert "clip_gradient" in said
    assert "warmup_epochs" in said
    state = torch.load(out / "resume.ckpt", weights_only=True)
    assert state["epoch"] == 1, "counted from 0"
    assert all(x.isfinite().all() for x in state["callbacks"]["Keep"]["weights"].values())
    assert not (out / "results.json").exists()


def test_weights_lost_in_the_last_step_of_an_epoch_are_seen_in_validation(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Fit._look

    def spoiled(self, clips, labels, **given):
        loss, right = look(self, clips, labels, **given)
        return (loss if self.training else loss * math.nan), right

    monkeypatch.setattr(Fit, "_look", spoiled)
    with pytest.raises(DataError, match="epoch 1, step 3 of 3; no epoch was finished"):
        train(RECIPE, toys, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "resume.ckpt").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, "32", 16), "give at least 1"),
        ((2, "32", 1), "a batch of 1 sequences has no share for each of 2"),
        ((1, "16", 16), "precision '16' does not exist; there are 32, bf16, fp16"),
    ],
)
def test_devices_that_cannot_be(arguments, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_devices(*arguments)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DataError, match="fp16 needs a GPU"):
        check_devices(1, "fp16", 16)
    check_devices(2, "bf16", 16)
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_available", lambda: False)
        check_devices(1, "32", 16)
        with pytest.raises(DataError, match=r"torch\.distributed, which this PyTorch was"):
            check_devices(2, "32", 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DataError, match="this machine has 1 GPUs"):
        check_devices(2, "32", 16)


@pytest.mark.parametrize(("size", "ranks"), [(16, 2), (7, 3), (2, 4)])
def test_ranks_divide_a_batch_without_overlap(toys, size: int, ranks: int) -> None:
    part = Sequences.load(toys, toys.split().train, 2)
    shares = [
        Fit(torch.nn.Linear(1, 1), RECIPE, part, part, 0, Rank(r, ranks))._share(size).tolist()
        for r in range(ranks)
    ]
    assert sorted(place for share in shares[:size] for place in share) == list(range(size))
    assert all(share == [0] for share in shares[size:]), "a stand-in, with weight 0"


def test_the_order_of_an_epoch_hangs_on_seed_and_epoch_alone(toys) -> None:
    part = Sequences.load(toys, toys.split().train, 2)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        order = Order(part, 16, seed)
        order.epoch = epoch
        return [places.tolist() for places in order]

    assert batches(1, 3) == batches(1, 3)
    assert batches(1, 3) != batches(1, 4)
    assert batches(1, 3) != batches(2, 3)
    assert sorted(place for batch in batches(1, 3) for place in batch) == list(range(54))


def test_mixed_clips_have_the_loss_of_mixed_targets(toys) -> None:
    part = Sequences.load(toys, toys.split().train, 2)
    module = Fit(
        build_network(RECIPE, joints=6, coordinates=3, classes=3).eval(),
        recipe(mixup=0.4, label_smoothing=0.1),
        part,
        part,
        seed=0,
    )
    places = torch.arange(8)
    mate, share = module._mixture(8)
    assert sorted(mate.tolist()) == list(range(8))
    assert 0 < share < 1
    clips = make_clips(part.batch(places.tolist()), RECIPE.clips, train=False)
    mixed = mix(clips, mate, share)
    loss, _ = module._look(
        mixed, part.labels[places], smoothing=0.1, mixture=(part.labels[mate], share)
    )
    targets = torch.nn.functional.one_hot(part.labels[places], 3).float()
    expected = torch.nn.functional.cross_entropy(
        module.network(
            share * clips.position + (1 - share) * clips.position[mate],
            share * clips.motion + (1 - share) * clips.motion[mate],
            clips.present | clips.present[mate],
        ),
        share * targets + (1 - share) * targets[mate],
        label_smoothing=0.1,
    )
    torch.testing.assert_close(loss, expected)


WITHOUT_DROPOUT = {"dropout": 0.0, "encoder_dropout": 0.0, "classifier_dropout": 0.0}


def test_two_processes_train_like_one_with_the_same_batches(toys, tmp_path: Path) -> None:
    """Losses agree to 0.1 %: sums are taken in another order, and Adam divides by small numbers.

    43 of 44 sequences make the first batch, so that one process has nothing of the last. Dropout is
    drawn by every process for itself and is left out here.
    """
    chosen = recipe(WITHOUT_DROPOUT, batch_size=43, clip_gradient=0.5, mixup=0.4)
    one = train(chosen, toys, tmp_path / "one", seed=1, progress=False)
    threads = torch.get_num_threads()
    two = train(chosen, toys, tmp_path / "two", seed=1, progress=False, devices=2)
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    for column in ("train_loss", "validation_loss"):
        assert curve(two, column) == pytest.approx(curve(one, column), rel=1e-3)
    assert curve(two, "learning_rate").tolist() == curve(one, "learning_rate").tolist()
    # Where two classes are all but equally likely, one sequence may fall on the other side.
    assert curve(two, "train_accuracy") == pytest.approx(curve(one, "train_accuracy"), abs=1.5 / 44)
    assert len(curve(two, "epoch")) == 4, "one process writes"
    for name, weights in one.network.state_dict().items():
        torch.testing.assert_close(
            two.network.state_dict()[name], weights, rtol=1e-2, atol=1e-3, msg=name
        )
    assert two.results["devices"] == 2
    assert two.results["device"] == "2 CPU processes"
    assert sorted(p.name for p in two.path.iterdir()) == sorted(p.name for p in one.path.iterdir())


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_stopped(
    toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: what each process draws hangs on seed, epoch and rank."""
    whole = train(RECIPE, toys, tmp_path / "whole", seed=1, progress=False, devices=2)
    step = Fit.training_step

    def failing(self, places, number):
        if (self.current_epoch, number) == (2, 1):
            raise Stop
        return step(self, places, number)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "training_step", failing)  # of rank 0; the other ends with it
        with pytest.raises(Stop):
            train(RECIPE, toys, tmp_path / "broken", seed=1, progress=False, devices=2)
    with pytest.raises(DataError, match="another devices: 2 there, 1 now"):
        train(RECIPE, toys, tmp_path / "broken", seed=1, progress=False, resume=True)
    resumed = train(
        RECIPE, toys, tmp_path / "broken", seed=1, progress=False, resume=True, devices=2
    )
    assert resumed.checkpoint_sha256 == load_run(whole.path).checkpoint_sha256
    assert curve(resumed, "train_loss").tolist() == curve(whole, "train_loss").tolist()
