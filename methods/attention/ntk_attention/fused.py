"""The forward pass of NTK-Attention in one Triton kernel.

An online softmax keeps, for each query, a maximum, a sum and a weighted sum of values. The prefix is nothing
but where they start: at maximum 0, sum phi(q) . |k| and weighted sum phi(q) Z. After that the kernel is plain
attention, and reads and writes no more than attention does beyond d^2 + d numbers a head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.attention.online_softmax import take_in
from methods.attention.partial import Partial


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, z_ptr, w_ptr, out_ptr, lse_ptr, scale, root,
    queries, keys, heads, group, dim, v_dim,
    CAUSAL: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(1).to(tl.int64)  # of batch * heads
    head, key_at = at % heads, at // group
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = row < queries
    c, vc = tl.arange(0, DIM), tl.arange(0, V_DIM)
    q_mask = real[:, None] & (c < dim)[None, :]
    q = tl.load(q_ptr + at * queries * dim + row[:, None] * dim + c[None, :], mask=q_mask, other=0.0)

    x = q.to(tl.float32) * root
    f = tl.where((c < dim)[None, :], tl.where(x > 0, x + 1, tl.exp(tl.minimum(x, 0.0))), 0.0)  # ELU + 1
    z_mask = (c < dim)[:, None] & (vc < v_dim)[None, :]
    z = tl.load(z_ptr + head * dim * v_dim + c[:, None] * v_dim + vc[None, :], mask=z_mask, other=0.0)
    w = tl.load(w_ptr + head * dim + c, mask=c < dim, other=0.0)
    total = tl.sum(f * w[None, :], 1)
    acc = tl.dot(f, z, input_precision="ieee")
    # Without a prefix no maximum is known yet; see `algorithm.join`.
    top = tl.where(total == 0, float("-inf"), 0.0)
    loose = acc
    acc = tl.where((total == 0)[:, None], 0.0, acc)

    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * ROWS)
    for start in range(0, last, KEYS):
        column = start + tl.arange(0, KEYS)
        inside = column < keys
        k = tl.load(
            k_ptr + key_at * keys * dim + column[:, None] * dim + c[None, :],
            mask=inside[:, None] & (c < dim)[None, :], other=0.0,
        )  # fmt: skip
        v = tl.load(
            v_ptr + key_at * keys * v_dim + column[:, None] * v_dim + vc[None, :],
            mask=inside[:, None] & (vc < v_dim)[None, :], other=0.0,
        )  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = inside[None, :]
        if CAUSAL:
            seen = seen & (column[None, :] <= row[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)

    # Where k is 0 but Z is not, the prefix has a numerator alone.
    without = tl.sum(f * w[None, :], 1) == 0
    acc += tl.where(without[:, None], loose * tl.exp(tl.minimum(-top, 80.0))[:, None], 0.0)
    o_mask = real[:, None] & (vc < v_dim)[None, :]
    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at * queries * v_dim + row[:, None] * v_dim + vc[None, :], out, mask=o_mask)
    tl.store(lse_ptr + at * queries + row, top + tl.log(total), mask=real)


def attend(
    q: Tensor, k: Tensor, v: Tensor, z: Tensor, weight: Tensor, *, scale: float, causal: bool
) -> Partial:
    """Attention over the real keys and the prefix's state, for phi = "elu1".

    Args:
        q: shape (batch, h, queries, d).
        k, v: shape (batch, key heads, keys, d or value dim); h is a multiple of the key heads.
        z, weight: float32, shape (h, d, value dim) and (h, d); the weight is |k|.
        scale: of the scores.
        causal: whether query i sees only the real keys 0..i.

    Returns:
        Output of v's dtype, shape (batch, h, queries, value dim), and log of the denominator, float32.
    """
    batch, heads, queries, dim = q.shape
    keys, v_dim = k.shape[2], v.shape[3]
    q, k, v, z, weight = (x.contiguous() for x in (q, k, v, z, weight))
    out = torch.empty(batch, heads, queries, v_dim, dtype=v.dtype, device=q.device)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    rows, columns = (min(64, max(16, triton.next_power_of_2(queries))), 64)
    d, dv = (max(16, triton.next_power_of_2(x)) for x in (dim, v_dim))
    _attend[(triton.cdiv(queries, rows), batch * heads)](
        q, k, v, z, weight, out, lse, scale, scale**0.5,
        queries, keys, heads, heads // k.shape[1], dim, v_dim,
        CAUSAL=causal, ROWS=rows, KEYS=columns, DIM=d, V_DIM=dv,
    )  # fmt: skip
    return Partial(out, lse)
