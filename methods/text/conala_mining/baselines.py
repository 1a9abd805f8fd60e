"""The heuristics of earlier work, a random ranking, and a cheap model of correspondence."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import PositiveInt
from methods.text.conala_mining import scorers, selection
from methods.text.conala_mining.method import Classifier
from methods.text.conala_mining.pages import Page
from methods.text.conala_mining.tasks import Mining, Scores


@method("all-blocks", task="snippet-mining")
class AllBlocks(Method[Mining, Scores]):
    """Every whole code block of the page: one point of precision and recall."""

    def prepare(self, work: Mining) -> None:
        """Keep the pages."""
        self.pages = [work.pages[i] for i in work.tested]

    def run(self) -> Scores:
        """1 for what is taken, 0 for the rest."""
        return [selection.all_blocks(page).astype(np.float64) for page in self.pages]


@method("accept-only", task="snippet-mining")
class AcceptOnly(Method[Mining, Scores]):
    """The block of the accepted answer where it has exactly one; nothing where blocks are unknown."""

    def prepare(self, work: Mining) -> None:
        """Keep the pages."""
        self.pages = [work.pages[i] for i in work.tested]

    def run(self) -> Scores:
        """1 for what is taken, 0 for the rest."""
        return [selection.accept_only(page).astype(np.float64) for page in self.pages]


@method("random-ranking", task="snippet-mining")
class RandomRanking(Method[Mining, Scores]):
    """A random order: the base rate at every recall."""

    def prepare(self, work: Mining) -> None:
        """Draw the scores."""
        draw = self.context.rng("random ranking")
        self.scores = [draw.random(len(work.pages[i].candidates)) for i in work.tested]

    def run(self) -> Scores:
        """The drawn scores."""
        return self.scores


@method(
    "mining-ibm-model",
    task="snippet-mining",
    metrics=(
        Metric("released_agreement", doc="Spearman's with the released likelihoods in a page; 0 without any."),
    ),
)
class MiningIbmModel(Classifier):
    """The paper's classifier with likelihoods of IBM model 1 in both directions in place of the neural models."""

    corpus: Literal["annotated", "mined", "java-names", "made-up"] = "annotated"
    """What it is trained on, without the ranked questions; for Java pages, annotated Python is a transfer."""
    iterations: PositiveInt = 10
    """Of expectation maximisation."""
    agreement = 0.0

    def likelihoods_of(self, pages: tuple[Page, ...]) -> list[Any]:
        """Train both directions and score every candidate."""
        pairs = scorers.training_pairs(self.corpus, pages, self.context.derive("pairs"))
        found = scorers.by_ibm_model(pages, pairs, self.iterations)
        self.agreement = scorers.agreement(found, pages)
        return found

    def measure(self, output: Scores) -> Measurement:
        """The score and the agreement with the released likelihoods."""
        scored = as_measurement(self.task.score(self.work, output))
        return scored | {"released_agreement": self.agreement}
