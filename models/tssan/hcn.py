"""HCN, the convolutional network that SAN's encoder comes from, as a check of the data path.

    position (n, k, m, t, v, c) ─ stream ─┐                                          r = n · k · m
                                          ├ join ─ conv5 ─ conv6 ─ (r, 256, t/16, 2)
    motion   (n, k, m, t, v, c) ─ stream ─┘
                                     max over persons ─ flatten ─ fc7 ─ fc8 ─ (n, k, classes)

Li, Zhong, Xie, Pu, *Co-occurrence Feature Learning from Skeleton Data for Action Recognition and
Detection with Hierarchical Aggregation*, IJCAI 2018 (arXiv 1804.06055). It has about a million
parameters and is known to reach 86.5 % on NTU RGB+D X-Sub: where it does not, the data path is at
fault and not the self-attention network. It has no attention, so there is nothing to record.

Axis letters as in `tssan.network`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tssan.errors import DataError
from tssan.network import SkeletonNetwork, initialise, join_persons
from tssan.recipe import Recipe


class Stream(nn.Module):
    """Point level, then co-occurrence: joints become channels, so that conv3 sees all of them.

    Unlike `tssan.network.CnnEncoder` the pools halve the time as well.

    Parameters
    ----------
    joints, coordinates
        Sizes of the axes v and c.
    dropout
        Dropped share of the features at the end.
    """

    def __init__(self, joints: int, coordinates: int, *, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(coordinates, 64, (1, 1))
        self.conv2 = nn.Conv2d(64, 32, (3, 1), padding=(1, 0))
        self.conv3 = nn.Conv2d(joints, 32, (3, 3), padding=1)
        self.conv4 = nn.Conv2d(32, 64, (3, 3), padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (r, 64, t/4, 8) of one stream (r, t, v, c)."""
        x = x.permute(0, 3, 1, 2)  # (r, c, t, v)
        x = F.relu(self.conv1(x))  # (r, 64, t, v)
        x = self.conv2(x)  # (r, 32, t, v)
        x = x.permute(0, 3, 2, 1)  # (r, v, t, 32)
        x = self.pool(self.conv3(x))  # (r, 32, t/2, 16)
        x = self.pool(self.conv4(x))  # (r, 64, t/4, 8)
        return self.dropout(x)


class HCN(SkeletonNetwork):
    """Two streams, two more convolutions, the maximum over persons, two linear layers.

    Parameters
    ----------
    recipe
        Of `recipe.network` it reads the dropouts, `mask_absent_person` and the consensus.
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.

    Raises
    ------
    DataError
        The clips have fewer than 16 frames, of which four halvings leave nothing.
    """

    def __init__(self, recipe: Recipe, *, joints: int, coordinates: int, classes: int) -> None:
        network, frames = recipe.network, recipe.clips.frames
        super().__init__(network)
        if frames < 16:
            raise DataError(
                f"clips.frames: {frames} must be at least 16, as hcn halves them 4 times"
            )
        self.position_stream = Stream(joints, coordinates, dropout=network.encoder_dropout)
        self.motion_stream = Stream(joints, coordinates, dropout=network.encoder_dropout)
        self.conv5 = nn.Conv2d(128, 128, (3, 3), padding=1)
        self.conv6 = nn.Conv2d(128, 256, (3, 3), padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(network.classifier_dropout)
        self.fc7 = nn.Linear(256 * (frames // 16) * 2, 256)
        self.fc8 = nn.Linear(256, classes)
        self.apply(initialise)

    def segment_logits(self, position: Tensor, motion: Tensor, present: Tensor | None) -> Tensor:
        """Return (1, n, k, classes)."""
        n, k, m = position.shape[:3]
        x = torch.cat(
            [
                self.position_stream(position.flatten(0, 2)),  # (r, 64, t/4, 8)
                self.motion_stream(motion.flatten(0, 2)),  # (r, 64, t/4, 8)
            ],
            dim=1,
        )  # (r, 128, t/4, 8)
        x = self.dropout(F.relu(self.pool(self.conv5(x))))  # (r, 128, t/8, 4)
        x = F.relu(self.pool(self.conv6(x)))  # (r, 256, t/16, 2)
        x = join_persons(x.flatten(1).unflatten(0, (n, k, m)), present)  # (n, k, 256 · t/16 · 2)
        x = self.dropout(F.relu(self.fc7(self.dropout(x))))  # (n, k, 256)
        return self.fc8(x).unsqueeze(0)  # (1, n, k, classes)
