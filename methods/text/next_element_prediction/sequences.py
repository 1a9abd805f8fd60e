"""Traces as sequences of numbers: reading event logs, splitting them, and the windows before each element.

The K symbols are the activities 0..K-2 of the whole log and END = K-1, which follows the last element of each trace.
A trace of n elements has n + 1 prefixes, the empty one included, and after each of them one symbol is next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import data
from harness.seeding import rng

Trace = tuple[int, ...]
Traces = Sequence[Trace]


@dataclass(frozen=True)
class Log:
    """An event log.

    Attributes:
        activities: the names of the activities in the order of their first occurrence; activity i is the symbol i.
        traces: the traces as numbers of activities, without END.
    """

    activities: tuple[str, ...]
    traces: tuple[Trace, ...]

    @property
    def symbols(self) -> int:
        """K: the activities and END."""
        return len(self.activities) + 1


@dataclass(frozen=True)
class Sequences:
    """The work of a method: traces to learn from and traces whose elements are forecast.

    Attributes:
        symbols: K, with END = K - 1.
        train: all traces to learn from.
        fitting: those of `train` that a model is fitted on while settings are chosen.
        validation: the others, on which they are chosen.
        test: the traces (or prefixes) to forecast.
        whole: whether every prefix of each test trace is forecast, then END; else only what follows it.
        following: what follows each prefix in `test` where not whole.
    """

    symbols: int
    train: tuple[Trace, ...]
    fitting: tuple[Trace, ...]
    validation: tuple[Trace, ...]
    test: tuple[Trace, ...]
    whole: bool = True
    following: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The symbol END."""
        return self.symbols - 1

    def targets(self) -> np.ndarray:
        """The symbol that is next after each forecast prefix: int64 [prefixes]."""
        if self.whole:
            return targets(self.test, self.symbols)
        return np.array(self.following, dtype=np.int64)


def read(name: str) -> Log:
    """The event log `name` of the data set ``event-logs``.

    Raises:
        MissingData: it is not there.
    """
    lines = data.text("event-logs", f"{name}.jsonl.gz").split("\n")
    named = [json.loads(line)["trace"] for line in lines if line.strip()]
    activities = tuple(dict.fromkeys(activity for trace in named for activity in trace))
    number = {activity: i for i, activity in enumerate(activities)}
    return Log(activities, tuple(tuple(number[activity] for activity in trace) for trace in named))


STEPS = {0: ((0, 0.6, 1), (1, 0.4, 2)), 1: ((0, 0.3, 1), (2, 0.7, None)), 2: ((1, 0.5, 0), (2, 0.5, None))}
"""The made-up automaton: per state (symbol, probability, next state); symbols a, b and END."""


def automaton(traces: int, generator: np.random.Generator) -> Log:
    """A log drawn from `STEPS`, a probabilistic automaton of three states over a and b; no trace is empty."""
    drawn = []
    for _ in range(traces):
        state, trace = 0, []
        while True:
            symbol, _, state_after = STEPS[state][int(generator.random() >= STEPS[state][0][1])]
            if state_after is None:
                break
            trace.append(symbol)
            state = state_after
        drawn.append(tuple(trace))
    return Log(("a", "b"), tuple(drawn))


def divide(log: Log, seed: int, test_share: float, validation_share: float) -> Sequences:
    """Shuffle whole traces; the last `test_share` are tested, a shuffled part of the others validates.

    Splitting traces and not prefixes keeps what is tested out of what is learnt. The symbols are those of the whole log,
    so that K is the same in every repetition.
    """
    draw = rng(seed, "order of the traces")
    order = draw.permutation(len(log.traces))
    learnt = len(order) - round(test_share * len(order))
    train = [log.traces[i] for i in order[:learnt]]
    held = round(validation_share * learnt)
    again = draw.permutation(learnt)
    return Sequences(
        symbols=log.symbols,
        train=tuple(train),
        fitting=tuple(train[i] for i in again[held:]),
        validation=tuple(train[i] for i in again[:held]),
        test=tuple(log.traces[i] for i in order[learnt:]),
    )


def count_prefixes(traces: Traces) -> int:
    """How many symbols the traces hold, an END for each included."""
    return sum(map(len, traces)) + len(traces)


def targets(traces: Traces, symbols: int) -> np.ndarray:
    """The traces with END after each, one after another: int64 [prefixes]."""
    end = (symbols - 1,)
    return np.fromiter((x for trace in traces for x in trace + end), np.int64, count_prefixes(traces))


def windows(traces: Traces, width: int, symbols: int) -> np.ndarray:
    """The last `width` elements before each symbol, the latest first: int64 [prefixes, width].

    Places before the start of a trace hold END, which never occurs inside one, as the mark of the start.
    """
    flat = targets(traces, symbols)
    lengths = np.fromiter((len(trace) + 1 for trace in traces), np.int64, len(traces))
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out = np.full((len(flat), width), symbols - 1, dtype=np.int64)
    for lag in range(1, width + 1):
        inside = place >= lag
        out[inside, lag - 1] = flat[np.flatnonzero(inside) - lag]
    return out


def ends(traces: Traces) -> np.ndarray:
    """Where, among all prefixes, the whole of each trace is: int64 [traces]."""
    lengths = np.fromiter((len(trace) + 1 for trace in traces), np.int64, len(traces))
    return np.cumsum(lengths) - 1


def padded(traces: Traces, symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """The traces with END after each as rows filled up with END, and which places are theirs.

    Returns:
        int64 and bool, both [traces, longest + 1]. The places that are theirs, row by row, are the prefixes in order.
    """
    lengths = np.fromiter((len(trace) + 1 for trace in traces), np.int64, len(traces))
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    rows = np.full(mask.shape, symbols - 1, dtype=np.int64)
    rows[mask] = targets(traces, symbols)
    return rows, mask
