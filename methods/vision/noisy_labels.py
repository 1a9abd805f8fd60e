"""Training on wrong labels: the work, what a training returns, and how it is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.errors import BadOutput
from harness.method import Measurement, Series
from methods.vision.networks import NetworkName


@dataclass(frozen=True)
class Recipe:
    """How every method trains: optimiser, schedule, and when the network is looked at.

    Attributes:
        epochs: passes over the training set.
        batch: examples per step; a batch of the whole set is taken as it is, without shuffling.
        lr: learning rate of the first epoch.
        momentum: of stochastic gradient descent.
        weight_decay: L2 coefficient.
        milestones: epochs after which the learning rate is multiplied by `decay`.
        decay: see there.
        restart: period in epochs of a cosine from the learning rate down to `lr_floor`; None for none.
        lr_floor: see there.
        augment: random crops and flips of the training images.
        early: the epochs before this one are the early ones; the network is looked at after each.
        watch_every: later it is looked at after every so many epochs, and at the end.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    restart: int | None = None
    lr_floor: float = 0.0
    augment: bool = False
    early: int = 20
    watch_every: int = 1

    def rate(self, epoch: int) -> float:
        """The learning rate of `epoch`, counted from 1."""
        lr = self.lr * self.decay ** sum(epoch > milestone for milestone in self.milestones)
        if self.restart is None:
            return lr
        turn = math.pi * ((epoch - 1) % self.restart) / self.restart
        return self.lr_floor + (lr - self.lr_floor) * (1 + math.cos(turn)) / 2

    def watched(self, epoch: int) -> bool:
        """Whether the network is looked at after `epoch`, counted from 1."""
        return epoch < self.early or epoch % self.watch_every == 0 or epoch == self.epochs

    def steps(self, examples: int) -> int:
        """Optimiser steps of the whole training."""
        return self.epochs * math.ceil(examples / self.batch)


@dataclass(frozen=True)
class NoisyLabels:
    """Examples of which some have a wrong label.

    Attributes:
        inputs: [n, ...] float32.
        given: [n] int64, the labels to train with.
        true: [n] int64, the labels as they were; only the score may look at them.
        validation: [k, ...] float32, k may be 0.
        validation_given: [k] int64, as noisy as `given`.
        test: [m, ...] float32.
        test_labels: [m] int64, not noisy.
        classes: how many classes there are.
        black: [channels] float32, what the margin of a random crop is filled with.
        network: which network learns, a name for `networks.build`.
        recipe: how it is trained.
    """

    inputs: Tensor
    given: Tensor
    true: Tensor
    validation: Tensor
    validation_given: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    black: Tensor
    network: NetworkName
    recipe: Recipe


State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a training returns.

    Attributes:
        network: maps inputs [batch, ...] to logits [batch, classes].
        epochs: those after which the network was looked at, rising.
        states: its parameters and buffers at those times, on the CPU.
        chosen: the state that the method settles on: an index into `states`.
        suspected: [n] bool on the CPU, the training examples whose label the method takes for wrong; None for
            those whose label is not what the chosen network predicts.
    """

    network: nn.Module
    epochs: list[int]
    states: list[State]
    chosen: int = -1
    suspected: Tensor | None = None


def snapshot(network: nn.Module) -> State:
    """A copy on the CPU of all parameters and buffers."""
    return {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}


@torch.inference_mode()
def predict(network: nn.Module, inputs: Tensor, batch: int = 1024) -> Tensor:
    """The likeliest class of each input, [n] int64 on the CPU; in evaluation mode, which is undone after."""
    if not len(inputs):
        return torch.empty(0, dtype=torch.int64)
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    classes = [network(part.to(device)).argmax(1).cpu() for part in torch.split(inputs, batch)]
    network.train(training)
    return torch.cat(classes)


def share(true: Tensor) -> float:
    """The share of true entries, 0 where there are none at all."""
    return float(true.double().mean()) if len(true) else 0.0


def score(work: NoisyLabels, output: Trained) -> Measurement:
    """Accuracy on clean test labels, and what became of the wrong training labels.

    A wrong label is one that differs from the true one. It is *memorised* where the network predicts it,
    *corrected* where the network predicts the true class.

    Raises:
        BadOutput: `output` is no `Trained`, has no states, or has a verdict for another number of examples.
    """
    if not isinstance(output, Trained) or not output.states or len(output.states) != len(output.epochs):
        raise BadOutput("a training returns a Trained with one state for each watched epoch")
    wrong = work.given != work.true
    curves: dict[str, list[float]] = {"accuracy": [], "memorised": [], "corrected": []}
    for state in output.states:
        output.network.load_state_dict(state)
        answer = predict(output.network, work.inputs[wrong])
        curves["accuracy"].append(share(predict(output.network, work.test) == work.test_labels))
        curves["memorised"].append(share(answer == work.given[wrong]))
        curves["corrected"].append(share(answer == work.true[wrong]))

    output.network.load_state_dict(output.states[output.chosen])
    answer = predict(output.network, work.inputs)
    suspected = answer != work.given if output.suspected is None else output.suspected
    if suspected.shape != wrong.shape:
        raise BadOutput(f"{len(suspected)} labels are judged, but there are {len(wrong)}")
    early = [i for i, epoch in enumerate(output.epochs) if epoch < work.recipe.early]
    metrics = {
        "accuracy": curves["accuracy"][output.chosen],
        "best_accuracy": max(curves["accuracy"]),
        "validation_accuracy": share(predict(output.network, work.validation) == work.validation_given),
        "memorised": curves["memorised"][output.chosen],
        "corrected": curves["corrected"][output.chosen],
        "peak_corrected": max((curves["corrected"][i] for i in early), default=0.0),
        "memorised_at_peak": min(
            ((-curves["corrected"][i], curves["memorised"][i]) for i in early), default=(0.0, 0.0)
        )[1],
        "learned": share(answer[~wrong] == work.true[~wrong]),
        "detection_precision": share(wrong[suspected]),
        "detection_recall": share(suspected[wrong]),
        "wrong_share": share(wrong),
        "chosen_epoch": float(output.epochs[output.chosen]),
        "steps": float(work.recipe.steps(len(work.inputs))),
    }
    return Measurement(
        metrics,
        {
            f"{name}_by_epoch": Series(output.epochs, curve, x_label="epoch", y_label=name)
            for name, curve in curves.items()
        },
    )
