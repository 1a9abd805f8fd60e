"""Tensor attention in almost linear time for bounded entries: the polynomial method.

exp is replaced by its Taylor polynomial p_g of degree g. With the multi-indices c over the d coordinates, |c| <=
g, phi_c(y) = prod_l y_l^(c_l) and w_c = scale^|c| / prod_l c_l!,

    p_g(S[i, j, k]) = sum_c w_c phi_c(Q[i]) phi_c(K1[j]) phi_c(K2[k])

because (sum_l q_l a_l b_l)^t = sum over |c| = t of t! / prod(c_l!) q^c a^c b^c. So the sums over j and k factor:

    D = phi(Q) w (phi(K1)^T 1 * phi(K2)^T 1),    D O = phi(Q) w (phi(K1)^T V1 * phi(K2)^T V2)

with m = C(d + g, g) features: O(n m d) time. An even p_g is positive everywhere, and then so is D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MissingPackage, RequestError
from methods.attention.partial import Partial
from methods.attention.tensor_attention.exact import spread

_HELD = 1 << 19
"""Features held at a time: 2 MB in float32, which stays in the cache of a processor."""

Kernel = Literal["auto", "torch", "triton"]


class Sums(NamedTuple):
    """Sums over all combinations of keys: `numerator` (heads, n, d) and `denominator` (heads, n)."""

    numerator: Tensor
    denominator: Tensor


@dataclass(frozen=True)
class Monomials:
    """The monomials of up to `degree` factors out of `dim` coordinates, by degree and then by their last factor.

    Attributes:
        dim: d, coordinates.
        degree: g, factors at most.
        scale: of the scores.
    """

    dim: int
    degree: int
    scale: float

    @property
    def count(self) -> int:
        """m = C(d + g, g)."""
        return math.comb(self.dim + self.degree, self.degree)

    def factors(self) -> Tensor:
        """Coordinates that are multiplied, int32, shape (m, g); `dim` stands for the factor 1."""
        rows = [
            sorted(c) + [self.dim] * (self.degree - t)
            for t in range(self.degree + 1)
            for c in _by_last_factor(self.dim, t)
        ]
        return torch.tensor(rows, dtype=torch.int32).view(self.count, self.degree)

    def weights(self) -> Tensor:
        """w_c = scale^|c| / prod_l c_l!, float64, shape (m,)."""
        powers = F.one_hot(self.factors().long(), self.dim + 1)[..., : self.dim].sum(1).double()
        return torch.exp(powers.sum(-1) * math.log(self.scale) - torch.lgamma(powers + 1).sum(-1))

    def features(self, y: Tensor) -> Tensor:
        """phi(y) of y, shape (heads, n, d): (heads, m, n), each degree from the one before.

        The monomials of a degree whose last factor is l are those of the degree before with last factors up to l,
        times y_l; in the order that is kept here those are the first ones.
        """
        rows = y.mT.contiguous()  # (heads, d, n)
        before = torch.ones_like(rows[:, :1])
        blocks = [before]
        for t in range(1, self.degree + 1):
            first = [math.comb(last + t - 1, t - 1) for last in range(self.dim)]  # last factor <= last
            before = torch.cat([before[:, :count] * rows[:, last, None] for last, count in enumerate(first)], 1)
            blocks.append(before)
        return torch.cat(blocks, 1)


def _by_last_factor(dim: int, t: int) -> list[tuple[int, ...]]:
    """Multisets of t coordinates, sorted by their largest member, then by the second largest, ..."""
    return sorted(combinations_with_replacement(range(dim), t), key=lambda c: c[::-1])


def polynomial_sums(
    q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], *, degree: int, scale: float
) -> Sums:
    """D and D O with p_g in place of exp; differentiable. Shapes as in `exact.tensor_attention`.

    The dtype is float64 for float64 inputs, else float32.
    """
    spread(q, keys, values)  # for its look at the shapes
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    monomials = Monomials(q.shape[-1], degree, scale)
    weights = monomials.weights().to(q.device, wide)
    whole: Tensor | None = None
    for k, v in zip(keys, values, strict=True):
        sums = _moments(monomials, k.to(wide), F.pad(v.to(wide), (0, 1), value=1.0))
        sums = sums.repeat_interleave(len(q) // len(k), 0)
        whole = sums if whole is None else whole * sums
    assert whole is not None
    whole = whole * weights[:, None]  # (heads, m, d + 1); the last column makes D
    parts = [monomials.features(some).mT @ whole for some in _some(q.to(wide), monomials)]
    both = torch.cat(parts, 1)
    return Sums(both[..., :-1], both[..., -1])


def _moments(monomials: Monomials, k: Tensor, v: Tensor) -> Tensor:
    """phi(K)^T [V, 1]: shape (key heads, m, d + 1)."""
    pairs = zip(_some(k, monomials), _some(v, monomials), strict=True)
    first, *rest = (monomials.features(some) @ own for some, own in pairs)
    return sum(rest, start=first)


def _some(x: Tensor, monomials: Monomials) -> tuple[Tensor, ...]:
    """x, (heads, n, ...), split along n so that the features of a piece fit into the cache."""
    return x.split(max(1, _HELD // (len(x) * monomials.count)), 1)


def polynomial_attention(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    degree: int,
    scale: float,
    kernel: Kernel = "auto",
) -> Partial:
    """O = (D O) / D and log D with p_g in place of exp, in the dtype of `values`.

    Args:
        degree: g, even: an odd polynomial is negative for low scores, and then D can be zero.
        kernel: "torch" writes the features of some rows at a time; "triton" keeps them in registers (a GPU, or
            Triton's interpreter; without a gradient); "auto" is "triton" on a GPU where no gradient is asked for.

    Raises:
        RequestError: the degree is odd, the shapes do not fit together or "triton" is asked for a gradient.
    """
    if degree % 2:
        raise RequestError(f"the degree must be even, not {degree}: only then are all weights positive")
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q, *keys, *values))
    if kernel == "triton" and gradient:
        raise RequestError("the kernel 'triton' has no backward pass: choose 'torch' for gradients")
    if kernel == "triton" or (kernel == "auto" and q.device.type == "cuda" and not gradient):
        sums = _fused().polynomial_sums(q, keys, values, degree=degree, scale=scale)
    else:
        sums = polynomial_sums(q, keys, values, degree=degree, scale=scale)
    out = sums.numerator / sums.denominator[..., None]
    return Partial(out.to(values[0].dtype), sums.denominator.log().detach())


def error_bound(largest_score: float, degree: int) -> float:
    """Of |p_g(s) - e^s| / e^s for |s| <= x: at most e^(2x) x^(g + 1) / (g + 1)!."""
    x, g = largest_score, degree
    if x == 0:
        return 0.0
    return math.exp(min(700.0, 2 * x + (g + 1) * math.log(x) - math.lgamma(g + 2)))


def least_degree(largest_score: float, tolerance: float, most: int = 1 << 20) -> int | None:
    """The least even g up to `most` whose `error_bound` is at most `tolerance`, or None."""
    return next((g for g in range(0, most + 1, 2) if error_bound(largest_score, g) <= tolerance), None)


def _fused():  # type: ignore[no-untyped-def]
    """The module of the kernel; imported late, because triton is optional."""
    try:
        from methods.attention.tensor_attention import kernel
    except ImportError as error:
        raise MissingPackage("the kernel 'triton' needs the package triton: pip install triton") from error
    return kernel
