"""NTK-Attention (Algorithm 2): a prefix of any length as a matrix Z and a vector k for each head.

Prefix attention weighs the values of m trained positions by exp(q . k_r / sqrt(d)). With features in place of
the exponential their sums separate, sum_r phi(q) . phi(k_r) v_r = phi(q) Z, so that m is gone:

    out = (exp(q K^T / sqrt(d)) V + phi(q) Z) / (exp(q K^T / sqrt(d)) 1 + phi(q) . |k|).

What the real keys contribute is exact attention with its log-sum-exp, which any fused kernel gives; the
paper's row maximum takes the place of that logarithm there and the arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from methods.attention.ntk_attention.features import Phi, features
from methods.attention.partial import Partial, attend, attend_backward

Start = Literal["small", "zeros", "normal"]

_LARGEST = 80.0
"""Log of the largest weight of the prefix: exp of it is finite in float32."""


class State(NamedTuple):
    """What stands for a prefix.

    Attributes:
        z: sum of phi(k_r) v_r^T, shape (h, d', value dim).
        k: sum of phi(k_r), shape (h, d').
    """

    z: Tensor
    k: Tensor


def from_prefix(keys: Tensor, values: Tensor, *, phi: Phi, degree: int, scale: float) -> State:
    """The state of a given prefix, float32 or float64: Z = phi(K_P)^T V_P and k = phi(K_P)^T 1.

    Args:
        keys, values: shape (h, m, d).
        scale: of the scores; both sides of a product take its root.
    """
    keys, values = (x if x.dtype == torch.float64 else x.float() for x in (keys, values))
    f = features(keys * scale**0.5, phi, degree)
    return State(f.mT @ values, f.sum(1))


def initial(
    heads: int, features: int, value_dim: int, generator: torch.Generator, start: Start = "small"
) -> State:
    """A state to train from, float32.

    Args:
        start: "small": Z ~ 1e-4 N(0, 1), k = 0.01. "zeros": both 0, as in the authors' script for images; |k|
            has no gradient there, so that k never moves. "normal": both N(0, 1), as in their demonstration.
    """
    z = torch.randn(heads, features, value_dim, generator=generator)
    k = torch.randn(heads, features, generator=generator)
    if start == "normal":
        return State(z, k)
    if start == "zeros":
        return State(torch.zeros_like(z), torch.zeros_like(k))
    return State(1e-4 * z, torch.full_like(k, 0.01))


def ntk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    scale: float,
    phi: Phi = "elu1",
    degree: int = 2,
    causal: bool = False,
    dropout: float = 0.0,
    kernel: Callable[..., Partial] = attend,
) -> Partial:
    """Attention over real keys, and over the prefix that `state` stands for; differentiable in all of it.

    The paper takes |k| so that the denominator is positive. That holds for "elu1", whose features are.
    Taylor features of odd order have either sign in the sum over a prefix, and the product with phi(q) is
    positive without help where the degree is even; so k enters as it is there.

    Args:
        q: shape (batch, h, L, d).
        k, v: shape (batch, key heads, L, d); h is a multiple of the key heads.
        state: in float32, or in float64 with q, k and v.
        scale: of the scores.
        phi, degree: see `features.features`.
        causal: whether query i sees only the real keys 0..i; all see the prefix.
        dropout: share of the entries of phi(q) that are dropped, as in training on images.
        kernel: `attend`, or `fused.attend` for a state of "elu1" without dropout.

    Returns:
        Output, dtype of v, and log of the denominator (which carries no gradient), shape (batch, h, L).
    """
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} heads of queries are no multiple of {k.shape[1]} heads of keys")
    weight = state.k.abs() if phi == "elu1" else state.k
    if kernel is not attend and (phi != "elu1" or dropout):
        raise ValueError("the fused kernel computes phi = 'elu1' without dropout")
    if kernel is not attend and not torch.is_grad_enabled():
        fused: Partial = kernel(q, k, v, state.z, weight, scale=scale, causal=causal)
        return fused
    if (group := q.shape[1] // k.shape[1]) > 1:
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    wide = q if q.dtype == torch.float64 else q.float()
    f = features(wide * scale**0.5, phi, degree)
    if dropout:
        f = torch.nn.functional.dropout(f, dropout)
    out, lse = _Attention.apply(q, k, v, f, state.z, weight, causal, scale, kernel)
    return Partial(out, lse)


def join(real: Partial, numerator: Tensor, denominator: Tensor) -> Partial:
    """Attention over the real keys and a prefix that adds to numerator and denominator.

    Both are scaled down by the larger of the real keys' sum and 1, the prefix's own scale, so that neither
    overflows: scores of +-1000 are as good as any others.

    Args:
        real: over the real keys.
        numerator: phi(q) Z, shape of ``real.out``.
        denominator: phi(q) . |k|, shape of ``real.lse``.
    """
    top = torch.where(denominator == 0, real.lse, real.lse.clamp(min=0))
    own, other = torch.exp(real.lse - top), torch.exp((-top).clamp(max=_LARGEST))
    total = own + other * denominator
    out = (own[..., None] * real.out + other[..., None] * numerator) / total[..., None]
    return Partial(out.to(real.out.dtype), top + total.log())


class _Attention(torch.autograd.Function):
    """Joins a fused kernel's attention with the prefix's part, and splits the gradient again.

    The denominator D is shared: with p = exp(score - log D) the kernel's own backward pass, given the joint
    output and log D, is the gradient through the real keys. With N the numerator, out = N / D,
    d out / d (f Z) = 1 / D and d out / d (f . |k|) = -out / D.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        f: Tensor,
        z: Tensor,
        weight: Tensor,
        causal: bool,
        scale: float,
        kernel: Any,
    ) -> tuple[Tensor, Tensor]:
        if kernel is attend:
            real = attend(q, k, v, scale=scale, causal=causal)
            union = join(real, f @ z, (f @ weight[..., None]).squeeze(-1))
        else:
            union = kernel(q, k, v, z, weight, scale=scale, causal=causal)
        ctx.save_for_backward(q, k, v, f, z, weight, *union)
        ctx.causal, ctx.scale = causal, scale
        ctx.mark_non_differentiable(union.lse)
        return union.out, union.lse

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        q, k, v, f, z, weight, out, lse = ctx.saved_tensors
        dq, dk, dv = attend_backward(
            upstream.contiguous(), q, k, v, Partial(out, lse), scale=ctx.scale, causal=ctx.causal
        )
        inverse = torch.exp((-lse).clamp(max=_LARGEST))[..., None]
        up = upstream.to(f.dtype)
        d_numerator = up * inverse
        d_denominator = -(up * out).sum(-1, keepdim=True) * inverse
        df = d_numerator @ z.mT + d_denominator * weight[:, None]
        dz = (f.mT @ d_numerator).sum(0)
        d_weight = (f.mT @ d_denominator).sum(0).squeeze(-1)
        return dq, dk, dv, df, dz, d_weight, None, None, None
