"""Networks whose answer is known, and small ones that are only there to be run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Planted(nn.Module):
    """Attends to frames whose first coordinate is a mark, and counts the second one there.

    A query is 1, a key is `sharpness` times the mark, a value is mark × evidence: the logit of
    class 1 is the evidence in marked frames, whatever moves in the others.
    """

    def __init__(self, sharpness: float = 20.0, *, layers: int = 2) -> None:
        super().__init__()
        self.sharpness, self.layers = sharpness, layers

    def forward(self, clips: Tensor) -> Tensor:
        n, k, m = clips.shape[:3]
        frames = clips.flatten(0, 2)[:, :, 0]  # (r, t, c): the first joint
        x = frames[..., :1] * frames[..., 1:2]  # (r, t, 1)
        mark = self.sharpness * frames[..., :1]
        outputs = []
        for _ in range(self.layers):
            q, key, v = (one[:, None] for one in (torch.ones_like(mark), mark, x))
            x = F.scaled_dot_product_attention(q, key, v)[:, 0]
            outputs.append(x)
            # The next layer reads the frames again, as through a residual connection.
            x = frames[..., :1] * frames[..., 1:2]
        evidence = torch.cat(outputs, dim=-1).mean(dim=(1, 2)).view(n, k, m).sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(evidence), 5 * evidence], dim=1)


def planted_clips(n: int = 3, *, t: int = 32, first: int = 8, last: int = 16) -> Tensor:
    """Clips (n, 1, 1, t, 4, 3) in which frames `first` to `last` carry the class."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(n, 1, 1, t, 4, 3, generator=generator)
    clips[..., 0, 0] = 0.0
    clips[:, :, :, first:last, 0, 0] = 1.0
    clips[..., 0, 1] = 1.0  # else frames with less evidence than others would speak against it
    return clips


class Small(nn.Module):
    """Two layers of two heads over frames, joined and averaged as in a TS-SAN; three classes."""

    def __init__(self, *, joints: int = 4, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        d = 8
        self.embed = nn.Linear(joints * 3, d)
        self.qkv = nn.ModuleList(nn.Linear(d, 3 * d) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(d, d) for _ in range(2))
        self.classifier = nn.Linear(2 * d, classes)

    def forward(self, clips: Tensor) -> Tensor:
        n, k, m = clips.shape[:3]
        x = self.embed(clips.flatten(-2).flatten(0, 2))  # (r, t, d)
        outputs = []
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, key, v = (
                part.unflatten(-1, (2, -1)).transpose(1, 2) for part in qkv(x).chunk(3, dim=-1)
            )
            gathered = F.scaled_dot_product_attention(q, key, v)
            x = x + out(gathered.transpose(1, 2).flatten(2))
            outputs.append(x)
        features = torch.cat(outputs, dim=-1).mean(dim=1).view(n, k, m, -1).amax(dim=2)
        return self.classifier(features).mean(dim=1)
