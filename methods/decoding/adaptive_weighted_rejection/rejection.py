"""Adaptive weighted rejection sampling of one token: the algorithms of the paper and of its published library.

p is the language model's next-token law, C(v) in {0, 1} a black-box test, A = {v : C(v) = 1} and Z = p(A). A draw is a
token from p restricted to A and a weight w with E[w 1(token = v)] = p(v) 1(v in A), so that E[w] = Z, without the
evaluation of C on the whole vocabulary. Every algorithm walks through tokens in an `Order`, a draw from p without
replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from methods.decoding.language_models import FloatArray, IntArray

Test = Callable[[int], bool]
"""C of one context: whether a token may follow."""

Version = Literal["auto", "recursive", "geometric", "two-loop", "improper"]

PEAKED = 2 / 3
"""From this largest probability on, the geometric version expects fewer tests than the recursive one."""

_AT_ONCE = 64
"""Tokens that are put in order before all are."""


@dataclass(frozen=True)
class Draw:
    """A token, its weight and what it cost.

    Attributes:
        token: None where no token passes.
        weight: w; 0 without a token.
        calls: evaluations of C.
    """

    token: int | None
    weight: float
    calls: int


class Order:
    """Tokens in the order of a draw without replacement.

    Args:
        p: weight of every token: float64, shape (vocabulary,).
        tokens: a permutation of those of positive weight.
    """

    def __init__(self, p: FloatArray, tokens: IntArray | Sequence[int]) -> None:
        self.p, self._tokens = p, np.asarray(tokens, np.int64)
        self._left: FloatArray | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def token(self, place: int) -> int:
        """The token at a place."""
        return int(self._tokens[place])

    def left(self, place: int) -> float:
        """The mass of the tokens from `place` on, added up from the smallest side: no cancellation near 0."""
        if self._left is None:
            self._left = np.cumsum(self.p[self._tokens][::-1])[::-1]
        return float(self._left[place])


class Race(Order):
    """A draw without replacement from p: token v arrives at time E_v / p(v) with E_v exponential.

    The same law as Gumbel keys log p(v) + g_v, sorted descending. The first tokens are found by a partial sort; all are
    sorted only when the walk goes on or when nearly all mass is gone.
    """

    def __init__(self, p: FloatArray, rng: np.random.Generator) -> None:
        support = np.flatnonzero(p > 0)
        # Times far apart in magnitude are ordered by their logarithms; 1/p of a subnormal p would overflow.
        times = np.log(rng.standard_exponential(len(support))) - np.log(p[support])
        self._support, self._times, self._size = support, times, len(support)
        if self._size > 4 * _AT_ONCE:
            first = np.argpartition(times, _AT_ONCE)[:_AT_ONCE]
            super().__init__(p, support[first[np.argsort(times[first])]])
            self._gone = np.cumsum(p[self._tokens])
            self._total = float(p.sum())
            self._partial = True
        else:
            super().__init__(p, support[np.argsort(times)])
            self._partial = False

    def __len__(self) -> int:
        return self._size

    def _sort(self) -> None:
        if self._partial:
            self._tokens, self._partial = self._support[np.argsort(self._times)], False

    def token(self, place: int) -> int:
        """See `Order.token`."""
        if place >= len(self._tokens):
            self._sort()
        return super().token(place)

    def left(self, place: int) -> float:
        """See `Order.left`."""
        if self._partial:
            gone = float(self._gone[place - 1]) if place else 0.0
            if self._total - gone > 0.01 * self._total:
                return self._total - gone
            self._sort()
        return super().left(place)


Orders = Callable[[FloatArray], Order]
"""Draws a fresh order from weights; tokens of weight zero are not in it."""


def races(rng: np.random.Generator) -> Orders:
    """Fresh races on one stream."""
    return lambda p: Race(p, rng)


class Batch:
    """Orders of one law by the thousand, for many draws from a small vocabulary; of every other law fresh races."""

    def __init__(self, p: FloatArray, rng: np.random.Generator, at_once: int = 2000) -> None:
        self.p, self.rng, self.at_once = p, rng, at_once
        self._support = np.flatnonzero(p > 0)
        self._rows: list[IntArray] = []

    def __call__(self, p: FloatArray) -> Order:
        """A fresh order."""
        if p is not self.p:
            return Race(p, self.rng)
        if not self._rows:
            clocks = np.log(self.rng.standard_exponential((self.at_once, len(self._support))))
            self._rows = list(self._support[np.argsort(clocks - np.log(p[self._support]), axis=1)])
        return Order(p, self._rows.pop())


def improper(p: FloatArray, test: Test, orders: Orders) -> Draw:
    """The first token that passes, with weight 1: locally constrained decoding without its normaliser."""
    order = orders(p)
    for place in range(len(order)):
        if test(token := order.token(place)):
            return Draw(token, 1.0, place + 1)
    return Draw(None, 0.0, len(order))


def two_loop(p: FloatArray, test: Test, orders: Orders) -> Draw:
    """The paper's estimator: w = (1 - m0) / (n0 + n1 + 1).

    The first loop walks until a token passes, over n0 rejected tokens of mass m0. The second starts afresh over the
    tokens that were not rejected, the accepted one among them, and counts n1 more rejections until a token passes. What
    passed once is not tested again.
    """
    order = orders(p)
    size = len(order)
    for n0 in range(size):
        if test(token := order.token(n0)):
            break
    else:
        return Draw(None, 0.0, size)
    left = order.left(n0) / order.left(0)
    rest = p.copy()
    rest[[order.token(place) for place in range(n0)]] = 0.0
    second = orders(rest)
    n1 = 0
    while (other := second.token(n1)) != token and not test(other):
        n1 += 1
    return Draw(token, left / (n0 + n1 + 1), n0 + 1 + n1 + (other != token))


def recursive(p: FloatArray, test: Test, orders: Orders) -> Draw:
    """One pass and one test more, from Z = q + (1 - q) Z'.

    q is the conditional probability of the token at hand and Z' the accepted share of the rest. The product of the 1 - q
    of the rejected tokens telescopes to the mass R that is left when a token v passes. The next token of the order is an
    exact draw from the rest: w = R when it passes too or when there is none, else w = R q = p(v).
    """
    order = orders(p)
    whole = order.left(0) if len(order) else 1.0
    for place in range(len(order)):
        token = order.token(place)
        if not test(token):
            continue
        if place + 1 == len(order):
            return Draw(token, float(p[token]) / whole, place + 1)
        passes = test(order.token(place + 1))
        return Draw(token, (order.left(place) if passes else float(p[token])) / whole, place + 2)
    return Draw(None, 0.0, len(order))


def geometric(p: FloatArray, test: Test, orders: Orders, rng: np.random.Generator, accepts: int = 2) -> Draw:
    """Rejection with replacement, simulated without: w = (a - 1) / (a + rejects - 1), negative binomial.

    A draw with replacement would hit tokens of the rejected mass r over and over: before each draw, Geometric(1 - r) - 1
    such phantom rejections are counted and none is tested. What passed once is not tested again. More accepts a lower
    the variance.
    """
    rest, left, rejects, calls = p, 1.0, 0.0, 0
    passed: set[int] = set()
    first: int | None = None
    for _ in range(accepts):
        order = orders(rest)
        whole = order.left(0) if len(order) else 0.0
        for place in range(len(order)):
            share = left * order.left(place) / whole
            if share < 1.0:
                rejects += np.floor(-rng.standard_exponential() / np.log1p(-share))
            token = order.token(place)
            if token not in passed:
                calls += 1
                if not test(token):
                    rejects += 1
                    rest = p.copy() if rest is p else rest  # orders of p itself may have been drawn in advance
                    rest[token] = 0.0
                    continue
                passed.add(token)
            first = token if first is None else first
            left = share
            break
        else:
            return Draw(None, 0.0, calls)
    return Draw(first, (accepts - 1) / (accepts + rejects - 1), calls)


def awrs(
    p: FloatArray,
    test: Test,
    rng: np.random.Generator,
    version: Version = "auto",
    accepts: int = 2,
    orders: Orders | None = None,
) -> Draw:
    """One draw.

    Args:
        p: the law, summing to one: float64, shape (vocabulary,).
        test: C; a token is tested at most once.
        rng: the stream.
        version: "auto" is the geometric version where p is peaked or more than two accepts are asked for, else the
            recursive one, as in the published library.
        accepts: accepted draws behind a weight of the geometric version, at least two.
        orders: where orders come from; default fresh races.
    """
    orders = orders or races(rng)
    if version == "auto":
        version = "geometric" if accepts > 2 or p.max() >= PEAKED else "recursive"
    if version == "geometric":
        return geometric(p, test, orders, rng, accepts)
    return {"recursive": recursive, "two-loop": two_loop, "improper": improper}[version](p, test, orders)


def negative_binomial(p: FloatArray, test: Test, rng: np.random.Generator, most: int = 10_000_000) -> Draw:
    """Plain rejection with replacement until two tokens pass: w = 1 / (rejects + 1); every draw is a test.

    Raises:
        ValueError: `most` draws were not enough.
    """
    cumulated = np.cumsum(p)
    first: int | None = None
    for calls in range(1, most + 1):
        token = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
        if test(token):
            if first is not None:
                return Draw(first, 1 / (calls - 1), calls)
            first = token
    raise ValueError(f"{most} draws with replacement held fewer than two tokens that pass")


def masked(p: FloatArray, test: Test, rng: np.random.Generator) -> Draw:
    """Exact locally constrained decoding: C on the whole vocabulary, w = Z."""
    mask = np.fromiter((test(token) for token in range(len(p))), bool, len(p))
    return from_mask(p, mask, len(p), rng)


def from_mask(p: FloatArray, mask: np.ndarray, calls: int, rng: np.random.Generator) -> Draw:
    """A token from p restricted to a mask, bool, shape (vocabulary,), with w = Z; `calls` is what the mask cost."""
    cumulated = np.cumsum(np.where(mask, p, 0.0))
    if cumulated[-1] <= 0:
        return Draw(None, 0.0, calls)
    token = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return Draw(min(token, int(np.searchsorted(cumulated, cumulated[-1]))), float(cumulated[-1]), calls)
