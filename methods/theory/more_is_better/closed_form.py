"""Closed forms of kernel ridge regression on powerlaw tasks, as n grows: lambda_i = i^-a, v_i^2 = i^-b.

The test error is a function of the fitting ratio R = E_train/E_test, which the ridge sweeps from 0
(interpolation) to 1 (nothing is fitted). The noise is relative: its variance is `noise` times the test
error of ridgeless regression on noiseless targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]


def check(a: float, b: float, noise: float) -> None:
    """Raises ValueError unless the closed forms hold for these exponents."""
    if not (a > 1 and 1 < b < 2 * a + 1 and noise >= 0):
        raise ValueError(f"needs a > 1, 1 < b < 2a + 1 and noise >= 0, not a={a}, b={b}, noise={noise}")


def shape(ratio: ArrayLike, a: float, b: float, noise: float = 0.0) -> Array:
    """E(R) up to the factor that depends on n: 1 at R = 0 without noise.

    [1 - r + a noise (1 - r)^b] / (1 + (a - 1) r) * (1 - r)^-b with r = sqrt(R). With noise the value at
    R = 0 is 1 + a noise: interpolation pays for the noise a times.
    """
    check(a, b, noise)
    r = np.sqrt(np.asarray(ratio, dtype=np.float64))
    return np.asarray(((1 - r) ** (1 - b) + a * noise) / (1 + (a - 1) * r))


def ridgeless(a: float, b: float, n: float) -> float:
    """Test error of ridgeless regression on n noiseless points, to leading order in n."""
    check(a, b, 0.0)
    # (a - b + 1)/sin(pi (b - 1)/a) is 0/0 at b = a + 1; with u = 1 - (b - 1)/a it is (a/pi)/sinc(u).
    quotient = a / np.pi / np.sinc(1 - (b - 1) / a)
    sine = np.sin(np.pi / a)
    return float(np.pi**b * quotient * sine * (a * sine) ** -b * n ** (1 - b))


def risk(ratio: ArrayLike, a: float, b: float, n: float, noise: float = 0.0) -> Array:
    """E(R): the test error, noise included, to leading order in n."""
    return ridgeless(a, b, n) * shape(ratio, a, b, noise)


def optimal_ratio(a: float, b: float, noise: float = 0.0) -> float:
    """R*, where E(R) is least: max(0, (a - b)/(b (a - 1)))^2 without noise."""
    check(a, b, noise)
    if noise == 0:
        return float(max(0.0, (a - b) / (b * (a - 1))) ** 2)
    best = minimize_scalar(
        lambda r: float(shape(r * r, a, b, noise)), bounds=(0.0, 1.0 - 1e-12), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    r = float(best.x) if best.fun < float(shape(0.0, a, b, noise)) else 0.0
    return r * r
