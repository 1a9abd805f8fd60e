"""How often a method runs, and in which order the methods of a comparison do.

This is the simplest correct plan: one method after another, a warm-up until the first run's cost is paid, then runs in
blocks until the time budget is used up. A plan asks a worker for blocks of runs and knows nothing of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.record import Latency

_BLOCK = 0.1
"""Seconds that a block of runs should take, so that asking for it costs nothing beside it."""


@dataclass(frozen=True)
class Block:
    """Runs of one request: seconds of each, and mean CPU seconds of a run."""

    samples: list[float]
    cpu: float


class Runs(Protocol):
    """A prepared method that runs on request."""

    def run(self, count: int) -> Block:
        """Run `count` times."""
        ...


@dataclass(frozen=True)
class Plan:
    """When to stop.

    Attributes:
        once: the first run is all there is.
        budget: seconds of runs after the warm-up.
        min_samples: at least so many runs, whatever the budget.
        max_samples: at most so many.
    """

    once: bool = False
    budget: float = 2.0
    min_samples: int = 5
    max_samples: int = 1000


def sample(method: Runs, first: Block, plan: Plan, clock: str) -> Latency:
    """Latency of `method` after its first run.

    Args:
        method: runs on request.
        first: the first run after prepare, which stands apart: it pays for caches and lazy set-up.
        plan: when to stop.
        clock: name of the clock behind the samples.
    """
    cold = first.samples[0]
    if plan.once:
        return Latency(samples=first.samples, first=cold, cpu=first.cpu, clock=clock, stopped="once")
    warm = method.run(1)
    size = _size(warm.samples[0], plan)
    spent = 0.0
    samples: list[float] = []
    cpu = 0.0
    while len(samples) < plan.max_samples and (spent < plan.budget or len(samples) < plan.min_samples):
        block = method.run(min(size, plan.max_samples - len(samples)))
        samples += block.samples
        cpu += block.cpu * len(block.samples)
        spent += sum(block.samples)
        size = _size(sum(block.samples) / len(block.samples), plan)
    stopped = "max-samples" if len(samples) >= plan.max_samples else "budget"
    return Latency(samples=samples, first=cold, cpu=cpu / len(samples), clock=clock, stopped=stopped)


def _size(seconds: float, plan: Plan) -> int:
    return max(1, min(int(_BLOCK / max(seconds, 1e-9)), plan.max_samples))
