"""Optimizers that the family's papers are compared with, on the family's own training loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import Fraction, NonNegativeFloat, PositiveFloat
from methods.training.loop import Outcome, Workload, state_bytes
from methods.training.signum import Signum

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


class OptimizerMethod(Method[Workload, Outcome]):
    """A training with one optimizer: a subclass says which, the work says what is done with it."""

    @abstractmethod
    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer of `parameters`, with the peak learning rate."""

    def prepare(self, work: Workload) -> None:
        """Move data and initial weights to the device."""
        # The first optimizer of a process imports torch's compiler; that is no part of a training.
        self.optimizer([nn.Parameter(torch.zeros(1))])
        self._do = work.start(self.optimizer, self.context.device)

    def run(self) -> Outcome:
        """Do the work once."""
        return self._do()

    def measure(self, output: Outcome) -> Measurement:
        """The task's score and the bytes of the optimizer's state."""
        count = sum(p.numel() for group in output.optimizer.param_groups for p in group["params"])
        size = state_bytes(output.optimizer)
        figures = {"state_bytes": float(size), "state_bytes_per_parameter": size / count}
        return as_measurement(self.task.score(self.work, output)) | figures


class AdamWMethod(OptimizerMethod):
    """What the two AdamWs share: all but the kernel that torch runs."""

    kernel = ""
    """Argument of torch.optim.AdamW that asks for it."""

    learning_rate: PositiveFloat = 0.001
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled: parameters shrink by learning rate times this in every step."""
    beta1: Fraction = 0.9
    """Of the mean of the gradients."""
    beta2: Fraction = 0.999
    """Of the mean of their squares; 0.99 on language models."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the mean of squares; 1e-6 on language models."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            **{self.kernel: True},
        )


@method(
    "adamw",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class AdamW(AdamWMethod):
    """AdamW (Loshchilov and Hutter 2019) by torch's foreach kernels."""

    kernel = "foreach"


@method(
    "adamw-fused",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class AdamWFused(AdamWMethod):
    """AdamW by torch's fused kernel: one pass over the memory."""

    kernel = "fused"


@method(
    "sgd-momentum",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class SGDMomentum(OptimizerMethod):
    """Stochastic gradient descent with heavy-ball momentum."""

    learning_rate: PositiveFloat = 0.1
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Coupled: added to the gradient as an L2 penalty's would be."""
    momentum: Fraction = 0.9
    """Share of the last step's velocity that is kept."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )


@method(
    "adafactor",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class Adafactor(OptimizerMethod):
    """Adafactor (Shazeer and Stern 2018): squares kept per row and column, steps relative to weights."""

    learning_rate: PositiveFloat = 0.01
    """Peak relative step size, before the root mean square of the weights multiplies it."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled."""
    beta2_decay: float = -0.8
    """beta2 of step t is 1 - t ** this; negative."""
    clipping: PositiveFloat = 1.0
    """Largest root mean square of an update before the step size."""

    def __post_init__(self) -> None:
        if self.beta2_decay > 0:
            raise ValueError(f"beta2_decay must not be positive: {self.beta2_decay}")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """torch.optim.Adafactor."""
        return torch.optim.Adafactor(
            parameters,
            lr=self.learning_rate,
            beta2_decay=self.beta2_decay,
            d=self.clipping,
            weight_decay=self.weight_decay,
            foreach=True,
        )


@method(
    "signum",
    task=(
        "image-classification",
        "image-folder-classification",
        "character-language-model",
        "optimizer-step",
        "optimizer-updates",
    ),
    metrics=STATE,
)
class SignumTraining(OptimizerMethod):
    """Sign of one exponential average of the gradients: Lion with a single beta, so that momentum lags."""

    learning_rate: PositiveFloat = 0.0003
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled."""
    beta: Fraction = 0.9
    """Of the mean of the gradients."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Bernstein et al. 2018."""
        return Signum(parameters, self.learning_rate, self.beta, self.weight_decay)
