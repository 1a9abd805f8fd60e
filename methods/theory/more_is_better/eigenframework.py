"""The eigenframework: train and test error of random-feature ridge regression from its eigensystem alone.

Everything is float64 NumPy and independent of the regression that it predicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_BLOCK = 1 << 16
"""Entries of the modes x ridges table at a time, so that it stays in the processor's cache."""


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
    monotonically in gamma wherever z < k, so that its root is bracketed and found to rounding. `k` None is the limit
    of infinitely many features, kappa = gamma.

    Raises:
        ValueError: `n`, `k` or a ridge is not in range.
    """
    ridge = np.atleast_1d(np.asarray(ridges, dtype=np.float64))
    if n < 1 or (k is not None and k < 1) or (ridge < 0).any():
        raise ValueError(f"n and k are at least 1 and no ridge is negative: n={n}, k={k}, ridges={ridge}")
    features = np.inf if k is None else float(k)
    blocks = np.array_split(ridge, -(-len(ridge) * len(system.eigenvalues) // _BLOCK))
    gamma = np.concatenate([_root(system, n, block, features) for block in blocks])
    return np.maximum(gamma * (1 - system.learned(gamma) / features), 0.0), gamma


def _root(system: Eigensystem, n: int, ridge: Array, features: float) -> Array:
    """gamma, [r]: Newton's method in log gamma, kept inside a bracket that bisection narrows."""
    # At the upper end z <= total/gamma and ridge/kappa <= 2 ridge/gamma, so that the excess is negative.
    total = float(system.eigenvalues @ system.count) + system.eigenvalue_tail
    top = np.maximum(2 * (total + 2 * ridge) / n, 2 * total / features)
    low, high = np.full_like(ridge, np.log(1e-200)), np.log(top)
    x, step = high - 1.0, np.full_like(ridge, np.inf)
    for _ in range(1000):
        gamma = np.exp(x)
        modes = system.eigenvalues / (system.eigenvalues + gamma[:, None])
        tail = system.eigenvalue_tail / gamma
        z = modes @ system.count + tail
        falling = z - modes**2 @ system.count  # -dz/dx
        kappa = gamma * (1 - z / features)
        inside = z < features
        safe = np.where(inside, kappa, 1.0)
        excess = np.where(inside, z + ridge / safe - n, np.inf)
        slope = -falling - ridge / safe**2 * (safe + gamma * falling / features)
        low, high = np.where(excess > 0, x, low), np.where(excess > 0, high, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = x - excess / slope
        # The sums are exact to about 1e-14, so that no step smaller than that means anything.
        done = (inside & (np.abs(newton - x) <= 1e-13)) | (high - low <= 1e-13)
        if done.all():
            return np.exp(x)
        usable = inside & (newton > low) & (newton < high) & (np.abs(newton - x) < step / 2)
        new = np.where(done, x, np.where(usable, newton, (low + high) / 2))
        step, x = np.abs(new - x), new
    raise ArithmeticError(f"gamma was not found for n={n}, k={features}, ridges {ridge}")


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
    # At ridge 0 and k = n, or n = all modes, the error has no bound.
    finite = overfitting > 1e-12
    numerator = unexplained + system.power_tail + system.noise
    test = np.where(finite, numerator / np.where(finite, overfitting, 1.0), np.inf)
    # ridge/kappa = n - z: the first loses its digits where few features make kappa tiny, the second
    # where nearly everything is fitted.
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.where(ridge > 0, ridge / kappa, 0.0)
    residual = np.where(n - z > 1e-3 * n, n - z, quotient)
    # At ridge 0 and k = n, or n = all modes, the error has no bound.
    finite = overfitting > 1e-12
    numerator = unexplained + system.power_tail + system.noise
    test = np.where(finite, numerator / np.where(finite, overfitting, 1.0), np.inf)
    # ridge/kappa = n - z: at ridge 0 the quotient is 0/0, at tiny ridges the difference is all rounding.
    unlearned = np.where(n - z > 1e-9 * n, n - z, 0.0)
    residual = np.where(ridge > 0, ridge / np.where(kappa > 0, kappa, 1.0), unlearned)
    train = np.where(residual > 0, (residual / n) ** 2, 0.0) * np.where(residual > 0, test, 1.0)
    return Prediction(ridge, kappa, gamma, train, test)


def off_sample(test: Array, train: Array, n: int, pool: int) -> Array:
    """Error on the points of a finite pool that were not trained on.

    `predict` averages over the population. Where that is a pool of `pool` points, n of which are the
    training points, the points left over have (pool E_test - n E_train)/(pool - n).
    """
    if not n < pool:
        raise ValueError(f"a pool of {pool} points has none left after training on {n}")
    return (pool * test - n * train) / (pool - n)
