"""Early-learning regularization (ELR) and its variant with two networks (ELR+).

Liu, Niles-Weed, Razavian, Fernandez-Granda: Early-Learning Regularization Prevents Memorization of Noisy
Labels, NeurIPS 2020.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.method import Measurement, Method, as_measurement, method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from methods.vision.early_learning_regularization.targets import (
    TABLE_METRICS,
    Targets,
    TargetTraining,
    clipped_softmax,
    early_learning,
    likeliest,
    table_metrics,
)
from methods.vision.early_learning_regularization.training import (
    Batch,
    Batches,
    Examples,
    descend,
    fresh_network,
    optimiser,
    set_rate,
)
from methods.vision.noisy_labels import NoisyLabels, State, Trained, snapshot


@method("elr", task=("noisy-label-classification", "two-gaussians-noisy-labels"), metrics=TABLE_METRICS)
class EarlyLearningRegularization(TargetTraining):
    """Cross-entropy plus a pull towards what the network said of the example earlier.

    When the early answer is the given label, the pull keeps the gradient of that example alive; when the
    given label is wrong, it cancels the gradient of the cross-entropy towards it.
    """

    beta: Fraction = 0.7
    """Momentum of the running targets."""

    lam: NonNegativeFloat = 3.0
    """Weight lambda of the regulariser; 0 is plain cross-entropy."""

    def start(self) -> None:
        self.reset(self.beta)

    def loss(self, logits: Tensor, given: Tensor, index: Tensor) -> Tensor:
        q = clipped_softmax(logits)
        targets = self.targets.update(index, q)
        return F.cross_entropy(logits, given) + self.lam * early_learning(targets, q)


class Pair(nn.Module):
    """Two networks that answer with the mean of their logits."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (self.first(x) + self.second(x)) / 2
        return logits


@dataclass
class Student:
    """A network of the pair and what belongs to it."""

    network: nn.Module
    average: nn.Module
    """The running mean of its weights."""
    optimizer: torch.optim.Optimizer
    batches: Batches
    targets: Targets
    mixtures: np.random.Generator
    """Draws the weights and partners of mixup."""

    @torch.no_grad()
    def follow(self, alpha: float) -> None:
        """w_average <- alpha w_average + (1 - alpha) w."""
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - alpha)


@method("elr-plus", task="noisy-label-classification", metrics=TABLE_METRICS)
class EarlyLearningRegularizationPlus(Method[NoisyLabels, Trained]):
    """ELR+: two networks, mixup, and targets that each takes from the weight average of the other."""

    beta: Fraction = 0.7
    """Momentum of the running targets."""

    lam: NonNegativeFloat = 3.0
    """Weight lambda of the regulariser."""

    lam_ramp: NonNegativeInt = 0
    """Steps S over which lambda rises to its value; 0 for the whole of it from the start."""

    average: Fraction = 0.997
    """Momentum alpha of the weight averages."""

    average_ramp: NonNegativeInt = 40_000
    """Steps over which alpha rises to its value."""

    mixup: NonNegativeFloat = 1.0
    """Parameter a of Beta(a, a), from which the weight of a mixture is drawn; 0 mixes nothing."""

    product_from: PositiveInt = 100
    """From this many classes on, the mixed label is multiplied by the mixed target and normalised."""

    streams = ("a", "b")
    """Streams of weights, order, crops and mixtures of the two; the first is the one of single networks."""

    def prepare(self, work: NoisyLabels) -> None:
        self.networks = [fresh_network(work, self.context, stream) for stream in self.streams]
        self.initial: list[State] = [snapshot(network) for network in self.networks]
        self.examples = Examples(work, self.context.device)

    def run(self) -> Trained:
        recipe = self.work.recipe
        for network, initial in zip(self.networks, self.initial, strict=True):
            network.load_state_dict(initial)
        self.students = [
            self.student(network, stream) for network, stream in zip(self.networks, self.streams, strict=True)
        ]
        a, b = self.students
        pair = Pair(a.network, b.network)
        epochs: list[int] = []
        states: list[State] = []
        step = 0
        for epoch in range(1, recipe.epochs + 1):
            set_rate(a.optimizer, recipe.rate(epoch))
            set_rate(b.optimizer, recipe.rate(epoch))
            for first, second in zip(a.batches.epoch(), b.batches.epoch(), strict=True):
                step += 1
                # Both targets come from the averages as they were before either network moves.
                targets_a = self.targets(a, b, first)
                targets_b = self.targets(b, a, second)
                descend(a.optimizer, self.loss(a, first, targets_a, step))
                descend(b.optimizer, self.loss(b, second, targets_b, step))
                alpha = ramp(step, self.average_ramp) * self.average
                a.follow(alpha)
                b.follow(alpha)
            if recipe.watched(epoch):
                epochs.append(epoch)
                states.append(snapshot(pair))
        return Trained(pair, epochs, states, suspected=likeliest(a.targets, b.targets) != self.work.given)

    def student(self, network: nn.Module, stream: str) -> Student:
        """A student with the weights of `network` and an empty table."""
        n, classes = len(self.work.inputs), self.work.classes
        return Student(
            network=network.train(),
            # It normalises by its batch, as the network does: running statistics belong to other weights.
            average=copy.deepcopy(network).requires_grad_(False),
            optimizer=optimiser(network, self.work.recipe),
            batches=Batches(self.examples, self.context, stream),
            targets=Targets(n, classes, self.beta, self.context.device),
            mixtures=self.context.rng("mixup", stream),
        )

    @torch.no_grad()
    def targets(self, student: Student, peer: Student, batch: Batch) -> Tensor:
        """The rows T_i of `student` after the average of `peer` has seen the batch as it is, [B, C]."""
        index, inputs, _ = batch
        return student.targets.update(index, clipped_softmax(peer.average(inputs)))

    def loss(self, student: Student, batch: Batch, targets: Tensor, step: int) -> Tensor:
        """CE(f(x_mix), y_mix) + r(step) lambda mean log(1 - <q, p_mix>)."""
        _, inputs, given = batch
        labels = F.one_hot(given, self.work.classes).to(inputs.dtype)
        if self.mixup > 0:
            weight = student.mixtures.beta(self.mixup, self.mixup)
            weight = max(weight, 1 - weight)
            other = torch.from_numpy(student.mixtures.permutation(len(given))).to(given.device)
            inputs, labels, targets = (weight * v + (1 - weight) * v[other] for v in (inputs, labels, targets))
        if self.work.classes >= self.product_from:
            labels = F.normalize(labels * targets, p=1, dim=1)
        logits = student.network(inputs)
        pull = early_learning(targets, clipped_softmax(logits))
        return F.cross_entropy(logits, labels) + ramp(step, self.lam_ramp) * self.lam * pull

    def measure(self, output: Trained) -> Measurement:
        """The task's score of the mean of the two networks, and figures of the two tables together."""
        tables = (student.targets for student in self.students)
        return as_measurement(super().measure(output)) | table_metrics(self.work, *tables)


def ramp(step: int, length: int) -> float:
    """exp(-5 (1 - t / S)^2), rising from exp(-5) at t = 0 to 1 at t = S and staying there; 1 where S = 0."""
    if length == 0:
        return 1.0
    return math.exp(-5 * (1 - min(step, length) / length) ** 2)
