"""timm's models on a machine that has PyTorch's CPU build and so no torchvision that fits it.

torchvision's wheels from the package index are built for CUDA; beside a CPU build of PyTorch,
importing one breaks everything that looks for it (transformers, torchmetrics, Lightning). timm
names a few of torchvision's classes when it is imported, and its vision transformers use none.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

STAND_INS = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _StandIn(types.ModuleType):
    """A module that has every name: an empty class, made when it is asked for."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(
            name,
            (),
            {"BILINEAR": 2, "BICUBIC": 3, "NEAREST": 0, "HAMMING": 5, "LANCZOS": 1, "BOX": 4},
        )
        setattr(self, name, made)
        return made


@contextmanager
def _stand_ins() -> Iterator[None]:
    modules = {name: _StandIn(name) for name in STAND_INS}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def import_timm() -> types.ModuleType:
    """Import timm, with stand-ins for torchvision where that is not installed."""
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("timm")
    with _stand_ins():
        return importlib.import_module("timm")
