"""A decoder whose layers have heads of two kinds: local ones, and ones that route, stride or see everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import block_attention, routed_attention, strided_attention

Kind = Literal["local", "routing", "random", "hash", "strided", "full"]
Variant = Literal["default", "official"]


@dataclass(frozen=True)
class Shape:
    """What a model is made of.

    Attributes:
        vocabulary: token ids.
        layers: of attention and feed-forward.
        width: of the residual stream, a multiple of `heads`, with an even head dimension.
        heads: of each layer.
        others: heads of those that are of the kind `other`; the rest is local.
        other: "local", "routing", "random" (routing by random centroids), "hash" (by hashes), "strided" or "full".
        local_layers: layers, from the first, with local heads alone.
        feed_forward: width of the gated feed-forward layers.
        block: tokens of a local block; a stride is as long.
        clusters: c.
        window: w, tokens of a cluster.
        token_shift: whether half of each vector is the one of the token before, at the input of attention.
        variant: "default" scales scores by d^(-1/2), masks a routed token's own key and rotates by position;
            "official" has no scale, no self-mask and embeddings of relative ranks in the cluster, for routed heads.
        decay, centroid_rule: see `routing.Centroids`.
        dropout: of the residual branches while training.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    others: int
    other: Kind
    local_layers: int
    feed_forward: int
    block: int
    clusters: int
    window: int
    token_shift: bool = False
    variant: Variant = "default"
    decay: float = 0.999
    centroid_rule: Literal["counts", "means"] = "counts"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise RequestError(f"width ({self.width}) must be a multiple of twice the heads ({self.heads})")
        if not 0 <= self.others <= self.heads:
            raise RequestError(f"{self.others} of {self.heads} heads cannot be of another kind")
        if self.other == "hash" and self.clusters & (self.clusters - 1):
            raise RequestError(f"codes of signs make a power of two of clusters, not {self.clusters}")


class Heads(nn.Module):
    """The heads of one kind: (batch, n, heads, d) queries, keys and values to outputs; `generator` draws what is
    random from the start."""

    def __init__(self, shape: Shape, kind: Kind, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.kind, self.heads = shape, kind, heads
        dim = shape.width // shape.heads
        self.routes = kind in ("routing", "random", "hash")
        if kind in ("routing", "random"):
            mu = routing.random_centroids(heads, shape.clusters, dim, generator)
            self.centroids = routing.Centroids(mu, shape.decay, shape.centroid_rule)
        if kind == "hash":
            bits = shape.clusters.bit_length() - 1
            self.register_buffer("directions", routing.projections(dim, bits, generator))
        if self.routes and shape.variant == "official":
            self.ranks = nn.Parameter(torch.zeros(heads, shape.window, dim))
        self.loss = torch.zeros(())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(batch, heads, n, d) each -> (batch, heads, n, d), causal. Heads that route take q for their keys too."""
        batch = len(q)
        if self.routes:
            return self._routed(q, v)
        q, k = (rotate(x) for x in (q, k))
        scale = q.shape[-1] ** -0.5
        if self.kind == "full":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        attend = block_attention if self.kind == "local" else strided_attention
        flat = (x.flatten(0, 1) for x in (q, k, v))
        out: Tensor = attend(*flat, self.shape.block, scale=scale, causal=True)
        return out.unflatten(0, (batch, self.heads))

    def _routed(self, q: Tensor, v: Tensor) -> Tensor:
        batch, heads, n, dim = q.shape
        x = routing.normalise(q)
        window = min(self.shape.window, n)
        if self.kind == "hash":
            directions: Tensor = self.directions  # type: ignore[assignment]
            codes = routing.codes_of(x.flatten(0, 1), directions)
            scores = routing.code_scores(x.flatten(0, 1), codes, self.shape.clusters)
        else:
            mu = self.centroids.means
            scores = torch.einsum("bhnd,hcd->bhcn", x.float().detach(), mu).flatten(0, 1)
        members = routing.balanced_members(scores, window)
        if self.kind == "routing":
            tokens = x.transpose(0, 1).flatten(1, 2)  # (heads, batch * n, d)
            self.loss = routing.commitment(tokens, self.centroids.means)
            if self.training:
                self.centroids.update(tokens.detach())
        official = self.shape.variant == "official"
        keys = (x if official else rotate(x)).flatten(0, 1)
        out = routed_attention(
            keys,
            keys,
            v.flatten(0, 1),
            members,
            scale=1.0 if official else dim**-0.5,
            causal=True,
            self_mask=not official,
            rank_bias=self._rank_bias(keys, members) if official else None,
            eps=1e-2 if official else 1e-5,
        )
        return out.unflatten(0, (batch, heads))

    def _rank_bias(self, q: Tensor, members: Tensor) -> Tensor:
        """q_i . r_(i - j) for ranks i >= j in a cluster: (heads, c, w, w)."""
        rows, clusters, w = members.shape
        own = q.take_along_dim(members.flatten(1)[..., None], 1).view(rows, clusters, w, -1)
        table = self.ranks[:, :w].repeat(rows // self.heads, 1, 1)  # (batch * heads, w, d) by distance
        by_distance = own @ table[:, None].mT
        rank = torch.arange(w, device=q.device)
        distance = (rank[:, None] - rank).clamp(min=0)
        return by_distance.gather(-1, distance.expand(rows, clusters, w, w))


class Layer(nn.Module):
    """Attention and a gated feed-forward layer, each behind a layer norm and added to its input."""

    def __init__(self, shape: Shape, number: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        others = 0 if number < shape.local_layers or shape.other == "local" else shape.others
        kinds: list[tuple[Kind, int]] = [("local", shape.heads - others), (shape.other, others)]
        self.kinds = nn.ModuleList(Heads(shape, kind, h, generator) for kind, h in kinds if h)
        self.before_attention, self.before_feed_forward = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.maps = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.up = nn.Linear(shape.width, 2 * shape.feed_forward)
        self.down = nn.Linear(shape.feed_forward, shape.width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n, width) -> the same."""
        y = self.before_attention(x)
        if self.shape.token_shift:
            half = self.shape.width // 2
            y = torch.cat([F.pad(y[:, :-1, :half], (0, 0, 1, 0)), y[..., half:]], -1)
        q, k, v = self.maps(y).unflatten(-1, (3, self.shape.heads, -1)).permute(2, 0, 3, 1, 4)
        counts = [part.heads for part in self.kinds]
        pieces = zip(self.kinds, *(t.split(counts, 1) for t in (q, k, v)), strict=True)
        out = torch.cat([part(*own) for part, *own in pieces], 1)
        x = x + self.dropout(self.output(out.transpose(1, 2).flatten(2)))
        gate, value = self.up(self.before_feed_forward(x)).chunk(2, -1)
        result: Tensor = x + self.dropout(self.down(F.gelu(gate) * value))
        return result


class SparseTransformer(nn.Module):
    """Token ids, int64, (batch, n), to logits, (batch, n, vocabulary).

    `commitment` is then the loss of the centroids, summed over layers. Membership looks ahead in the sequence, values
    do not: see `routing.balanced_members`.

    Args:
        generator: on the CPU; draws centroids and projections. Weights come from torch's global stream.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)
        self.layers = nn.ModuleList(Layer(shape, i, generator) for i in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.output = nn.Linear(shape.width, shape.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.shape.width**0.5
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.output(self.norm(x))
        return logits

    def commitment(self) -> Tensor:
        """Sum over layers of what the last forward pass leaves to the centroids' loss."""
        parts = [heads.loss for layer in self.layers for heads in layer.kinds]  # type: ignore[union-attr]
        device = self.output.weight.device
        return sum((p.to(device) for p in parts), start=torch.zeros((), device=device))


def rotate(x: Tensor) -> Tensor:
    """Rotary positions of x, (..., n, d): pairs (i, i + d/2) turned by n 10000^(-2 i / d)."""
    n, d = x.shape[-2:]
    frequency = 10_000.0 ** (-torch.arange(0, d, 2, device=x.device) / d)
    angle = torch.arange(n, device=x.device)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
