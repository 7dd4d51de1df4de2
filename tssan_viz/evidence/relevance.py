"""Attention weighted by what is made of it: by gradients of the class, or by the values' norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tssan_viz.errors import UserError
from tssan_viz.evidence.tapping import Call


def relevance(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Propagate gradient-weighted attention (Chefer, Gur, Wolf, ICCV 2021, equations 5 and 6).

    Ā = mean_h (∂y/∂A ⊙ A)⁺ and R ← R + Ā R, beginning with the identity. The identity is left out
    of what is returned: every frame has it alike, and it would drown the gradients, which are
    small.

    Parameters
    ----------
    maps, gradients
        One (r, h, q, s) per layer, the first layer first: A, and the derivative of the class's
        score with respect to it.

    Returns
    -------
    list of Tensor
        R − I, (r, q, s), after each layer; never negative.
    """
    layers: list[Tensor] = []
    for a, gradient in zip(maps, gradients, strict=True):
        weighted = (a * gradient).clamp(min=0).mean(dim=1)  # (r, q, s)
        # R + Ā R with R = I + S is I + S + Ā + Ā S.
        layers.append(layers[-1] + weighted + weighted @ layers[-1] if layers else weighted)
    return layers


def attention_times_gradient(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return Σ_q A ⊙ ∂y/∂A, mean over heads, sum over layers: (r, s), signed.

    To first order, what the class's score would lose if nothing attended to a frame.
    """
    layers = [(a * g).sum(dim=-2).mean(dim=1) for a, g in zip(maps, gradients, strict=True)]
    return torch.stack(layers).sum(dim=0)


def value_norms(call: Call, projection: Tensor | None = None) -> Tensor:
    """Return the norm of what each query frame really takes from each key frame.

    ‖Σ_h A_h[q, s] f_h(s)‖ with f_h(s) = v_h(s) W_h, the values as the output projection passes
    them on (Kobayashi, Kuribayashi, Yokoi, Inui, *Attention is Not Only a Weight*, EMNLP 2020,
    section 3): a frame with small values gives little however much it is attended to.

    Parameters
    ----------
    call
        With its values.
    projection
        Weight (d_out, h · d) of the output projection, as `nn.Linear` holds it. None: the heads
        are taken as they lie side by side.

    Returns
    -------
    Tensor
        (r, q, s).

    Raises
    ------
    UserError
        The values of the call are not in reach.
    """
    if call.values is None:
        raise UserError(
            "value-norm: this model multiplies probabilities and values itself, so that its values "
            "are not in reach; leave value-norm out, or let it call scaled_dot_product_attention"
        )
    a, v = call.probabilities, call.values
    h, d = v.shape[1], v.shape[-1]
    if projection is None:
        # Heads side by side are orthogonal, so that their squares add up.
        return (a.square() * v.norm(dim=-1)[:, :, None].square()).sum(dim=1).sqrt()
    weight = projection.unflatten(1, (h, d))  # (d_out, h, d)
    # ‖Σ_h a_h f_h‖² = Σ_hg a_h a_g ⟨f_h, f_g⟩: the products of heads are few, the width is not.
    f = torch.einsum("rhsd,ohd->rhso", v, weight)
    products = torch.einsum("rhso,rgso->rshg", f, f)
    return torch.einsum("rhqs,rgqs,rshg->rqs", a, a, products).clamp(min=0).sqrt()
