"""Small trainings that say how good an optimizer program is: perceptrons on scikit-learn's digits, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.seeding import rng
from methods.training.images import image_set
from methods.training.lion.operations import Layout
from methods.training.lion.programs import Program, compiled

Array = np.ndarray


@dataclass(frozen=True)
class Points:
    """Inputs (n, features) float32 and classes (n,) int64."""

    inputs: Array
    classes: Array


@dataclass(frozen=True)
class Digits:
    """The digits in three parts: to train on, to choose programs by, and to judge the chosen one by.

    Pixels are centred and turned by one random rotation, so that no weight's gradient is always zero.
    """

    train: Points
    validation: Points
    test: Points


def digits() -> Digits:
    """1,077 digits to train on, 360 to choose by, 360 to judge by; the same on every machine."""
    images = image_set("digits")
    rotation = np.linalg.qr(rng(0, "rotation of pixels").standard_normal((64, 64)))[0]

    def points(pixels: Array, classes: Array) -> Points:
        return Points((pixels.reshape(len(pixels), 64) @ rotation).astype(np.float32), classes)

    pixels, classes = images.train_images.numpy(), images.train_labels.numpy()
    return Digits(
        points(pixels[:1077], classes[:1077]),
        points(pixels[1077:], classes[1077:]),
        points(images.test_images.numpy(), images.test_labels.numpy()),
    )


class Perceptron:
    """One hidden layer of tanh units and a softmax; all weights lie in one vector.

    Args:
        features, hidden, classes: widths.
    """

    def __init__(self, features: int, hidden: int, classes: int = 10) -> None:
        self.shapes = ((features, hidden), (hidden,), (hidden, classes), (classes,))
        self.layout = Layout(tuple(math.prod(shape) for shape in self.shapes))

    def initial(self, random: np.random.Generator) -> Array:
        """Weights of variance 1 / inputs, biases zero: (weights,) float32."""
        parts = [
            random.standard_normal(shape) / math.sqrt(shape[0]) if len(shape) == 2 else np.zeros(shape)
            for shape in self.shapes
        ]
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    def split(self, vector: Array) -> list[Array]:
        """Views of a vector (weights,) in the shapes of W1, b1, W2, b2."""
        starts = self.layout.starts
        return [
            vector[start : start + size].reshape(shape)
            for start, size, shape in zip(starts, self.layout.sizes, self.shapes, strict=True)
        ]

    def loss(self, weights: Array, points: Points) -> float:
        """Mean cross-entropy in nats."""
        w1, b1, w2, b2 = self.split(weights)
        logits = np.tanh(points.inputs @ w1 + b1) @ w2 + b2
        return float(-_log_softmax(logits)[np.arange(len(logits)), points.classes].mean(dtype=np.float64))

    def gradient(self, weights: Sequence[Array], out: Sequence[Array], inputs: Array, classes: Array) -> None:
        """The gradient of the mean cross-entropy, by back-propagation, into the views `out`."""
        w1, b1, w2, b2 = weights
        hidden = np.tanh(inputs @ w1 + b1)
        error = np.exp(_log_softmax(hidden @ w2 + b2))
        error[np.arange(len(inputs)), classes] -= 1.0
        error /= len(inputs)
        np.matmul(hidden.T, error, out=out[2])
        np.sum(error, axis=0, out=out[3])
        back = (error @ w2.T) * (1.0 - hidden * hidden)
        np.matmul(inputs.T, back, out=out[0])
        np.sum(back, axis=0, out=out[1])


def _log_softmax(logits: Array) -> Array:
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Proxy:
    """A training, deterministic: the score of a program is a function of what it computes.

    Attributes:
        train, held_out: data.
        hidden: width of the hidden layer.
        steps, batch: of the training; the learning rate given to a program is 1 at first and falls to 0.
        seeds: one training each; the score is the mean.
    """

    train: Points
    held_out: Points
    hidden: int
    steps: int
    batch: int
    seeds: tuple[int, ...]

    @cached_property
    def network(self) -> Perceptron:
        """The network that is trained."""
        return Perceptron(self.train.inputs.shape[1], self.hidden)

    def score(self, program: Program) -> float:
        """Held-out loss in nats after training with `program`; infinite when it diverges."""
        total = 0.0
        for seed in self.seeds:
            total += self._train(program, seed)
            if not math.isfinite(total):
                return math.inf
        return total / len(self.seeds)

    def _train(self, program: Program, seed: int) -> float:
        update = compiled(program, self.network.layout)
        w = self.network.initial(rng(seed, "initial weights"))
        order = rng(seed, "batches").integers(len(self.train.classes), size=(self.steps, self.batch))
        g, m, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
        weights, gradient = self.network.split(w), self.network.split(g)
        with np.errstate(all="ignore"):
            for step, chosen in enumerate(order):
                self.network.gradient(weights, gradient, self.train.inputs[chosen], self.train.classes[chosen])
                lr = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
                delta, m, v = update(w, g, m, v, lr)
                w -= delta
                if not math.isfinite(float(w[0])) or not math.isfinite(float(w @ w)):
                    return math.inf
            loss = self.network.loss(w, self.held_out)
        return loss if math.isfinite(loss) else math.inf
