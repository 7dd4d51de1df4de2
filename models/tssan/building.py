"""From a recipe to the network that it describes."""

from __future__ import annotations

from tssan.hcn import HCN
from tssan.network import SanV1, SanV2, SanV3, SkeletonNetwork
from tssan.recipe import Recipe


def build_network(
    recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool = True
) -> SkeletonNetwork:
    """Build the network that a recipe describes, for skeletons of a given shape.

    Parameters
    ----------
    recipe
        Checked when it was made: what it asks for exists. Of its clips the network takes over the
        number of frames and, in SAN-V1 and HCN, what hangs on it.
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.
    fused
        Use PyTorch's fused attention (the default) or the written-out one.

    Returns
    -------
    SkeletonNetwork
        Freshly initialised, from PyTorch's global random state, in training mode.
    """
    variant = recipe.network.variant
    if variant == "hcn":
        return HCN(recipe, joints=joints, coordinates=coordinates, classes=classes)
    sans: dict[str, type[SanV1] | type[SanV2] | type[SanV3]] = {
        "san-v1": SanV1,
        "san-v2": SanV2,
        "san-v3": SanV3,
    }
    return sans[variant](
        recipe, joints=joints, coordinates=coordinates, classes=classes, fused=fused
    )
