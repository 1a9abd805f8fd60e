"""What PlanSearch is compared with: repeated sampling, IdeaSearch, and a chain of thought before the program."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from harness.method import Metric, method
from methods.decoding.plansearch.generation import PythonSearch
from methods.decoding.plansearch.list_models import ListCoder, ListIdeas
from methods.decoding.plansearch.list_programs import Program
from methods.decoding.plansearch.list_search import ListSearch
from methods.decoding.plansearch.proposals import Proposals
from methods.decoding.plansearch.search import idea_search, repeated_sampling


@method("repeated-sampling", task="list-programs")
class RepeatedSamplingLists(ListSearch):
    """Independent programs with an empty plan."""

    def search(self, proposals: Proposals, count: int, rng: np.random.Generator) -> list[list[Program]]:
        """Draw programs."""
        return repeated_sampling(ListCoder(proposals), range(len(self.work.tasks)), count)


@method("idea-search", task="list-programs")
class IdeaSearchLists(ListSearch):
    """Independent pairs of a plan, drawn from the observation head, and a program."""

    chances: Literal["calibrated", "tempered"] = "calibrated"  # type: ignore[misc]
    """Ideas are drawn from the head's probabilities as they are, or at the temperature of the programs."""

    def search(self, proposals: Proposals, count: int, rng: np.random.Generator) -> list[list[Program]]:
        """Draw plans and programs."""
        return idea_search(ListIdeas(proposals), ListCoder(proposals), range(len(self.work.tasks)), count)


@method(
    "repeated-sampling-generation",
    task="python-problems",
    metrics=[
        Metric("diversity", "", "higher", "Share of the pairs of programs that do not have the same idea.")
    ],
    runs_generated_code=True,
)
class RepeatedSamplingPython(PythonSearch):
    """Independent programs from the problem alone."""

    def search(self, count: int, rng: np.random.Generator) -> list[list[str]]:
        """Ask for programs."""
        return repeated_sampling(self.coder, self.work.problems, count)


@method(
    "chain-of-thought-generation",
    task="python-problems",
    metrics=[
        Metric("diversity", "", "higher", "Share of the pairs of programs that do not have the same idea.")
    ],
    runs_generated_code=True,
)
class ChainOfThoughtPython(RepeatedSamplingPython):
    """Independent programs, each after reasoning in the same reply."""

    thinking: ClassVar[bool] = True


@method(
    "idea-search-generation",
    task="python-problems",
    metrics=[
        Metric("diversity", "", "higher", "Share of the pairs of programs that do not have the same idea.")
    ],
    runs_generated_code=True,
)
class IdeaSearchPython(PythonSearch):
    """Independent pairs of a solution in words and a program."""

    def search(self, count: int, rng: np.random.Generator) -> list[list[str]]:
        """Ask for solutions in words, then for programs."""
        return idea_search(self.ideas, self.coder, self.work.problems, count)
