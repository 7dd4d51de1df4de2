"""The form in which the ES module is given its data, and where that module lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1

SampleView = Literal["head", "model", "heat", "player", "query-key", "explore"]


@dataclass(frozen=True)
class Payload:
    """A view's data: ``manifest`` goes as JSON, each of ``buffers`` as bytes.

    Attributes
    ----------
    manifest
        JSON-able; ``view`` says which view it is for; gives every buffer's dtype and shape.
    buffers
        Little-endian tensors in C order, by the name under which the manifest describes them.
    """

    manifest: dict[str, Any]
    buffers: dict[str, bytes] = field(repr=False)


def module_path() -> Path:
    """Return the path of the ES module that draws every view (``export default { render }``)."""
    return Path(__file__).parent / "static" / "tssan-views.mjs"


def head_module_path() -> Path:
    """Return the path of the part of the module that draws the head view (``export { mount }``)."""
    return module_path().with_name("tssan-head.mjs")
