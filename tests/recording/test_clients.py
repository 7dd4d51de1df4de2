"""Models that we did not write, each against the attention that it returns itself."""

from __future__ import annotations

import copy
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from unittest import mock

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperModel,
)

from tests.recording.watched import Watch, all_equal, assert_near, watch
from tssan_viz.recording import UnrecordableModel
from tssan_viz.recording.watching import find_sites

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}

CLIENTS = {
    "bert": (
        BertModel,
        BertConfig(vocab_size=50, intermediate_size=32, **SIZE),
        {"input_ids": IDS, "attention_mask": MASK},
        {"main": "attentions"},
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16),
        {"input_ids": IDS},
        {"main": "attentions"},
    ),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=32,
        ),
        {"input_ids": IDS, "attention_mask": MASK},
        {"main": "attentions"},
    ),
    "vit": (
        ViTModel,
        ViTConfig(image_size=16, patch_size=8, intermediate_size=32, **SIZE),
        {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))},
        {"main": "attentions"},
    ),
    "whisper": (
        WhisperModel,
        WhisperConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_mel_bins=8,
            max_source_positions=10,
            max_target_positions=10,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        {
            "input_features": torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(2)),
            "decoder_input_ids": IDS,
        },
        {
            "encoder": "encoder_attentions",
            "decoder": "decoder_attentions",
            "cross": "cross_attentions",
        },
    ),
}


def client(name, implementation):
    kind, config, inputs, streams = CLIENTS[name]
    torch.manual_seed(3)
    model = kind._from_config(copy.deepcopy(config), attn_implementation=implementation)
    return model.eval(), inputs, streams


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CLIENTS)
def test_transformers(name, implementation):
    model, inputs, streams = client(name, implementation)
    with torch.no_grad():
        plain = model(**inputs)
        output, calls = watch(model, **inputs)
        eager, _, _ = client(name, "eager")
        expected = eager(**inputs, output_attentions=True)
    assert torch.equal(plain[0], output[0])
    assert {call.site.stream for call in calls} == set(streams)
    for stream, field in streams.items():
        found = {call.site.layer: call for call in calls if call.site.stream == stream}
        assert sorted(found) == [1, 2]
        for layer, attention in enumerate(expected[field], start=1):
            # A query that is only padding sees nothing in some implementations, all in others.
            seen = found[layer].maps.sum(-1, keepdim=True) > 0
            assert seen.any(-2).all()
            found[layer].exact = found[layer].exact.where(seen, attention)
            found[layer].maps = found[layer].maps.where(seen, attention.half())
            assert_near(found[layer], attention)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_training_transformers_is_bitwise_the_same(name):
    def step(watched):
        model, inputs, _ = client(name, "sdpa")
        model.train()
        torch.manual_seed(4)
        with Watch(model) as watcher:
            watcher.awake = watched
            output = model(**inputs)[0]
        output.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return output, gradients, torch.get_rng_state(), len(watcher.calls)

    *plain, none = step(False)
    *watched, some = step(True)
    assert (none, some) == (0, 2)
    assert all_equal(plain, watched)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_transformers_with_flex_attention(name):
    model, inputs, _ = client(name, "flex_attention")
    with torch.no_grad():
        plain = model(**inputs)
        output, calls = watch(model, **inputs)
        eager, _, _ = client(name, "eager")
        expected = eager(**inputs, output_attentions=True).attentions
    assert torch.equal(plain[0], output[0])
    assert [call.site.layer for call in calls] == [1, 2]
    for call, attention in zip(calls, expected, strict=True):
        assert_near(call, attention)


def test_generation_records_every_token_with_its_own_keys():
    model, _, _ = client("llama", "sdpa")
    with torch.no_grad():
        plain = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0)
        with Watch(model) as watcher:
            output = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(plain, output)
    assert watcher.began == 3
    shapes = [tuple(call.maps.shape) for call in watcher.calls]
    assert shapes == [(2, 4, 7, 7)] * 2 + [(2, 4, 1, 8)] * 2 + [(2, 4, 1, 9)] * 2
    assert all((c.maps.float().sum(-1) - 1).abs().max() < 1e-3 for c in watcher.calls)


def test_another_implementation_is_refused_with_the_remedy():
    model, _, _ = client("bert", "eager")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UnrecordableModel, match=r'set_attn_implementation\("sdpa"\)'):
        find_sites(model)


def test_generation_with_a_mask_whose_queries_are_packed_by_key_heads():
    model, _, _ = client("llama", "sdpa")
    padded = {"input_ids": IDS, "attention_mask": MASK.flip(-1)}
    with torch.no_grad(), Watch(model) as watcher:
        model.generate(**padded, max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert [tuple(call.maps.shape) for call in watcher.calls[2:]] == [(2, 4, 1, 8)] * 2
    eager, _, _ = client("llama", "eager")
    with torch.no_grad(), Watch(eager) as expected:
        eager.generate(**padded, max_new_tokens=2, do_sample=False, pad_token_id=0)
    for found, other in zip(watcher.calls[2:], expected.calls[2:], strict=True):
        assert (found.exact - other.exact).abs().max() <= 1e-5
        assert (found.maps[1, ..., :3] == 0).all()


class Nothing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of torchvision that hold every name, and nothing behind it."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = lambda name: mock.MagicMock()


@pytest.fixture
def timm(monkeypatch):
    """timm, whose import asks for a torchvision that its vision transformers do not use."""
    if importlib.util.find_spec("torchvision") is None:
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Nothing()])
    yield importlib.import_module("timm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        if isinstance(sys.modules[name].__spec__.loader, Nothing):
            del sys.modules[name]


@pytest.mark.parametrize("fused", [True, False])
def test_timm(fused, timm):
    torch.manual_seed(5)
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3
    ).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    explicit = {}

    def keep(name):
        def hook(module, args):
            qkv = module.qkv(args[0]).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            explicit[name] = F.softmax(qkv[0] @ qkv[1].mT * module.scale, -1)

        return hook

    handles = [
        block.attn.register_forward_pre_hook(keep(f"blocks.{i}.attn"))
        for i, block in enumerate(model.blocks)
    ]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = model(x)
        for handle in handles:
            handle.remove()
        output, calls = watch(model, x)
    assert torch.equal(plain, output)
    assert [call.site.name for call in calls] == ["blocks.0.attn", "blocks.1.attn"]
    for call in calls:
        assert_near(call, explicit[call.site.name])
