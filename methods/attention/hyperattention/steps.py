"""Attention as a list of steps over index tensors, and its gradient.

Each `Step` says which queries sit in which block and which keys the block sees. Attending is the same for
all: gather, attend exactly, merge. The backward pass walks the same steps with the output and log-sum-exp of
the union (see `methods.attention.partial`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.attention.partial import Partial, attend, attend_backward, merge


@dataclass(frozen=True)
class Keys:
    """Keys that every query of a block sees.

    Attributes:
        index: places in the flattened keys, int64, shape (g, 1 or blocks, keys).
        bias: added to the scores, float32, shape (g, blocks, 1, keys), or None.
    """

    index: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Attention between blocks of queries and keys that were chosen for each block.

    Attributes:
        rows: places of the queries in the flattened queries, int64, shape (g, blocks, queries); none twice.
        keys: disjoint sets of keys: those of the block, the sample.
    """

    rows: Tensor
    keys: tuple[Keys, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is attended to.

    Attributes:
        leaves: equal consecutive pieces of the sequence within which attention is exact; 0: none.
        causal: whether it is causal there.
        steps: approximate attention, in the order in which it is merged.
    """

    leaves: int
    causal: bool
    steps: tuple[Step, ...]


Runner = Callable[[Step, Tensor, Tensor, Tensor, Tensor, Tensor, bool, float], int]
"""Carries out a step; see `run_step`."""


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of `x`, (rows, d), at `index`, (g, blocks, i): shape (g, blocks, i, d)."""
    return x.index_select(0, index.flatten()).view(*index.shape, x.shape[-1])


def _leaves(x: Tensor, count: int) -> Tensor:
    """(rows, ...) as (count, 1, rows of a leaf, ...)."""
    return x.view(count, 1, -1, *x.shape[1:])


def _each(step: Step, q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[Keys, Tensor, Tensor, Tensor]]:
    """Each set of keys of a step, with its q, k and v gathered to (g, blocks, rows, d)."""
    queries = _gather(q, step.rows)
    shape = step.rows.shape[:2]
    for keys in step.keys:
        own_k, own_v = (_gather(x, keys.index).expand(*shape, -1, -1) for x in (k, v))
        yield keys, queries, own_k, own_v


class Attention(torch.autograd.Function):
    """Carry out a plan on q, k, v of shape (heads, n, d).

    Returns the output, its log-sum-exp (which carries no gradient) and the (query, key) pairs visited.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, runner: Runner, scale: float
    ) -> tuple[Tensor, Tensor, int]:
        heads, n, _ = q.shape
        flat_q, flat_k, flat_v = (x.reshape(heads * n, -1).contiguous() for x in (q, k, v))
        visits = 0
        if plan.leaves:
            leaf_q, leaf_k, leaf_v = (_leaves(x, plan.leaves) for x in (flat_q, flat_k, flat_v))
            part = attend(leaf_q, leaf_k, leaf_v, scale=scale, causal=plan.causal)
            out, lse = part.out.reshape(heads * n, -1), part.lse.reshape(-1)
            length = leaf_q.shape[2]
            visits += plan.leaves * (length * (length + 1) // 2 if plan.causal else length**2)
        else:
            out = torch.empty_like(flat_v)
            lse = torch.empty(heads * n, device=q.device)
        for step in plan.steps:
            visits += runner(step, flat_q, flat_k, flat_v, out, lse, plan.leaves > 0, scale)
        ctx.save_for_backward(flat_q, flat_k, flat_v, out, lse)
        ctx.plan, ctx.scale, ctx.shapes = plan, scale, (q.shape, k.shape, v.shape)
        lse = lse.view(heads, n)
        ctx.mark_non_differentiable(lse)
        return out.view(heads, n, -1), lse, visits

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        plan: Plan = ctx.plan
        up = upstream.reshape(out.shape)
        total = tuple(torch.zeros_like(x, dtype=torch.float32) for x in (q, k, v))
        if plan.leaves:
            du, lq, lk, lv, lo, ll = (_leaves(x, plan.leaves) for x in (up, q, k, v, out, lse))
            grads = attend_backward(du, lq, lk, lv, Partial(lo, ll), scale=ctx.scale, causal=plan.causal)
            for sum_, grad in zip(total, grads, strict=True):
                sum_ += grad.reshape(sum_.shape)
        for step in plan.steps:
            union, rising = Partial(_gather(out, step.rows), lse[step.rows]), _gather(up, step.rows)
            for keys, queries, own_k, own_v in _each(step, q, k, v):
                dq, *dkv = attend_backward(
                    rising, queries, own_k, own_v, union, scale=ctx.scale, bias=keys.bias
                )
                total[0].index_add_(0, step.rows.flatten(), dq.flatten(0, 2).float())
                for sum_, grad in zip(total[1:], dkv, strict=True):
                    shared = keys.index.shape[1] != grad.shape[1]  # a sample that all blocks see
                    grad = grad.float().sum(1, keepdim=True) if shared else grad.float()
                    sum_.index_add_(0, keys.index.flatten(), grad.flatten(0, 2))
        results = (g.to(x.dtype).view(s) for g, x, s in zip(total, (q, k, v), ctx.shapes, strict=True))
        return *results, None, None, None


def run_step(
    step: Step, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, add: bool, scale: float
) -> int:
    """Attend as `step` says and write the result into `out` and `lse`.

    Args:
        q, k, v: flattened, shape (rows, d).
        out, lse: shapes (rows, d) and (rows,), changed at the rows of the step.
        add: whether they already hold attention over other keys, which is to be merged with.

    Returns:
        The number of (query, key) pairs visited.
    """
    parts = [Partial(_gather(out, step.rows), lse[step.rows])] if add else []
    pairs = 0
    for keys, queries, own_k, own_v in _each(step, q, k, v):
        parts.append(attend(queries, own_k, own_v, scale=scale, bias=keys.bias))
        pairs += step.rows.numel() * own_k.shape[2]
    whole = functools.reduce(merge, parts)
    rows = step.rows.flatten()
    out.index_copy_(0, rows, whole.out.flatten(0, 2))
    lse.index_copy_(0, rows, whole.lse.flatten())
    return pairs
