"""The eigenframework: train and test error of random-feature ridge regression from its eigensystem alone.

Everything is float64 NumPy and independent of the regression that it predicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Eigensystem:
    """A kernel's eigenvalues under the data distribution and the target's coefficients.

    Attributes:
        eigenvalues: lambda_i > 0, [m].
        power: v_i^2, the squared coefficients of the noiseless target, [m].
        noise: variance of the noise on the targets.
        count: how many modes each entry stands for, [m]; fractions come from a quadrature.
        eigenvalue_tail: sum of the eigenvalues of further modes, each far below any gamma.
        power_tail: sum of the squared coefficients of those modes.
    """

    eigenvalues: Array
    power: Array
    noise: float
    count: Array
    eigenvalue_tail: float = 0.0
    power_tail: float = 0.0

    @classmethod
    def of(cls, eigenvalues: ArrayLike, power: ArrayLike, noise: float = 0.0) -> Eigensystem:
        """Finitely many modes, one per entry."""
        values = np.asarray(eigenvalues, dtype=np.float64)
        return cls(values, np.asarray(power, dtype=np.float64), noise, np.ones_like(values))

    @classmethod
    def powerlaw(cls, alpha: float, beta: float, noise: float = 0.0, modes: int | None = None) -> Eigensystem:
        """lambda_i = i^-alpha and v_i^2 = i^-beta for i = 1..modes, or for all i when `modes` is None.

        The infinite sums take the first 2,000 modes one by one, the modes up to 1e18 by Gauss-Legendre
        quadrature in log i, and the rest by its integral: with beta near 1, a sum cut off at 2e6 modes
        would lose a sixth of the error.
        """
        if alpha <= 1 or beta <= 1:
            raise ValueError(f"a powerlaw has alpha > 1 and beta > 1, not {alpha} and {beta}")
        if modes is not None:
            index = np.arange(1, modes + 1, dtype=np.float64)
            return cls.of(index**-alpha, index**-beta, noise)
        exact, last = 2000, 1e18
        index = np.arange(1, exact + 1, dtype=np.float64)
        nodes, weights = np.polynomial.legendre.leggauss(400)
        low, high = np.log(exact + 0.5), np.log(last)
        smooth = np.exp(low + (high - low) * (nodes + 1) / 2)
        both = np.concatenate([index, smooth])
        return cls(
            eigenvalues=both**-alpha,
            power=both**-beta,
            noise=noise,
            count=np.concatenate([np.ones(exact), smooth * weights * (high - low) / 2]),
            eigenvalue_tail=last ** (1 - alpha) / (alpha - 1),
            power_tail=last ** (1 - beta) / (beta - 1),
        )

    def with_noise(self, noise: float) -> Eigensystem:
        """The same modes with another noise variance."""
        return Eigensystem(
            self.eigenvalues, self.power, noise, self.count, self.eigenvalue_tail, self.power_tail
        )

    def learned(self, gamma: Array) -> Array:
        """z(gamma) = sum_i lambda_i/(lambda_i + gamma), [r] for gamma [r]."""
        modes = self.eigenvalues / (self.eigenvalues + gamma[:, None])
        return modes @ self.count + self.eigenvalue_tail / gamma


@dataclass(frozen=True)
class Prediction:
    """What the eigenframework says for one (n, k) and several ridges; arrays [r]."""

    ridges: Array
    kappa: Array
    gamma: Array
    train: Array
    test: Array


def solve(system: Eigensystem, n: int, ridges: ArrayLike, k: float | None = None) -> tuple[Array, Array]:
    """kappa and gamma, [r] each: the unique non-negative solution of

        z(gamma) + ridge/kappa = n    and    z(gamma) + k kappa/gamma = k.

    The second equation gives kappa = gamma (k - z)/k; the left side of the first then falls
    monotonically in gamma wherever z < k, so bisection of log gamma finds the root. `k` None is the limit
    of infinitely many features, kappa = gamma.

    Raises:
        ValueError: `n`, `k` or a ridge is not in range.
    """
    ridge = np.atleast_1d(np.asarray(ridges, dtype=np.float64))
    if n < 1 or (k is not None and k < 1) or (ridge < 0).any():
        raise ValueError(f"n and k are at least 1 and no ridge is negative: n={n}, k={k}, ridges={ridge}")
    # At the upper end z <= total/gamma and ridge/kappa <= 2 ridge/gamma, so that the excess is negative.
    total = float(system.eigenvalues @ system.count) + system.eigenvalue_tail
    features = np.inf if k is None else float(k)
    top = np.maximum(2 * (total + 2 * ridge) / n, 2 * total / features)
    low, high = np.full_like(ridge, np.log(1e-200)), np.log(top)
    for _ in range(80):
        middle = (low + high) / 2
        gamma = np.exp(middle)
        z = system.learned(gamma)
        kappa = gamma * (1 - z / features)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(z < features, z + np.where(ridge > 0, ridge / kappa, 0.0) - n, np.inf)
        low, high = np.where(excess > 0, middle, low), np.where(excess > 0, high, middle)
    gamma = np.exp(high)
    return gamma * (1 - system.learned(gamma) / features), gamma


def predict(system: Eigensystem, n: int, ridges: ArrayLike, k: float | None = None) -> Prediction:
    """Train and test error (the test error includes the noise) of ridge regression with k random features.

    With L_i = lambda_i/(lambda_i + gamma), z = sum L_i, q = sum L_i^2,

        E_test = [sum_i ((1 - L_i) - kappa L_i/(lambda_i + gamma) k/(k - q)) v_i^2 + noise]
                 / (1 - (q (k - 2z) + z^2)/(n (k - q)))
        E_train = (ridge/(n kappa))^2 E_test.

    Args:
        n: training points.
        ridges: delta, not divided by n, [r].
        k: random features, or None for infinitely many: kernel ridge regression with the limiting kernel.
    """
    ridge = np.atleast_1d(np.asarray(ridges, dtype=np.float64))
    kappa, gamma = solve(system, n, ridge, k)
    learned = system.eigenvalues / (system.eigenvalues + gamma[:, None])
    z = system.learned(gamma)
    q = learned**2 @ system.count
    weight = system.count * system.power
    if k is None:
        unexplained = (1 - learned) ** 2 @ weight
        overfitting = 1 - q / n
    else:
        slope = (kappa * k / (k - q))[:, None] * learned / (system.eigenvalues + gamma[:, None])
        unexplained = (1 - learned - slope) @ weight
        overfitting = 1 - (q * (k - 2 * z) + z**2) / (n * (k - q))
    test = (unexplained + system.power_tail + system.noise) / overfitting
    # ridge/kappa = n - z: at ridge 0 the quotient is 0/0, at tiny ridges the difference is all rounding.
    unlearned = np.where(n - z > 1e-9 * n, n - z, 0.0)
    residual = np.where(ridge > 0, ridge / np.where(kappa > 0, kappa, 1.0), unlearned)
    return Prediction(ridge, kappa, gamma, (residual / n) ** 2 * test, test)


def off_sample(test: Array, train: Array, n: int, pool: int) -> Array:
    """Error on the points of a finite pool that were not trained on.

    `predict` averages over the population. Where that is a pool of `pool` points, n of which are the
    training points, the points left over have (pool E_test - n E_train)/(pool - n).
    """
    if not n < pool:
        raise ValueError(f"a pool of {pool} points has none left after training on {n}")
    return (pool * test - n * train) / (pool - n)
