"""What the tasks hand to their methods: synthetic and real regressions, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.seeding import rng
from methods.theory.images import Source
from methods.theory.more_is_better.eigenframework import Eigensystem

Array = NDArray[np.float64]

Labels = Literal["classes", "halves"]
"""One-hot targets of ten classes, or +1 and -1 for two groups of five."""


def ridge_grid(least: float, greatest: float, count: int) -> Array:
    """`count` ridges from `least` to `greatest`, evenly spaced in their logarithm.

    Raises:
        ValueError: they do not rise.
    """
    if not least < greatest or count < 2:
        raise ValueError(f"the ridges must rise: {count} of them from {least} to {greatest}")
    return np.geomspace(least, greatest, count)


@dataclass(frozen=True)
class GaussianTrial:
    """One draw of the synthetic task: inputs [n + t, modes] in the kernel's eigenbasis, targets [n + t, 1].

    The training points come first.
    """

    points: Array
    targets: Array


@dataclass(frozen=True)
class GaussianWork:
    """The synthetic task; a trial is drawn when asked for, because one holds 100 MB at the paper's size."""

    system: Eigensystem
    n: int
    test_points: int
    trials: int
    ridges: Array
    seed: int

    def trial(self, index: int) -> GaussianTrial:
        """x ~ N(0, I), y = sum_i v_i x_i + noise. The first n points are the same whatever n is."""
        points = np.empty((self.n + self.test_points, len(self.system.power)))
        noise = np.empty(len(points))
        for part, rows in (("train", slice(self.n)), ("test", slice(self.n, None))):
            rng(self.seed, "inputs", part, index).standard_normal(out=points[rows])
            rng(self.seed, "noise", part, index).standard_normal(out=noise[rows])
        y = points @ np.sqrt(self.system.power) + np.sqrt(self.system.noise) * noise
        return GaussianTrial(points, y[:, None])


@dataclass(frozen=True)
class ImageTrial:
    """One draw of an image task: standardised images [., h, w, c] and clean targets [., outputs]."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


@dataclass(frozen=True)
class ImageWork:
    """Images with their targets, and the noise that a method adds to them."""

    source: Source
    labels: Labels
    draws: tuple[ImageTrial, ...]
    noise: float
    ridges: Array
    seed: int

    def noisy(self, index: int, ridgeless_mse: float) -> tuple[Array, Array]:
        """Targets of trial `index` with noise, [n, outputs] and [t, outputs].

        The noise of a sample has variance `noise` x `ridgeless_mse` in all, spread evenly over the outputs;
        the noisy targets are then scaled back to the norm that the clean ones have (1).

        Args:
            index: which trial.
            ridgeless_mse: test MSE of the method's ridgeless regression on the clean targets.
        """
        trial, parts = self.draws[index], []
        for part, y in (("train", trial.y), ("test", trial.y_test)):
            if self.noise > 0:
                unit = rng(self.seed, "label noise", part, index).standard_normal(y.shape)
                noisy = y + unit * np.sqrt(self.noise * ridgeless_mse / y.shape[1])
                y = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
            parts.append(y)
        return parts[0], parts[1]


def targets(labels: NDArray[np.int64], kind: Labels) -> Array:
    """One-hot targets [n, 10], or +1 for the classes 0, 1, 7, 8, 9 and -1 for the others [n, 1]."""
    if kind == "classes":
        return np.eye(10)[labels]
    return np.where(np.isin(labels, (0, 1, 7, 8, 9)), 1.0, -1.0)[:, None]


@dataclass(frozen=True)
class ExponentWork:
    """Images, and the numbers of training images (rising; the last is all of them) at which decays are read."""

    trial: ImageTrial
    sizes: NDArray[np.int64]
    source: Source
    seed: int


@dataclass(frozen=True)
class Decays:
    """Two curves whose logarithms are straight lines on a powerlaw task.

    Attributes:
        index: abscissa of both, [p].
        eigenvalue: proportional to index^-alpha, [p].
        error: proportional to index^(1 - beta), [p].
    """

    index: Array
    eigenvalue: Array
    error: Array


@dataclass(frozen=True)
class PowerlawWork:
    """A powerlaw task of kernel ridge regression with infinitely many modes."""

    alpha: float
    beta: float
    noise: float
    n: int


@dataclass(frozen=True)
class FittingCurve:
    """Test error against the fitting ratio; ratios rise from 0, [p] each."""

    ratio: Array
    risk: Array
