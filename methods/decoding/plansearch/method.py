"""PlanSearch over list programs and over Python programs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.method import Measurement, Method, Metric, method
from harness.types import NonNegativeInt, PositiveInt
from methods.decoding.plansearch.generation import PythonSearch
from methods.decoding.plansearch.list_models import ListCoder, ListIdeas
from methods.decoding.plansearch.list_programs import Program
from methods.decoding.plansearch.list_search import ListSearch
from methods.decoding.plansearch.proposals import Proposals, load
from methods.decoding.plansearch.search import (
    Tree,
    grow,
    idea_search,
    plan_search,
    repeated_sampling,
    write,
)
from methods.decoding.plansearch.tasks import Cell, ListWork, Written


@method("plansearch", task="list-programs")
class PlanSearchLists(ListSearch):
    """Combinations of observations, and of observations derived from them, each turned into one program.

    An observation is an operation that a program may use; a plan is the set of those of a node and of what they were
    derived from. The net writes neither pseudocode nor criticism, so there is one program for each plan.
    """

    observations: PositiveInt = 6
    """n1, at every node that is expanded."""
    subset: NonNegativeInt = 2
    """S, most observations of a combination."""
    layers: NonNegativeInt = 2
    """L."""
    sketch: bool = True
    """Let the net choose a plan of its own where a node has no observations; without it there is none."""
    chances: Literal["calibrated", "tempered"] = "calibrated"  # type: ignore[misc]
    """Ideas are drawn from the head's probabilities as they are, or at the temperature of the programs."""

    def search(self, proposals: Proposals, count: int, rng: np.random.Generator) -> list[list[Program]]:
        """Grow the tree and write its programs."""
        tree = Tree(self.observations, self.subset, self.layers, self.sketch, fix=False, pseudocode=False)
        problems = range(len(self.work.tasks))
        return plan_search(ListIdeas(proposals), ListCoder(proposals), problems, count, tree, rng)


@method("diversity-gain", task="list-program-cells")
class DiversityGain(Method[ListWork, dict[Cell, list[list[Program]]]]):
    """Repeated sampling, IdeaSearch and PlanSearch at several temperatures."""

    observations: PositiveInt = 6
    """n1 of PlanSearch."""
    subset: NonNegativeInt = 2
    """S."""
    layers: NonNegativeInt = 2
    """L."""

    def prepare(self, work: ListWork) -> None:
        """Load the net, or train it."""
        self.net = load(work.net, self.context.cache)

    def run(self) -> dict[Cell, list[list[Program]]]:
        """All programs of all cells."""
        work, found = self.work, dict[Cell, list[list[Program]]]()
        problems, count = range(len(work.tasks)), work.samples
        tree = Tree(self.observations, self.subset, self.layers, fix=False, pseudocode=False)
        temperatures: tuple[float, ...] = self.task.temperatures  # type: ignore[attr-defined]
        for t in temperatures:
            seed = self.context.derive("programs", str(t))
            proposals = Proposals(self.net, work.tasks, t, "calibrated", seed)
            idea, code = ListIdeas(proposals), ListCoder(proposals)
            rng = self.context.rng("order of programs", str(t))
            found[Cell("repeated-sampling", t)] = repeated_sampling(code, problems, count)
            found[Cell("idea-search", t)] = idea_search(idea, code, problems, count)
            found[Cell("plansearch", t)] = plan_search(idea, code, problems, count, tree, rng)
        return found


@method(
    "plansearch-generation",
    task="python-problems",
    metrics=[
        Metric("diversity", "", "higher", "Share of the pairs of programs that do not have the same idea."),
        Metric("nodes", "", "neither", "Distinct combinations of observations of a problem, the mean."),
        Metric(
            "unparsed", "", "lower", "Share of the lists of observations that could not be read in three tries."
        ),
    ],
    runs_generated_code=True,
)
class PlanSearchPython(PythonSearch):
    """Observations about a problem, combined; a solution in words from each combination, criticised and mended; code."""

    observations: PositiveInt = 10
    """n1, asked for at every node that is expanded."""
    subset: NonNegativeInt = 2
    """S, most observations of a combination."""
    layers: NonNegativeInt = 2
    """L, times that observations are derived."""
    sketch: bool = True
    """Write a solution in words first; without it code comes from the observations."""
    fix: bool = True
    """Criticise each sketch as wrong, and write code from the mended one too. Needs `sketch`."""
    pseudocode: bool = True
    """Write pseudocode before code."""

    def search(self, count: int, rng: np.random.Generator) -> list[list[str]]:
        """Grow the trees of all problems and write their programs."""
        tree = Tree(self.observations, self.subset, self.layers, self.sketch, self.fix, self.pseudocode)
        problems = self.work.problems
        nodes = grow(self.ideas, problems, tree)
        self.nodes = float(np.mean([len(own) for own in nodes]))
        return write(self.ideas, self.coder, problems, nodes, count, tree, rng)

    def measure(self, output: Written) -> Measurement:
        """What every search over Python problems measures, and how its trees grew."""
        asked = self.ideas.lists + self.ideas.unparsed
        share = self.ideas.unparsed / asked if asked else 0.0
        return super().measure(output) | {"nodes": self.nodes, "unparsed": share}
