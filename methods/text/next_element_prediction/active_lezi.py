"""Active LeZi (Gopalratnam and Cook, 2003): counts of all contexts in a window as long as the longest LZ78 phrase.

Its authors read one endless stream. Here the window and the phrase begin anew with each trace, whose first element is a
mark of the start; the mark itself is never forecast.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Trace, Traces


class ActiveLeZi(Forecaster):
    """Blends all orders as PPM does: what a context has not seen followed escapes to the next shorter one."""

    def __init__(self, traces: Traces, symbols: int) -> None:
        self.symbols = symbols
        self.longest = 1
        self.followers: defaultdict[Trace, Counter[int]] = defaultdict(Counter)
        self.occurrences: Counter[Trace] = Counter()
        self._phrases: set[Trace] = set()
        for trace in traces:
            self._learn(trace)
        self._blends: dict[Trace, np.ndarray] = {}

    def _learn(self, trace: Trace) -> None:
        start, end = self.symbols, self.symbols - 1
        phrase: Trace = ()
        window: Trace = ()
        for symbol in (start, *trace, end):
            phrase += (symbol,)
            if phrase not in self._phrases:
                self._phrases.add(phrase)
                self.longest = max(self.longest, len(phrase))
                phrase = ()
            window = (*window, symbol)[-self.longest :]
            self.occurrences[()] += symbol != start
            for i in range(len(window)):
                context = window[i:-1]
                if context or symbol != start:
                    self.followers[context][symbol] += 1
                self.occurrences[window[i:]] += 1

    def _blend(self, context: Trace) -> np.ndarray:
        """The distribution after a context: its own shares, and the escape's part of that of its suffix."""
        known = self._blends.get(context)
        if known is not None:
            return known
        total = self.occurrences.get(context, 0)
        if not total:
            found = self._blend(context[1:])
        else:
            found = np.zeros(self.symbols)
            followers = self.followers.get(context, Counter())
            for symbol, count in followers.items():
                found[symbol] = count / total
            if context:
                found += (total - followers.total()) / total * self._blend(context[1:])
        self._blends[context] = found
        return found

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        rows = []
        for trace in traces:
            marked = (self.symbols, *trace)
            rows += [self._blend(marked[max(0, i + 1 - self.longest) : i + 1]) for i in range(len(marked))]
        return np.array(rows)

    @property
    def size(self) -> int:
        """The contexts with a count."""
        return len(self.occurrences)
