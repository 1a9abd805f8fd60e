"""The part that all ridge regressions share: a basis per trial, then the errors at every ridge."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from harness.method import Method
from methods.theory.more_is_better import samples
from methods.theory.more_is_better.ridge import RidgeBasis
from methods.theory.more_is_better.risks import Risks
from methods.theory.more_is_better.samples import RidgeWork, Sample


class RidgeRegression(Method[RidgeWork, Risks]):
    """Ridge regression over the task's ridges, one eigendecomposition per trial."""

    inputs: list[Sample]

    def prepare(self, work: RidgeWork) -> None:
        self.inputs = [self.draw(work, index) for index in range(samples.count(work))]

    @abstractmethod
    def draw(self, work: RidgeWork, index: int) -> Sample:
        """What the regression on trial `index` starts from."""

    def basis(self, sample: Sample) -> RidgeBasis:
        """The eigenbasis of the regression."""
        return RidgeBasis.from_kernel(sample.train, sample.test)

    def choose(self, basis: RidgeBasis, y: Tensor, ridges: Tensor) -> float | None:
        """The ridge for targets `y` [n, c], or None for the one that is best on the test points."""
        return None

    def run(self) -> Risks:
        work, curves, chosen = self.work, [], []
        for index, sample in enumerate(self.inputs):
            basis = self.basis(sample)
            y, y_test = samples.targets(work, index, sample, basis)
            ridges = samples.tensor(work.ridges, self.context.device, basis.values.dtype)
            curves.append(torch.stack(basis.errors(y, y_test, ridges)))
            ridge = self.choose(basis, y, ridges)
            if ridge is not None:
                errors = basis.errors(y, y_test, ridges.new_tensor([ridge]))
                chosen.append([ridge, *(float(error) for error in errors)])
        train_mse, test_mse = torch.stack(curves, dim=1).double().cpu().numpy()
        return Risks(
            train_mse, test_mse, getattr(self, "features", None), np.array(chosen).T if chosen else None
        )
