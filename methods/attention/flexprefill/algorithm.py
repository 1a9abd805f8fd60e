"""FlexPrefill (arXiv 2502.20766): each head of each prompt gets the blocks that its own attention calls for.

The last queries of the prompt show what a head attends to. Where the blocks of keys that their mean query prefers
are those that they really attend to, mean queries and keys are a fair guide for all queries ("query-aware");
where not, the columns and diagonals that the last queries see stand for all ("vertical-slash").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from methods.attention.block_sparse import BlockMask, Kernel, blocks_of, causal_blocks
from methods.attention.patterns import (
    Profile,
    block_means,
    block_sums,
    columns_and_diagonals,
    largest,
    profile,
)
from methods.attention.prefill import MaskSelection

Rule = Literal["token-count", "block-cover"]

_TOKENS_OF_A_BLOCK = 128
"""What the authors' code divides a number of tokens by to have one of blocks, whatever the size of its blocks."""


class Choice(NamedTuple):
    """What FlexPrefill decided about each head.

    Attributes:
        mask: the blocks to attend to.
        query_aware: bool, shape (heads,).
        divergence: square root of the Jensen-Shannon divergence of the pattern test, shape (heads,).
        columns, diagonals: block columns and diagonals, n_v and n_s, int64, shape (heads,).
    """

    mask: BlockMask
    query_aware: Tensor
    divergence: Tensor
    columns: Tensor
    diagonals: Tensor


@dataclass(frozen=True)
class FlexPrefill(MaskSelection):
    """The algorithm.

    Attributes:
        gamma: share of the attention mass to cover, float64, shape () or (heads,). From 1 on, everything.
        tau: heads whose divergence is below are query-aware; the divergence is at most sqrt(ln 2) = 0.8326.
        block: B, tokens of a block and queries that represent the prompt.
        min_budget: least columns and diagonals, in tokens.
        max_budget: most columns and diagonals, in tokens; None: no limit.
        rule: how many block columns and diagonals gamma needs; see `budget`.
        kernel: see `block_sparse.attend_blocks`.
    """

    gamma: Tensor
    tau: float = 0.1
    block: int = 128
    min_budget: int = 1024
    max_budget: int | None = None
    rule: Rule = "token-count"
    kernel: Kernel = "auto"

    def mask(self, q: Tensor, k: Tensor, *, scale: float) -> tuple[BlockMask, float]:
        choice = self.choose(q, k, scale=scale)
        heads, n, d = q.shape
        blocks = blocks_of(n, self.block)
        search = 2.0 * d * heads * min(self.block, n) * n + 2.0 * d * int(choice.query_aware.sum()) * blocks**2
        return choice.mask, 0.0 if self.is_short(n) else search

    def is_short(self, n: int) -> bool:
        """Whether a prompt of n tokens is attended to in full."""
        return n <= max(2 * self.block, blocks_of(self.min_budget, self.block) * self.block)

    def choose(self, q: Tensor, k: Tensor, *, scale: float) -> Choice:
        """The blocks to attend to; q is (heads, n, d), k (key heads, n, d)."""
        heads, n, _ = q.shape
        blocks = blocks_of(n, self.block)
        gamma = self.gamma.to(q.device, torch.float64).expand(heads)
        whole = gamma >= 1
        if self.is_short(n) or bool(whole.all()):
            every = torch.full((heads,), blocks, device=q.device)
            keep = causal_blocks(blocks, q.device).expand(heads, -1, -1)
            none = torch.zeros(heads, device=q.device)
            return Choice(BlockMask(self.block, keep), none.bool(), none, every, every)
        # Steps 1 and 2: the last B queries.
        seen = profile(q, k, self.block, scale=scale)
        vertical, slash = (block_sums(x, self.block) for x in seen)
        # Steps 3 and 4.
        divergence = self.divergence(q, k, vertical, scale)
        query_aware = (divergence < self.tau) & ~whole
        columns, diagonals = self.budgets(seen, vertical, slash, gamma, query_aware)
        # Step 5.
        keep = columns_and_diagonals(largest(vertical, columns), largest(slash, diagonals))
        keep |= whole[:, None, None] & causal_blocks(blocks, q.device)
        # Step 6.
        aware = query_aware.nonzero().squeeze(1)
        if len(aware):
            keep[aware] |= query_aware_blocks(
                block_means(q[aware], self.block),
                block_means(k[aware // (heads // len(k))], self.block),
                gamma[aware],
                scale,
            )
        return Choice(BlockMask(self.block, keep), query_aware, divergence, columns, diagonals)

    def divergence(self, q: Tensor, k: Tensor, vertical: Tensor, scale: float) -> Tensor:
        """Step 4, D: between what the mean of the last queries prefers of the blocks' mean keys, and the true
        mass of the blocks, `vertical`, (heads, blocks)."""
        mean_q = q[:, -self.block :].float().mean(1)
        mean_k = block_means(k, self.block)
        scores = torch.matmul(mean_q.unflatten(0, (len(k), -1)), mean_k.mT).flatten(0, 1) * scale
        return root_divergence(scores.softmax(-1), vertical)

    def budgets(
        self, seen: Profile, vertical: Tensor, slash: Tensor, gamma: Tensor, query_aware: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Step 3: block columns and diagonals of each head, int64, (heads,); the least for query-aware heads."""
        blocks = vertical.shape[-1]
        low = max(1, self.min_budget // self.block)
        high = blocks if self.max_budget is None else max(low, self.max_budget // self.block)
        columns, diagonals = (
            torch.where(query_aware, low, budget(*masses, gamma, self.rule)).clamp(low, high)
            for masses in ((seen.vertical, vertical), (seen.slash, slash))
        )
        return columns, diagonals


def budget(tokens: Tensor, blocks: Tensor, gamma: Tensor, rule: Rule) -> Tensor:
    """Block columns (or diagonals) that gamma needs, int64, (heads,).

    Args:
        tokens, blocks: mass of each column and of each block of columns, (heads, n) and (heads, blocks).
        rule: "token-count" is what the authors' code does: the number of largest columns that hold gamma, over
            128, and one more. That many blocks hold as much only where the columns stand side by side.
            "block-cover" is the number of largest blocks that hold gamma.
    """
    if rule == "token-count":
        return needed(tokens, gamma) // _TOKENS_OF_A_BLOCK + 1
    held = blocks.double().sort(-1, descending=True).values.cumsum(-1)
    return ((held < gamma[:, None]).sum(-1) + 1).clamp(max=blocks.shape[-1])


def needed(mass: Tensor, gamma: Tensor) -> Tensor:
    """How many of the largest entries of `mass`, (heads, m), it takes to pass gamma, (heads,): the number of prefix
    sums that are at most gamma, and one more, but at most m; int64, (heads,)."""
    held = mass.double().sort(-1, descending=True).values.cumsum(-1)
    return ((held <= gamma[:, None]).sum(-1) + 1).clamp(max=mass.shape[-1])


def root_divergence(a: Tensor, b: Tensor) -> Tensor:
    """Square root of the Jensen-Shannon divergence in nats of distributions over the last dimension; 0 log 0 = 0."""
    a, b = a.double(), b.double()
    middle = (a + b) / 2

    def to_middle(p: Tensor) -> Tensor:
        return (torch.xlogy(p, p) - torch.xlogy(p, middle)).sum(-1)

    return ((to_middle(a) + to_middle(b)) / 2).clamp(min=0).sqrt()


def query_aware_blocks(mean_q: Tensor, mean_k: Tensor, gamma: Tensor, scale: float) -> Tensor:
    """Step 6: the largest entries, over all query blocks, of the softmax of the means' scores, as long as they sum
    to at most gamma times the number of query blocks. bool, (heads, blocks, blocks).

    Args:
        mean_q, mean_k: shape (heads, blocks, d), float32.
        gamma: float64, shape (heads,).
    """
    heads, blocks, _ = mean_q.shape
    above = ~causal_blocks(blocks, mean_q.device)
    share = (torch.matmul(mean_q, mean_k.mT) * scale).masked_fill(above, -torch.inf).softmax(-1)
    mass, order = share.flatten(1).sort(-1, descending=True)
    kept = mass.double().cumsum(-1) <= gamma[:, None] * blocks
    keep = torch.zeros_like(kept).scatter_(1, order, kept)
    return keep.view(heads, blocks, blocks) & ~above


def gamma_of(strength: Tensor) -> Tensor:
    """A gamma for a strength in [0, 1]: 0 at 0, 1 - 1e-6 just below 1, and 1 at 1. float64."""
    return torch.where(strength >= 1, 1.0, -torch.expm1(-strength.double() * math.log(1e6)))
