"""Contrastive generative exploration: static, iterative, its variants, and the contrastive score for detection."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from harness.errors import RequestError
from harness.method import Measurement, Method, Metric, method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.contrastive_generation.exploring import LIKELIHOOD, Contrastive, Exploration
from methods.decoding.contrastive_generation.mixture import Problem

RISE = Metric(
    "familiar_rise", "nats", "lower", "What a token of held-out familiar text costs the updated model more."
)


class Referenced(Contrastive):
    """A contrast whose reference is p_0 itself, or an n-gram model of what p_0 writes."""

    reference_kind: Literal["model", "ngram"] = "model"
    """``ngram``: an n-gram model in place of p_0."""
    ngram_order: PositiveInt = 4
    """n of the n-gram model."""
    ngram_texts: PositiveInt = 300
    """Texts sampled from p_0 that it counts."""

    def prepare(self, work: Problem) -> None:
        """Both models, and the n-gram model where it is asked for."""
        super().prepare(work)
        self.contrasted = self.reference
        if self.reference_kind == "ngram":
            from methods.decoding.contrastive_generation.contrast import Contrast
            from methods.decoding.contrastive_generation.generation import best_of
            from methods.decoding.contrastive_generation.reference import NgramModel

            device, first = self.context.device, self.reference
            streams = [
                self.context.torch_generator("n-gram text", k, device=device) for k in range(self.ngram_texts)
            ]
            plain = Contrast(first, first, gamma=0.0, alpha=0.0)
            rows = best_of(plain, 1, work.recipe.length, streams).tolist()
            self.contrasted = NgramModel(first, [[first.start, *row] for row in rows], self.ngram_order)


@method("static-cge", task="novelty-exploration", metrics=[LIKELIHOOD])
class StaticCge(Referenced):
    """Contrast p_1 with p_0 anew for every text; the texts differ by their noise alone."""

    batch: PositiveInt = 25
    """Texts generated side by side; changes them by rounding at most."""

    def run(self) -> list[str]:
        """Generate all texts."""
        rows = self.written(
            self.texts, self.batch, gamma=self.gamma, alpha=self.alpha, decoding=self.decoding, beams=self.beams,
            reference=self.contrasted,
        )  # fmt: skip
        return [self.tuned.decode(row) for row in rows]


@method("iterative-cge", task="novelty-exploration", metrics=[LIKELIHOOD, RISE])
class IterativeCge(Referenced):
    """Contrast p_1 with p^(k-1), then let p^(k-1) learn the text: what has been shown is no longer new.

    p^(0) is p_0. With ``update: unlearning`` p_0 stays and p_1 is taken away from the text by gradient ascent instead.
    """

    rate: NonNegativeFloat = 5e-5
    """Learning rate of the updates (AdamW); at 0 the texts are those of static-cge."""
    steps: PositiveInt = 1
    """Steps on each text; for an n-gram model how often it is counted."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient of an update."""
    update: Literal["reference", "unlearning"] = "reference"
    """Which model moves."""

    def run(self) -> list[str]:
        """Generate and learn text by text, from copies of the models that `prepare` made."""
        from methods.decoding.contrastive_generation.contrast import Contrast
        from methods.decoding.contrastive_generation.generation import generate
        from methods.decoding.contrastive_generation.reference import NgramModel
        from methods.decoding.contrastive_generation.training import Learner

        unlearning = self.update == "unlearning"
        moving = (self.tuned if unlearning else self.contrasted).copy()
        contrast = Contrast(
            moving if unlearning else self.tuned,
            self.contrasted if unlearning else moving,
            self.gamma,
            self.alpha,
        )
        counted = isinstance(moving, NgramModel)
        learn = moving.learn if counted else Learner(moving, self.rate, self.clip, ascend=unlearning).learn
        texts: list[str] = []
        for number in range(self.texts):
            streams = self.streams(range(number, number + 1))
            length = self.work.recipe.length
            row = generate(contrast, self.decoding, self.beams, length, streams)[0].tolist()
            texts.append(self.tuned.decode(row))
            learn([moving.start, *row], self.steps)
        self.moved = moving
        return texts

    def measure(self, output: list[str]) -> Measurement:
        """Also how much worse the updated model has become on familiar text: past a nat or so it is destroyed."""
        from methods.decoding.contrastive_generation.models import mean_log_probability, rows_of

        before = self.tuned if self.update == "unlearning" else self.contrasted
        rows = rows_of(self.tuned, self.work.held_out, self.work.recipe.length)
        rise = mean_log_probability(before, rows).mean() - mean_log_probability(self.moved, rows).mean()
        return super().measure(output) | {"familiar_rise": float(rise)}


@method("pool-ranking", task="novelty-exploration", metrics=[LIKELIHOOD])
class PoolRanking(Exploration):
    """Choose texts from a given pool by the contrastive score s instead of generating them by it."""

    candidates: Literal["samples", "documents"] = "samples"
    """The pool: samples from p_1, or the fine-tuning documents where one has them."""
    pool: PositiveInt = 400
    """Samples in the pool."""
    gamma: NonNegativeFloat = 1.0
    """Weight of the reference in s."""
    alpha: Fraction = 0.0
    """Plausibility of the tokens of samples."""
    rate: NonNegativeFloat = 0.0
    """Learning rate of the reference's updates on the texts chosen; 0: rank once."""
    every: NonNegativeInt = 10
    """Texts chosen from one ranking before the reference learns them and ranks again; 0: all."""
    batch: PositiveInt = 100
    """Texts generated or scored side by side."""

    def prepare(self, work: Problem) -> None:
        """Both models. Raises `RequestError` where the pool is smaller than the texts asked for."""
        super().prepare(work)
        size = self.pool if self.candidates == "samples" else len(work.documents)
        if size < self.texts:
            raise RequestError(
                f"a pool of {size} candidates cannot give {self.texts} texts", hint="ask for fewer texts"
            )

    def run(self) -> list[str]:
        """Make the pool, rank it, choose; learn what was chosen and rank again."""
        from methods.decoding.contrastive_generation.contrast import contrastive_scores
        from methods.decoding.contrastive_generation.models import rows_of
        from methods.decoding.contrastive_generation.training import Learner

        if self.candidates == "documents":
            rows = rows_of(self.tuned, self.work.documents, self.work.recipe.length)
        else:
            drawn = self.written(
                self.pool, self.batch, gamma=0.0, alpha=self.alpha, decoding="best-of", beams=1
            )
            rows = [[self.tuned.start, *row] for row in drawn]
        moving = self.reference.copy()
        learner = Learner(moving, self.rate)
        few = (self.every or self.texts) if self.rate else self.texts
        chosen: list[list[int]] = []
        while len(chosen) < self.texts:
            scores = contrastive_scores(self.tuned, moving, rows, self.gamma, self.batch)
            best = scores.argsort(descending=True)[: min(few, self.texts - len(chosen))].tolist()
            fresh = [rows[place] for place in best]
            chosen += fresh
            taken = set(best)
            rows = [row for place, row in enumerate(rows) if place not in taken]
            if self.rate and len(chosen) < self.texts:
                for row in fresh:
                    learner.learn(row)
        return [self.tuned.decode(row[1:]) for row in chosen]


class Detection(Method[Problem, np.ndarray]):
    """A score of each fine-tuning document, larger for what is more likely new."""

    batch: PositiveInt = 64
    """Documents scored side by side."""

    def prepare(self, work: Problem) -> None:
        """Both models, and the documents as tokens."""
        from methods.decoding.contrastive_generation.models import rows_of
        from methods.decoding.contrastive_generation.training import models

        self.reference, self.tuned = models(work, self.context)
        self.rows: Any = rows_of(self.tuned, work.documents, work.recipe.length)


@method("contrastive-score", task="novelty-detection")
class ContrastiveScore(Detection):
    """s(x): how much more probable a token of x is for p_1 than for p_0, on average of its logarithm."""

    gamma: NonNegativeFloat = 1.0
    """Weight of p_0."""

    def run(self) -> np.ndarray:
        """s of every document."""
        from methods.decoding.contrastive_generation.contrast import contrastive_scores

        return contrastive_scores(self.tuned, self.reference, self.rows, self.gamma, self.batch).numpy()
