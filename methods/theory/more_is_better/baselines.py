"""Baselines: a ridge that is not tuned, a ridge tuned without test points, exponents off the spectrum."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from harness.method import Method, method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.theory.more_is_better import samples
from methods.theory.more_is_better.decays import spectrum_curves
from methods.theory.more_is_better.kernels import NetworkKernel, network_gram
from methods.theory.more_is_better.method import RandomFeatureRidge
from methods.theory.more_is_better.ridge import RidgeBasis
from methods.theory.more_is_better.work import Decays, ExponentWork


@method("rf-fixed-ridge", task=("gaussian-ridge", "image-ridge"))
class FixedRidge(RandomFeatureRidge):
    """Random-feature regression with one small ridge for every k and n: shows the double-descent peak."""

    ridge: PositiveFloat = 1e-3
    """delta, not divided by n."""

    def choose(self, basis: RidgeBasis, y: Tensor, ridges: Tensor) -> float:
        return self.ridge


@method("rf-leave-one-out", task=("gaussian-ridge", "image-ridge"))
class LeaveOneOut(RandomFeatureRidge):
    """Random-feature regression with the ridge of the grid that has the least leave-one-out error."""

    def choose(self, basis: RidgeBasis, y: Tensor, ridges: Tensor) -> float:
        return float(ridges[basis.leave_one_out(y, ridges).argmin()])


@method("spectrum-exponents", task="powerlaw-exponents")
class SpectrumExponents(Method[ExponentWork, Decays]):
    """Exponents read directly off the eigenvalues and coefficients of a fully connected ReLU kernel.

    A finite sample distorts both, the small eigenvalues most, which is why the paper uses proxies.
    """

    kernel: NetworkKernel = "ntk"
    """"nngp" (only the last layer is trained) or "ntk" (all layers are)."""

    depth: PositiveInt = 3
    """Hidden layers."""

    least_mode: PositiveInt = 10
    """The first mode of the straight line."""

    greatest_share: Fraction = 0.5
    """The last mode of the straight line, as a share of the number of images."""

    def prepare(self, work: ExponentWork) -> None:
        images = samples.tensor(work.trial.x, self.context.device)
        self.kernel_matrix = network_gram(images, images[:1], self.kernel, self.depth)[0]
        self.targets = samples.tensor(work.trial.y, self.context.device)

    def run(self) -> Decays:
        values, tails = spectrum_curves(self.kernel_matrix, self.targets)
        chosen = slice(self.least_mode - 1, int(self.greatest_share * len(values)))
        return Decays(np.arange(1.0, len(values) + 1)[chosen], values[chosen], tails[chosen])
