"""The search: regularised evolution from a warm start, a funnel of larger proxies, simplification.

Paper, sections 2.2 to 2.4. Scores are losses: lower is better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from methods.training.lion.mutation import Mutator
from methods.training.lion.programs import (
    Program,
    functional_hash,
    is_valid,
    without_dead_statements,
)
from methods.training.lion.proxies import Proxy


@dataclass
class Scores:
    """Scores on one proxy, kept by functional hash so that the same computation is trained once.

    Attributes:
        proxy: where programs are scored.
        asked: number of scores asked for; ``len(known)`` of them were computed.
        known: by hash.
        programs: one program of each hash.
    """

    proxy: Proxy
    asked: int = 0
    known: dict[str, float] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)

    def __call__(self, program: Program, digest: str) -> float:
        """The score of a program with the given hash."""
        self.asked += 1
        if digest not in self.known:
            self.known[digest] = self.proxy.score(program)
            self.programs[digest] = program
        return self.known[digest]

    def best(self, count: int) -> list[tuple[Program, float]]:
        """The programs with the lowest finite scores, best first, and the scores."""
        order = sorted((score, digest) for digest, score in self.known.items() if math.isfinite(score))
        return [(self.programs[digest], score) for score, digest in order[:count]]


@dataclass(frozen=True)
class Individual:
    """A program of the population."""

    program: Program
    digest: str
    score: float


def regularised_evolution(
    start: Program,
    scores: Scores,
    mutate: Mutator,
    random: np.random.Generator,
    *,
    candidates: int,
    population: int,
    tournament: int,
) -> None:
    """Evolve from a population of copies of `start`; what was found is in `scores`.

    Each child is a mutant of the best of `tournament` individuals drawn from the population, and takes the
    place of the oldest one, however good that is (Real et al. 2019).

    Args:
        candidates: number of children.
    """
    digest = functional_hash(start)
    first = Individual(start, digest, scores(start, digest))
    alive = deque([first] * population)
    for _ in range(candidates):
        drawn = random.integers(population, size=tournament)
        parent = min((alive[i] for i in drawn), key=lambda individual: individual.score)
        child, child_digest = mutate(parent.program, parent.digest)
        alive.append(Individual(child, child_digest, scores(child, child_digest)))
        alive.popleft()


def evolve_with_restarts(
    start: Program,
    scores: Scores,
    mutate: Mutator,
    random: np.random.Generator,
    *,
    candidates: int,
    population: int,
    tournament: int,
    restarts: int,
    restart_from: Literal["start", "best"],
) -> None:
    """`regularised_evolution` again and again, against premature convergence; `candidates` is the total."""
    for share in np.array_split(np.arange(candidates), restarts + 1):
        found = scores.best(1) if restart_from == "best" else []
        regularised_evolution(
            found[0][0] if found else start,
            scores,
            mutate,
            random,
            candidates=len(share),
            population=population,
            tournament=tournament,
        )


def random_search(
    start: Program,
    scores: Scores,
    mutate: Mutator,
    random: np.random.Generator,
    *,
    candidates: int,
    depth: float,
) -> None:
    """Score `candidates` programs, each `depth` mutations from `start` on average (geometric)."""
    first = functional_hash(start)
    scores(start, first)
    for _ in range(candidates):
        program, digest = start, first
        for _ in range(random.geometric(1.0 / depth)):
            program, digest = mutate(program, digest)
        scores(program, digest)


def funnel(candidates: Sequence[Program], start: Program, stages: Sequence[Proxy]) -> tuple[Program, list[int]]:
    """Meta-validation: re-score on larger and larger proxies those that beat `start`, half as many each time.

    Args:
        candidates: best first.
        start: what has to be beaten.
        stages: proxies, smallest first.

    Returns:
        The best of the last stage, or `start` when none beats it there; and how many entered each stage.
    """
    entered = []
    survivors = list(candidates)
    for stage in stages:
        entered.append(len(survivors))
        scored = [(stage.score(program), i) for i, program in enumerate(survivors)]
        bar = stage.score(start)
        better = [survivors[i] for score, i in sorted(scored) if score < bar]
        survivors = better[: max(1, math.ceil(len(survivors) / 2))]
    return (survivors[0] if survivors else start), entered


def simplify(program: Program, proxy: Proxy, tolerance: float) -> Program:
    """Delete statements while the loss stays within `tolerance` nats of what it was.

    Statements without effect on any update go first and cost nothing; then every statement is tried, the last
    first, until none can go.
    """
    program = without_dead_statements(program)
    allowed = proxy.score(program) + tolerance
    shorter: Program | None = program
    while shorter is not None:
        program = without_dead_statements(shorter)
        shorter = next(
            (s for s in _one_less(program) if is_valid(s) and proxy.score(s) <= allowed),
            None,
        )
    return program


def _one_less(program: Program) -> Iterator[Program]:
    """The program without one of its statements, the last one first."""
    for place in reversed(range(len(program))):
        yield Program(program.statements[:place] + program.statements[place + 1 :])
