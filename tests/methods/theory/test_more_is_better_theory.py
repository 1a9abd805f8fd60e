"""The eigenframework and the closed forms against known answers, limits and each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.testing import run_once
from methods.theory.more_is_better import closed_form
from methods.theory.more_is_better.eigenframework import Eigensystem, off_sample, predict, solve
from methods.theory.more_is_better.method import ClosedFormOptimum, EigenframeworkOptimum
from methods.theory.more_is_better.tasks import PowerlawOptimum

PAPER = Eigensystem.powerlaw(1.5, 1.5, noise=0.5, modes=10_000)


@pytest.mark.parametrize(
    ("k", "ridge", "test", "kappa", "gamma"),
    [
        (10, 1e-3, 1.64122, 4.0650e-6, 0.107717),
        (100, 0.1, 1.19825, 5.8927e-4, 4.3006e-3),
        (268, 1e-3, 5.28390, 7.9186e-5, 8.6167e-4),
        (1081, 0.1, 0.949003, 1.22083e-3, 1.45517e-3),
        (10_000, 0.1, 0.890866, 1.34024e-3, 1.36500e-3),
    ],
)
def test_solver_known_answers(k: int, ridge: float, test: float, kappa: float, gamma: float) -> None:
    risk = predict(PAPER, 256, ridge, k)
    np.testing.assert_allclose([risk.test[0], risk.kappa[0], risk.gamma[0]], [test, kappa, gamma], rtol=1e-4)


def test_optimal_ridge_known_answers() -> None:
    ridges = np.geomspace(1e-3, 100, 150)
    over_k = [predict(PAPER, 256, ridges, k).test.min() for k in (16, 64, 256, 1024, 4096, 10_000, 1e8)]
    np.testing.assert_allclose(over_k, [1.4415, 1.0751, 0.9180, 0.8610, 0.8437, 0.8400, 0.8374], atol=1e-4)
    over_n = [predict(PAPER, n, ridges, 256).test.min() for n in (16, 64, 256, 1024, 4096)]
    np.testing.assert_allclose(over_n, [1.5767, 1.1521, 0.9180, 0.7960, 0.7373], atol=1e-4)


def test_many_features_are_the_kernel() -> None:
    ridges = np.geomspace(1e-3, 100, 31)
    limit, kernel = predict(PAPER, 256, ridges, 1e8), predict(PAPER, 256, ridges)
    np.testing.assert_allclose(limit.test, kernel.test, atol=1e-5)
    np.testing.assert_allclose(limit.train, kernel.train, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 400),
    k=st.integers(2, 400),
    log_ridge=st.floats(-6, 3),
    alpha=st.floats(1.05, 2.5),
    noise=st.floats(0, 2),
)
def test_solution_satisfies_both_equations(
    n: int, k: int, log_ridge: float, alpha: float, noise: float
) -> None:
    system = Eigensystem.powerlaw(alpha, 1.5, noise, modes=500)
    ridge = 10.0**log_ridge
    (kappa,), (gamma,) = solve(system, n, ridge, k)
    z = (system.eigenvalues / (system.eigenvalues + gamma)).sum()
    assert kappa > 0
    assert gamma > 0
    assert z + k * kappa / gamma == pytest.approx(k, rel=1e-8)
    # Near z = k the difference k - z has lost digits, and kappa with it.
    assert z + ridge / kappa == pytest.approx(n, rel=1e-9 + 1e-13 * k / (k - z))
    risk = predict(system, n, ridge, k)
    assert 0 <= risk.train[0] <= risk.test[0]


def test_extreme_ridges() -> None:
    target = PAPER.power.sum() + PAPER.noise
    nothing = predict(PAPER, 256, 1e9, 500)
    assert nothing.test[0] == pytest.approx(target, rel=1e-5)
    assert nothing.train[0] == pytest.approx(target, rel=1e-5)
    train = predict(PAPER, 256, [1e-2, 1e-4, 1e-6, 0.0], 500).train
    assert (np.diff(train) < 0).all()
    assert train[-1] == 0
    # With fewer features than points some training error is left: noise and whatever k features miss.
    assert predict(PAPER, 256, 0.0, 100).train[0] > 0.1


def test_solver_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="no ridge is negative"):
        predict(PAPER, 256, -1.0, 10)
    with pytest.raises(ValueError, match="alpha > 1"):
        Eigensystem.powerlaw(0.9, 1.5)


def test_infinite_powerlaw_agrees_with_explicit_modes_and_tails() -> None:
    alpha, beta, modes = 1.5, 1.2, 1_000_000
    head = Eigensystem.powerlaw(alpha, beta, modes=modes)
    explicit = Eigensystem(
        head.eigenvalues, head.power, 0.0, head.count,
        eigenvalue_tail=(modes + 0.5) ** (1 - alpha) / (alpha - 1),
        power_tail=(modes + 0.5) ** (1 - beta) / (beta - 1),
    )  # fmt: skip
    infinite = predict(Eigensystem.powerlaw(alpha, beta), 300, [0.1])
    np.testing.assert_allclose(infinite.test, predict(explicit, 300, [0.1]).test, rtol=1e-5)
    # A million modes without their tail lose more than a tenth of the error.
    assert predict(head, 300, [0.1]).test[0] < 0.9 * infinite.test[0]


def test_closed_form_against_the_numeric_kernel_risk() -> None:
    risk = predict(Eigensystem.powerlaw(1.5, 1.2), 300, [0.0, 0.1, 1.0])
    closed = closed_form.risk(risk.train / risk.test, 1.5, 1.2, 300)
    np.testing.assert_allclose(closed, [2.552, 2.39, 2.416], atol=2e-3)
    np.testing.assert_allclose(risk.test, closed, rtol=5e-3)
    assert risk.train[1] / risk.test[1] == pytest.approx(0.0801, rel=0.02)
    # The gap closes as n grows.
    large = predict(Eigensystem.powerlaw(1.5, 1.2), 30_000, [0.0]).test[0]
    assert large == pytest.approx(closed_form.ridgeless(1.5, 1.2, 30_000), rel=1e-4)


@pytest.mark.parametrize(
    ("alpha", "beta", "ratios"),
    [
        (1.17, 1.14, {0: 0.0240, 1: 0.312, 5: 0.691, 50: 0.948}),
        (1.22, 1.20, {0: 0.0057}),
        (1.12, 1.36, {0: 0.0, 1: 0.0, 5: 0.188, 50: 0.771}),
        (1.5, 1.2, {0: 0.25}),
    ],
)
def test_optimal_ratio_known_answers(alpha: float, beta: float, ratios: dict[int, float]) -> None:
    for noise, ratio in ratios.items():
        assert closed_form.optimal_ratio(alpha, beta, noise) == pytest.approx(ratio, abs=6e-4)


def test_interpolation_costs_nine_percent_where_it_is_not_optimal() -> None:
    cost = closed_form.shape(0.0, 1.5, 1.2) / closed_form.shape(0.25, 1.5, 1.2)
    assert cost == pytest.approx(1.088, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(a=st.floats(1.05, 2.5), share=st.floats(0.05, 0.95), noise=st.sampled_from([0.0, 0.3, 4.0]))
def test_optimal_ratio_is_the_least_of_the_curve(a: float, share: float, noise: float) -> None:
    b = 1 + 2 * a * share
    best = closed_form.optimal_ratio(a, b, noise)
    curve = closed_form.shape(np.linspace(0, 0.9999, 2000), a, b, noise)
    assert closed_form.shape(best, a, b, noise) <= curve.min() + 1e-9


def test_removable_singularity_of_the_ridgeless_error() -> None:
    assert closed_form.ridgeless(1.4, 2.4, 100) == pytest.approx(closed_form.ridgeless(1.4, 2.4 + 1e-7, 100))


@pytest.mark.parametrize("noise", [0.0, 1.0, 50.0])
def test_numeric_optimum_agrees_with_the_closed_form(noise: float) -> None:
    task = PowerlawOptimum(alpha=1.17, beta=1.14, noise=noise, n=10_000)
    numeric = run_once(EigenframeworkOptimum(), task).metrics
    closed = run_once(ClosedFormOptimum(), task).metrics
    for name in ("ratio", "interpolation_cost", "regularised_cost"):
        assert numeric[name] == pytest.approx(closed[name], abs=2e-3)


def test_off_sample_error_of_a_finite_pool() -> None:
    rng = np.random.default_rng(0)
    losses = rng.random(50)
    train, pool = losses[:20].mean(), losses.mean()
    assert off_sample(np.array(pool), np.array(train), 20, 50) == pytest.approx(losses[20:].mean())
    with pytest.raises(ValueError, match="none left"):
        off_sample(np.array(1.0), np.array(0.5), 50, 50)
