"""IBM model 1 (Brown et al., 1993): word translation probabilities, a cheap stand-in for the neural models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.text.conala_mining.tokens import Vocabulary

Tokens = Sequence[str]


class IbmModel1:
    """P(target | source) = prod_j 1/(n + 1) sum_i t(target_j | source_i), with an empty source word among the n + 1.

    Args:
        sources: token lists.
        targets: token lists, the translations.
        iterations: of expectation maximisation.
        least: tokens that occur at most so often are one unknown token.
        share: of a uniform distribution that is mixed into t, so that no target has probability zero.
    """

    def __init__(
        self,
        sources: Sequence[Tokens],
        targets: Sequence[Tokens],
        *,
        iterations: int = 10,
        least: int = 0,
        share: float = 0.01,
    ) -> None:
        self.sources, self.targets = Vocabulary(sources, least), Vocabulary(targets, least)
        self.share = share
        # The empty word has the number after the last one.
        self._empty = len(self.sources)
        pairs = [
            (np.array([*self.sources.encode(s), self._empty]), np.array(self.targets.encode(t)))
            for s, t in zip(sources, targets, strict=True)
            if len(t)
        ]
        table = np.full((len(self.sources) + 1, len(self.targets)), 1 / len(self.targets))
        for _ in range(iterations):
            counts = np.zeros_like(table)
            for s, t in pairs:
                grid = table[np.ix_(s, t)]
                np.add.at(counts, (s[:, None], t[None, :]), grid / grid.sum(axis=0))
            total = counts.sum(axis=1, keepdims=True)
            table = np.divide(counts, total, out=np.full_like(table, 1 / len(self.targets)), where=total > 0)
        self.table = table

    def per_token(self, source: Tokens, target: Tokens) -> float:
        """ln P(target | source) divided by the length of the target; 0 for an empty one."""
        if not target:
            return 0.0
        s, t = [*self.sources.encode(source), self._empty], self.targets.encode(target)
        mixed = (1 - self.share) * self.table[np.ix_(s, t)].mean(axis=0) + self.share / len(self.targets)
        return float(np.log(mixed).mean())
