"""HCN against the layers and the size that its public implementations have."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from tssan.building import build_network
from tssan.errors import DataError
from tssan.hcn import HCN, Stream
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe, load_recipe


def recipe(frames: int = 32, segments: int = 1, **network) -> Recipe:
    return Recipe(
        name="hcn",
        clips=ClipsRecipe(frames=frames, segments=segments),
        network=NetworkRecipe(variant="hcn", **network),
    )


def clips(made: Recipe, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, n, made.clips.segments, 2, made.clips.frames, 25, 3)
    position, motion = torch.randn(shape, generator=generator).unbind()
    return position, motion


def test_shapes_are_those_of_its_layers() -> None:
    network = build_network(load_recipe("hcn"), joints=25, coordinates=3, classes=60).eval()
    assert isinstance(network, HCN)
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.Linear) and "motion" not in name:

            def note(module: nn.Module, inputs, output, name: str = name) -> None:
                seen.append((name.removeprefix("position_stream."), tuple(output.shape)))

            module.register_forward_hook(note)
    with torch.no_grad():
        assert network(*clips(load_recipe("hcn"))).shape == (2, 60)
    r = 2 * 2  # samples × persons
    assert seen == [
        ("conv1", (r, 64, 64, 25)),
        ("conv2", (r, 32, 64, 25)),
        ("conv3", (r, 32, 64, 32)),
        ("pool", (r, 32, 32, 16)),
        ("conv4", (r, 64, 32, 16)),
        ("pool", (r, 64, 16, 8)),
        ("conv5", (r, 128, 16, 8)),
        ("pool", (r, 128, 8, 4)),
        ("conv6", (r, 256, 8, 4)),
        ("pool", (r, 256, 4, 2)),
        ("fc7", (2, 1, 256)),
        ("fc8", (2, 1, 60)),
    ]


@pytest.mark.parametrize(("frames", "expected"), [(64, 1_047_036), (32, 784_892)])
def test_it_has_about_a_million_parameters(frames: int, expected: int) -> None:
    network = build_network(recipe(frames), joints=25, coordinates=3, classes=60)
    derived = (
        2 * ((3 + 1) * 64 + (64 * 3 + 1) * 32 + (25 * 9 + 1) * 32 + (32 * 9 + 1) * 64)
        + (128 * 9 + 1) * 128
        + (128 * 9 + 1) * 256
        + (256 * (frames // 16) * 2 + 1) * 256
        + (256 + 1) * 60
    )
    assert sum(p.numel() for p in network.parameters()) == derived == expected


def test_streams_begin_as_the_self_attention_networks_encoder_does() -> None:
    """The same two convolutions and joints as channels; only then the pools differ."""
    from tssan.network import CnnEncoder

    ours = CnnEncoder(25, 3, dropout=0.0, relu="first", batch_norm=False)
    stream = Stream(25, 3, dropout=0.0)
    stream.load_state_dict(ours.state_dict())
    x = torch.randn(2, 32, 25, 3)
    features = ours(x).unflatten(2, (64, 8))  # (r, t, 64, 8)
    assert stream(x).shape == (2, 64, 8, 8)
    first = x.permute(0, 3, 1, 2)
    first = stream.conv2(F.relu(stream.conv1(first))).permute(0, 3, 2, 1)
    torch.testing.assert_close(
        F.max_pool2d(ours.conv4(F.max_pool2d(ours.conv3(first), (1, 2))), (1, 2)),
        features.transpose(1, 2),
    )


def test_persons_may_change_places_and_absent_ones_may_be_left_out() -> None:
    made = recipe(mask_absent_person=True)
    network = build_network(made, joints=25, coordinates=3, classes=5).eval()
    position, motion = clips(made)
    present = torch.tensor([[[True, False]], [[True, True]]])
    with torch.no_grad():
        torch.testing.assert_close(
            network(position, motion), network(position.flip(2), motion.flip(2))
        )
        noise = position.clone()
        noise[0, :, 1] = 9.0
        torch.testing.assert_close(
            network(position, motion, present), network(noise, motion, present)
        )


def test_segments_and_loss_are_those_of_every_network() -> None:
    made = recipe(frames=16, segments=3)
    network = build_network(made, joints=25, coordinates=3, classes=5)
    every = network(*clips(made), every_classifier=True)
    assert every.shape == (1, 2, 5)
    network.loss(every, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_too_short_clips_and_fields_of_attention_are_refused() -> None:
    with pytest.raises(DataError, match=r"clips\.frames: 8 must be at least 16"):
        build_network(recipe(8), joints=25, coordinates=3, classes=5)
    with pytest.raises(DataError, match=r"layers: 2 would change nothing; hcn does not read it"):
        recipe(layers=2)
