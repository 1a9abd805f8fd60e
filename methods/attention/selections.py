"""Selections that papers on sparse prefill are compared with: fixed masks, fixed budgets, and oracles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from methods.attention.block_sparse import BlockMask, Kernel, attend_causal
from methods.attention.partial import Partial
from methods.attention.patterns import block_sums, columns_and_diagonals, largest, profile, window
from methods.attention.prefill import MaskSelection, Prefilled, Selection
from methods.attention.work import Inputs

Rule = Literal["top-keys", "top-mass", "difference"]

LAST_QUERIES = 64
"""Queries that show where the columns and diagonals of a head are, as in MInference."""

_SCORES = 1 << 24
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Window(MaskSelection):
    """The first and the last keys of every query (StreamingLLM), in whole blocks.

    Attributes:
        first, last: keys.
        block: B.
    """

    first: int
    last: int
    block: int
    kernel: Kernel = "auto"

    def mask(self, q: Tensor, k: Tensor, *, scale: float) -> tuple[BlockMask, float]:
        keep = window(q.shape[1], self.block, self.first, self.last, q.device)
        return BlockMask(self.block, keep.expand(len(q), -1, -1)), 0.0


@dataclass(frozen=True)
class VerticalSlash(MaskSelection):
    """A fixed number of block columns and block diagonals in each head, where the last queries see most mass.

    Attributes:
        columns, diagonals: numbers of blocks, int64, shape () or (heads,).
        block: B.
    """

    columns: Tensor
    diagonals: Tensor
    block: int
    kernel: Kernel = "auto"

    def mask(self, q: Tensor, k: Tensor, *, scale: float) -> tuple[BlockMask, float]:
        heads, n, d = q.shape
        seen = profile(q, k, LAST_QUERIES, scale=scale)
        columns, diagonals = (
            largest(block_sums(mass, self.block), count.to(q.device).expand(heads))
            for mass, count in ((seen.vertical, self.columns), (seen.slash, self.diagonals))
        )
        keep = columns_and_diagonals(columns, diagonals)
        return BlockMask(self.block, keep), 2.0 * d * heads * min(LAST_QUERIES, n) * n


def budgets_for(x: Inputs, density: float, block: int, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Block columns and diagonals of each head, int64, (heads,), that hold most of its mass in `x` at a density.

    MInference's offline search, for one pattern: every head has the same budget of pairs, and of several ways to
    share it between diagonals and columns gets the one with the highest recall.
    """
    heads = len(x.q)
    exact = attend_causal(x.q, x.k, x.v, scale=x.scale).lse
    blocks = -(-x.q.shape[1] // block)
    best = torch.full((heads,), -1.0, dtype=torch.float64)
    found = torch.ones(2, heads, dtype=torch.long)
    n = x.q.shape[1]

    def dense(columns: Tensor, diagonals: Tensor) -> Tensor:
        mask, _ = VerticalSlash(columns, diagonals, block).mask(x.q, x.k, scale=x.scale)
        return mask.pairs(n).double().cpu() / (n * (n + 1) / 2)

    for share in _SHARES:
        one = torch.ones(heads, dtype=torch.long)
        diagonals = _most(partial(dense, one), share * density, blocks, heads)
        columns = _most(partial(dense, diagonals=diagonals), density, blocks, heads)
        part = VerticalSlash(columns, diagonals, block, kernel)(x.q, x.k, x.v, scale=x.scale).part
        recall = (part.lse - exact).exp().double().mean(-1).cpu()
        better = recall > best
        best = torch.where(better, recall, best)
        found = torch.where(better, torch.stack([columns, diagonals]), found)
    return found[0], found[1]


def _most(dense: Callable[[Tensor], Tensor], limit: float, blocks: int, heads: int) -> Tensor:
    """The largest counts, (heads,), up to `blocks` at which `dense` is at most `limit`; at least 1."""
    low = torch.ones(heads, dtype=torch.long)
    high = torch.full_like(low, blocks)
    while bool((low < high).any()):
        middle = (low + high + 1) // 2
        fits = dense(middle) <= limit
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle - 1)
    return low


@dataclass(frozen=True)
class Oracle(Selection):
    """The best keys of each query, from all of its scores: how good a selection can be, not how fast.

    Attributes:
        rule: "top-keys" keeps the `keys` largest scores of a query; "top-mass" the fewest that hold `mass` of its
            softmax; "difference" those within `delta` of its largest.
    """

    rule: Rule
    keys: int
    mass: float
    delta: float

    def search(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Any]:
        return lambda: self(q, k, v, scale=scale)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Prefilled:
        heads, n, d = q.shape
        k, v = (x.repeat_interleave(heads // len(k), 0) for x in (k, v))
        outs, sums, pairs = [], [], torch.zeros(heads, dtype=torch.long, device=q.device)
        for rows in torch.arange(n, device=q.device).split(max(1, _SCORES // (heads * n))):
            end = int(rows[-1]) + 1
            scores = torch.matmul(q[:, rows], k[:, :end].mT).float() * scale
            scores.masked_fill_(torch.arange(end, device=q.device) > rows[:, None], -torch.inf)
            kept = (scores >= self._least(scores)) & ~scores.isneginf()
            pairs += kept.sum((1, 2))
            scores.masked_fill_(~kept, -torch.inf)
            lse = scores.logsumexp(-1)
            outs.append(torch.matmul((scores - lse[..., None]).exp().to(v.dtype), v[:, :end]))
            sums.append(lse)
        return Prefilled(Partial(torch.cat(outs, 1), torch.cat(sums, 1)), pairs, heads * d * n * (n + 1.0))

    def _least(self, scores: Tensor) -> Tensor:
        """The smallest score that each query, (heads, rows, 1), keeps."""
        if self.rule == "difference":
            return scores.amax(-1, keepdim=True) - self.delta
        if self.rule == "top-keys":
            return scores.topk(min(self.keys, scores.shape[-1]), dim=-1).values[..., -1:]
        if self.mass >= 1:  # whatever rounding does to the sums
            return torch.full_like(scores[..., :1], -torch.inf)
        ordered = scores.sort(dim=-1, descending=True).values
        held = ordered.softmax(-1).cumsum(-1)
        count = (held < self.mass).sum(-1, keepdim=True)
        return ordered.gather(-1, count.clamp(max=scores.shape[-1] - 1))
