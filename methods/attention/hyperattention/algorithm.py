"""HyperAttention (Algorithms 1, 3 and 4 in their practical form): the plan of what to attend to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.attention.hyperattention.sort_lsh import MOST_BITS, Gray, buckets
from methods.attention.hyperattention.steps import Attention, Keys, Plan, Runner, Step, run_step
from methods.attention.partial import Partial

Sampling = Literal["uniform", "prefix"]
Order = Literal["lsh", "random"]


@dataclass
class HyperAttention:
    """The parameters of the algorithm; `__call__` runs it.

    Attributes:
        directions: of the hash, float32, shape (d, r); shared over heads, fixed.
        block: b, keys and queries of a block; 0: no blocks.
        samples: m, keys sampled for the rest; 0: none.
        min_seq_len: n0, sequences up to this length are attended to exactly.
        sampling: see `_sample`.
        gray: see `sort_lsh.buckets`.
        order: "lsh" or, to see what the hash is worth, a "random" permutation.
        runner: carries out a step: `steps.run_step`, or `fused.run_step` with a kernel of its own.
        visits: (query, key) pairs that the last call attended to.
    """

    directions: Tensor
    block: int = 256
    samples: int = 256
    min_seq_len: int = 2048
    sampling: Sampling = "uniform"
    gray: Gray = "sequence"
    order: Order = "lsh"
    runner: Runner = run_step
    visits: int = 0

    def __post_init__(self) -> None:
        if self.block == 0 and self.samples == 0:
            raise ValueError("block and samples cannot both be 0: there would be no keys to attend to")
        if self.directions.shape[-1] > MOST_BITS:
            raise ValueError(f"at most {MOST_BITS} hash bits, not {self.directions.shape[-1]}")

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, generator: torch.Generator, scale: float
    ) -> Partial:
        """Approximate attention of q, k, v, each (heads, n, d); differentiable in all three, the lse is not.

        Any length will do. Without a causal mask what is left over after the last whole block is a smaller
        block; under a causal mask rows are added after the end, which no other row sees.

        Args:
            generator: of the samples, on the tensors' device.
            scale: of the scores.
        """
        n = q.shape[1]
        plan, (q, k, v) = self._planned(q, k, v, causal=causal, generator=generator)
        out, lse, self.visits = Attention.apply(q, k, v, plan, self.runner, scale)
        return Partial(out[:, :n], lse[:, :n])

    @torch.no_grad()
    def covered(
        self, q: Tensor, k: Tensor, *, causal: bool, generator: torch.Generator, scale: float
    ) -> Tensor:
        """Log-sum-exp over the keys that are attended to exactly, float32, (heads, n); -inf where there are
        none."""
        n = q.shape[1]
        plan, (q, k) = self._planned(q, k, causal=causal, generator=generator)
        blocks = tuple(replace(step, keys=step.keys[:1]) for step in plan.steps if self.block)
        if not plan.leaves and not blocks:
            return torch.full(q.shape[:2], -torch.inf, device=q.device)
        _, lse, _ = Attention.apply(q, k, k, replace(plan, steps=blocks), run_step, scale)
        return cast(Tensor, lse)[:, :n]

    @torch.no_grad()
    def _plan(self, q: Tensor, k: Tensor, n: int, causal: bool, generator: torch.Generator) -> Plan:
        return self.plan_causal(q, k, generator, n) if causal else self.plan(q, k, generator)

    def _planned(
        self, *qkv: Tensor, causal: bool, generator: torch.Generator
    ) -> tuple[Plan, tuple[Tensor, ...]]:
        """The plan and the tensors, padded after the last row, where under the mask only padding sees
        padding."""
        n = qkv[0].shape[1]
        if causal and (padding := self.padding(n)):
            qkv = tuple(F.pad(x, (0, 0, 0, padding)) for x in qkv)
        return self._plan(qkv[0], qkv[1], n, causal, generator), qkv

    def levels(self, n: int) -> int:
        """L, how often a causal sequence of `n` is halved: until it is at most n0, or a block, or one key."""
        shortest = max(self.min_seq_len, self.block, 1)
        levels = 0
        while -(-n // 2**levels) > shortest:
            levels += 1
        return levels

    def padding(self, n: int) -> int:
        """Rows to add to a causal sequence of `n` so that every half is a whole number of blocks."""
        levels = self.levels(n)
        return -n % (max(self.block, 1) * 2**levels) if levels else 0

    def plan(self, q: Tensor, k: Tensor, generator: torch.Generator) -> Plan:
        """Without a mask: exact for a short sequence, else one step over all of it."""
        heads, n, _ = q.shape
        if n <= self.min_seq_len:
            return Plan(heads, False, ())
        starts = torch.arange(heads, device=q.device)[:, None] * n
        q_bucket, k_bucket = (buckets(x, self.directions, self.gray) for x in (q, k))
        return Plan(0, False, self._steps(q_bucket, k_bucket, starts, starts, generator))

    def plan_causal(self, q: Tensor, k: Tensor, generator: torch.Generator, n: int) -> Plan:
        """With a causal mask: halve until the pieces are short; the second half of each piece attends to the
        first half without a mask, all pieces of a level at once. `n` is the length before padding."""
        heads, padded, _ = q.shape
        levels = self.levels(n)
        q_bucket, k_bucket = (buckets(x, self.directions, self.gray) for x in (q, k))
        steps = []
        for level in reversed(range(levels)):
            half = padded >> (level + 1)
            shape = (heads << level, 2, half)
            first = torch.arange(heads << level, device=q.device)[:, None] * (2 * half)
            second_half, first_half = q_bucket.view(shape)[:, 1], k_bucket.view(shape)[:, 0]
            steps += self._steps(second_half, first_half, first + half, first, generator)
        return Plan(heads << levels, True, tuple(steps))

    def _steps(
        self, q_bucket: Tensor, k_bucket: Tensor, q_start: Tensor, k_start: Tensor, generator: torch.Generator
    ) -> tuple[Step, ...]:
        """Attention of all queries of g sequences on all keys of g sequences of the same length s.

        One step for the whole blocks, and one for the block of s mod b queries and keys that may be left over
        at the end. Both see the same sample.

        Args:
            q_bucket, k_bucket: what to sort by, int32, shape (g, s).
            q_start, k_start: place of each sequence in the flattened tensors, shape (g, 1).
        """
        g, s = k_bucket.shape
        everything = torch.arange(s, device=k_bucket.device).expand(g, s)
        if self.block == 0:
            index, bias = self._sample(everything, s, generator)
            return (Step((everything + q_start)[:, None], (Keys((index + k_start)[:, None], bias),)),)
        q_order, k_order = self._sorted(q_bucket, generator), self._sorted(k_bucket, generator)
        index, bias = None, None
        if self.samples and s > self.block:
            place = torch.empty_like(k_order).scatter_(1, k_order, everything)
            index, bias = self._sample(place, self.block, generator)
        whole, steps = s // self.block, []
        for first, last, size in ((0, whole, self.block), (whole, whole + 1, s % self.block)):
            if first == last or size == 0:
                continue
            part = slice(first * self.block, first * self.block + (last - first) * size)
            blocks = (g, last - first, size)
            keys = [Keys((k_order[:, part] + k_start).reshape(blocks))]
            if index is not None:
                seen = None if bias is None else bias[:, first:last]
                keys.append(Keys((index + k_start)[:, None], seen))
            steps.append(Step((q_order[:, part] + q_start).reshape(blocks), tuple(keys)))
        return tuple(steps)

    def _sorted(self, bucket: Tensor, generator: torch.Generator) -> Tensor:
        """The order in which blocks are cut, (g, s)."""
        if self.order == "lsh":
            return torch.sort(bucket, dim=1, stable=True).indices
        return torch.rand(bucket.shape, generator=generator, device=bucket.device).argsort(1)

    def _sample(self, place: Tensor, block: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """m keys of each sequence and the bias with which each block sees them.

        "uniform" (the paper): drawn with replacement. A sample stands for s/m keys, so log(s/m) is added to its
        score; -inf where it falls into the query's own block, which is attended to exactly. Then exp(lse)
        is an unbiased estimate of the row sum. "prefix" (the authors' Triton kernel): the first m keys as
        they are, which counts overlaps twice and all other keys not at all.

        Args:
            place: of each key after sorting, shape (g, s).
            block: size of the blocks that the places fall into, of which the last may be smaller; s when no
                block is attended to exactly.

        Returns:
            Index (g, m) and bias (g, blocks, 1, m).
        """
        g, s = place.shape
        if self.sampling == "prefix":
            if self.samples > s:
                raise ValueError(f"a prefix of {self.samples} keys of a sequence of {s}")
            return torch.arange(self.samples, device=place.device).expand(g, -1), None
        index = torch.randint(s, (g, self.samples), generator=generator, device=place.device)
        weight = math.log(s / self.samples)
        if self.block == 0:
            return index, torch.full((g, 1, 1, self.samples), weight, device=place.device)
        blocks = torch.arange(-(-s // block), device=place.device)[None, :, None, None]
        overlap = (place.gather(1, index) // block)[:, None, None, :] == blocks
        return index, torch.where(overlap, -torch.inf, weight)
