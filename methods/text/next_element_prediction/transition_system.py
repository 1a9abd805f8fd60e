"""Transition systems: a state is an abstraction of the last w elements (van der Aalst, Schonenberg and Song, 2011)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from methods.text.next_element_prediction.counts import NextCounts
from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Traces, targets, windows

Abstraction = Literal["set", "multiset", "sequence"]
ABSTRACTIONS: tuple[Abstraction, ...] = ("set", "multiset", "sequence")


def states(traces: Traces, symbols: int, window: int, abstraction: Abstraction) -> np.ndarray:
    """The state before each symbol, as a number that two traces share exactly when they share the state: int64.

    Raises:
        ValueError: the states do not fit into 63 bits.
    """
    if symbols**window >= 2**63:
        raise ValueError(
            f"{symbols} symbols in a window of {window} do not fit into 63 bits; take a smaller window"
        )
    before = windows(traces, window, symbols)
    if abstraction != "sequence":
        before = np.sort(before, axis=1)
    if abstraction == "set":
        # What repeats becomes the mark of an empty place, which sorts last, as places before the start do.
        before[:, 1:][before[:, 1:] == before[:, :-1]] = symbols - 1
        before = np.sort(before, axis=1)
    return before @ (symbols ** np.arange(window, dtype=np.int64))


class TransitionSystem(Forecaster):
    """Relative frequencies of what was next in each state; zeros in a state that was not seen."""

    def __init__(self, traces: Traces, symbols: int, window: int, abstraction: Abstraction) -> None:
        self.symbols = symbols
        self.window = window
        self.abstraction = abstraction
        self.table = NextCounts(states(traces, symbols, window, abstraction), targets(traces, symbols), symbols)

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        return self.table.shares(self.table.find(states(traces, self.symbols, self.window, self.abstraction)))

    @property
    def size(self) -> int:
        """The counts that are not zero."""
        return self.table.size
