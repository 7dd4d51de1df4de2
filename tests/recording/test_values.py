"""What is recorded: probabilities before dropout, their measures, and which row is which."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from tests.recording.support import CATALOGUE, MemoryStore, Model, watch_calls
from tssan_viz.recording import attention_probabilities, map_measures, record
from tssan_viz.recording import probabilities as module
from tssan_viz.store import open_store
from tssan_viz.store.schema import Site, StoredSample

MEASURES = ("entropy", "distance", "look_ahead", "peak")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_maps_are_the_softmax_before_dropout(fused, train):
    torch.manual_seed(0)
    model = Model(layers=3, dropout=0.5, fused=fused).train(train)
    explicit = watch_calls(model)
    store = MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        for batch in range(3):
            recorder.samples(sample=[f"{batch}a", f"{batch}b"], axes=("n", "k"), sizes={"k": 2})
            model(torch.randn(2, 2, 7, 8) * 3)
    assert [site.name for site in recorder.sites] == [f"layers.{i}.attend" for i in range(3)]
    for site in recorder.sites:
        found = store.maps(site.name)
        assert found.dtype == np.float16
        assert found.shape == (12, 2, 7, 7)
        expected = torch.cat(explicit[site.name]).numpy()
        assert np.abs(found - expected).max() <= 2.5e-4
        assert np.abs(found.astype(np.float64).sum(-1) - 1).max() < 1e-3


@given(
    shape=st.tuples(*[st.integers(1, n) for n in (5, 3, 9, 9, 6)]),
    size=st.sampled_from([0.1, 1.0, 8.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_probabilities_equal_an_explicit_softmax(shape, size, dtype, seed):
    r, h, n_q, n_s, d = shape
    generator = torch.Generator().manual_seed(seed)
    q = (torch.randn(r, h, n_q, d, generator=generator) * size).to(dtype)
    k = torch.randn(r, h, n_s, d, generator=generator).to(dtype)
    p = attention_probabilities(q, k)
    assert p.dtype == torch.float32
    scores = q.double().numpy() @ k.double().numpy().swapaxes(-1, -2) / math.sqrt(d)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    assert np.abs(p.numpy() - e / e.sum(-1, keepdims=True)).max() <= 1e-6
    assert np.abs(p.double().numpy().sum(-1) - 1).max() <= 1e-6


@pytest.mark.parametrize("scale", [0.25, torch.tensor([[[0.5]], [[2.0]]])])
def test_a_scale_of_the_module_is_used(scale):
    torch.manual_seed(1)
    model = Model(layers=1)
    model.layers[0].attend.scale = scale
    seen = []
    model.layers[0].attend.register_forward_hook(lambda m, args, out: seen.append(args))
    store = MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"])
        model(torch.randn(1, 6, 8))
    q, k, _ = seen[0]
    expected = torch.softmax(q @ k.mT * scale, -1).detach().numpy()
    assert np.abs(store.maps("layers.0.attend") - expected).max() <= 2.5e-4


def test_under_autocast_the_calls_own_q_and_k_are_used():
    torch.manual_seed(2)
    model = Model(layers=1)
    seen = []
    model.layers[0].attend.register_forward_hook(lambda m, args, out: seen.append(args))
    store = MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.randn(1, 6, 8) * 4)
    q, k, _ = seen[0]
    assert q.dtype == torch.bfloat16
    expected = torch.softmax(q.double() @ k.double().mT / 2, -1).detach().numpy()
    assert np.abs(store.maps("layers.0.attend") - expected).max() <= 2.5e-4


@given(
    rows=st.integers(1, 3),
    heads=st.integers(1, 3),
    n=st.integers(1, 12),
    size=st.floats(0.01, 20),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_measures_follow_their_formulas(rows, heads, n, size, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.softmax(torch.randn(rows, heads, n, n, generator=generator) * size, -1)
    found = dict(zip(MEASURES, map_measures(p).unbind(-1), strict=True))
    a = p.double().numpy()
    for r in range(rows):
        for h in range(heads):
            expected = dict.fromkeys(MEASURES, 0.0)
            for i in range(n):
                row = a[r, h, i]
                expected["entropy"] += scipy_entropy(row) / math.log(n) / n if n > 1 else 0
                expected["distance"] += sum(row[j] * abs(j - i) for j in range(n)) / n
                expected["look_ahead"] += sum(row[j] * (j - i) for j in range(n)) / n
                expected["peak"] += row.max() / n
            for name, value in expected.items():
                assert found[name][r, h].item() == pytest.approx(value, abs=2e-5), name


def test_measures_of_known_maps():
    n = 8
    uniform = torch.full((1, 1, n, n), 1 / n)
    diagonal = torch.eye(n)[None, None]
    ahead = torch.eye(n).roll(1, dims=1)[None, None]
    ahead[0, 0, -1] = torch.eye(n)[-1]
    assert torch.allclose(map_measures(uniform)[0, 0, [0, 2, 3]], torch.tensor([1, 0, 1 / n]))
    assert torch.allclose(map_measures(diagonal)[0, 0], torch.tensor([0.0, 0, 0, 1]))
    assert torch.allclose(map_measures(ahead)[0, 0], torch.tensor([0, 7 / 8, 7 / 8, 1.0]))
    assert torch.allclose(map_measures(ahead.mT)[0, 0, 2], torch.tensor(-7 / 8), atol=1e-6)
    assert map_measures(torch.full((1, 1, 2, 3), 1 / 3))[0, 0].isnan().tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_chunks_do_not_show(monkeypatch):
    torch.manual_seed(3)
    q, k = torch.randn(2, 9, 2, 5, 4)
    whole = module.maps_and_measures(module.Products(q, k))
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 4 * 2 * 25 * 2)
    parts = module.maps_and_measures(module.Products(q, k))
    assert torch.equal(whole[0], parts[0])
    assert torch.allclose(whole[1], parts[1], atol=1e-6)


@given(
    axes=st.permutations(["n", "k", "m"]).flatmap(
        lambda order: st.integers(1, 3).map(lambda count: tuple(order[:count]))
    ),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_rows_are_samples_segments_and_persons_in_the_order_of_the_axes(axes, data):
    axes = axes if "n" in axes else (*axes, "n")
    sizes = tuple(data.draw(st.integers(1, 3)) for _ in axes)
    count = math.prod(sizes)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    mask = mask.reshape(sizes)
    names = [f"s{i}" for i in range(sizes[axes.index("n")])]
    model = Model(layers=1)
    explicit = watch_calls(model)
    store = MemoryStore()
    with record(model, store, run="r", catalogue=CATALOGUE, split="test") as recorder:
        recorder.samples(
            sample=names, label=list(range(len(names))), subject=5, axes=axes, present=mask
        )
        model(torch.randn(*sizes, 4, 8))
    expected = [
        (
            names[at["n"]],
            at["n"],
            at["k"] + 1 if "k" in at else 1,
            at["m"] + 1 if "m" in at else None,
            None if at.get("m", 0) else 5,
            "test",
        )
        for index in np.ndindex(*sizes)
        if mask[index]
        for at in [dict(zip(axes, index, strict=True))]
    ]
    columns = ("sample", "label", "segment", "person", "subject", "split")
    assert list(zip(*(store.column(c) for c in columns), strict=True)) == expected
    if expected:
        probabilities = explicit["layers.0.attend"][0].numpy()[mask.reshape(-1)]
        assert np.abs(store.maps("layers.0.attend") - probabilities).max() <= 2.5e-4
        assert store.measure("peak", "layers.0.attend").shape == (len(expected), 2)
    report = recorder.report()
    assert (report.rows, report.absent) == (len(expected), count - len(expected))
    assert report.maps_due == report.maps_recorded == 1


def test_a_mask_changed_after_the_announcement_does_not_matter():
    present = torch.tensor([[True, False]])
    store = MemoryStore()
    model = Model()
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"], axes=("n", "m"), present=present)
        present.fill_(True)
        model(torch.randn(1, 2, 4, 8))
    assert store.column("person") == [1]


def test_an_absent_person_may_be_nan_and_is_dropped():
    store = MemoryStore()
    model = Model()
    x = torch.randn(1, 2, 4, 8)
    x[0, 1] = math.nan
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a"], axes=("n", "m"), present=torch.tensor([[True, False]]))
        model(x)
    assert np.isfinite(store.maps("layers.1.attend")).all()


def test_predictions_go_with_every_row_of_their_sample():
    model = Model()
    store = MemoryStore()
    logits = torch.tensor([[0.0, 3.0, 0.0], [5.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    with record(model, store, run="r", catalogue=CATALOGUE, phase="probe", step=7) as recorder:
        recorder.samples(
            sample=["a", "b", "c"],
            label=torch.tensor([1, 2, 2]),
            class_name=np.array(["read", "sit", "sit"]),
            camera=[1, math.nan, np.int64(3)],
            axes=("n", "k"),
            sizes={"k": 2},
        )
        model(torch.randn(3, 2, 4, 8))
        recorder.predictions(logits)
    assert store.column("predicted") == [1, 1, 0, 0, 2, 2]
    expected = np.repeat(torch.softmax(logits, -1).amax(-1).numpy(), 2)
    assert store.column("confidence") == pytest.approx(expected.tolist())
    assert store.column("camera") == [1, 1, None, None, 3, 3]
    assert store.column("phase") == ["probe"] * 6
    assert store.column("step") == [7] * 6


@pytest.mark.parametrize("known", [{"label": [1, 2, 2]}, {"class_name": ["read", "sit", "sit"]}])
def test_whether_a_prediction_is_right_is_known_by_label_or_class_name(tmp_path, known):
    model = Model()
    store = open_store(tmp_path / "store", create=True)
    with record(model, store, run="r", catalogue=CATALOGUE) as recorder:
        recorder.samples(sample=["a", "b", "c"], axes=("n", "k"), sizes={"k": 2}, **known)
        model(torch.randn(3, 2, 4, 8))
        recorder.predictions(torch.tensor([[0.0, 3.0, 0.0], [5.0, 0.0, 1.0], [0.0, 0.0, 2.0]]))
    rows = store.rows("r")
    assert rows["correct"].tolist() == [True, True, False, False, True, True]
    assert rows["label"].tolist() == [1, 1, 2, 2, 2, 2]


def test_what_holds_for_the_run_is_handed_on_once():
    store = MemoryStore()
    model = Model(layers=2, heads=4)
    stored = StoredSample("a", 0, "wave", "A01", 1, 1, frames=np.zeros((1, 4), np.float32))
    with record(model, store, run="mine", catalogue=CATALOGUE, info={"seed": 1}) as recorder:
        for step in range(3):
            recorder.samples(sample=["a"], step=step, stored=[stored])
            model(torch.randn(1, 4, 8))
    assert store.samples == [stored]
    assert store.column("step") == [0, 1, 2]
    how = "recomputed from the call's own q and k"
    sites = [Site(f"layers.{i}.attend", i + 1, 4, 4, 4, provenance=how) for i in range(2)]
    assert store.writers == [("mine", sites, CATALOGUE, {"seed": 1})]
    assert recorder.sites == sites
    assert store.last is not None
    assert store.last.closed
