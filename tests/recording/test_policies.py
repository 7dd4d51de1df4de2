"""What is recorded while a model learns: chosen steps and samples, budgets, probes, loaders."""

from __future__ import annotations

import copy
import itertools
import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.recording.support import CATALOGUE, MemoryStore, Model
from tssan_viz.recording import Policy, Probe, RecordingError, record


def x(n=1, t=6):
    return torch.randn(n, t, 8)


def run(policy, announcements, model=None, **options):
    """Record calls as announced; return the recorder and the names of what was recorded."""
    model = model or Model()
    store = MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE, policy=policy, **options) as recorder:
        for said in announcements:
            recorder.samples(**said)
            logits = model(x(len(said["sample"])))
            recorder.predictions(logits)
    return recorder, store


def test_every_n_steps():
    said = [{"sample": [f"{i}"], "step": i} for i in range(10)]
    recorder, store = run(Policy(every=3), said)
    assert store.column("sample") == ["0", "3", "6", "9"]
    assert recorder.report().calls_left_out["every"] == 6
    assert "6 by every" in str(recorder.report())
    # Without a step, calls of the phase train are counted, and the count is the step.
    recorder, store = run(Policy(every=3), [{"sample": ["a"]}] * 7, phase="train", epoch=2)
    assert store.column("step") == [3, 6]
    assert store.column("phase") == ["train"] * 2
    assert store.column("epoch") == [2] * 2


def test_a_quota_per_class_follows_the_same_samples():
    epoch = [
        {"sample": ["a", "b", "c"], "label": [0, 0, 1]},
        {"sample": ["d", "e"], "label": [0, 1]},
        {"sample": ["f", "g"], "label": [0, 1]},
    ]
    said = [{**call, "step": i} for i, call in enumerate(epoch + epoch[::-1])]
    recorder, store = run(Policy(per_class=2), said)
    assert store.column("sample") == ["a", "b", "c", "e", "e", "a", "b", "c"]
    assert all(p is not None for p in store.column("predicted"))
    assert recorder.report().calls_left_out["per_class"] == 2
    assert recorder.report().absent == 0
    with pytest.raises(RecordingError, match="label= or class_name="):
        run(Policy(per_class=2), [{"sample": ["a"]}])


def test_a_budget_of_bytes_is_kept():
    said = [{"sample": [f"{i}"], "step": i} for i in range(10)]
    recorder, store = run(Policy(max_bytes=1500), said)
    assert recorder.report().bytes <= 1500
    assert 2 <= len(store.column("sample")) < 10
    assert recorder.report().calls_left_out["max_bytes"] == 10 - len(store.column("sample"))


def test_a_budget_of_time_leaves_calls_out_and_comes_back(monkeypatch):
    model, store = Model(), MemoryStore()
    looks, worked = itertools.count(), 0.0
    # A clock that no other work on the machine disturbs: a millisecond from look to look.
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks) / 1000 + worked)
    with record(
        model, store, run="r", catalogue=CATALOGUE, policy=Policy(max_share=0.2)
    ) as recorder:
        for i in range(40):
            recorder.samples(sample=[f"{i}"], step=i)
            model(x())
            worked += 0.015
    report = recorder.report()
    assert report.calls_left_out["max_share"] > 0
    assert report.rows > 1
    assert report.rows + report.calls_left_out["max_share"] == 40


@pytest.mark.parametrize("wrong", [{"every": 0}, {"max_share": 2.0}, {"per_class": -1}])
def test_policies_that_make_no_sense_are_refused(wrong):
    with pytest.raises(RecordingError, match=next(iter(wrong))):
        Policy(**wrong)


class Noisy(Model):
    """A model that draws from all random states, with a part that is frozen in evaluation."""

    def __init__(self):
        super().__init__(dropout=0.3)
        self.norm = torch.nn.BatchNorm1d(6)
        self.frozen = torch.nn.Dropout(0.9)

    def forward(self, x):
        if self.training:
            x = x + random.random() + float(np.random.random())  # noqa: NPY002
        return super().forward(self.frozen(self.norm(x)))


def train(model, recorder=None, probe=None, steps=50):
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    model.train()
    model.frozen.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        if recorder is not None and step % 10 == 0:
            recorder.probe(probe, step=step, epoch=step // 10)
            assert model.training
            assert not model.frozen.training
        if recorder is not None:
            recorder.samples(sample=["a", "b", "c"], phase="train", step=step)
        loss = F.cross_entropy(model(torch.randn(3, 6, 8)), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, random.random(), float(np.random.random()), torch.rand(1)  # noqa: NPY002


def test_training_with_probes_is_bitwise_the_same_over_50_steps():
    torch.manual_seed(0)
    plain = Noisy()
    watched = copy.deepcopy(plain)
    probe = Probe(
        [
            ({"sample": ["p", "q"], "label": [0, 1]}, torch.randn(2, 6, 8)),
            ({"sample": ["r"], "label": [2]}, [torch.randn(1, 6, 8)]),
        ]
    )
    expected = train(plain)
    store = MemoryStore()
    with record(watched, store, run="r", catalogue=CATALOGUE) as recorder:
        found = train(watched, recorder, probe)
    assert expected == found
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)

    rows = pd.DataFrame({name: store.column(name) for name in ("sample", "phase", "step", "epoch")})
    probes = rows[rows["phase"] == "probe"]
    assert probes["sample"].tolist() == ["p", "q", "r"] * 5
    assert probes["step"].unique().tolist() == [0, 10, 20, 30, 40]
    assert probes["epoch"].unique().tolist() == [0, 1, 2, 3, 4]
    assert len(rows[rows["phase"] == "train"]) == 150
    answers = [p for rows, _, _ in store.adds for p in rows.get("predicted", [])]
    assert len(answers) == 15


def test_a_probe_finds_the_logits_where_they_are():
    probe = Probe([({"sample": ["a", "b"]}, None)])
    logits = torch.zeros(2, 5)

    class Output:
        pass

    output = Output()
    output.logits = logits
    assert probe.answers(logits, 2) is logits
    assert probe.answers({"logits": logits}, 2) is logits
    assert probe.answers(output, 2) is logits
    assert probe.answers(torch.zeros(2, 7, 5), 2) is None
    assert Probe(probe.batches, logits=lambda out: out[1]).answers((0, logits), 2) is logits
    with pytest.raises(RecordingError, match="at least one batch"):
        Probe([])


def test_paused_calls_are_passed_over():
    model, store = Model(), MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"])
        model(x())
        with recorder.paused():
            model(x(2))
            recorder.samples(sample=["not"])
            recorder.predictions(model(x()))
        recorder.samples(sample=["b"])
        model(x())
    assert store.column("sample") == ["a", "b"]
    assert recorder.report().calls == 2


def test_calls_describe_themselves():
    model, store = Model(), MemoryStore()

    def describe(args, kwargs):
        if len(args[0]) > 2:
            return None
        return {"sample": [f"{v:.3f}" for v in args[0][:, 0, 0]], "step": 4}

    with record(model, store, run="r", catalogue=CATALOGUE, describe=describe) as recorder:
        videos = [x(2), x(3), x(1)]
        for video in videos:
            recorder.predictions(model(video))
    kept = [f"{v:.3f}" for video in (videos[0], videos[2]) for v in video[:, 0, 0]]
    assert store.column("sample") == kept
    assert None not in store.column("predicted")


@pytest.mark.parametrize("options", [{"unlabelled": True}, {"describe": None}])
def test_a_call_that_failed_is_forgotten_when_another_comes(options):
    model, store = Model(), MemoryStore()
    if "describe" in options:
        options = {"describe": lambda args, kwargs: {"sample": ["v"] * len(args[0]), "step": 1}}
    last = model.layers[1].forward
    with record(model, store, run="r", catalogue=CATALOGUE, **options) as recorder:
        model.layers[1].forward = lambda x: (_ for _ in ()).throw(MemoryError)
        with pytest.raises(MemoryError):
            model(x(4))
        model.layers[1].forward = last
        model(x(2))
    assert len(store.column("sample")) == 2
    assert recorder.report().maps_due == recorder.report().maps_recorded == 2


def loader(shuffle=True):
    torch.manual_seed(5)
    data = TensorDataset(torch.randn(10, 6, 8), torch.arange(10))
    return DataLoader(data, batch_size=4, shuffle=shuffle)


@pytest.mark.parametrize(
    "describe",
    [
        lambda batch: {"sample": [f"v{i}" for i in batch[1]], "label": batch[1] % 3},
        {"sample": 1},
    ],
)
def test_the_loaders_batches_announce_themselves(describe):
    model, store = Model(), MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE, phase="train") as recorder:
        watched = recorder.watch_loader(loader(), describe)
        assert len(watched) == 3
        found = []
        for _ in range(2):
            torch.manual_seed(5)
            for video, number in watched:
                found += number.tolist()
                model(video)
    assert len(found) == 20
    assert [int(str(s).strip("v")) for s in store.column("sample")] == found
    assert store.column("epoch") == [1] * 10 + [2] * 10
    assert store.column("step") == [s for s, n in zip(range(1, 7), (4, 4, 2) * 2) for _ in range(n)]  # noqa: B905


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_data_set_says_what_is_at_the_loaders_indices(shuffle):
    table = pd.DataFrame(
        {"sample": [f"v{i}" for i in range(10)], "label": [i % 3 for i in range(10)]}
    )
    for known in (table, table.to_dict("records"), lambda i: table.iloc[i].to_dict()):
        model, store = Model(), MemoryStore()
        plain = [number.tolist() for _, number in loader(shuffle)]
        with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
            found = []
            for video, number in recorder.watch_loader(loader(shuffle), dataset=known):
                found.append(number.tolist())
                model(video)
        assert found == plain  # the order is the loader's own
        assert store.column("sample") == [f"v{i}" for batch in plain for i in batch]
        assert store.column("label") == [i % 3 for batch in plain for i in batch]


def test_a_loader_of_which_nothing_is_known_is_refused():
    with record(Model()) as recorder:
        with pytest.raises(RecordingError, match="describe="):
            recorder.watch_loader(loader())
        with pytest.raises(RecordingError, match=r"sample is the batch's 'name'"):
            next(iter(recorder.watch_loader(loader(), {"sample": "name"})))
        with pytest.raises(RecordingError, match="batch sampler"):
            next(iter(recorder.watch_loader([1], dataset=[{}])))
