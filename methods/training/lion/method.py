"""Lion (Chen et al. 2023, arXiv 2302.06675)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from torch import nn
from torch.optim import Optimizer

from harness.method import Metric, method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.training.baselines import STATE, OptimizerMethod
from methods.training.lion.evolution import Scores, evolve_with_restarts
from methods.training.lion.mutation import Mutator
from methods.training.lion.optimizer import Lion
from methods.training.lion.search import ProgramSearch


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


@method(
    "program-evolution",
    task="optimizer-program-search",
    metrics=(
        Metric("trained", "programs", "lower", "Different programs that were trained on the cheap proxy."),
        Metric("cached_share", doc="Share of the scores that the functional hash saved."),
        Metric(
            "rejected_share", better="neither", doc="Share of mutants that were invalid or computed the same."
        ),
    ),
)
class ProgramEvolution(ProgramSearch):
    """Regularised evolution of optimizer programs from AdamW, with restarts (the search that found Lion)."""

    population: PositiveInt = 25
    """Programs alive at a time; the oldest one dies when a child is born."""
    tournament: PositiveInt = 5
    """Programs drawn from the population; the best of them has a child."""
    restarts: NonNegativeInt = 3
    """How often the population is filled anew."""
    restart_from: Literal["start", "best"] = "start"
    """What it is filled with: AdamW, or the best program so far."""

    def __post_init__(self) -> None:
        if self.restarts >= self.candidates:
            raise ValueError(f"{self.restarts} restarts leave no candidates of {self.candidates}")

    def candidates_of(self, scores: Scores, mutate: Mutator, random: np.random.Generator) -> None:
        """Evolve, restart, evolve."""
        evolve_with_restarts(
            self.work.start,
            scores,
            mutate,
            random,
            candidates=self.candidates,
            population=self.population,
            tournament=self.tournament,
            restarts=self.restarts,
            restart_from=self.restart_from,
        )
