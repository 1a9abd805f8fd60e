"""Attention over some of the keys, and how such parts make the whole.

Softmax attention of a query over a set of keys is a weighted mean of their values, and the weights' sum is the
only thing that two disjoint sets need to know of each other. A `Partial` is that pair: the mean, and the
logarithm of the sum. `merge` joins two of them exactly, so any algorithm that splits, samples or recurses can
be built on top of whatever kernel attends fastest.

The backward pass rests on the same fact. With the output and log-sum-exp of the *union*, p = exp(s - lse) is
already the weight in the union, so `attend_backward` of each part, given those, sums to the gradient of the
whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Partial(NamedTuple):
    """Attention over a set of keys.

    Attributes:
        out: weighted mean of the values, shape (..., queries, value dim), dtype of the values.
        lse: log of the sum of exp(scaled score + bias), shape (..., queries), float32; -inf over no keys, where
            `out` is 0.
    """

    out: Tensor
    lse: Tensor


def merge(a: Partial, b: Partial) -> Partial:
    """Attention over the union of two disjoint sets of keys, of which at least one is not empty.

    out = c * a.out + (1 - c) * b.out with c = sigmoid(a.lse - b.lse).
    """
    c = torch.sigmoid(a.lse - b.lse).unsqueeze(-1)
    return Partial(torch.lerp(b.out, a.out, c.to(a.out.dtype)), torch.logaddexp(a.lse, b.lse))


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None, causal: bool = False
) -> Partial:
    """Exact attention with its log-sum-exp, by a fused kernel where there is one. Not differentiable: see
    `attend_backward`.

    Args:
        q: shape (g, h, queries, d).
        k: shape (g, h, keys, d); may be expanded over g and h.
        v: shape (g, h, keys, d).
        scale: of the scores.
        bias: added to the scaled scores, shape (g, h, 1, keys), float32; -inf leaves a key out.
        causal: whether query i sees only keys 0..i; not together with `bias`.
    """
    if causal and bias is not None:
        raise ValueError("a causal mask and a bias together are not supported")
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=bias, scale=scale
        )
        return Partial(out, lse if bias is None else _without_keys(lse, bias))
    if bias is not None:
        return attend_dense(q, k, v, scale=scale, bias=bias)
    if q.dtype in (torch.float16, torch.bfloat16):
        out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return Partial(out, lse)
    out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    return Partial(out, lse[..., : q.shape[-2]])  # the kernel pads the rows to a multiple of 32


def _without_keys(lse: Tensor, bias: Tensor) -> Tensor:
    """The CPU kernel says 0 where a bias leaves no key at all; the logarithm of an empty sum is -inf."""
    return lse.masked_fill(torch.isneginf(bias).all(-1), -torch.inf)


def attend_dense(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None, causal: bool = False
) -> Partial:
    """`attend` by plain matrix products, on any device; holds the scores, (g, h, queries, keys), in float32."""
    scores = _scores(q, k, scale, bias, causal)
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse.unsqueeze(-1)).nan_to_num_(nan=0.0)  # -inf - -inf: no keys
    return Partial(torch.matmul(weights.to(v.dtype), v), lse)


def _scores(q: Tensor, k: Tensor, scale: float, bias: Tensor | None, causal: bool) -> Tensor:
    scores = torch.matmul(q, k.mT).float() * scale
    if bias is not None:
        scores += bias
    if causal:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        scores.masked_fill_(hidden, -torch.inf)
    return scores


def attend_backward(
    upstream: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    union: Partial,
    *,
    scale: float,
    bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to q, k and v of one part of the attention whose whole is `union`.

    Args:
        upstream: gradient with respect to ``union.out``, shape of `q`.
        q, k, v, scale, bias, causal: as in `attend`.
        union: output and log-sum-exp over all keys that the queries see, in this part or another.

    Returns:
        Gradients of the shapes of `q`, `k`, `v`; for an expanded `k` the caller sums over what was expanded.
    """
    if q.device.type == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
            upstream, q, k, v, union.out, union.lse, 0.0, causal, attn_mask=bias, scale=scale
        )
    if bias is None and q.dtype in (torch.float16, torch.bfloat16):
        unused = torch.zeros(2, dtype=torch.uint64, device=q.device)  # the dropout's random state
        return aten._scaled_dot_product_flash_attention_backward(  # type: ignore[no-any-return]
            upstream, q, k, v, union.out, union.lse, None, None, q.shape[-2], k.shape[-2],
            0.0, causal, unused[:2], unused[0], scale=scale,
        )  # fmt: skip
    return dense_backward(upstream, q, k, v, union, scale=scale, bias=bias, causal=causal)


def dense_backward(
    upstream: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    union: Partial,
    *,
    scale: float,
    bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`attend_backward` by plain matrix products, on any device."""
    p = torch.exp(_scores(q, k, scale, bias, causal) - union.lse.unsqueeze(-1))
    delta = (upstream.float() * union.out.float()).sum(-1, keepdim=True)
    ds = (p * (torch.matmul(upstream, v.mT).float() - delta) * scale).to(q.dtype)
    return torch.matmul(ds, k), torch.matmul(ds.mT, q), torch.matmul(p.mT.to(v.dtype), upstream)
