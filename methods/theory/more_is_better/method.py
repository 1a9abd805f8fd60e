"""Random-feature and kernel ridge regression, and the theory that predicts their errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import cache
from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import PositiveInt
from methods.theory import images
from methods.theory.more_is_better import closed_form, eigenframework, samples
from methods.theory.more_is_better.cntk import BLOCKS
from methods.theory.more_is_better.decays import proxies
from methods.theory.more_is_better.eigenframework import Eigensystem
from methods.theory.more_is_better.kernels import NetworkKernel, Precision, myrtle_gram, network_gram
from methods.theory.more_is_better.regression import RidgeRegression
from methods.theory.more_is_better.ridge import RidgeBasis
from methods.theory.more_is_better.risks import Risks
from methods.theory.more_is_better.samples import RidgeWork, Sample
from methods.theory.more_is_better.work import (
    Decays,
    ExponentWork,
    FittingCurve,
    GaussianWork,
    ImageTrial,
    ImageWork,
    PowerlawWork,
    targets,
)


@method("rf-ridge", task=("gaussian-ridge", "image-ridge"))
class RandomFeatureRidge(RidgeRegression):
    """Ridge regression on k random features, with the best ridge of the grid.

    K^(x, x') = (1/k) sum_j psi_j(x) psi_j(x') and y_hat(x) = K^_{x,X} (K^_{XX} + delta I)^{-1} y.
    """

    features: PositiveInt = 1000
    """k, the number of random features."""

    precision: Precision = "float64"
    """Of the features, the kernel and its eigendecomposition."""

    def draw(self, work: RidgeWork, index: int) -> Sample:
        return samples.random_features(
            work,
            index,
            self.features,
            self.context.rng("features", index),
            self.context.device,
            getattr(torch, self.precision),
        )

    def basis(self, sample: Sample) -> RidgeBasis:
        return RidgeBasis.from_features(sample.train, sample.test)


@method("kernel-ridge", task=("gaussian-ridge", "image-ridge"))
class KernelRidge(RidgeRegression):
    """Ridge regression with the kernel that infinitely many random features have, K = E K^."""

    def draw(self, work: RidgeWork, index: int) -> Sample:
        return samples.limiting_kernel(work, index, self.context.device)


@method("network-kernel-ridge", task="image-ridge")
class NetworkKernelRidge(RidgeRegression):
    """Ridge regression with the kernel of an infinitely wide, fully connected ReLU network."""

    kernel: NetworkKernel = "ntk"
    """"nngp" (only the last layer is trained) or "ntk" (all layers are)."""

    depth: PositiveInt = 3
    """Hidden layers."""

    def draw(self, work: RidgeWork, index: int) -> Sample:
        trial, device = samples.image_trial(work, index), self.context.device
        kernels = network_gram(*_tensors(trial, device), self.kernel, self.depth)
        return Sample(*kernels, samples.tensor(trial.y, device), samples.tensor(trial.y_test, device))


@method("cntk-ridge", task="image-ridge")
class ConvolutionalKernelRidge(RidgeRegression):
    """Ridge regression with the neural tangent kernel of a Myrtle network; the kernel is kept in the cache."""

    depth: PositiveInt = 10
    """5, 7 or 10."""

    precision: Precision = "float32"
    """Of the recursion over the layers; the regression itself is float64."""

    pair_batch: PositiveInt = 256
    """Pairs of images at a time; one of 32 x 32 pixels takes about 40 MB in float32."""

    def __post_init__(self) -> None:
        _check_myrtle(self.depth)

    def draw(self, work: RidgeWork, index: int) -> Sample:
        trial, device = samples.image_trial(work, index), self.context.device
        kernels = _cached_myrtle(self, trial)
        return Sample(*kernels, samples.tensor(trial.y, device), samples.tensor(trial.y_test, device))


@method("eigenframework", task="gaussian-ridge")
class Eigenframework(Method[GaussianWork, Risks]):
    """The omniscient risk estimate: train and test error from the task's eigensystem, without any data."""

    features: PositiveInt | None = None
    """k, the number of random features; None: infinitely many, which is kernel ridge regression."""

    def prepare(self, work: GaussianWork) -> None:
        pass

    def run(self) -> Risks:
        work = self.work
        risk = eigenframework.predict(work.system, work.n, work.ridges, self.features)
        return Risks(risk.train[None], risk.test[None], self.features)


@method("empirical-eigenframework", task="image-ridge")
class EmpiricalEigenframework(Method[ImageWork, Risks]):
    """The same for ReLU features of images: the eigensystem is that of the limiting kernel on a pool of images.

    Eigenvalues are those of K/N, coefficients (1/N)(sqrt(N) U)^T y; errors are for pool points off the sample.
    """

    features: PositiveInt | None = None
    """k, the number of random features; None: infinitely many."""

    pool: PositiveInt = 3000
    """N, the images whose kernel is decomposed."""

    def prepare(self, work: ImageWork) -> None:
        if work.noise > 0:
            raise ValueError("the eigensystem of images is that of clean labels; the task has noise")
        ((pixels, labels),) = images.draw(work.source, (self.pool,), self.context.derive("pool"))
        pool = samples.tensor(pixels, self.context.device)
        values, vectors = torch.linalg.eigh(network_gram(pool, pool[:1], "nngp", depth=1)[0])
        y = samples.tensor(targets(labels, work.labels), self.context.device)
        power = (vectors.T @ y).square().sum(1) / self.pool
        smallest = torch.finfo(values.dtype).eps * self.pool * values[-1]
        self.system = Eigensystem.of(
            (values.clamp_min(smallest) / self.pool).cpu().numpy(), power.cpu().numpy()
        )

    def run(self) -> Risks:
        n = len(self.work.draws[0].x)
        risk = eigenframework.predict(self.system, n, self.work.ridges, self.features)
        test = eigenframework.off_sample(risk.test, risk.train, n, self.pool)
        return Risks(risk.train[None], test[None], self.features)


@method("network-kernel-exponents", task="powerlaw-exponents")
class NetworkKernelExponents(Method[ExponentWork, Decays]):
    """Exponents of a fully connected ReLU kernel by proxies.

    (Tr K_n^{-1})^{-1} falls as n^-alpha, the ridgeless test MSE as n^(1 - beta).
    """

    kernel: NetworkKernel = "ntk"
    """"nngp" (only the last layer is trained) or "ntk" (all layers are)."""

    depth: PositiveInt = 3
    """Hidden layers."""

    def prepare(self, work: ExponentWork) -> None:
        train, test = _tensors(work.trial, self.context.device)
        self.kernels = network_gram(train, test, self.kernel, self.depth)

    def run(self) -> Decays:
        return proxies(*self.kernels, self.work)


@method("cntk-exponents", task="powerlaw-exponents")
class ConvolutionalKernelExponents(Method[ExponentWork, Decays]):
    """The same proxies for the neural tangent kernel of a Myrtle network; the kernel is kept in the cache."""

    depth: PositiveInt = 10
    """5, 7 or 10."""

    precision: Precision = "float32"
    """Of the recursion over the layers; the proxies are float64."""

    pair_batch: PositiveInt = 256
    """Pairs of images at a time; one of 32 x 32 pixels takes about 40 MB in float32."""

    def __post_init__(self) -> None:
        _check_myrtle(self.depth)

    def prepare(self, work: ExponentWork) -> None:
        self.kernels = _cached_myrtle(self, work.trial)

    def run(self) -> Decays:
        return proxies(*self.kernels, self.work)


@method(
    "eigenframework-optimum",
    task="powerlaw-optimum",
    metrics=[Metric("ridge", better="neither", doc="The best ridge; 0 is interpolation.", deterministic=True)],
)
class EigenframeworkOptimum(Method[PowerlawWork, FittingCurve]):
    """The best ridge of the eigenframework with infinitely many features, found numerically."""

    ridges: PositiveInt = 200
    """Ridges of the first search, evenly spaced in their logarithm; the best is then refined."""

    def prepare(self, work: PowerlawWork) -> None:
        self.clean = Eigensystem.powerlaw(work.alpha, work.beta)

    def run(self) -> FittingCurve:
        noise = self.work.noise * float(eigenframework.predict(self.clean, self.work.n, 0.0).test[0])
        system = self.clean.with_noise(noise)
        # Ridges in units of the eigenvalue at n: at 1e-6 of it all is fitted, at 1e6 nothing.
        grid = self.work.n**-self.work.alpha * self.work.n * np.geomspace(1e-6, 1e6, self.ridges)
        risk = eigenframework.predict(system, self.work.n, np.concatenate([[0.0], grid]))
        best = int(risk.test.argmin())
        if best > 0:
            around = np.geomspace(
                risk.ridges[max(best - 1, 1)], risk.ridges[min(best + 1, len(grid))], self.ridges
            )
            everything = np.unique(np.concatenate([risk.ridges, around]))
            risk = eigenframework.predict(system, self.work.n, everything)
        self.ridge = float(risk.ridges[risk.test.argmin()])
        ratio = risk.train / risk.test
        return FittingCurve(ratio, risk.test)

    def measure(self, output: FittingCurve) -> Measurement:
        return as_measurement(self.task.score(self.work, output)) | {"ridge": self.ridge}


@method("closed-form-optimum", task="powerlaw-optimum")
class ClosedFormOptimum(Method[PowerlawWork, FittingCurve]):
    """The closed form of the test error as a function of the fitting ratio, exact as n grows."""

    points: PositiveInt = 2000
    """Fitting ratios between 0 and 1 on the curve, besides the best one."""

    def prepare(self, work: PowerlawWork) -> None:
        pass

    def run(self) -> FittingCurve:
        a, b, noise = self.work.alpha, self.work.beta, self.work.noise
        best = closed_form.optimal_ratio(a, b, noise)
        ratio = np.unique([best, *np.linspace(0, 1, self.points, endpoint=False)])
        return FittingCurve(ratio, closed_form.risk(ratio, a, b, self.work.n, noise))


def _check_myrtle(depth: int) -> None:
    if depth not in BLOCKS:
        raise ValueError(f"the Myrtle networks have depth {sorted(BLOCKS)}, not {depth}")


def _cached_myrtle(
    regression: ConvolutionalKernelRidge | ConvolutionalKernelExponents, trial: ImageTrial
) -> tuple[Tensor, Tensor]:
    """The Myrtle kernels of a trial, kept because they take minutes and every noise level needs the same."""
    context = regression.context

    def make(path: Path) -> None:
        train, test = _tensors(trial, context.device)
        kernels = myrtle_gram(train, test, regression.depth, regression.precision, regression.pair_batch)
        with path.open("wb") as stream:
            torch.save(dict(zip(("train", "test"), (k.cpu() for k in kernels), strict=True)), stream)

    digest = hashlib.sha256(trial.x.tobytes() + trial.x_test.tobytes()).hexdigest()
    recipe = {"depth": regression.depth, "precision": regression.precision, "images": digest,
              "shapes": [list(trial.x.shape), list(trial.x_test.shape)]}  # fmt: skip
    path = cache.artefact("myrtle-ntk", recipe, make, context.cache)
    kernels = torch.load(path, map_location=context.device, weights_only=True)
    return kernels["train"], kernels["test"]


def _tensors(trial: ImageTrial, device: str) -> tuple[Tensor, Tensor]:
    return samples.tensor(trial.x, device), samples.tensor(trial.x_test, device)
