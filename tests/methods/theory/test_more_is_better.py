"""Random-feature and kernel ridge regression against scikit-learn, limits and the eigenframework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import BadOutput
from harness.method import Method
from harness.testing import prepared, run_once
from methods.theory import images
from methods.theory.more_is_better import samples
from methods.theory.more_is_better.baselines import FixedRidge, LeaveOneOut, SpectrumExponents
from methods.theory.more_is_better.decays import proxy_curves, spectrum_curves
from methods.theory.more_is_better.eigenframework import predict
from methods.theory.more_is_better.method import (
    ConvolutionalKernelRidge,
    Eigenframework,
    EmpiricalEigenframework,
    KernelRidge,
    NetworkKernelExponents,
    NetworkKernelRidge,
    RandomFeatureRidge,
)
from methods.theory.more_is_better.ridge import RidgeBasis
from methods.theory.more_is_better.risks import Risks, figures
from methods.theory.more_is_better.tasks import GaussianRidge, ImageRidge, PowerlawExponents, loglog
from methods.theory.more_is_better.work import ImageTrial, ImageWork, ridge_grid, targets
from tests.conftest import needs_data

RIDGES = torch.tensor([1e-3, 0.1, 3.0], dtype=torch.float64)


def problem(n: int = 30, k: int = 12, t: int = 8, c: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 100 + k)
    return tuple(
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, k), (t, k), (n, c), (t, c))
    )


@pytest.mark.parametrize("k", [12, 30, 75])
def test_feature_regression_against_sklearn(k: int) -> None:
    train, test, y, y_test = problem(k=k)
    train_mse, test_mse = RidgeBasis.from_features(train, test).errors(y, y_test, RIDGES)
    for i, ridge in enumerate(RIDGES.tolist()):
        model = Ridge(alpha=ridge, fit_intercept=False, tol=1e-10).fit(train / k**0.5, y)
        for x, truth, mse in ((train, y, train_mse), (test, y_test, test_mse)):
            expected = ((model.predict(x / k**0.5) - truth.numpy()) ** 2).sum(1).mean()
            assert float(mse[i]) == pytest.approx(expected, rel=1e-8)


def test_kernel_regression_against_sklearn() -> None:
    train, test, y, y_test = problem(k=50)
    kernel, cross = train @ train.T, test @ train.T
    _, test_mse = RidgeBasis.from_kernel(kernel, cross).errors(y, y_test, RIDGES)
    for i, ridge in enumerate(RIDGES.tolist()):
        model = SklearnKernelRidge(alpha=ridge, kernel="precomputed").fit(kernel, y)
        expected = ((model.predict(cross) - y_test.numpy()) ** 2).sum(1).mean()
        assert float(test_mse[i]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("k", [12, 75])
def test_leave_one_out_against_sklearn_and_by_hand(k: int) -> None:
    train, test, y, _ = problem(k=k, c=1)
    basis = RidgeBasis.from_features(train, test)
    closed = basis.leave_one_out(y, RIDGES)
    x = (train / k**0.5).numpy()
    model = RidgeCV(alphas=RIDGES.numpy(), fit_intercept=False, store_cv_results=True).fit(x, y.numpy())
    np.testing.assert_allclose(closed, model.cv_results_.reshape(len(x), -1).mean(0), rtol=1e-8)
    assert float(RIDGES[closed.argmin()]) == model.alpha_
    left_out = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        fit = Ridge(alpha=0.1, fit_intercept=False, tol=1e-10).fit(x[others], y[others])
        left_out.append(float(((fit.predict(x[[i]]).ravel() - y[i].numpy()) ** 2)[0]))
    assert float(closed[1]) == pytest.approx(np.mean(left_out), rel=1e-7)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 25), k=st.integers(1, 40), seed=st.integers(0, 1000))
def test_dual_and_primal_forms_agree(n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(n + 4, k, generator=generator, dtype=torch.float64)
    y = torch.randn(n + 4, 1, generator=generator, dtype=torch.float64)
    primal = RidgeBasis.from_features(psi[:n], psi[n:])
    dual = RidgeBasis.from_kernel(psi[:n] @ psi[:n].T / k, psi[n:] @ psi[:n].T / k)
    for a, b in zip(
        (*primal.errors(y[:n], y[n:], RIDGES), primal.leave_one_out(y[:n], RIDGES)),
        (*dual.errors(y[:n], y[n:], RIDGES), dual.leave_one_out(y[:n], RIDGES)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", [12, 75])
def test_ridgeless_is_the_least_norm_solution(k: int) -> None:
    train, test, y, y_test = problem(k=k)
    _, test_mse = RidgeBasis.from_features(train, test).errors(y, y_test, RIDGES.new_zeros(1))
    expected = (test @ torch.linalg.pinv(train) @ y - y_test).square().sum(1).mean()
    assert float(test_mse) == pytest.approx(float(expected), rel=1e-7)


def test_one_eigendecomposition_serves_all_ridges(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(len(matrix)) or eigh(matrix))
    method = prepared(RandomFeatureRidge(features=90), GaussianRidge(n=20, modes=100, trials=3, test_points=9))
    method.run()
    assert calls == [20, 20, 20]


def test_operations_grow_as_the_paper_says() -> None:
    def products(n: int, k: int) -> int:
        train, test, *_ = problem(n=n, k=k, t=1)
        with FlopCounterMode(display=False) as counter:
            RidgeBasis.from_features(train, test)
        return counter.get_total_flops()

    # Forming the kernel dominates for k >> n: linear in k, quadratic in n; the decomposition is n^3.
    assert products(50, 8000) / products(50, 2000) == pytest.approx(4, rel=0.02)
    assert products(200, 8000) / products(50, 8000) == pytest.approx(16, rel=0.05)


def test_features_have_the_limiting_kernel_in_both_ways_of_drawing() -> None:
    """Mean and variance of the entries of K^, from weights (k <= points) and from the Cholesky factor."""
    x = problem(n=6, k=40)[0] / 40**0.5
    kernel = x @ x.T
    variance = kernel.diag()[:, None] * kernel.diag() + kernel.square()
    for k, repeats in ((5, 2000), (20, 500)):
        rng = np.random.default_rng(k)
        draws = torch.stack([(psi @ psi.T / k) for psi in (samples._linear(x, k, rng) for _ in range(repeats))])
        torch.testing.assert_close(draws.mean(0), kernel, atol=0.06, rtol=0.1)
        torch.testing.assert_close(draws.var(0) * k, variance, atol=0.15, rtol=0.2)


def synthetic_images(n: int = 40, t: int = 30, noise: float = 0.0, labels: str = "classes") -> ImageWork:
    generator = np.random.default_rng(0)
    x, x_test = generator.standard_normal((n, 8, 8, 1)), generator.standard_normal((t, 8, 8, 1))
    y, y_test = (targets(generator.integers(0, 10, size), labels) for size in (n, t))
    return ImageWork("mnist", labels, (ImageTrial(x, y, x_test, y_test),), noise, ridge_grid(1e-4, 1e4, 21), 7)


def test_relu_features_have_the_limiting_kernel() -> None:
    work = synthetic_images()
    sample = samples.random_features(work, 0, 60_000, np.random.default_rng(0), "cpu", torch.float64)
    limit = samples.limiting_kernel(work, 0, "cpu")
    torch.testing.assert_close(sample.train @ sample.train.T / 60_000, limit.train, atol=0.03, rtol=0)
    torch.testing.assert_close(sample.test @ sample.train.T / 60_000, limit.test, atol=0.03, rtol=0)
    assert torch.equal(sample.y, limit.y)


def on(work: ImageWork, method: Method) -> Risks:
    """Run a method on given images."""
    task = ImageRidge()
    task.load = lambda seed: work
    return prepared(method, task, seed=work.seed).run()


def test_label_noise() -> None:
    work = synthetic_images(n=4000, noise=5.0)
    train, test = work.noisy(0, 0.2)
    np.testing.assert_allclose(np.linalg.norm(train, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(test, axis=1), 1)
    # Before it is scaled back a target has norm 1 + 5 x 0.2 = 2, half of it signal.
    signal = (train * work.draws[0].y).sum(1)
    assert np.mean(signal**2) == pytest.approx(0.5, abs=0.06)
    assert not np.array_equal(train[: len(test)], test)
    clean = synthetic_images()
    assert clean.noisy(0, 0.2)[0] is clean.draws[0].y


def test_fitting_ratio_grows_with_label_noise() -> None:
    ratios = []
    for noise in (0.0, 1.0, 50.0):
        risks = on(synthetic_images(noise=noise), NetworkKernelRidge(depth=2))
        ratios.append(figures(risks, ridge_grid(1e-4, 1e4, 21))[0]["ratio"])
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.5


def test_convolutional_kernel_on_images(tmp_path) -> None:
    task, work = ImageRidge(), synthetic_images(n=8, t=4)
    task.load = lambda seed: work
    method = prepared(ConvolutionalKernelRidge(depth=5, precision="float64"), task, cache=tmp_path)
    first = method.run()
    again = prepared(ConvolutionalKernelRidge(depth=5, precision="float64"), task, cache=tmp_path).run()
    np.testing.assert_array_equal(first.test, again.test)
    assert len(list(tmp_path.glob("myrtle-ntk-????????????????"))) == 1
    with pytest.raises(ValueError, match="have depth"):
        ConvolutionalKernelRidge(depth=4)


SMALL = GaussianRidge(n=48, modes=300, test_points=200, trials=40, ridges=9)


@pytest.mark.parametrize("features", [12, 48, 300])
def test_experiment_agrees_with_the_eigenframework(features: int) -> None:
    measured = run_once(RandomFeatureRidge(features=features), SMALL)
    theory = run_once(Eigenframework(features=features), SMALL)
    assert measured.metrics["deviation"] < 0.06
    assert measured.metrics["test_mse"] == pytest.approx(theory.metrics["test_mse"], rel=0.08)
    assert theory.metrics["deviation_90"] == 0


def test_more_features_approach_the_kernel() -> None:
    task = GaussianRidge(n=32, modes=200, test_points=100, trials=4, ridges=7)
    kernel = prepared(KernelRidge(), task).run()
    gaps = []
    for features in (30, 1000, 30_000):
        risks = prepared(RandomFeatureRidge(features=features), task).run()
        gaps.append(np.abs(risks.test / kernel.test - 1).max())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.1


def test_baselines_share_the_draws_and_differ_in_the_ridge() -> None:
    task = GaussianRidge(n=40, modes=200, test_points=100, trials=3, ridges=11)
    best, fixed, chosen = (
        run_once(method, task).metrics
        for method in (RandomFeatureRidge(features=40), FixedRidge(features=40), LeaveOneOut(features=40))
    )
    assert fixed["test_mse"] == pytest.approx(best["least_ridge_mse"], rel=1e-9)
    assert fixed["ridge"] == pytest.approx(1e-3)
    assert best["test_mse"] <= chosen["test_mse"] < fixed["test_mse"]
    assert run_once(FixedRidge(features=40, ridge=1e-2), task).metrics["test_mse"] < fixed["test_mse"]
    assert len({m["regularised_mse"] for m in (best, fixed, chosen)}) == 1


def test_runs_repeat_and_first_points_do_not_depend_on_n() -> None:
    task = GaussianRidge(n=20, modes=50, test_points=20, trials=2, ridges=5)
    method = prepared(RandomFeatureRidge(features=30), task)
    np.testing.assert_array_equal(method.run().test, method.run().test)
    small, large = task.load(5).trial(1), GaussianRidge(n=30, modes=50, test_points=20).load(5).trial(1)
    np.testing.assert_array_equal(small.points[:20], large.points[:20])
    np.testing.assert_array_equal(small.points[20:], large.points[30:])


def test_single_precision_is_close() -> None:
    task = GaussianRidge(n=32, modes=200, test_points=100, trials=2, ridges=7)
    single = run_once(RandomFeatureRidge(features=100, precision="float32"), task).metrics["test_mse"]
    double = run_once(RandomFeatureRidge(features=100), task).metrics["test_mse"]
    assert single != double
    assert single == pytest.approx(double, rel=1e-3)


def test_risks_that_cannot_be_scored() -> None:
    ridges = ridge_grid(1e-3, 1e2, 4)
    with pytest.raises(BadOutput, match="not finite"):
        figures(Risks(np.ones((1, 4)), np.full((1, 4), np.nan)), ridges)
    with pytest.raises(BadOutput, match=r"\[trials, 4\]"):
        figures(Risks(np.ones((1, 3)), np.ones((1, 3))), ridges)
    with pytest.raises(BadOutput, match="fitting ratio"):
        figures(Risks(np.zeros((1, 4)), np.ones((1, 4))), ridges)
    for bad in ({"least_ridge": 10.0, "greatest_ridge": 1.0}, {"alpha": 0.9}):
        with pytest.raises(ValueError, match=r"rise|alpha > 1"):
            GaussianRidge(**bad)


def test_targets() -> None:
    labels = np.array([0, 2, 9, 5])
    assert targets(labels, "halves").ravel().tolist() == [1, -1, 1, -1]
    assert targets(labels, "classes").argmax(1).tolist() == labels.tolist()


def test_proxies_against_inverses() -> None:
    train, test, y, y_test = problem(n=30, k=60)
    kernel, cross = train @ train.T, test @ train.T
    eigenvalue, error = proxy_curves(kernel, cross, y, y_test, np.array([5.0, 17.0, 30.0]))
    for i, n in enumerate((5, 17, 30)):
        inverse = torch.linalg.inv(kernel[:n, :n])
        assert eigenvalue[i] == pytest.approx(1 / float(inverse.trace()), rel=1e-8)
        expected = (cross[:, :n] @ inverse @ y[:n] - y_test).square().sum(1).mean()
        assert error[i] == pytest.approx(float(expected), rel=1e-8)
    scaled = 3.0 * torch.eye(20, dtype=torch.float64)
    values, _ = proxy_curves(scaled, scaled[:2], y[:20], y_test[:2], np.array([4.0, 20.0]))
    np.testing.assert_allclose(values, [3 / 4, 3 / 20])


def test_proxies_find_known_exponents() -> None:
    work = GaussianRidge(n=400, modes=4000, alpha=2.0, beta=1.6, noise=0.0, test_points=200).load(1)
    sizes = np.geomspace(40, 400, 8).round()
    curves = []
    for trial in range(12):
        sample = samples.limiting_kernel(work, trial, "cpu")
        curves.append(proxy_curves(sample.train, sample.test, sample.y, sample.y_test, sizes))
    eigenvalue, error = np.mean(curves, axis=0)
    alpha, alpha_fit = loglog(sizes, eigenvalue)
    assert -alpha == pytest.approx(2.0, abs=0.1)
    assert alpha_fit > 0.998
    # With finitely many modes the error falls a little faster than n^(1 - beta): compare with the theory.
    theory = [predict(work.system, int(n), 0.0).test[0] for n in sizes]
    assert loglog(sizes, error)[0] == pytest.approx(loglog(sizes, np.array(theory))[0], abs=0.08)


def test_spectrum_of_a_known_kernel() -> None:
    n = 16
    vectors = torch.linalg.qr(problem(n=n, k=n)[0])[0]
    values = torch.arange(1.0, n + 1, dtype=torch.float64)
    kernel = (vectors * values) @ vectors.T
    y = 2.0 * vectors[:, [0]]
    measured, tails = spectrum_curves(kernel, y)
    np.testing.assert_allclose(measured, np.arange(n, 0, -1) / n)
    np.testing.assert_allclose(tails, np.full(n, 4 / n), rtol=1e-9)


@needs_data("mnist-10k")
def test_images_are_disjoint_standardised_draws() -> None:
    (x, y), (x_test, _) = images.draw("mnist", (300, 200), 1000)
    assert x.shape == (300, 28, 28, 1)
    assert y.dtype == np.int64
    assert abs(x.mean()) < 0.05
    assert x.std() == pytest.approx(1, abs=0.05)
    everything = np.concatenate([x, x_test]).reshape(500, -1)
    assert len(np.unique(everything, axis=0)) == 500
    np.testing.assert_array_equal(images.draw("mnist", (300, 200), 1000)[0][0], x)
    assert not np.array_equal(images.draw("mnist", (300, 200), 1000, index=1)[0][0], x)
    with pytest.raises(ValueError, match="has 10000 images"):
        images.draw("mnist", (9000, 2000), 1)


@needs_data("mnist-10k")
def test_digits() -> None:
    task = PowerlawExponents(n=400, sizes=6, least_n=50, test_points=300)
    proxies = run_once(NetworkKernelExponents(), task).metrics
    assert proxies["alpha_fit"] > 0.99
    assert 1 < proxies["alpha"] < 2
    assert set(run_once(SpectrumExponents(), task).metrics) == set(proxies)
    regression = ImageRidge(n=200, test_points=200, labels="halves")
    theory = run_once(EmpiricalEigenframework(pool=800), regression).metrics
    assert theory["test_mse"] == pytest.approx(
        run_once(KernelRidge(), regression).metrics["test_mse"], rel=0.25
    )
    with pytest.raises(ValueError, match="clean labels"):
        prepared(EmpiricalEigenframework(), ImageRidge(n=20, noise=1.0))
