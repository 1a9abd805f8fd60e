from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.turns import BLOCK, Block, Plan, orders, schedule, take


class Clockwork:
    """A method whose runs take a known time on a clock that all methods share."""

    clock = 0.0

    def __init__(self, seconds: float, fails_after: int | None = None, cold: int = 0) -> None:
        self.seconds, self.fails_after, self.cold = seconds, fails_after, cold
        self.runs = 0
        self.begun: list[float] = []

    def run(self, count: int, runs_per_sample: int = 1) -> Block | None:
        self.begun.append(Clockwork.clock)
        samples = []
        for _ in range(count):
            seconds = self.seconds * (50 if self.runs < self.cold else 1)
            self.runs += runs_per_sample
            Clockwork.clock += seconds * runs_per_sample
            samples.append(seconds)
        if self.fails_after is not None and self.runs > self.fails_after:
            return None
        return Block(samples, self.seconds)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_two_rounds_cancel_a_steady_drift(count: int, seed: int) -> None:
    sequence = orders(count, random.Random(seed))
    there, back = next(sequence), next(sequence)
    assert sorted(there) == list(range(count))
    places = [there.index(i) + (count + back.index(i)) for i in range(count)]
    assert len(set(places)) == 1


@given(
    st.lists(st.floats(1e-8, 20.0), min_size=1, max_size=6),
    st.floats(0.01, 10.0),
    st.integers(1, 20),
    st.integers(20, 2000),
)
def test_a_schedule_keeps_its_limits(seconds: list[float], share: float, least: int, most: int) -> None:
    rounds, paces = schedule(seconds, share, least, most)
    assert rounds == 1 or rounds % 2 == 0
    for each, pace in zip(seconds, paces, strict=True):
        samples = rounds * pace.count
        assert samples <= most + 2 * pace.count
        assert samples >= min(least, most // 2)
        assert pace.runs_per_sample == 1 or each * pace.runs_per_sample < 2 * 50e-6 + each
        # A block is a single run, or about as long as a block should be.
        assert pace.count * pace.runs_per_sample * each <= max(
            25 * BLOCK, 2 * each * pace.runs_per_sample, least * each
        )


def test_millisecond_methods_share_the_time_of_a_launch() -> None:
    methods = [Clockwork(0.001), Clockwork(0.002)]
    plan = Plan(launches=2, budget=0.4, max_samples=10_000)
    taken = take(methods, plan, 2, random.Random(1))
    spent = [sum(sum(b.samples) for _, b in each.blocks) for each in taken]
    assert spent == pytest.approx([0.2, 0.2], rel=0.3)
    assert [index for index, _ in taken[0].blocks] == [index for index, _ in taken[1].blocks]
    gaps = [abs(a - b) for a, b in zip(methods[0].begun[-20:], methods[1].begun[-20:], strict=True)]
    assert max(gaps) <= 2 * BLOCK + 0.004  # a round's blocks are neighbours in time


def test_long_runs_are_not_padded() -> None:
    method = Clockwork(30.0)
    (taken,) = take([method], Plan(budget=1.0, min_samples=2), 1, random.Random(1))
    assert method.runs == taken.samples == 2
    assert taken.warm_up == 0


def test_warming_up_ends_when_runs_are_steady() -> None:
    method = Clockwork(0.001, cold=2)
    (taken,) = take([method], Plan(budget=2.0), 1, random.Random(1))
    assert all(s == 0.001 for _, block in taken.blocks for s in block.samples)
    assert taken.warm_up >= 2


def test_a_method_that_fails_leaves_the_others_their_turns() -> None:
    methods = [Clockwork(0.001), Clockwork(0.001, fails_after=60)]
    fine, failed = take(methods, Plan(budget=0.5), 1, random.Random(1))
    assert len(fine.blocks) > len(failed.blocks)
    assert fine.samples > 100


def test_microseconds_are_timed_together() -> None:
    (taken,) = take([Clockwork(1e-7)], Plan(budget=0.1), 1, random.Random(1))
    assert taken.runs_per_sample in (500, 501)  # the quotient is not exact


@pytest.mark.parametrize(("setup", "launches"), [(0.01, 5), (1.0, 3), (2.5, 1), (100.0, 1)])
def test_launches_cost_at_most_as_much_again_as_the_runs(setup: float, launches: int) -> None:
    assert Plan(launches=5, budget=2.0).affordable([setup, setup / 2]) == launches
