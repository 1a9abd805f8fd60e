from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.measure.statistics import (
    holm,
    log_differences,
    log_latencies,
    relative_half_width,
    sign_flip,
    steadied,
    trimmed,
)
from harness.record import Blocks, Latency


def latency(levels: np.ndarray, size: int = 1) -> Latency:
    launches, rounds = levels.shape
    return Latency(
        samples=np.exp(np.repeat(levels.ravel(), size)).tolist(),
        first=1.0,
        blocks=Blocks(
            launch=np.repeat(np.arange(launches), rounds).tolist(),
            round=np.tile(np.arange(rounds), launches).tolist(),
            size=[size] * levels.size,
        ),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 9), st.integers(1, 3))
def test_of_two_methods_the_difference_is_the_median_of_paired_differences(
    seed: int, launches: int, rounds: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, (2, launches, rounds))
    _, found = log_differences([latency(a, size), latency(b, size)])
    assert found == pytest.approx(np.median(b - a, axis=1), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_drift_that_all_share_is_taken_out(seed: int, methods: int) -> None:
    rng = np.random.default_rng(seed)
    drift = rng.normal(0, 2, (3, 8))
    levels = [drift + i * 0.1 for i in range(methods)]
    found = log_latencies([latency(each) for each in levels])
    for i, each in enumerate(found):
        assert [each[k] - found[0][k] for k in each] == pytest.approx([i * 0.1] * 3, abs=1e-8)
        # Nothing but drift is left between launches, and the level is the middle of what was seen.
        assert np.ptp(list(each.values())) < 1e-8
    assert found[0][0] == pytest.approx(float(np.median(drift)), abs=1e-8)


def test_a_round_that_one_method_missed_counts_for_none() -> None:
    a, b = latency(np.zeros((2, 4))), latency(np.ones((1, 4)))
    assert [sorted(each) for each in steadied([a, b])] == [[0], [0]]


def test_trimmed_mean_and_interval_are_scipys() -> None:
    x = np.random.default_rng(5).normal(0.3, 1.0, 12)
    found = trimmed(x)
    assert found.value == pytest.approx(stats.trim_mean(x, 0.2))
    low, high = stats.mstats.trimmed_mean_ci(x, limits=(2 / 12, 2 / 12), inclusive=(True, True), alpha=0.05)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_sign_flips_against_all_of_them_one_by_one() -> None:
    x = np.random.default_rng(6).normal(0.5, 1.0, 9)
    flips = [stats.trim_mean(np.array(s) * x, 0.2) for s in itertools.product((-1, 1), repeat=9)]
    assert sign_flip(x) == pytest.approx(np.mean(np.array(flips) >= stats.trim_mean(x, 0.2) - 1e-12))
    largest = stats.trim_mean(np.abs(x), 0.2) - 1e-12
    assert sign_flip(np.abs(x)) == pytest.approx(np.mean(np.array(flips) >= largest))
    assert sign_flip([0.1, 0.2, 0.3]) == 1 / 8


@pytest.mark.parametrize("count", [8, 12, 20])
def test_the_level_holds_whatever_the_tails(count: int) -> None:
    """With launches that ran beside something else and are off by tens of percent; power is not lost to them either."""
    rng = np.random.default_rng(0)

    def draw(share: float) -> np.ndarray:
        x = rng.normal(0, 0.01, count)
        hit = rng.random(count) < share
        x[hit] += rng.choice([-1, 1], hit.sum()) * rng.exponential(0.3, hit.sum())
        return x

    trials = 500
    alarms = sum(sign_flip(draw(0.2)) <= 0.01 for _ in range(trials))
    assert stats.binomtest(alarms, trials, 0.01, alternative="greater").pvalue > 1e-3
    if count >= 12:
        assert sum(sign_flip(draw(0.05) + math.log(1.05)) <= 0.01 for _ in range(200)) >= 180


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_launches_have_no_interval(count: int) -> None:
    found = trimmed(np.linspace(0.01, 0.02, count))
    assert (found.low, found.high) == (None, None)
    assert sign_flip(np.linspace(0.01, 0.02, count)) == 2.0**-count


def test_equal_launches_have_an_interval_of_no_width() -> None:
    found = trimmed([0.0] * 8)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert sign_flip([0.0] * 8) == 1.0
    with pytest.raises(ValueError, match="no launch"):
        trimmed([])
    with pytest.raises(ValueError, match="no launch"):
        sign_flip([])


def test_half_width_is_students() -> None:
    x = np.random.default_rng(1).normal(-7, 0.01, 6)
    low, _ = stats.t.interval(0.95, 5, loc=x.mean(), scale=stats.sem(x))
    assert relative_half_width(x) == pytest.approx(math.expm1(x.mean() - low))
    assert relative_half_width(x[:2]) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert min(adjusted) == min(1.0, len(p_values) * min(p_values))
    order = np.argsort(p_values, kind="stable")
    assert all(a <= b for a, b in zip(np.array(adjusted)[order], np.array(adjusted)[order][1:], strict=False))
