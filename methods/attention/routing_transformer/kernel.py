"""Attention inside clusters in one Triton kernel, which reads queries, keys and values where they lie.

A program holds some queries of a cluster and runs over its keys with an online softmax. The floor of its work is 4 d
FLOPs for each pair that is seen (half of w^2 a cluster under a causal mask and shared members: tiles above the
diagonal are not visited), and in bytes the queries, keys, values and outputs of c w places once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.attention.online_softmax import take_in


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, members_ptr, keys_ptr, scale, n, clusters, queries, keys, q_dim, v_dim,
    CAUSAL: tl.constexpr, SELF: tl.constexpr, SHARED: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, Q_DIM: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    cluster = tl.program_id(0).to(tl.int64)  # over all heads
    base = (cluster // clusters) * n
    rank = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = rank < queries
    row = tl.load(members_ptr + cluster * queries + rank, mask=real, other=0)
    dim = tl.arange(0, Q_DIM)
    v_col = tl.arange(0, V_DIM)
    q_mask = real[:, None] & (dim < q_dim)[None, :]
    q = tl.load(q_ptr + (base + row)[:, None] * q_dim + dim[None, :], mask=q_mask, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, V_DIM], tl.float32)
    last = keys
    if CAUSAL and SHARED:  # positions increase with ranks
        last = tl.minimum(keys, (tl.program_id(1) + 1) * ROWS)
    for start in range(0, last, KEYS):
        lane = start + tl.arange(0, KEYS)
        inside = lane < keys
        key = tl.load(keys_ptr + cluster * keys + lane, mask=inside, other=0)
        k = tl.load(
            k_ptr + (base + key)[:, None] * q_dim + dim[None, :],
            mask=inside[:, None] & (dim < q_dim)[None, :], other=0.0,
        )  # fmt: skip
        v = tl.load(
            v_ptr + (base + key)[:, None] * v_dim + v_col[None, :],
            mask=inside[:, None] & (v_col < v_dim)[None, :], other=0.0,
        )  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if SELF:
            scores = tl.where(key[None, :] == row[:, None], -5e4, scores)
        seen = inside[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= row[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)
    out = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    at = cluster * queries + rank
    tl.store(
        out_ptr + at[:, None] * v_dim + v_col[None, :], out.to(out_ptr.dtype.element_ty),
        mask=real[:, None] & (v_col < v_dim)[None, :],
    )  # fmt: skip


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    members: Tensor,
    keys: Tensor,
    *,
    scale: float,
    causal: bool,
    self_mask: bool,
) -> Tensor:
    """The output of every place in a cluster, (heads, c, w, d); see `attend.routed_attention`."""
    shared = keys is members
    q, k, v, members, keys = (x.contiguous() for x in (q, k, v, members, keys))
    heads, clusters, queries = members.shape
    out = torch.empty(heads, clusters, queries, v.shape[-1], dtype=v.dtype, device=v.device)
    rows = min(64, max(16, triton.next_power_of_2(queries)))
    q_dim, v_dim = (max(16, triton.next_power_of_2(x.shape[-1])) for x in (q, v))
    _attend[(heads * clusters, triton.cdiv(queries, rows))](
        q, k, v, out, members, keys, scale, q.shape[1], clusters, queries, keys.shape[-1], q.shape[-1], v.shape[-1],
        CAUSAL=causal, SELF=self_mask, SHARED=shared, ROWS=rows, KEYS=64, Q_DIM=q_dim, V_DIM=v_dim,
    )  # fmt: skip
    return out
