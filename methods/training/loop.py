"""The one training loop of the family, and what an optimizer is given to do.

A task's work is a `Workload`: it knows what is done with an optimizer (a whole training, one step, a stream of
given gradients) and leaves open which. A method supplies the optimizer. So all optimizers meet the same initial
weights, batches, schedule and clipping.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from methods.common.language_model import Precision, Schedule, rate

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
"""From parameters to an optimizer with the method's peak learning rate."""


@dataclass(frozen=True)
class Outcome:
    """What came of an optimizer's work.

    Attributes:
        optimizer: after the last step, with its state.
        model: the trained model (the same object in every run of a single step).
        losses: training losses, shape (steps,).
        checkpoints: validation figure by the number of steps taken.
        path: parameters after each step, (steps + 1, n) float64; only where the work asks for it.
    """

    optimizer: Optimizer
    model: nn.Module
    losses: Tensor
    checkpoints: Mapping[int, float] = field(default_factory=dict)
    path: Tensor | None = None


class Workload(ABC):
    """Something to be done with an optimizer, the same for all of them."""

    @abstractmethod
    def start(self, make: MakeOptimizer, device: str) -> Callable[[], Outcome]:
        """Move what is needed to `device`; the function returned does the work once, from the start."""


@dataclass(frozen=True)
class Batches(ABC):
    """The batches of a training: where its data is and the loss on one step's part of it."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """What a loss is over: classes of images, or tokens."""

    @abstractmethod
    def to(self, device: str) -> Batches:
        """These batches with their data on `device`."""

    @abstractmethod
    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Mean training loss of the batch of `step`."""

    def losses(self, model: nn.Module, step: int) -> Iterator[Tensor]:
        """The loss in parts that add up to it: a large batch need not be in memory at once."""
        yield self.loss(model, step)

    @abstractmethod
    def validate(self, model: nn.Module) -> float:
        """The held-out figure that `Training.checkpoints` asks for."""


@dataclass(frozen=True)
class Training(Workload):
    """A whole training from fixed initial weights.

    Attributes:
        model: with its initial weights, on the CPU; every run trains a copy.
        batches: data and loss.
        steps: number of optimizer steps.
        warmup: share of the steps that warm up linearly.
        schedule: of the learning rate after the warm-up, down to 0.
        clip: largest 2-norm of the whole gradient; 0 leaves it as it is.
        precision: "bfloat16" computes forward and backward under autocast; weights stay float32.
        checkpoints: after how many steps to validate.
    """

    model: nn.Module
    batches: Batches
    steps: int
    warmup: float = 0.1
    schedule: Schedule = "cosine"
    clip: float = 0.0
    precision: Precision = "float32"
    checkpoints: frozenset[int] = frozenset()

    def start(self, make: MakeOptimizer, device: str) -> Callable[[], Outcome]:
        """See `Workload.start`."""
        batches, initial = self.batches.to(device), copy.deepcopy(self.model).to(device)
        return lambda: self._train(copy.deepcopy(initial), batches, make, device)

    def _train(self, model: nn.Module, batches: Batches, make: MakeOptimizer, device: str) -> Outcome:
        optimizer = make(model.parameters())
        peaks = [group["lr"] for group in optimizer.param_groups]
        losses, validated = [], {}
        model.train()
        for step in range(self.steps):
            share = rate(step, self.steps, self.schedule, self.warmup)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            losses.append(take_step(model, optimizer, batches, step, self.clip, self.precision, device))
            if step + 1 in self.checkpoints:
                model.eval()
                with (
                    torch.no_grad(),
                    torch.autocast(
                        torch.device(device).type, torch.bfloat16, enabled=self.precision == "bfloat16"
                    ),
                ):
                    validated[step + 1] = batches.validate(model)
                model.train()
        model.eval()
        return Outcome(optimizer, model, torch.stack(losses), validated)


@dataclass(frozen=True)
class SingleStep(Workload):
    """One training step, over and over.

    Every run steps on from where the last one ended, at a constant learning rate and on the same batch: the
    work is the same each time, and copying the weights back would be timed along with it.

    Attributes:
        model, batches, clip, precision: see `Training`.
        update_only: leave out forward and backward; the gradients stay those of the first step.
    """

    model: nn.Module
    batches: Batches
    clip: float = 0.0
    precision: Precision = "float32"
    update_only: bool = False

    def start(self, make: MakeOptimizer, device: str) -> Callable[[], Outcome]:
        """See `Workload.start`; the optimizer's state exists before the first run."""
        batches, model = self.batches.to(device), copy.deepcopy(self.model).to(device).train()
        optimizer = make(model.parameters())
        first_loss = take_step(model, optimizer, batches, 0, self.clip, self.precision, device)

        def update() -> Outcome:
            optimizer.step()
            return Outcome(optimizer, model, first_loss[None])

        def run() -> Outcome:
            loss = take_step(model, optimizer, batches, 0, self.clip, self.precision, device)
            return Outcome(optimizer, model, loss[None])

        if self.update_only:
            return update

        return run


def take_step(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Batches,
    step: int,
    clip: float,
    precision: Precision,
    device: str,
) -> Tensor:
    """Forward, backward and update on the batch of `step`; the loss before the update, shape ()."""
    optimizer.zero_grad(set_to_none=True)
    parts = batches.losses(model, step)
    total = torch.zeros((), device=device)
    while True:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = next(parts, None)
        if loss is None:
            break
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return total


@dataclass(frozen=True)
class GivenGradients(Workload):
    """A stream of gradients for one parameter vector, so that the update rule alone is seen.

    Attributes:
        start_at: initial parameters, (n,) float64.
        gradients: (steps, n) float64.
    """

    start_at: Tensor
    gradients: Tensor

    def start(self, make: MakeOptimizer, device: str) -> Callable[[], Outcome]:
        """See `Workload.start`."""
        initial, gradients = self.start_at.to(device), self.gradients.to(device)

        def run() -> Outcome:
            holder = nn.ParameterList([nn.Parameter(initial.clone())])
            (parameter,) = holder
            optimizer = make(holder.parameters())
            path = torch.empty(len(gradients) + 1, len(initial), dtype=initial.dtype, device=device)
            path[0] = initial
            for step, gradient in enumerate(gradients):
                parameter.grad = gradient
                optimizer.step()
                path[step + 1] = parameter.detach()
            return Outcome(optimizer, holder, torch.empty(0), path=path)

        return run


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimizer's state tensors; scalars such as step counters are not counted."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.dim() > 0
    )
