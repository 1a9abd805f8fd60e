"""A Markov chain over symbols: the one language model whose modes and lengths have closed forms.

A string is a walk from the start state; it ends with the symbol `end`. The probabilities of all lengths and the
most probable string of a length follow from dynamic programmes over the states, so that every search can be compared with
the truth (part D of the thesis).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from methods.decoding.language_models import FloatArray, IntArray


@dataclass(frozen=True)
class Chain:
    """P(v | s) and the state after it.

    Attributes:
        log_p: natural log of P(v | s): float64, shape (states, vocabulary); the last symbol ends the string.
        after: state after symbol v in state s: int64, shape (states, vocabulary); -1 after the end.
        start: state of the empty prefix. No symbol leads back to it.
        symbols: what each symbol spells, without the end.
    """

    log_p: FloatArray
    after: IntArray
    start: int
    symbols: str

    def __post_init__(self) -> None:
        if self.log_p.shape != self.after.shape or self.log_p.shape[1] != len(self.symbols) + 1:
            raise ValueError(
                f"{self.log_p.shape} log probabilities, {self.after.shape} states and {len(self.symbols)} symbols "
                "and an end do not fit together"
            )
        if (self.after[:, : self.end] == self.start).any():
            raise ValueError("a symbol leads back to the start, which must stand for the empty prefix alone")

    @property
    def end(self) -> int:
        """The symbol that ends a string."""
        return self.log_p.shape[1] - 1

    def spell(self, string: tuple[int, ...]) -> str:
        """The text of a string of symbols, its end left out."""
        return "".join(self.symbols[v] for v in string if v != self.end)

    def log_probability(self, string: tuple[int, ...]) -> float:
        """Log P of a string with its end, or of a prefix, in nats."""
        state, total = self.start, 0.0
        for v in string:
            total += float(self.log_p[state, v])
            state = int(self.after[state, v])
        return total


def contaminated(chain: Chain, share: float) -> Chain:
    """(1 - e) P + e delta: the law of `chain` with a `share` e of empty strings mixed in.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of noise is in [0, 1), not {share}")
    log_p = chain.log_p.copy()
    log_p[chain.start] += np.log1p(-share)
    if share:
        log_p[chain.start, chain.end] = np.logaddexp(log_p[chain.start, chain.end], np.log(share))
    return replace(chain, log_p=log_p)


def length_law(chain: Chain, longest: int) -> FloatArray:
    """Natural log of P(exactly r more symbols, then the end | s): float64, shape (longest + 1, states).

    The classifier of prefixes for "the length is L" is exact with it: c(A | y_1..t) = law[L - t, state after y_t].
    """
    law = np.empty((longest + 1, len(chain.log_p)))
    law[0] = chain.log_p[:, chain.end]
    inner, after = np.exp(chain.log_p[:, : chain.end]), chain.after[:, : chain.end]
    with np.errstate(divide="ignore"):
        for more in range(1, longest + 1):
            # Lengths are rarer and rarer; scaled by the most probable state none of them underflows.
            top = law[more - 1].max()
            if top == -np.inf:
                law[more] = -np.inf
                continue
            law[more] = np.log((inner * np.exp(law[more - 1] - top)[after]).sum(1)) + top
    return law


def mode_of_length(chain: Chain, length: int) -> tuple[tuple[int, ...], float]:
    """The most probable string of exactly `length` symbols, by Viterbi, with its end; and its log P in nats.

    Raises:
        ValueError: no string of that length has positive probability.
    """
    best = [chain.log_p[:, chain.end]]
    inner, after = chain.log_p[:, : chain.end], chain.after[:, : chain.end]
    for _ in range(length):
        best.append((inner + best[-1][after]).max(1))
    total = float(best[length][chain.start])
    if total == -np.inf:
        raise ValueError(f"no string of {length} symbols has a positive probability")
    state, string = chain.start, []
    for left in range(length, 0, -1):
        v = int((inner[state] + best[left - 1][after[state]]).argmax())
        string.append(v)
        state = int(after[state, v])
    return (*string, chain.end), total


def global_mode(chain: Chain, longest: int) -> tuple[tuple[int, ...], float]:
    """The most probable string of all, with its end; and its log P in nats.

    Raises:
        ValueError: a string longer than `longest` could still be more probable.
    """
    done = chain.log_p[:, chain.end]
    inner, after = chain.log_p[:, : chain.end], chain.after[:, : chain.end]
    ending = [done]
    # log P of the best prefix of each length bounds every longer string.
    prefix = np.full(len(chain.log_p), -np.inf)
    prefix[chain.start] = 0.0
    best_length, best = 0, float(done[chain.start])
    for length in range(1, longest + 1):
        ending.append((inner + ending[-1][after]).max(1))
        if (value := float(ending[length][chain.start])) > best:
            best_length, best = length, value
        moved = prefix[:, None] + inner
        prefix = np.full(len(prefix), -np.inf)
        np.maximum.at(prefix, after.reshape(-1), moved.reshape(-1))
        if prefix.max() <= best:
            return mode_of_length(chain, best_length)
    raise ValueError(f"a string of more than {longest} symbols may be the most probable one")


def entropy(chain: Chain) -> float:
    """Entropy of the whole strings in nats: that of a step, summed over the expected visits of the states.

    Raises:
        ValueError: strings do not end with probability one.
    """
    states = len(chain.log_p)
    p = np.exp(chain.log_p)
    with np.errstate(invalid="ignore"):
        local = -np.where(p > 0, p * chain.log_p, 0.0).sum(1)
    moves = np.zeros((states, states))
    np.add.at(moves, (np.arange(states)[:, None], chain.after[:, : chain.end]), p[:, : chain.end])
    begin = np.zeros(states)
    begin[chain.start] = 1.0
    try:
        visits = np.linalg.solve(np.eye(states) - moves.T, begin)
    except np.linalg.LinAlgError as error:
        raise ValueError("some strings of the chain never end") from error
    return float(visits @ local)


def uniform_binary(length: int) -> Chain:
    """All strings of `length` bits with equal probability, and no others; one state per number of bits."""
    states = length + 1
    log_p = np.full((states, 3), -np.inf)
    log_p[:length, :2] = -np.log(2.0)
    log_p[length, 2] = 0.0
    after = np.full((states, 3), -1)
    # After the last bit nothing but the end is possible; the state there only has to be a valid index.
    after[:, :2] = np.minimum(np.arange(states) + 1, length)[:, None]
    return Chain(log_p, after, 0, "01")
