"""The tasks: show by examples what is new in data that nobody may see, and rank that data by how new it is."""

from __future__ import annotations

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.types import PositiveInt
from methods.decoding.contrastive_generation.judge import Judge, area, coverage
from methods.decoding.contrastive_generation.mixture import Mixture, Problem

PRIVACY = Metric("privacy", "", "higher", "1 / epsilon at delta = 1 / documents; 0 without privacy.", True)


def privacy(problem: Problem) -> float:
    """1 / epsilon of the fine-tuning; 0 where it is not private."""
    from methods.decoding.contrastive_generation.training import epsilon

    return 1 / epsilon(problem.recipe, len(problem.documents)) if problem.recipe.private else 0.0


@task(
    "novelty-exploration",
    metrics=(
        Metric("novel_rate", "", "higher", "Share of the texts in a novel domain, by the judge."),
        Metric("domains", "", "higher", "Novel domains with at least three texts."),
        Metric(
            "entropy",
            "nats",
            "higher",
            "Of the law of the domains among the novel texts; 0 where there is none.",
        ),
        Metric("similarity", "", "lower", "Mean cosine of the tf-idf vectors of two texts."),
        Metric("judge_accuracy", "", "higher", "Of the judge, on documents that it has not seen."),
        PRIVACY,
    ),
    repeats="once",
    amount_unit="texts",
    data=("wikitext-2", "conala", "gutenberg-novels", "java-cs-translation"),
)
class NoveltyExploration(Mixture, Task[Problem, list[str]]):
    """Generate texts that show what is new in fine-tuning data, from a model before and after alone.

    Methods get the two models and none of the documents.
    """

    texts: PositiveInt = 100
    """Texts to generate."""

    def load(self, seed: int) -> Problem:
        """Documents and recipe; methods train or load the models when they prepare."""
        return self.problem(seed)

    def amount(self, work: Problem) -> float:
        """Texts to generate."""
        return float(self.texts)

    def score(self, work: Problem, output: list[str]) -> Measurement:
        """What the judge finds in the texts.

        Raises:
            BadOutput: the wrong number of texts.
        """
        if len(output) != self.texts:
            raise BadOutput(f"{len(output)} texts were generated, {self.texts} were asked for")
        judge = Judge(work.judging)
        found = judge.domains(output)
        metrics = coverage(found, list(work.novel)) | {
            "similarity": judge.similarity(output),
            "judge_accuracy": judge.accuracy,
            "privacy": privacy(work),
        }
        counted = [coverage(found[: place + 1], list(work.novel))["domains"] for place in range(len(found))]
        numbers = [float(place + 1) for place in range(len(found))]
        return Measurement(metrics, {"domains": Series(numbers, counted, "texts", "novel domains found")})


@task(
    "novelty-detection",
    metrics=(
        Metric("auc", "", "higher", "Area under the ROC of novel against familiar documents."),
        Metric(
            "worst_auc",
            "",
            "higher",
            "The smallest of the areas of one novel domain against familiar documents.",
        ),
        PRIVACY,
    ),
    amount_unit="documents",
    repeats="once",
    data=("wikitext-2", "conala", "gutenberg-novels", "java-cs-translation"),
)
class NoveltyDetection(Mixture, Task[Problem, np.ndarray]):
    """Score the fine-tuning documents so that novel ones come before familiar ones."""

    def load(self, seed: int) -> Problem:
        """Documents and recipe; methods train or load the models when they prepare."""
        return self.problem(seed)

    def amount(self, work: Problem) -> float:
        """Documents to score."""
        return float(len(work.documents))

    def score(self, work: Problem, output: np.ndarray) -> Measurement:
        """Areas under the ROC, and those of the domains as a series in the order of `novel`.

        Raises:
            BadOutput: the wrong number of scores, one that is not finite, or documents of one kind only.
        """
        labels = work.labels
        if output.shape != labels.shape:
            raise BadOutput(f"{output.shape} scores for {len(labels)} documents")
        pooled = area(output, labels >= 0)
        each = []
        for number in range(len(work.novel)):
            these = (labels == number) | (labels < 0)
            each.append(area(output[these], labels[these] >= 0))
        numbers = [float(number) for number in range(len(each))]
        series = Series(numbers, each, ", ".join(work.novel), "area under the ROC")
        return Measurement({"auc": pooled, "worst_auc": min(each), "privacy": privacy(work)}, {"auc": series})
