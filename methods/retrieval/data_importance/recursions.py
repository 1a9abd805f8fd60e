"""The exact gradient of the multilinear extension of an additive utility, by dynamic programming.

For one question let u_i in [0, 1] be the utility of the i-th retrieved item and p_i the probability that
its source exists, i = 1..M, best first. The model sees the first K items that exist, so

    U~(p) = (1/K) sum_i p_i u_i Pr[fewer than K of items 1..i-1 exist].

Let V_i[j] be the expected utility, times K, of items i..M when j places are taken already:

    V_{M+1}[j] = 0,   V_i[K] = 0,   V_i[j] = p_i (u_i + V_{i+1}[j+1]) + (1 - p_i) V_{i+1}[j],

and P_i[j] the probability that j of the items 1..i exist. Then

    dU~/dp_i = (1/K) sum_{j<K} P_{i-1}[j] (u_i + V_{i+1}[j+1] - V_{i+1}[j]).

Only differences W_i[j] = V_i[j] - V_i[j+1] occur: the utility that a taken place displaces. Subtracting the
recursion of V at j + 1 from that at j gives one for W alone, whose boundary is the item itself:

    W_{M+1}[j] = 0,   W_i[j] = (1 - p_i) W_{i+1}[j] + p_i W_{i+1}[j+1],   where W_{i+1}[K] stands for u_i.

The prefix obeys P_i[j] = (1 - p_i) P_{i-1}[j] + p_i P_{i-1}[j-1]. Both are O(M K) a question. Here they run
over the items, on arrays with one column per question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from methods.retrieval.data_importance.retrievals import Retrievals

Array = NDArray[np.float64]


def item_gradients(p: Array, u: Array, places: int) -> tuple[Array, Array]:
    """U~ and its gradient for every item of a batch of questions.

    Args:
        p: float64[M, n], probability that the i-th item's source exists; 0 pads short lists.
        u: float64[M, n], its utility in [0, 1].
        places: K, how many existing items the model sees.

    Returns:
        U~ as float64[n] and dU~/dp_i as float64[M, n].
    """
    if p.shape != u.shape or p.ndim != 2:
        raise ValueError(f"p and u are matrices of one shape, not {p.shape} and {u.shape}")
    items, questions = p.shape
    displaced = np.zeros((items + 1, places + 1, questions))  # displaced[i][j] = W_{i+1}[j], i from 0
    for i in range(items - 1, -1, -1):
        later, here = displaced[i + 1], displaced[i][:places]
        later[places] = u[i]
        np.subtract(later[1:], later[:places], out=here)
        here *= p[i]
        here += later[:places]

    value = np.zeros(questions)
    gradient = np.empty((items, questions))
    taken = np.zeros((places + 1, questions))  # taken[j + 1] = P_{i-1}[j]; row 0 is P[-1] = 0
    taken[1] = 1.0
    free = np.ones(questions)  # Pr[fewer than K of the items so far exist]
    change = np.empty((places, questions))
    for i in range(items):
        gain = u[i] * free
        value += p[i] * gain
        np.einsum("jn,jn->n", taken[1:], displaced[i + 1][:places], out=gradient[i])
        np.subtract(gain, gradient[i], out=gradient[i])
        free -= p[i] * taken[places]
        np.subtract(taken[:places], taken[1:], out=change)
        change *= p[i]
        taken[1:] += change
    gradient /= places
    return value / places, gradient


def source_gradient(
    retrieved: Retrievals,
    v: Array,
    places: int,
    *,
    chunk: int = 512,
    threads: int = 1,
    rows: NDArray[np.int64] | None = None,
    depth: int | None = None,
) -> tuple[float, Array]:
    """The mean of U~ over questions and its gradient with respect to every source's probability.

    Items are treated as independent, also where two of a question come from one source; their
    gradients add up.

    Args:
        retrieved: N questions with M items each.
        v: float64[S], probability that each source exists.
        places: K.
        chunk: questions per batch: memory is about 8 (K + 3) M chunk bytes per thread.
        threads: batches that are worked on at the same time.
        rows: int64[n], the questions to average over; all by default.
        depth: items after this rank are ignored; none by default.

    Returns:
        mean U~ and float64[S].
    """
    total = len(retrieved.sources) if rows is None else len(rows)
    extended = np.append(v, 0.0)  # the source of the padding never exists

    def part(start: int) -> tuple[float, Array]:
        take = slice(start, start + chunk) if rows is None else rows[start : start + chunk]
        index = retrieved.sources[take, :depth].T
        value, gradient = item_gradients(
            extended[index], retrieved.utilities[take, :depth].T.astype(np.float64, order="C"), places
        )
        added: Array = np.bincount(index.ravel(), gradient.ravel(), len(extended)).astype(np.float64)
        return float(value.sum()), added[:-1]

    value, gradient = 0.0, np.zeros(len(v))
    for part_value, part_gradient in _mapped(part, range(0, total, chunk), threads):
        value += part_value
        gradient += part_gradient
    return value / total, gradient / total


def _mapped(
    part: Callable[[int], tuple[float, Array]], starts: range, threads: int
) -> Iterator[tuple[float, Array]]:
    """The parts in order, so that the sum does not depend on the number of threads."""
    if threads == 1:
        yield from map(part, starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(part, starts)


def utility(retrieved: Retrievals, v: Array, places: int, *, chunk: int = 512) -> float:
    """The mean of U~ over questions at the existence probabilities `v`: float64[S] in [0, 1]."""
    extended = np.append(v, 0.0)
    total = 0.0
    for start in range(0, len(retrieved.sources), chunk):
        p = extended[retrieved.sources[start : start + chunk].T]
        u = retrieved.utilities[start : start + chunk].T
        taken = np.zeros((places, p.shape[1]))
        taken[0] = 1.0
        for i in range(len(p)):
            total += float(np.sum(p[i] * u[i] * taken.sum(axis=0)))
            moved = p[i] * taken
            taken -= moved
            taken[1:] += moved[:-1]
    return total / (places * len(retrieved.sources))


def group_means(v: Array, groups: NDArray[np.int64], count: int) -> Array:
    """The mean of v over the members of each group: float64[count]; 0 for a group without members."""
    members = np.bincount(groups, minlength=count)
    total: Array = np.bincount(groups, weights=v, minlength=count).astype(np.float64)
    return total / np.maximum(members, 1)


def ascend(
    retrieved: Retrievals,
    places: int,
    *,
    rate: float,
    steps: int,
    groups: NDArray[np.int64] | None = None,
    chunk: int = 512,
    threads: int = 1,
) -> Array:
    """Projected gradient ascent of the mean U~ over the box: v <- clip(v + rate * gradient, 0, 1).

    Args:
        retrieved: questions with known utilities.
        places: K.
        rate: step size. The gradient carries 1/N, hence rates in the hundreds for rare sources.
        steps: how many.
        groups: int64[S], a group for every source: after each step every member takes the mean of its
            group. None: every source for itself.
        chunk: see `source_gradient`.
        threads: see `source_gradient`.

    Returns:
        v as float64[S], started from 0.5.
    """
    v = np.full(retrieved.count, 0.5)
    for _ in range(steps):
        _, gradient = source_gradient(retrieved, v, places, chunk=chunk, threads=threads)
        v = np.clip(v + rate * gradient, 0.0, 1.0)
        if groups is not None:
            v = group_means(v, groups, int(groups.max()) + 1)[groups]
    return v
