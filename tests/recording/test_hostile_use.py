"""What a recorder is not meant for is refused or counted, and leaves the model as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from tests.recording.support import MemoryStore, Model
from tssan_viz.recording import (
    MissingMaps,
    Policy,
    RecordingError,
    UnrecordableModel,
    attention_probabilities,
    record,
)
from tssan_viz.store import open_store


def x(n=2):
    return torch.randn(n, 5, 8)


class Failing(nn.Module):
    """Raises at its first call, after it has attended."""

    def __init__(self):
        super().__init__()
        self.inside = Model()
        self.calls = 0

    def forward(self, x):
        y = self.inside(x)
        self.calls += 1
        if self.calls == 1:
            raise ValueError("out of memory")
        return y


def call(model, recorder, names):
    recorder.samples(sample=names)
    try:
        model(x())
    except ValueError:
        return False
    return True


def test_a_call_in_which_the_model_raised_owes_nothing_and_is_counted():
    model, store = Failing(), MemoryStore()
    with record(model, store) as recorder:
        assert not call(model, recorder, ["a", "b"])
        assert call(model, recorder, ["c", "d"])
    report = recorder.report()
    assert store.column("sample") == ["c", "d"]
    assert (report.calls, report.calls_left_out["failed"], report.maps_due) == (2, 1, 2)
    assert "1 by failed" in str(report)


def test_a_call_in_which_the_model_raised_may_be_made_again():
    model, store = Failing(), MemoryStore()
    with record(model, store) as recorder:
        assert not call(model, recorder, ["a", "b"])
        model(x())
    assert store.column("sample") == ["a", "b"]
    assert recorder.report().calls_left_out["failed"] == 0


def test_a_recorder_watches_one_block():
    model = Model()
    recorder = record(model, unlabelled=True)
    with recorder:
        model(x())
    with pytest.raises(RecordingError, match="for the length of one block; make another"):
        recorder.__enter__()


def test_a_block_without_a_call_is_an_error():
    model = Model().eval()
    compiled = torch.compile(model, backend="eager")
    y = compiled(x())
    with (
        pytest.raises(MissingMaps, match=r"not called while.*what torch\.compile made"),
        record(model, unlabelled=True),
    ):
        assert compiled(x()).shape == y.shape


def test_recorders_of_one_model_may_end_in_any_order():
    model, clips = Model().eval(), x()
    first, second = record(model, unlabelled=True), record(model, unlabelled=True)
    first.__enter__()
    second.__enter__()
    model(clips)
    first.__exit__(None, None, None)
    model(clips)
    second.__exit__(None, None, None)
    assert "forward" not in vars(model)
    assert (first.report().calls, second.report().calls) == (1, 2)
    np.testing.assert_array_equal(first.maps(), second.maps()[:2])


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_has_one_recorder_at_a_time(in_place):
    model = Model().eval()
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with record(model, unlabelled=True):
        model(x())
        with pytest.raises(RecordingError, match="one recorder at a time"):
            record(model, unlabelled=True).__enter__()
    with record(model, unlabelled=True) as again:
        model(x())
    assert again.report().maps_recorded == 2


def test_a_model_that_is_copied_to_several_devices_is_refused():
    with pytest.raises(UnrecordableModel, match="DistributedDataParallel"):
        record(nn.DataParallel(Model()))
    with pytest.raises(UnrecordableModel, match=r"a torch\.nn\.Module, and this is 'bert'"):
        record("bert")


class Waiting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = Model()

    def forward(self, x, began=None, wait=None):
        if began is not None:
            began.set()
            assert wait.wait(300)
        return self.inside(x)


def call_in_two_threads(model, recorder):
    began, wait = threading.Event(), threading.Event()
    with recorder:
        other = threading.Thread(target=model, args=(x(), began, wait))
        other.start()
        assert began.wait(300)
        model(x())
        wait.set()
        other.join()


def test_one_model_in_two_threads_at_once_is_an_error():
    model = Waiting()
    recorder = record(model, unlabelled=True)
    with pytest.raises(RecordingError, match="two threads at the same time"):
        call_in_two_threads(model, recorder)


def test_two_models_in_two_threads_are_two_recordings():
    models, clips = [Model().eval() for _ in range(2)], [x(3), x(4)]
    recorders = [record(model, unlabelled=True) for model in models]

    def work(model, clip, recorder):
        with recorder:
            for _ in range(20):
                model(clip)

    threads = [
        threading.Thread(target=work, args=each)
        for each in zip(models, clips, recorders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model, clip, recorder in zip(models, clips, recorders, strict=True):
        with record(model, unlabelled=True) as alone:
            model(clip)
        assert recorder.report().calls == 20
        np.testing.assert_array_equal(recorder.maps()[-len(clip) :], alone.maps())


def test_the_precision_of_products_is_the_users_again_after_many_threads():
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    q = torch.randn(2, 2, 64, 64)
    try:
        threads = [
            threading.Thread(target=lambda: [attention_probabilities(q, q) for _ in range(100)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize(
    ("heads", "why"),
    [
        ([], "numbers from 1"),
        ([0], "numbers from 1"),
        ([1, 1], "each once"),
        (3, "asks for 3; it would be a list"),
        (["1"], "numbers from 1"),
        ({"layer.*": [1]}, r"'layer\.\*', and no site is called so; watched are layers\.0\.attend"),
    ],
)
def test_heads_that_are_none_are_refused_at_once(heads, why):
    with pytest.raises(RecordingError, match=why):
        record(Model(), heads=heads)


def test_heads_may_come_as_an_array():
    with record(Model(heads=4), unlabelled=True, heads=np.array([2, 3])) as recorder:
        recorder.model(x())
    assert recorder.maps()["head"].to_numpy().tolist() == [2, 3]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"sample": "ab"}, "sample is 'ab'; it is a list of names"),
        ({"label": ["wave", "sit"]}, "'wave' as a label, which is a whole number.*class_name="),
        ({"subject": [1, "P2"]}, "'P2' as a subject.*number the people from 1"),
        ({"camera": 1.5}, "1.5 as a camera"),
    ],
)
def test_words_where_numbers_belong_are_refused_before_the_model_runs(said, why):
    with record(Model(), MemoryStore()) as recorder:
        with pytest.raises(RecordingError, match=why):
            recorder.samples(**{"sample": ["a", "b"], **said})
        recorder.samples(sample=["a", "b"], label=["1", 2], subject=[np.int64(3), float("nan")])
        recorder.model(x())


def test_whole_numbers_of_any_type_become_numbers(tmp_path):
    model = Model()
    with record(model, tmp_path / "s") as recorder:
        recorder.samples(sample=["a", "b", "c"], label=["3", 1.0, None], camera=np.array(2))
        model(torch.randn(3, 6, 8))
    rows = open_store(tmp_path / "s").rows("recording")
    assert rows["label"].tolist()[:2] == [3, 1]
    assert rows["label"].isna().tolist() == [False, False, True]
    assert rows["camera"].tolist() == [2, 2, 2]


def test_a_step_of_none_is_counted():
    model = Model()
    with record(model, MemoryStore(), policy=Policy(every=2)) as recorder:
        for _ in range(4):
            recorder.samples(sample=["a", "b"], step=None)
            model(x())
    assert recorder.report().calls_left_out["every"] == 2


def test_attention_that_comes_after_the_call_has_returned_is_missed_aloud():
    class Lazy(Model):
        def forward(self, x):
            yield super().forward(x)

    model = Lazy()
    with (
        pytest.raises(MissingMaps, match=r"2 of 2 maps did not come.*layers\.0\.attend"),
        record(model, unlabelled=True),
    ):
        list(model(x()))
