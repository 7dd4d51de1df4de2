"""What one attention map is like, in numbers: how concentrated, where it looks, how it goes along.

All functions take maps (..., q, s), rows summing to 1, and return one number per map (...). Rows
without any attention (masked in full) do not count. ``q`` are query and ``s`` key frames.

`MEASURES` says what each measure is; `measure` computes them by name.
"""

from tssan_viz.measures.concentration import (
    confidence,
    effective_frames,
    entropy,
    gini,
    hoyer,
    top_mass,
)
from tssan_viz.measures.motion import coupling_to_motion, joint_speed, received_attention
from tssan_viz.measures.named import MEASURES, measure
from tssan_viz.measures.position import (
    anchor_mass,
    block_template,
    diagonal_template,
    diagonality,
    distance,
    globalness,
    look_ahead,
    positional_share,
    symmetry,
    template_score,
    verticality,
)

__all__ = [
    "MEASURES",
    "anchor_mass",
    "block_template",
    "confidence",
    "coupling_to_motion",
    "diagonal_template",
    "diagonality",
    "distance",
    "effective_frames",
    "entropy",
    "gini",
    "globalness",
    "hoyer",
    "joint_speed",
    "look_ahead",
    "measure",
    "positional_share",
    "received_attention",
    "symmetry",
    "template_score",
    "top_mass",
    "verticality",
]
