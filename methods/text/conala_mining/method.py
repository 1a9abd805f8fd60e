"""Mining aligned code and natural language from pages of answers (arXiv 1805.08949)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np

from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import NonNegativeFloat, NonNegativeInt, PositiveInt
from methods.text.conala_mining import extraction, scorers
from methods.text.conala_mining.classifier import page_features, rank
from methods.text.conala_mining.pages import Page
from methods.text.conala_mining.tasks import Mining, Scores


class Classifier(Method[Mining, Scores]):
    """Logistic regression over the features; what `likelihoods_of` gives makes the correspondence features."""

    features: Literal["all", "structure", "correspondence"] = "all"
    """Which features: where and what a snippet is, how well it translates, or both."""
    common: bool = False
    """Whether structural features are only those that both languages' data have."""
    c: NonNegativeFloat = 0.0
    """Inverse strength of the L2 penalty; 0 for the paper's, 0.1 for Python and 50 for Java."""
    training: list[np.ndarray]
    tested: list[np.ndarray]

    @abstractmethod
    def likelihoods_of(self, pages: tuple[Page, ...]) -> list[Any]:
        """For each page the likelihoods per token, float64 [candidates, 2], or None."""

    def prepare(self, work: Mining) -> None:
        """Compute the features of all candidates.

        Raises:
            RequestError: correspondence features are asked for and there are no likelihoods.
        """
        same = work.training is work.pages or work.training == work.pages
        every = work.pages if same else (*work.pages, *work.training)
        likelihoods = [None] * len(every) if self.features == "structure" else self.likelihoods_of(every)
        found = [
            page_features(page, values, self.features, common=self.common)
            for page, values in zip(every, likelihoods, strict=True)
        ]
        self.tested = found[: len(work.pages)]
        self.training = found if same else found[len(work.pages) :]

    def run(self) -> Scores:
        """Train and rank, split by split."""
        return rank(self.work, self.training, self.tested, self.c)


@method("mining-classifier", task="snippet-mining")
class MiningClassifier(Classifier):
    """The paper's classifier with the released likelihoods of its own neural models (Python and made-up pages only)."""

    def likelihoods_of(self, pages: tuple[Page, ...]) -> list[Any]:
        """The released ones."""
        return [page.likelihoods for page in pages]


@method(
    "mining-translation",
    task="snippet-mining",
    metrics=(
        Metric("released_agreement", doc="Spearman's with the released likelihoods in a page; 0 without any."),
        Metric("pairs", better="neither", doc="Pairs that the translation models are trained on."),
    ),
)
class MiningTranslation(Classifier):
    """The classifier with likelihoods of two attentional encoder-decoders that are trained here."""

    corpus: Literal["annotated", "mined", "java-names", "made-up"] = "annotated"
    """What they are trained on, without the ranked questions: annotated Python snippets, the corpus that the paper's
    authors mined, names and bodies of Java methods, or made-up pages."""
    units: PositiveInt = 256
    """Width of embeddings, states and attention."""
    epochs: PositiveInt = 10
    """Passes over the pairs."""
    least: NonNegativeInt = 2
    """Tokens that occur at most so often are unknown."""
    at_most: NonNegativeInt = 0
    """Pairs to train on at most; 0 for all."""

    def likelihoods_of(self, pages: tuple[Page, ...]) -> list[Any]:
        """Train both directions and score every candidate."""
        seed = self.context.derive("translation")
        pairs = scorers.training_pairs(self.corpus, pages, seed, self.at_most)
        self.pairs = len(pairs)
        found = scorers.by_translation(
            pages,
            pairs,
            units=self.units,
            epochs=self.epochs,
            least=self.least,
            seed=seed % 2**62,
            device=self.context.device,
        )
        self.agreement = scorers.agreement(found, pages)
        return found

    pairs = 0
    agreement = 0.0

    def measure(self, output: Scores) -> Measurement:
        """The score, the agreement with the released likelihoods and the number of training pairs."""
        scored = as_measurement(self.task.score(self.work, output))
        return scored | {"released_agreement": self.agreement, "pairs": float(self.pairs)}


@method("line-run-extraction", task="snippet-extraction", packages=("javalang>=0.13",))
class LineRunExtraction(Method[tuple[Page, ...], list[list[str]]]):
    """Every run of whole lines that, without prompts, comments and common indentation, can be parsed."""

    longest: NonNegativeInt = 0
    """Blocks of more lines give no candidates; 0 for no limit."""

    def prepare(self, work: tuple[Page, ...]) -> None:
        """Load the parser."""
        import javalang  # noqa: F401

    def run(self) -> list[list[str]]:
        """The candidates of each page, each once."""
        found = []
        for page in self.work:
            language: Literal["python", "java"] = "java" if page.language == "java" else "python"
            codes = (
                c
                for block in page.blocks
                for c in extraction.candidates(block.code, language, longest=self.longest)
            )
            found.append(list(dict.fromkeys(codes)))
        return found
