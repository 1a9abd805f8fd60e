"""Expands a suite in both revisions and pairs what is the same on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import parameters, suite
from harness.catalog import Catalog, Entry
from harness.errors import RequestError, RequestErrors
from harness.gate.model import Finding
from harness.suite import Comparison, Contestant


@dataclass(frozen=True)
class Pair:
    """A method of a comparison that is on both sides.

    Attributes:
        head: its comparisons in the working tree, one per seed.
        base: the same in the base revision, in the same order.
        contestant, base_contestant: the method on either side.
    """

    head: tuple[Comparison, ...]
    base: tuple[Comparison, ...]
    contestant: Contestant
    base_contestant: Contestant

    @property
    def comparison(self) -> Comparison:
        """The first of the head's comparisons; but for the seed all are alike."""
        return self.head[0]

    def finding(self, **found: Any) -> Finding:
        """A finding about it."""
        return _finding(self.head, self.contestant, **found)


@dataclass(frozen=True)
class Matched:
    """What a gate measures, and what is on one side only."""

    pairs: list[Pair]
    unpaired: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """What of a suite is gated; empty for all."""

    papers: Sequence[str] = ()
    tags: Sequence[str] = ()
    only: Sequence[str] = ()


def match(head: Catalog, base: Catalog, name: str, profile: str, selection: Selection) -> Matched:
    """Pair the methods of a suite over both revisions.

    The head's suite says what is gated. A method that the base does not have, or not with these parameters, is new; one
    that only the base's suite of that name has is gone.

    Raises:
        RequestError, RequestErrors: the head's suite is wrong.
    """
    ours = _by_point(
        suite.expand(head, [name], profile, papers=selection.papers, tags=selection.tags, only=selection.only)
    )
    pairs: list[Pair] = []
    unpaired: list[Finding] = []
    for group in ours:
        for contestant in group[0].contestants:
            if contestant.gate.skip:
                continue
            try:
                pairs.append(_pair(head, base, group, contestant))
            except RequestError as error:
                reason = f"not in the base: {error.what}"
                unpaired.append(_finding(group, contestant, metric="status", change="new", reason=reason))
    there = {(group[0].name, c.method, c.label) for group in ours for c in group[0].contestants}
    gone: dict[tuple[str, str, str], Finding] = {}
    for group in _base_suite(base, name, profile, selection):
        for contestant in group[0].contestants:
            key = (group[0].name, contestant.method, contestant.label)
            if key not in there and not contestant.gate.skip:
                reason = "the base's suite has it, the working tree's has not"
                gone.setdefault(key, _finding(group, contestant, metric="status", change="gone", reason=reason))
    return Matched(pairs, [*unpaired, *gone.values()])


def _base_suite(base: Catalog, name: str, profile: str, selection: Selection) -> list[list[Comparison]]:
    """The base's own suite of that name, as far as it stands by itself there."""
    if name not in base.suites:
        return []
    try:
        expanded = suite.expand(base, [name], profile, tags=selection.tags)
    except (RequestError, RequestErrors):
        return []  # an older form of suite files; what is gone cannot be told
    chosen = [
        c
        for c in expanded
        if (not selection.papers or c.paper in selection.papers)
        and (not selection.only or c.name in selection.only)
    ]
    return _by_point(chosen)


def _by_point(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Comparisons that differ only in the seed, together."""
    groups: dict[str, list[Comparison]] = {}
    for each in comparisons:
        groups.setdefault(f"{each.name} {sorted(each.parameters.items())!r}", []).append(each)
    return list(groups.values())


def _pair(head: Catalog, base: Catalog, group: Sequence[Comparison], contestant: Contestant) -> Pair:
    """Raises `RequestError` when the base cannot take the other side."""
    first = group[0]
    task = base.task(first.task)
    method = base.method(contestant.method)
    if first.task not in method.attempts:
        raise RequestError(f"there, the method '{method.name}' does not attempt the task '{first.task}'")
    given = _translated(head.task(first.task), task, first.parameters)
    theirs = _translated(head.method(contestant.method), method, contestant.parameters)
    return Pair(
        head=tuple(group),
        base=tuple(_replaced(each, given) for each in group),
        contestant=contestant,
        base_contestant=Contestant(contestant.method, contestant.label, theirs, contestant.gate),
    )


def _replaced(comparison: Comparison, given: Mapping[str, Any]) -> Comparison:
    from dataclasses import replace

    return replace(comparison, parameters=dict(given))


def _translated(head: Entry, base: Entry, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of one side for the other: what the other does not know is left out while it is at its default."""
    kept = {}
    for name, value in given.items():
        if name not in base.fields and value == head.fields[name].default:
            continue
        kept[name] = parameters.check(base, name, value)
    return parameters.complete(base, kept)


def _finding(group: Sequence[Comparison], contestant: Contestant, **found: Any) -> Finding:
    first = group[0]
    return Finding(
        comparison=first.name,
        paper=first.paper,
        task=first.task,
        task_parameters=dict(first.parameters),
        method=contestant.method,
        label=contestant.label,
        method_parameters=dict(contestant.parameters),
        seeds=[each.seed for each in group],
        **found,
    )
