"""Several processes that train together: each writes its own rows of the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.recording.support import CATALOGUE, Model
from tssan_viz.recording import record
from tssan_viz.store import open_store

SCRIPT = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.recording.support import CATALOGUE, Model
from tssan_viz.recording import record

store, rank, met, watched = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "watched"
dist.init_process_group("gloo", init_method=f"file://{met}", rank=rank, world_size=2)
torch.manual_seed(0)
model = DistributedDataParallel(Model(dropout=0.2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(10 + rank)

def step(number, recorder=None):
    if recorder:
        recorder.samples(sample=[f"{rank}-{number}"], label=[rank], step=number, phase="train")
    model(torch.randn(1, 6, 8)).logsumexp(-1).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

if watched:
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        for number in range(5):
            step(number, recorder)
    assert recorder.report().rows_acknowledged == 5
else:
    for number in range(5):
        step(number)
print(",".join(float(p.double().sum()).hex() for p in model.parameters()))
dist.barrier()  # one that leaves while the other still talks to it can take it down
dist.destroy_process_group()
"""


def train_together(store: Path, how: str) -> list[str]:
    met = store.with_name(f"{store.name}-{how}-met")  # a port might be taken meanwhile
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(store), f"{rank}", str(met), how],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [err for _, err in outputs]
    return [out.splitlines()[-1] for out, _ in outputs]


@pytest.fixture
def group():
    """Make this process the only one of a group."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_model_of_several_processes_is_recorded_under_its_own_names(group, tmp_path, monkeypatch):
    model = DistributedDataParallel(Model())
    # What this process would be told as the second of two.
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    with record(model, tmp_path / "s", run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a", "b"], label=[0, 1])
        model(torch.randn(2, 6, 8)).sum().backward()
    store = open_store(tmp_path / "s")
    assert [site.name for site in store.stored_sites("r")] == ["layers.0.attend", "layers.1.attend"]
    assert store.rows("r")["rank"].tolist() == [1, 1]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_two_processes_write_one_run_and_train_as_if_unwatched(tmp_path):
    weights = train_together(tmp_path / "s", "watched")
    assert weights == train_together(tmp_path / "none", "plain")
    store = open_store(tmp_path / "s")
    rows = store.rows("r")
    assert sorted(rows["sample"]) == sorted(f"{rank}-{i}" for rank in range(2) for i in range(5))
    assert [site.name for site in store.stored_sites("r")] == ["layers.0.attend", "layers.1.attend"]
    assert rows.groupby("rank")["label"].unique().map(list).to_dict() == {0: [0], 1: [1]}
    assert store.select(run="r").maps().sizes["row"] == 10
