"""Which modules of a model are attention.

A site is a submodule that its parent holds as `attend`, that owns no parameters, and whose
`forward` takes exactly the three arguments (q, k, v), each (r, h, t, d_head). If it has an
attribute `scale`, that is what q kᵀ is multiplied by; else it is 1/√d_head. Nothing else is asked
of it: it may call a fused kernel, drop out probabilities, or spell the product out.
"""

from __future__ import annotations

import inspect

from torch import nn

from tssan_viz.recording.errors import UnrecordableModel

LOOKED_FOR = (
    "the recorder looks for submodules named `attend`, without parameters, whose forward takes "
    "(q, k, v), each of shape (rows, heads, frames, width of a head)"
)


def find_attention(model: nn.Module) -> dict[str, nn.Module]:
    """Find the attention modules of a model.

    Parameters
    ----------
    model
        Any module; it is only looked at.

    Returns
    -------
    dict
        Module path → module, in the order in which the model holds them: the order in which layers
        are counted.

    Raises
    ------
    UnrecordableModel
        There is none, one named `attend` is no such module, or the model is compiled.
    """
    if any(type(m).__name__ == "OptimizedModule" or _compiled_in_place(m) for m in model.modules()):
        raise UnrecordableModel(
            "this model is compiled, and a compiled model does not call the hooks that record it: "
            "record the model as it was before torch.compile (`compiled._orig_mod`)"
        )
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] != "attend":
            continue
        if fault := _what_is_wrong(module):
            raise UnrecordableModel(f"{name} ({type(module).__name__}) {fault}; {LOOKED_FOR}")
        found[name] = module
    if not found:
        raise UnrecordableModel(f"{type(model).__name__} has no attention to record: {LOOKED_FOR}")
    return found


def _compiled_in_place(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _what_is_wrong(module: nn.Module) -> str | None:
    if any(True for _ in module.parameters()):
        return "has parameters of its own, so what it attends with is not its arguments alone"
    names = list(inspect.signature(module.forward).parameters)
    if len(names) != 3:
        return f"takes ({', '.join(names)})"
    return None
