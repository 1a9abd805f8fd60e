"""`methods.attention.block_sparse` in one Triton kernel.

A program holds a tile of the queries of one unit and runs over the unit's list of keys with an online softmax:
nothing of the size of the scores is ever written. Entries of the list are blocks of consecutive keys or single
keys. The floor of its work is 4 d FLOPs for each pair attended to, and in bytes q and out once and each unit's
keys and values once for every tile of its queries (once in all where they stay in the second-level cache).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.attention.block_sparse import KeyLists
from methods.attention.online_softmax import take_in
from methods.attention.partial import Partial


class Attention(NamedTuple):
    """What the kernel writes: the attention, and each row's largest scaled score, float32, (heads, n)."""

    part: Partial
    top: Tensor


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, top_ptr, entries_ptr, offsets_ptr, scale,
    queries, keys, units, unit_rows, group, q_dim, v_dim,
    CAUSAL: tl.constexpr, ADD: tl.constexpr, SPAN: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, Q_DIM: tl.constexpr, V_DIM: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0).to(tl.int64)  # over all heads
    head = unit // units
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row = (unit % units) * unit_rows + place
    real = (place < unit_rows) & (row < queries)
    dim = tl.arange(0, Q_DIM)
    v_col = tl.arange(0, V_DIM)
    at = head * queries + row
    q_mask = real[:, None] & (dim < q_dim)[None, :]
    q = tl.load(q_ptr + at[:, None] * q_dim + dim[None, :], mask=q_mask, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, V_DIM], tl.float32)
    base = (head // group) * keys

    begin = tl.load(offsets_ptr + unit)
    count = tl.load(offsets_ptr + unit + 1) - begin
    tiles = count * TILES if SPAN > 1 else (count + KEYS - 1) // KEYS
    for tile in range(tiles):
        lane = tl.arange(0, KEYS)
        if SPAN > 1:  # TILES tiles of KEYS lanes cover the consecutive keys of an entry
            entry = tl.load(entries_ptr + begin + tile // TILES).to(tl.int64)
            within = (tile % TILES) * KEYS + lane
            key = entry * SPAN + within
            inside = (within < SPAN) & (key < keys)
        else:
            inside = tile * KEYS + lane < count
            key = tl.load(entries_ptr + begin + tile * KEYS + lane, mask=inside, other=0).to(tl.int64)
        k_mask = inside[:, None] & (dim < q_dim)[None, :]
        v_mask = inside[:, None] & (v_col < v_dim)[None, :]
        k = tl.load(k_ptr + (base + key)[:, None] * q_dim + dim[None, :], mask=k_mask, other=0.0)
        v = tl.load(v_ptr + (base + key)[:, None] * v_dim + v_col[None, :], mask=v_mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = inside[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= row[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        top, total, acc = take_in(top, total, acc, scores, v)

    out_at = out_ptr + at[:, None] * v_dim + v_col[None, :]
    out_mask = real[:, None] & (v_col < v_dim)[None, :]
    if ADD:  # what the row already holds counts as one key with that score and that value
        before = tl.load(lse_ptr + at, mask=real, other=0.0)
        held = tl.load(out_at, mask=out_mask, other=0.0).to(tl.float32)
        new_top = tl.maximum(top, before)
        keep, weight = tl.exp(top - new_top), tl.exp(before - new_top)
        total = total * keep + weight
        acc = acc * keep[:, None] + held * weight[:, None]
        tl.store(lse_ptr + at, new_top + tl.log(total), mask=real)
    else:
        tl.store(lse_ptr + at, top + tl.log(total), mask=real)
    tl.store(out_at, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=out_mask)
    tl.store(top_ptr + at, top, mask=real)


def attend_lists(
    q: Tensor, k: Tensor, v: Tensor, lists: KeyLists, state: Partial | None, *, scale: float, causal: bool
) -> Attention:
    """Attention over the keys of `lists` and of `state`; see `block_sparse.attend_lists`.

    Args:
        q: shape (heads, n, d); the last unit of a head may be shorter than the others.
        k, v: shape (key heads, n, d).
        state: None when every row has a key in its list.
        causal: whether keys after a query are left out.
    """
    q, k, v = (x.contiguous() for x in (q, k, v))
    heads, n, d = q.shape
    if state is None:
        out = torch.empty(heads, n, v.shape[-1], dtype=v.dtype, device=v.device)
        lse = torch.empty(heads, n, device=q.device)
    else:
        out, lse = (x.contiguous() for x in state)
    top = torch.empty_like(lse)
    units = triton.cdiv(n, lists.rows)
    rows = min(128, max(16, triton.next_power_of_2(lists.rows)))
    # Blocks are read in whole tiles where their size is a power of two, single keys 64 at a time.
    keys = 64 if lists.span == 1 else min(64, max(16, triton.next_power_of_2(lists.span)))
    q_dim, v_dim = (max(16, triton.next_power_of_2(x.shape[-1])) for x in (q, v))
    _attend[(heads * units, triton.cdiv(lists.rows, rows))](
        q, k, v, out, lse, top, lists.entries.contiguous(), lists.offsets.contiguous(), scale,
        n, k.shape[1], units, lists.rows, heads // len(k), d, v.shape[-1],
        CAUSAL=causal, ADD=state is not None, SPAN=lists.span, TILES=triton.cdiv(lists.span, keys),
        ROWS=rows, KEYS=keys, Q_DIM=q_dim, V_DIM=v_dim,
        num_warps=8 if rows == 128 else 4,
    )  # fmt: skip
    return Attention(Partial(out, lse), top)
