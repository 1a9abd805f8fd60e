"""Ridge regression for many ridges from one eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RidgeBasis:
    """Ridge regression in the basis where the ridge is a number added to each eigenvalue.

    The predictor is y_hat(x) = K_{x,X} (K_{XX} + delta I)^{-1} y with delta not divided by n. In the
    eigenbasis Q of K_{XX} (`from_kernel`), or of the k x k matrix of feature moments when there are fewer
    features than points (`from_features`), it is right-multiplication by (left^T y)/(values + delta).

    Attributes:
        values: eigenvalues, clamped at 0, [m], ascending.
        train: predictions on the training points per coefficient, [n, m].
        test: predictions on the test points per coefficient, [t, m].
        moment: the rows whose inner product with y gives the coefficients, [n, m].
    """

    values: Tensor
    train: Tensor
    test: Tensor
    moment: Tensor

    @classmethod
    def from_kernel(cls, train: Tensor, test: Tensor) -> RidgeBasis:
        """The dual form, from K_{XX} [n, n] and K_{test,X} [t, n]. O(n^3 + t n^2)."""
        values, vectors = torch.linalg.eigh(train)
        values = values.clamp_min(0.0)
        return cls(values, vectors * values, test @ vectors, vectors)

    @classmethod
    def from_features(cls, train: Tensor, test: Tensor) -> RidgeBasis:
        """From features psi(x) [n, k] and [t, k] of the kernel (1/k) sum_j psi_j(x) psi_j(x').

        O(n^2 k + n^3) when k > n, else O(n k^2 + k^3).
        """
        n, k = train.shape
        if k > n:
            return cls.from_kernel(train @ train.T / k, test @ train.T / k)
        values, vectors = torch.linalg.eigh(train.T @ train / k)
        projected = train @ vectors / k**0.5
        return cls(values.clamp_min(0.0), projected, test @ vectors / k**0.5, projected)

    def residuals(self, y: Tensor, y_test: Tensor, ridges: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors summed over outputs, per point: [n, r] for training, [t, r] for test points.

        Args:
            y: training targets [n, c].
            y_test: test targets [t, c].
            ridges: [r]; at 0 the regression is that of least norm.
        """
        weights = self._weights(y, ridges)
        return _squares(self.train, weights, y), _squares(self.test, weights, y_test)

    def errors(self, y: Tensor, y_test: Tensor, ridges: Tensor) -> tuple[Tensor, Tensor]:
        """Train and test MSE (means of `residuals` over the points), [r] each."""
        train, test = self.residuals(y, y_test, ridges)
        return train.mean(0), test.mean(0)

    def leave_one_out(self, y: Tensor, ridges: Tensor) -> Tensor:
        """The leave-one-out MSE in closed form, [r]: mean of ((y - y_hat)_i/(1 - H_ii))^2, summed over outputs.

        H = K (K + delta I)^{-1} is the hat matrix.
        """
        residual = _squares(self.train, self._weights(y, ridges), y)
        hat = (self.train * self.moment) @ (1 / (self.values[:, None] + ridges))
        return (residual / (1 - hat) ** 2).mean(0)

    def _weights(self, y: Tensor, ridges: Tensor) -> Tensor:
        """(moment^T y)/(values + ridge), [m, r, c]."""
        scale = self.values[:, None] + ridges
        # At ridge 0 the directions that no feature reaches are left out.
        empty = self.values[-1] * len(self.values) * torch.finfo(self.values.dtype).eps
        scale = torch.where(scale > empty, scale, torch.inf)
        return (self.moment.T @ y)[:, None, :] / scale[..., None]


def _squares(basis: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    m, r, c = weights.shape
    predicted = (basis @ weights.reshape(m, r * c)).view(-1, r, c)
    return (predicted - targets[:, None, :]).square().sum(-1)
