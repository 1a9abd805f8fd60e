"""What the Routing Transformer's heads are compared with, as single layers and in models that are trained."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.method import method
from harness.types import PositiveInt
from methods.attention.pairs import PATTERN, Pattern
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import block_attention, strided_attention
from methods.attention.routing_transformer.layers import Centred, Clustered
from methods.attention.routing_transformer.training import Trained
from methods.attention.work import Inputs


@method("random-routing-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class RandomRoutingAttention(Centred):
    """Routing with clusters that nothing has been learned of."""

    by: Literal["centroids", "permutation"] = "permutation"
    """Random centroids, or a random permutation of the tokens cut into clusters."""

    def initial(self, x: Inputs) -> Tensor:
        draws = self.context.torch_generator("centroids")
        return routing.random_centroids(len(x.q), self.count, x.q.shape[-1], draws)

    def members(self, x: Tensor) -> Tensor:
        if self.by == "centroids":
            return super().members(x)
        draws = self.context.torch_generator("permutation")
        order = torch.rand(len(x), self.count, x.shape[1], generator=draws).to(x.device)
        if self.count * self.size <= x.shape[1]:  # one permutation holds all clusters
            flat = order[:, 0].argsort(-1)[:, : self.count * self.size]
            return flat.view(len(x), self.count, self.size).sort(-1).values
        return routing.balanced_members(order, self.size)

    def searched(self, n: int) -> float:
        return super().searched(n) if self.by == "centroids" else 0.0


@method("hash-routing-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class HashRoutingAttention(Clustered):
    """Routing by locality-sensitive hashing: a cluster is a code of signs of orthogonal projections, balanced."""

    def prepare(self, work: Inputs) -> None:
        super().prepare(work)
        if self.count & (self.count - 1):
            raise RequestError(f"codes of signs make a power of two of clusters, not {self.count}")

    def members(self, x: Tensor) -> Tensor:
        draws = self.context.torch_generator("projections")
        directions = routing.projections(x.shape[-1], self.count.bit_length() - 1, draws)
        codes = routing.codes_of(routing.normalise(x), directions)
        return routing.balanced_members(routing.code_scores(x, codes, self.count), self.size)

    def searched(self, n: int) -> float:
        return n * math.log2(self.count)


@method("block-local-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class BlockLocalAttention(Pattern):
    """The paper's local heads: the tokens of a block see their block and the one before."""

    block: PositiveInt = 256
    """Tokens of a block."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return block_attention(q, k, v, self.block, scale=scale, causal=causal)

    def kept(self, rows: Tensor) -> Tensor:
        block = torch.arange(self.inputs.q.shape[1], device=rows.device) // self.block
        own = (rows // self.block)[:, None]
        return ((block == own) | (block == own - 1))[None]

    def scored(self, n: int) -> float:
        return 2.0 * min(self.block, n) * n


@method("strided-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class StridedAttention(Pattern):
    """The Sparse Transformer's strided heads: a token sees those whose distance is a multiple of the stride."""

    stride: PositiveInt = 32
    """Distance of the keys that a query sees."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return strided_attention(q, k, v, self.stride, scale=scale, causal=causal)

    def kept(self, rows: Tensor) -> Tensor:
        place = torch.arange(self.inputs.q.shape[1], device=rows.device)
        return ((place - rows[:, None]) % self.stride == 0)[None]

    def scored(self, n: int) -> float:
        return float(n * -(-n // self.stride))


# --- models that are trained -----------------------------------------------------------------------


@method("local-transformer", task=("associative-recall", "long-text-training"))
class LocalTransformer(Trained):
    """All heads are local."""

    other = "local"


@method("strided-transformer", task=("associative-recall", "long-text-training"))
class StridedTransformer(Trained):
    """Half of the heads are local and half strided, as in the Sparse Transformer."""

    other = "strided"


@method("random-routing-transformer", task=("associative-recall", "long-text-training"))
class RandomRoutingTransformer(Trained):
    """Half of the heads route by random centroids that stay where they are."""

    other = "random"


@method("hash-routing-transformer", task=("associative-recall", "long-text-training"))
class HashRoutingTransformer(Trained):
    """Half of the heads route by locality-sensitive hashes; the number of clusters is a power of two."""

    other = "hash"


@method("full-transformer", task=("associative-recall", "long-text-training"))
class FullTransformer(Trained):
    """All heads see everything before them."""

    other = "full"
