"""Measures contenders side by side: their processes, their turns, and what came of them.

A seat is one contender's place in a comparison: a method of a suite, or the same method in two revisions. Only one
seat works at a time. What goes wrong in one costs that one its place and disturbs no other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from harness.launch import Failed, Nursery, Worker
from harness.measure.statistics import log_differences, relative_half_width
from harness.measure.turns import Block, Plan, Taken, take
from harness.record import Blocks, Latency, Launch, Memory, SeriesRecord, Status

_SPARE = 1.2
"""A method may need this much more memory than the largest so far; if that is not free, none is prepared beside it."""


@dataclass
class Seat:
    """One contender, with what is known of it.

    Attributes:
        name: for messages.
        nursery: where its processes come from.
        request: what a worker is asked to load; see `harness.worker.Worker.load`.
        time_limit: seconds for everything, over all its processes, its waiting not counted.
        memory_limit: bytes of host memory.
        phase: told what it does next.
        flush: whether the device's cache is flushed between samples.
        status, reason, log: how it went so far.
        seconds: how long it has worked.
        setup: seconds from the start of its first process to the end of its first run there.
        launches, taken: what each of its processes brought.
        clock: see `harness.measure.clock`.
    """

    name: str
    nursery: Nursery
    request: Mapping[str, Any]
    time_limit: float
    memory_limit: int
    phase: Callable[[str], None] = lambda name: None
    flush: bool = False
    status: Status = "ok"
    reason: str | None = None
    log: str | None = None
    seconds: float = 0.0
    setup: float = 0.0
    amount: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    series: dict[str, SeriesRecord] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    launches: list[Launch] = field(default_factory=list)
    first: Block | None = None
    taken: list[tuple[int, Taken]] = field(default_factory=list)
    stopped: str = "once"
    clock: str = "host"
    _worker: Worker | None = None
    _children: int = 0

    @property
    def active(self) -> bool:
        """Whether it is still in."""
        return self.status == "ok"

    def launch(self, measure: bool, cpus: Sequence[int], layout: int | None = None) -> None:
        """Start a process and take it through load, prepare and its first run.

        Args:
            measure: also score the output of that run; done in the first process.
            cpus: the processors it may use.
            layout: seed of where things lie in its memory; the same for all seats of a launch.
        """
        began = time.monotonic()
        with self._working():
            self._worker = self.nursery.launch()
            self._worker.memory_limit = self.memory_limit
            self.phase("loading")
            loaded = self._ask("load", **{**self.request, "cpus": list(cpus), "layout": layout})
            self.amount = loaded["amount"]
            self.phase("preparing")
            prepare = float(self._ask("prepare")["seconds"])
            self._children = self._worker.look_at_children()
            self.phase("running")
            first = self._ask("run", count=1, first=True, keep=measure)
            self._worker.look_at_children()
            self.launches.append(Launch(first=first["samples"][0], prepare=prepare))
            self._peaks()
            self.setup = max(self.setup, time.monotonic() - began)
            if measure:
                self.first = Block(first["samples"], first["cpu"], first["preempted"])
                self.clock = first["clock"]
                self.phase("measuring")
                measured = self._ask("measure")
                self.metrics = measured["metrics"]
                self.series = {k: SeriesRecord(**v) for k, v in measured["series"].items()}

    def run(self, count: int, runs_per_sample: int = 1) -> Block | None:
        """See `harness.measure.turns.Runs`."""
        with self._working():
            answer = self._ask("run", count=count, runs_per_sample=runs_per_sample, flush=self.flush)
            return Block(answer["samples"], answer["cpu"], answer["preempted"])
        return None

    def rest(self) -> None:
        """Take down what its turns in this launch needed, and end its process."""
        if self.active and self._worker is not None:
            with self._working():
                self._worker.look_at_children()
                self._peaks()
        self.end()

    def end(self) -> None:
        """End its process, if it has one."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def latency(self) -> Latency | None:
        """What its clocks read in all launches; None when it never ran."""
        if self.first is None:
            return None
        cold = self.launches[0].first
        blocks = [(launch, index, block) for launch, taken in self.taken for index, block in taken.blocks]
        if not blocks:
            return Latency(
                samples=self.first.samples, first=cold, cpu=self.first.cpu, clock=self.clock, stopped=self.stopped,
                preempted=self.first.preempted,
            )  # fmt: skip
        samples = [s for _, _, block in blocks for s in block.samples]
        return Latency(
            samples=samples,
            first=cold,
            cpu=sum(block.cpu * len(block.samples) for _, _, block in blocks) / len(samples),
            clock=self.clock,
            stopped=self.stopped,
            runs_per_sample=max(taken.runs_per_sample for _, taken in self.taken),
            blocks=Blocks(
                launch=[launch for launch, _, _ in blocks],
                round=[index for _, index, _ in blocks],
                size=[len(block.samples) for _, _, block in blocks],
            ),
            preempted=sum(block.preempted for _, _, block in blocks),
        )

    def _peaks(self) -> None:
        """Keep the peaks of the present process, and of the first one as the record's memory."""
        assert self._worker is not None
        found = Memory(**self._ask("peaks"))
        if (started := self._worker.children_peak) and found.peak is not None and found.run is not None:
            # Processes that the method started; those that were there before the runs are not theirs.
            more = max(0, started - self._children)
            found = found.model_copy(update={"peak": found.peak + started, "run": found.run + more})
        self.launches[-1] = self.launches[-1].model_copy(
            update={"peak": found.peak, "run": found.run, "device": found.device}
        )
        if len(self.launches) == 1:
            self.memory = self.launches[0].as_memory(found.device_reserved)

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        assert self._worker is not None
        self._worker.deadline = time.monotonic() + max(0.0, self.time_limit - self.seconds)
        began = time.monotonic()
        try:
            return self._worker.ask(verb, **arguments)
        finally:
            self.seconds += time.monotonic() - began

    @contextmanager
    def _working(self) -> Iterator[None]:
        """A failure in here ends the seat's part and nobody else's."""
        try:
            yield
        except Failed as failure:
            self.status, self.reason, self.log = failure.status, failure.reason, failure.log or None
            self.end()


@dataclass(frozen=True)
class Conditions:
    """Under which the seats were measured.

    Attributes:
        side_by_side: whether they were prepared together and took turns.
        why: what kept them from it, or from more launches; None when nothing did.
        threads: that each may use.
        cpus: processors that they may use.
    """

    side_by_side: bool
    why: str | None
    threads: int
    cpus: list[int]


def measure(
    seats: Sequence[Seat], plan: Plan, *, cpus: Sequence[int], threads: int, rng: random.Random
) -> Conditions:
    """Take all seats through a comparison, and leave in each what came of it.

    Args:
        seats: the contenders.
        plan: how long to measure.
        cpus: the processors that methods may use.
        threads: how many each may use. With fewer than there are processors, each launch holds all its methods to
            the same ones, chosen at random: what else those are doing then hits all methods alike.
        rng: for orders and processors.
    """
    if plan.once:
        for seat in seats:
            seat.launch(True, choose(cpus, threads, rng))
            seat.end()
        return Conditions(False, "runs too long to repeat are run once", threads, list(cpus))
    try:
        why = _together(seats, plan, cpus, threads, rng)
        return Conditions(len(seats) > 1, why, threads, list(cpus))
    except _DoesNotFit as error:
        for seat in seats:
            if seat.launches or not seat.active:
                _forget(seat)
        for seat in seats:
            _together([seat], plan, cpus, threads, rng)
        return Conditions(False, str(error), threads, list(cpus))
    finally:
        for seat in seats:
            seat.end()


def turns(seats: Sequence[Seat], plan: Plan, launch: int, launches: int, rng: random.Random) -> None:
    """Let seats whose processes are ready take their turns in one launch, and end those processes."""
    active = [seat for seat in seats if seat.active]
    for seat in active:
        seat.phase("running")
    for seat, taken in zip(active, take(active, plan, launches, rng), strict=True):
        if seat.active:
            seat.taken.append((launch, taken))
    for seat in active:
        seat.rest()


class _DoesNotFit(Exception):
    """The methods of a comparison need more memory together than there is."""


def _together(
    seats: Sequence[Seat], plan: Plan, cpus: Sequence[int], threads: int, rng: random.Random
) -> str | None:
    """Launch after launch of all seats. Returns why there were fewer launches than planned, if that is so."""
    launches, launch, why = plan.launches, 0, None
    while launch < launches:
        chosen, layout = choose(cpus, threads, rng), rng.getrandbits(32)
        for i in rng.sample(range(len(seats)), len(seats)) if launch else range(len(seats)):
            if not seats[i].active:
                continue
            _room(seats)
            seats[i].launch(launch == 0, chosen, layout)
        if launch == 0:
            launches = plan.affordable([seat.setup for seat in seats if seat.active])
            if launches < plan.launches:
                why = f"preparing takes too long for more than {launches} of {plan.launches} launches"
        turns(seats, plan, launch, launches, rng)
        launch += 1
        stopped = _stopped(seats, plan)
        if stopped or launch == launches:
            for seat in seats:
                seat.stopped = stopped or _used_up(seat, plan)
        if stopped:
            break
    return why


def choose(cpus: Sequence[int], threads: int, rng: random.Random) -> list[int]:
    """The processors that all methods of a launch are held to: as many as threads, at random."""
    return sorted(rng.sample(list(cpus), min(threads, len(cpus))))


def _room(seats: Sequence[Seat]) -> None:
    """Check that one more method can be prepared beside those that are."""
    largest = max((seat.memory.peak or 0 for seat in seats), default=0)
    here = any(seat.active and seat._worker is not None for seat in seats)
    free = psutil.virtual_memory().available
    if here and largest * _SPARE > free:
        raise _DoesNotFit(
            f"measured one after another: {free >> 20} MiB were free beside the methods already prepared, and one"
            f" of them needs {largest >> 20} MiB"
        )


def _forget(seat: Seat) -> None:
    """Begin again with a seat whose process was ended for want of memory, whoever used it up."""
    seat.end()
    seat.status, seat.reason, seat.log, seat.first = "ok", None, None, None
    seat.launches, seat.taken, seat.memory = [], [], Memory()


def _stopped(seats: Sequence[Seat], plan: Plan) -> str | None:
    """ "precision" when all intervals are narrow enough, None to go on."""
    running = [seat for seat in seats if seat.active]
    if plan.precision is None or not running:
        return None
    figures = [latency for seat in running if (latency := seat.latency()) is not None]
    widths = [relative_half_width(log_differences([each])[0]) for each in figures]
    widths += [relative_half_width(d) for d in log_differences(figures)[1:]]
    return "precision" if all(width is not None and width <= plan.precision for width in widths) else None


def _used_up(seat: Seat, plan: Plan) -> str:
    samples = sum(taken.samples for _, taken in seat.taken)
    return "max-samples" if samples >= 0.9 * plan.max_samples else "budget"
