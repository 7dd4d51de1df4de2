"""What a GPU would be told: by stand-ins, since the tests run where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.recording.support import Model
from tssan_viz.recording import UnrecordableModel, record, transfer
from tssan_viz.recording.calls import AttentionCall, WatchedSite
from tssan_viz.recording.probabilities import Products, Scores, Values


def products(**more):
    r, h, t, d = 3, 4, 6, 8
    q, k = (torch.randn(r, h, t, d, dtype=torch.bfloat16) for _ in range(2))
    return Products(q, k, **more)


def made(kind):
    if kind == "scores":
        return Scores(torch.randn(3, 4, 6, 6))
    if kind == "values":
        return Values(torch.randn(3, 4, 6, 6))
    if kind == "bool mask":
        return products(mask=torch.ones(3, 1, 1, 6, dtype=torch.bool))
    if kind == "float mask":
        return products(mask=torch.zeros(3, 1, 6, 6))
    if kind == "grouped":
        q = torch.randn(3, 4, 6, 8)
        return Products(q, torch.randn(3, 2, 6, 8), causal=True)
    if kind == "flex":
        return products(modify=lambda scores, r, h, q, s: scores * 2)
    return products(causal=kind == "causal")


@pytest.mark.parametrize("heads", [None, [1, 3]])
@pytest.mark.parametrize(
    "kind",
    ["plain", "causal", "bool mask", "float mask", "grouped", "flex", "scores", "values"],
)
def test_maps_are_computed_without_asking_for_a_value_which_a_gpu_would_be_waited_for(kind, heads):
    with FakeTensorMode():  # refuses .item(), bool(tensor) and sizes that hang on values
        call = AttentionCall(WatchedSite("a", "a", 1), made(kind))
        maps, measures = call.compute(heads)
        seen = call.row_valid
        count = 4 if heads is None else 2
        assert (maps.shape, measures.shape) == ((3, count, 6, 6), (3, count, 4))
        assert seen is None or seen.shape == (3,)
        with pytest.raises(DataDependentOutputException):
            maps.sum().item()


# A device that only writes down what it is told ---------------------------------------------------


class Said(list):
    """What was said to the device, in order; what it would have copied arrives at the wait."""

    def __init__(self):
        super().__init__()
        self.current = "model's"
        self.under_way = []


class Event:
    def __init__(self, said, **options):
        self.said, self.options = said, options

    def record(self, stream):
        self.said.append(f"event on {stream.name}")

    def synchronize(self):
        self.said.append("wait")
        for into, values in self.said.under_way:
            into.data.copy_(values)


class Stream:
    def __init__(self, said, name):
        self.said, self.name = said, name

    def wait_stream(self, other):
        self.said.append(f"{self.name} waits for {other.name}")

    def record_event(self, event):
        assert event.options == {"blocking": True}
        event.record(self)
        return event

    def __enter__(self):
        self.said.current = self.name

    def __exit__(self, *_):
        self.said.current = "model's"


class OnDevice:
    """A tensor as `HostCopy` sees it."""

    def __init__(self, said, values):
        self.said, self.values = said, values
        self.device = torch.device("cuda", 0)
        self.shape, self.dtype = values.shape, values.dtype

    def detach(self):
        return self

    def numel(self):
        return self.values.numel()

    def element_size(self):
        return self.values.element_size()

    def record_stream(self, stream):
        self.said.append(f"kept for {stream.name}")


class Pinned:
    def __init__(self, said, data):
        self.said, self.data = said, data

    def copy_(self, tensor, *, non_blocking):
        assert non_blocking
        self.said.append(f"copy on {self.said.current}")
        self.said.under_way.append((self, tensor.values))

    def numpy(self):
        return self.data.numpy()


@pytest.fixture
def said(monkeypatch):
    said = Said()

    def empty(shape, *, dtype, device, pin_memory):
        assert (device, pin_memory) == ("cpu", True)
        said.pinned = Pinned(said, torch.full(shape, 7, dtype=dtype))
        return said.pinned

    cuda = SimpleNamespace(
        Stream=lambda device: Stream(said, "own"),
        Event=lambda **options: Event(said, **options),
        current_stream=lambda device: Stream(said, "model's"),
        stream=lambda stream: stream,
    )
    monkeypatch.setattr(transfer, "torch", SimpleNamespace(cuda=cuda, empty=empty))
    monkeypatch.setattr(transfer, "_streams", {})
    return said


def test_a_copy_waits_for_the_model_and_is_read_when_it_is_there(said):
    values = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    copy = transfer.HostCopy(OnDevice(said, values))
    assert copy.nbytes == 12
    assert said == ["own waits for model's", "copy on own", "event on own", "kept for own"]
    there = copy.numpy()
    assert said[-1] == "wait"
    np.testing.assert_array_equal(there, values)
    # The pinned buffer goes back to the allocator; what was read is the reader's own.
    said.pinned.data.fill_(9)
    np.testing.assert_array_equal(there, values)


def test_the_devices_time_is_had_without_waiting(monkeypatch):
    finished = []

    class Timed:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self, stream):
            pass

        def query(self):
            return self in finished

        def elapsed_time(self, other):
            assert other in finished
            return 250.0

    cuda = SimpleNamespace(Event=Timed, current_stream=lambda device: "stream")
    monkeypatch.setattr(transfer, "torch", SimpleNamespace(cuda=cuda))
    clock = transfer.DeviceClock()
    for _ in range(2):
        with clock.running(SimpleNamespace(type="cuda")):
            pass
    assert clock.seconds == 0.0
    finished.append(clock._open[0][1])
    assert clock.seconds == 0.25
    assert clock.seconds == 0.25
    finished.append(clock._open[0][1])
    assert clock.seconds == 0.5


def test_a_capture_by_hand_is_refused_and_runs_unwatched(monkeypatch):
    model, clips = Model().eval(), torch.randn(1, 5, 8)
    expected = model(clips)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    said = []

    def announce(recorder):
        recorder.samples(sample=["a"])
        said.append(model(clips))
        recorder.samples(sample=["b"])

    with (
        pytest.raises(UnrecordableModel, match=r"CUDA graph by hand.*reduce-overhead"),
        record(model) as recorder,
    ):
        announce(recorder)
    assert torch.equal(said[0], expected)
    assert recorder.report().maps_recorded == 0
