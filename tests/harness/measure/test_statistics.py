from __future__ import annotations

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
    signed_rank,
    steadied,
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


def test_signed_rank_is_hodges_lehmann_with_wilcoxons_interval() -> None:
    """Against the 14 differences of Hollander and Wolfe's style of table, computed by brute force."""
    x = np.random.default_rng(5).normal(0.3, 1.0, 12)
    found = signed_rank(x)
    walsh = sorted((a + b) / 2 for i, a in enumerate(x) for b in x[i:])
    assert found.value == pytest.approx(float(np.median(walsh)))
    sums = [
        sum(r for r, sign in zip(range(1, 13), f"{k:012b}", strict=True) if sign == "1") for k in range(2**12)
    ]
    tail = max(w for w in range(79) if np.mean([s < w for s in sums]) <= 0.025)
    assert found.low == pytest.approx(walsh[tail - 1])
    assert found.high == pytest.approx(walsh[-tail])
    assert found.worse == pytest.approx(stats.wilcoxon(x, alternative="greater").pvalue)


def test_the_level_holds_whatever_the_tails() -> None:
    """Launches that ran beside something else are off by tens of percent; a t test of them is far from its level."""
    rng = np.random.default_rng(0)
    trials, alarms = 3000, 0
    for _ in range(trials):
        x = rng.normal(0, 0.01, 12)
        hit = rng.random(12) < 0.2
        x[hit] += rng.choice([-1, 1], hit.sum()) * rng.exponential(0.3, hit.sum())
        alarms += signed_rank(x).worse <= 0.01
    assert stats.binomtest(alarms, trials, 0.01, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 3, 5])
def test_too_few_launches_have_no_interval(count: int) -> None:
    found = signed_rank(np.linspace(0.01, 0.02, count))
    assert (found.low, found.high) == (None, None)
    assert found.worse >= 2.0**-count


def test_equal_launches_have_an_interval_of_no_width() -> None:
    found = signed_rank([0.0] * 8)
    assert (found.value, found.low, found.high, found.worse) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="no launch"):
        signed_rank([])


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
