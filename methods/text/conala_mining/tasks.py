"""Ranking the snippets of answer pages by how well they answer, and cutting the snippets out of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# At the top, so that the processes of all methods have it from the one that they are forked from.
from sklearn.model_selection import KFold

from harness.errors import BadOutput, RequestError
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import derive, rng
from harness.types import NonNegativeInt, PositiveInt
from methods.text.conala_mining import ranking, selection
from methods.text.conala_mining.extraction import agreement
from methods.text.conala_mining.pages import Page, labels, pages_of

Scores = Sequence[np.ndarray]
"""One array of scores per tested page, a score per candidate."""
WANTED_PRECISION = 0.4
"""At which the questions with a mined snippet are counted."""


@dataclass(frozen=True)
class Mining:
    """The work: pages to learn from and pages whose candidates are ranked.

    Attributes:
        training: pages with labels to learn from.
        training_labels: bool [candidates] for each of them.
        pages: pages to rank.
        splits: pairs of numbers of training pages and of pages that are ranked by what was learnt from those.
    """

    training: tuple[Page, ...]
    training_labels: tuple[np.ndarray, ...]
    pages: tuple[Page, ...]
    splits: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def tested(self) -> list[int]:
        """The numbers of the pages that are ranked, in order; the output has an array for each."""
        return sorted(page for _, test in self.splits for page in test)


@task(
    "snippet-mining",
    amount_unit="candidates",
    data=("conala",),
    metrics=(
        Metric("average_precision", doc="Area under the precision-recall curve of the pooled ranking."),
        Metric("roc_auc", doc="Area under the ROC curve."),
        Metric("max_f1", doc="Greatest F1 of any threshold."),
        Metric("precision_10", doc="Precision at recall 0.1."),
        Metric("precision_30", doc="Precision at recall 0.3."),
        Metric("precision_50", doc="Precision at recall 0.5."),
        Metric("precision_70", doc="Precision at recall 0.7."),
        Metric("all_precision", better="neither", doc="Precision of taking all whole blocks."),
        Metric("all_recall", better="neither", doc="Recall of taking all whole blocks."),
        Metric("accept_precision", better="neither", doc="Precision of accepted answers' only blocks."),
        Metric("accept_recall", better="neither", doc="Recall of accepted answers' only blocks."),
        Metric("precision_at_all", doc="Precision at the recall of all whole blocks."),
        Metric("precision_at_accept", doc="Precision at the recall of accepted answers' only blocks."),
        Metric("recall_at_all", doc="Recall at the precision of all whole blocks."),
        Metric("recall_at_accept", doc="Recall at the precision of accepted answers' only blocks."),
        Metric("covered", doc="Share of questions with a candidate above the threshold of precision 0.4."),
        Metric("accept_covered", better="neither", doc="Share with a single accepted block."),
        Metric("base_rate", better="neither", doc="Share of the candidates that are right."),
        Metric("candidates", better="neither", doc="Ranked candidates."),
    ),
)
class SnippetMining(Task[Mining, Scores]):
    """Rank the candidate snippets of questions by the probability that they answer them.

    A candidate is right if it equals an annotated snippet but for white space. Splits are by question: the candidates
    of a page share text and z-scores, so that splitting candidates would leak.
    """

    language: Literal["python", "java", "made-up"] = "python"
    """Whose pages are ranked: 110 Python or 100 Java questions of the replication data, or made-up ones."""
    train_language: Literal["same", "python", "java"] = "same"
    """Whose pages are learnt from: the same, in folds, or all of another language."""
    questions: NonNegativeInt = 0
    """How many pages are taken, drawn at random; 0 for all."""
    folds: PositiveInt = 5
    """Parts of the cross-validation by question."""
    labelled: NonNegativeInt = 0
    """Learn from this many pages and rank `held_out` others, instead of folds; 0 for folds."""
    held_out: PositiveInt = 25
    """Pages to rank where `labelled` is given."""
    shuffled_labels: bool = False
    """Whether the labels to learn from are shuffled: a control that must find nothing."""
    relaxed: bool = False
    """Whether a candidate also counts that equals a gold snippet without its outer print, target or return."""

    def load(self, seed: int) -> Mining:
        """The pages, split by `seed`."""
        pages = pages_of(self.language, seed)
        if self.questions:
            kept = sorted(rng(seed, "questions").permutation(len(pages))[: self.questions].tolist())
            pages = [pages[i] for i in kept]
        if self.train_language in ("same", self.language):
            training, splits = pages, self._splits(len(pages), seed)
        else:
            training = pages_of(self.train_language, seed)  # type: ignore[arg-type]
            splits = [(tuple(range(len(training))), tuple(range(len(pages))))]
        truth = [labels(page, relaxed=self.relaxed) for page in training]
        if self.shuffled_labels:
            pooled = rng(seed, "shuffled labels").permutation(np.concatenate(truth))
            truth = np.split(pooled, np.cumsum([len(t) for t in truth])[:-1])
        return Mining(tuple(training), tuple(truth), tuple(pages), tuple(splits))

    def _splits(self, pages: int, seed: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        if self.labelled:
            if self.labelled + self.held_out > pages:
                raise RequestError(
                    f"{self.labelled} labelled and {self.held_out} held-out pages are more than the {pages} there are",
                    field="labelled",
                )
            order = rng(seed, "held out").permutation(pages).tolist()
            held = order[: self.held_out]
            return [(tuple(sorted(order[self.held_out :][: self.labelled])), tuple(sorted(held)))]
        if not 2 <= self.folds <= pages:
            raise RequestError(f"{self.folds} folds of {pages} pages: take from 2 to {pages}", field="folds")
        folds = KFold(self.folds, shuffle=True, random_state=derive(seed, "folds") % 2**32)
        return [(tuple(a.tolist()), tuple(b.tolist())) for a, b in folds.split(np.arange(pages))]

    def score(self, work: Mining, output: Scores) -> Measurement:
        """Precision and recall of the pooled ranking, beside the two heuristics on the same pages."""
        pages = [work.pages[i] for i in work.tested]
        sizes = [len(page.candidates) for page in pages]
        if [len(scores) for scores in output] != sizes:
            raise BadOutput(f"there is a score for each of the {sum(sizes)} candidates of {len(pages)} pages")
        pooled = np.concatenate(output).astype(np.float64)
        if not np.isfinite(pooled).all():
            raise BadOutput("a score is not finite")
        right = np.concatenate([labels(page, relaxed=self.relaxed) for page in pages])
        curve = ranking.curve(pooled, right)
        all_precision, all_recall = ranking.point(
            np.concatenate([selection.all_blocks(p) for p in pages]), right
        )
        accepted = np.concatenate([selection.accept_only(p) for p in pages])
        accept_precision, accept_recall = ranking.point(accepted, right)
        threshold = curve.threshold_at(WANTED_PRECISION)
        metrics = {
            "average_precision": curve.average_precision,
            "roc_auc": ranking.area_under_roc(pooled, right),
            "max_f1": curve.max_f1,
            **{f"precision_{r}": curve.precision_at(r / 100) for r in (10, 30, 50, 70)},
            "all_precision": all_precision,
            "all_recall": all_recall,
            "accept_precision": accept_precision,
            "accept_recall": accept_recall,
            "precision_at_all": curve.precision_at(all_recall),
            "precision_at_accept": curve.precision_at(accept_recall),
            "recall_at_all": curve.recall_at(all_precision),
            "recall_at_accept": curve.recall_at(accept_precision),
            "covered": float(np.mean([bool((s >= threshold).any()) for s in output])),
            "accept_covered": float(np.mean([selection.has_single_accepted_block(p) for p in pages])),
            "base_rate": float(right.mean()),
            "candidates": float(len(right)),
        }
        thinned = slice(None, None, max(1, len(curve.recall) // 200))
        series = Series(
            curve.recall[thinned].tolist(), curve.precision[thinned].tolist(), "recall", "precision"
        )
        return Measurement(metrics, {"precision_recall": series})

    def amount(self, work: Mining) -> float:
        """Ranked candidates."""
        return float(sum(len(work.pages[i].candidates) for i in work.tested))


@task(
    "snippet-extraction",
    amount_unit="blocks",
    data=("conala",),
    metrics=(
        Metric("released_found", doc="Share of the released candidates that are cut out."),
        Metric("found_released", doc="Share of what is cut out that is a released candidate."),
        Metric("gold_found", doc="Share of the gold snippets that are cut out."),
        Metric("per_block", better="neither", doc="Candidates of a block."),
    ),
)
class SnippetExtraction(Task[tuple[Page, ...], list[list[str]]]):
    """Cut the candidates out of the code blocks of pages; compared without white space to the released ones."""

    language: Literal["java", "made-up"] = "java"
    """Whose pages: the Java questions, or made-up ones whose code is Python."""
    questions: NonNegativeInt = 0
    """How many pages are taken, drawn at random; 0 for all."""

    def load(self, seed: int) -> tuple[Page, ...]:
        """The pages."""
        pages = pages_of(self.language, seed)
        kept = rng(seed, "questions").permutation(len(pages))[: self.questions or len(pages)]
        return tuple(pages[i] for i in sorted(kept.tolist()))

    def score(self, work: tuple[Page, ...], output: list[list[str]]) -> dict[str, float]:
        """Agreement with the released candidates, pooled over pages."""
        if len(output) != len(work):
            raise BadOutput(f"there is a list of candidates for each of the {len(work)} pages")
        both, ours, theirs = np.sum([agreement(p, c) for p, c in zip(work, output, strict=True)], axis=0)
        gold = [
            agreement(Page(p.question, p.language, p.intents, p.gold, p.gold), c)
            for p, c in zip(work, output, strict=True)
        ]
        found, _, wanted = np.sum(gold, axis=0)
        return {
            "released_found": float(both / max(1, theirs)),
            "found_released": float(both / max(1, ours)),
            "gold_found": float(found / max(1, wanted)),
            "per_block": float(sum(map(len, output)) / max(1, self.amount(work))),
        }

    def amount(self, work: tuple[Page, ...]) -> float:
        """Blocks."""
        return float(sum(len(page.blocks) for page in work))
