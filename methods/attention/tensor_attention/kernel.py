"""The polynomial method in two Triton kernels that never write a feature to memory.

`_moments` holds a tile of monomials and runs over the keys, `_readout` holds a tile of queries and runs over the
monomials; both make their features from the rows of a tile, which stay in the first-level cache, one factor after
the other. With t - 1 sets of keys the floor is 2 t n m (d + 1) FLOPs for the products and t n m g for the features,
and 2 t n d elements to read and write; written features would be t n m more elements each way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.attention.tensor_attention.exact import spread
from methods.attention.tensor_attention.polynomial import Monomials, Sums


@triton.jit
def _features(y_ptr, at, real, factors_ptr, column, exists, dim, DEGREE: tl.constexpr):  # type: ignore[no-untyped-def]
    """phi of the rows `at`: (rows, columns), 0 where a row or a column is not real."""
    both = real[:, None] & exists[None, :]
    product = tl.where(both, 1.0, 0.0)
    for s in tl.static_range(DEGREE):
        factor = tl.load(factors_ptr + column * DEGREE + s, mask=exists, other=0)
        y = tl.load(y_ptr + at[:, None] * dim + factor[None, :], mask=both & (factor < dim)[None, :], other=1.0)
        product = product * y.to(tl.float32)
    return product


@triton.jit
def _moments(  # type: ignore[no-untyped-def]
    k_ptr, v_ptr, factors_ptr, sums_ptr, n, count, dim, v_dim, splits, tiles,
    DEGREE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    piece = tl.program_id(0).to(tl.int64)
    head = piece // splits
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    exists = column < count
    v_col = tl.arange(0, V_DIM)
    acc = tl.zeros([COLUMNS, V_DIM], tl.float32)
    for tile in range(tiles):
        row = ((piece % splits) * tiles + tile) * ROWS + tl.arange(0, ROWS)
        real = row < n
        at = head * n + row
        phi = _features(k_ptr, at, real, factors_ptr, column, exists, dim, DEGREE)
        v = tl.load(
            v_ptr + at[:, None] * v_dim + v_col[None, :],
            mask=real[:, None] & (v_col < v_dim)[None, :],
            other=0.0,
        ).to(tl.float32)
        v = tl.where((v_col == v_dim)[None, :], 1.0, v)  # the last column makes D
        acc += tl.dot(tl.trans(phi), v, input_precision="ieee")
    tl.store(
        sums_ptr + (piece * count + column[:, None]) * (v_dim + 1) + v_col[None, :],
        acc, mask=exists[:, None] & (v_col <= v_dim)[None, :],
    )  # fmt: skip


@triton.jit
def _readout(  # type: ignore[no-untyped-def]
    q_ptr, factors_ptr, whole_ptr, both_ptr, n, count, dim, width,
    DEGREE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = row < n
    at = head * n + row
    v_col = tl.arange(0, V_DIM)
    acc = tl.zeros([ROWS, V_DIM], tl.float32)
    for start in range(0, count, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        exists = column < count
        phi = _features(q_ptr, at, real, factors_ptr, column, exists, dim, DEGREE)
        whole = tl.load(
            whole_ptr + (head * count + column[:, None]) * width + v_col[None, :],
            mask=exists[:, None] & (v_col < width)[None, :], other=0.0,
        )  # fmt: skip
        acc += tl.dot(phi, whole, input_precision="ieee")
    tl.store(
        both_ptr + at[:, None] * width + v_col[None, :], acc, mask=real[:, None] & (v_col < width)[None, :]
    )


def polynomial_sums(
    q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], *, degree: int, scale: float
) -> Sums:
    """See `polynomial.polynomial_sums`; not differentiable, sums in float32 whatever the dtype."""
    spread(q, keys, values)
    q = q.contiguous()
    heads, n, dim = q.shape
    monomials = Monomials(dim, degree, scale)
    factors = monomials.factors().to(q.device)
    whole = monomials.weights().to(q.device, torch.float32)[:, None]
    for k, v in zip(keys, values, strict=True):
        whole = whole * _sums_of(k.contiguous(), v.contiguous(), factors).repeat_interleave(heads // len(k), 0)
    whole = whole.contiguous()
    width = whole.shape[-1]
    both = torch.empty(heads, n, width, device=q.device)
    rows, columns = 64, 32
    _readout[(triton.cdiv(n, rows), heads)](
        q, factors, whole, both, n, monomials.count, dim, width,
        DEGREE=degree, ROWS=rows, COLUMNS=columns, V_DIM=max(16, triton.next_power_of_2(width)),
    )  # fmt: skip
    return Sums(both[..., :-1], both[..., -1])


def _sums_of(k: Tensor, v: Tensor, factors: Tensor) -> Tensor:
    """phi(K)^T [V, 1], float32, shape (key heads, m, d + 1).

    Keys are split among up to 64 programs for each tile of monomials, whose sums are added in a fixed order.
    """
    heads, n, dim = k.shape
    count, degree = factors.shape
    rows, columns = 64, 32
    splits = min(64, triton.cdiv(n, rows))
    tiles = triton.cdiv(triton.cdiv(n, rows), splits)
    width = v.shape[-1] + 1
    sums = torch.empty(heads, splits, count, width, device=k.device)
    _moments[(heads * splits, triton.cdiv(count, columns))](
        k, v, factors, sums, n, count, dim, v.shape[-1], splits, tiles,
        DEGREE=degree, ROWS=rows, COLUMNS=columns, V_DIM=max(16, triton.next_power_of_2(width)),
    )  # fmt: skip
    return sums.sum(1)
