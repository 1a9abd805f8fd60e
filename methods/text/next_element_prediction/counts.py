"""A table of what was next in each state, kept sparse: the heart of all methods that count."""

from __future__ import annotations

import numpy as np
from scipy import sparse


class NextCounts:
    """How often each symbol was next in each state.

    Args:
        states: the state before each symbol, numbers of any kind, int64 [prefixes].
        next_symbols: the symbol, int64 [prefixes].
        symbols: K.
    """

    def __init__(self, states: np.ndarray, next_symbols: np.ndarray, symbols: int) -> None:
        self.symbols = symbols
        self.states, rows = np.unique(states, return_inverse=True)
        ones = np.ones(len(rows))
        self.counts = sparse.csr_matrix((ones, (rows, next_symbols)), shape=(len(self.states), symbols))
        totals = np.asarray(self.counts.sum(axis=1)).ravel()
        self._shares = sparse.diags(1 / totals) @ self.counts

    @property
    def size(self) -> int:
        """The counts that are not zero."""
        return int(self.counts.nnz)

    def find(self, states: np.ndarray) -> np.ndarray:
        """The row of each state, -1 where it was never seen: int64."""
        place = np.minimum(np.searchsorted(self.states, states), len(self.states) - 1)
        return np.where(self.states[place] == states, place, -1)

    def shares(self, rows: np.ndarray) -> np.ndarray:
        """The relative frequencies of these rows, zeros for row -1: float64 [len(rows), K]."""
        out = np.zeros((len(rows), self.symbols))
        seen = rows >= 0
        out[seen] = self._shares[rows[seen]].toarray()
        return out
