"""Trees without a model."""

from __future__ import annotations

from collections import Counter

from harness.method import Method, method
from methods.text.ast_probe.tasks import Snippets
from methods.text.ast_probe.trees import EMPTY, TreeTuple


@method("right-branching", task="ast-recovery")
class RightBranching(Method[Snippets, list[TreeTuple]]):
    """Every split is after the first token of what is left; every split has the training snippets' commonest label."""

    def prepare(self, work: Snippets) -> None:
        """Count the labels."""
        tuples = [work.tuples[place] for place in work.training]
        self.label = Counter(x for each in tuples for x in each.c if x != EMPTY).most_common(1)[0][0]
        self.unary = Counter(x for each in tuples for x in each.u).most_common(1)[0][0]

    def run(self) -> list[TreeTuple]:
        """Heights that fall from left to right."""
        return [
            TreeTuple(tuple(range(n - 1, 0, -1)), (self.label,) * (n - 1), (self.unary,) * n)
            for n in (len(self.work.pool[place].tokens) for place in self.work.test)
        ]


@method("tuple-chance", task="ast-recovery")
class TupleChance(Method[Snippets, list[TreeTuple]]):
    """Random heights, and labels as often as the training snippets have them."""

    def prepare(self, work: Snippets) -> None:
        """Collect the labels."""
        tuples = [work.tuples[place] for place in work.training]
        self.labels = [x for each in tuples for x in each.c]
        self.unary = [x for each in tuples for x in each.u]

    def run(self) -> list[TreeTuple]:
        """Draw each number and each label by itself."""
        rng = self.context.rng("chance")
        found = []
        for place in self.work.test:
            n = len(self.work.pool[place].tokens)
            c, u = rng.integers(len(self.labels), size=n - 1), rng.integers(len(self.unary), size=n)
            found.append(
                TreeTuple(
                    tuple(rng.random(n - 1).tolist()),
                    tuple(self.labels[x] for x in c.tolist()),
                    tuple(self.unary[x] for x in u.tolist()),
                )
            )
        return found
