"""What searches for optimizer programs share: candidates, then meta-validation, then simplification."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from harness.method import Measurement, Method, as_measurement
from harness.types import NonNegativeFloat, PositiveInt
from methods.training.lion.evolution import Scores, funnel, simplify
from methods.training.lion.mutation import Mutator
from methods.training.lion.programs import Program
from methods.training.lion.proxies import Proxy


@dataclass(frozen=True)
class Search:
    """Where to search, where to validate what was found, and where to judge it.

    Attributes:
        start: AdamW with the learning rate that is best on `proxy`.
        proxy: cheap; scores candidates.
        stages: larger proxies for meta-validation, smallest first.
        target: as large as the last stage, on test images and with other initial weights; for scoring only.
    """

    start: Program
    proxy: Proxy
    stages: tuple[Proxy, ...]
    target: Proxy


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        program: the optimizer.
        trained: number of trainings on the cheap proxy.
        asked: number of times that a score was asked for.
        drawn, rejected: mutants drawn, and those that abstract execution or an unchanged hash rejected.
        entered: number of programs that entered each stage of meta-validation.
    """

    program: Program
    trained: int
    asked: int
    drawn: int
    rejected: int
    entered: tuple[int, ...]


class ProgramSearch(Method[Search, Found]):
    """A search: a subclass says how candidates come about."""

    candidates: PositiveInt = 2000
    """Programs whose score is asked for."""
    longest: PositiveInt = 30
    """Statements of a program at most."""
    finalists: PositiveInt = 20
    """Programs that enter meta-validation, if so many beat the start on the cheap proxy."""
    tolerance: NonNegativeFloat = 0.0
    """Loss in nats on the last stage that simplification may cost."""

    @abstractmethod
    def candidates_of(self, scores: Scores, mutate: Mutator, random: np.random.Generator) -> None:
        """Score candidates; what was found stays in `scores`."""

    def prepare(self, work: Search) -> None:
        """Nothing is kept from one run to the next, scores included."""

    def run(self) -> Found:
        """Search, re-score the best on larger proxies, and simplify the winner."""
        work, random = self.work, self.context.rng("search")
        scores, mutate = Scores(work.proxy), Mutator(self.context.rng("mutations"), self.longest)
        self.candidates_of(scores, mutate, random)
        # Only what beats the start on the cheap proxy is worth a larger one.
        bar = work.proxy.score(work.start)
        winners = [program for program, score in scores.best(self.finalists) if score < bar]
        program, entered = funnel(winners, work.start, work.stages)
        program = simplify(program, work.stages[-1], self.tolerance)
        return Found(program, len(scores.known), scores.asked, mutate.drawn, mutate.rejected, tuple(entered))

    def measure(self, output: Found) -> Measurement:
        """The task's score and what the search spent."""
        return as_measurement(self.task.score(self.work, output)) | {
            "trained": float(output.trained),
            "cached_share": 1.0 - output.trained / output.asked,
            "rejected_share": output.rejected / output.drawn,
        }
