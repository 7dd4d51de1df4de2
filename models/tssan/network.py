"""The self-attention network for skeleton actions, read from top to bottom.

    clips ── position (n, k, m, t, v, c), motion (n, k, m, t, v, c)
      │  every segment of every person becomes a row: r = n · k · m, in that order
      ▼
    Encoder(position) ‖ Encoder(motion)      (r, t, 512) each, joined: (r, t, 1024)
      ▼
    Projection, if the recipe names a width  (r, t, d)
      ▼
    SelfAttentionBlock                       + position table → L layers → concat of all of them
      │                                      → mean over frames → FC + ReLU: (r, d)
      ▼
    max over persons                         (n, k, d)
      ▼
    classifier                               (n, k, classes)
      ▼
    consensus over segments                  (n, classes)

Cho, Maqbool, Liu, Foroosh, *Self-Attention Network for Skeleton-based Human Action Recognition*,
WACV 2020 (arXiv 1912.08435): SAN-V2 with the CNN encoder and the temporal-segment consensus.
What the paper leaves open is a field of `tssan.recipe.NetworkRecipe`, with its reason beside it.

Axis letters: n batch, k segment, m person, t frame, v joint, c coordinate, r row (a segment of a
person), d width, h head, q query frame, s key frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tssan.recipe import Recipe

ENCODER_WIDTH = 512  # 64 filters × 8 columns per frame, per stream


class Encoder(nn.Module):
    """The convolutional front end of HCN with every frame kept: joints become channels half way.

    ```
    (r, t, v, c) ─ conv1 1×1 ─ ReLU ─ conv2 3×1 ─ joints ↔ filters ─ conv3 3×3 ─ pool 1×2
                 ─ conv4 3×3 ─ pool 1×2 ─ dropout ─ flatten per frame ─ (r, t, 512)
    ```

    Parameters
    ----------
    joints, coordinates
        Sizes of the axes v and c.
    dropout
        Dropped share of the features after the last convolution.
    relu
        ``"first"``: after conv1 only; ``"all"``: after each convolution.
    """

    def __init__(self, joints: int, coordinates: int, *, dropout: float, relu: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(coordinates, 64, (1, 1))
        self.conv2 = nn.Conv2d(64, 32, (3, 1), padding=(1, 0))
        self.conv3 = nn.Conv2d(joints, 32, (3, 3), padding=1)
        self.conv4 = nn.Conv2d(32, 64, (3, 3), padding=1)
        self.pool = nn.MaxPool2d((1, 2))
        self.dropout = nn.Dropout(dropout)
        self.later_relu = nn.ReLU() if relu == "all" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (r, t, 512) of one stream (r, t, v, c)."""
        x = x.permute(0, 3, 1, 2)  # (r, c, t, v)
        x = F.relu(self.conv1(x))  # (r, 64, t, v)
        x = self.later_relu(self.conv2(x))  # (r, 32, t, v)
        x = x.permute(0, 3, 2, 1)  # (r, v, t, 32): each joint is a channel, each filter a column
        x = self.pool(self.later_relu(self.conv3(x)))  # (r, 32, t, 16)
        x = self.pool(self.later_relu(self.conv4(x)))  # (r, 64, t, 8)
        x = self.dropout(x)
        return x.permute(0, 2, 1, 3).flatten(2)  # (r, t, 512)


class Attend(nn.Module):
    """softmax(q kᵀ / √d_head) v: attention itself, without a parameter of its own.

    Parameters
    ----------
    dropout
        Dropped share of the probabilities, while training.
    fused
        True: PyTorch's fused kernel. False: written out, the same numbers to rounding.
    """

    def __init__(self, dropout: float, *, fused: bool = True) -> None:
        super().__init__()
        self.dropout = dropout
        self.fused = fused

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what every query frame gathers, (r, h, t, d_head), of q, k and v of that shape."""
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # (r, h, t, d_head)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (r, h, q, s)
        probabilities = F.dropout(scores.softmax(dim=-1), dropout)  # (r, h, q, s)
        return probabilities @ v  # (r, h, t, d_head)


class MultiHeadAttention(nn.Module):
    """h attentions side by side, each over its own share of the width.

    Parameters
    ----------
    width, heads
        Sizes of the axes d and h; d_head = d / h.
    dropout
        Dropped share of the probabilities.
    fused
        As in `Attend`.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = Attend(dropout, fused=fused)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, t, d) of (r, t, d); every frame attends to every frame."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (r, h, t, d_head)
            for part in self.qkv(x).chunk(3, dim=-1)  # (r, t, d) each
        )
        x = self.attend(q, k, v)  # (r, h, t, d_head)
        return self.out(x.transpose(1, 2).flatten(2))  # (r, t, d)


class Layer(nn.Module):
    """One self-attention layer: attention, then a feed-forward network, each with a residual.

    ```
    post (the paper):  x ─┬─ attention ─(+)─ norm ─┬─ feed-forward ─(+)─ norm ─
                          └─────────────┘          └─────────────────┘

    pre:               x ─┬─ norm ─ attention ─(+)─┬─ norm ─ feed-forward ─(+)─
                          └─────────────────────┘  └─────────────────────────┘
    ```

    Parameters
    ----------
    width, heads, dropout, fused
        As in `MultiHeadAttention`; dropout also falls on the output of both halves.
    feed_forward
        Inner width of the feed-forward network.
    norm
        ``"post"`` or ``"pre"``.
    """

    def __init__(
        self, width: int, heads: int, *, feed_forward: int, dropout: float, norm: str, fused: bool
    ) -> None:
        super().__init__()
        self.pre_norm = norm == "pre"
        self.attention = MultiHeadAttention(width, heads, dropout=dropout, fused=fused)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward),  # (r, t, 4 d) in the paper's family
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, width),  # (r, t, d)
        )
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (r, t, d) of (r, t, d)."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x)))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class SelfAttentionBlock(nn.Module):
    """The SAN block: L layers whose outputs are all joined, then the mean over frames.

    ```
    x ─(+ position table)─ layer 1 ─┬─ layer 2 ─┬─ … ─ layer L ─┐
                                    └───────────┴───────────────┴─ concat ─ mean over t ─ FC ─ ReLU
    ```

    Parameters
    ----------
    frames
        Rows of the position table, the length t of every clip.
    layers
        How many layers; the rest as in `Layer`.
    position_embedding
        ``"learned"`` or ``"sinusoidal"``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        frames: int,
        layers: int,
        feed_forward: int,
        dropout: float,
        norm: str,
        position_embedding: str,
        fused: bool,
    ) -> None:
        super().__init__()
        self.position: Tensor  # (t, d)
        if position_embedding == "learned":
            self.position = nn.Parameter(nn.init.normal_(torch.empty(frames, width), std=0.02))
        else:
            self.register_buffer("position", sinusoids(frames, width), persistent=False)
        self.layers = nn.ModuleList(
            Layer(width, heads, feed_forward=feed_forward, dropout=dropout, norm=norm, fused=fused)
            for _ in range(layers)
        )
        # Post-norm layers end in a norm; the residual stream of pre-norm layers grows instead.
        self.norm = nn.LayerNorm(layers * width) if norm == "pre" else nn.Identity()
        self.fully_connected = nn.Linear(layers * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return one feature vector (r, d) per row of (r, t, d)."""
        x = x + self.position
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        x = torch.cat(outputs, dim=-1)  # (r, t, L d)
        x = self.norm(x.mean(dim=1))  # (r, L d)
        return F.relu(self.fully_connected(x))  # (r, d)


class TSSAN(nn.Module):
    """SAN-V2 over temporal segments: all weights are shared by segments and by persons.

    Parameters
    ----------
    recipe
        `recipe.network` and the clip length `recipe.clips.frames`.
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.
    fused
        As in `Attend`.
    """

    def __init__(
        self, recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool = True
    ) -> None:
        super().__init__()
        network = recipe.network
        width = network.width or 2 * ENCODER_WIDTH
        self.position_encoder = Encoder(
            joints, coordinates, dropout=network.encoder_dropout, relu=network.encoder_relu
        )
        self.motion_encoder = Encoder(
            joints, coordinates, dropout=network.encoder_dropout, relu=network.encoder_relu
        )
        self.projection = nn.Linear(2 * ENCODER_WIDTH, width) if network.width else nn.Identity()
        self.block = SelfAttentionBlock(
            width,
            network.heads,
            frames=recipe.clips.frames,
            layers=network.layers,
            feed_forward=network.feed_forward * width,
            dropout=network.dropout,
            norm=network.norm,
            position_embedding=network.position_embedding,
            fused=fused,
        )
        self.dropout = nn.Dropout(network.classifier_dropout)
        self.classifier = nn.Linear(width, classes)
        self.mask_absent_person = network.mask_absent_person
        self.consensus = network.consensus
        self.apply(initialise)

    def forward(self, position: Tensor, motion: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the logits of every sample.

        Parameters
        ----------
        position, motion
            Clips (n, k, m, t, v, c).
        present
            Which persons are there in which segment, bool (n, k, m). Read only where the recipe
            says `mask_absent_person`.

        Returns
        -------
        Tensor
            (n, classes).
        """
        n, k, m = position.shape[:3]
        x = torch.cat(
            [
                self.position_encoder(position.flatten(0, 2)),  # (r, t, 512)
                self.motion_encoder(motion.flatten(0, 2)),  # (r, t, 512)
            ],
            dim=-1,
        )  # (r, t, 1024)
        x = self.projection(x)  # (r, t, d)
        x = self.block(x)  # (r, d)
        x = x.unflatten(0, (n, k, m))  # (n, k, m, d)
        if self.mask_absent_person and present is not None:
            # The block ends in a ReLU, so that a zero never wins the maximum over who is there.
            x = x * present.unsqueeze(-1)
        x = x.amax(dim=2)  # (n, k, d)
        x = self.classifier(self.dropout(x))  # (n, k, classes)
        # Predictions are joined before the softmax, as TSN does.
        return x.amax(dim=1) if self.consensus == "max" else x.mean(dim=1)  # (n, classes)


def sinusoids(frames: int, width: int) -> Tensor:
    """Return the position table (t, d) of *Attention is all you need*, section 3.5."""
    time = torch.arange(frames, dtype=torch.float32)[:, None]  # (t, 1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))  # (d/2,)
    table = torch.zeros(frames, width)  # (t, d)
    table[:, 0::2] = torch.sin(time * rate)
    table[:, 1::2] = torch.cos(time * rate)
    return table


def initialise(module: nn.Module) -> None:
    """Draw Xavier-uniform weights and set biases to zero, as the public HCN implementations do."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    if isinstance(module, MultiHeadAttention):
        for part in module.qkv.weight.chunk(3):  # three square matrices, not one flat one
            nn.init.xavier_uniform_(part)


def build_network(
    recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool = True
) -> TSSAN:
    """Build the network that a recipe describes, for skeletons of a given shape.

    Parameters
    ----------
    recipe
        Checked when it was made: what it asks for exists.
    joints, coordinates, classes
        Sizes of the axes v and c, and of the output.
    fused
        Use PyTorch's fused attention (the default) or the written-out one.

    Returns
    -------
    TSSAN
        Freshly initialised, from PyTorch's global random state, in training mode.
    """
    return TSSAN(recipe, joints=joints, coordinates=coordinates, classes=classes, fused=fused)
