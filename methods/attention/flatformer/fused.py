"""Group attention in one Triton kernel: read the rows of a group, attend, write the outputs back.

A program holds some queries of one head of a group and runs over the group's keys with an online softmax.
Nothing is gathered, scattered or padded in memory: q, k and v are read once per tile of queries, and each
output is written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.attention.flatformer.grouping import Slots
from methods.attention.online_softmax import take_in


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, rows_ptr, slot_ptr, mask_ptr, scale,
    size, heads, dim, q_stride, k_stride, v_stride,
    HAS_MASK: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    at = group * size + place
    column = tl.arange(0, DIM)
    inside = column < dim
    row = tl.load(rows_ptr + at, mask=place < size, other=0)
    # A pillar that fills up a last group has its output from the group before: only its own slot is written.
    own = (place < size) & (tl.load(slot_ptr + row, mask=place < size, other=-1) == at)
    offset = head * dim + column
    tile = own[:, None] & inside[None, :]
    q = tl.load(q_ptr + row[:, None] * q_stride + offset[None, :], mask=tile, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(0, size, KEYS):
        key = start + tl.arange(0, KEYS)
        real = key < size
        source = tl.load(rows_ptr + group * size + key, mask=real, other=0)
        if HAS_MASK:
            real = real & (tl.load(mask_ptr + group * size + key, mask=real, other=0) != 0)
        block = real[:, None] & inside[None, :]
        k = tl.load(k_ptr + source[:, None] * k_stride + offset[None, :], mask=block, other=0.0)
        v = tl.load(v_ptr + source[:, None] * v_stride + offset[None, :], mask=block, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(real[None, :], scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)
    out = acc / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out_ptr + row[:, None] * (heads * dim) + offset[None, :], out.to(out_ptr.dtype.element_ty), mask=tile
    )


def attend(q: Tensor, k: Tensor, v: Tensor, slots: Slots) -> Tensor:
    """Attention within `slots`; q, k, v and the result are (N, heads, d / heads) in the order of the pillars.

    Heads and channels of a pillar lie together in memory; rows may be further apart than that. Has no
    backward pass: raises ValueError where one would be needed.
    """
    n, heads, dim = q.shape
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        raise ValueError("the Triton kernel of group attention has no backward pass: use kernel 'torch'")
    q, k, v = (t if t.stride()[1:] == (dim, 1) else t.contiguous() for t in (q, k, v))
    groups, size = slots.rows.shape
    out = torch.empty(n, heads, dim, dtype=v.dtype, device=v.device)
    rows = min(64, max(16, triton.next_power_of_2(size)))
    mask = slots.rows if slots.mask is None else slots.mask.contiguous().to(torch.uint8)
    _attend[(groups, heads, triton.cdiv(size, rows))](
        q, k, v, out, slots.rows.contiguous(), slots.slot, mask, dim**-0.5,
        size, heads, dim, q.stride(0), k.stride(0), v.stride(0),
        HAS_MASK=slots.mask is not None, ROWS=rows, KEYS=rows, DIM=max(16, triton.next_power_of_2(dim)),
    )  # fmt: skip
    return out
