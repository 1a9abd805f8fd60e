"""What half fine-tuning is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from harness.method import method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.finetuning.half_fine_tuning import selection
from methods.finetuning.half_fine_tuning.selection import layers
from methods.finetuning.half_fine_tuning.single import InferenceMethod, StepMethod
from methods.finetuning.half_fine_tuning.stages import (
    FineTuning,
    Objective,
    Stages,
    set_trainable,
    snapshot,
    with_penalty,
)


@method("full-fine-tuning", task=("continual-stages", "preference-stage", "intent-stages"))
class FullFineTuning(FineTuning):
    """All parameters move in every stage."""


@method("l2-sp", task=("continual-stages", "preference-stage", "intent-stages"))
class L2SP(FineTuning):
    """Full fine-tuning with a penalty on the distance to the start of the stage (Li et al. 2018, eq. 2).

    The penalty is alpha / 2 * ||theta - theta_{t-1}||^2 over all parameters that have a start worth keeping.
    """

    alpha: PositiveFloat = 0.01
    """Strength of the penalty."""

    def train(self, model: nn.Module, loss: Objective, number: int, done: Stages) -> None:
        pulled = [p for name, p in model.named_parameters() if not self.work.is_fresh(name)]
        start = [p.detach().clone() for p in pulled]

        def penalty() -> torch.Tensor:
            squares = [(p - s).square().sum() for p, s in zip(pulled, start, strict=True)]
            return 0.5 * self.alpha * torch.stack(squares).sum()

        self.fit(model, with_penalty(loss, penalty), done)


@method("frozen-bottom", task=("continual-stages", "preference-stage", "intent-stages"))
class FrozenBottom(FineTuning):
    """The lower layers stay frozen in every stage; the embeddings move, as in half fine-tuning."""

    ratio: Fraction = 0.5
    """Share of the layers, rounded down."""

    def train(self, model: nn.Module, loss: Objective, number: int, done: Stages) -> None:
        every = layers(model)
        for layer in every[: int(self.ratio * len(every))]:
            selection.freeze(model, layer.modules)
        self.fit(model, loss, done)


@method("lora", task=("continual-stages", "preference-stage", "intent-stages"), packages=("peft>=0.15",))
class Lora(FineTuning):
    """Low-rank adapters on every matrix of the layers (Hu et al. 2022), merged at the end of each stage."""

    rank: PositiveInt = 16
    """Rank r of the updates."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / r."""

    def train(self, model: nn.Module, loss: Objective, number: int, done: Stages) -> None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            target_modules=[m for layer in layers(model) for m in layer.matrices],
        )
        # peft draws the adapters from the CPU's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("adapters", number))
            adapted = get_peft_model(model, config)
        for name, p in model.named_parameters():
            if self.work.is_fresh(name):
                p.requires_grad_(True)
        # The adapters were put into `model` itself, so that `loss` goes through them.
        self.fit(adapted, loss, done)
        adapted.merge_and_unload()


@method("multi-task", task=("continual-stages", "intent-stages"))
class MultiTask(FineTuning):
    """All stages at once, for as many steps as all of them together: the upper bound on keeping them.

    Step i takes a batch of stage i modulo the number of stages. There is one model, so the snapshot after
    every stage is the last one.
    """

    def run(self) -> Stages:
        import copy

        model = copy.deepcopy(self.base)
        done = Stages()
        done.add(model)
        set_trainable(model)
        stages = self.work.stages
        losses = [stage.objective(model, self.places(i)) for i, stage in enumerate(stages)]
        self.fit(
            model,
            lambda step: losses[step % len(losses)](step),
            done,
            steps=self.work.host.steps * len(stages),
        )
        done.snapshots += [snapshot(model)] * len(stages)
        return done


@method("full-fine-tuning-step", task="fine-tuning-step")
class FullFineTuningStep(StepMethod):
    """One training step of all parameters."""

    def begin(self, model: nn.Module) -> Callable[[torch.optim.Optimizer], Callable[[], None]] | None:
        return None


@method("lora-step", task="fine-tuning-step", packages=("peft>=0.15",))
class LoraStep(StepMethod):
    """One training step of low-rank adapters on every matrix of the layers."""

    rank: PositiveInt = 16
    """Rank r of the updates."""

    def begin(self, model: nn.Module) -> Callable[[torch.optim.Optimizer], Callable[[], None]] | None:
        from peft import LoraConfig, inject_adapter_in_model

        matrices = [m for layer in layers(model) for m in layer.matrices]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("adapters"))
            inject_adapter_in_model(LoraConfig(r=self.rank, target_modules=matrices), model)
        for name, p in model.named_parameters():
            p.requires_grad_("lora_" in name)
        return None


@method("full-fine-tuned-inference", task="fine-tuned-inference")
class FullFineTunedInference(InferenceMethod):
    """Inference with a model after a stage of full fine-tuning."""

    def begin(self, model: nn.Module) -> None:
        set_trainable(model)
