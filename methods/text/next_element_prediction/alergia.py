"""ALERGIA (Carrasco and Oncina, 1994): a probabilistic automaton by merging compatible states of a prefix tree."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Traces


@dataclass
class Automaton:
    """A deterministic frequency automaton; state 0 is the start. States that a merge took are no longer reached.

    Attributes:
        ends: how many traces end in each state.
        counts: per state, how often each activity was taken.
        moves: per state, where each activity leads.
    """

    ends: list[float] = field(default_factory=list)
    counts: list[dict[int, float]] = field(default_factory=list)
    moves: list[dict[int, int]] = field(default_factory=list)

    def add(self) -> int:
        """A new state."""
        self.ends.append(0.0)
        self.counts.append({})
        self.moves.append({})
        return len(self.ends) - 1

    def total(self, state: int) -> float:
        """How often the state was left or ended in."""
        return self.ends[state] + sum(self.counts[state].values())

    def reachable(self) -> list[int]:
        """The states that can be reached from the start, in order of discovery."""
        found, places = [0], {0}
        for state in found:
            for after in self.moves[state].values():
                if after not in places:
                    places.add(after)
                    found.append(after)
        return found


def prefix_tree(traces: Traces) -> Automaton:
    """The frequency prefix-tree acceptor of the traces."""
    tree = Automaton()
    tree.add()
    for trace, weight in Counter(traces).items():
        state = 0
        for symbol in trace:
            tree.counts[state][symbol] = tree.counts[state].get(symbol, 0.0) + weight
            if symbol not in tree.moves[state]:
                tree.moves[state][symbol] = tree.add()
            state = tree.moves[state][symbol]
        tree.ends[state] += weight
    return tree


def hoeffding_radius(n: float, m: float, alpha: float) -> float:
    """How far two relative frequencies of n and m draws may lie apart. It shrinks as `alpha` grows: fewer merges."""
    return math.sqrt(0.5 * math.log(2 / alpha)) * (1 / math.sqrt(n) + 1 / math.sqrt(m))


class _Merger:
    """The red-blue loop over one prefix tree, which it changes."""

    def __init__(self, tree: Automaton, factor: float) -> None:
        self.tree = tree
        self.factor = factor
        # Totals change only where a merge folds a state in, so they are kept.
        self.totals = [tree.total(state) for state in range(len(tree.ends))]
        self.roots = [1 / math.sqrt(n) for n in self.totals]
        self.red: dict[int, None] = {0: None}  # in order of age
        self.blue: dict[int, tuple[int, int]] = {}  # with the red state and the activity that lead there
        self.queue: list[tuple[float, int]] = []

    def run(self) -> None:
        """Merge until every reachable state is red.

        The most frequent blue state is next, and the oldest red one is tried first.
        """
        tree = self.tree
        for symbol, after in tree.moves[0].items():
            self._colour_blue(after, 0, symbol)
        while self.queue:
            minus_total, state = heapq.heappop(self.queue)
            if state not in self.blue or -minus_total != self.totals[state]:
                continue  # it was decided on already, or a fold has made it more frequent since
            parent, symbol = self.blue.pop(state)
            for candidate in self.red:
                if self.compatible(candidate, state):
                    tree.moves[parent][symbol] = candidate
                    self._recolour(self._fold(candidate, state))
                    break
            else:
                self.red[state] = None
                self._recolour([state])

    def _colour_blue(self, state: int, parent: int, symbol: int) -> None:
        self.blue[state] = (parent, symbol)
        heapq.heappush(self.queue, (-self.totals[state], state))

    def _recolour(self, changed: list[int]) -> None:
        """The children of states that are or became red are blue; a blue state that was folded into is more frequent."""
        for state in changed:
            if state in self.red:
                for symbol, after in self.tree.moves[state].items():
                    if after not in self.red and after not in self.blue:
                        self._colour_blue(after, state, symbol)
            elif state in self.blue:
                heapq.heappush(self.queue, (-self.totals[state], state))

    def compatible(self, r: int, b: int) -> bool:
        """Whether no frequency of r and b, nor of any two states that the same activities lead to, lies too far apart."""
        tree, totals, roots = self.tree, self.totals, self.roots
        pairs = [(r, b)]
        while pairs:
            r, b = pairs.pop()
            n, m = totals[r], totals[b]
            radius = self.factor * (roots[r] + roots[b])
            if abs(tree.ends[r] / n - tree.ends[b] / m) > radius:
                return False
            of_r, of_b = tree.counts[r], tree.counts[b]
            for symbol, count in of_r.items():
                if abs(count / n - of_b.get(symbol, 0.0) / m) > radius:
                    return False
            for symbol, count in of_b.items():
                if symbol in of_r:
                    pairs.append((tree.moves[r][symbol], tree.moves[b][symbol]))
                elif count / m > radius:
                    return False
        return True

    def _fold(self, r: int, b: int) -> list[int]:
        """Add the subtree of b to r; returns the states that got it. b's part is a tree, so this ends."""
        tree, changed = self.tree, []
        pairs = [(r, b)]
        while pairs:
            r, b = pairs.pop()
            changed.append(r)
            tree.ends[r] += tree.ends[b]
            self.totals[r] += self.totals[b]
            self.roots[r] = 1 / math.sqrt(self.totals[r])
            for symbol, count in tree.counts[b].items():
                tree.counts[r][symbol] = tree.counts[r].get(symbol, 0.0) + count
                if symbol in tree.moves[r]:
                    pairs.append((tree.moves[r][symbol], tree.moves[b][symbol]))
                else:
                    tree.moves[r][symbol] = tree.moves[b][symbol]
        return changed


def merge(traces: Traces, alpha: float, scale: float = 1.0) -> Automaton:
    """The automaton that ALERGIA makes of the traces.

    Args:
        traces: to learn from.
        alpha: of the Hoeffding bound, in (0, 2].
        scale: the radius is multiplied by it; 0 merges only what is equal, infinity merges everything.
    """
    tree = prefix_tree(traces)
    merger = _Merger(tree, scale * math.sqrt(0.5 * math.log(2 / alpha)))
    merger.run()
    return tree


class Alergia(Forecaster):
    """Relative frequencies of the state that the prefix leads to; zeros once an edge is missing."""

    def __init__(self, automaton: Automaton, symbols: int) -> None:
        self.symbols = symbols
        self.automaton = automaton
        states = automaton.reachable()
        row = {state: i for i, state in enumerate(states)}
        self._moves = [{a: row[q] for a, q in automaton.moves[state].items()} for state in states]
        self._shares = np.zeros((len(states) + 1, symbols))  # the last row is the lost state
        for state in states:
            for symbol, count in automaton.counts[state].items():
                self._shares[row[state], symbol] = count
            self._shares[row[state], symbols - 1] = automaton.ends[state]
            self._shares[row[state]] /= automaton.total(state)

    @property
    def states(self) -> int:
        """How many states the automaton has."""
        return len(self._moves)

    @property
    def size(self) -> int:
        """The frequencies that are not zero."""
        return int(np.count_nonzero(self._shares))

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        lost = len(self._moves)
        rows = []
        for trace in traces:
            state = 0
            rows.append(state)
            for symbol in trace:
                state = lost if state == lost else self._moves[state].get(symbol, lost)
                rows.append(state)
        return self._shares[rows]
