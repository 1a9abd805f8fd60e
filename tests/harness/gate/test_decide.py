"""Decisions on made-up evidence, where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.gate.decide import LATENCY, LEVEL, Figure, decide
from harness.gate.model import Finding
from harness.gate.sides import Pair
from harness.suite import Comparison, Contestant

BASE = 0.001


@pytest.fixture
def pair() -> Pair:
    contestant = Contestant("m", "m", {})
    comparison = Comparison(
        suite="s", name="c", paper=None, tags=(), task="t", parameters={}, seed=1000, profile="cpu",
        contestants=(contestant,), time_limit=1.0, memory_limit=None, repeats="adaptive", budget=1.0, min_samples=1,
        max_samples=1,
    )  # fmt: skip
    return Pair((comparison,), (comparison,), contestant, contestant)


def latency(screened: list[float], confirmed: list[float] | None = None, threshold: float = LATENCY) -> Figure:
    return Figure("latency", "s", "lower", threshold, BASE, BASE, screened, confirmed or [])


def accuracy(
    screened: list[float], confirmed: list[float] | None = None, *, exact: bool, base: float = 0.8
) -> Figure:
    scale = "relative" if base else "absolute"
    return Figure(
        "accuracy", "", "higher", 0.01, base, base, screened, confirmed or [], scale=scale, exact=exact
    )


def one(pair: Pair, figure: Figure) -> Finding:
    ((finding,),) = decide([pair], [[figure]], [len(figure.screened) + len(figure.confirmed)])
    return finding


def noise(seed: int, shift: float = 0.0, spread: float = 0.01, count: int = 12) -> list[float]:
    return (shift + np.random.default_rng(seed).normal(0, spread, count)).tolist()


def test_worse_twice_is_regressed(pair: Pair) -> None:
    figure = latency(noise(0, math.log(1.05)), noise(1, math.log(1.05)))
    assert figure.suspicious()
    found = one(pair, figure)
    assert found.change == "regressed"
    assert found.ratio == pytest.approx(1.05, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1.05 < found.high
    assert found.p_value is not None
    assert found.p_value <= LEVEL


def test_worse_once_is_not(pair: Pair) -> None:
    found = one(pair, latency(noise(0, math.log(1.05)), noise(1)))
    assert found.change in ("unchanged", "unstable")
    assert "not when measured a second time" in found.reason


def test_certainly_worse_by_less_than_the_threshold_is_unchanged(pair: Pair) -> None:
    found = one(pair, latency(noise(0, 0.01, 0.001)))
    assert found.change == "unchanged"
    assert (
        one(pair, latency(noise(0, 0.01, 0.001), noise(1, 0.01, 0.001), threshold=0.005)).change == "regressed"
    )


def test_screening_ends_early_both_ways() -> None:
    clear = latency(noise(0, math.log(1.08), 0.003, 6))
    assert clear.accused()
    assert not clear.acquitted()
    same = latency(noise(0, 0.0, 0.003, 6))
    assert same.acquitted()
    assert not same.accused()
    open_ = latency(noise(0, 0.025, 0.03, 6))
    assert not open_.accused()
    assert not open_.acquitted()


def test_one_disturbed_launch_of_a_few_acquits_nothing() -> None:
    assert latency([0.7, 0.68, 0.71, 0.7, -0.5]).suspicious()
    assert not latency([0.01, -0.01, 0.0, 0.01, -0.02]).suspicious()


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.06])
def test_a_suspect_gets_the_launches_that_its_spread_asks_for(spread: float) -> None:
    """Three standard errors within the threshold: the number for the trimmed mean, whose error is a little larger."""
    needed = [latency(noise(seed, 0.05, spread, 12)).launches_needed() for seed in range(200)]
    expected = (3 * spread / math.log1p(LATENCY)) ** 2
    assert expected * 0.8 < np.median(needed) < max(2.0 * expected, 3)
    assert latency([0.05]).launches_needed() == 0


def test_better_is_improved_and_needs_no_second_look(pair: Pair) -> None:
    figure = latency(noise(0, -0.1))
    assert not figure.suspicious()
    assert one(pair, figure).change == "improved"


def test_noise_that_hides_twice_the_threshold_is_unstable(pair: Pair) -> None:
    found = one(pair, latency(noise(3, 0.0, 0.3)))
    assert found.change == "unstable"
    assert "cannot be ruled out" in found.reason
    few = one(pair, latency([0.001, 0.002]))
    assert few.change == "unstable"
    assert "too few" in few.reason


def test_what_has_no_chance_in_it_is_decided_as_it_is(pair: Pair) -> None:
    assert one(pair, accuracy([0.0, 0.0], exact=True)).change == "unchanged"
    worse = one(pair, accuracy([0.05, 0.05], exact=True))
    assert (worse.change, worse.ratio) == ("regressed", pytest.approx(0.95))
    assert one(pair, accuracy([-0.05, -0.05], exact=True)).change == "improved"
    assert one(pair, accuracy([0.009, 0.009], exact=True)).change == "unchanged"
    from_zero = one(pair, accuracy([0.05, 0.05], exact=True, base=0.0))
    assert (from_zero.change, from_zero.ratio) == ("regressed", None)


def test_an_accuracy_that_varies_is_measured_again(pair: Pair) -> None:
    figure = accuracy([0.1, 0.02, 0.08], exact=False)
    assert figure.suspicious()
    again = accuracy([0.1, 0.02, 0.08], noise(1, 0.08, 0.02), exact=False)
    assert one(pair, again).change == "regressed"
    gone = accuracy([0.1, 0.02, 0.08], noise(1, 0.0, 0.02), exact=False)
    assert one(pair, gone).change != "regressed"


@pytest.mark.parametrize("contaminated", [False, True])
def test_a_suite_of_twenty_unchanged_methods_fails_once_in_a_hundred_at_most(
    pair: Pair, contaminated: bool
) -> None:
    """Both stages on noise of 2 % per launch, and with every fifth launch off by tens of percent."""
    rng = np.random.default_rng(11)

    def draw() -> list[float]:
        x = rng.normal(0, 0.02, 12)
        if contaminated:
            hit = rng.random(12) < 0.2
            x[hit] += rng.choice([-1, 1], hit.sum()) * rng.exponential(0.3, hit.sum())
        return x.tolist()

    suites, failed = 150, 0
    for _ in range(suites):
        figured = []
        for _ in range(20):
            figure = latency(draw())
            figured.append([latency(figure.screened, draw()) if figure.suspicious() else figure])
        found = decide([pair] * 20, figured, [24] * 20)
        failed += any(f.change == "regressed" for own in found for f in own)
    assert stats.binomtest(failed, suites, LEVEL, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("spread", [0.01, 0.02])
def test_five_percent_in_one_of_twenty_is_found(pair: Pair, spread: float) -> None:
    rng = np.random.default_rng(12)
    found = 0
    for _ in range(100):
        first, second = (rng.normal(math.log(1.05), spread, 12).tolist() for _ in range(2))
        figured = [[latency(first, second)]]
        for _ in range(19):
            same = latency(rng.normal(0, spread, 12).tolist())
            figured.append(
                [latency(same.screened, rng.normal(0, spread, 12).tolist()) if same.suspicious() else same]
            )
        found += decide([pair] * 20, figured, [24] * 20)[0][0].change == "regressed"
    assert found >= 95
