"""SAN-V1, SAN-V2 and SAN-V3 with either encoder: their sizes, and what each of them means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tssan.building import build_network
from tssan.network import (
    Attend,
    CnnEncoder,
    FeedForwardEncoder,
    SkeletonNetwork,
    join_persons,
    mean_of_softmax,
)
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe

VARIANTS = ("san-v1", "san-v2", "san-v3")
SIZES = {"joints": 7, "coordinates": 3, "classes": 5}


def recipe(segments: int = 3, frames: int = 8, persons: int = 2, **network) -> Recipe:
    return Recipe(
        name="small",
        clips=ClipsRecipe(frames=frames, segments=segments, persons=persons),
        network=NetworkRecipe(**{"layers": 2, "heads": 4, "width": 16} | network),
    )


def build(made: Recipe, *, fused: bool = True, seed: int = 0) -> SkeletonNetwork:
    torch.manual_seed(seed)
    return build_network(made, fused=fused, **SIZES)


def clips(made: Recipe, n: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    c = made.clips
    generator = torch.Generator().manual_seed(seed)
    position, motion = torch.randn(
        2, n, c.segments, c.persons, c.frames, 7, 3, generator=generator
    ).unbind()
    return position, motion


def still(**network) -> dict:
    """Add what turns all dropout off, so that two forward passes can be compared."""
    return {"dropout": 0.0, "encoder_dropout": 0.0, "classifier_dropout": 0.0} | network


# Derived from the choices by hand: millions of parameters, GFLOP of one sample of two persons. Two
# layers of two heads come to 27.449 million, which some notes on the paper round to 27.5.
@pytest.mark.parametrize(
    ("clip", "network", "millions", "gigaflop"),
    [
        ({}, {"variant": "san-v1", "encoder": "ff"}, 13.86, 0.83),
        ({}, {"variant": "san-v1"}, 13.75, 0.89),
        ({}, {"variant": "san-v2", "encoder": "ff"}, 54.75, 6.50),
        ({}, {"variant": "san-v2"}, 54.74, 6.67),
        ({}, {"variant": "san-v3", "encoder": "ff"}, 27.55, 1.64),
        ({}, {"variant": "san-v3"}, 27.54, 1.81),
        ({"frames": 96}, {"variant": "san-v2"}, 54.80, 20.2),
        ({"frames": 96}, {"variant": "san-v3"}, 27.60, 5.5),
        ({"segments": 3}, {}, 54.7, 20.0),
        ({"segments": 3}, {"heads": 4}, 54.7, 20.0),
        ({"segments": 3}, {"layers": 2, "heads": 2}, 27.4, 10.3),
        ({"segments": 3}, {"layers": 8}, 109.3, 39.5),
        ({"segments": 3}, {"variant": "san-v3"}, 27.5, 5.4),
        ({"segments": 3, "joints": 18, "classes": 400}, {"layers": 8}, 109.7, 39.4),
    ],
)
def test_sizes_are_those_of_the_notes(
    clip: dict, network: dict, millions: float, gigaflop: float
) -> None:
    joints, classes = clip.pop("joints", 25), clip.pop("classes", 60)
    made = Recipe(
        name="x", clips=ClipsRecipe(**{"segments": 1} | clip), network=NetworkRecipe(**network)
    )
    with torch.device("meta"):
        built = build_network(made, joints=joints, coordinates=3, classes=classes).eval()
        x = torch.empty(1, made.clips.segments, 2, made.clips.frames, joints, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built(x, x)

    def rounding(number: float) -> float:
        return 0.5 * 10 ** -len(str(number).partition(".")[2]) + 1e-9

    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(
        millions, abs=rounding(millions)
    )
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflop, abs=rounding(gigaflop))


@pytest.mark.parametrize(
    ("variant", "encoder", "exactly"),
    [
        ("san-v1", "cnn", 39_552 + 13_705_788),
        ("san-v1", "ff", 300 * 512 + 512 + 13_705_788),
        ("san-v2", "ff", 54_738_812 - 2 * 32_160 + 2 * (75 * 512 + 512)),
    ],
)
def test_only_the_encoder_differs_between_encoders(
    variant: str, encoder: str, exactly: int
) -> None:
    """13,705,788: four layers of 12 d² + 13 d, the table, 4 d² + d, the classifier, for d = 512."""
    layer = 12 * 512**2 + 13 * 512
    assert 4 * layer + 32 * 512 + 4 * 512**2 + 512 + 60 * 512 + 60 == 13_705_788
    made = Recipe(name="x", network=NetworkRecipe(variant=variant, encoder=encoder))
    with torch.device("meta"):
        built = build_network(made, joints=25, coordinates=3, classes=60)
    assert sum(p.numel() for p in built.parameters()) == exactly


def test_early_fusion_sees_both_persons_joints_as_channels() -> None:
    with torch.device("meta"):
        built = build_network(
            Recipe(name="x", network=NetworkRecipe(variant="san-v1")),
            joints=25,
            coordinates=3,
            classes=60,
        )
    encoder = built.encoder
    assert isinstance(encoder, CnnEncoder)
    assert encoder.conv1.in_channels == 6
    assert encoder.conv3.in_channels == 50
    assert sum(p.numel() for p in encoder.parameters()) == 39_552


def test_early_fusion_lays_persons_side_by_side() -> None:
    made = recipe(variant="san-v1")
    network = build(made).eval()
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    position, motion = clips(made)
    with torch.no_grad():
        network(position, motion)
    (x,) = seen
    assert x.shape == (2 * 3, 8, 2 * 7, 6)
    row, t, m, v = 1 * 3 + 2, 5, 1, 4
    wanted = torch.cat([position[1, 2, m, t, v], motion[1, 2, m, t, v]])
    assert torch.equal(x[row, t, m * 7 + v], wanted)


def test_feed_forward_encoder_is_a_linear_layer_and_a_relu() -> None:
    encoder = FeedForwardEncoder(7, 3, width=12, layers=1, dropout=0.5).eval()
    x = torch.randn(2, 8, 7, 3)
    (linear,) = encoder.layers
    torch.testing.assert_close(encoder(x), F.relu(linear(x.reshape(2, 8, 21))))
    deep = FeedForwardEncoder(7, 3, width=12, layers=3, dropout=0.5)
    assert [(layer.in_features, layer.out_features) for layer in deep.layers] == [
        (21, 12),
        (12, 12),
        (12, 12),
    ]


def test_encoder_width_and_depth_are_the_recipes() -> None:
    made = Recipe(name="x", network=NetworkRecipe(encoder="ff", ff_dim=256, ff_layers=2, heads=8))
    with torch.device("meta"):
        built = build_network(made, joints=25, coordinates=3, classes=60)
    assert len(built.position_encoder.layers) == 2
    assert built.classifier.in_features == 512  # two streams of 256


def test_batch_norm_is_off_unless_asked_for() -> None:
    def norms(**network) -> int:
        return sum(isinstance(m, nn.BatchNorm2d) for m in build(recipe(**network)).modules())

    assert norms() == 0
    assert norms(encoder_batch_norm=True) == 2 * 4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("encoder", ["cnn", "ff"])
def test_fused_and_explicit_attention_agree(variant: str, encoder: str) -> None:
    made = recipe(**still(variant=variant, encoder=encoder))
    position, motion = (x.double() for x in clips(made))
    networks = [build(made, fused=fused).double() for fused in (True, False)]
    every = [network(position, motion, every_classifier=True) for network in networks]
    torch.testing.assert_close(*every, atol=1e-9, rtol=0)
    labels = torch.tensor([0, 3])
    for network, one in zip(networks, every, strict=True):
        network.loss(one, labels).backward()
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(
    ("variant", "fusion", "names", "rows"),
    [
        ("san-v1", "pre", ["block"], 6),
        ("san-v2", "pre", ["block"], 12),
        ("san-v3", "pre", ["position_block", "motion_block"], 6),
        ("san-v3", "post", ["position_block", "motion_block"], 12),
    ],
)
def test_attention_sites_and_their_rows(
    variant: str, fusion: str, names: list[str], rows: int
) -> None:
    """Sites are called `attend`; rows are samples × segments, × persons until those are joined."""
    made = recipe(variant=variant, v3_person_fusion=fusion)
    network = build(made).eval()
    sites = {name: m for name, m in network.named_modules() if isinstance(m, Attend)}
    assert list(sites) == [f"{b}.layers.{i}.attention.attend" for b in names for i in (0, 1)]
    shapes = []
    for module in sites.values():
        module.register_forward_hook(lambda _, inputs, out: shapes.append(inputs[0].shape))
    with torch.no_grad():
        network(*clips(made))
    assert shapes == [(rows, 4, 8, 4)] * len(sites)
    assert network.row_axes == (("n", "k", "m") if rows == 12 else ("n", "k"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_segment_is_the_plain_network(variant: str) -> None:
    """Consensus over one segment changes nothing; the weights are the same for any number."""
    plain, segmented = recipe(1, variant=variant), recipe(3, variant=variant)
    network, larger = build(plain).eval(), build(segmented).eval()
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), larger.state_dict().values(), strict=True)
    )
    position, motion = clips(segmented)
    with torch.no_grad():
        single = [network(position[:, [k]], motion[:, [k]]) for k in range(3)]
        same = [larger(position[:, [k] * 3], motion[:, [k] * 3]) for k in range(3)]
    for one, other in zip(single, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("consensus", "of"), [("avg", "logits"), ("max", "logits"), ("avg", "probabilities")]
)
def test_consensus_joins_each_classifiers_segments(variant: str, consensus: str, of: str) -> None:
    made = recipe(variant=variant, consensus=consensus, consensus_of=of)
    network = build(made).eval()
    position, motion = clips(made)
    with torch.no_grad():
        single = torch.stack(
            [
                network(position[:, [k]], motion[:, [k]], every_classifier=True).double()
                for k in range(3)
            ]
        )
        joined = network(position, motion, every_classifier=True).double()
    if of == "probabilities":
        torch.testing.assert_close(joined.exp(), single.softmax(-1).mean(0), atol=1e-5, rtol=1e-5)
    else:
        wanted = single.mean(0) if consensus == "avg" else single.amax(0)
        torch.testing.assert_close(joined, wanted, atol=1e-5, rtol=1e-5)


def test_mean_of_softmax_stays_finite_where_probabilities_vanish() -> None:
    logits = torch.tensor([[[200.0, 0.0]], [[0.0, 200.0]]])
    joined = mean_of_softmax(logits, dim=0)
    torch.testing.assert_close(joined, torch.tensor([[0.5, 0.5]]).log())


@pytest.mark.parametrize("fusion", ["pre", "post"])
@pytest.mark.parametrize("variant", ["san-v2", "san-v3"])
def test_persons_may_change_places(variant: str, fusion: str) -> None:
    if variant == "san-v2":
        fusion = "pre"  # which is the field's default; SAN-V2 does not read it
    made = recipe(persons=3, variant=variant, v3_person_fusion=fusion)
    network = build(made).eval()
    position, motion = clips(made)
    turned = [2, 0, 1]
    with torch.no_grad():
        torch.testing.assert_close(
            network(position, motion), network(position[:, :, turned], motion[:, :, turned])
        )


def test_early_fusion_tells_persons_apart() -> None:
    made = recipe(variant="san-v1")
    network = build(made).eval()
    position, motion = clips(made)
    with torch.no_grad():
        turned = network(position.flip(2), motion.flip(2))
        assert not torch.allclose(network(position, motion), turned, atol=1e-3)


def test_where_persons_are_joined_matters_to_v3_only_with_two_of_them() -> None:
    networks = [
        build(recipe(variant="san-v3", v3_person_fusion=fusion)).eval()
        for fusion in ("pre", "post")
    ]
    position, motion = clips(recipe())
    with torch.no_grad():
        alone = [network(position[:, :, :1], motion[:, :, :1]) for network in networks]
        both = [network(position, motion) for network in networks]
    torch.testing.assert_close(*alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(*both, atol=1e-3)


@pytest.mark.parametrize(
    "network",
    [
        {"variant": "san-v2"},
        {"variant": "san-v3"},
        {"variant": "san-v3", "v3_person_fusion": "post"},
        {"variant": "san-v3", "encoder": "ff"},
    ],
)
@pytest.mark.parametrize("mask", [True, False])
def test_absent_persons_are_left_out_only_where_the_recipe_says_so(
    network: dict, mask: bool
) -> None:
    made = recipe(mask_absent_person=mask, **network)
    built = build(made).eval()
    for parameter in built.parameters():  # biases, too, as after training
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    position, motion = clips(made)
    position[:, :, 1], motion[:, :, 1] = 0, 0
    present = torch.ones(2, 3, 2, dtype=torch.bool)
    present[:, :, 1] = False
    with torch.no_grad():
        both = built(position, motion, present)
        alone = built(position[:, :, :1], motion[:, :, :1], present[:, :, :1])
    assert torch.allclose(both, alone, atol=1e-5) == mask


@pytest.mark.parametrize("fusion", ["pre", "post"])
def test_nobody_at_all_still_gives_numbers_and_gradients(fusion: str) -> None:
    made = recipe(variant="san-v3", v3_person_fusion=fusion, mask_absent_person=True)
    network = build(made)
    zero = torch.zeros(2, 3, 2, 8, 7, 3)
    nobody = torch.zeros(2, 3, 2, dtype=torch.bool)
    every = network(zero, zero, nobody, every_classifier=True)
    network.loss(every, torch.tensor([0, 1])).backward()
    assert every.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_join_persons_is_the_maximum_over_who_is_there() -> None:
    x = torch.tensor([[[[1.0, -5.0], [3.0, -7.0]]]])  # (1, 1, 2, 2)
    assert torch.equal(join_persons(x, None), torch.tensor([[[3.0, -5.0]]]))
    for there, wanted in (
        ([True, True], [3.0, -5.0]),
        ([False, True], [3.0, -7.0]),
        ([True, False], [1.0, -5.0]),
        ([False, False], [0.0, 0.0]),
    ):
        assert torch.equal(join_persons(x, torch.tensor([[there]])), torch.tensor([[wanted]]))


@pytest.mark.parametrize("variant", ["san-v1", "san-v2"])
def test_one_classifier_has_one_loss(variant: str) -> None:
    made = recipe(**still(variant=variant))
    network = build(made)
    every = network(*clips(made), every_classifier=True)
    labels = torch.tensor([0, 3])
    assert every.shape == (1, 2, 5)
    assert network.classifiers == ("main",)
    assert torch.equal(network.score(every), network(*clips(made)))
    torch.testing.assert_close(
        network.loss(every, labels, label_smoothing=0.1),
        F.cross_entropy(every[0], labels, label_smoothing=0.1),
    )


@pytest.mark.parametrize("score", ["fused", "mean"])
def test_v3_adds_three_losses_and_is_tested_by_one_score(score: str) -> None:
    made = recipe(**still(variant="san-v3", v3_score=score))
    network = build(made)
    every = network(*clips(made), every_classifier=True)
    labels = torch.tensor([0, 3])
    assert network.classifiers == ("fused", "position", "motion")
    assert every.shape == (3, 2, 5)
    torch.testing.assert_close(
        network.loss(every, labels), sum(F.cross_entropy(one, labels) for one in every)
    )
    logits = network(*clips(made))
    if score == "fused":
        assert torch.equal(logits, every[0])
    else:
        torch.testing.assert_close(logits.softmax(-1), every.softmax(-1).mean(0))


def test_v3_streams_do_not_hear_of_each_other() -> None:
    made = recipe(variant="san-v3")
    network = build(made).eval()
    position, motion = clips(made)
    with torch.no_grad():
        before = network(position, motion, every_classifier=True)
        after = network(position, motion + 1, every_classifier=True)
    changed = (before != after).flatten(1).any(dim=1).tolist()
    assert changed == [True, False, True]  # fused, position, motion


@st.composite
def networks(draw: st.DrawFn) -> NetworkRecipe:
    """Any network of small width, with what its variant does not read left alone."""
    values = {
        "variant": draw(st.sampled_from([*VARIANTS, "hcn"])),
        "encoder": draw(st.sampled_from(["cnn", "ff"])),
        "layers": draw(st.integers(1, 3)),
        "heads": draw(st.sampled_from([1, 2, 4])),
        "width": draw(st.sampled_from([None, 8, 12])),
        "feed_forward": draw(st.integers(1, 4)),
        "norm": draw(st.sampled_from(["post", "pre"])),
        "position_embedding": draw(st.sampled_from(["learned", "sinusoidal"])),
        "encoder_relu": draw(st.sampled_from(["first", "all"])),
        "encoder_batch_norm": draw(st.booleans()),
        "ff_dim": draw(st.sampled_from([8, 16])),
        "ff_layers": draw(st.integers(1, 3)),
        "mask_absent_person": draw(st.booleans()),
        "v3_person_fusion": draw(st.sampled_from(["pre", "post"])),
        "v3_score": draw(st.sampled_from(["fused", "mean"])),
        **draw(
            st.sampled_from(
                [
                    {"consensus": "avg", "consensus_of": "logits"},
                    {"consensus": "max", "consensus_of": "logits"},
                    {"consensus": "avg", "consensus_of": "probabilities"},
                ]
            )
        ),
        **still(),
    }
    if values["width"] is None and values["encoder"] == "cnn":
        values["width"] = 8  # the cnn's own 512 and 1024 are not small
    kind = {} if values["variant"] == "hcn" else {"encoder": values["encoder"]}
    unread = NetworkRecipe(variant=values["variant"], **kind).unread
    return NetworkRecipe(**{k: v for k, v in values.items() if k not in unread})


@settings(max_examples=40, deadline=None)
@given(network=networks(), segments=st.integers(1, 3), persons=st.integers(1, 2))
def test_every_combination_trains_and_agrees_with_written_out_attention(
    network: NetworkRecipe, segments: int, persons: int
) -> None:
    made = Recipe(
        name="any",
        clips=ClipsRecipe(frames=16, segments=segments, persons=persons),
        network=network,
    )
    fused, explicit = build(made), build(made, fused=False)
    position, motion = clips(made)
    present = torch.ones(position.shape[:3], dtype=torch.bool)
    present[0, :, 1:] = False
    every = fused(position, motion, present, every_classifier=True)
    assert every.shape == (len(fused.classifiers), 2, 5)
    fused.loss(every, torch.tensor([0, 4])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fused.parameters()), (
        "a parameter that no loss reaches breaks training over several processes"
    )
    fused.eval(), explicit.eval()
    if network.encoder_batch_norm:
        explicit.load_state_dict(fused.state_dict())  # running means moved in the one forward pass
    with torch.no_grad():
        torch.testing.assert_close(
            fused(position, motion, present),
            explicit(position, motion, present),
            atol=1e-4,
            rtol=1e-4,
        )


def test_checkpoints_of_the_first_version_still_fit() -> None:
    """SAN-V2's weights keep their names and their order, so that a seed gives the same network."""
    streams = [
        f"{stream}_encoder.conv{i}.{part}"
        for stream in ("position", "motion")
        for i in (1, 2, 3, 4)
        for part in ("weight", "bias")
    ]
    layer = [
        f"block.layers.0.{module}.{part}"
        for module in (
            *("attention.qkv", "attention.out", "attention_norm"),
            *("feed_forward.0", "feed_forward.3", "feed_forward_norm"),
        )
        for part in ("weight", "bias")
    ]
    made = Recipe(name="x", network=NetworkRecipe(layers=1))
    with torch.device("meta"):
        network = build_network(made, joints=25, coordinates=3, classes=60)
    assert list(network.state_dict()) == [
        *streams,
        "block.position",
        *layer,
        "block.fully_connected.weight",
        "block.fully_connected.bias",
        "classifier.weight",
        "classifier.bias",
    ]


@pytest.mark.parametrize(
    "network",
    [
        {"variant": "san-v1", "encoder": "ff"},
        {"variant": "san-v3", "v3_score": "mean", "mask_absent_person": True},
        {"variant": "san-v2", "consensus_of": "probabilities"},
    ],
)
def test_half_precision_stays_near(network: dict) -> None:
    """Under autocast to bfloat16, whose 8 bits leave about a hundredth of relative precision."""
    made = recipe(**still(**network))
    built = build(made)
    position, motion = clips(made)
    present = torch.tensor([[[True, False]] * 3, [[True, True]] * 3])
    with torch.autocast("cpu", torch.bfloat16):
        every = built(position, motion, present, every_classifier=True)
        loss = built.loss(every, torch.tensor([0, 3]))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in built.parameters())
    wanted = built(position, motion, present, every_classifier=True)
    torch.testing.assert_close(every.float(), wanted, atol=0.05, rtol=0.05)
