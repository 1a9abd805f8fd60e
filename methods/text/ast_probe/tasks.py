"""The task of the AST probe: to recover the trees of snippets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import BadOutput, RequestError
from harness.method import Metric, Task, task
from harness.seeding import rng
from harness.types import PositiveInt
from methods.text.ast_probe.corpora import Limits, pool
from methods.text.ast_probe.python_source import Snippet
from methods.text.ast_probe.trees import TreeTuple, constituents, from_tuple, membership, overlap, to_tuple


@dataclass(frozen=True)
class Snippets:
    """The work of a probe.

    Attributes:
        pool: all snippets to encode, in an order that does not depend on the seed.
        training, validation, test: places in `pool`; test trees are for the score alone.
    """

    pool: tuple[Snippet, ...]
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @cached_property
    def tuples(self) -> tuple[TreeTuple, ...]:
        """The tuples of all trees of the pool."""
        return tuple(to_tuple(snippet.tree) for snippet in self.pool)

    @cached_property
    def labels(self) -> tuple[list[str], list[str]]:
        """All labels c and u of the three parts, in alphabetical order, as the authors' code collects them."""
        used = [self.tuples[place] for place in (*self.training, *self.validation, *self.test)]
        return sorted({x for each in used for x in each.c}), sorted({x for each in used for x in each.u})


@task(
    "ast-recovery",
    repeats="once",
    amount_unit="snippets",
    data=("mbpp", "humaneval"),
    metrics=(
        Metric("f1", doc="F1 of the constituents of a snippet, mean over snippets."),
        Metric("precision", doc="Precision of the constituents, mean over snippets."),
        Metric("recall", doc="Recall of the constituents, mean over snippets."),
        Metric("f1_membership", doc="F1 as the authors' code counts constituents that occur twice."),
        Metric("exact", doc="Share of the trees that are recovered without a difference."),
        Metric("tokens", better="neither", doc="Mean tokens of a test snippet."),
        Metric("labels", better="neither", doc="Labels of common ancestors."),
        Metric("unary_labels", better="neither", doc="Unary labels of tokens."),
    ),
)
class AstRecovery(Task[Snippets, list[TreeTuple]]):
    """Recover the syntax trees of test snippets, given other snippets with their trees.

    The output has one tuple (d, c, u) for each test snippet. The tree that it stands for is compared with the true
    one by its constituents (label, first token, last token), as multisets.
    """

    corpus: str = "python-stdlib"
    """``python-stdlib`` (functions of this Python's standard library), ``mbpp``, ``humaneval``, or
    ``code-search-net/<language>`` with python, javascript or go, which needs tree-sitter."""
    test_corpus: str = ""
    """Where the test snippets come from, if from another corpus."""
    training: PositiveInt = 600
    """Snippets to learn from."""
    validation: PositiveInt = 100
    """Snippets to choose an epoch with."""
    test: PositiveInt = 150
    """Snippets whose trees are to be recovered."""
    least_tokens: PositiveInt = 8
    """Tokens of the shortest snippet; at least two."""
    most_tokens: PositiveInt = 60
    """Tokens of the longest snippet."""
    most_characters: PositiveInt = 512
    """Characters of the longest snippet, with blanks between tokens."""

    def __post_init__(self) -> None:
        """Check the limits."""
        if not 2 <= self.least_tokens <= self.most_tokens:
            raise RequestError(
                f"snippets have from 2 tokens on, not from {self.least_tokens} to {self.most_tokens}"
            )

    def load(self, seed: int) -> Snippets:
        """The snippets; the pool is always the same, the seed deals it into the parts."""
        limits = Limits(self.least_tokens, self.most_tokens, self.most_characters)
        own = self.training + self.validation + (0 if self.test_corpus else self.test)
        main = pool(self.corpus, limits, own)
        if len(main) < own:
            raise RequestError(f"{own} snippets were asked for, '{self.corpus}' has {len(main)}")
        order = rng(seed, "ast-probe", "parts").permutation(own).tolist()
        cut = self.training + self.validation
        test = order[cut:]
        if self.test_corpus:
            known = {snippet.tokens for snippet in main}
            other = [s for s in pool(self.test_corpus, limits, self.test) if s.tokens not in known]
            main, test = (*main, *other), list(range(own, own + len(other)))
        return Snippets(main, tuple(order[: self.training]), tuple(order[self.training : cut]), tuple(test))

    def score(self, work: Snippets, output: Sequence[TreeTuple]) -> dict[str, float]:
        """Means over the test snippets."""
        if len(output) != len(work.test):
            raise BadOutput(f"{len(output)} tuples for {len(work.test)} test snippets")
        rows = []
        for place, predicted in zip(work.test, output, strict=True):
            snippet = work.pool[place]
            if len(predicted.u) != len(snippet.tokens):
                raise BadOutput(f"a tuple of {len(predicted.u)} tokens for a snippet of {len(snippet.tokens)}")
            try:
                trees = from_tuple(predicted)
            except ValueError as error:
                raise BadOutput(str(error)) from error
            gold, found = constituents([snippet.tree]), constituents(trees)
            rows.append((*overlap(gold, found), membership(gold, found)[2], trees == (snippet.tree,)))
        precision, recall, f1, member, exact = np.mean(np.array(rows, float), axis=0).tolist()
        labels, unary = work.labels
        return {
            "f1": f1,
            "precision": precision,
            "recall": recall,
            "f1_membership": member,
            "exact": exact,
            "tokens": float(np.mean([len(work.pool[place].tokens) for place in work.test])),
            "labels": float(len(labels)),
            "unary_labels": float(len(unary)),
        }

    def amount(self, work: Snippets) -> float:
        """Test snippets."""
        return float(len(work.test))
