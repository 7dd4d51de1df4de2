"""What a watcher finds, hears and leaves alone."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.recording.support import Model
from tests.recording.watched import Watch, all_equal, assert_near, watch
from tssan_viz.recording import UnrecordableModel
from tssan_viz.recording import probabilities as module
from tssan_viz.recording.watching import find_sites

# Neutrality ---------------------------------------------------------------------------------------


class Several(nn.Module):
    """TS-SAN's way, PyTorch's, and a plain fused call, one behind the other."""

    def __init__(self):
        super().__init__()
        self.san = Model(layers=1, dropout=0.2, fused=False)
        self.mixed = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.san.classifier = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.mixed(x)
        x = F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        return self.head(self.san(x))


def train(awake, autocast=None, steps=50):
    torch.manual_seed(0)
    model = Several().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    with Watch(model) as watcher:
        for step in range(steps):
            watcher.awake = awake
            x = torch.randn(4, 5, 8)
            with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=bool(autocast)):
                loss = F.cross_entropy(model(x).float(), torch.tensor([0, 1, 2, 0]))
            loss.backward()
            if step % 2:  # gradients of two batches are gathered
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    state = [losses, list(model.parameters()), torch.get_rng_state()]
    return state, watcher


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_fifty_training_steps_are_bitwise_the_same(autocast):
    plain, asleep = train(False, autocast)
    watched, awake = train(True, autocast)
    assert all_equal(plain, watched)
    assert asleep.calls == []
    assert asleep.began == awake.began == awake.ended == 50
    assert len(awake.calls) == 150
    assert all((c.maps.float().sum(-1) - 1).abs().max() < 1e-3 for c in awake.calls)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["attend", "multihead", "fused"])
def test_a_checkpoint_is_recorded_once(kind, reentrant):
    torch.manual_seed(1)
    parts = {
        "attend": lambda: Model(layers=1, dropout=0.2).layers[0],
        "multihead": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True),
        "fused": lambda: Fused(),
    }

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(parts[kind]() for _ in range(2))

        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant)
            return x

    model = Checkpointed().train()
    x = torch.randn(2, 5, 8, requires_grad=True)

    def step(awake):
        torch.manual_seed(2)
        x.grad = None
        with Watch(model) as watcher:
            watcher.awake = awake
            model(x).square().sum().backward()
        return x.grad, watcher

    plain, _ = step(False)
    watched, watcher = step(True)
    assert torch.equal(plain, watched)
    assert [call.site.layer for call in watcher.calls] == [1, 2]


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)[:, 0]


def test_each_thread_hears_its_own_calls():
    model = nn.Sequential(Fused(), Fused()).eval()
    inputs = [torch.randn(1, length, 8) for length in (3, 4, 5, 6)]
    outputs: dict[int, torch.Tensor] = {}
    with Watch(model) as watcher:

        def call(i):
            for _ in range(20):
                outputs[i] = model(inputs[i])

        threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lengths = [call.maps.shape[-1] for call in watcher.calls]
    assert {length: lengths.count(length) for length in set(lengths)} == dict.fromkeys(
        (3, 4, 5, 6), 40
    )
    for i, x in enumerate(inputs):
        assert torch.equal(outputs[i], model(x))


def test_nothing_is_left_behind_after_a_thousand_rounds():
    model = Several()
    names = (F.scaled_dot_product_attention, torch.softmax, torch.Tensor.softmax)
    attributes = [dict(vars(m)) for m in model.modules()]
    x = torch.randn(1, 4, 8)
    sites = find_sites(model)

    def rounds(count):
        for _ in range(count):
            with Watch(model):
                model(x)
        gc.collect()
        return len(gc.get_objects())

    before = rounds(50)
    after = rounds(1000)
    assert after - before < 50
    assert names == (F.scaled_dot_product_attention, torch.softmax, torch.Tensor.softmax)
    assert [dict(vars(m)) for m in model.modules()] == attributes
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert sites == find_sites(model)


def test_a_copy_made_while_watched_is_a_model_of_its_own():
    torch.manual_seed(3)
    model = Fused()
    x = torch.randn(1, 4, 8)
    with Watch(model) as watcher:
        for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            with torch.no_grad():
                made.qkv.weight.zero_()
            assert not torch.equal(made(x), model(x))
    assert len(watcher.calls) == 2
    assert "forward" not in vars(model)


def test_what_replaced_the_forward_since_stays():
    model = Fused()
    with Watch(model):
        watched = model.forward
        model.forward = lambda x: watched(x) * 2
    x = torch.randn(1, 4, 8)
    assert torch.equal(model(x), Fused.forward(model, x) * 2)


def test_an_error_of_the_model_and_one_of_the_recorder():
    model = Fused()
    with Watch(model) as watcher:
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 4, 7))
        assert (watcher.began, watcher.ended) == (1, 0)
        assert "built-in" in repr(F.scaled_dot_product_attention)

        def deliver(call):
            raise KeyError("full")

        watcher._deliver = deliver
        x = torch.randn(1, 4, 8)
        assert torch.equal(model(x), Fused.forward(model, x))
        assert isinstance(watcher.fault, KeyError)
        watcher.fault = None


def test_asleep_nothing_inside_the_model_is_touched():
    seen = []

    class Looks(Fused):
        def forward(self, x):
            seen.append(F.scaled_dot_product_attention)
            return super().forward(x)

    model = Looks()
    with Watch(model) as watcher:
        watcher.awake = False
        model(torch.randn(1, 4, 8))
        watcher.awake = True
        model(torch.randn(1, 4, 8))
    assert ["built-in" in repr(function) for function in seen] == [True, False]
    assert len(watcher.calls) == 1


# Sites --------------------------------------------------------------------------------------------


class Streams(nn.Module):
    def __init__(self):
        super().__init__()
        self.position_block = Model(layers=2)
        self.motion_block = Model(layers=2)

    def forward(self, x):
        return self.position_block(x) + self.motion_block(x)


def test_streams_of_two_blocks_are_counted_by_themselves():
    _, calls = watch(Streams(), torch.randn(2, 4, 8))
    assert [(c.site.name, c.site.stream, c.site.layer) for c in calls] == [
        ("position_block.layers.0.attend", "position", 1),
        ("position_block.layers.1.attend", "position", 2),
        ("motion_block.layers.0.attend", "motion", 1),
        ("motion_block.layers.1.attend", "motion", 2),
    ]


def test_sites_are_chosen_by_pattern_and_keep_their_layers():
    model = Streams()
    _, calls = watch(model, torch.randn(2, 4, 8), only=["motion*", "*.0.attend"])
    assert [(c.site.stream, c.site.layer) for c in calls] == [
        ("position", 1),
        ("motion", 1),
        ("motion", 2),
    ]
    with pytest.raises(UnrecordableModel, match=r"'motion_block\.layer\.0\.attend' \(the nearest"):
        find_sites(model, only="motion_block.layer.0.attend")


class ByHand(nn.Module):
    def __init__(self, softmax):
        super().__init__()
        self.qk = nn.Linear(8, 16)
        self.normal = nn.Softmax(dim=-1) if softmax == "module" else None
        self.softmax = softmax

    def forward(self, x):
        q, k = self.qk(x).chunk(2, -1)
        scores = q[:, None] @ k[:, None].mT / 8**0.5
        if self.normal is not None:
            p = self.normal(scores)
        elif self.softmax == "F.softmax":
            p = F.softmax(scores, dim=-1)
        elif self.softmax == "torch.softmax":
            p = torch.softmax(scores, -1)
        else:
            p = scores.softmax(dim=-1)
        return F.dropout(p, 0.5) @ x[:, None]


@pytest.mark.parametrize("softmax", ["module", "F.softmax", "torch.softmax", "method"])
def test_attention_that_is_written_out_is_recorded_when_its_softmax_is_named(softmax):
    torch.manual_seed(4)
    model = nn.ModuleDict({"layers": nn.ModuleList([ByHand(softmax)])})
    model.forward = lambda x: model["layers"][0](x)
    with pytest.raises(UnrecordableModel, match=r"softmax=\[.*taken by: layers\.0"):
        find_sites(model)
    x = torch.randn(2, 5, 8)
    name = "layers.*.normal" if softmax == "module" else "layers.*"
    _, (seen,) = watch(model, x, softmax=[name])
    q, k = model["layers"][0].qk(x).chunk(2, -1)
    assert_near(seen, (q @ k.mT / 8**0.5).softmax(-1)[:, None])
    assert seen.site.kind == "softmax"
    with pytest.raises(UnrecordableModel, match=r"'layers\.1\.normal'.*nearest is 'layers\.0"):
        find_sites(model, softmax=["layers.1.normal"])


class Signed(nn.Module):
    def __init__(self):
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x):
        return self.tanh(x @ x.mT) @ x


def test_a_map_that_is_no_probability_is_recorded_as_it_is_and_not_measured():
    x = torch.randn(2, 5, 8)
    _, (seen,) = watch(Signed(), x, softmax={"tanh": "signed"})
    assert_near(seen, torch.tanh(x @ x.mT)[:, None])
    assert (seen.site.kind, seen.site.provenance) == ("signed", "the named module's output")
    assert seen.measures.isnan().all()
    with pytest.raises(UnrecordableModel, match="tanh is 'tanhed'; it would be softmax, signed or"):
        find_sites(Signed(), softmax={"tanh": "tanhed"})


def test_attention_that_only_shows_when_it_is_called_is_a_new_site():
    class Hidden(nn.Module):
        def forward(self, x):
            function = getattr(F, "_".join(["scaled", "dot", "product", "attention"]))
            return function(x[:, None], x[:, None], x[:, None])[:, 0]

    model = nn.Sequential(Fused(), Hidden())
    assert [site.name for site in find_sites(model)] == ["0"]
    _, calls = watch(model, torch.randn(1, 4, 8))
    assert [(c.site.name, c.site.layer) for c in calls] == [("0", 1), ("1", 2)]
    model = nn.Sequential(Fused(), Fused(), Hidden())
    _, calls = watch(model, torch.randn(1, 4, 8), only="0")
    assert [c.site.name for c in calls] == ["0"]


def test_torchscript_is_refused():
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(UnrecordableModel, match="TorchScript"):
        find_sites(nn.Sequential(scripted, Fused()))


# What is computed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 4 * 7, 4 * 7 * 6, 4 * 7 * 6 * 2, 4 * 7 * 6 * 4 * 2])
@pytest.mark.parametrize("masked", ["no", "by row", "causal", "grouped"])
def test_turns_over_rows_heads_and_queries_do_not_show(budget, masked, monkeypatch):
    torch.manual_seed(5)
    q, k = torch.randn(3, 4, 6, 8), torch.randn(3, 2 if masked == "grouped" else 4, 7, 8)
    mask = None
    if masked == "by row":
        mask = torch.rand(3, 1, 6, 7) > 0.4
        mask[0, :, 2] = False
    scale = torch.rand(4, 1, 1) if masked == "grouped" else None
    source = module.Products(q, k, scale, mask, causal=masked == "causal")
    whole = module.maps_and_measures(source)
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", budget)
    maps, measures = module.maps_and_measures(source)
    assert torch.equal(whole[0], maps)
    assert torch.allclose(whole[1], measures, atol=1e-6, equal_nan=True)
    some = module.maps_and_measures(source, [3, 1])
    assert torch.equal(some[0], maps[:, [3, 1]])
    assert torch.allclose(some[1], measures[:, [3, 1]], atol=1e-6, equal_nan=True)


def test_a_long_sequence_needs_no_second_buffer(monkeypatch):
    largest = 0

    def watch_matmul(a, b, matmul=torch.matmul):
        nonlocal largest
        out = matmul(a, b)
        largest = max(largest, out.numel() * out.element_size())
        return out

    q, k = torch.randn(2, 1, 2, 2048, 4)
    monkeypatch.setattr(torch, "matmul", watch_matmul)
    maps, _ = module.maps_and_measures(module.Products(q, k))
    assert maps.nbytes == 2 * 2048 * 2048 * 2
    assert largest <= module.CHUNK_BYTES["cpu"]


def test_entropy_counts_the_keys_that_a_query_may_see():
    q = k = torch.zeros(1, 1, 4, 2)
    mask = torch.tensor([True, True, False, False])
    _, measures = module.maps_and_measures(module.Products(q, k, None, mask))
    assert measures[0, 0, 0].item() == pytest.approx(1)
    assert measures[0, 0, 3].item() == pytest.approx(0.5)
