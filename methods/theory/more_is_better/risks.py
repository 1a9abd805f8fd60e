"""What every method of the ridge-regression tasks returns, and the figures that are read off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadOutput
from harness.method import Series

Array = NDArray[np.float64]

REGULARISED = 0.5
"""A fitting ratio (train MSE / test MSE) from which the paper calls a regression regularised."""


@dataclass(frozen=True)
class Risks:
    """Train and test MSE over the task's ridges.

    Attributes:
        train: [trials, ridges].
        test: [trials, ridges].
        features: number of random features; None when there are infinitely many or none.
        chosen: for a method that chooses its ridge without looking at the test points: ridge, train MSE
            and test MSE per trial, [3, trials]. None: the best ridge of the grid for the test MSE averaged
            over the trials, which is the paper's optimum over the population.
    """

    train: Array
    test: Array
    features: int | None = None
    chosen: Array | None = None


def figures(risks: Risks, ridges: Array) -> tuple[dict[str, float], dict[str, Series]]:
    """The metrics that all ridge-regression tasks share, and the curves over the ridge.

    Raises:
        BadOutput: the arrays do not fit the task's ridges, or are not finite.
    """
    if risks.train.shape != risks.test.shape or risks.test.ndim != 2 or risks.test.shape[1] != len(ridges):
        raise BadOutput(f"risks are [trials, {len(ridges)}], not {risks.train.shape} and {risks.test.shape}")
    if not (np.isfinite(risks.train).all() and np.isfinite(risks.test).all()):
        raise BadOutput("a risk is not finite")
    train, test = risks.train.mean(0), risks.test.mean(0)
    if risks.chosen is None:
        best = int(test.argmin())
        ridge, best_train, best_test = float(ridges[best]), float(train[best]), float(test[best])
    else:
        ridge = float(np.exp(np.log(risks.chosen[0]).mean()))
        best_train, best_test = (float(value) for value in risks.chosen[1:].mean(1))
    regularised = train / test >= REGULARISED
    if not regularised.any():
        raise BadOutput(f"no ridge up to {ridges[-1]:g} reaches a fitting ratio of {REGULARISED}")
    metrics = {
        "test_mse": best_test,
        "train_mse": best_train,
        "ratio": best_train / best_test,
        "ridge": ridge,
        "least_ridge_mse": float(test[0]),
        "regularised_mse": float(test[regularised].min()),
    }
    axis = [float(x) for x in ridges]
    series = {
        "test_mse_by_ridge": Series(axis, test.tolist(), x_label="ridge", y_label="test MSE"),
        "train_mse_by_ridge": Series(axis, train.tolist(), x_label="ridge", y_label="train MSE"),
    }
    return metrics, series
