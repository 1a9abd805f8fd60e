"""Exact tensor attention of any order t, without anything of the size n^t or n^(t - 1).

With S[i, j, k] = scale * sum_l Q[i, l] K1[j, l] K2[k, l] the query i and the key j of the first set make a query
Q[i] * K1[j] of ordinary attention to (K2, V2), and torch's fused kernel gives its output and log-sum-exp:

    O[i] = sum_j softmax_j(lse[i, j]) V1[j] * out[i, j],    lse[i] = logsumexp_j lse[i, j]

So attention of order t is n times as many queries of order t - 1 and a weighted mean over j. FLOPs: 4 n^t d
forward, 12 n^t d backward (the scores are computed again).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import RequestError
from methods.attention.partial import Partial, attend

_HELD = 1 << 21
"""Elements of combined queries, or of scores in the backward pass, at a time."""


def tensor_attention(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], *, scale: float) -> Partial:
    """Exact attention of order len(keys) + 1; the output is differentiable.

    Args:
        q: shape (heads, n, d).
        keys, values: K1, K2, ... and V1, V2, ..., each of shape (key heads, m, d) with an m of its own for each
            pair; query head h sees key head h // (heads / key heads).
        scale: of the scores.

    Returns:
        O, shape (heads, n, d), and the logarithm of D, float32 (float64 for float64 inputs), (heads, n).

    Raises:
        RequestError: the shapes do not fit together.
    """
    keys, values = spread(q, keys, values)
    out, lse = _Exact.apply(scale, len(keys), q, *keys, *values)  # type: ignore[no-untyped-call]
    return Partial(out, lse)


def spread(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values with as many heads as queries, after a look at all shapes; see `tensor_attention`."""
    if not keys or len(keys) != len(values):
        raise RequestError(f"as many sets of values as of keys are needed, not {len(values)} and {len(keys)}")
    for k, v in zip(keys, values, strict=True):
        if k.shape[:2] != v.shape[:2] or k.shape[-1] != q.shape[-1] or v.shape[-1] != values[0].shape[-1]:
            raise RequestError(
                f"queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit together"
            )
        if len(q) % len(k):
            raise RequestError(f"{len(q)} heads of queries are not a multiple of {len(k)} heads of keys")
    groups = [len(q) // len(k) for k in keys]
    wide = [
        [x.repeat_interleave(g, 0) if g > 1 else x for x, g in zip(sets, groups, strict=True)]
        for sets in (keys, values)
    ]
    return wide[0], wide[1]


class _Exact(torch.autograd.Function):
    """The forward pass by `_attend`; the backward pass computes the scores again from the saved log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, scale: float, sets: int, q: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = _attend(q, rest[:sets], rest[sets:], scale)
        ctx.save_for_backward(q, *rest, out, lse)
        ctx.scale, ctx.sets = scale, sets
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Any, ...]:
        q, *rest, out, lse = ctx.saved_tensors
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        tensors = [x.to(wide) for x in (q, *rest, out, upstream)]
        q, *rest, out, upstream = tensors
        keys, values = rest[: ctx.sets], rest[ctx.sets :]
        delta = (upstream * out).sum(-1)
        dq, _unused, dkeys, dvalues = _backward(q, upstream, lse.to(wide), delta, keys, values, ctx.scale)
        inputs = ctx.saved_tensors[:-2]
        return None, None, *(g.to(x.dtype) for g, x in zip((dq, *dkeys, *dvalues), inputs, strict=True))


def _attend(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], scale: float) -> Partial:
    """The forward pass, as many queries at a time as fit."""
    if len(keys) == 1:
        return _ordinary(q, keys[0], values[0], scale)
    k, v = keys[0], values[0]
    parts = []
    for some in q.split(max(1, _HELD // k.numel()), 1):
        combined = (some[:, :, None] * k[:, None]).flatten(1, 2)  # (heads, some * m, d): Q[i] * K1[j]
        out, lse = _attend(combined, keys[1:], values[1:], scale)
        lse = lse.unflatten(1, (some.shape[1], -1))
        whole = lse.logsumexp(-1)
        weight = torch.exp(lse - whole[..., None])
        # O[i] = sum_j weight[i, j] V1[j] * out[i, j]; the sum over j as a matrix product for each i.
        products = out.unflatten(1, lse.shape[1:]) * v[:, None]
        parts.append(Partial((weight[..., None, :].to(products.dtype) @ products).squeeze(-2), whole))
    return Partial(torch.cat([p.out for p in parts], 1), torch.cat([p.lse for p in parts], 1))


def _ordinary(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Partial:
    """Attention of order 2. torch's kernels want one dimension for queries and values, on a GPU a multiple of 8:
    zeros are added, which change no score."""
    dim = v.shape[-1]
    width = max(q.shape[-1], dim)
    width += -width % 8 if q.device.type == "cuda" else 0
    q, k, v = (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in (q, k, v))
    out, lse = attend(q[None], k[None], v[None], scale=scale)
    return Partial(out[0, ..., :dim], lse[0])


def _backward(
    q: Tensor,
    up: Tensor,
    lse: Tensor,
    delta: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Gradients of sum_i <up[i], O[i]> where p[i, j, k] = exp(S[i, j, k] - lse[i]) are the weights in the whole.

    dS[i, j, k] = p[i, j, k] (<up[i], V1[j] * V2[k]> - delta[i]): of the combined queries Q[i] * K1[j] and
    upstreams up[i] * V1[j] it is the same expression of one order less.

    Returns:
        With respect to q, up (the unnormalised output), the keys and the values.
    """
    n = q.shape[1]
    dkeys, dvalues = [torch.zeros_like(k) for k in keys], [torch.zeros_like(v) for v in values]
    dq, dup = torch.empty_like(q), torch.empty_like(up)
    k, v = keys[0], values[0]
    rows = max(1, _HELD // (k.shape[0] * k.shape[1] * (k.shape[2] if len(keys) > 1 else 1)))
    for start in range(0, n, rows):
        part = slice(start, min(n, start + rows))
        qs, ups, tops, deltas = q[:, part], up[:, part], lse[:, part, None], delta[:, part, None]
        if len(keys) == 1:
            p = torch.exp(qs @ k.mT * scale - tops)
            ds = p * (ups @ v.mT - deltas) * scale
            dq[:, part], dup[:, part] = ds @ k, p @ v
            dkeys[0] += ds.mT @ qs
            dvalues[0] += p.mT @ ups
            continue
        m = k.shape[1]
        combined, lifted = ((x[:, :, None] * y[:, None]).flatten(1, 2) for x, y in ((qs, k), (ups, v)))
        each_lse, each_delta = (x.expand(-1, -1, m).flatten(1, 2) for x in (tops, deltas))
        da, db, lower_k, lower_v = _backward(
            combined, lifted, each_lse, each_delta, keys[1:], values[1:], scale
        )
        da, db = (x.unflatten(1, (-1, m)) for x in (da, db))
        dq[:, part], dup[:, part] = (da * k[:, None]).sum(2), (db * v[:, None]).sum(2)
        dkeys[0] += (da * qs[:, :, None]).sum(1)
        dvalues[0] += (db * ups[:, :, None]).sum(1)
        for total, more in zip((*dkeys[1:], *dvalues[1:]), (*lower_k, *lower_v), strict=True):
            total += more
    return dq, dup, dkeys, dvalues
