"""The family's tasks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from harness.method import Measurement, Metric, Task, task
from harness.seeding import rng
from harness.types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from methods.vision import images, noise
from methods.vision.noisy_labels import NoisyLabels, Recipe, Trained, score

NOISY_LABEL_METRICS = (
    Metric("accuracy", doc="Share of the test examples that the chosen network classifies rightly."),
    Metric("best_accuracy", doc="Best test accuracy of all watched epochs; no method can know which."),
    Metric("validation_accuracy", doc="Share of the noisy validation labels that are predicted."),
    Metric("memorised", better="lower", doc="Share of the wrong training labels that are predicted."),
    Metric("corrected", doc="Share of the wrongly labelled examples predicted with their true class."),
    Metric("peak_corrected", doc="Greatest such share in the early epochs."),
    Metric("memorised_at_peak", better="lower", doc="Share of wrong labels predicted in that epoch."),
    Metric("learned", doc="Share of the rightly labelled training examples that are predicted rightly."),
    Metric("detection_precision", doc="Share of the suspected labels that are wrong; 0 if none is."),
    Metric("detection_recall", doc="Share of the wrong labels that are suspected."),
    Metric("wrong_share", better="neither", doc="Share of the training labels that are wrong."),
    Metric("chosen_epoch", better="neither", doc="After which epoch the chosen network was taken."),
    Metric("steps", better="neither", doc="Optimiser steps.", deterministic=True),
)


@task(
    "noisy-label-classification",
    metrics=NOISY_LABEL_METRICS,
    repeats="once",
    amount_unit="examples",
    data=("mnist-10k", "cifar10-subset", "cifar10", "cifar100"),
)
class NoisyLabelClassification(Task[NoisyLabels, Trained]):
    """Learn to classify images from labels of which some are wrong.

    Data, noise, network, order of batches and schedule belong to the task, so that methods differ in
    nothing but what they make of a batch. The draws of images, noise, initial weights, order and crops
    come from streams of their own.
    """

    data: Literal["digits", "mnist-10k", "cifar10-subset", "cifar10", "cifar100"] = "digits"
    """scikit-learn's digits (8x8), MNIST's test split (28x28), or CIFAR (32x32x3)."""

    train: PositiveInt | None = None
    """Training images, those held out for validation included; None for all that are for training."""

    test: PositiveInt | None = None
    """Test images; None for all."""

    validation: Fraction = 0.1
    """Share of the training images held out, with noisy labels, for choosing between networks."""

    noise: Literal["symmetric", "asymmetric"] = "symmetric"
    """Wrong labels drawn from all classes, or from one class like the true one."""

    rate: Fraction = 0.4
    """Share of the examples whose label is drawn anew (symmetric) or of those of a confusable class that get
    the wrong one (asymmetric)."""

    network: Literal["mlp-256", "mlp-512", "cnn-5", "resnet-18", "resnet-34", "preact-resnet-18"] = "mlp-256"
    """The classifier: two hidden layers, five convolutions, or a residual network."""

    epochs: PositiveInt = 150
    """Passes over the training set."""

    batch: PositiveInt = 64
    """Examples per step."""

    lr: PositiveFloat = 0.02
    """Learning rate of stochastic gradient descent."""

    momentum: Fraction = 0.9
    """Momentum of the same."""

    weight_decay: NonNegativeFloat = 0.001
    """L2 coefficient of the same."""

    milestones: tuple[int, ...] = ()
    """Epochs after which the learning rate is multiplied by `decay`."""

    decay: Fraction = 0.01
    """Factor at each milestone."""

    restart: PositiveInt | None = None
    """Period of cosine annealing with restarts, in epochs; None for none."""

    lr_floor: NonNegativeFloat = 0.0
    """Where the cosine ends."""

    augment: bool = False
    """Random crops (margin of 4) and flips of the training images."""

    early: PositiveInt = 20
    """The epochs before this one count as early; the network is looked at after each of them."""

    watch_every: PositiveInt = 5
    """How often the network is looked at after that, in epochs."""

    def __post_init__(self) -> None:
        if self.lr_floor and self.restart is None:
            raise ValueError("lr_floor is where a cosine ends: set restart, its period, too")
        if self.validation == 1:
            raise ValueError("validation = 1 leaves nothing to train with")

    def load(self, seed: int) -> NoisyLabels:
        drawn = images.load(self.data, self.train, self.test, rng(seed, "split"))
        given = self.corrupt(drawn, rng(seed, "noise"))
        held_out = round(self.validation * len(given))
        order = torch.from_numpy(rng(seed, "validation").permutation(len(given)))
        validation, train = order[:held_out], order[held_out:]
        return NoisyLabels(
            inputs=drawn.train[train],
            given=given[train],
            true=drawn.train_labels[train],
            validation=drawn.train[validation],
            validation_given=given[validation],
            test=drawn.test,
            test_labels=drawn.test_labels,
            classes=drawn.classes,
            network=self.network,
            black=drawn.black,
            recipe=Recipe(
                epochs=self.epochs,
                batch=self.batch,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                milestones=tuple(self.milestones),
                decay=self.decay,
                restart=self.restart,
                lr_floor=self.lr_floor,
                augment=self.augment,
                early=self.early,
                watch_every=self.watch_every,
            ),
        )

    def corrupt(self, drawn: images.Images, generator: np.random.Generator) -> torch.Tensor:
        """The training labels after the noise, [n] int64."""
        labels = drawn.train_labels
        if self.noise == "symmetric":
            return noise.symmetric(labels, drawn.classes, self.rate, generator)
        if drawn.superclass is not None:
            return noise.next_in_superclass(labels, drawn.superclass, self.rate, generator)
        cifar = self.data in ("cifar10", "cifar10-subset")
        confusions = noise.CIFAR10_CONFUSIONS if cifar else noise.DIGIT_CONFUSIONS
        return noise.confused(labels, confusions, self.rate, generator)

    def score(self, work: NoisyLabels, output: Trained) -> Measurement:
        return score(work, output)

    def amount(self, work: NoisyLabels) -> float:
        """Training examples seen."""
        return float(work.recipe.epochs * len(work.inputs))


@task(
    "two-gaussians-noisy-labels",
    metrics=NOISY_LABEL_METRICS,
    repeats="once",
    amount_unit="examples",
)
class TwoGaussiansNoisyLabels(Task[NoisyLabels, Trained]):
    """Logistic regression on a mixture of two Gaussians, some of whose labels are flipped.

    x = y v + sigma z with y in {-1, 1}, v the first unit vector and z standard normal. Full-batch
    gradient descent from zero; one epoch is one step. The model in which the paper proves that early
    learning comes before memorisation.
    """

    examples: PositiveInt = 300
    """Training examples n."""

    test: PositiveInt = 1000
    """Test examples, with clean labels."""

    dimension: PositiveInt = 3000
    """Features p; the noise of an example is sigma sqrt(p) long, the signal 1."""

    sigma: NonNegativeFloat = 0.1
    """Standard deviation of the noise in each feature."""

    rate: Fraction = 0.3
    """Probability that a label is flipped."""

    epochs: PositiveInt = 1000
    """Gradient steps."""

    lr: PositiveFloat = 1.0
    """Step size."""

    early: PositiveInt = 20
    """The steps before this one count as early; the model is looked at after each of them."""

    watch_every: PositiveInt = 10
    """How often it is looked at after that, in steps."""

    def load(self, seed: int) -> NoisyLabels:
        n = self.examples + self.test
        true = rng(seed, "classes").integers(2, size=n)
        inputs = self.sigma * rng(seed, "inputs").standard_normal((n, self.dimension), dtype=np.float32)
        inputs[:, 0] += 2 * true - 1
        flipped = rng(seed, "noise").random(self.examples) < self.rate
        x, y = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(true)
        train, test = slice(self.examples), slice(self.examples, None)
        return NoisyLabels(
            inputs=x[train],
            given=torch.where(torch.from_numpy(flipped), 1 - y[train], y[train]),
            true=y[train],
            validation=x[:0],
            validation_given=y[:0],
            test=x[test],
            test_labels=y[test],
            classes=2,
            black=torch.zeros(1),
            network="logistic",
            recipe=Recipe(
                epochs=self.epochs,
                batch=self.examples,
                lr=self.lr,
                early=self.early,
                watch_every=self.watch_every,
            ),
        )

    def score(self, work: NoisyLabels, output: Trained) -> Measurement:
        return score(work, output)

    def amount(self, work: NoisyLabels) -> float:
        """Training examples seen."""
        return float(work.recipe.epochs * len(work.inputs))
