"""Tasks on which more features, more data and less regularisation are compared."""

from __future__ import annotations

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.types import NonNegativeFloat, PositiveFloat, PositiveInt
from methods.theory import images
from methods.theory.images import Source
from methods.theory.more_is_better import closed_form, eigenframework
from methods.theory.more_is_better.eigenframework import Eigensystem
from methods.theory.more_is_better.risks import REGULARISED, Risks, figures
from methods.theory.more_is_better.work import (
    Array,
    Decays,
    ExponentWork,
    FittingCurve,
    GaussianWork,
    ImageTrial,
    ImageWork,
    Labels,
    PowerlawWork,
    ridge_grid,
    targets,
)

RISK_METRICS = (
    Metric(
        "test_mse", better="lower", doc="Test MSE at the chosen ridge (the best one unless the method chooses)."
    ),
    Metric("train_mse", better="neither", doc="Train MSE at the chosen ridge."),
    Metric("ratio", better="neither", doc="Fitting ratio: train MSE / test MSE at the chosen ridge."),
    Metric("ridge", better="neither", doc="The chosen ridge."),
    Metric("least_ridge_mse", better="lower", doc="Test MSE at the least ridge of the grid."),
    Metric(
        "regularised_mse",
        better="lower",
        doc="Least test MSE among ridges with a fitting ratio of 0.5 or more.",
    ),
)


@task(
    "gaussian-ridge",
    metrics=(
        *RISK_METRICS,
        Metric("deviation", better="lower", doc="Median over ridges of |test MSE / eigenframework - 1|."),
        Metric("deviation_90", better="lower", doc="The 90th percentile of the same."),
        Metric(
            "deviation_q25",
            better="neither",
            doc="Lower quartile over ridges of test MSE / eigenframework - 1.",
        ),
        Metric("deviation_q75", better="neither", doc="Upper quartile of the same."),
    ),
    amount_unit="regressions",
)
class GaussianRidge(Task[GaussianWork, Risks]):
    """Ridge regression of a linear target of Gaussian inputs whose kernel has powerlaw eigenvalues."""

    n: PositiveInt = 256
    """Training points."""

    modes: PositiveInt = 10_000
    """M, the number of eigenvalues."""

    alpha: PositiveFloat = 1.5
    """Eigenvalues are i^-alpha; alpha > 1."""

    beta: PositiveFloat = 1.5
    """Squared target coefficients are i^-beta; beta > 1."""

    noise: NonNegativeFloat = 0.5
    """Variance of the noise on training and test targets."""

    test_points: PositiveInt = 1000
    """Test points of a trial."""

    trials: PositiveInt = 5
    """Independent draws of inputs, noise and features, over which the errors are averaged."""

    ridges: PositiveInt = 31
    """How many ridges, evenly spaced in their logarithm."""

    least_ridge: PositiveFloat = 1e-3
    """The least of them (delta, not divided by n)."""

    greatest_ridge: PositiveFloat = 100.0
    """The greatest."""

    def __post_init__(self) -> None:
        ridge_grid(self.least_ridge, self.greatest_ridge, self.ridges)
        Eigensystem.powerlaw(self.alpha, self.beta, self.noise, modes=1)

    def load(self, seed: int) -> GaussianWork:
        return GaussianWork(
            system=Eigensystem.powerlaw(self.alpha, self.beta, self.noise, self.modes),
            n=self.n,
            test_points=self.test_points,
            trials=self.trials,
            ridges=ridge_grid(self.least_ridge, self.greatest_ridge, self.ridges),
            seed=seed,
        )

    def score(self, work: GaussianWork, output: Risks) -> Measurement:
        metrics, series = figures(output, work.ridges)
        theory = eigenframework.predict(work.system, work.n, work.ridges, output.features).test
        deviation = output.test.mean(0) / theory - 1
        metrics |= {
            "deviation": float(np.median(np.abs(deviation))),
            "deviation_90": float(np.quantile(np.abs(deviation), 0.9)),
            "deviation_q25": float(np.quantile(deviation, 0.25)),
            "deviation_q75": float(np.quantile(deviation, 0.75)),
        }
        series["eigenframework"] = Series(
            work.ridges.tolist(), theory.tolist(), x_label="ridge", y_label="test MSE"
        )
        return Measurement(metrics, series)

    def amount(self, work: GaussianWork) -> float:
        return float(work.trials * len(work.ridges))


@task("image-ridge", metrics=RISK_METRICS, amount_unit="regressions", data=("mnist-10k", "cifar10-subset"))
class ImageRidge(Task[ImageWork, Risks]):
    """Ridge regression of the labels of images, optionally with noise added to them."""

    images: Source = "mnist"
    """Which images: 28 x 28 grey digits, or 32 x 32 colour photographs."""

    labels: Labels = "classes"
    """One-hot targets of the ten classes, or +1 and -1 for two groups of five classes."""

    n: PositiveInt = 1000
    """Training images."""

    test_points: PositiveInt = 1500
    """Test images, drawn from the same pool and disjoint from the training images."""

    noise: NonNegativeFloat = 0.0
    """Variance of the label noise in units of the ridgeless noiseless test MSE."""

    trials: PositiveInt = 1
    """Independent draws of images, noise and features, over which the errors are averaged."""

    ridges: PositiveInt = 50
    """How many ridges, evenly spaced in their logarithm."""

    least_ridge: PositiveFloat = 1e-5
    """The least of them (delta, not divided by n)."""

    greatest_ridge: PositiveFloat = 1e5
    """The greatest."""

    def __post_init__(self) -> None:
        ridge_grid(self.least_ridge, self.greatest_ridge, self.ridges)
        if self.labels == "halves" and self.noise > 0:
            raise ValueError("label noise is scaled back to the clean norm, which leaves one output +1 or -1")

    def load(self, seed: int) -> ImageWork:
        draws = []
        for index in range(self.trials):
            (x, y), (x_test, y_test) = images.draw(self.images, (self.n, self.test_points), seed, index)
            draws.append(ImageTrial(x, targets(y, self.labels), x_test, targets(y_test, self.labels)))
        ridges = ridge_grid(self.least_ridge, self.greatest_ridge, self.ridges)
        return ImageWork(self.images, self.labels, tuple(draws), self.noise, ridges, seed)

    def score(self, work: ImageWork, output: Risks) -> Measurement:
        return Measurement(*figures(output, work.ridges))

    def amount(self, work: ImageWork) -> float:
        return float(len(work.draws) * len(work.ridges))


def loglog(x: Array, y: Array) -> tuple[float, float]:
    """Slope and R^2 of the least-squares line through (log x, log y)."""
    log_x, log_y = np.log(x), np.log(y)
    slope, offset = np.polyfit(log_x, log_y, 1)
    return float(slope), float(1 - np.var(log_y - slope * log_x - offset) / np.var(log_y))


def _curve(x: Array, y: Array, label: str) -> Series:
    return Series(x.tolist(), y.tolist(), x_label="index", y_label=label)


@task(
    "powerlaw-exponents",
    metrics=[
        Metric("alpha", better="neither", doc="Exponent of the decay of the eigenvalues."),
        Metric("alpha_fit", doc="R^2 of its straight line."),
        Metric("beta", better="neither", doc="Exponent of the decay of the squared target coefficients."),
        Metric("beta_fit", doc="R^2 of its straight line."),
    ],
    data=("mnist-10k", "cifar10-subset"),
)
class PowerlawExponents(Task[ExponentWork, Decays]):
    """Measure how fast the eigenvalues of a kernel on images, and the coefficients of their labels in its
    eigenbasis, decay.
    """

    images: Source = "mnist"
    """Which images: 28 x 28 grey digits, or 32 x 32 colour photographs."""

    n: PositiveInt = 2400
    """The greatest number of training images."""

    least_n: PositiveInt = 100
    """The least."""

    sizes: PositiveInt = 12
    """How many numbers of training images, evenly spaced in their logarithm."""

    test_points: PositiveInt = 1500
    """Test images."""

    def __post_init__(self) -> None:
        if self.least_n >= self.n or self.sizes < 3:
            raise ValueError(f"a line needs three sizes that rise from {self.least_n} to {self.n}")

    def load(self, seed: int) -> ExponentWork:
        (x, y), (x_test, y_test) = images.draw(self.images, (self.n, self.test_points), seed)
        trial = ImageTrial(x, targets(y, "classes"), x_test, targets(y_test, "classes"))
        sizes = np.unique(np.geomspace(self.least_n, self.n, self.sizes).round().astype(np.int64))
        return ExponentWork(trial, sizes, self.images, seed)

    def score(self, work: ExponentWork, output: Decays) -> Measurement:
        curves = np.stack([output.index, output.eigenvalue, output.error])
        if curves.ndim != 2 or not (np.isfinite(curves).all() and (curves > 0).all()):
            raise BadOutput("the decays are three arrays of positive numbers of the same length")
        (eigenvalue_slope, alpha_fit), (error_slope, beta_fit) = (loglog(curves[0], y) for y in curves[1:])
        return Measurement(
            {"alpha": -eigenvalue_slope, "alpha_fit": alpha_fit, "beta": 1 - error_slope, "beta_fit": beta_fit},
            {
                "eigenvalue_decay": _curve(output.index, output.eigenvalue, "eigenvalue"),
                "error_decay": _curve(output.index, output.error, "error"),
            },
        )


@task(
    "powerlaw-optimum",
    metrics=[
        Metric("ratio", better="neither", doc="The best fitting ratio.", deterministic=True),
        Metric(
            "interpolation_cost",
            better="neither",
            doc="Error at ratio 0 over the least error.",
            deterministic=True,
        ),
        Metric(
            "regularised_cost",
            better="neither",
            doc="Error at ratio 0.5 over the least error.",
            deterministic=True,
        ),
    ],
)
class PowerlawOptimum(Task[PowerlawWork, FittingCurve]):
    """Find the fitting ratio at which kernel ridge regression on a powerlaw task has the least test error."""

    alpha: PositiveFloat = 1.17
    """Eigenvalues are i^-alpha; alpha > 1."""

    beta: PositiveFloat = 1.14
    """Squared target coefficients are i^-beta; 1 < beta < 2 alpha + 1."""

    noise: NonNegativeFloat = 0.0
    """Variance of the noise in units of the test error of ridgeless regression without noise."""

    n: PositiveInt = 10_000
    """Training points."""

    def __post_init__(self) -> None:
        closed_form.check(self.alpha, self.beta, self.noise)

    def load(self, seed: int) -> PowerlawWork:
        return PowerlawWork(self.alpha, self.beta, self.noise, self.n)

    def score(self, work: PowerlawWork, output: FittingCurve) -> Measurement:
        ratio, risk = output.ratio, output.risk
        if ratio.shape != risk.shape or ratio[0] != 0 or (np.diff(ratio) < 0).any() or ratio[-1] < REGULARISED:
            raise BadOutput(f"fitting ratios rise from 0 to at least {REGULARISED}")
        best = int(risk.argmin())
        least = float(risk[best])
        regularised = float(np.interp(REGULARISED, ratio, risk))
        return Measurement(
            {
                "ratio": float(ratio[best]),
                "interpolation_cost": float(risk[0]) / least,
                "regularised_cost": regularised / least,
            },
            {"risk": Series(ratio.tolist(), risk.tolist(), x_label="fitting ratio", y_label="test error")},
        )
