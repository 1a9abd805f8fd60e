"""Which tokens attend to each other: centroids, balanced membership, and online k-means.

All vectors are layer-normalised without scale or bias, so that each has norm sqrt(d) and, among centroids of one norm,
the nearest is the one of the largest dot product.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError

_SMOOTHING = 1e-5


def normalise(x: Tensor) -> Tensor:
    """Layer norm without scale or bias over the last dimension."""
    return F.layer_norm(x, x.shape[-1:])


def similarities(x: Tensor, centroids: Tensor) -> Tensor:
    """Scores of x, (heads, n, d), by centroids, (heads, c, d): (heads, c, n), float32."""
    return torch.matmul(centroids.to(x.dtype), x.mT).float()


def balanced_members(scores: Tensor, window: int, real: Tensor | None = None) -> Tensor:
    """Each cluster's `window` tokens of the highest scores, int64, (heads, c, window), in increasing order.

    A token may be in several clusters or in none. The order of positions is what makes a causal mask a triangle.
    Which tokens a cluster takes depends on all of the sequence, so membership, but no value, looks ahead.

    Args:
        scores: shape (heads, c, n).
        window: w, members of a cluster.
        real: bool, shape (heads, n): False for padding, which is in no cluster.

    Raises:
        RequestError: a sequence has fewer real tokens than `window`.
    """
    n = scores.shape[-1] if real is None else int(real.sum(-1).min())
    if window > n:
        raise RequestError(f"clusters of {window} tokens in a sequence of {n}")
    if real is not None:
        scores = scores.masked_fill(~real[:, None], -torch.inf)
    return scores.topk(window, dim=-1, sorted=False).indices.sort(-1).values


def random_centroids(heads: int, clusters: int, dim: int, generator: torch.Generator) -> Tensor:
    """Gaussian directions of norm sqrt(d), (heads, c, d), on the generator's device."""
    mu = torch.randn(heads, clusters, dim, generator=generator, device=generator.device)
    return F.normalize(mu, dim=-1) * math.sqrt(dim)


def k_means(x: Tensor, clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Spherical k-means of normalised x, (heads, n, d), from random tokens: (heads, c, d), of norm sqrt(d).

    A cluster without a token keeps its centroid.
    """
    heads, n, d = x.shape
    x = x.float()
    first = torch.rand(heads, n, generator=generator, device=generator.device).argsort(-1)[:, :clusters]
    mu = x.take_along_dim(first.to(x.device)[..., None], 1)
    if mu.shape[1] < clusters:
        raise RequestError(f"{clusters} clusters of {n} tokens")
    for _ in range(iterations):
        count, total = assigned(x, mu)
        mu = torch.where(count[..., None] > 0, F.normalize(total, dim=-1) * math.sqrt(d), mu)
    return mu


def assigned(x: Tensor, centroids: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Number and sum of the tokens whose best centroid is each: (heads, c) and (heads, c, d), float32.

    Args:
        real: bool, shape (heads, n): False for padding, which is not assigned.
    """
    heads, n, d = x.shape
    clusters = centroids.shape[1]
    best = similarities(x, centroids).argmax(1)
    weight = torch.ones(heads, n, device=x.device) if real is None else real.float()
    flat = (best + torch.arange(heads, device=x.device)[:, None] * clusters).flatten()
    count = torch.zeros(heads * clusters, device=x.device).index_add_(0, flat, weight.flatten())
    total = torch.zeros(heads * clusters, d, device=x.device)
    total.index_add_(0, flat, (x.float() * weight[..., None]).flatten(0, 1))
    return count.view(heads, clusters), total.view(heads, clusters, d)


class Centroids(nn.Module):
    """Centroids of each head, moved by exponential averages and by no gradient.

    Args:
        initial: shape (heads, c, d).
        decay: weight of the old average.
        rule: "counts" averages the number and the sum of the assigned tokens and divides them, the number
            Laplace-smoothed (the authors' code); "means" averages the means of the queries and of the keys that are
            assigned, where there are any (the paper's equation).
    """

    means: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self, initial: Tensor, decay: float = 0.999, rule: Literal["counts", "means"] = "counts"
    ) -> None:
        super().__init__()
        self.decay, self.rule = decay, rule
        self.register_buffer("means", initial.float().clone())
        self.register_buffer("counts", torch.ones(initial.shape[:2], device=initial.device))
        self.register_buffer("sums", initial.float().clone())

    @torch.no_grad()
    def update(self, *sets: Tensor, real: Tensor | None = None) -> None:
        """One step towards normalised queries, and keys where they are others, each (heads, n, d).

        Args:
            real: see `assigned`; it holds for every set.
        """
        each = [assigned(x, self.means, real) for x in sets]
        if self.rule == "means":
            step = torch.zeros_like(self.means)
            for count, total in each:
                mean = total / count.clamp(min=1.0)[..., None]
                step += torch.where(count[..., None] > 0, mean - self.means, 0.0) / len(each)
            self.means += (1 - self.decay) * step
            return
        count = torch.stack([c for c, _ in each]).sum(0)
        total = torch.stack([t for _, t in each]).sum(0)
        self.counts.lerp_(count, 1 - self.decay)
        self.sums.lerp_(total, 1 - self.decay)
        n = self.counts.sum(-1, keepdim=True)
        smoothed = (self.counts + _SMOOTHING) / (n + self.counts.shape[-1] * _SMOOTHING) * n
        self.means.copy_(self.sums / smoothed[..., None])


def commitment(x: Tensor, centroids: Tensor) -> Tensor:
    """Mean over tokens of ||x - mu_assigned||^2 / d, whose gradient reaches x alone; x is (heads, n, d).

    The mean is over the coordinates too, as the authors' code takes it.
    """
    with torch.no_grad():
        best = similarities(x, centroids).argmax(1)
        target = centroids.take_along_dim(best[..., None], 1)
    return F.mse_loss(x.float(), target)


def projections(dim: int, bits: int, generator: torch.Generator) -> Tensor:
    """Orthogonal directions, (d, bits), for `codes_of`."""
    if bits > dim:
        raise RequestError(f"{bits} orthogonal projections of {dim} dimensions")
    directions, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator, device=generator.device))
    return directions[:, :bits].contiguous()


def codes_of(x: Tensor, directions: Tensor) -> Tensor:
    """Signs of the projections of x, (heads, n, d), as numbers 0..2^bits - 1: int64, (heads, n)."""
    signs = torch.matmul(x.float(), directions.to(x.device)) > 0
    return (signs * 2 ** torch.arange(directions.shape[1], device=x.device)).sum(-1)


def code_scores(x: Tensor, codes: Tensor, clusters: int) -> Tensor:
    """Scores, (heads, c, n), by which a cluster prefers the tokens of its own code, ties in order of position."""
    n = x.shape[1]
    own = codes[:, None] == torch.arange(clusters, device=x.device)[:, None]
    return own.float() * 2 - torch.arange(n, device=x.device) / n


def pairs(n: int, clusters: int) -> float:
    """Dot products of one head: n c with the centroids and n^2 / c in c clusters of n / c tokens. Least at sqrt n."""
    return n * clusters + n * n / clusters
