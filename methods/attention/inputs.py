"""Queries, keys and values to attend with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import RequestError
from harness.seeding import torch_generator
from methods.attention.llama import held_out, long_context_recipe, queries_keys_values
from methods.common.language_model import pretrained

CLUSTERS = 32
NOISE = 0.3
GAIN = 1.6


def draw(
    kind: str,
    seed: int,
    heads: int,
    length: int,
    head_dim: int,
    *,
    key_heads: int | None = None,
    batch: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, float32, shape (batch * heads, length, head_dim), and k and v, (batch * key_heads, length, head_dim).

    Args:
        kind: "gaussian": all independent N(0, 1). "clustered": see `clustered`. "shared-clusters": see
            `shared_clusters`. "language-model": see
            `from_model`.
        key_heads: heads of keys and values, which divide `heads`; default as many.
        batch: sequences.
    """
    key_heads = key_heads or heads
    if kind == "language-model":
        if key_heads != heads:
            raise RequestError(
                "the language model has a head of keys for each of queries: leave key_heads at 0"
            )
        return from_model(seed, heads, length, head_dim, batch)
    if kind == "shared-clusters" and key_heads != heads:
        raise RequestError("shared queries and keys have as many heads of keys: leave key_heads at 0")
    shape, key_shape = (batch * heads, length, head_dim), (batch * key_heads, length, head_dim)
    v = torch.randn(key_shape, generator=torch_generator(seed, "values"))
    if kind == "shared-clusters":
        q = k = shared_clusters(seed, batch * heads, length, head_dim)
    elif kind == "clustered":
        q, k = clustered(seed, batch * heads, length, head_dim, batch * key_heads)
    else:
        q = torch.randn(shape, generator=torch_generator(seed, "queries"))
        k = torch.randn(key_shape, generator=torch_generator(seed, "keys"))
    return q, k, v


def clustered(
    seed: int, heads: int, length: int, head_dim: int, key_heads: int | None = None
) -> tuple[Tensor, Tensor]:
    """Queries and keys around 32 centres of their head of keys: 1.6 * (mu + 0.3 z) / sqrt(1 + 0.3^2), mu and
    z ~ N(0, I), the centre drawn uniformly for each query and each key. A query's scores are high on the keys
    of its centre.
    """
    key_heads = key_heads or heads
    generator = torch_generator(seed, "centres")
    centres = torch.randn(key_heads, CLUSTERS, head_dim, generator=generator)

    def around(name: str, heads: int) -> Tensor:
        own = torch_generator(seed, name)
        which = torch.randint(CLUSTERS, (heads, length, 1), generator=own).expand(-1, -1, head_dim)
        noise = torch.randn(heads, length, head_dim, generator=own)
        mu = centres.repeat_interleave(heads // key_heads, 0).gather(1, which)
        return GAIN * (mu + NOISE * noise) / (1 + NOISE**2) ** 0.5

    return around("queries", heads), around("keys", key_heads)


def shared_clusters(seed: int, heads: int, length: int, head_dim: int) -> Tensor:
    """Vectors that are queries and keys at once, (heads, length, head_dim): the layer norm of 1.5 mu + 0.5 z around
    32 centres mu of each head, mu and z ~ N(0, I), the centre drawn uniformly for each token."""
    centres = torch.randn(heads, CLUSTERS, head_dim, generator=torch_generator(seed, "centres"))
    own = torch_generator(seed, "shared vectors")
    which = torch.randint(CLUSTERS, (heads, length, 1), generator=own).expand(-1, -1, head_dim)
    noise = torch.randn(heads, length, head_dim, generator=own)
    return F.layer_norm(1.5 * centres.gather(1, which) + 0.5 * noise, (head_dim,))


def from_model(
    seed: int, heads: int, length: int, head_dim: int, batch: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the last layer of the family's byte-level model (4 layers, rotated positions) on held-out
    text, one window for each sequence of the batch."""
    recipe = long_context_recipe(length, 4, heads, head_dim, 344, 250)
    model = pretrained(recipe)
    each = [queries_keys_values(model, window[None], layer=-1) for window in held_out(recipe, seed, batch)]
    q, k, v = (torch.cat(parts) for parts in zip(*each, strict=True))
    return q, k, v
