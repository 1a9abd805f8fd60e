"""A step of HyperAttention's forward pass in one Triton kernel: gather, attend to block and sample, merge,
scatter.

Each program holds the queries of (part of) a block and runs over the keys of its block and over the sample
with an online softmax, so that nothing of the size of the scores is ever written. The backward pass is that
of `steps`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from methods.attention.hyperattention.steps import Keys, Step
from methods.attention.online_softmax import take_in


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, rows_ptr, own_ptr, sample_ptr, bias_ptr, scale,
    queries, own_keys, samples, blocks, q_dim, v_dim,
    HAS_BIAS: tl.constexpr, ADD: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, Q_DIM: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)  # over all sequences
    sequence = block // blocks
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = place < queries
    row = tl.load(rows_ptr + block * queries + place, mask=real, other=0)
    dim = tl.arange(0, Q_DIM)
    v_col = tl.arange(0, V_DIM)
    q_mask = real[:, None] & (dim < q_dim)[None, :]
    q = tl.load(q_ptr + row[:, None] * q_dim + dim[None, :], mask=q_mask, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, V_DIM], tl.float32)

    for start in range(0, own_keys, KEYS):
        column = start + tl.arange(0, KEYS)
        inside = column < own_keys
        index = tl.load(own_ptr + block * own_keys + column, mask=inside, other=0)
        k = tl.load(
            k_ptr + index[:, None] * q_dim + dim[None, :],
            mask=inside[:, None] & (dim < q_dim)[None, :], other=0.0,
        )  # fmt: skip
        v = tl.load(
            v_ptr + index[:, None] * v_dim + v_col[None, :],
            mask=inside[:, None] & (v_col < v_dim)[None, :], other=0.0,
        )  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)

    for start in range(0, samples, KEYS):
        column = start + tl.arange(0, KEYS)
        inside = column < samples
        index = tl.load(sample_ptr + sequence * samples + column, mask=inside, other=0)
        k = tl.load(
            k_ptr + index[:, None] * q_dim + dim[None, :],
            mask=inside[:, None] & (dim < q_dim)[None, :], other=0.0,
        )  # fmt: skip
        v = tl.load(
            v_ptr + index[:, None] * v_dim + v_col[None, :],
            mask=inside[:, None] & (v_col < v_dim)[None, :], other=0.0,
        )  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_BIAS:
            bias = tl.load(bias_ptr + block * samples + column, mask=inside, other=0.0)
            scores += bias[None, :]
        scores = tl.where(inside[None, :], scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)

    out_at = out_ptr + row[:, None] * v_dim + v_col[None, :]
    out_mask = real[:, None] & (v_col < v_dim)[None, :]
    if ADD:  # what the row already holds counts as one key with that score and that value
        before = tl.load(lse_ptr + row, mask=real, other=0.0)
        held = tl.load(out_at, mask=out_mask, other=0.0).to(tl.float32)
        new_top = tl.maximum(top, before)
        keep, weight = tl.exp(top - new_top), tl.exp(before - new_top)
        total = total * keep + weight
        acc = acc * keep[:, None] + held * weight[:, None]
        top = new_top
    tl.store(out_at, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=out_mask)
    tl.store(lse_ptr + row, top + tl.log(total), mask=real)


def run_step(
    step: Step, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, add: bool, scale: float
) -> int:
    """See `steps.run_step`; the tensors are contiguous and on one GPU."""
    g, blocks, queries = step.rows.shape
    own, sample = _own_and_sample(step)
    own_keys = own.index.shape[-1] if own else 0
    samples = sample.index.shape[-1] if sample else 0
    bias = None if sample is None or sample.bias is None else sample.bias.expand(g, blocks, 1, -1).contiguous()
    q_dim, v_dim = (max(16, triton.next_power_of_2(x.shape[-1])) for x in (q, v))
    rows, keys = (min(64, max(16, triton.next_power_of_2(queries))), 64)
    _attend[(g * blocks, triton.cdiv(queries, rows))](
        q, k, v, out, lse, step.rows.contiguous(),
        own.index.contiguous() if own else step.rows,
        sample.index.contiguous() if sample else step.rows,
        lse if bias is None else bias,
        scale, queries, own_keys, samples, blocks, q.shape[-1], v.shape[-1],
        HAS_BIAS=bias is not None, ADD=add, ROWS=rows, KEYS=keys, Q_DIM=q_dim, V_DIM=v_dim,
    )  # fmt: skip
    return step.rows.numel() * (own_keys + samples)


def _own_and_sample(step: Step) -> tuple[Keys | None, Keys | None]:
    """The keys that each block has to itself and those that all blocks of a sequence share."""
    if len(step.keys) == 2:
        return step.keys[0], step.keys[1]
    (keys,) = step.keys
    alone = keys.bias is None and keys.index.shape[1] == step.rows.shape[1]
    return (keys, None) if alone else (None, keys)
