from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import expression
from harness.errors import NotMeasured, RequestError
from harness.evaluation import Estimate, Evaluator
from harness.record import Blocks, Latency, Record


def record(label: str, seed: int = 1000, samples: list[float] | None = None, **values: object) -> Record:
    metrics = {k: v for k, v in values.items() if isinstance(v, float)}
    parameters = {k: v for k, v in values.items() if not isinstance(v, float)}
    return Record(
        key=f"{label}-{seed}-{sorted(parameters.items())}",
        suite="s",
        comparison="c",
        task="t",
        task_parameters=parameters,
        method=label,
        label=label,
        method_parameters={},
        seed=seed,
        profile="cpu",
        source="",
        status="ok",
        latency=Latency(samples=samples or [1.0], first=1.0),
        metrics=metrics,
    )


def value(text: str, records: list[Record], **options: Callable[[str], object]) -> Estimate:
    return Evaluator(records, **options).evaluate(expression.parse(text))  # type: ignore[arg-type]


def test_arithmetic_over_metrics() -> None:
    records = [record("a", accuracy=0.9), record("b", accuracy=0.6)]
    assert value('accuracy("a") / accuracy("b") - 0.5', records).value == pytest.approx(1.0)
    assert value('-accuracy("a") ** 2', records).value == pytest.approx(-0.81)


def test_interval_of_a_mean_over_seeds_is_students() -> None:
    y = [0.90, 0.95, 0.93, 0.91, 0.97]
    found = value('accuracy("a")', [record("a", 1000 + i, accuracy=v) for i, v in enumerate(y)])
    low, high = stats.t.interval(0.95, 4, np.mean(y), stats.sem(y))
    assert found.value == pytest.approx(np.mean(y))
    assert found.low is not None
    assert found.high is not None
    # The bootstrap has a thousand replicates, so its standard error is known to a few per cent.
    assert found.high - found.low == pytest.approx(high - low, rel=0.12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 8))
def test_pairing_removes_what_seeds_share(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 100, count)
    records = [record("a", 1000 + i, loss=float(s) + 1.0) for i, s in enumerate(shared)]
    records += [record("b", 1000 + i, loss=float(s)) for i, s in enumerate(shared)]
    found = value('loss("a") - loss("b")', records)
    assert found.value == pytest.approx(1.0)
    assert found.high is not None
    assert found.high - 1.0 < 1e-6


def test_coverage_with_few_seeds() -> None:
    """Intervals over three seeds contain the truth about 95 % of the time; a plain bootstrap's would not."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        y = rng.normal(0.0, 1.0, 3)
        found = value('x("a")', [record("a", 1000 + i, x=float(v)) for i, v in enumerate(y)])
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.0 <= found.high
    assert 0.90 <= inside / 200 <= 0.99


def test_latency_is_a_median_with_an_interval_from_its_seeds() -> None:
    rng = np.random.default_rng(1)
    drawn = {
        (label, seed): rng.lognormal(math.log(centre), 0.1, 200).tolist()
        for label, centre in (("a", 1.0), ("b", 2.0))
        for seed in (1000, 1001, 1002)
    }
    records = [record(label, seed, samples=s) for (label, seed), s in drawn.items()]
    found = value('latency("b") / latency("a")', records)
    mean = {label: np.mean([np.median(s) for (name, _), s in drawn.items() if name == label]) for label in "ab"}
    assert found.value == pytest.approx(mean["b"] / mean["a"])
    assert found.low is not None
    assert found.high is not None
    assert found.low < 2 < found.high
    assert found.high - found.low < 0.3
    assert found.samples == 1200


def in_turns(label: str, levels: np.ndarray, seed: int = 1000, turns: str | None = "t", **more: Any) -> Record:
    """A record of launches x rounds, each block a single sample; `levels` is the log of its seconds."""
    launches, rounds = levels.shape
    blocks = Blocks(
        launch=np.repeat(np.arange(launches), rounds).tolist(),
        round=np.tile(np.arange(rounds), launches).tolist(),
        size=[1] * levels.size,
    )
    made = record(label, seed, samples=np.exp(levels).ravel().tolist(), **more)
    assert made.latency is not None
    return made.model_copy(
        update={"latency": made.latency.model_copy(update={"blocks": blocks}), "turns": turns}
    )


def test_launches_give_one_seed_an_interval_and_drift_cancels() -> None:
    rng = np.random.default_rng(2)
    drift = rng.normal(0, 0.5, (4, 6)).cumsum(axis=1)  # the machine wanders by more than the methods differ
    a = drift + rng.normal(0, 0.002, (4, 6))
    b = drift + math.log(1.1) + rng.normal(0, 0.002, (4, 6))
    found = value('latency("b") / latency("a")', [in_turns("a", a), in_turns("b", b)])
    assert found.value == pytest.approx(1.1, rel=0.005)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.03
    # What did not take turns keeps its drift, and says so by a wide interval.
    apart = value(
        'latency("b") / latency("a")', [in_turns("a", a[::-1], turns=None), in_turns("b", b, turns=None)]
    )
    assert apart.low is not None
    assert apart.high is not None
    assert apart.high - apart.low > 0.3


def test_one_launch_of_one_seed_has_no_interval() -> None:
    found = value('latency("a")', [in_turns("a", np.zeros((1, 8)))])
    assert (found.low, found.high) == (None, None)
    assert "one process" in (found.why or "")


def test_one_seed_has_no_interval_unless_deterministic() -> None:
    records = [record("a", x=3.0)]
    found = value('x("a")', records)
    assert found.low is None
    assert "one seed" in str(found.why)
    exact = value('x("a")', records, deterministic=lambda name: name == "x")
    assert (exact.low, exact.high) == (3.0, 3.0)


def test_one_process_says_nothing_about_latency() -> None:
    found = value('latency("a")', [record("a", samples=[1.0, 1.1, 0.9] * 100)])
    assert found.low is None
    assert "in one process" in str(found.why)


def test_slope_of_a_power() -> None:
    records = [record("a", length=n, x=5.0 * n**1.7) for n in (256, 512, 1024, 2048)]
    assert value('slope(x("a"), "length")', records).value == pytest.approx(1.7)
    bent = [*records, record("a", length=4096, x=5.0 * 2048**1.7)]
    assert value('slope(x("a"), "length", last=2)', bent).value == pytest.approx(0.0)


def tuned() -> list[Record]:
    made = []
    for label, peak in (("a", -2), ("b", -3)):
        for exponent in (-3, -2, -1):
            for s in range(3):
                r = record(label, 1000 + s, accuracy=1.0 - 0.1 * abs(exponent - peak) + 0.001 * s)
                made.append(
                    r.model_copy(
                        update={"method_parameters": {"lr": 10.0**exponent}, "key": f"{r.key}{exponent}"}
                    )
                )
    return made


def test_best_and_argbest_over_a_grid() -> None:
    options = {"better": lambda name: "higher"}
    assert value('best(accuracy("a"), "lr")', tuned(), **options).value == pytest.approx(1.001)
    assert value(
        'argbest(accuracy("a"), "lr") / argbest(accuracy("b"), "lr")', tuned(), **options
    ).value == pytest.approx(10)
    assert value('at(accuracy("a"), lr=0.1)', tuned()).value == pytest.approx(0.901)
    assert value('accuracy("a", lr=0.1)', tuned()).value == pytest.approx(0.901)
    nearest = 'nearest(accuracy("a"), by=accuracy("a"), to=0.9, over="lr")'
    assert value(nearest, tuned()).value == pytest.approx(0.901, abs=1e-3)


def test_steps_and_reductions() -> None:
    records = [record("a", n=n, x=v) for n, v in ((1, 1.0), (2, 4.0), (3, 3.5))]
    assert value('least_step(x("a"), "n")', records).value == pytest.approx(-0.5)
    assert value('greatest_step(x("a"), "n")', records).value == pytest.approx(3.0)
    assert value('spread(x("a"), "n")', records).value == pytest.approx(3.0)
    assert value('max(x("a"))', records).value == 4.0
    assert value('first(x("a"), "n") + last(x("a"), "n")', records).value == 4.5
    assert value('rank_correlation(x("a"), x("a"), "n")', records).value == pytest.approx(1.0)


def test_share_of_seeds() -> None:
    records = [record("a", 1000 + i, x=v) for i, v in enumerate((1.0, 2.0, 3.0, 9.0))]
    records += [record("b", 1000 + i, x=4.0) for i in range(4)]
    assert value('share(x("a", seeds="each") < x("b", seeds="each"), "seed")', records).value == 0.75
    assert value('max(x("a", seeds="each"), "seed")', records).value == 9.0


def test_standard_error() -> None:
    y = [1.0, 2.0, 4.0]
    records = [record("a", 1000 + i, x=v) for i, v in enumerate(y)]
    assert value('standard_error(x("a", seeds="each"))', records).value == pytest.approx(stats.sem(y))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('x("b")', "no record of 'b'"),
        ('x("a", n=9)', "no record of 'a' at n=9"),
        ('x("a")', "leaves open n"),
        ('y("a", n=1)', "have no y"),
        ('x("a") / x("c")', "different points"),
        ('slope(x("a", n=1), "n")', "several values"),
    ],
)
def test_what_is_missing_is_named(text: str, says: str) -> None:
    records = [
        record("a", n=1, x=1.0),
        record("a", n=2, x=2.0),
        record("c", n=1, x=1.0),
        record("c", n=3, x=1.0),
    ]
    with pytest.raises(NotMeasured, match=says):
        value(text, records)


def test_a_hole_in_the_grid_is_missing_and_not_ignored() -> None:
    records = [record("a", n=n, m=m, x=1.0) for n in (1, 2) for m in (1, 2) if (n, m) != (2, 2)]
    with pytest.raises(NotMeasured, match="missing"):
        value('max(x("a"))', records)


def test_a_failed_method_gives_its_reason() -> None:
    bad = record("a", x=1.0).model_copy(update={"status": "failed", "reason": "ValueError: no"})
    with pytest.raises(NotMeasured, match="failed: ValueError: no"):
        value('x("a")', [bad])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('ls')",
        'slope(x("a"))',
        'slope(x("a"), "n", first=3)',
        'slope(x("a"), n)',
        'nearest(x("a"), by=y("a"))',
        'rank_correlation(x("a"), "n")',
        "max()",
        'log(x("a"), 2)',
        "x.y",
        "(lambda: 1)()",
        "[1, 2]",
        'x("a")["b"]',
        "a + 1",
        "x(a)",
        'x("a", **{})',
        'x("a", n=open("f"))',
        "1 < 2 < 3",
        "x(" * 60 + ")" * 60,
        "",
        "f'{1}'",
        'x("a") if 1 else 2',
    ],
)
def test_refuses_what_is_not_in_the_language(text: str) -> None:
    with pytest.raises(RequestError):
        expression.parse(text)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        expression.parse(text)


def test_a_verdict_is_the_same_each_time() -> None:
    records = [record("a", 1000 + i, x=float(i)) for i in range(5)]
    assert value('x("a")', records) == value('x("a")', records)
