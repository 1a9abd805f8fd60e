"""AnchorAttention (arXiv 2505.23520): single keys, shared by many queries, that come close to a row's maximum.

The largest score of a row is almost always at the first keys or nearby. That "anchor" costs little, and a key whose
score is more than theta below it has less than e^-theta of the largest weight. Rows of a group of G = B * step share
one list of such keys ("stripes"), found with one mean query for each block of B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MissingPackage
from methods.attention.block_sparse import (
    BlockMask,
    Kernel,
    KeyLists,
    attend_causal,
    attend_lists,
    causal_blocks,
    is_triton,
)
from methods.attention.partial import Partial, attend, merge
from methods.attention.patterns import block_means
from methods.attention.prefill import Prefilled, Selection

Pool = Literal["mean", "max-score"]
Granularity = Literal["stripe", "block"]

_SCORES = 1 << 25
"""Scores held at a time in the search."""


class Anchor(NamedTuple):
    """Attention over the anchor region: the first B keys, and those from B before the row's group up to the row.

    Attributes:
        part: output and log-sum-exp, (heads, rows, d) and (heads, rows).
        top: M, largest scaled score of each row, float32, (heads, rows).
    """

    part: Partial
    top: Tensor


@dataclass(frozen=True)
class AnchorAttention(Selection):
    """The algorithm.

    Attributes:
        theta: how far below the anchor a key may score, in nats, float64, shape () or (heads,).
        block: B, rows whose mean query stands for them, and keys of the first window.
        step: blocks of a group.
        pool: "mean" compares a block's mean query with its mean anchor; "max-score" compares every row with its
            own, an oracle that costs all scores.
        granularity: "stripe" attends to the selected keys; "block" to the whole blocks of B keys they lie in.
        kernel: see `block_sparse.attend_blocks`.
    """

    theta: Tensor
    block: int = 128
    step: int = 16
    pool: Pool = "mean"
    granularity: Granularity = "stripe"
    kernel: Kernel = "auto"

    @property
    def group(self) -> int:
        """G, rows that share their stripes."""
        return self.block * self.step

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Prefilled:
        n = q.shape[1]
        whole = n // self.group * self.group
        parts, pairs, search = [], torch.zeros(len(q), dtype=torch.long, device=q.device), 0.0
        if whole:
            rows = q[:, :whole]
            anchor = self.anchor(rows, k, v, scale=scale)
            lists = self.identify(rows, k, anchor.top, scale=scale)
            parts.append(attend_lists(rows, k, v, lists, anchor.part, scale=scale, kernel=self.kernel))
            pairs += self.anchor_pairs(whole)
            pairs += lists.counts.view(len(q), -1).sum(-1) * lists.span * self.group
            search = self.search_flops(whole, q.shape[-1]) * len(q)
        if whole < n:  # the rows that make no whole group
            parts.append(attend_tail(q, k, v, whole, scale=scale))
            pairs += (n * (n + 1) - whole * (whole + 1)) // 2
        part = Partial(torch.cat([p.out for p in parts], 1), torch.cat([p.lse for p in parts], 1))
        return Prefilled(part, pairs, search)

    def search(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Any]:
        whole = q.shape[1] // self.group * self.group
        if not whole:
            return lambda: None
        top = self.anchor(q[:, :whole], k, v, scale=scale).top
        return lambda: self.identify(q[:, :whole], k, top, scale=scale)

    # --- step 1 -------------------------------------------------------------------------------------

    def first_local(self, group: int) -> int:
        """Where the local window of a group begins; the first B keys are the other window's."""
        return 0 if group == 0 else max(self.block, group * self.group - self.block)

    def anchor_pairs(self, rows: int) -> int:
        """Pairs of the anchor region in the first `rows` rows, whole groups, of one head."""
        of_row = 0
        for group in range(rows // self.group):
            start, first = group * self.group, self.first_local(group)
            initial = 0 if group == 0 else self.block
            of_row += self.group * (initial + start - first) + self.group * (self.group + 1) // 2
        return of_row

    def anchor_mask(self, rows: int, heads: int, device: torch.device) -> BlockMask:
        """The anchor region of `rows` rows, whole groups, as blocks."""
        place = torch.arange(rows // self.block, device=device)
        start = place[:, None] // self.step * self.step  # the first block of the row's group
        keep = ((place >= start - 1) | (place == 0)) & causal_blocks(len(place), device)
        return BlockMask(self.block, keep.expand(heads, -1, -1))

    def anchor(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Anchor:
        """Step 1 for q, (heads, rows, d), whole groups from the start of the prompt."""
        heads, rows, _ = q.shape
        if is_triton(self.kernel, q):
            from methods.attention.block_sparse_kernel import attend_lists as fused

            mask = self.anchor_mask(rows, heads, q.device)
            lists = KeyLists.of(mask.keep, self.block, self.block)
            return Anchor(*fused(q, k, v, lists, None, scale=scale, causal=True))
        return self._anchor_in_strips(q, k, v, scale)

    def _anchor_in_strips(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Anchor:
        """`anchor` by matrix products: the u-th blocks of all groups at a time, for each u."""
        shared, step, block = len(q) // len(k), self.step, self.block
        groups = q.shape[1] // self.group
        # (key heads, groups, step, query heads of a key head * block, d): rows that see the same keys together.
        queries = q.view(len(k), shared, groups, step, block, -1).permute(0, 2, 3, 1, 4, 5).flatten(3, 4)
        begin = torch.arange(groups, device=q.device)[:, None] * self.group
        initial = torch.arange(block, device=q.device).expand(groups, -1)
        later = torch.ones(block, block, dtype=torch.bool, device=q.device).triu(1).repeat(shared, 1)
        # The block before a group is missing for the first group, and is the initial window's where it is block 0;
        # the first group has no initial window of its own.
        repeated = (begin - block < block)[:, None]
        outs, sums, tops = [], [], []
        for u in range(step):
            near = begin + torch.arange(-block, (u + 1) * block, device=q.device)
            places = torch.cat([initial, near.clamp(min=0)], 1)
            own_k, own_v = (x[:, places] for x in (k, v))
            scores = torch.matmul(queries[:, :, u], own_k.mT).float().mul_(scale)
            scores[..., block : 2 * block].masked_fill_(repeated, -torch.inf)
            scores[:, 0, :, :block] = -torch.inf
            scores[..., -block:].masked_fill_(later, -torch.inf)
            top = scores.amax(-1, keepdim=True)
            weights = scores.sub_(top).exp_()
            total = weights.sum(-1, keepdim=True)
            outs.append(torch.matmul(weights.to(v.dtype), own_v) / total.to(v.dtype))
            sums.append((top + total.log()).squeeze(-1))
            tops.append(top.squeeze(-1))

        def in_order(strips: list[Tensor]) -> Tensor:
            x = torch.stack(strips, 2).unflatten(3, (shared, block))  # (key heads, groups, step, shared, block)
            x = x.movedim(3, 1)
            return x.reshape(len(q), q.shape[1], *x.shape[5:])

        return Anchor(Partial(in_order(outs), in_order(sums)), in_order(tops))

    # --- step 2 -------------------------------------------------------------------------------------

    def identify(self, q: Tensor, k: Tensor, top: Tensor, *, scale: float) -> KeyLists:
        """The stripes of each group: the keys between its two windows that come within theta of the anchor.

        Args:
            q, top: of the rows in whole groups, (heads, rows, d) and (heads, rows).
            k: shape (key heads, n, d).
        """
        heads, rows, _ = q.shape
        theta = self.theta.to(q.device, torch.float64).expand(heads)
        if self.pool == "mean":
            queries = block_means(q, self.block)
            least = top.unflatten(1, (-1, self.block)).mean(-1) - theta[:, None]
        else:
            queries, least = q, top - theta[:, None]
        # To the nearest float32 the bound may overflow to -inf, which every score passes: that is theta = infinity.
        keep = self._passing(queries, k, least.float(), rows // self.group, scale)
        if self.granularity == "stripe":
            return KeyLists.of(keep, self.group, 1)
        of_block = F.pad(keep, (0, -keep.shape[-1] % self.block)).unflatten(-1, (-1, self.block)).any(-1)
        return KeyLists.of(of_block, self.group, self.block)

    def _passing(self, queries: Tensor, k: Tensor, least: Tensor, groups: int, scale: float) -> Tensor:
        """Which candidates any query of each group scores at least `least` on: bool, (heads, groups, keys).

        Args:
            queries: shape (heads, groups * queries of a group, d).
            least: shape (heads, groups * queries of a group).
        """
        keys = max(0, (groups - 1) * self.group - self.block)  # of the last group
        if is_triton(self.kernel, k) and self.pool == "mean":
            return _fused().passing(
                queries, k, least, groups=groups, first=self.block, step=self.group, scale=scale
            )
        heads = len(queries)
        candidates = k[:, :keys].float() if queries.dtype == torch.float32 else k[:, :keys]
        by_group = queries.unflatten(1, (groups, -1))
        bounds = least.unflatten(1, (groups, -1))
        keep = torch.zeros(heads, groups, keys, dtype=torch.bool, device=k.device)
        each = max(1, _SCORES // max(1, heads * by_group.shape[2] * keys))
        for start in range(0, groups, each):
            some, bound = by_group[:, start : start + each], bounds[:, start : start + each]
            flat = some.reshape(len(k), -1, some.shape[-1])
            scores = torch.matmul(flat, candidates.mT).float().mul_(scale).view(*some.shape[:3], keys)
            keep[:, start : start + each] = (scores >= bound[..., None]).any(2)
        place = torch.arange(keys, device=k.device)
        end = torch.arange(groups, device=k.device)[:, None] * self.group - self.block
        return keep & (place >= self.block) & (place < end)

    def search_flops(self, rows: int, d: int) -> float:
        """FLOPs of step 2 for one head."""
        queries = self.step if self.pool == "mean" else self.group
        candidates = sum(max(0, self.first_local(g) - self.block) for g in range(rows // self.group))
        return 2.0 * d * queries * candidates


def attend_tail(q: Tensor, k: Tensor, v: Tensor, start: int, *, scale: float) -> Partial:
    """Exact causal attention of the rows from `start` on: (heads, n - start, d) and (heads, n - start)."""
    own = attend_causal(q[:, start:], k[:, start:], v[:, start:], scale=scale)
    if start == 0:
        return own
    # The query heads that share a key head are rows of one head here, so that keys are not copied.
    rows = q[:, start:].reshape(len(k), -1, q.shape[-1])
    out, lse = attend(rows[None], k[None, :, :start], v[None, :, :start], scale=scale)
    before = Partial(out[0].reshape(len(q), -1, v.shape[-1]), lse[0].reshape(len(q), -1))
    return merge(before, own)


def theta_of(strength: Tensor) -> Tensor:
    """A theta for a strength in [0, 1]: from -20 at 0 to 60, and infinite at 1. float64."""
    return torch.where(strength >= 1, torch.inf, 80 * strength.double() - 20)


def _fused() -> Any:
    """The module of the kernel; imported late, because triton is optional."""
    try:
        from methods.attention.anchor_attention import kernel
    except ImportError as error:
        raise MissingPackage("the kernel 'triton' needs the package triton: pip install triton") from error
    return kernel
