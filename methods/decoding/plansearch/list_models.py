"""The proposal net as the idea model and the code model of a search over list programs.

An observation is a set of operations: what it was derived from and one more. The content of a node is the union of its
observations, which is the plan that its program is written from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from methods.decoding.plansearch.proposals import Proposals
from methods.decoding.plansearch.search import CodeModel, Grounds, IdeaModel, Node

Plan = frozenset[int]


def plan_of(node: Node) -> Plan:
    """The union of a node's observations."""
    return frozenset().union(*cast(tuple[Plan, ...], node))


class ListIdeas(IdeaModel[int]):
    """Observations by the observation head; a sketch is a plan. Problems are places in the list of tasks."""

    def __init__(self, proposals: Proposals) -> None:
        self.proposals = proposals

    def observe(self, problems: Sequence[int], given: Sequence[Node], count: int) -> list[list[Plan]]:
        """`count` operations that are likely beside those given, each together with them."""
        plans = [plan_of(node) for node in given]
        found = self.proposals.observations(problems, plans, count)
        return [[plan | {kind} for kind in kinds] for plan, kinds in zip(plans, found, strict=True)]

    def sketch(self, problems: Sequence[int], nodes: Sequence[Node]) -> list[Plan]:
        """A node's plan; without observations a plan of the model's own."""
        free = [problem for problem, node in zip(problems, nodes, strict=True) if not node]
        drawn = iter(self.proposals.plans(free) if free else [])
        return [plan_of(node) if node else next(drawn) for node in nodes]

    def content(self, node: Node) -> Plan:
        """Nodes with one plan are one."""
        return plan_of(node)


class ListCoder(CodeModel[int]):
    """Programs by the decoder, from a sketch or else from the observations themselves."""

    def __init__(self, proposals: Proposals) -> None:
        self.proposals = proposals

    def code(self, problems: Sequence[int], grounds: Sequence[Grounds]) -> list[tuple[int, ...]]:
        """A program for each."""
        plans = [one.sketch if one.sketch is not None else plan_of(one.observations) for one in grounds]
        return self.proposals.programs(problems, plans)
