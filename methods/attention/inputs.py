"""Queries, keys and values to attend with."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.seeding import torch_generator
from methods.attention.llama import held_out, long_context_recipe, queries_keys_values
from methods.common.language_model import pretrained

CLUSTERS = 32
NOISE = 0.3
GAIN = 1.6


def draw(kind: str, seed: int, heads: int, length: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v, float32, each of shape (heads, length, head_dim).

    Args:
        kind: "gaussian": all independent N(0, 1). "clustered": see `clustered`. "language-model": see
            `from_model`.
    """
    if kind == "language-model":
        return from_model(seed, heads, length, head_dim)
    shape = (heads, length, head_dim)
    v = torch.randn(shape, generator=torch_generator(seed, "values"))
    if kind == "clustered":
        q, k = clustered(seed, heads, length, head_dim)
    else:
        q, k = (torch.randn(shape, generator=torch_generator(seed, name)) for name in ("queries", "keys"))
    return q, k, v


def clustered(seed: int, heads: int, length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Queries and keys around 32 centres of their head: 1.6 * (mu + 0.3 z) / sqrt(1 + 0.3^2), mu and z ~ N(0,
    I), the centre drawn uniformly for each query and each key. A query's scores are high on the keys of its
    centre.
    """
    generator = torch_generator(seed, "centres")
    centres = torch.randn(heads, CLUSTERS, head_dim, generator=generator)

    def around(name: str) -> Tensor:
        own = torch_generator(seed, name)
        which = torch.randint(CLUSTERS, (heads, length, 1), generator=own).expand(-1, -1, head_dim)
        noise = torch.randn(heads, length, head_dim, generator=own)
        return GAIN * (centres.gather(1, which) + NOISE * noise) / (1 + NOISE**2) ** 0.5

    return around("queries"), around("keys")


def from_model(seed: int, heads: int, length: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the last layer of the family's byte-level model (4 layers, rotated positions) on held-out
    text."""
    recipe = long_context_recipe(length, 4, heads, head_dim, 344, 250)
    return queries_keys_values(pretrained(recipe), held_out(recipe, seed, 1), layer=-1)
