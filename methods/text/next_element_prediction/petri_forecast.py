"""Forecasts from a Petri net: what was next, in the training traces, after each set of reached markings.

The paper's predictor is reconstructed here from its description: training traces are replayed with the silent transitions
they need, and the next elements are counted per set of markings. An element that does not fit is skipped, the one-step
repair of an alignment.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.inductive_miner import discover
from methods.text.next_element_prediction.petri_net import Net, from_tree
from methods.text.next_element_prediction.sequences import Traces

Weighting = Literal["frequency", "uniform"]
State = frozenset[int]


class PetriForecaster(Forecaster):
    """Relative frequencies, or equal shares, of what the net allows after the prefix.

    Args:
        net: to replay on.
        traces: whose next elements are counted.
        symbols: K.
        weighting: relative frequencies among the allowed symbols, all zero in a state no training trace was in; or
            equal shares for all allowed symbols.
    """

    def __init__(self, net: Net, traces: Traces, symbols: int, weighting: Weighting) -> None:
        self.net = net
        self.symbols = symbols
        self.weighting = weighting
        self._allowed: dict[State, np.ndarray] = {}
        self._steps: dict[tuple[State, int], State] = {}
        self._counts: dict[State, np.ndarray] = {}
        if weighting == "frequency":
            for trace, weight in Counter(traces).items():
                state = self.begin
                for symbol in (*trace, symbols - 1):
                    if state not in self._counts:
                        self._counts[state] = np.zeros(symbols)
                    self._counts[state][symbol] += weight
                    state = self.step(state, symbol) if symbol != symbols - 1 else state
        self._rows: dict[State, np.ndarray] = {}

    @property
    def begin(self) -> State:
        """The state before the first element."""
        return frozenset({self.net.source})

    def step(self, state: State, symbol: int) -> State:
        """The state after an element; the same state where the element does not fit."""
        key = (state, symbol)
        if key not in self._steps:
            reached = frozenset(after for marking in state for after in self.net.after(marking, symbol))
            self._steps[key] = reached or state
        return self._steps[key]

    def allowed(self, state: State) -> np.ndarray:
        """Which symbols may be next, END if the final marking is reached silently: bool [K]."""
        if state not in self._allowed:
            out = np.zeros(self.symbols, dtype=bool)
            for symbol in self.net.labelled:
                out[symbol] = any(self.net.after(marking, symbol) for marking in state)
            out[-1] = any(self.net.can_end(marking) for marking in state)
            self._allowed[state] = out
        return self._allowed[state]

    def _row(self, state: State) -> np.ndarray:
        if state not in self._rows:
            allowed = self.allowed(state).astype(np.float64)
            counts = allowed if self.weighting == "uniform" else allowed * self._counts.get(state, 0.0)
            total = counts.sum()
            self._rows[state] = counts / total if total else np.zeros(self.symbols)
        return self._rows[state]

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        rows = []
        for trace in traces:
            state = self.begin
            rows.append(self._row(state))
            for symbol in trace:
                state = self.step(state, symbol)
                rows.append(self._row(state))
        return np.array(rows)

    @property
    def size(self) -> int:
        """Places, transitions, and counts that are not zero."""
        counted = sum(int(np.count_nonzero(row)) for row in self._counts.values())
        return self.net.places + len(self.net.transitions) + counted


def mine(traces: Traces, symbols: int, share: float, weighting: Weighting) -> PetriForecaster:
    """Discover a net with the Inductive Miner and count on it."""
    return PetriForecaster(from_tree(discover(traces, share)), traces, symbols, weighting)
