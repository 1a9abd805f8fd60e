"""What the methods of both tasks share: the two models, streams of random numbers, and figures of the texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.method import Measurement, Method, Metric
from harness.types import Fraction, NonNegativeFloat, PositiveInt
from methods.decoding.contrastive_generation.mixture import Problem

if TYPE_CHECKING:
    import torch

    from methods.decoding.contrastive_generation.generation import Decoding
    from methods.decoding.contrastive_generation.models import TextModel

LIKELIHOOD = Metric("log_probability", "nats", "higher", "Mean log p_1 of a token of the texts.")


class Exploration(Method[Problem, list[str]]):
    """Generation of texts from two models."""

    tuned: TextModel
    reference: TextModel

    def prepare(self, work: Problem) -> None:
        """Train or load p_0 and p_1."""
        from methods.decoding.contrastive_generation.training import models

        self.reference, self.tuned = models(work, self.context)

    @property
    def texts(self) -> int:
        """Texts to generate."""
        return int(self.task.amount(self.work) or 0)

    def streams(self, numbers: range) -> list[torch.Generator]:
        """The random stream of each text: the same for text k whatever the method and its batch."""
        device = self.context.device
        return [self.context.torch_generator("text", number, device=device) for number in numbers]

    def written(
        self,
        count: int,
        batch: int,
        *,
        gamma: float,
        alpha: float,
        decoding: Decoding,
        beams: int,
        reference: TextModel | None = None,
    ) -> list[list[int]]:
        """Tokens of `count` texts by models that stay as they are, `batch` side by side."""
        from methods.decoding.contrastive_generation.contrast import Contrast
        from methods.decoding.contrastive_generation.generation import generate

        contrast = Contrast(self.tuned, reference or self.reference, gamma, alpha)
        rows: list[list[int]] = []
        while len(rows) < count:
            streams = self.streams(range(len(rows), min(len(rows) + batch, count)))
            rows += generate(contrast, decoding, beams, self.work.recipe.length, streams).tolist()
        return rows

    def measure(self, output: list[str]) -> Measurement:
        """The task's score and how probable the texts are for p_1."""
        from methods.decoding.contrastive_generation.models import mean_log_probability, rows_of

        score = self.task.score(self.work, output)
        rows = rows_of(self.tuned, output, self.work.recipe.length)
        # Of a pretrained model's tokens none may be left in text: a sequence of special ones decodes to nothing.
        own = mean_log_probability(self.tuned, [row for row in rows if len(row) > 1])
        likelihood = float(own.mean()) if len(own) else float(-np.log(self.tuned.size))
        return (score if isinstance(score, Measurement) else Measurement(score)) | {
            "log_probability": likelihood
        }


class Contrastive(Exploration):
    """Generation by the contrast of p_1 with a reference."""

    gamma: NonNegativeFloat = 1.0
    """Weight of the reference; 0 is sampling from p_1."""
    alpha: Fraction = 0.1
    """A token is plausible if p_1 gives it at least this share of its largest probability."""
    decoding: Literal["beam-sampling", "best-of"] = "beam-sampling"
    """Sample beams, or take the best of independent samples."""
    beams: PositiveInt = 4
    """Beams, or samples that the best is chosen from."""
