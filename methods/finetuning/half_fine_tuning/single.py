"""What is measured apart from the stages: one training step, inference afterwards, and a quadratic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.method import Method
from methods.common.language_model import Precision, fit, llama, next_token_loss
from methods.finetuning.half_fine_tuning.stages import Host, adamw, optimizer_bytes


@dataclass(frozen=True)
class Shape:
    """Shape of a Llama; see `methods.common.language_model.llama`."""

    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    context: int

    def fresh(self, seed: int) -> nn.Module:
        """A new model with weights from `seed`."""
        model: nn.Module = llama(
            self.vocabulary,
            self.hidden,
            self.feed_forward,
            self.layers,
            self.heads,
            self.context,
            seed=seed,
        )
        return model


# --- one training step -----------------------------------------------------------------------------


@dataclass(frozen=True)
class StepWork:
    """A model's shape and one batch.

    Attributes:
        tokens: int64, shape (batch, context + 1).
        phase: "forward", "forward-backward" or "step" (with the update).
        checkpointing: whether activations are computed again in the backward pass.
        precision: of forward and backward; weights, gradients and optimizer state are float32.
        host: the optimizer's settings.
        seed: of the weights.
    """

    shape: Shape
    tokens: Tensor
    phase: str
    checkpointing: bool
    precision: Precision
    host: Host
    seed: int


@dataclass(frozen=True)
class StepOutput:
    """What a step leaves.

    Attributes:
        loss: in nats, a scalar.
        trainable_share: of the parameters.
        counted: does one full step and returns its FLOPs in products with weights and the optimizer's bytes.
    """

    loss: Tensor
    trainable_share: float
    counted: Callable[[], tuple[float, int]]


class StepMethod(Method[StepWork, StepOutput]):
    """Consecutive calls of `run` are consecutive steps: putting the weights back would be timed too."""

    def prepare(self, work: StepWork) -> None:
        self.model: Any = work.shape.fresh(work.seed).to(self.context.device).train()
        every = sum(p.numel() for p in self.model.parameters())
        during = self.begin(self.model)
        if work.checkpointing:
            # The name that transformers 5 gave it, or the older one.
            name = "activation_checkpointing_enable"
            enable: Any = getattr(self.model, name, None) or self.model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        moving = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.share = moving / every
        self.optimizer = adamw(self.model.parameters(), work.host)
        if during is not None:
            during(self.optimizer)
        self.tokens = work.tokens.to(self.context.device)

    @abstractmethod
    def begin(self, model: nn.Module) -> Callable[[torch.optim.Optimizer], object] | None:
        """Say what is trained; what is returned is called with the optimizer."""

    def run(self) -> StepOutput:
        return StepOutput(self._step(self.work.phase), self.share, self._counted)

    def _counted(self) -> tuple[float, int]:
        with FlopCounterMode(display=False) as counter:
            self._step("step")
        return matmul_flops(counter), optimizer_bytes(self.optimizer)

    def _step(self, phase: str) -> Tensor:
        kind = self.tokens.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.work.precision == "bfloat16"):
            loss = next_token_loss(self.model, self.tokens)
        if phase != "forward":
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        if phase == "step":
            self.optimizer.step()
        return loss.detach()


def matmul_flops(counter: FlopCounterMode) -> float:
    """Counted FLOPs of products with weight matrices; attention's own products are other operations."""
    products = (torch.ops.aten.mm, torch.ops.aten.addmm)
    counts = counter.get_flop_counts()["Global"]
    return float(sum(counts.get(product, 0) for product in products))


# --- inference afterwards --------------------------------------------------------------------------


@dataclass(frozen=True)
class InferenceWork:
    """Tokens to fine-tune on and tokens to run on, int64, shape (batch, context + 1) each."""

    shape: Shape
    training: Tensor
    tokens: Tensor
    host: Host
    seed: int


@dataclass(frozen=True)
class InferenceOutput:
    """Logits (batch, context, vocabulary) and the model that they are from."""

    logits: Tensor
    model: nn.Module


class InferenceMethod(Method[InferenceWork, InferenceOutput]):
    """Fine-tunes in `prepare`; a run is one forward pass."""

    def prepare(self, work: InferenceWork) -> None:
        self.model = work.shape.fresh(work.seed).to(self.context.device)
        training = work.training.to(self.context.device)
        self.begin(self.model)
        optimizer = adamw(self.model.parameters(), work.host)
        fit(
            self.model,
            optimizer,
            lambda _: next_token_loss(self.model, training),
            steps=work.host.steps,
        )
        self.tokens = work.tokens.to(self.context.device)

    @abstractmethod
    def begin(self, model: nn.Module) -> None:
        """Say what is trained."""

    @torch.no_grad()
    def run(self) -> InferenceOutput:
        return InferenceOutput(self.model(input_ids=self.tokens, use_cache=False).logits, self.model)


# --- the constraint as the limit of a penalty ------------------------------------------------------


@dataclass(frozen=True)
class QuadraticWork:
    """Minimise 0.5 ||theta - b||^2 from theta_0 with some blocks held.

    Attributes:
        start: theta_0, float64, shape (blocks, size).
        goal: b, the same shape.
        held: which blocks are held, bool, shape (blocks,).
    """

    start: Tensor
    goal: Tensor
    held: Tensor


class QuadraticMethod(Method[QuadraticWork, Tensor]):
    """L-BFGS on blocks of parameters; held blocks are frozen or pulled back by a penalty."""

    @abstractmethod
    def strength(self) -> float:
        """lambda of the penalty; infinity freezes."""

    def prepare(self, work: QuadraticWork) -> None:
        device = self.context.device
        self.start, self.goal, self.held = (t.to(device) for t in (work.start, work.goal, work.held))

    def run(self) -> Tensor:
        pull = self.strength()
        theta = [nn.Parameter(block.clone()) for block in self.start]
        if np.isinf(pull):
            for block, held in zip(theta, self.held.tolist(), strict=True):
                block.requires_grad_(not held)
        optimizer = torch.optim.LBFGS(
            [block for block in theta if block.requires_grad],
            max_iter=200,
            tolerance_grad=1e-12,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            now = torch.stack(list(theta))
            value = 0.5 * (now - self.goal).square().sum()
            if not np.isinf(pull):
                value = value + pull * (now - self.start)[self.held].square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return torch.stack([block.detach() for block in theta])
