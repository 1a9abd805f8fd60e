"""Workflow nets from process trees, and how they are replayed.

A net is safe: a place holds no token or one. A marking is an integer whose bits are the places with a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from methods.text.next_element_prediction.process_tree import Tree


@dataclass(frozen=True)
class Transition:
    """Takes a token from each place in `takes` and puts one on each in `puts` (bit masks); silent without activity."""

    activity: int | None
    takes: int
    puts: int


@dataclass
class Net:
    """A workflow net: begins with one token on `source`, is done with one on `sink` and none elsewhere."""

    transitions: list[Transition]
    source: int
    sink: int
    labelled: dict[int, list[Transition]] = field(init=False)
    silent: list[Transition] = field(init=False)

    def __post_init__(self) -> None:
        self.labelled, self.silent = {}, []
        for transition in self.transitions:
            if transition.activity is None:
                self.silent.append(transition)
            else:
                self.labelled.setdefault(transition.activity, []).append(transition)
        self._producers: dict[int, list[Transition]] = {}
        for transition in self.silent:
            for place in bits(transition.puts):
                self._producers.setdefault(place, []).append(transition)

    @property
    def places(self) -> int:
        """How many places there are."""
        used = reduce(or_, (t.takes | t.puts for t in self.transitions), self.source | self.sink)
        return used.bit_count()

    def closure(self, marking: int, limit: int = 100_000) -> set[int]:
        """All markings that silent transitions lead to, breadth first, the given one included.

        Raises:
            OverflowError: there are more than `limit`.
        """
        found, queue = {marking}, [marking]
        for here in queue:
            for t in self.silent:
                after = fire(here, t)
                if after is not None and after not in found:
                    found.add(after)
                    queue.append(after)
            if len(found) > limit:
                raise OverflowError(f"the silent closure has more than {limit} markings")
        return found

    def supply(self, marking: int, places: int, spent: frozenset[Transition] = frozenset()) -> set[int]:
        """The markings with a token on each of `places` that silent transitions lead to, firing none without need.

        Searches backwards from the places, so that choices in other branches stay open and their combinations are not
        walked through, as they are in `closure`. A silent transition fires at most once, which is enough in nets of
        process trees.
        """
        missing = places & ~marking
        if not missing:
            return {marking}
        place = missing & -missing
        found: set[int] = set()
        for t in self._producers.get(place, ()):
            if t in spent:
                continue
            for ready in self.supply(marking, t.takes, spent | {t}):
                after = fire(ready, t)
                if after is not None:
                    found |= self.supply(after, places, spent | {t})
        return found

    def after(self, marking: int, activity: int) -> set[int]:
        """The markings right after `activity`, silent transitions that it needs before it; none if it cannot be."""
        found = set()
        for t in self.labelled.get(activity, ()):
            for ready in self.supply(marking, t.takes):
                reached = fire(ready, t)
                if reached is not None:
                    found.add(reached)
        return found

    def can_end(self, marking: int) -> bool:
        """Whether silent transitions lead to the final marking."""
        return self.sink in self.supply(marking, self.sink)


def bits(mask: int) -> Iterable[int]:
    """The single bits of a mask."""
    while mask:
        low = mask & -mask
        yield low
        mask ^= low


def fire(marking: int, transition: Transition) -> int | None:
    """The marking after the transition, or None where it lacks a token."""
    if marking & transition.takes != transition.takes:
        return None
    return (marking & ~transition.takes) | transition.puts


def from_tree(tree: Tree) -> Net:
    """The workflow net of a process tree, without the silent transitions that merely hand a token on."""
    transitions: list[Transition] = []
    used = 0

    def place() -> int:
        nonlocal used
        used += 1
        return 1 << (used - 1)

    def add(part: Tree, before: int, behind: int) -> None:
        match part.operator:
            case None:
                transitions.append(Transition(part.activity, before, behind))
            case "sequence":
                edges = [before, *(place() for _ in part.parts[1:]), behind]
                for i, child in enumerate(part.parts):
                    add(child, edges[i], edges[i + 1])
            case "choice":
                for child in part.parts:
                    add(child, before, behind)
            case "parallel":
                begins = [place() for _ in part.parts]
                finishes = [place() for _ in part.parts]
                transitions.append(Transition(None, before, reduce(or_, begins)))
                transitions.append(Transition(None, reduce(or_, finishes), behind))
                for child, begin, finish in zip(part.parts, begins, finishes, strict=True):
                    add(child, begin, finish)
            case "loop":
                begin, finish = place(), place()
                transitions.append(Transition(None, before, begin))
                transitions.append(Transition(None, finish, behind))
                add(part.parts[0], begin, finish)
                for child in part.parts[1:]:
                    add(child, finish, begin)
            case "flower":
                middle = place()
                transitions.append(Transition(None, before, middle))
                transitions.append(Transition(None, middle, behind))
                for child in part.parts:
                    add(child, middle, middle)

    source, sink = place(), place()
    add(tree, source, sink)
    return _without_hand_overs(transitions, source, sink)


def _without_hand_overs(transitions: list[Transition], source: int, sink: int) -> Net:
    """Two places become one where a silent transition only hands the token of the first on to the second.

    That is so when nothing else takes from the first, or nothing else puts on the second. Silent markings that mean the
    same are then the same, which is what the frequencies are counted by.
    """
    while True:
        hand_over = next((t for t in transitions if _hands_over(t, transitions, source, sink)), None)
        if hand_over is None:
            return Net(list(dict.fromkeys(transitions)), source, sink)
        old, new = hand_over.takes, hand_over.puts
        transitions = [
            Transition(t.activity, _moved(t.takes, old, new), _moved(t.puts, old, new))
            for t in transitions
            if t is not hand_over
        ]
        source = _moved(source, old, new)


def _hands_over(t: Transition, transitions: list[Transition], source: int, sink: int) -> bool:
    single = t.takes.bit_count() == 1 and t.puts.bit_count() == 1 and t.takes != t.puts
    if t.activity is not None or not single:
        return False
    takers = sum(bool(other.takes & t.takes) for other in transitions)
    makers = sum(bool(other.puts & t.puts) for other in transitions)
    return takers == 1 or (makers == 1 and t.puts not in (source, sink))


def _moved(mask: int, old: int, new: int) -> int:
    return (mask & ~old) | new if mask & old else mask
