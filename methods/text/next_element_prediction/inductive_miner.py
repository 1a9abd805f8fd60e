"""The Inductive Miner (Leemans, Fahland and van der Aalst, 2013) on directly-follows graphs.

The first cut that applies splits the activities; each part of the log is mined by itself. Without filtering, every trace
of the log is a run of the tree. With a share f above 0, an edge that is rarer than f times the strongest edge out of its
activity is dropped before cuts are looked for, and so are rare starts and ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from scipy.sparse import csgraph

from methods.text.next_element_prediction.process_tree import SILENT, Operator, Tree, leaf, node
from methods.text.next_element_prediction.sequences import Trace, Traces

Weighted = Counter[Trace]


def discover(traces: Traces, share: float = 0.0) -> Tree:
    """The process tree of the traces; edges below `share` of the strongest outgoing one are dropped."""
    return _mine(Counter(traces), share)


@dataclass(frozen=True)
class _Graph:
    """A directly-follows graph over `activities`, which are numbered in this order.

    Attributes:
        follows: bool [n, n].
        starts, ends: bool [n].
    """

    activities: tuple[int, ...]
    follows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def _graph(log: Weighted, share: float) -> _Graph:
    activities = tuple(sorted({a for trace in log for a in trace}))
    number = {a: i for i, a in enumerate(activities)}
    n = len(activities)
    edges, starts, ends = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    for trace, weight in log.items():
        starts[number[trace[0]]] += weight
        ends[number[trace[-1]]] += weight
        for a, b in pairwise(trace):
            edges[number[a], number[b]] += weight
    # The end counts as an edge too: what goes back from a usual last activity is rare beside it.
    strong = edges >= share * np.maximum(edges.max(axis=1), ends)[:, None]
    return _Graph(
        activities,
        (edges > 0) & strong,
        (starts > 0) & (starts >= share * starts.max()),
        (ends > 0) & (ends >= share * ends.max()),
    )


def _mine(log: Weighted, share: float) -> Tree:
    empty = log.get((), 0)
    if empty == log.total():
        return SILENT
    if empty:
        rest = Counter({trace: weight for trace, weight in log.items() if trace})
        # A part that is hardly ever left out is always there, if rare behaviour is to be dropped.
        return _mine(rest, share) if empty < share * log.total() else node("choice", SILENT, _mine(rest, share))
    graph = _graph(log, share)
    if len(graph.activities) == 1:
        only = leaf(graph.activities[0])
        return only if all(len(trace) == 1 for trace in log) else node("loop", only, SILENT)
    for operator, find, project in _CUTS:
        parts = find(graph)
        if len(parts) > 1:
            groups = [frozenset(graph.activities[i] for i in part) for part in parts]
            return node(operator, *(_mine(part, share) for part in project(log, groups)))
    return node("flower", *map(leaf, graph.activities))


# -- cuts: lists of parts, each a list of numbers of activities; one part is no cut -----------------------


def _components(linked: np.ndarray) -> list[list[int]]:
    """The connected components of a graph without directions, each sorted, in the order of their first members."""
    labels = csgraph.connected_components(linked, directed=False)[1]
    return [list(np.flatnonzero(labels == label)) for label in dict.fromkeys(labels)]


def _reaches(follows: np.ndarray) -> np.ndarray:
    """Whether there is a path of at least one edge: bool [n, n]."""
    closure = follows.copy()
    for k in range(len(closure)):
        closure |= np.outer(closure[:, k], closure[k])
    return closure


def exclusive_choice(graph: _Graph) -> list[list[int]]:
    """The weakly connected components."""
    return _components(graph.follows)


def sequence(graph: _Graph) -> list[list[int]]:
    """Groups in their order: strongly connected components, those that do not reach each other taken together."""
    reaches = _reaches(graph.follows)
    both = reaches & reaches.T
    neither = ~(reaches | reaches.T)
    groups = _components(both | neither)
    # Taking groups together can make two of them reach each other both ways; then they are one.
    while True:
        onward = np.array([[bool(reaches[np.ix_(a, b)].any()) for b in groups] for a in groups])
        np.fill_diagonal(onward, False)
        again = _components((onward & onward.T) | ~(onward | onward.T))
        if len(again) == len(groups):
            break
        groups = [sorted(i for g in together for i in groups[g]) for together in again]
    order = sorted(range(len(groups)), key=lambda g: -int(onward[g].sum()))
    return [groups[g] for g in order]


def parallel(graph: _Graph) -> list[list[int]]:
    """Groups whose members follow each other both ways across groups; each holds a start and an end."""
    apart = ~(graph.follows & graph.follows.T)
    groups = _components(apart)
    whole = [g for g in groups if graph.starts[g].any() and graph.ends[g].any()]
    lacking = [i for g in groups if g not in whole for i in g]
    if not whole:
        return [sorted(lacking)]
    return [sorted(whole[0] + lacking), *whole[1:]]


def loop(graph: _Graph) -> list[list[int]]:
    """The body first, which holds all starts and ends; then redo parts that only ends lead to and only starts follow."""
    inside = graph.starts | graph.ends
    outside = np.flatnonzero(~inside)
    redo = (
        [list(outside[part]) for part in _components(graph.follows[np.ix_(outside, outside)])]
        if outside.size
        else []
    )
    body = set(np.flatnonzero(inside).tolist())
    while True:
        others = np.array(sorted(body))
        into = others[~graph.ends[others]]
        onto = others[~graph.starts[others]]
        wrong = [
            part
            for part in redo
            if graph.follows[np.ix_(into, part)].any()
            or graph.follows[np.ix_(part, onto)].any()
            or not graph.follows[np.ix_(others, part)].any()
            or not graph.follows[np.ix_(part, others)].any()
        ]
        if not wrong:
            break
        body |= {int(i) for part in wrong for i in part}
        redo = [part for part in redo if part not in wrong]
    return [sorted(body), *redo]


# -- projections: the log of each part ---------------------------------------------------------------------


def _kept(trace: Trace, group: frozenset[int]) -> Trace:
    return tuple(a for a in trace if a in group)


def _by_activity(log: Weighted, groups: Sequence[frozenset[int]]) -> Iterable[Weighted]:
    for group in groups:
        part: Weighted = Counter()
        for trace, weight in log.items():
            part[_kept(trace, group)] += weight
        yield part


def _by_trace(log: Weighted, groups: Sequence[frozenset[int]]) -> Iterable[Weighted]:
    """Each trace to the part that holds most of its elements; the others are noise and go."""
    parts: list[Weighted] = [Counter() for _ in groups]
    for trace, weight in log.items():
        kept = [_kept(trace, group) for group in groups]
        most = max(range(len(groups)), key=lambda g: len(kept[g]))
        parts[most][kept[most]] += weight
    return parts


def _by_round(log: Weighted, groups: Sequence[frozenset[int]]) -> Iterable[Weighted]:
    """Stretches of the body and of the redo parts.

    Where two redo parts meet, or a trace begins or ends with one, an empty body is between them.
    """
    parts: list[Weighted] = [Counter() for _ in groups]
    of = {a: g for g, group in enumerate(groups) for a in group}
    for trace, weight in log.items():
        runs = [(g, tuple(run)) for g, run in groupby(trace, key=of.__getitem__)]
        last = -1
        for g, run in runs:
            if g and last != 0:
                parts[0][()] += weight
            parts[g][run] += weight
            last = g
        if last != 0:
            parts[0][()] += weight
    return parts


_Find = Callable[[_Graph], list[list[int]]]
_Project = Callable[[Weighted, Sequence[frozenset[int]]], Iterable[Weighted]]
_CUTS: tuple[tuple[Operator, _Find, _Project], ...] = (
    ("choice", exclusive_choice, _by_trace),
    ("sequence", sequence, _by_activity),
    ("parallel", parallel, _by_activity),
    ("loop", loop, _by_round),
)
