"""Lion (Chen et al. 2023, arXiv 2302.06675)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from harness.method import Metric, method
from harness.types import Fraction, NonNegativeFloat, PositiveFloat
from methods.training.baselines import OptimizerMethod
from methods.training.lion.optimizer import Lion

STATE = (
    Metric(
        "state_bytes", "B", "lower", "Bytes of the optimizer's state, scalars left out.", deterministic=True
    ),
    Metric(
        "state_bytes_per_parameter",
        "B",
        "lower",
        "The same over the number of parameters.",
        deterministic=True,
    ),
)


@method(
    "lion",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class LionTraining(OptimizerMethod):
    """The sign of an interpolation between momentum and gradient: one buffer, equal steps (Program 1)."""

    learning_rate: PositiveFloat = 0.0003
    """Peak learning rate eta; a third to a tenth of AdamW's."""
    weight_decay: NonNegativeFloat = 0.0
    """lambda, decoupled; three to ten times AdamW's, so that eta lambda stays the same."""
    beta1: Fraction = 0.9
    """Weight of the momentum in the direction whose sign is taken; 0.95 on language models."""
    beta2: Fraction = 0.99
    """Weight of the old momentum in the new one; 0.98 on language models."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """See `methods.training.lion.optimizer`."""
        return Lion(parameters, self.learning_rate, (self.beta1, self.beta2), self.weight_decay)
