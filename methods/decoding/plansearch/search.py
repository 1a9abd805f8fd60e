"""PlanSearch and its baselines over any pair of models: ideas are searched for in words before code is written.

An idea model makes observations about a problem and turns sets of them into sketches; a code model turns a sketch into
a program. Both are asked in batches: one call for a layer of the tree over all problems. Everything that the algorithm
decides is here; `language.py` is both models as one or two language models, `proposals.py` as small networks for
programs over lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, TypeVar

import numpy as np

Problem = TypeVar("Problem")
Node = tuple[Hashable, ...]
"""A combination of observations, in the order in which they were made; the root is the empty one."""


@dataclass(frozen=True)
class Grounds:
    """What a program is written from, beside the problem.

    Attributes:
        observations: a node of the tree.
        sketch: a solution in words, None for none.
        pseudocode: None for none.
    """

    observations: Node = ()
    sketch: Any = None
    pseudocode: Any = None


class IdeaModel(ABC, Generic[Problem]):
    """Observations and sketches. All arguments of a call have one entry for each answer."""

    @abstractmethod
    def observe(
        self, problems: Sequence[Problem], given: Sequence[Node], count: int
    ) -> Sequence[Sequence[Hashable]]:
        """About `count` observations for each problem, derived from those that are given."""

    @abstractmethod
    def sketch(self, problems: Sequence[Problem], nodes: Sequence[Node]) -> Sequence[Any]:
        """A solution in words for each problem, from a node's observations; from an empty node a free idea."""

    def fix(self, problems: Sequence[Problem], nodes: Sequence[Node], sketches: Sequence[Any]) -> Sequence[Any]:
        """A second sketch for each first one: what it becomes once it is criticised as wrong and mended."""
        raise NotImplementedError(f"{type(self).__name__} does not criticise sketches")

    def content(self, node: Node) -> Hashable:
        """What makes two nodes one."""
        return frozenset(node)


class CodeModel(ABC, Generic[Problem]):
    """Pseudocode and programs."""

    @abstractmethod
    def code(self, problems: Sequence[Problem], grounds: Sequence[Grounds]) -> Sequence[Any]:
        """A program for each problem."""

    def pseudocode(self, problems: Sequence[Problem], grounds: Sequence[Grounds]) -> Sequence[Any]:
        """Pseudocode for each problem."""
        raise NotImplementedError(f"{type(self).__name__} writes no pseudocode")


@dataclass(frozen=True)
class Tree:
    """The switches of PlanSearch.

    Attributes:
        observations: n1, asked for at every node that is expanded; more than these are cut off.
        subset: S, most observations of a combination.
        layers: L. With none the root is the only node.
        sketch: write a solution in words first; without it programs come straight from the observations.
        fix: a second sketch for each node, mended after criticism.
        pseudocode: write pseudocode before the program.

    Raises:
        ValueError: a sketch is to be mended, but there is none.
    """

    observations: int = 10
    subset: int = 2
    layers: int = 2
    sketch: bool = True
    fix: bool = True
    pseudocode: bool = True

    def __post_init__(self) -> None:
        if self.fix and not self.sketch:
            raise ValueError("without a sketch there is nothing to mend: set 'fix: false' with 'sketch: false'")

    @property
    def programs(self) -> int:
        """Programs for each node."""
        return 1 + self.fix


def subsets(observations: Sequence[Hashable], most: int) -> list[Node]:
    """All combinations of at most `most` observations, the empty one first."""
    sizes = range(min(most, len(observations)) + 1)
    return [node for size in sizes for node in combinations(observations, size)]


def grow(idea: IdeaModel[Problem], problems: Sequence[Problem], tree: Tree) -> list[list[Node]]:
    """The distinct nodes of every problem's tree: of all layers together, the root first.

    A layer's nodes are combinations of observations that were made from one node of the layer before, and hold nothing
    of that node itself.
    """
    root: dict[Hashable, Node] = {idea.content(()): ()}
    found, frontier = [dict(root) for _ in problems], [dict(root) for _ in problems]
    for _ in range(tree.layers):
        asked = [(place, node) for place, nodes in enumerate(frontier) for node in nodes.values()]
        answers = idea.observe(
            [problems[place] for place, _ in asked], [node for _, node in asked], tree.observations
        )
        frontier = [{} for _ in problems]
        for (place, _), made in zip(asked, answers, strict=True):
            for node in subsets(list(dict.fromkeys(made))[: tree.observations], tree.subset):
                frontier[place].setdefault(idea.content(node), node)
        for nodes, fresh in zip(found, frontier, strict=True):
            for content, node in fresh.items():
                nodes.setdefault(content, node)
    return [list(nodes.values()) for nodes in found]


def plan_search(
    idea: IdeaModel[Problem],
    code: CodeModel[Problem],
    problems: Sequence[Problem],
    count: int,
    tree: Tree,
    rng: np.random.Generator,
) -> list[list[Any]]:
    """PlanSearch: `count` programs for each problem, from the nodes of its tree."""
    return write(idea, code, problems, grow(idea, problems, tree), count, tree, rng)


def write(
    idea: IdeaModel[Problem],
    code: CodeModel[Problem],
    problems: Sequence[Problem],
    nodes: Sequence[Sequence[Node]],
    count: int,
    tree: Tree,
    rng: np.random.Generator,
) -> list[list[Any]]:
    """`count` programs for each problem: those of its nodes in random order, from the first again when it has fewer.

    Programs that would be thrown away are not written: the random order is drawn before the sketches, which gives the
    same law, because programs do not depend on each other once the nodes are known.
    """
    chosen: list[list[tuple[int, int]]] = []  # for each problem: node, and first or second sketch
    for found in nodes:
        order = rng.permutation(len(found) * tree.programs)[:count]
        chosen.append([divmod(int(slot), tree.programs) for slot in order])
    slots = [(place, node, second) for place, slots in enumerate(chosen) for node, second in slots]
    sketches = _sketches(idea, problems, nodes, slots, tree)
    asked = [problems[place] for place, _, _ in slots]
    grounds = [
        Grounds(nodes[place][node], sketches.get((place, node, second))) for place, node, second in slots
    ]
    if tree.pseudocode:
        written = code.pseudocode(asked, grounds)
        grounds = [
            Grounds(one.observations, one.sketch, text) for one, text in zip(grounds, written, strict=True)
        ]
    programs = iter(code.code(asked, grounds))
    found_programs = [[next(programs) for _ in slots] for slots in chosen]
    return [[own[number % len(own)] for number in range(count)] for own in found_programs]


def _sketches(
    idea: IdeaModel[Problem],
    problems: Sequence[Problem],
    nodes: Sequence[Sequence[Node]],
    slots: Sequence[tuple[int, int, int]],
    tree: Tree,
) -> dict[tuple[int, int, int], Any]:
    """The sketches of the slots; the first and the second of a node share the first."""
    if not tree.sketch:
        return {}
    places = list(dict.fromkeys((place, node) for place, node, _ in slots))
    firsts = idea.sketch([problems[place] for place, _ in places], [nodes[p][n] for p, n in places])
    sketches = {(*place, 0): sketch for place, sketch in zip(places, firsts, strict=True)}
    mended = [(place, node) for place, node, second in slots if second]
    if mended:
        seconds = idea.fix(
            [problems[place] for place, _ in mended],
            [nodes[p][n] for p, n in mended],
            [sketches[p, n, 0] for p, n in mended],
        )
        sketches |= {(*place, 1): sketch for place, sketch in zip(mended, seconds, strict=True)}
    return sketches


def repeated_sampling(code: CodeModel[Problem], problems: Sequence[Problem], count: int) -> list[list[Any]]:
    """`count` independent programs for each problem, without ideas."""
    asked = _repeat(problems, count)
    return _split(code.code(asked, [Grounds()] * len(asked)), count)


def idea_search(
    idea: IdeaModel[Problem], code: CodeModel[Problem], problems: Sequence[Problem], count: int
) -> list[list[Any]]:
    """`count` independent pairs of a sketch and a program for each problem."""
    asked = _repeat(problems, count)
    sketches = idea.sketch(asked, [()] * len(asked))
    return _split(code.code(asked, [Grounds(sketch=sketch) for sketch in sketches]), count)


def _repeat(problems: Sequence[Problem], count: int) -> list[Problem]:
    return [problem for problem in problems for _ in range(count)]


def _split(programs: Sequence[Any], count: int) -> list[list[Any]]:
    return [list(programs[start : start + count]) for start in range(0, len(programs), count)]
