"""The network against the paper's table, against written-out attention, and against itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from tssan.building import build_network
from tssan.network import Attend, CnnEncoder, Layer, SelfAttentionBlock, sinusoids
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe

PAPER = Recipe(name="paper")
SMALL = Recipe(
    name="small",
    clips=ClipsRecipe(frames=8, segments=3),
    network=NetworkRecipe(layers=2, heads=4, width=16),
)


def clips(recipe: Recipe, n: int = 2, v: int = 25, c: int = 3, seed: int = 0):
    shape = (n, recipe.clips.segments, recipe.clips.persons, recipe.clips.frames, v, c)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def small(**network) -> Recipe:
    return replace(SMALL, network=replace(SMALL.network, **network))


# Stage by stage as in section 3 of the notes on the paper, in PyTorch's order (N, C, H, W).
@pytest.mark.parametrize("frames", [32, 64, 96])
@pytest.mark.parametrize("joints", [25, 18])
def test_encoder_shapes_are_those_of_the_table(frames: int, joints: int) -> None:
    encoder = CnnEncoder(joints, 3, dropout=0.5, relu="first", batch_norm=False).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):

            def note(module: nn.Module, inputs, output, name: str = name) -> None:
                key = name if name not in seen else f"{name} again"
                seen[f"{key} in"], seen[key] = tuple(inputs[0].shape), tuple(output.shape)

            module.register_forward_hook(note)
    output = encoder(torch.zeros(5, frames, joints, 3))
    assert seen["conv1 in"] == (5, 3, frames, joints)
    assert seen["conv1"] == (5, 64, frames, joints)
    assert seen["conv2"] == (5, 32, frames, joints)
    assert seen["conv3 in"] == (5, joints, frames, 32)
    assert seen["conv3"] == (5, 32, frames, 32)
    assert seen["pool"] == (5, 32, frames, 16)
    assert seen["conv4"] == (5, 64, frames, 16)
    assert seen["pool again"] == (5, 64, frames, 8)
    assert output.shape == (5, frames, 512)


@pytest.mark.parametrize(("joints", "expected"), [(25, 32_160), (18, 30_144)])
def test_encoder_parameters_are_those_of_the_table(joints: int, expected: int) -> None:
    encoder = CnnEncoder(joints, 3, dropout=0.5, relu="first", batch_norm=False)
    assert sum(p.numel() for p in encoder.parameters()) == expected


def test_encoder_keeps_frames_apart_beyond_its_reach() -> None:
    """Three convolutions of three frames: a frame hears of its neighbours up to three away."""
    encoder = CnnEncoder(25, 3, dropout=0.0, relu="all", batch_norm=False).eval()
    x = torch.randn(1, 32, 25, 3)
    y = x.clone()
    y[:, 16] += 1
    changed = (encoder(x) != encoder(y)).any(dim=-1)[0].nonzero().flatten()
    assert changed.min() >= 13
    assert changed.max() <= 19
    assert 16 in changed


def test_relu_everywhere_leaves_nothing_negative() -> None:
    x = torch.randn(2, 32, 25, 3)
    assert (CnnEncoder(25, 3, dropout=0.0, relu="all", batch_norm=False)(x) >= 0).all()
    assert (CnnEncoder(25, 3, dropout=0.0, relu="first", batch_norm=False)(x) < 0).any()


def test_paper_network_has_54_74_million_parameters() -> None:
    with torch.device("meta"):
        network = build_network(PAPER, joints=25, coordinates=3, classes=60)
    assert sum(p.numel() for p in network.parameters()) == 54_738_812


@pytest.mark.parametrize(
    ("layers", "heads", "millions"), [(4, 4, 54.7), (2, 2, 27.5), (8, 8, 109.3)]
)
def test_other_sizes_have_the_parameters_of_the_table(
    layers: int, heads: int, millions: float
) -> None:
    recipe = replace(PAPER, network=NetworkRecipe(layers=layers, heads=heads))
    with torch.device("meta"):
        network = build_network(recipe, joints=25, coordinates=3, classes=60)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_attention_sees_rows_heads_frames_at_the_width_of_the_paper() -> None:
    network = build_network(PAPER, joints=25, coordinates=3, classes=60).eval()
    shapes = []
    for module in network.modules():
        if isinstance(module, Attend):
            module.register_forward_hook(lambda _, inputs, out: shapes.append(inputs[0].shape))
    with torch.no_grad():
        logits = network(*clips(PAPER, n=1))
    assert logits.shape == (1, 60)
    assert shapes == [(1 * 3 * 2, 8, 32, 128)] * 4  # d_head = 1024 / 8


def test_attend_has_no_parameter_and_is_called_attend() -> None:
    network = build_network(SMALL, joints=25, coordinates=3, classes=7)
    found = {n: m for n, m in network.named_modules() if isinstance(m, Attend)}
    assert list(found) == ["block.layers.0.attention.attend", "block.layers.1.attention.attend"]
    assert not any(list(m.parameters()) or list(m.buffers()) for m in found.values())


def test_fused_and_explicit_attention_agree() -> None:
    q, k, v = torch.randn(3, 6, 8, 32, 16).unbind()
    fused, explicit = Attend(0.2).eval(), Attend(0.2, fused=False).eval()
    torch.testing.assert_close(fused(q, k, v), explicit(q, k, v), atol=1e-6, rtol=0)


def test_fused_and_explicit_networks_agree_in_output_and_gradient() -> None:
    networks = []
    for fused in (True, False):
        torch.manual_seed(3)
        networks.append(
            build_network(
                small(dropout=0.0, encoder_dropout=0.0, classifier_dropout=0.0),
                joints=25,
                coordinates=3,
                classes=7,
                fused=fused,
            ).double()
        )
    position, motion = (x.double() for x in clips(SMALL))
    outputs = [network(position, motion) for network in networks]
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=0)
    for output in outputs:
        output.square().sum().backward()
    for one, other in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-6)


def test_dropout_falls_on_the_probabilities() -> None:
    """With v the identity, the output is the probabilities: dropped to 0 or scaled by 1 / keep."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 64, 2, 16, 16).unbind()
    v = torch.eye(16).expand(64, 2, 16, 16)
    for fused in (True, False):
        attend = Attend(0.25, fused=fused)
        whole = attend.eval()(q, k, v)
        torch.testing.assert_close(whole.sum(-1), torch.ones(64, 2, 16))
        dropped = attend.train()(q, k, v)
        zero = dropped == 0
        assert zero.float().mean() == pytest.approx(0.25, abs=0.02)
        torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)


def test_layer_equals_pytorchs_own() -> None:
    """The same weights in `torch.nn.TransformerEncoderLayer` give the same numbers."""
    for norm in ("post", "pre"):
        ours = Layer(16, 4, feed_forward=64, dropout=0.0, norm=norm, fused=True).eval()
        theirs = nn.TransformerEncoderLayer(
            16, 4, 64, dropout=0.0, batch_first=True, norm_first=norm == "pre"
        ).eval()
        theirs.self_attn.in_proj_weight = ours.attention.qkv.weight
        theirs.self_attn.in_proj_bias = ours.attention.qkv.bias
        theirs.self_attn.out_proj = ours.attention.out
        theirs.linear1, theirs.linear2 = ours.feed_forward[0], ours.feed_forward[3]
        theirs.norm1, theirs.norm2 = ours.attention_norm, ours.feed_forward_norm
        x = torch.randn(3, 8, 16)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_block_joins_all_layers_and_means_over_frames() -> None:
    block = SelfAttentionBlock(
        16,
        4,
        frames=8,
        layers=3,
        feed_forward=64,
        dropout=0.0,
        norm="post",
        position_embedding="learned",
        fused=True,
    ).eval()
    x = torch.randn(5, 8, 16)
    outputs = [x + block.position]
    for layer in block.layers:
        outputs.append(layer(outputs[-1]))
    pooled = torch.cat(outputs[1:], dim=-1).mean(dim=1)
    assert pooled.shape == (5, 48)
    torch.testing.assert_close(block(x), F.relu(block.fully_connected(pooled)))


def test_positions_tell_frames_apart() -> None:
    """Without the table, attention and mean are blind to the order of the encoder's features."""
    block = SelfAttentionBlock(
        16,
        4,
        frames=8,
        layers=2,
        feed_forward=64,
        dropout=0.0,
        norm="post",
        position_embedding="sinusoidal",
        fused=True,
    ).eval()
    x = torch.randn(1, 8, 16)
    assert not torch.allclose(block(x), block(x.flip(1)), atol=1e-4)
    block.position.zero_()
    torch.testing.assert_close(block(x), block(x.flip(1)), atol=1e-5, rtol=1e-5)


def test_sinusoids_are_those_of_the_formula() -> None:
    table = sinusoids(32, 16)
    assert table[5, 6] == pytest.approx(torch.tensor(5 / 10_000 ** (6 / 16)).sin().item(), abs=1e-6)
    assert table[5, 7] == pytest.approx(torch.tensor(5 / 10_000 ** (6 / 16)).cos().item(), abs=1e-6)


def test_rows_are_samples_then_segments_then_persons() -> None:
    """Changing one (n, k, m) changes the features of the row n·K·M + k·M + m and of no other."""
    network = build_network(SMALL, joints=25, coordinates=3, classes=7).eval()
    rows = []
    network.block.register_forward_hook(lambda _, inputs, out: rows.append(out))
    position, motion = clips(SMALL, n=2)
    changed = position.clone()
    changed[1, 2, 0] += 1
    with torch.no_grad():
        network(position, motion)
        network(changed, motion)
    differs = (rows[0] != rows[1]).any(dim=1).nonzero().flatten().tolist()
    assert differs == [1 * 6 + 2 * 2 + 0]


@pytest.mark.parametrize("consensus", ["avg", "max"])
def test_consensus_joins_the_logits_of_single_segments(consensus: str) -> None:
    network = build_network(small(consensus=consensus), joints=25, coordinates=3, classes=7).eval()
    position, motion = clips(SMALL)
    with torch.no_grad():
        single = torch.stack(
            [network(position[:, k : k + 1], motion[:, k : k + 1]) for k in range(3)], dim=1
        )
        joined = single.mean(1) if consensus == "avg" else single.amax(1)
        torch.testing.assert_close(network(position, motion), joined, atol=1e-5, rtol=1e-5)


def test_persons_may_change_places() -> None:
    network = build_network(SMALL, joints=25, coordinates=3, classes=7).eval()
    position, motion = clips(SMALL)
    with torch.no_grad():
        torch.testing.assert_close(
            network(position, motion), network(position.flip(2), motion.flip(2))
        )


def test_absent_person_counts_only_where_the_recipe_lets_it() -> None:
    position, motion = clips(SMALL)
    position[:, :, 1], motion[:, :, 1] = 0, 0
    present = torch.ones(2, 3, 2, dtype=torch.bool)
    present[:, :, 1] = False
    for mask in (True, False):
        torch.manual_seed(1)
        network = build_network(
            small(mask_absent_person=mask), joints=25, coordinates=3, classes=7
        ).eval()
        nn.init.ones_(network.block.fully_connected.bias)  # what a zero skeleton brings along
        with torch.no_grad():
            both = network(position, motion, present)
            alone = network(position[:, :, :1], motion[:, :, :1], present[:, :, :1])
        assert torch.allclose(both, alone, atol=1e-6) == mask


def test_nobody_at_all_still_gives_numbers() -> None:
    network = build_network(small(mask_absent_person=True), joints=25, coordinates=3, classes=7)
    zero = torch.zeros(2, 3, 2, 8, 25, 3)
    assert network(zero, zero, torch.zeros(2, 3, 2, dtype=torch.bool)).isfinite().all()


def test_initial_weights_are_xavier_and_biases_zero() -> None:
    network = build_network(SMALL, joints=25, coordinates=3, classes=7)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
    bound = (6 / (16 + 16)) ** 0.5  # of a square matrix of width 16, not of the 48 × 16 one
    for part in network.block.layers[0].attention.qkv.weight.chunk(3):
        assert 0.8 * bound < part.abs().max() <= bound
    assert network.block.position.std().item() == pytest.approx(0.02, rel=0.2)


def test_same_seed_same_network() -> None:
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        states.append(build_network(SMALL, joints=25, coordinates=3, classes=7).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_learns_a_tiny_batch_by_heart(norm: str) -> None:
    torch.manual_seed(0)
    recipe = small(norm=norm, dropout=0.0, encoder_dropout=0.0, classifier_dropout=0.0)
    network = build_network(recipe, joints=25, coordinates=3, classes=7)
    position, motion = clips(recipe, n=7)
    labels = torch.arange(7)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(position, motion), labels)
        loss.backward()
        optimizer.step()
    assert (network(position, motion).argmax(1) == labels).all()
    assert loss < 0.2


def test_two_coordinates_and_one_person_work() -> None:
    recipe = replace(SMALL, clips=replace(SMALL.clips, persons=1, segments=1))
    network = build_network(recipe, joints=18, coordinates=2, classes=400)
    assert network(*clips(recipe, v=18, c=2)).shape == (2, 400)
