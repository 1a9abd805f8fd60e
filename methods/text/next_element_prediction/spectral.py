"""Spectral learning of a weighted automaton from the frequencies of prefixes (Hsu, Kakade and Zhang; Balle et al., 2014).

f(w) is the share of the training sequences (traces with END) that begin with w, so that f(u END) is the share of those
that are u: one Hankel matrix of f gives the prefix function for the activities and the string function for END.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Trace, Traces, padded


class Hankel:
    """H[u, v] = f(uv) and H_a[u, v] = f(uav) over the most frequent prefixes u and stretches v.

    Args:
        traces: to learn from.
        symbols: K.
        basis: how many prefixes and how many stretches are rows and columns, at most.
        reach: the longest stretch.
    """

    def __init__(self, traces: Traces, symbols: int, basis: int, reach: int) -> None:
        end = symbols - 1
        begins: Counter[Trace] = Counter()
        for trace, weight in Counter(traces).items():
            sequence = (*trace, end)
            for i in range(len(sequence) + 1):
                begins[sequence[:i]] += weight
        stretches: Counter[Trace] = Counter()
        for w, weight in begins.items():
            for i in range(max(0, len(w) - reach), len(w) + 1):
                stretches[w[i:]] += weight
        rows = [u for u, _ in begins.most_common() if not u or u[-1] != end][:basis]
        columns = [v for v, _ in stretches.most_common(basis)]
        if (end,) not in columns:
            columns[-1] = (end,)
        row = {u: i for i, u in enumerate(rows)}
        column = {v: j for j, v in enumerate(columns)}
        self.matrix = np.zeros((len(rows), len(columns)))
        self.shifted = np.zeros((end, len(rows), len(columns)))
        for w, weight in begins.items():
            for i in range(max(0, len(w) - reach - 1), len(w) + 1):
                u, v = row.get(w[:i]), w[i:]
                if u is None:
                    continue
                if v in column:
                    self.matrix[u, column[v]] = weight
                if v and v[0] != end and v[1:] in column:
                    self.shifted[v[0], u, column[v[1:]]] = weight
        # The empty prefix and the empty stretch are the most frequent, so they are always there.
        self.empty_row, self.empty_column = row[()], column[()]
        self.end_column = column[(end,)]
        self.matrix /= len(traces)
        self.shifted /= len(traces)
        self.right = np.linalg.svd(self.matrix, full_matrices=False)[2]


class Spectral(Forecaster):
    """The weighted automaton of rank r: f(x) = start A_x1 ... A_xn stop."""

    def __init__(self, hankel: Hankel, rank: int) -> None:
        v = hankel.right[:rank].T
        inverse = np.linalg.pinv(hankel.matrix @ v)
        self.start = hankel.matrix[hankel.empty_row] @ v
        self.stop = inverse @ hankel.matrix[:, hankel.empty_column]
        self.end = inverse @ hankel.matrix[:, hankel.end_column]
        self.operators = np.stack([inverse @ shifted @ v for shifted in hankel.shifted])

    def value(self, sequence: Trace) -> float:
        """f of a sequence; END may be its last symbol."""
        state = self.start
        for symbol in sequence:
            if symbol == len(self.operators):
                return float(state @ self.end)
            state = state @ self.operators[symbol]
        return float(state @ self.stop)

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`. p_a in proportion to f(prefix + a), shifted up where one is negative."""
        symbols = len(self.operators) + 1
        rows, mask = padded(traces, symbols)
        readout = np.column_stack([*(self.operators @ self.stop), self.end])
        out = np.zeros((*rows.shape, symbols))
        state = np.broadcast_to(self.start, (len(rows), len(self.start)))
        for t in range(rows.shape[1]):
            # A factor changes nothing in the shares and keeps long traces from underflow.
            largest = np.abs(state).max(axis=1, keepdims=True)
            state = np.divide(state, largest, out=np.zeros_like(state), where=largest > 0)
            p = state @ readout
            p -= np.minimum(p.min(axis=1, keepdims=True), 0)
            total = p.sum(axis=1, keepdims=True)
            out[:, t] = np.divide(p, total, out=np.zeros_like(p), where=total > 1e-12)
            after = np.empty_like(state)
            for symbol in np.unique(rows[:, t]):
                here = rows[:, t] == symbol
                # After its END a row is only carried along.
                after[here] = state[here] @ self.operators[symbol] if symbol != symbols - 1 else state[here]
            state = after
        return out[mask]

    @property
    def size(self) -> int:
        """All weights."""
        return int(self.start.size + self.stop.size + self.end.size + self.operators.size)
