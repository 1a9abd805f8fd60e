"""AnchorAttention's search for stripes in one Triton kernel.

A program compares a tile of keys with the mean queries of one group, reads each key once for each group and writes
one byte for each key: the scores, n^2 / B of them, are never in memory. Its floor is 2 d FLOPs for each mean query and
candidate.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _passing(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, least_ptr, keep_ptr, scale,
    queries, keys, columns, groups, shared, first, step, block, dims,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0).to(tl.int64)  # over all heads
    head = unit // groups
    end = (unit % groups) * step - block
    start = tl.program_id(1) * KEYS
    if start < end:
        key = start + tl.arange(0, KEYS)
        candidate = (key >= first) & (key < end)
        lane = tl.arange(0, QUERIES)
        dim = tl.arange(0, DIMS)
        q_mask = (lane < queries)[:, None] & (dim < dims)[None, :]
        q = tl.load(q_ptr + (unit * queries + lane)[:, None] * dims + dim[None, :], mask=q_mask, other=0.0)
        k_mask = candidate[:, None] & (dim < dims)[None, :]
        at = (head // shared) * keys + key
        k = tl.load(k_ptr + at[:, None] * dims + dim[None, :], mask=k_mask, other=0.0)
        least = tl.load(least_ptr + unit * queries + lane, mask=lane < queries, other=float("inf"))
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        passed = (scores >= least[:, None]) & (lane < queries)[:, None]
        keep = (tl.max(passed.to(tl.int32), 0) > 0) & candidate
        tl.store(keep_ptr + unit * columns + key, keep.to(tl.int8), mask=key < columns)


def passing(
    queries: Tensor, k: Tensor, least: Tensor, *, groups: int, first: int, step: int, scale: float
) -> Tensor:
    """Which candidates any mean query of a group scores at least `least` on: bool, (heads, groups, keys).

    Candidates of group g are the keys from `first` to g * step - first.

    Args:
        queries: mean queries, float32, shape (heads, groups * queries of a group, d); rounded to the dtype of k.
        k: shape (key heads, n, d).
        least: float32, shape (heads, groups * queries of a group).
    """
    heads, rows, d = queries.shape
    columns = max(0, (groups - 1) * step - first)
    keep = torch.zeros(heads, groups, columns, dtype=torch.int8, device=k.device)
    if columns:
        each = rows // groups
        tile = 128
        _passing[(heads * groups, triton.cdiv(columns, tile))](
            queries.to(k.dtype).contiguous(), k.contiguous(), least.contiguous(), keep, scale,
            each, k.shape[1], columns, groups, heads // len(k), first, step, first, d,
            QUERIES=max(16, triton.next_power_of_2(each)), KEYS=tile, DIMS=max(16, triton.next_power_of_2(d)),
        )  # fmt: skip
    return keep.bool()
