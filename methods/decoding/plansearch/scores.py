"""pass@k without bias, with and without public tests, the relative gain from search, and the diversity of ideas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.method import Series


def pass_at(n: int, c: int, k: int) -> float:
    """Probability that k of n programs, drawn without replacement, hold one of the c right ones.

    1 - C(n - c, k) / C(n, k) as a product; the mean over samples is 1 - (1 - p)^k for a solve rate p.

    Raises:
        ValueError: not 0 <= c <= n or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right ones among {n} programs")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


@dataclass(frozen=True)
class Judged:
    """How the programs for one problem did.

    Attributes:
        right: whether each passes all tests.
        public: whether each passes the public tests.
    """

    right: Sequence[bool]
    public: Sequence[bool]

    def passes(self, k: int) -> float:
        """pass@k of all programs."""
        return pass_at(len(self.right), sum(self.right), k)

    def filtered(self, k: int) -> float:
        """pass@k of those that pass the public tests; where they are fewer than k all are handed in."""
        kept = [right for right, public in zip(self.right, self.public, strict=True) if public]
        return pass_at(len(kept), sum(kept), min(k, len(kept))) if kept else 0.0


def pass_metrics(judged: Sequence[Judged], k: int, budget: float, cost: float) -> dict[str, float]:
    """The means over problems that every task of the paper reports.

    Args:
        judged: one entry for each problem, all with equally many programs.
        k: of ``pass_at_k``.
        budget: what may be generated for a problem, for ``pass_at_budget``.
        cost: what was generated for each program, in the same unit.
    """
    n = len(judged[0].right)
    affordable = max(1, min(n, int(budget / cost)))
    found = {
        f"pass_at_{name}": _mean(judged, size) for name, size in (("1", 1), ("5", 5), ("20", 20), ("k", k))
    }
    found |= {
        f"filtered_pass_at_{size}": float(np.mean([one.filtered(size) for one in judged])) for size in (1, 20)
    }
    return found | {"pass_at_budget": _mean(judged, affordable)}


def _mean(judged: Sequence[Judged], k: int) -> float:
    return float(np.mean([one.passes(k) for one in judged]))


def pass_series(judged: Sequence[Judged], most: int) -> Series:
    """pass@k at k = 1, 2, 4, ... and `most`."""
    sizes = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    return Series(sizes, [_mean(judged, k) for k in sizes], "k", "pass@k")


def relative_gain(passed: float, base: float) -> float:
    """(pass@k of a method - pass@1 of repeated sampling) / pass@1 of repeated sampling."""
    return (passed - base) / base


def diversity(ideas: Sequence[Hashable]) -> float:
    """Share of the unordered pairs whose ideas differ: 1 - the share that answers "the same"."""
    n = len(ideas)
    if n < 2:
        raise ValueError("the diversity of fewer than two ideas")
    same = sum(count * (count - 1) for count in Counter(ideas).values())
    return 1.0 - same / (n * (n - 1))


def pair_diversity(same: Sequence[bool]) -> float:
    """The same from the answers for all unordered pairs, which need not be transitive."""
    if not same:
        raise ValueError("the diversity of no pairs")
    return 1.0 - sum(same) / len(same)
