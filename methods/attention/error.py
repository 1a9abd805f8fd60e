"""How far an attention output is from the exact one, on a sample of the queries.

Exact attention of all queries costs as much as the baseline under test and its matrix does not fit in memory,
so errors are measured on `rows` of uniformly drawn queries, each computed exactly over all keys in float32.
When the rows are all queries, everything here is exact. Otherwise
- mean errors over rows are unbiased;
- the operator norm of the error is that of the sampled rows times sqrt(n / rows), which is too large by a
  factor of at most (1 + sqrt(d / rows)) / (1 + sqrt(d / n)), 8 % at 4,096 of 32,768 rows and d = 64;
- the operator norm of the softmax matrix is estimated by a quotient that tends to be too small
  (`operator_norm`).
Both make the reported error larger than the true one, by the same factor for methods that are compared on the
same rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1 << 24
"""Scores held at a time."""

_NORM_ROWS = 2048
"""Rows kept for the norm of the softmax matrix where it is estimated."""


@dataclass(frozen=True)
class Exact:
    """Exact attention of one head at some rows.

    Attributes:
        out: shape (rows, value dim).
        lse: shape (rows,).
        norm: operator norm of the n x n softmax matrix.
        alpha: n times the largest squared column norm of the softmax matrix, the paper's hardness parameter.
        query_gradient: shape (rows, d), for an upstream gradient; else None.
    """

    out: Tensor
    lse: Tensor
    norm: float
    alpha: float
    query_gradient: Tensor | None


def exact_rows(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, *, causal: bool, scale: float, upstream: Tensor | None = None
) -> Exact:
    """Exact attention of the queries `rows` of one head.

    Args:
        q, k, v: shape (n, d).
        rows: int64, shape (rows,), in random order, none twice.
        causal: whether query i sees only keys 0..i.
        scale: of the scores.
        upstream: gradient with respect to the output, shape of `v`.
    """
    q, k, v = q.float(), k.float(), v.float()
    n = len(k)
    keep = len(rows) if len(rows) == n else min(_NORM_ROWS, len(rows))
    kept, outs, sums, gradients = [], [], [], []
    for part, scores in _scores(q, k, rows, causal, scale):
        lse = scores.logsumexp(-1)
        p = scores.sub_(lse[:, None]).exp_()
        out = p @ v
        outs.append(out)
        sums.append(lse)
        if upstream is not None:
            up = upstream[part].float()
            gradients.append(p * (up @ v.T - (up * out).sum(-1, keepdim=True)) @ k * scale)
        if keep > 0:
            kept.append(p[:keep])
            keep -= len(kept[-1])
    softmax = torch.cat(kept)
    alpha = float(n * softmax.square().sum(0).max() * n / len(softmax))
    return Exact(
        torch.cat(outs),
        torch.cat(sums),
        operator_norm(softmax),
        alpha,
        torch.cat(gradients) if gradients else None,
    )


def exact_lse(q: Tensor, k: Tensor, rows: Tensor, *, causal: bool, scale: float) -> Tensor:
    """Log of the row sums of exp(scaled scores) of the queries `rows` of one head: shape (rows,); see
    `exact_rows`."""
    return torch.cat([scores.logsumexp(-1) for _, scores in _scores(q.float(), k.float(), rows, causal, scale)])


def lse_errors(lse: Tensor, exact: Tensor) -> dict[str, float]:
    """Of log row sums of the same shape: ``lse_bias``, the mean error in nats; ``lse_error``, the mean
    absolute error in nats; ``relative_lse_error``, the mean of the absolute error over the absolute value."""
    error = lse - exact
    return {
        "lse_bias": float(error.mean()),
        "lse_error": float(error.abs().mean()),
        "relative_lse_error": float((error / exact).abs().mean()),
    }


def _scores(q: Tensor, k: Tensor, rows: Tensor, causal: bool, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of `rows` at a time and their scaled scores."""
    for part in rows.split(max(1, _CHUNK // len(k))):
        scores = q[part] @ k.T * scale
        if causal:
            scores.masked_fill_(torch.arange(len(k), device=k.device) > part[:, None], -torch.inf)
        yield part, scores


def operator_norm(softmax: Tensor) -> float:
    """Operator norm of the n x n softmax matrix P of which `softmax` is all rows or a random sample, (rows, n).

    All rows: power iteration on P^T P. A sample: two quarters A, B of its rows and the other half C each give
        an
    unbiased estimate of G = P^T P. With x = G_C G_C 1, independent of A and B, the quotient
    <G_A x, G_B x> / (<x, G_A x> / 2 + <x, G_B x> / 2) estimates x^T G G x / x^T G x, which is at most the
    largest eigenvalue of G whatever x is. It is within 1 % of it for Gaussian inputs and up to 30 % below for
    clustered ones.
    """
    rows, n = softmax.shape
    x = torch.full((n,), n**-0.5, device=softmax.device)
    if rows == n:
        return math.sqrt(_largest_eigenvalue(softmax, x))
    quarter = rows // 4
    a, b, c = softmax.split([quarter, quarter, rows - 2 * quarter])
    x = _gram(c, _gram(c, x))
    x = x / x.norm()
    one, two = _gram(a, x), _gram(b, x)
    return math.sqrt(float(one @ two / ((x @ one + x @ two) / 2)))


def _gram(p: Tensor, x: Tensor) -> Tensor:
    """P^T P x, estimated from some rows p of the n x n matrix P."""
    return p.T @ (p @ x) * (p.shape[1] / len(p))


def _largest_eigenvalue(p: Tensor, x: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> float:
    """Of p^T p, from below: power iteration until the value grows by less than `tolerance`."""
    value = 0.0
    for _ in range(iterations):
        image = p.T @ (p @ x)
        before, value = value, float(image.norm())
        if value - before <= tolerance * value:
            break
        x = image / value
    return value


def spectral_norm(x: Tensor) -> float:
    """Largest singular value of a tall matrix, shape (rows, d): from its Gram matrix, in float64."""
    gram = (x.T @ x).double()
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
