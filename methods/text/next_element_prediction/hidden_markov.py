"""Hidden Markov models with discrete emissions, fitted by expectation maximisation (Rabiner, 1989).

END is a symbol like the others, so that a trace with its END is one observed sequence. Traces that are equal are one row
with a weight.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.sequences import Traces, padded

Stop = Literal["likelihood", "parameters"]


@dataclass(frozen=True)
class Parameters:
    """Of a model with S states over K symbols.

    Attributes:
        start: P(first state), float64 [S].
        move: P(next state | state), float64 [S, S].
        emit: P(symbol | state), float64 [S, K].
    """

    start: np.ndarray
    move: np.ndarray
    emit: np.ndarray

    def distance(self, other: Parameters) -> float:
        """The largest change of a probability."""
        pairs = ((self.start, other.start), (self.move, other.move), (self.emit, other.emit))
        return float(max(np.abs(a - b).max() for a, b in pairs))


class HiddenMarkov(Forecaster):
    """Forecasts p_a in proportion to the forward likelihood of prefix + a."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`. After an element that no state can emit all forecasts of its trace are zero."""
        start, move, emit = self.parameters.start, self.parameters.move, self.parameters.emit
        rows, mask = padded(traces, emit.shape[1])
        out = np.zeros((*rows.shape, emit.shape[1]))
        state = np.broadcast_to(start, (len(rows), len(start)))
        for t in range(rows.shape[1]):
            out[:, t] = state @ emit
            state = _normalised(state * emit[:, rows[:, t]].T) @ move
        return out[mask]

    def log_likelihood(self, trace: tuple[int, ...]) -> float:
        """ln of the probability that a sequence begins with these symbols (END may be the last)."""
        start, move, emit = self.parameters.start, self.parameters.move, self.parameters.emit
        state, total = start, 0.0
        for symbol in trace:
            seen = state * emit[:, symbol]
            if not seen.any():
                return -np.inf
            total += float(np.log(seen.sum()))
            state = seen / seen.sum() @ move
        return total

    @property
    def size(self) -> int:
        """All probabilities."""
        return sum(x.size for x in (self.parameters.start, self.parameters.move, self.parameters.emit))


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its sum; a row of zeros stays."""
    total = rows.sum(axis=-1, keepdims=True)
    return np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)


def random_parameters(states: int, symbols: int, draw: np.random.Generator) -> Parameters:
    """Near uniform: each row is drawn from a Dirichlet distribution with all parameters 10."""
    return Parameters(
        draw.dirichlet(np.full(states, 10.0)),
        draw.dirichlet(np.full(states, 10.0), states),
        draw.dirichlet(np.full(symbols, 10.0), states),
    )


def fit(
    traces: Traces,
    begin: Parameters,
    *,
    iterations: int,
    stop: Stop = "likelihood",
    tolerance: float = 1e-4,
) -> tuple[HiddenMarkov, list[float]]:
    """Expectation maximisation from `begin`.

    Args:
        traces: without END.
        begin: where it starts.
        iterations: at most so many steps.
        stop: what must change by less than `tolerance` to stop: the mean log-likelihood of a symbol (nats), or every
            probability.
        tolerance: see `stop`.

    Returns:
        The model and the mean log-likelihood of a symbol before each step.
    """
    variants = Counter(traces)
    longest_first = sorted(variants, key=len, reverse=True)
    weight = np.array([variants[trace] for trace in longest_first], dtype=np.float64)
    rows, mask = padded(longest_first, begin.emit.shape[1])
    active = mask.sum(axis=0)
    now, history = begin, []
    for _ in range(iterations):
        new, likelihood = _step(now, rows, active, weight)
        history.append(likelihood)
        steady = (
            len(history) > 1 and abs(history[-1] - history[-2]) < tolerance
            if stop == "likelihood"
            else new.distance(now) < tolerance
        )
        now = new
        if steady:
            break
    return HiddenMarkov(now), history


def _step(
    now: Parameters, rows: np.ndarray, active: np.ndarray, weight: np.ndarray
) -> tuple[Parameters, float]:
    """One step of expectation maximisation. `active` is how many of the rows, longest first, reach each place."""
    length, symbols = rows.shape[1], now.emit.shape[1]
    by_symbol = np.ascontiguousarray(now.emit.T)
    alpha, scale = [], []
    state = np.broadcast_to(now.start, (len(rows), len(now.start)))
    for t in range(length):
        seen = state[: active[t]] * by_symbol[rows[: active[t], t]]
        total = np.maximum(seen.sum(axis=1), 1e-300)
        alpha.append(seen / total[:, None])
        scale.append(total)
        state = alpha[-1] @ now.move
    beta = np.ones_like(alpha[-1])
    moves = np.zeros_like(now.move)
    visits = [np.zeros(0)] * length
    for t in reversed(range(length)):
        visits[t] = alpha[t] * beta * weight[: active[t], None]
        if t == 0:
            break
        onward = by_symbol[rows[: active[t], t]] * beta / scale[t][:, None]
        moves += (alpha[t - 1][: active[t]] * weight[: active[t], None]).T @ onward
        # A row that ends at t - 1 has nothing after it: its backward variable is one.
        beta = np.ones_like(alpha[t - 1])
        beta[: active[t]] = onward @ now.move.T
    moves *= now.move
    seen_symbols = np.concatenate([rows[: active[t], t] for t in range(length)])
    stacked = np.concatenate(visits)
    one_hot = sparse.csr_matrix(
        (np.ones(len(seen_symbols)), (seen_symbols, np.arange(len(seen_symbols)))),
        shape=(symbols, len(seen_symbols)),
    )
    emissions = (one_hot @ stacked).T
    start = visits[0].sum(axis=0)
    likelihood = sum(float(weight[: active[t]] @ np.log(scale[t])) for t in range(length))
    count = float(sum(weight[: active[t]].sum() for t in range(length)))
    return Parameters(start / start.sum(), _rows(moves), _rows(emissions)), likelihood / count


def _rows(counts: np.ndarray) -> np.ndarray:
    """Expected counts as distributions; a state that is never there gets equal probabilities."""
    out = _normalised(counts)
    out[~out.any(axis=1)] = 1 / counts.shape[1]
    return out
