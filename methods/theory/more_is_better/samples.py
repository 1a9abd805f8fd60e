"""From a task's work to what a regression is made of: random features, their limiting kernel, and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.theory.more_is_better.kernels import network_gram
from methods.theory.more_is_better.ridge import RidgeBasis
from methods.theory.more_is_better.work import GaussianWork, ImageTrial, ImageWork

RidgeWork = GaussianWork | ImageWork


@dataclass(frozen=True)
class Sample:
    """What the regression on one trial starts from, on the device.

    Attributes:
        train: features [n, k] or the kernel K_{XX} [n, n].
        test: features [t, k] or the kernel K_{test,X} [t, n].
        y: clean training targets [n, c].
        y_test: clean test targets [t, c]. The Gaussian task's targets have their noise already.
    """

    train: Tensor
    test: Tensor
    y: Tensor
    y_test: Tensor


def tensor(array: np.ndarray, device: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """`array` on `device`."""
    return torch.from_numpy(array).to(device=device, dtype=dtype)


def count(work: RidgeWork) -> int:
    """How many trials there are."""
    return work.trials if isinstance(work, GaussianWork) else len(work.draws)


def image_trial(work: RidgeWork, index: int) -> ImageTrial:
    """Trial `index` of an image task.

    Raises:
        TypeError: the task has no images.
    """
    if not isinstance(work, ImageWork):
        raise TypeError(f"needs images, not {type(work).__name__}")
    return work.draws[index]


def random_features(
    work: RidgeWork, index: int, k: int, rng: np.random.Generator, device: str, dtype: torch.dtype
) -> Sample:
    """psi(x) for the points of a trial.

    Gaussian inputs: psi(x) = G diag(sqrt lambda) x with G ~ N(0, 1), for which E psi_j(x) psi_j(x') =
    sum_i lambda_i x_i x'_i. (The paper draws G with variance 1/M and multiplies the kernel by M.)
    Images: psi(x) = relu(W x) with W ~ N(0, 2/d).
    """
    if isinstance(work, GaussianWork):
        scaled, y = _scaled(work, index, device)
        psi = _linear(scaled, k, rng).to(dtype)
        return Sample(psi[: work.n], psi[work.n :], y[: work.n].to(dtype), y[work.n :].to(dtype))
    trial = work.draws[index]
    pixels = trial.x[0].size
    weights = tensor(rng.standard_normal((k, pixels)) * np.sqrt(2 / pixels), device, dtype)
    train, test = (
        torch.relu(tensor(x.reshape(-1, pixels), device, dtype) @ weights.T) for x in (trial.x, trial.x_test)
    )
    return Sample(train, test, tensor(trial.y, device, dtype), tensor(trial.y_test, device, dtype))


def limiting_kernel(work: RidgeWork, index: int, device: str) -> Sample:
    """The kernel that infinitely many random features have: sum_i lambda_i x_i x'_i, or the ReLU NNGP."""
    if isinstance(work, ImageWork):
        trial = work.draws[index]
        kernels = network_gram(tensor(trial.x, device), tensor(trial.x_test, device), "nngp", depth=1)
        return Sample(*kernels, tensor(trial.y, device), tensor(trial.y_test, device))
    scaled, y = _scaled(work, index, device)
    x = scaled[: work.n]
    return Sample(x @ x.T, scaled[work.n :] @ x.T, y[: work.n], y[work.n :])


def targets(work: RidgeWork, index: int, sample: Sample, basis: RidgeBasis) -> tuple[Tensor, Tensor]:
    """Targets of a trial, [n, c] and [t, c], with the label noise that an image task asks for.

    It is relative to the ridgeless noiseless test MSE of the regression in `basis`.
    """
    if isinstance(work, GaussianWork) or work.noise == 0:
        return sample.y, sample.y_test
    ridgeless = float(basis.errors(sample.y, sample.y_test, basis.values.new_zeros(1))[1])
    train, test = work.noisy(index, ridgeless)
    return (
        tensor(train, str(sample.y.device), sample.y.dtype),
        tensor(test, str(sample.y.device), sample.y.dtype),
    )


def _scaled(work: GaussianWork, index: int, device: str) -> tuple[Tensor, Tensor]:
    """sqrt(lambda_i) x_i of all points, [n + t, modes], and their targets [n + t, 1]."""
    trial = work.trial(index)
    points = tensor(trial.points, device)
    points *= tensor(np.sqrt(work.system.eigenvalues), device)
    return points, tensor(trial.targets, device)


def _linear(x: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """x G^T for G ~ N(0, 1) with k rows, [p, k] for x [p, m].

    Given x, the columns of x G^T are independent draws of N(0, x x^T). With more features than points it
    is cheaper to draw these from the Cholesky factor of x x^T than to draw G; the law is the same.
    """
    points, modes = x.shape
    if k <= points or points > modes:
        return torch.as_tensor(x @ tensor(rng.standard_normal((k, modes)), str(x.device)).T)
    factor = torch.linalg.cholesky(x @ x.T)
    return torch.as_tensor(factor @ tensor(rng.standard_normal((k, points)), str(x.device)).T)
