"""Half Fine-Tuning (Hui et al. 2025): a random half of the modules stays frozen during each stage.

    theta_t = argmin L_t(theta)  subject to  (1 - M_t) * (theta - theta_{t-1}) = 0

M_t selects half of a model's modules, category by category, anew for every stage and once per stage.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from harness.method import method
from harness.types import Fraction, PositiveFloat
from methods.finetuning.half_fine_tuning import selection
from methods.finetuning.half_fine_tuning.selection import Level
from methods.finetuning.half_fine_tuning.single import InferenceMethod, QuadraticMethod, StepMethod
from methods.finetuning.half_fine_tuning.stages import FineTuning, Objective, Stages

STAGED = ("continual-stages", "preference-stage", "intent-stages")


@method("half-fine-tuning", task=("continual-stages", "preference-stage", "intent-stages"))
class HalfFineTuning(FineTuning):
    """The method of the paper and, by `level`, its variants."""

    ratio: Fraction = 0.5
    """Share that stays frozen in a stage."""
    level: Level = "category"
    """What is drawn: modules within each layer's categories, whole layers, any modules, or single entries."""
    redraw: bool = True
    """A new draw for every stage; False keeps the first one, so that half never learns."""
    freeze_outside: bool = False
    """Also freeze what is outside the selection: embeddings, output layer, final norm."""

    def train(self, model: nn.Module, loss: Objective, number: int, done: Stages) -> None:
        rng = self.context.rng("selection", number if self.redraw else 0)
        if self.freeze_outside:
            inside = [p for m in selection.selectable(model) for p in model.get_submodule(m).parameters()]
            model.requires_grad_(False)
            for p in inside:
                p.requires_grad_(True)
        if self.level == "element":
            self._hold(model, loss, rng, done)
            return
        selection.freeze(model, selection.select(model, self.ratio, rng, self.level))
        self.fit(model, loss, done)

    def _hold(self, model: nn.Module, loss: Objective, rng: np.random.Generator, done: Stages) -> None:
        """Entries instead of modules: gradients are masked, and nothing is saved."""
        masks = selection.select_elements(model, self.ratio, rng)

        def during(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
            return selection.hold_elements(model, optimizer, masks)

        self.fit(model, loss, done, during)
        held = sum(int(mask.sum()) for mask in masks.values())
        done.trainable[-1] -= held / sum(p.numel() for p in model.parameters())


@method("half-reset", task=("continual-stages", "preference-stage", "intent-stages"))
class HalfReset(FineTuning):
    """Full fine-tuning, then half of the modules set back to the pre-trained ones; no further training.

    Every snapshot is reset; the next stage goes on from the model as it was before the reset.
    """

    ratio: Fraction = 0.5
    """Share that is set back."""
    level: Level = "category"
    """As in half fine-tuning."""

    def run(self) -> Stages:
        done = super().run()
        start = done.snapshots[0]
        for number in range(1, len(done.snapshots)):
            modules = self._draw(number)
            done.snapshots[number] = selection.half_reset(start, done.snapshots[number], modules)
        return done

    def _draw(self, number: int) -> frozenset[str]:
        return selection.select(self.base, self.ratio, self.context.rng("reset", number), self.level)

    def __post_init__(self) -> None:
        if self.level == "element":
            raise ValueError("half-reset sets modules back: level is category, layer or model")


@method("half-fine-tuning-step", task="fine-tuning-step")
class HalfFineTuningStep(StepMethod):
    """One training step with half of the modules frozen."""

    ratio: Fraction = 0.5
    """Share that stays frozen."""
    level: Level = "category"
    """As in half fine-tuning."""

    def begin(self, model: nn.Module) -> Callable[[torch.optim.Optimizer], Callable[[], None]] | None:
        rng = self.context.rng("selection", 0)
        if self.level == "element":
            masks = selection.select_elements(model, self.ratio, rng)
            return lambda optimizer: selection.hold_elements(model, optimizer, masks)
        selection.freeze(model, selection.select(model, self.ratio, rng, self.level))
        return None


@method("half-fine-tuned-inference", task="fine-tuned-inference")
class HalfFineTunedInference(InferenceMethod):
    """Inference with a model after a stage of half fine-tuning."""

    ratio: Fraction = 0.5
    """Share that stayed frozen."""

    def begin(self, model: nn.Module) -> None:
        selection.freeze(model, selection.select(model, self.ratio, self.context.rng("selection", 0)))


@method("half-fine-tuning-quadratic", task="quadratic-stage")
class HalfFineTuningQuadratic(QuadraticMethod):
    """Gradient descent on the quadratic with the unselected coordinates frozen."""

    def strength(self) -> float:
        return float("inf")


@method("penalised-quadratic", task="quadratic-stage")
class PenalisedQuadratic(QuadraticMethod):
    """The same with a penalty ``penalty * ||(1 - M) * (theta - theta_0)||^2`` in place of freezing."""

    penalty: PositiveFloat = 1000.0
    """The multiplier lambda of the penalty; freezing is its limit."""

    def strength(self) -> float:
        return self.penalty
