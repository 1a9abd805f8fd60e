"""Measures pairs, base against head, taking turns in launch after launch.

The gate goes through its pairs in several passes, each with processes forked from freshly started interpreters, so that
a pair is measured at several times and no pass shares its luck with another. Within a pass a pair gets as many launches
as its time allows; in each launch both sides are prepared side by side on the same randomly chosen processors and
alternate in
blocks of milliseconds (`harness.measure.turns`).
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness import comparing, environment, measuring, profile
from harness.catalog import Catalog
from harness.gate.sides import Pair
from harness.gate.trees import Tree
from harness.launch import Nursery
from harness.measure.statistics import log_differences
from harness.measure.turns import Plan
from harness.measuring import Seat

PASSES = 3
LAUNCH = 0.1
"""Seconds of runs that each side has in one launch. Launches are what spreads, so that many short ones say most."""

LEAST = 8
"""Launches that a pair gets in a stage even when they take longer than its time, up to a multiple of it: fewer cannot
tell anything from chance."""

STRETCH = 3.0
"""That multiple, in the screening."""

PATIENCE = 60.0
"""Seconds that a pair may take for launches without which nothing could be said, however little time it was given."""

_SAMPLES = 2000


@dataclass
class Stage:
    """What one stage (screening or confirmation) brought a pair.

    Attributes:
        base, head: the seats; None before it is measured.
        scores: (seed, metrics of base, metrics of head), each time both were scored.
        seconds: of machine time.
    """

    base: Seat | None = None
    head: Seat | None = None
    scores: list[tuple[int, dict[str, float], dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def launches(self) -> int:
        """Launches that both sides got through."""
        if self.base is None or self.head is None:
            return 0
        return min(len(self.base.launches), len(self.head.launches))

    def differences(self) -> list[float]:
        """Log latency of head less base, per launch."""
        base, head = self.base, self.head
        if base is None or head is None or not (base.active and head.active):
            return []
        if not base.taken:
            ends = zip(base.launches, head.launches, strict=False)
            return [math.log(h.first) - math.log(b.first) for b, h in ends]
        left, right = base.latency(), head.latency()
        if left is None or right is None:
            return []
        return [float(d) for d in log_differences([left, right])[1]]

    def peaks(self, name: str) -> list[tuple[int, int]]:
        """Peaks of memory in bytes, base and head, per launch; empty where they were not measured."""
        if self.base is None or self.head is None:
            return []
        ends = zip(self.base.launches, self.head.launches, strict=False)
        both = [(getattr(b, name), getattr(h, name)) for b, h in ends]
        return [(b, h) for b, h in both if b is not None and h is not None]


@dataclass
class Rounds:
    """Carries out the stages of a gate.

    Args:
        base, head: the two trees.
        place: name of the profile.
        rng: for orders and processors.
        tell: told the pass and the pair that is measured, and how many there are.
    """

    base: Tree
    head: Tree
    place: str
    rng: random.Random = field(default_factory=random.Random)
    tell: Callable[[str, int, int], None] = lambda text, done, of: None
    fixed_addresses: bool = True
    """Whether all interpreters so far lay where the system puts them unless it is told to randomise."""

    def measure(
        self,
        pairs: Sequence[Pair],
        seconds: Callable[[Pair], float],
        *,
        what: str,
        passes: int = PASSES,
        settled: Callable[[Pair, Stage], bool] = lambda pair, stage: False,
        least: Sequence[int] = (),
        stretch: float = STRETCH,
        needed: int = 0,
        score_always: bool = False,
    ) -> list[Stage]:
        """One stage of all `pairs`.

        Args:
            pairs: what to measure.
            seconds: machine time for a pair.
            what: name of the stage, for the display.
            passes: how often to go through the pairs.
            settled: asked after each pass; what is settled is not measured further.
            least: launches of each pair that `LEAST` speaks of, where it is not `LEAST`.
            stretch: see `STRETCH`.
            needed: launches that `PATIENCE` speaks of.
            score_always: whether outputs are scored in every launch, and not twice per seed and pass.
        """
        stages = [Stage() for _ in pairs]
        for index in range(passes):
            left = [
                i for i, stage in enumerate(stages) if index == 0 or self._goes_on(pairs[i], stage, settled)
            ]
            if not left:
                break
            with self._nurseries([pairs[i] for i in left]) as nurseries:
                for done, i in enumerate(self.rng.sample(left, len(left))):
                    self.tell(
                        f"{what}, pass {index + 1} of {passes}: {pairs[i].contestant.label}", done, len(left)
                    )
                    share = seconds(pairs[i]) / passes
                    limits = [
                        (math.inf, share),
                        (math.ceil((least[i] if least else LEAST) / passes), stretch * share),
                        (math.ceil(needed / passes), PATIENCE / passes),
                    ]
                    self._pass(pairs[i], stages[i], nurseries, limits, score_always)
        return stages

    def _goes_on(self, pair: Pair, stage: Stage, settled: Callable[[Pair, Stage], bool]) -> bool:
        assert stage.base is not None
        assert stage.head is not None
        return stage.base.active and stage.head.active and not settled(pair, stage)

    def _pass(
        self,
        pair: Pair,
        stage: Stage,
        nurseries: tuple[Nursery, Nursery],
        limits: Sequence[tuple[float, float]],
        score_always: bool,
    ) -> None:
        """One pass over a pair. It goes on while a limit's launches are not reached and its seconds not used up."""
        if stage.base is None or stage.head is None:
            stage.base = self._seat(self.base.catalog, pair.base[0], pair.base_contestant, nurseries[0])
            stage.head = self._seat(self.head.catalog, pair.head[0], pair.contestant, nurseries[1])
        else:
            stage.base.nursery, stage.head.nursery = nurseries
        began = time.monotonic()
        scored: Counter[int] = Counter()
        launches = 0
        while stage.base.active and stage.head.active:
            self._launch(pair, stage, Counter() if score_always else scored)
            launches += 1
            spent = time.monotonic() - began
            each = spent / launches
            if all(launches >= fewest or spent + each > seconds for fewest, seconds in limits):
                break
        stage.seconds += time.monotonic() - began

    def _launch(self, pair: Pair, stage: Stage, scored: Counter[int]) -> None:
        assert stage.base is not None
        assert stage.head is not None
        number = stage.launches
        which = number % len(pair.head)
        seed = pair.head[which].seed
        score = scored[seed] < 2  # twice, to see whether there is chance in it
        comparison = pair.comparison
        chosen = measuring.choose(environment.cpus(), threads_of(pair, self.place), self.rng)
        layout = self.rng.getrandbits(32)
        seats = [stage.base, stage.head]
        self.rng.shuffle(seats)
        for seat in seats:
            seat.request = {**seat.request, "seed": seed}
            seat.launch(score, chosen, layout)
            if comparison.repeats == "once":
                seat.end()
        if score and stage.base.active and stage.head.active:
            scored[seed] += 1
            stage.scores.append((seed, stage.base.metrics, stage.head.metrics))
        if comparison.repeats != "once":
            measuring.turns(
                seats, Plan(budget=LAUNCH, min_samples=2, max_samples=_SAMPLES), number, 1, self.rng
            )

    def _seat(self, catalog: Catalog, comparison: Any, contestant: Any, nursery: Nursery) -> Seat:
        threads = comparison.threads or (1 if profile.get(self.place).device == "cpu" else None)
        return comparing.seat_for(catalog, comparison, contestant, nursery, threads)

    @contextmanager
    def _nurseries(self, pairs: Sequence[Pair]) -> Iterator[tuple[Nursery, Nursery]]:
        """Fresh interpreters of both sides, started at the same time."""
        wanted = [(pair.comparison, pair.contestant) for pair in pairs]
        # Or one side would have the faster interpreter and dictionaries for a whole pass.
        luck = self.rng.getrandbits(32)
        nurseries: list[Nursery] = []
        try:
            for tree in (self.base, self.head):
                nurseries.append(
                    comparing.nursery_for(tree.catalog, wanted, tree.python, wait=False, luck=luck)
                )
            for nursery in nurseries:
                nursery.ready()
                self.fixed_addresses &= nursery.fixed_addresses
            yield nurseries[0], nurseries[1]
        finally:
            for nursery in nurseries:
                nursery.close()


def threads_of(pair: Pair, place: str) -> int:
    """Threads that a pair's methods may use: one on a host unless the suite says otherwise."""
    if pair.comparison.threads is not None:
        return pair.comparison.threads
    return 1 if profile.get(place).device == "cpu" else environment.threads()
