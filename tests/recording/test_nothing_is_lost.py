"""A map that was due and did not come is an error that says what to do."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from tests.recording.support import CATALOGUE, MemoryStore, Model
from tssan_viz.errors import UserError
from tssan_viz.recording import MissingMaps, RecordingError, UnrecordableModel, record


def watching(model, store=None):
    return record(model, store or MemoryStore(), run="r", catalogue=CATALOGUE)


def watch(model, *steps, store=None):
    """Record a block of steps: announcements (lists of names), videos, an exception."""
    with watching(model, store) as recorder:
        for step in steps:
            if isinstance(step, list):
                recorder.samples(sample=step)
            elif isinstance(step, torch.Tensor):
                model(step)
            elif isinstance(step, dict):
                recorder.samples(**step)
            else:
                raise step


def x(n=1, t=4):
    return torch.randn(n, t, 8)


def test_a_model_without_attention_is_told_what_is_looked_for():
    with pytest.raises(UnrecordableModel, match=r"Linear has no attention.*`attend`.*\(q, k, v\)"):
        watching(nn.Linear(2, 2))


def test_a_module_called_attend_that_is_none_is_named():
    class Masked(nn.Module):
        def forward(self, q, k, v, mask):
            return q

    model = nn.Module()
    model.attend = Masked()
    with pytest.raises(UnrecordableModel, match=r"attend \(Masked\) takes \(q, k, v, mask\)"):
        watching(model)
    model.attend = nn.MultiheadAttention(4, 2)
    with pytest.raises(UnrecordableModel, match="has parameters of its own"):
        watching(model)


def test_an_unannounced_call_is_an_error_at_the_end():
    model = Model()
    with pytest.raises(RecordingError, match=r"recorder\.samples"):
        watch(model, x())


def test_a_second_call_without_a_second_announcement_is_an_error_at_the_next_samples():
    model = Model()
    store = MemoryStore()
    with pytest.raises(RecordingError, match="without an announcement"):
        watch(model, ["a"], x(), ["b"], x(), x(), ["c"], KeyError(), store=store)
    assert store.column("sample") == ["a"]


def pass_over_an_error(model):
    with watching(model) as recorder:
        recorder.samples(sample=["a"])
        with contextlib.suppress(RecordingError):
            recorder.samples(sample=["b"])


def test_an_error_that_was_passed_over_comes_back_at_the_end():
    with pytest.raises(
        MissingMaps, match=r"2 maps were due \(2 sites × 1 announced calls\) and 0 came"
    ):
        pass_over_an_error(Model())


def test_an_announcement_without_a_call_is_an_error():
    model = Model()
    with pytest.raises(MissingMaps, match=r"announced a, b, c and 1 more.*2 maps are missing"):
        watch(model, ["a", "b", "c", "d"])
    with pytest.raises(MissingMaps, match="announced a"):
        watch(model, ["a"], ["b"], KeyError())


def test_a_silent_site_is_an_error_and_named():
    model = Model(layers=3)
    model.layers[1].forward = lambda x: x
    with pytest.raises(MissingMaps, match=r"1 of 3 maps.*not called was layers\.1\.attend"):
        watch(model, ["a"], x())


def test_a_module_that_attends_twice_is_two_sites_and_stays_two():
    model = Model(layers=2)
    layer = model.layers[1].forward
    model.layers[1].forward = lambda x: layer(layer(x))
    store = MemoryStore()
    watch(model, ["a"], x(), ["b"], x(), store=store)
    names = [site.name for site in store.writers[0][1]]
    assert names == ["layers.0.attend", "layers.1.attend", "layers.1.attend#2"]
    assert all(store.maps(name).shape == (2, 2, 4, 4) for name in names)

    def once_then_twice():
        with watching(model) as recorder:
            model.layers[1].forward = layer
            recorder.samples(sample=["a"])
            model(x())
            model.layers[1].forward = lambda x: layer(layer(x))
            recorder.samples(sample=["b"])
            model(x())

    with pytest.raises(RecordingError, match=r"attend#2 attended in this call, and in the first"):
        once_then_twice()


def call_a_part(model):
    with watching(model) as recorder:
        recorder.samples(sample=["a"])
        model.layers[0](x())


def test_attention_outside_the_models_call_is_no_call_of_the_model():
    with pytest.raises(MissingMaps, match="the model did not run to its end"):
        call_a_part(Model())


def test_a_wrong_number_of_rows_names_the_sizes():
    announced = {"sample": ["a", "b"], "axes": ("n", "k", "m"), "sizes": {"k": 3, "m": 2}}
    with pytest.raises(RecordingError, match=r"over 2 rows.*n = 2 × k = 3 × m = 2 = 12"):
        watch(Model(), announced, x(2))


def test_maps_of_another_shape_are_refused():
    with pytest.raises(RecordingError, match=r"\(2, 6, 6\), after \(2, 4, 4\) before"):
        watch(Model(), ["a"], x(t=4), ["b"], x(t=6))


def test_nan_names_site_and_sample():
    video = x(2)
    video[1] = math.nan
    with pytest.raises(RecordingError, match=r"layers\.0\.attend.*sample b, segment 1.*head 1"):
        watch(Model(), ["a", "b"], video)


def test_predictions_that_do_not_fit_are_refused():
    model = Model()
    with watching(model) as recorder:
        with pytest.raises(RecordingError, match="after the forward call"):
            recorder.predictions(torch.zeros(1, 3))
        recorder.samples(sample=["a", "b"])
        with pytest.raises(RecordingError, match="after the forward call"):
            recorder.predictions(torch.zeros(2, 3))
        model(x(2))
        with pytest.raises(RecordingError, match=r"\(3, 3\); 2 samples .* \(2, classes\)"):
            recorder.predictions(torch.zeros(3, 3))
        recorder.predictions(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample": []}, "no sample"),
        ({"sample": ["a"], "axes": ("n", "x")}, "axes"),
        ({"sample": ["a"], "axes": ("k", "m")}, "'n' among them"),
        ({"sample": ["a"], "axes": ("n", "k")}, "how long is k"),
        ({"sample": ["a"], "axes": ("n", "m"), "present": torch.ones(2, 2)}, "n is 1"),
        ({"sample": ["a"], "axes": ("n", "m"), "present": torch.ones(2)}, "would have the axes"),
        ({"sample": ["a"], "label": [1, 2]}, "1 samples and 2 values of label"),
        ({"sample": ["a"], "lable": [1]}, "did you mean 'label'"),
    ],
)
def test_announcements_that_do_not_fit_are_refused(arguments, message):
    with watching(Model()) as recorder, pytest.raises(RecordingError, match=message):
        recorder.samples(**arguments)


def test_announcing_outside_the_block_is_refused():
    recorder = watching(Model())
    with pytest.raises(RecordingError, match="inside the block"):
        recorder.samples(sample=["a"])
    assert isinstance(RecordingError(), UserError)


def test_an_exception_keeps_what_was_whole_and_comes_through():
    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt):
        watch(Model(), ["a"], x(), ["b"], x(), ["c"], x(), KeyboardInterrupt(), store=store)
    assert store.column("sample") == ["a", "b"]
    assert store.flushed == 2
    assert store.last is not None
    assert store.last.closed


def test_an_error_while_saving_does_not_hide_the_first():
    class Full(MemoryStore):
        def writer(self, *args, **kwargs):
            writer = super().writer(*args, **kwargs)
            writer.flush = lambda: (_ for _ in ()).throw(OSError("disk full"))
            return writer

    with pytest.raises(ZeroDivisionError) as caught:
        watch(Model(), ["a"], x(), ["b"], x(), ZeroDivisionError(), store=Full())
    assert "disk full" in caught.value.__notes__[0]


def test_a_failed_call_may_be_repeated():
    model = Model()
    store = MemoryStore()
    with watching(model, store) as recorder:
        recorder.samples(sample=["a"])
        last = model.layers[1].forward
        model.layers[1].forward = lambda x: (_ for _ in ()).throw(MemoryError)
        with pytest.raises(MemoryError):
            model(x())
        model.layers[1].forward = last
        model(x())
    assert store.maps("layers.1.attend").shape == (1, 2, 4, 4)


def test_flush_brings_the_call_just_made_to_the_disk():
    model = Model()
    store = MemoryStore()
    with watching(model, store) as recorder:
        recorder.samples(sample=["a"])
        model(x())
        assert store.flushed == 0
        recorder.flush()
        assert store.flushed == 1
        assert recorder.report().rows == 1
