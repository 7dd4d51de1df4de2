"""What Weights & Biases itself keeps of a training that it logs, without reaching the network."""

from __future__ import annotations

import json
import struct

import pytest
from matplotlib.image import imread

from tests.recording.test_callbacks import Task, fit, the_probe
from tssan_viz.recording.lightning import AttentionRecording

wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    yield tmp_path
    wandb.teardown()


def records(log):
    """Go through the records of a log in LevelDB's format, behind wandb's own seven bytes."""
    data, at, record = log.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # what is left of a block holds no header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def history(folder):
    """End the run, and read what it has logged: name → value, one mapping for each step."""
    from wandb.proto import wandb_internal_pb2

    wandb.finish()
    wandb.teardown()  # which waits until the log is written
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    lines = []
    for data in records(log):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            names = ["/".join([item.key, *item.nested_key]).strip("/") for item in items]
            values = [json.loads(item.value_json) for item in items]
            lines.append(dict(zip(names, values, strict=True)))
    return lines


def check_pictures(folder, count):
    files = sorted(folder.glob("wandb/offline-run-*/files/media/images/attention/*.png"))
    assert len(files) == count
    for file in files:
        pixels = imread(file)
        assert pixels.shape[2] >= 3
        assert pixels.std() > 0.05


def test_lightnings_logger_gets_every_heads_measures_and_pictures(offline):
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(save_dir=offline, project="p", offline=True)
    callback = AttentionRecording(
        module="network", probe=the_probe, figures=["layers.1.*"], heads=[2]
    )
    fit(Task(), callback, logger=logger, folder=offline, epochs=1)
    lines = history(offline)
    name = "attention/probe/entropy/layers.0.attend/head2"
    measured = [line for line in lines if name in line]
    assert [line["trainer/global_step"] for line in measured] == [0, 3]
    assert all(0 < line[name] <= 1 for line in measured)
    assert not any("head1" in key for line in lines for key in line)
    check_pictures(offline, 2)


def test_a_run_of_its_own_gets_them_too(offline):
    run = wandb.init(project="p", mode="offline", dir=offline)
    callback = AttentionRecording(
        module="network", probe=the_probe, figures=["layers.1.*"], loggers=[run]
    )
    fit(Task(), callback, folder=offline, epochs=1)
    lines = history(offline)
    name = "attention/probe/entropy/layers.1.attend/head2"
    assert [line["_step"] for line in lines if name in line] == [0, 3]
    check_pictures(offline, 2)
