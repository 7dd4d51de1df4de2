"""What a recipe builds, counted from the network itself: stages, shapes, parameters, operations."""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tssan.building import build_network
from tssan.hcn import Stream
from tssan.network import CnnEncoder, FeedForwardEncoder, Layer, SelfAttentionBlock
from tssan.recipe import Recipe, recipe_from_dict
from tssan.yaml_text import parse_yaml

# What gets a line of its own. The inside of a self-attention layer is the same everywhere.
STAGES = (
    *(nn.Conv2d, nn.MaxPool2d, nn.Linear, CnnEncoder, FeedForwardEncoder, Stream),
    *(Layer, SelfAttentionBlock),
)


@dataclass(frozen=True)
class Stage:
    """One step of the network, as one sample went through it.

    Attributes
    ----------
    name
        Of the module, as in the checkpoint.
    kind
        Of the module.
    shape
        Of what it gives.
    parameters, flops
        Its own: without those of the stages above it that it is made of.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class OpenValue:
    """A value that the paper leaves open.

    Attributes
    ----------
    name
        As ``--set`` takes it.
    value
        The recipe's.
    reason
        From the field's description; [S] marks what the paper states, [C] what was chosen.
    here
        What the recipe's file says beside it; empty if nothing.
    """

    name: str
    value: Any
    reason: str
    here: str


@dataclass(frozen=True)
class Description:
    """What `describe` finds.

    Attributes
    ----------
    recipe
        The recipe.
    header
        What its file says of itself, by heading: ``title``, ``Reproduces``, ``Expected``, …
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.
    parameters
        Of the whole network.
    flops
        Floating-point operations of the forward pass of one sample, a multiplication and an
        addition counted as two.
    attention_rows
        Rows of one sample that attention sees, by axis; empty without attention.
    stages, open_values
        In the order of the network and of the recipe.
    """

    recipe: Recipe
    header: dict[str, str]
    joints: int
    coordinates: int
    classes: int
    parameters: int
    flops: int
    attention_rows: dict[str, int]
    stages: tuple[Stage, ...]
    open_values: tuple[OpenValue, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return dataclasses.asdict(self) | {"recipe": self.recipe.to_dict()}


def describe(
    recipe: Recipe,
    *,
    path: Path | None = None,
    joints: int = 25,
    coordinates: int = 3,
    classes: int = 60,
) -> Description:
    """Build the network of a recipe without memory, send one sample through it, and count.

    Parameters
    ----------
    recipe
        Which network.
    path
        Its file, for the header and the reasons that stand there.
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.

    Returns
    -------
    Description
        Counted by `torch.utils.flop_counter` on PyTorch's meta device, with written-out attention.
    """
    clips = recipe.clips
    with torch.device("meta"):
        network = build_network(
            recipe, joints=joints, coordinates=coordinates, classes=classes, fused=False
        ).eval()
        x = torch.empty(1, clips.segments, clips.persons, clips.frames, joints, coordinates)
    shown = {name: m for name, m in network.named_modules() if _is_stage(network, name, m)}
    passed: list[tuple[str, tuple[int, ...]]] = []
    for name, module in shown.items():

        def note(module: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
            passed.append((name, tuple(output.shape)))

        module.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, x)
    counts = {
        name.partition(".")[2]: sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
    }
    parameters = {name: sum(p.numel() for p in m.parameters()) for name, m in shown.items()}
    axes = {"n": 1, "k": clips.segments, "m": clips.persons}
    has_attention = any(isinstance(module, Layer) for module in shown.values())
    text = path.read_text(encoding="utf-8") if path else ""
    return Description(
        recipe=recipe,
        header=read_header(text),
        joints=joints,
        coordinates=coordinates,
        classes=classes,
        parameters=sum(p.numel() for p in network.parameters()),
        flops=counter.get_total_flops(),
        attention_rows={a: axes[a] for a in network.row_axes} if has_attention else {},
        stages=tuple(
            Stage(
                name=name,
                kind=type(shown[name]).__name__,
                shape=shape,
                parameters=_own(name, parameters),
                flops=_own(name, {other: counts.get(other, 0) for other in shown}),
            )
            for name, shape in passed
        ),
        open_values=open_values(recipe, text),
    )


def _is_stage(network: nn.Module, name: str, module: nn.Module) -> bool:
    above = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
    inside_layer = any(isinstance(network.get_submodule(one), Layer) for one in above)
    return isinstance(module, STAGES) and not inside_layer


def _own(name: str, counts: dict[str, int]) -> int:
    """Return a stage's count without what is counted for the stages within it."""
    return counts[name] - sum(
        count for other, count in counts.items() if other.startswith(f"{name}.")
    )


def read_header(text: str) -> dict[str, str]:
    """Return what the comment at the top of a recipe says, by heading.

    Parameters
    ----------
    text
        The recipe's file. Its first comment lines are the title; after them, a line such as
        ``# Expected     87.2 %`` begins a heading, and indented lines go on with it.

    Returns
    -------
    dict
        Headings and their texts; the title under ``title``. What stands in one column goes on on
        the same line; what is indented further, as a table is, keeps lines and indentation.
    """
    header: dict[str, str] = {}
    heading, column, deeper = "title", 2, False
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        begun = re.match(r"# ([A-Z]\w*(?: \w+)?) {2,}(\S.*)", line)
        said = line.strip("# ")
        if begun:
            heading, column, deeper = begun[1], begun.start(2), False
            header[heading] = begun[2]
        elif said and heading not in header:
            header[heading] = said
        elif said:
            further = line.index(said) - column
            header[heading] += "\n" + " " * further if further > 0 or deeper else " "
            header[heading] += said
            deeper = further > 0
    return header


def open_values(recipe: Recipe, text: str = "") -> tuple[OpenValue, ...]:
    """Return the values that the paper leaves open, with the reasons of fields and file.

    Parameters
    ----------
    recipe
        Whose values; those that its variant does not read are left out.
    text
        Its file, for the comments beside the values; that of a value which the recipe has otherwise
        is left out.

    Returns
    -------
    tuple
        In the order of the fields.
    """
    beside = dict(re.findall(r"^  (\w+):[^#\n]*# (.*)$", text, flags=re.MULTILINE))
    in_file = recipe_from_dict(parse_yaml(text), source="") if text else recipe
    values = []
    for part in ("clips", "network", "training"):
        section, written = getattr(recipe, part), getattr(in_file, part)
        for name, reason in field_reasons(type(section)).items():
            if "[C" in reason and name not in getattr(section, "unread", ()):
                value = getattr(section, name)
                here = beside.get(name, "") if value == getattr(written, name) else ""
                values.append(OpenValue(f"{part}.{name}", value, reason, here))
    return tuple(values)


def field_reasons(cls: type) -> dict[str, str]:
    """Return the descriptions of a recipe's fields, from the Attributes of its docstring."""
    _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes\n----------\n")
    reasons: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if line and not line.startswith(" "):
            names = line.split(", ")
        elif line:
            for name in names:
                reasons[name] = f"{reasons.get(name, '')} {line.strip()}".strip()
    return {name: reason.replace("`", "") for name, reason in reasons.items()}
