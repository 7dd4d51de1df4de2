"""Recording from Lightning's and Hugging Face's loops, and what loggers are told."""

from __future__ import annotations

import copy
import sys
import types

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from tests.recording.support import Model
from tssan_viz.recording import Probe, RecordingError, record
from tssan_viz.recording.lightning import AttentionRecording
from tssan_viz.recording.loggers import heads_figure, log_figure, log_measures
from tssan_viz.store import open_store


class Videos(Dataset):
    def __init__(self):
        self.videos = torch.randn(12, 6, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, i):
        return {"video": self.videos[i], "name": f"v{i}", "label": i % 3}


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Model(dropout=0.2)

    def training_step(self, batch, _):
        return F.cross_entropy(self.network(batch["video"]), batch["label"])

    def validation_step(self, batch, _):
        self.network(batch["video"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(Videos(), batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Videos(), batch_size=4)


def fit(task, *callbacks, logger=False, epochs=2, folder=None):
    torch.manual_seed(1)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=folder,
    )
    trainer.fit(task)
    return task


def the_probe(network):
    assert isinstance(network, Model)
    return Probe([({"sample": ["p", "q"], "label": [0, 1]}, Videos().videos[:2])])


def test_lightning_records_steps_and_probes_and_trains_the_same(tmp_path):
    torch.manual_seed(0)
    plain = Task()
    watched = copy.deepcopy(plain)
    fit(plain, folder=tmp_path)
    callback = AttentionRecording(
        tmp_path / "s",
        run="r",
        module="network",
        describe={"sample": "name", "label": "label"},
        probe=the_probe,
        figures=["layers.1.*"],
    )
    board = TensorBoardLogger(tmp_path / "board", version="v")
    fit(watched, callback, logger=board, folder=tmp_path)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)

    assert callback.report.rows_acknowledged == 2 * 12 + 3 * 2
    rows = open_store(tmp_path / "s").rows("r")
    training = rows[rows["phase"] == "train"]
    assert sorted(training["step"].unique()) == list(range(6))
    assert training.groupby("epoch")["sample"].nunique().to_dict() == {1: 12, 2: 12}
    probes = rows[rows["phase"] == "probe"]
    assert list(zip(probes["sample"], probes["step"], probes["epoch"], strict=True)) == [
        ("p", 0, 0),
        ("q", 0, 0),
        ("p", 3, 1),
        ("q", 3, 1),
        ("p", 6, 2),
        ("q", 6, 2),
    ]
    assert probes["predicted"].notna().all()

    events = EventAccumulator(str(tmp_path / "board" / "lightning_logs" / "v"))
    events.Reload()
    tags = events.Tags()
    entropy = events.Scalars("attention/probe/entropy/layers.0.attend/head2")
    assert [event.step for event in entropy] == [0, 3, 6]
    assert all(0 < event.value <= 1 for event in entropy)
    assert "attention/train/peak/layers.1.attend/head1" in tags["scalars"]
    assert [image.step for image in events.Images("attention/probe")] == [0, 3, 6]

    # What was logged is the mean of what was stored.
    stored = open_store(tmp_path / "s").select(run="r", phase="probe", step=6).measures()
    mean = stored[(stored["layer"] == 1) & (stored["head"] == 2)]["entropy"].mean()
    assert entropy[-1].value == pytest.approx(mean, rel=1e-5)


def test_lightning_keeps_what_is_whole_when_training_breaks_off(tmp_path):
    class Breaks(Task):
        def training_step(self, batch, number):
            if number == 2:
                raise ZeroDivisionError
            return super().training_step(batch, number)

    callback = AttentionRecording(
        tmp_path / "s", run="r", module="network", describe={"sample": "name"}
    )
    with pytest.raises(ZeroDivisionError):
        fit(Breaks(), callback, folder=tmp_path)
    assert callback.report.rows_acknowledged == 8
    assert len(open_store(tmp_path / "s").rows("r")) == 8


def test_nothing_to_record_is_refused():
    with pytest.raises(RecordingError, match="describe="):
        AttentionRecording(None)


def test_hugging_faces_trainer(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from tssan_viz.recording.huggingface import AttentionRecording as Recording

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    plain = BertForSequenceClassification(config)
    watched = copy.deepcopy(plain)
    tokens = torch.randint(0, 50, (8, 5), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": i % 3} for i, row in enumerate(tokens)]

    def train(model, *callbacks, **length):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            num_train_epochs=2,
            **length,
            per_device_train_batch_size=4,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=3,
        )
        Trainer(
            model, arguments, train_dataset=data, eval_dataset=data, callbacks=list(callbacks)
        ).train()

    def describe(inputs):
        names = ["-".join(map(str, row.tolist())) for row in inputs["input_ids"]]
        return {"sample": names, "label": inputs["labels"]}

    logged = []
    probe = Probe([({"sample": ["p", "q"], "label": [0, 1]}, {"input_ids": tokens[:2]})])
    train(plain)
    with Recording(
        tmp_path / "s",
        run="r",
        describe=describe,
        probe=probe,
        loggers=[lambda *what: logged.append(what)],
    ) as recording:
        train(watched, recording)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = open_store(tmp_path / "s").rows("r")
    assert recording.report.rows == len(rows) == 2 * 8 + 3 * 2
    training = rows[rows["phase"] == "train"]
    assert training.groupby("epoch")["sample"].nunique().to_dict() == {1: 8, 2: 8}
    assert sorted(training["step"].unique()) == [0, 1, 2, 3]
    probes = rows[rows["phase"] == "probe"]
    assert probes["step"].tolist() == [0, 0, 2, 2, 4, 4]
    assert probes["correct"].notna().all()
    assert {step for name, _, step in logged if "/probe/" in name} == {0, 2, 4}

    with Recording(tmp_path / "s", run="cut short", describe=describe, probe=probe) as recording:
        train(watched, recording, max_steps=3)
    rows = open_store(tmp_path / "s").rows("cut short")
    steps = rows.groupby(["phase", "epoch"])["step"].unique().map(list).to_dict()
    assert steps == {
        ("probe", 0): [0],
        ("train", 1): [0, 1],
        ("probe", 1): [2],
        ("train", 2): [2],
        ("probe", 2): [3],
    }


def measures():
    return {"layers.0.attend": {"peak": np.array([0.25, 0.5]), "distance": np.array([np.nan] * 2)}}


def test_every_kind_of_logger_is_told():
    told = []

    class WandbRun:
        """What a run of Weights & Biases offers."""

        def log(self, values, step):
            told.append((sorted(values), step))

    class LightningLogger:
        def log_metrics(self, numbers, step):
            told.append((sorted(numbers), step))

        def log_image(self, key, images, step):
            told.append((key, images[0].shape[-1], images[0].dtype, step))

    loggers = [WandbRun(), LightningLogger(), lambda *what: told.append(what)]
    log_measures(loggers, measures(), step=7)
    names = [f"attention/train/peak/layers.0.attend/head{i}" for i in (1, 2)]
    assert told == [(names, 7), (names, 7), (names[0], 0.25, 7), (names[1], 0.5, 7)]

    told.clear()
    figure = heads_figure({("layers.0.attend", h): np.eye(4) for h in range(1, 6)})
    log_figure(loggers[1:], "attention/probe", figure, step=7)
    assert told[0] == ("attention/probe", 3, np.dtype(np.uint8), 7)
    assert told[1] == ("attention/probe", figure, 7)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:5] == [f"layers.0.attend, head {h}" for h in range(1, 6)]

    with pytest.raises(RecordingError, match="nothing can be logged to a int"):
        log_measures([3], measures(), step=0)
    with pytest.raises(RecordingError, match="nothing can be logged to a int"):
        log_figure([3], "a", figure, step=0)


def test_a_run_of_weights_and_biases_gets_the_picture(monkeypatch):
    images = []
    fake = types.ModuleType("wandb")
    fake.Image = lambda pixels: images.append(pixels.shape) or "image"
    monkeypatch.setitem(sys.modules, "wandb", fake)
    told = []

    class Run:
        def log(self, values, step):
            told.append((values, step))

    log_figure([Run()], "heads", heads_figure({("a" * 40, 1): np.eye(3)}), step=2)
    assert told == [({"heads": "image"}, 2)]
    assert images[0][2] == 3


def test_plain_loops_log_means_of_what_came_since():
    torch.manual_seed(0)
    model = Model()
    told = []
    with record(model) as recorder:
        recorder.average("layers.0.*")
        for i in range(3):
            recorder.samples(sample=[f"{i}a", f"{i}b"])
            model(torch.randn(2, 6, 8))
        means = recorder.means()
        pictures = recorder.mean_maps()
        assert recorder.means() == recorder.mean_maps() == {}
        log_measures([lambda *what: told.append(what)], means, step=3)
    maps = recorder.maps()
    assert set(pictures) == {"layers.0.attend"}
    expected = maps.sel(layer=1).mean("row").to_numpy()
    assert np.abs(pictures["layers.0.attend"] - expected).max() < 1e-6
    peak = maps.sel(layer=2).max("key").mean(["row", "query"]).to_numpy()
    assert np.abs(means["layers.1.attend"]["peak"] - peak).max() < 1e-3
    assert len(told) == 2 * 2 * 4
    with record(nn.Sequential(model)) as other, pytest.raises(RecordingError, match="no site is"):
        other.average("decoder.*")
