"""Searches for probable strings, under a condition or without one (part D).

All of them see the language model as a `Stepper`: states of many prefixes at once, the next-token law of each,
and a way to move on. A `Condition` scores prefixes by how likely the model is to go on to a string that fulfils it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from methods.decoding.language_models import FloatArray, IntArray
from methods.decoding.making_the_most.chain import Chain, length_law

String = tuple[int, ...]


class Stepper(ABC):
    """A language model that is asked for one token of many prefixes at a time.

    Attributes:
        vocabulary: number of tokens.
        end: the token that ends a string.
    """

    vocabulary: int
    end: int

    @abstractmethod
    def start(self) -> Any:
        """The state of one empty prefix."""

    @abstractmethod
    def log_p(self, state: Any) -> FloatArray:
        """Natural log of P(v | prefix): float64, shape (prefixes, vocabulary)."""

    @abstractmethod
    def advance(self, state: Any, rows: IntArray, tokens: IntArray) -> Any:
        """The state of prefix `rows[i]` followed by `tokens[i]`, for every i. No token is the end."""


class Condition(ABC):
    """An attribute A of whole strings, and an estimate of P(A | prefix) when the model goes on by itself."""

    @abstractmethod
    def log_c(self, state: Any, prefixes: IntArray, tokens: IntArray) -> FloatArray:
        """Natural log of c(A | prefix, token).

        Args:
            state: of the prefixes, as the stepper gave it.
            prefixes: the prefixes: int64, shape (n, t).
            tokens: candidates for the next token, the end among them or not: int64, shape (n, k).

        Returns:
            float64, shape (n, k). For the end, 0 where the finished string fulfils A and -inf where it does not.
        """


class ChainStepper(Stepper):
    """A Markov chain; the state is the array of the prefixes' states."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.vocabulary, self.end = chain, chain.log_p.shape[1], chain.end

    def start(self) -> IntArray:
        """The chain's start."""
        return np.array([self.chain.start])

    def log_p(self, state: IntArray) -> FloatArray:
        """Rows of the chain's table."""
        law: FloatArray = self.chain.log_p[state]
        return law

    def advance(self, state: IntArray, rows: IntArray, tokens: IntArray) -> IntArray:
        """Look up the states after the tokens."""
        moved: IntArray = self.chain.after[state[rows], tokens]
        return moved


class ExactLength(Condition):
    """The string has exactly `length` symbols before its end, by dynamic programming over a chain."""

    def __init__(self, chain: Chain, length: int) -> None:
        self.chain, self.length = chain, length
        self.law = length_law(chain, length)

    def log_c(self, state: IntArray, prefixes: IntArray, tokens: IntArray) -> FloatArray:
        """The exact log P(length = L | prefix, token)."""
        t = prefixes.shape[1]
        ended = tokens == self.chain.end
        finished = 0.0 if t == self.length else -np.inf
        if t >= self.length:
            return np.where(ended, finished, -np.inf)
        after = self.chain.after[state[:, None], tokens]
        return np.where(ended, finished, self.law[self.length - t - 1][after])


class Always(Condition):
    """A condition that every string fulfils: c = 1."""

    def log_c(self, state: Any, prefixes: IntArray, tokens: IntArray) -> FloatArray:
        """Zeros."""
        return np.zeros(tokens.shape)


@dataclass(frozen=True)
class Found:
    """A finished string that a search found.

    Attributes:
        string: its tokens with the end.
        log_p: log P under the language model, in nats.
    """

    string: String
    log_p: float


def beam_search(
    stepper: Stepper,
    beam: int,
    longest: int,
    *,
    condition: Condition | None = None,
    top: int = 100,
    length: int | None = None,
    least: int = 0,
    normalised: bool = False,
    ending: Literal["always", "ranked"] = "always",
) -> Found | None:
    """Beam search, plain or conditional.

    Hypotheses are ranked by log p(y_1..t) + log c(A | y_1..t). The classifier's term is computed afresh at each
    step and never accumulated: it estimates the same event each time.

    Args:
        stepper: the language model.
        beam: k, hypotheses that go on after each step.
        longest: most tokens before the end.
        condition: A; None ranks by log p alone.
        top: next tokens of each hypothesis, by log p, for which the condition is evaluated.
        length: force this length: no end before it, nothing but the end at it.
        least: no end before so many tokens.
        normalised: choose among the finished strings by log p over the number of tokens, end included.
        ending: "always" lets every hypothesis end at each step, so that the finished string of each competes;
            "ranked" only those whose end is among the 2k best candidates, as common libraries do.

    Returns:
        The best finished string, or None where none ended (or none that fulfils the condition).
    """
    stop = longest if length is None else length
    state, prefixes, log_p = stepper.start(), np.empty((1, 0), np.int64), np.zeros(1)
    best: tuple[float, Found] | None = None
    for t in range(stop + 1):
        total = log_p[:, None] + stepper.log_p(state)
        if t < least or (length is not None and t < length):
            total[:, stepper.end] = -np.inf
        tokens = _most_probable(total, top, stepper.end)
        score = np.take_along_axis(total, tokens, 1)
        values = score if condition is None else score + condition.log_c(state, prefixes, tokens)
        order = np.argsort(-values, axis=None, kind="stable")
        order = order[values.reshape(-1)[order] > -np.inf]
        # At the limit every hypothesis ends, as in common libraries.
        considered = order if ending == "always" or t == stop else order[: 2 * beam]
        for place in considered[tokens.reshape(-1)[considered] == stepper.end].tolist():
            row, log = place // tokens.shape[1], float(score.reshape(-1)[place])
            value = log / (t + 1) if normalised else float(values.reshape(-1)[place])
            if best is None or value > best[0]:
                best = value, Found((*prefixes[row].tolist(), stepper.end), log)
        order = order[tokens.reshape(-1)[order] != stepper.end][:beam]
        if t == stop or not len(order):
            break
        rows, chosen = order // tokens.shape[1], tokens.reshape(-1)[order]
        log_p = score.reshape(-1)[order]
        # log p only falls and log c is at most 0, so nothing that is left can pass a better finished string.
        if best is not None and not normalised and log_p.max() <= best[0]:
            break
        state = stepper.advance(state, rows, chosen)
        prefixes = np.concatenate([prefixes[rows], chosen[:, None]], axis=1)
    return best[1] if best else None


def _most_probable(total: FloatArray, top: int, end: int) -> IntArray:
    """The `top` best tokens of each row, and the end in any case: int64, shape (rows, at most top + 1)."""
    rows, vocabulary = total.shape
    if top >= vocabulary - 1:
        return np.broadcast_to(np.arange(vocabulary), (rows, vocabulary))
    inner = np.delete(total, end, axis=1)
    chosen = np.argpartition(-inner, top - 1, axis=1)[:, :top]
    chosen += chosen >= end
    return np.concatenate([chosen, np.full((rows, 1), end)], axis=1)


def sample(stepper: Stepper, count: int, longest: int, rng: np.random.Generator) -> list[Found]:
    """Strings drawn token by token; those that reach `longest` tokens without an end are left out."""
    state, rows = stepper.start(), np.zeros(count, np.int64)
    prefixes, log_p = np.empty((count, 0), np.int64), np.zeros(count)
    found: list[Found] = []
    for _ in range(longest + 1):
        step = stepper.log_p(state)[rows]
        cumulated = np.cumsum(np.exp(step), axis=1)
        uniform = rng.random(len(step)) * cumulated[:, -1]
        tokens = np.minimum((cumulated <= uniform[:, None]).sum(1), stepper.vocabulary - 1)
        log_p = log_p + step[np.arange(len(step)), tokens]
        ended = tokens == stepper.end
        found += [
            Found((*prefix, stepper.end), log)
            for prefix, log in zip(prefixes[ended].tolist(), log_p[ended].tolist(), strict=True)
        ]
        if ended.all():
            break
        state = stepper.advance(state, rows[~ended], tokens[~ended])
        prefixes = np.concatenate([prefixes[~ended], tokens[~ended, None]], axis=1)
        log_p, rows = log_p[~ended], np.arange(int((~ended).sum()))
    return found


@dataclass(frozen=True)
class Search:
    """What an exact search came to.

    Attributes:
        found: the best string so far, None where there is none.
        complete: whether it is proved to be the mode.
        expansions: prefixes whose next-token law was computed.
    """

    found: Found | None
    complete: bool
    expansions: int


def depth_first_mode(
    stepper: Stepper, longest: int, *, length: int | None = None, most: int = 100_000
) -> Search:
    """The mode by depth-first search that drops prefixes with log p at most that of the best complete string.

    Args:
        stepper: the language model.
        longest: most tokens before the end; a longer mode is not found, and `complete` is False if there may be one.
        length: the end is accepted only after so many tokens.
        most: expansions after which the search gives up.
    """
    stop = longest if length is None else length
    best: Found | None = None
    expansions, complete = 0, True
    stack: list[tuple[String, float, Any]] = [((), 0.0, stepper.start())]
    while stack:
        prefix, log, state = stack.pop()
        if best is not None and log <= best.log_p:
            continue
        if expansions == most:
            return Search(best, False, expansions)
        expansions += 1
        law = log + stepper.log_p(state)[0]
        end = float(law[stepper.end])
        if (length is None or len(prefix) == length) and end > -np.inf and (best is None or end > best.log_p):
            best = Found((*prefix, stepper.end), end)
        floor = -np.inf if best is None else best.log_p
        law[stepper.end] = -np.inf
        if len(prefix) == stop:
            complete &= length is not None or not (law > floor).any()
            continue
        # The most probable token is followed first, so that good strings prune early.
        for token in np.argsort(law).tolist():
            if law[token] > floor:
                child = stepper.advance(state, np.array([0]), np.array([token]))
                stack.append(((*prefix, token), float(law[token]), child))
    return Search(best, complete, expansions)
