"""Taking turns: how the methods of a comparison share a machine so that its drift hits all of them alike.

The methods of one launch are prepared side by side, each in its own process, and run in short blocks. A round gives
every method one block, in random order; the next round repeats it backwards, so that over the two a steady drift
cancels exactly. Nothing here knows of processes: a method is anything that runs on request.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

BLOCK = 0.01
"""Seconds of a block. Asking for one costs about 0.1 ms; the load of a shared machine changes over tens of
milliseconds, and blocks shorter than that see the same of it. Chosen by measurement, see docs/instrument.md."""

SAMPLE = 50e-6
"""A sample lasts at least so long: a thousand times the resolution of the clock and its cost."""

_WARM_SHARE = 0.1
_WARM_TOLERANCE = 0.05
_WARM_BLOCKS = 8


@dataclass(frozen=True)
class Block:
    """Runs of one request: seconds per run of each sample, mean CPU seconds of a run, and preemptions."""

    samples: list[float]
    cpu: float
    preempted: int = 0


class Runs(Protocol):
    """A prepared method that runs on request."""

    def run(self, count: int, runs_per_sample: int = 1) -> Block | None:
        """Take `count` samples; None when the method is out of it, having failed."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        once: the first run is all there is.
        launches: at most so many processes per method, one after another.
        budget: seconds of runs per method after warming up, over all launches.
        precision: stop once the half-widths of all intervals, relative, are no larger; None to use the budget up.
        min_samples: at least so many per method, whatever the budget.
        max_samples: at most so many per method.
    """

    once: bool = False
    launches: int = 3
    budget: float = 2.0
    precision: float | None = None
    min_samples: int = 5
    max_samples: int = 1000

    def affordable(self, setups: Sequence[float]) -> int:
        """How many launches there can be when one costs each method `setups` seconds before its turns begin.

        All the launches after the first together may cost as much again as the runs, not more.
        """
        if self.once or not setups:
            return 1
        return max(1, min(self.launches, 1 + int(self.budget / max(*setups, 1e-9))))


@dataclass(frozen=True)
class Pace:
    """The size of a method's blocks: samples, and consecutive runs per sample."""

    count: int
    runs_per_sample: int = 1


@dataclass
class Taken:
    """What one launch brought a method.

    Attributes:
        warm_up: runs between the first one and the turns.
        runs_per_sample: consecutive runs that a sample is the mean of.
        blocks: (round, block), in the order taken.
    """

    warm_up: int = 0
    runs_per_sample: int = 1
    blocks: list[tuple[int, Block]] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """How many."""
        return sum(len(block.samples) for _, block in self.blocks)


def orders(count: int, rng: random.Random) -> Iterator[list[int]]:
    """Orders of `count` methods, one per round: a random one, then the same backwards."""
    while True:
        order = list(range(count))
        rng.shuffle(order)
        yield order
        yield order[::-1]


def take(methods: Sequence[Runs], plan: Plan, launches: int, rng: random.Random) -> list[Taken]:
    """One launch's turns.

    Args:
        methods: prepared, and run once each.
        plan: how long to measure.
        launches: over how many launches the plan is spread.
        rng: for the order within rounds.

    Returns:
        What each method has to show, in the order of `methods`.
    """
    taken = [Taken() for _ in methods]
    share = plan.budget / launches
    least = max(1, math.ceil(plan.min_samples / launches))
    most = max(1, plan.max_samples // launches)
    sequence = orders(len(methods), rng)
    # The first round is one run each, and another where the first took long, which may have been chance. Where runs are
    # so long that there are only a few, they count.
    seconds, probes = _probe(methods, next(sequence))
    if seconds and max(seconds.values()) > share / 4:
        again, more = _probe(methods, [i for i in next(sequence) if i in seconds])
        seconds = {i: min(each, seconds[i]) for i, each in again.items()}
        probes = {i: [*probes[i], *each] for i, each in more.items()}
    if not seconds:
        return taken
    counts = max(seconds.values()) > share / 4
    for i, first in list(seconds.items()):
        if counts:
            taken[i].blocks += enumerate(probes[i])
            continue
        warmed = _warm_up(methods[i], first, share * _WARM_SHARE)
        if warmed is None:
            del seconds[i]
        else:
            seconds[i], taken[i].warm_up = warmed[0], warmed[1] + 1
    if not seconds:
        return taken
    rounds, paces = schedule(list(seconds.values()), share, least, most)
    pace = dict(zip(seconds, paces, strict=True))
    if counts:
        pace = {i: Pace(each.count) for i, each in pace.items()}
    for i in pace:
        taken[i].runs_per_sample = pace[i].runs_per_sample
    for index, order in zip(range(2 if counts else 0, rounds), sequence, strict=False):
        for i in [i for i in order if i in pace]:
            block = methods[i].run(pace[i].count, pace[i].runs_per_sample)
            if block is None:
                del pace[i]
            else:
                taken[i].blocks.append((index, block))
    return taken


def _probe(methods: Sequence[Runs], order: Sequence[int]) -> tuple[dict[int, float], dict[int, list[Block]]]:
    """One run of each method: its seconds, and the block; without those that failed."""
    blocks = {i: block for i in order if (block := methods[i].run(1)) is not None}
    return {i: block.samples[0] for i, block in blocks.items()}, {i: [block] for i, block in blocks.items()}


def schedule(seconds: Sequence[float], share: float, least: int, most: int) -> tuple[int, list[Pace]]:
    """How many rounds a launch has, and how large each method's blocks are.

    Args:
        seconds: of one warm run of each method.
        share: seconds of runs for each method in this launch.
        least, most: samples of each method in this launch.

    Returns:
        Rounds, an even number unless one round is all there is to take, and one pace per method. A slow method's
        block is a single run; a fast one fills its block, so that all spend about the same time on a round.
    """
    slowest = max(seconds)
    rounds = max(1, round(share / max(BLOCK, slowest)))
    if slowest > BLOCK:
        rounds = max(rounds, least)
    rounds = min(rounds, most)
    if rounds > 1:
        rounds += rounds % 2
    block = min(max(BLOCK, share / rounds), 20 * BLOCK)
    paces = []
    for each in seconds:
        each = max(each, 1e-9)
        inner = max(1, math.ceil(SAMPLE / each))
        count = max(1, math.ceil(least / rounds), int(block / (each * inner)))
        paces.append(Pace(min(count, max(1, most // rounds)), inner))
    return rounds, paces


def _warm_up(method: Runs, seconds: float, budget: float) -> tuple[float, int] | None:
    """Run until two blocks in succession agree, or the budget is used up.

    Returns:
        Seconds of a warm run, and how many runs it took; None when the method failed.
    """
    runs, spent, before = 0, seconds, math.inf
    for _ in range(_WARM_BLOCKS):
        count = max(1, min(1000, int(BLOCK / max(seconds, 1e-9))))
        block = method.run(count)
        if block is None:
            return None
        runs += count
        spent += sum(block.samples)
        seconds = statistics.median(block.samples)
        if spent >= budget or abs(seconds - before) <= _WARM_TOLERANCE * before:
            break
        before = seconds
    return seconds, runs
