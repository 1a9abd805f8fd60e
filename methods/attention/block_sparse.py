"""Exact attention over chosen keys: whole blocks, or lists of single keys, that rows of queries share.

This is the engine under every method that selects keys before it attends, so that such methods differ in their
selection alone. On a GPU it is one Triton kernel (`methods.attention.block_sparse_kernel`). On a CPU, rows with
equally many keys are gathered and attended to together by torch's fused kernel: no padding for blocks, at most an
eighth for lists of single keys, and no score is ever written to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MissingPackage, RequestError
from methods.attention.partial import Partial, attend, merge

Kernel = Literal["auto", "torch", "triton"]

_GATHERED = 1 << 21
"""Elements of gathered keys at a time: 8 MB in float32, which stays in the cache of the processor."""


@dataclass(frozen=True)
class BlockMask:
    """Which blocks of keys each block of queries attends to, causally within the diagonal block.

    Attributes:
        block: B, tokens of a block; the last one may be shorter.
        keep: bool, shape (heads, blocks, blocks), [h, i, j]: whether query block i sees key block j. The diagonal
            is kept, and nothing above it.
    """

    block: int
    keep: Tensor

    def pairs(self, length: int) -> Tensor:
        """(query, key) pairs that are attended to, int64, shape (heads,), of a sequence of `length` tokens."""
        starts = torch.arange(self.keep.shape[1], device=self.keep.device) * self.block
        rows = (length - starts).clamp(max=self.block)
        below = self.keep.sum(-1) - 1  # blocks below the diagonal are whole
        return (below * rows * self.block + rows * (rows + 1) // 2).sum(-1)

    def tokens(self, length: int) -> Tensor:
        """The mask of single tokens, bool, shape (heads, length, length); for tests and small inputs."""
        whole = self.keep.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        return whole[:, :length, :length].tril()


@dataclass(frozen=True)
class KeyLists:
    """The keys that consecutive rows of queries attend to, all of which lie before them.

    Attributes:
        rows: queries of a unit; unit u of a head holds its rows u * rows to (u + 1) * rows - 1.
        span: consecutive keys of an entry; entry e stands for keys e * span to (e + 1) * span - 1.
        entries: int32, those of all units one after another.
        offsets: int64, shape (heads * units + 1,): where each unit's entries begin.
    """

    rows: int
    span: int
    entries: Tensor
    offsets: Tensor

    @property
    def counts(self) -> Tensor:
        """Entries of each unit, int64, shape (heads * units,)."""
        return self.offsets.diff()

    @classmethod
    def of(cls, keep: Tensor, rows: int, span: int) -> KeyLists:
        """From a bool tensor [h, u, e] of shape (heads, units, entries)."""
        flat = keep.flatten(0, 1)
        offsets = F.pad(flat.sum(-1).cumsum(0), (1, 0))
        return cls(rows, span, flat.nonzero()[:, 1].int(), offsets)


def blocks_of(length: int, block: int) -> int:
    """Blocks that `length` tokens make, the last of which may be shorter."""
    return -(-length // block)


def causal_blocks(blocks: int, device: torch.device | str = "cpu") -> Tensor:
    """bool, shape (blocks, blocks): the diagonal and everything below."""
    return torch.ones(blocks, blocks, dtype=torch.bool, device=device).tril()


def attend_causal(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Partial:
    """Exact causal attention of q, (heads, n, d), to k and v, (key heads, n, d), with its log-sum-exp."""
    group = _group(q, k)
    out, lse = attend(q[None], *(x.repeat_interleave(group, 0)[None] for x in (k, v)), scale=scale, causal=True)
    return Partial(out[0], lse[0])


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float, kernel: Kernel = "auto"
) -> Partial:
    """Exact attention over the blocks that `mask` keeps.

    Args:
        q: shape (heads, n, d).
        k, v: shape (key heads, n, d); query head h sees key head h // (heads / key heads).
        mask: for n tokens.
        scale: of the scores.
        kernel: "torch" gathers for torch's fused attention, "triton" is the kernel for GPUs (or its interpreter);
            "auto" takes the one made for the device.

    Raises:
        RequestError: the shapes do not fit together.
    """
    heads, n, _ = q.shape
    blocks = blocks_of(n, mask.block)
    if mask.keep.shape != (heads, blocks, blocks):
        raise RequestError(
            f"the mask has shape {tuple(mask.keep.shape)}; {heads} heads of {n} tokens in blocks of {mask.block}"
            f" need {(heads, blocks, blocks)}"
        )
    group = _group(q, k)
    if is_triton(kernel, q):
        return (
            _fused()
            .attend_lists(
                q, k, v, KeyLists.of(mask.keep, mask.block, mask.block), None, scale=scale, causal=True
            )
            .part
        )
    q, k, v = (_whole(x, mask.block) for x in (q, k, v))
    shape = (blocks, mask.block)
    out, lse = attend(
        q.unflatten(1, shape),
        *(x.unflatten(1, shape).repeat_interleave(group, 0) for x in (k, v)),
        scale=scale,
        causal=True,
    )
    below = KeyLists.of(mask.keep.tril(-1), mask.block, mask.block)
    state = Partial(out.flatten(1, 2), lse.flatten(1, 2))
    whole = _gathered(q, k, v, below, state, scale)
    return Partial(whole.out[:, :n], whole.lse[:, :n])


def attend_lists(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: KeyLists,
    state: Partial,
    *,
    scale: float,
    kernel: Kernel = "auto",
) -> Partial:
    """Exact attention over the keys of `lists` and those that `state` already holds, which are others.

    Args:
        q: shape (heads, units * rows, d).
        k, v: shape (key heads, n, d).
        state: attention of the same queries to other keys; it is overwritten.
        scale, kernel: see `attend_blocks`.
    """
    heads, n, _ = q.shape
    if n % lists.rows or len(lists.offsets) != heads * (n // lists.rows) + 1:
        raise RequestError(
            f"{heads} heads of {n} queries do not fit {len(lists.offsets) - 1} lists for {lists.rows} queries each"
        )
    if is_triton(kernel, q):
        return _fused().attend_lists(q, k, v, lists, state, scale=scale, causal=False).part
    return _gathered(q, k, v, lists, state, scale)


def _gathered(q: Tensor, k: Tensor, v: Tensor, lists: KeyLists, state: Partial, scale: float) -> Partial:
    """`attend_lists` by torch's fused attention over gathered keys."""
    heads, n, d = q.shape
    units, group = n // lists.rows, _group(q, k)
    k, v = (_whole(x, lists.span) for x in (k, v))
    queries = q.reshape(heads * units, lists.rows, d)
    keys, values = (x.reshape(-1, lists.span * x.shape[-1]) for x in (k, v))  # one row an entry
    out = state.out.reshape(heads * units, lists.rows, -1)
    lse = state.lse.reshape(heads * units, lists.rows)
    for unit, entries, inside in _equal(lists, k.shape[-1]):
        first = unit // units // group * (k.shape[1] // lists.span)
        places = (entries + first[:, None]).flatten()
        own_k, own_v = (
            x.index_select(0, places).view(1, len(unit), -1, y.shape[-1]) for x, y in ((keys, k), (values, v))
        )
        part = attend(queries[unit][None], own_k, own_v, scale=scale, bias=_bias(inside, lists.span))
        whole = merge(Partial(part.out[0], part.lse[0]), Partial(out[unit], lse[unit]))
        out.index_copy_(0, unit, whole.out)
        lse.index_copy_(0, unit, whole.lse)
    return Partial(out.view(heads, n, -1), lse.view(heads, n))


def _equal(lists: KeyLists, d: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Units with as many entries each, few enough at a time to stay in the cache.

    Single keys are so many that hardly two units have the same number, so their numbers are rounded up.

    Yields:
        numbers of units, (m,); their entries, int64, (m, count); which of those are real, (m, count), or None
        for all.
    """
    counts = lists.counts
    target = counts if lists.span > 1 else _rounded(counts)
    sizes, order = target.sort()
    sizes, lengths = (x.tolist() for x in sizes.unique_consecutive(return_counts=True))
    for size, units in zip(sizes, order.split(lengths), strict=True):
        if size == 0:
            continue
        column = torch.arange(size, device=counts.device)
        for unit in units.split(max(1, _GATHERED // (size * lists.span * d))):
            real = column < counts[unit][:, None]
            place = torch.where(real, lists.offsets[unit][:, None] + column, 0)
            yield unit, lists.entries[place].long(), None if bool(real.all()) else real


def _rounded(counts: Tensor) -> Tensor:
    """`counts` rounded up to a multiple of 16 and of the power of two that is a sixteenth to an eighth of it."""
    step = torch.exp2(torch.log2(counts.clamp(min=1).double()).floor() - 3).long().clamp(min=16)
    return (counts + step - 1) // step * step


def _bias(inside: Tensor | None, span: int) -> Tensor | None:
    """What keeps padding out of the softmax, shape (1, m, 1, keys)."""
    if inside is None:
        return None
    keys = inside.repeat_interleave(span, 1)
    return torch.zeros(keys.shape, device=keys.device).masked_fill_(~keys, -torch.inf)[None, :, None]


def _whole(x: Tensor, block: int) -> Tensor:
    """x, (heads, n, d), with zeros at the end up to a multiple of `block`: no query sees them."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % block)) if x.shape[1] % block else x


def _group(q: Tensor, k: Tensor) -> int:
    """Query heads that share a key head."""
    if len(q) % len(k):
        raise RequestError(f"{len(q)} heads of queries are not a multiple of {len(k)} heads of keys")
    return len(q) // len(k)


def is_triton(kernel: Kernel, q: Tensor) -> bool:
    """Whether `kernel` means the Triton kernel for `q`."""
    return kernel == "triton" or (kernel == "auto" and q.device.type == "cuda")


def _fused():  # type: ignore[no-untyped-def]
    """The module of the kernel; imported late, because triton is optional."""
    try:
        from methods.attention import block_sparse_kernel
    except ImportError as error:
        raise MissingPackage("the kernel 'triton' needs the package triton: pip install triton") from error
    return block_sparse_kernel
