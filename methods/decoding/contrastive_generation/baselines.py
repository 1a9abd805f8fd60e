"""What contrastive generative exploration is compared with: plain sampling, and other scores for detection."""

from __future__ import annotations

import numpy as np

from harness.method import method
from harness.types import Fraction, PositiveInt
from methods.decoding.contrastive_generation.exploring import LIKELIHOOD, Exploration
from methods.decoding.contrastive_generation.method import Detection


@method("fine-tuned-sampling", task="novelty-exploration", metrics=[LIKELIHOOD])
class FineTunedSampling(Exploration):
    """Sampling from p_1, from all tokens or from the plausible ones."""

    alpha: Fraction = 0.0
    """A token is plausible if p_1 gives it at least this share of its largest probability; 0: all tokens."""
    batch: PositiveInt = 100
    """Texts generated side by side; changes them by rounding at most."""

    def run(self) -> list[str]:
        """Generate all texts."""
        rows = self.written(self.texts, self.batch, gamma=0.0, alpha=self.alpha, decoding="best-of", beams=1)
        return [self.tuned.decode(row) for row in rows]


@method("base-surprise", task="novelty-detection")
class BaseSurprise(Detection):
    """-log p_0 of a token: what p_0 does not expect, familiar but unpredictable text included."""

    def run(self) -> np.ndarray:
        """The mean of every document."""
        from methods.decoding.contrastive_generation.models import mean_log_probability

        return -mean_log_probability(self.reference, self.rows, self.batch).numpy()


@method("fine-tuned-surprise", task="novelty-detection")
class FineTunedSurprise(Detection):
    """-log p_1 of a token."""

    def run(self) -> np.ndarray:
        """The mean of every document."""
        from methods.decoding.contrastive_generation.models import mean_log_probability

        return -mean_log_probability(self.tuned, self.rows, self.batch).numpy()


@method("gradient-norm", task="novelty-detection")
class GradientNorm(Detection):
    """The 2-norm of the gradient of p_1's mean loss on a document, over all parameters."""

    def run(self) -> np.ndarray:
        """The norm of every document."""
        import torch

        from methods.decoding.contrastive_generation.models import batch_of
        from methods.decoding.contrastive_generation.training import norms

        found = []
        for first in range(0, len(self.rows), self.batch):
            ids, targets = batch_of(self.tuned, self.rows[first : first + self.batch])
            found += [norms(few).cpu() for few in self.tuned.example_gradients(ids, targets)]
        return torch.cat(found).double().numpy()
