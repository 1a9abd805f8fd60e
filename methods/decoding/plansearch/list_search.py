"""What the searches over list programs share."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from harness.method import Method
from methods.decoding.plansearch.list_programs import Program
from methods.decoding.plansearch.proposals import Chances, Proposals, load
from methods.decoding.plansearch.tasks import ListWork, Proposed


class ListSearch(Method[ListWork, Proposed]):
    """A search with the task's net."""

    chances: ClassVar[Chances] = "calibrated"
    """What ideas are drawn from; a parameter of those searches that draw any."""

    def prepare(self, work: ListWork) -> None:
        """Load the net, or train it."""
        self.net = load(work.net, self.context.cache)

    @abstractmethod
    def search(self, proposals: Proposals, count: int, rng: np.random.Generator) -> list[list[Program]]:
        """`count` programs for each task."""

    def run(self) -> Proposed:
        """Propose programs for all tasks."""
        temperature: float = self.task.temperature  # type: ignore[attr-defined]
        seed = self.context.derive("programs")
        proposals = Proposals(self.net, self.work.tasks, temperature, self.chances, seed)
        programs = self.search(proposals, self.work.samples, self.context.rng("order of programs"))
        return Proposed(programs, proposals.symbols)
