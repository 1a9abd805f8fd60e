"""Stages of fine-tuning: what is trained in one, the run through all of them, and what comes out.

A stage is one supervised run, one run of preference optimisation, or one task of a continual sequence. All
methods go through the same stages with the same batches; they differ in which parameters move.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.method import Method
from harness.types import PositiveFloat
from methods.common.language_model import Precision, Schedule, fit, next_token_loss, windows

State = dict[str, Tensor]
Objective = Callable[[int], Tensor]
Model = TypeVar("Model", bound=nn.Module)


# --- what is trained in a stage --------------------------------------------------------------------


class Stage(Protocol):
    """The data and the objective of one stage."""

    def objective(self, model: nn.Module, places: torch.Generator) -> Objective:
        """The loss of each step for `model` as it is at the start of the stage; batches from `places`."""


@dataclass(frozen=True)
class TextStage:
    """Next-token prediction on windows of a text.

    Attributes:
        text: tokens to train on, integers, shape (tokens,).
        batch: windows a step.
        context: tokens that a window predicts.
    """

    text: Tensor
    batch: int
    context: int

    def objective(self, model: nn.Module, places: torch.Generator) -> Objective:
        device = str(next(model.parameters()).device)

        def loss(_: int) -> Tensor:
            return next_token_loss(model, windows(self.text, self.batch, self.context + 1, places, device))

        return loss


@dataclass(frozen=True)
class PreferenceStage:
    """Direct preference optimisation (Rafailov et al. 2023) on pairs of continuations of the same prompt.

    Attributes:
        chosen, rejected: prompt and continuation, int64, shape (pairs, tokens).
        prompt: tokens of each row that are prompt.
        batch: pairs a step.
        beta: strength of the pull towards the model at the start of the stage.
    """

    chosen: Tensor
    rejected: Tensor
    prompt: int
    batch: int
    beta: float

    def objective(self, model: nn.Module, places: torch.Generator) -> Objective:
        device = next(model.parameters()).device
        chosen, rejected = self.chosen.to(device), self.rejected.to(device)
        with torch.no_grad():
            reference = torch.cat(
                [self._log_odds(model, a, b) for a, b in zip(chosen.split(64), rejected.split(64), strict=True)]
            )

        def loss(_: int) -> Tensor:
            rows = torch.randint(len(chosen), (self.batch,), generator=places).to(device)
            margin = self._log_odds(model, chosen[rows], rejected[rows]) - reference[rows]
            return -F.logsigmoid(self.beta * margin).mean()

        return loss

    def _log_odds(self, model: nn.Module, chosen: Tensor, rejected: Tensor) -> Tensor:
        """log p(chosen | prompt) - log p(rejected | prompt), shape (pairs,)."""
        rows = torch.cat([chosen, rejected])
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits[:, self.prompt - 1 :].float()
        each = F.cross_entropy(logits.flatten(0, 1), rows[:, self.prompt :].flatten(), reduction="none")
        likely, unlikely = (-each.view(len(rows), -1).sum(1)).chunk(2)
        return likely - unlikely


@dataclass(frozen=True)
class LabelStage:
    """Classification of sentences.

    Attributes:
        tokens, mask: int64, shape (sentences, length).
        labels: int64, shape (sentences,).
        batch: sentences a step.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    batch: int

    def objective(self, model: nn.Module, places: torch.Generator) -> Objective:
        device = next(model.parameters()).device
        tokens, mask, labels = (t.to(device) for t in (self.tokens, self.mask, self.labels))

        def loss(_: int) -> Tensor:
            rows = torch.randint(len(labels), (self.batch,), generator=places).to(device)
            return F.cross_entropy(model(tokens[rows], mask[rows]), labels[rows])

        return loss


# --- the run through the stages --------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """The recipe that all methods share: HFT has nothing of its own to tune but the ratio.

    Attributes:
        steps: of each stage.
        lr: peak learning rate of AdamW.
        weight_decay, schedule, warmup, clip, precision: see `methods.common.language_model.fit`.
    """

    steps: int
    lr: float
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    clip: float = 1.0
    precision: Precision = "float32"


class StagedWork(ABC):
    """A base model and the stages that it goes through.

    Attributes:
        host: how each stage is trained.
        stages: what each stage trains.
        fresh_parameters: prefixes of parameters that no pre-training made, such as a new output layer.
            Every method trains them.
    """

    host: Host
    stages: Sequence[Stage]
    fresh_parameters: tuple[str, ...] = ()

    @abstractmethod
    def base(self, cache: Path | None, device: str) -> nn.Module:
        """The model before the first stage."""

    def is_fresh(self, name: str) -> bool:
        """Whether the parameter `name` is one of `fresh_parameters`."""
        return name.startswith(self.fresh_parameters) if self.fresh_parameters else False


@dataclass
class Stages:
    """What a run through the stages leaves.

    Attributes:
        snapshots: the model's tensors by name, before the first stage and after each one.
        trainable: share of the parameters that moved, per stage.
        state_bytes: what the optimizer kept, per stage.
    """

    snapshots: list[State] = field(default_factory=list)
    trainable: list[float] = field(default_factory=list)
    state_bytes: list[int] = field(default_factory=list)

    def add(self, model: nn.Module) -> None:
        """Keep a copy of the model's tensors."""
        self.snapshots.append(snapshot(model))

    def costs(self) -> dict[str, float]:
        """Means over the stages, for a task's metrics."""
        stages = len(self.trainable)
        return {
            "trainable_share": sum(self.trainable) / stages,
            "optimizer_bytes": sum(self.state_bytes) / stages,
        }


def snapshot(model: nn.Module) -> State:
    """A copy of the model's tensors by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


def adamw(parameters: Iterable[Tensor], host: Host, factor: float = 1.0) -> torch.optim.AdamW:
    """AdamW over those of `parameters` that require a gradient, at `factor` times the host's rate.

    Frozen parameters are left out: decoupled weight decay would move them even without a gradient.
    """
    moving = [p for p in parameters if p.requires_grad]
    # With everything frozen there is nothing to do, but AdamW wants at least one tensor.
    return torch.optim.AdamW(
        moving or [torch.zeros((), requires_grad=True)],
        lr=factor * host.lr,
        weight_decay=host.weight_decay,
    )


def set_trainable(model: nn.Module) -> None:
    """Everything may move again: the start of each stage."""
    model.requires_grad_(True)


@dataclass(kw_only=True, eq=False)
class FineTuning(Method[StagedWork, Stages]):
    """The run through the stages. A method says in `train` what one stage does with the model."""

    lr_factor: PositiveFloat = 1.0
    """Multiplies the host recipe's learning rate."""

    def prepare(self, work: StagedWork) -> None:
        self.base = work.base(self.context.cache, self.context.device)

    def run(self) -> Stages:
        model = copy.deepcopy(self.base)
        done = Stages()
        done.add(model)
        for number, stage in enumerate(self.work.stages):
            set_trainable(model)
            loss = stage.objective(model, self.places(number))
            self.train(model, loss, number, done)
            done.add(model)
        return done

    def places(self, number: int) -> torch.Generator:
        """Where the batches of stage `number` come from: the same for every method."""
        generator: torch.Generator = self.context.torch_generator("batches", number)
        return generator

    def train(self, model: nn.Module, loss: Objective, number: int, done: Stages) -> None:
        """Train what requires a gradient in `model` on `loss`; add the costs to `done`."""
        self.fit(model, loss, done)

    def fit(
        self,
        model: nn.Module,
        loss: Objective,
        done: Stages,
        during: Callable[[torch.optim.Optimizer], Callable[[], None]] | None = None,
        steps: int | None = None,
    ) -> None:
        """`loss` minimised by the host's recipe with a new optimizer.

        Args:
            during: called with the optimizer before the first step; what it returns is called after the last.
            steps: the host's by default.
        """
        host = self.work.host
        total = sum(p.numel() for p in self.base.parameters())
        moving = sum(p.numel() for p in model.parameters() if p.requires_grad)
        optimizer = adamw(model.parameters(), host, self.lr_factor)
        end = during(optimizer) if during else None
        if moving:
            fit(
                model,
                optimizer,
                loss,
                steps=host.steps if steps is None else steps,
                schedule=host.schedule,
                warmup=host.warmup,
                clip=host.clip,
                precision=host.precision,
            )
        if end:
            end()
        done.trainable.append(moving / total)
        done.state_bytes.append(optimizer_bytes(optimizer))


def with_penalty(loss: Objective, penalty: Callable[[], Tensor]) -> Objective:
    """`loss` plus `penalty`, evaluated at every step."""
    return lambda step: loss(step) + penalty()


def load_into(model: Model, state: State, device: Any) -> Model:
    """`model` with the tensors of a snapshot, on `device`, in evaluation mode."""
    model.load_state_dict(state)
    return model.to(device).eval()
