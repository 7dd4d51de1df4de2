"""The self-attention network for skeleton actions, read from top to bottom.

    clips ── position (n, k, m, t, v, c), motion (n, k, m, t, v, c)
      │  segments, and persons where they go their own ways, become rows: r = n · k (· m), in order
      ▼
    Encoder, CNN or FF                       (r, t, 512) per stream
      ▼
    Projection, if the recipe names a width  (r, t, d)
      ▼
    SelfAttentionBlock                       + position table → L layers → concat of all of them
      │                                      → mean over frames → FC + ReLU: (r, d)
      ▼
    classifiers g                            (g, n, k, classes)
      ▼
    consensus over segments                  (g, n, classes)
      ▼
    score                                    (n, classes)

             persons meet                    streams meet             d     classifiers
    SAN-V1   as joints, before the encoder   as input coordinates     512   one
    SAN-V2   in a maximum after the block    after the encoders       1024  one
    SAN-V3   in a maximum before the blocks  after the blocks         512   fused, position, motion

Cho, Maqbool, Liu, Foroosh, *Self-Attention Network for Skeleton-based Human Action Recognition*,
WACV 2020 (arXiv 1912.08435). TS-SAN is any of them with k > 1 segments: all weights are shared by
the segments, and k = 1 is the plain SAN. What the paper leaves open is a field of
`tssan.recipe.NetworkRecipe`, with its reason beside it.

Axis letters: n batch, k segment, m person, t frame, v joint, c coordinate, r row, d width, h head,
q query frame, s key frame, g classifier.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tssan.recipe import NetworkRecipe, Recipe


class CnnEncoder(nn.Module):
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
    batch_norm
        Normalise what each convolution gives, before its ReLU.
    """

    def __init__(
        self, joints: int, coordinates: int, *, dropout: float, relu: str, batch_norm: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(coordinates, 64, (1, 1))
        self.conv2 = nn.Conv2d(64, 32, (3, 1), padding=(1, 0))
        self.conv3 = nn.Conv2d(joints, 32, (3, 3), padding=1)
        self.conv4 = nn.Conv2d(32, 64, (3, 3), padding=1)
        self.norm1, self.norm2, self.norm3, self.norm4 = (
            nn.BatchNorm2d(filters) if batch_norm else nn.Identity() for filters in (64, 32, 32, 64)
        )
        self.pool = nn.MaxPool2d((1, 2))
        self.dropout = nn.Dropout(dropout)
        self.later_relu = nn.ReLU() if relu == "all" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (r, t, 512) of one stream (r, t, v, c)."""
        x = x.permute(0, 3, 1, 2)  # (r, c, t, v)
        x = F.relu(self.norm1(self.conv1(x)))  # (r, 64, t, v)
        x = self.later_relu(self.norm2(self.conv2(x)))  # (r, 32, t, v)
        x = x.permute(0, 3, 2, 1)  # (r, v, t, 32): each joint is a channel, each filter a column
        x = self.pool(self.later_relu(self.norm3(self.conv3(x))))  # (r, 32, t, 16)
        x = self.pool(self.later_relu(self.norm4(self.conv4(x))))  # (r, 64, t, 8)
        x = self.dropout(x)
        return x.permute(0, 2, 1, 3).flatten(2)  # (r, t, 512)


class FeedForwardEncoder(nn.Module):
    """The paper's other encoder: every frame by itself, flattened, through a ReLU.

    ```
    (r, t, v, c) ─ flatten per frame ─ linear ─ ReLU ─ dropout ─ (r, t, width)
                                       └── × layers ──┘
    ```

    Parameters
    ----------
    joints, coordinates
        Sizes of the axes v and c.
    width, layers
        Of the linear layers, and how many there are.
    dropout
        Dropped share of the features after the last one.
    """

    def __init__(
        self, joints: int, coordinates: int, *, width: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(width if layer else joints * coordinates, width) for layer in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (r, t, width) of one stream (r, t, v, c)."""
        x = x.flatten(2)  # (r, t, v c)
        for layer in self.layers:
            x = F.relu(layer(x))  # (r, t, width)
        return self.dropout(x)


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
        # The ReLU that the paper has before the classifier would change nothing after this one.
        return F.relu(self.fully_connected(x))  # (r, d)


class SkeletonNetwork(nn.Module, ABC):
    """What all variants share: classifiers over segments, their consensus, the score, the loss.

    ```
    network(position, motion, present)                         (n, classes): the test score
    every = network(position, motion, present, every_classifier=True)
                                                               (g, n, classes), for training:
    network.loss(every, labels), network.score(every)          what to descend, what to count by
    ```

    Every output is to be read through a softmax: where probabilities are averaged, their logarithm
    is returned, so that argmax, softmax and cross-entropy mean the same for every variant.

    Attributes
    ----------
    classifiers
        Names of the classifiers g, in order; a test counts by the first unless the recipe says
        otherwise.
    row_axes
        Which of the axes n, k, m the rows r of the attention layers are made of, in that order.
    """

    classifiers: tuple[str, ...] = ("main",)
    row_axes: tuple[str, ...] = ("n", "k", "m")

    def __init__(self, network: NetworkRecipe) -> None:
        super().__init__()
        self.mask_absent_person = network.mask_absent_person
        self.consensus = network.consensus
        self.consensus_of = network.consensus_of

    @abstractmethod
    def segment_logits(self, position: Tensor, motion: Tensor, present: Tensor | None) -> Tensor:
        """Return what every classifier says of every segment by itself, (g, n, k, classes)."""

    def forward(
        self,
        position: Tensor,
        motion: Tensor,
        present: Tensor | None = None,
        *,
        every_classifier: bool = False,
    ) -> Tensor:
        """Return the logits of every sample.

        Parameters
        ----------
        position, motion
            Clips (n, k, m, t, v, c).
        present
            Which persons are there in which segment, bool (n, k, m). Read only where the recipe
            says `mask_absent_person`.
        every_classifier
            True: what `loss` and `score` take, one block of logits per classifier.

        Returns
        -------
        Tensor
            (n, classes), or (g, n, classes) with `every_classifier`.
        """
        x = self.segment_logits(
            position, motion, present if self.mask_absent_person else None
        )  # (g, n, k, classes)
        x = self.join_segments(x)  # (g, n, classes)
        return x if every_classifier else self.score(x)  # (n, classes)

    def join_segments(self, x: Tensor) -> Tensor:
        """Return the consensus (g, n, classes) over the segments of (g, n, k, classes)."""
        if self.consensus == "max":
            return x.amax(dim=2)
        return x.mean(dim=2) if self.consensus_of == "logits" else mean_of_softmax(x, dim=2)

    def score(self, every: Tensor) -> Tensor:
        """Return the logits (n, classes) that a test counts by, of (g, n, classes)."""
        return every[0]

    def loss(self, every: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum of the classifiers' cross-entropies, of (g, n, classes) and (n,)."""
        losses = [F.cross_entropy(one, labels, label_smoothing=label_smoothing) for one in every]
        return torch.stack(losses).sum()


class OneBlockNetwork(SkeletonNetwork):
    """What V1 and V2 share: one block and one classifier behind the encoders."""

    def add_block(self, recipe: Recipe, width: int, *, classes: int, fused: bool) -> None:
        """Add what follows the encoders, whose outputs (r, t, width) it takes."""
        network = recipe.network
        self.projection = make_projection(network, width)
        self.block = make_block(network, frames=recipe.clips.frames, fused=fused)
        self.dropout = nn.Dropout(network.classifier_dropout)
        self.classifier = nn.Linear(network.block_width, classes)
        self.apply(initialise)


class SanV1(OneBlockNetwork):
    """Early fusion: persons side by side as joints, positions and motions as coordinates.

    ```
    (n, k, m, t, v, c) twice ─ join ─ (r, t, m v, 2 c) ─ encoder ─ block ─ classifier     r = n · k
    ```

    Parameters are those of `tssan.building.build_network`.
    """

    row_axes = ("n", "k")

    def __init__(
        self, recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool
    ) -> None:
        network = recipe.network
        super().__init__(network)
        self.encoder = make_encoder(network, recipe.clips.persons * joints, 2 * coordinates)
        self.add_block(recipe, network.encoder_width, classes=classes, fused=fused)

    def segment_logits(self, position: Tensor, motion: Tensor, present: Tensor | None) -> Tensor:
        """Return (1, n, k, classes)."""
        n, k = position.shape[:2]
        x = torch.cat([position, motion], dim=-1)  # (n, k, m, t, v, 2c)
        x = x.transpose(2, 3).flatten(3, 4).flatten(0, 1)  # (r, t, m v, 2c)
        x = self.encoder(x)  # (r, t, 512)
        x = self.block(self.projection(x))  # (r, d)
        x = self.classifier(self.dropout(x))  # (r, classes)
        return x.unflatten(0, (1, n, k))  # (1, n, k, classes)


class SanV2(OneBlockNetwork):
    """Late fusion: each person through the whole network by itself, then the maximum of them.

    ```
    position (n, k, m, t, v, c) ─ encoder ─┐
                                           ├ join ─ (r, t, 1024) ─ block ─ (r, d)      r = n · k · m
    motion   (n, k, m, t, v, c) ─ encoder ─┘
                                   (r, d) ─ max over persons ─ (n, k, d) ─ classifier
    ```

    Parameters are those of `tssan.building.build_network`.
    """

    def __init__(
        self, recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool
    ) -> None:
        network = recipe.network
        super().__init__(network)
        self.position_encoder = make_encoder(network, joints, coordinates)
        self.motion_encoder = make_encoder(network, joints, coordinates)
        self.add_block(recipe, 2 * network.encoder_width, classes=classes, fused=fused)

    def segment_logits(self, position: Tensor, motion: Tensor, present: Tensor | None) -> Tensor:
        """Return (1, n, k, classes)."""
        n, k, m = position.shape[:3]
        x = torch.cat(
            [
                self.position_encoder(position.flatten(0, 2)),  # (r, t, 512)
                self.motion_encoder(motion.flatten(0, 2)),  # (r, t, 512)
            ],
            dim=-1,
        )  # (r, t, 1024)
        x = self.block(self.projection(x))  # (r, d)
        x = join_persons(x.unflatten(0, (n, k, m)), present)  # (n, k, d)
        return self.classifier(self.dropout(x)).unsqueeze(0)  # (1, n, k, classes)


class SanV3(SkeletonNetwork):
    """One block for positions and one for motions; three classifiers, trained by the sum of losses.

    ```
    position ─ encoder ─ max over persons ─ position_block ─┬──────── position_classifier
                                                            ├─ join ─ classifier (fused)
    motion   ─ encoder ─ max over persons ─ motion_block ───┴──────── motion_classifier
    ```

    The persons are joined before the blocks (``pre``: r = n · k, as drawn) or after them (``post``:
    r = n · k · m). Parameters are those of `tssan.building.build_network`.
    """

    classifiers = ("fused", "position", "motion")

    def __init__(
        self, recipe: Recipe, *, joints: int, coordinates: int, classes: int, fused: bool
    ) -> None:
        network = recipe.network
        super().__init__(network)
        width, frames = network.block_width, recipe.clips.frames
        self.persons_first = network.v3_person_fusion == "pre"
        self.row_axes = ("n", "k") if self.persons_first else ("n", "k", "m")
        self.test_score = network.v3_score
        self.position_encoder = make_encoder(network, joints, coordinates)
        self.motion_encoder = make_encoder(network, joints, coordinates)
        self.position_projection = make_projection(network, network.encoder_width)
        self.motion_projection = make_projection(network, network.encoder_width)
        self.position_block = make_block(network, frames=frames, fused=fused)
        self.motion_block = make_block(network, frames=frames, fused=fused)
        self.dropout = nn.Dropout(network.classifier_dropout)
        self.classifier = nn.Linear(2 * width, classes)
        self.position_classifier = nn.Linear(width, classes)
        self.motion_classifier = nn.Linear(width, classes)
        self.apply(initialise)

    def segment_logits(self, position: Tensor, motion: Tensor, present: Tensor | None) -> Tensor:
        """Return (3, n, k, classes): fused, position, motion."""
        n, k, m = position.shape[:3]
        streams = []
        for x, encoder, projection, block in (
            (position, self.position_encoder, self.position_projection, self.position_block),
            (motion, self.motion_encoder, self.motion_projection, self.motion_block),
        ):
            x = encoder(x.flatten(0, 2)).unflatten(0, (n, k, m))  # (n, k, m, t, 512)
            if self.persons_first:
                x = join_persons(x, present).flatten(0, 1)  # (r, t, 512)
                x = block(projection(x)).unflatten(0, (n, k))  # (n, k, d)
            else:
                x = block(projection(x.flatten(0, 2)))  # (r, d)
                x = join_persons(x.unflatten(0, (n, k, m)), present)  # (n, k, d)
            streams.append(x)
        both = torch.cat(streams, dim=-1)  # (n, k, 2d)
        return torch.stack(
            [
                self.classifier(self.dropout(both)),  # (n, k, classes)
                self.position_classifier(self.dropout(streams[0])),  # (n, k, classes)
                self.motion_classifier(self.dropout(streams[1])),  # (n, k, classes)
            ]
        )  # (3, n, k, classes)

    def score(self, every: Tensor) -> Tensor:
        """Return the logits (n, classes) of the fused classifier, or the mean of all three."""
        return every[0] if self.test_score == "fused" else mean_of_softmax(every, dim=0)


def make_encoder(network: NetworkRecipe, joints: int, coordinates: int) -> nn.Module:
    """Return the encoder that the recipe names, (r, t, v, c) → (r, t, network.encoder_width)."""
    if network.encoder == "ff":
        return FeedForwardEncoder(
            joints,
            coordinates,
            width=network.ff_dim,
            layers=network.ff_layers,
            dropout=network.encoder_dropout,
        )
    return CnnEncoder(
        joints,
        coordinates,
        dropout=network.encoder_dropout,
        relu=network.encoder_relu,
        batch_norm=network.encoder_batch_norm,
    )


def make_projection(network: NetworkRecipe, encoded: int) -> nn.Module:
    """Return the way from the encoders' width to the recipe's, where it names one."""
    return nn.Linear(encoded, network.width) if network.width else nn.Identity()


def make_block(network: NetworkRecipe, *, frames: int, fused: bool) -> SelfAttentionBlock:
    """Return the SAN block that the recipe describes, for clips of so many frames."""
    width = network.block_width
    return SelfAttentionBlock(
        width,
        network.heads,
        frames=frames,
        layers=network.layers,
        feed_forward=network.feed_forward * width,
        dropout=network.dropout,
        norm=network.norm,
        position_embedding=network.position_embedding,
        fused=fused,
    )


def join_persons(x: Tensor, present: Tensor | None) -> Tensor:
    """Return the greatest value over the persons of (n, k, m, …), (n, k, …).

    Parameters
    ----------
    x
        Features.
    present
        Bool (n, k, m): who takes part; None: everybody, zero skeletons too. Where nobody does, the
        features are zero.
    """
    if present is None:
        return x.amax(dim=2)
    present = present.reshape(present.shape + (1,) * (x.dim() - present.dim()))  # (n, k, m, 1 …)
    x = x.masked_fill(~present, -math.inf).amax(dim=2)  # (n, k, …)
    return x.masked_fill(~present.any(dim=2), 0.0)


def mean_of_softmax(x: Tensor, *, dim: int) -> Tensor:
    """Return the logarithm of the mean over `dim` of the probabilities that the logits x mean."""
    return x.log_softmax(dim=-1).logsumexp(dim=dim) - math.log(x.shape[dim])


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
