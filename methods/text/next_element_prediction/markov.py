"""Markov chains of fixed order, and of all orders at once with back-off (AKOM).

The context of order k is the last k elements, padded at the start of a trace. The contexts of order k refine those of
order k - 1, so that all orders are one tree, built and read level by level.

The authors' scripts leave out the penalty for a next element that the forecast does not hold, and look the shorter
contexts up in a table of starts of traces. What is here are the definitions: every prefix is scored, and a context backs
off to its longest suffix that was seen.
"""

from __future__ import annotations

import numpy as np

from methods.text.next_element_prediction import score
from methods.text.next_element_prediction.counts import NextCounts
from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Sequences, Traces, targets, windows


class ContextTree:
    """The counts of all contexts up to `order` elements.

    Level k numbers its contexts by (context of order k - 1, element before it); what a level has not seen, no
    deeper level has.
    """

    def __init__(self, traces: Traces, symbols: int, order: int) -> None:
        self.symbols = symbols
        self.levels: list[NextCounts] = []
        following = targets(traces, symbols)
        before = windows(traces, order, symbols)
        context = np.zeros(len(following), dtype=np.int64)
        for k in range(order + 1):
            codes = context if k == 0 else context * symbols + before[:, k - 1]
            self.levels.append(NextCounts(codes, following, symbols))
            context = self.levels[-1].find(codes)

    def contexts(self, traces: Traces, order: int) -> np.ndarray:
        """The row of the context of each order before each symbol, -1 if unseen: int64 [order + 1, prefixes]."""
        before = windows(traces, order, self.symbols)
        found = np.zeros((order + 1, len(before)), dtype=np.int64)
        for k in range(1, order + 1):
            parent = found[k - 1]
            code = np.where(parent >= 0, parent * self.symbols + before[:, k - 1], -1)
            found[k] = self.levels[k].find(code)
        return found


class MarkovChain(Forecaster):
    """Order k without back-off: a context that was not seen gives zeros. Order 0 is the unigram."""

    def __init__(self, traces: Traces, symbols: int, order: int) -> None:
        self.tree = ContextTree(traces, symbols, order)
        self.order = order

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        return self.tree.levels[self.order].shares(self.tree.contexts(traces, self.order)[self.order])

    @property
    def size(self) -> int:
        """The counts of the last level."""
        return self.tree.levels[self.order].size


class AllOrders(Forecaster):
    """All-k-th-order Markov: the longest suffix of at most `order` elements that was seen, order 0 at the least."""

    def __init__(self, tree: ContextTree, order: int) -> None:
        self.tree = tree
        self.order = order

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        found = self.tree.contexts(traces, self.order)
        longest = (found >= 0).sum(axis=0) - 1  # seen levels are nested, so their number names the last one
        out = np.empty((found.shape[1], self.tree.symbols))
        for k in range(self.order + 1):
            here = longest == k
            if here.any():
                out[here] = self.tree.levels[k].shares(found[k, here])
        return out

    @property
    def size(self) -> int:
        """The counts of all levels."""
        return sum(level.size for level in self.tree.levels[: self.order + 1])


def choose_all_orders(work: Sequences, orders: int) -> AllOrders:
    """AKOM with its order in 1..`orders` chosen on the validation traces, from one tree."""
    tree = ContextTree(work.fitting, work.symbols, orders)
    following = targets(work.validation, work.symbols)
    found = [
        score.brier(AllOrders(tree, k).forecasts(work.validation), following) for k in range(1, orders + 1)
    ]
    order = int(np.argmin(found)) + 1
    return AllOrders(ContextTree(work.train, work.symbols, order), order)
