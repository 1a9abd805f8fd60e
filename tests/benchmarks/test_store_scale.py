"""What a large store and a large plan cost. ``nox -s benchmarks`` measures it; the test session runs each once.

The targets, on two cores: a million records are written at 5,000 a second or better on SQLite, the verdicts of one of
their papers take under 200 ms, and 10,000 comparisons that do nothing are planned and resumed in under 10 s.
``HARNESS_SCALE=1`` takes those sizes; by default they are a hundredth.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness import runner, suite
from harness.catalog import Catalog
from harness.comparing import record_of
from harness.record import Latency, Record
from harness.selecting import records_behind
from harness.store import Store
from harness.verdict import decide
from tests.benchmarks.synthetic import PER_COMPARISON, catalog, records

TOYS = Path(__file__).resolve().parent.parent / "toys"
LARGE = bool(os.environ.get("HARNESS_SCALE"))
PAPERS, CLAIMS, COMPARISONS = 63, 20, 2
TIMES = 20 if LARGE else 1
"""How often everything was measured: a store keeps what was measured with earlier source."""
RECORDS = 1_000_000 if LARGE else 10_000
NO_OPS = 10_000 if LARGE else 100
PORTION = 400
"""Records that are written together: those of a comparison."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def toys() -> Catalog:
    """The toys alone."""
    return Catalog([TOYS], builtin=False, entry_point_roots=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the store and its catalog."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def papers(home: Path) -> Catalog:
    """The catalog."""
    return catalog(home, PAPERS, CLAIMS, COMPARISONS)


def generations() -> Iterator[Record]:
    """The same measurements again and again, each time with other source and later."""
    once = list(itertools.islice(records(PAPERS, COMPARISONS), RECORDS))
    for number in range(TIMES):
        for i, record in enumerate(once):
            changes = {"key": f"{number:08x}{i:024x}", "source": f"{number:016x}"}
            yield record.model_copy(
                update={**changes, "started": f"2026-01-{number + 1:02d}{record.started[10:]}"}
            )


@pytest.fixture(scope="module")
def full(home: Path) -> tuple[Store, float]:
    """A store with all records, and how many of them were written a second, the making of them not counted."""
    store = Store(home / "r.sqlite")
    store.open()
    found = itertools.islice(generations(), RECORDS)
    seconds = 0.0
    while portion := list(itertools.islice(found, PORTION)):
        began = time.perf_counter()
        store.add(*portion)
        seconds += time.perf_counter() - began
    return store, RECORDS / seconds


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_write(benchmark: BenchmarkFixture, full: tuple[Store, float]) -> None:
    """A comparison's records into the full store; the rate over all of it is in the extra information."""
    store, rate = full
    benchmark.extra_info["records"] = store.count()
    benchmark.extra_info["records per second"] = round(rate)
    again = list(itertools.islice(generations(), PORTION))
    benchmark.pedantic(lambda: store.add(*again), rounds=5)
    assert store.count() == RECORDS


@pytest.mark.slow
def test_write_one_at_a_time(benchmark: BenchmarkFixture, full: tuple[Store, float]) -> None:
    """Each record in a transaction of its own, as comparisons of a single method write them."""
    store, _ = full
    again = list(itertools.islice(generations(), 500))

    def write() -> None:
        for record in again:
            store.add(record)

    benchmark.pedantic(write, rounds=3)
    if benchmark.stats is not None:  # there are none where benchmarks only run to see that they do
        benchmark.extra_info["records per second"] = round(500 / benchmark.stats.stats.min)


@pytest.mark.slow
def test_verdicts_of_a_paper(benchmark: BenchmarkFixture, full: tuple[Store, float], papers: Catalog) -> None:
    """From the store to the verdicts of all claims of one paper."""
    store, _ = full
    wanted = ["paper-007"]

    def verdicts() -> int:
        return len(decide(papers, records_behind(papers, store, wanted), papers=wanted))

    assert benchmark.pedantic(verdicts, rounds=10, warmup_rounds=1) == CLAIMS
    benchmark.extra_info["records behind"] = len(records_behind(papers, store, wanted))


def no_ops(folder: Path) -> str:
    """A suite of comparisons of one method each, which does nothing."""
    path = folder / "no-ops.yaml"
    path.write_text(
        "title: Nothing\ncomparisons:\n  no-ops:\n    task: sorting\n    parameters: {size: 2}\n    methods: [no-op]\n"
        f"    seeds: {NO_OPS}\n    measure: {{repeats: once}}\n"
    )
    return str(path)


@pytest.mark.slow
def test_plan_and_resume(benchmark: BenchmarkFixture, toys: Catalog, tmp_path: Path) -> None:
    """From the suite's file to the summary of a run in which everything is stored already."""
    path = no_ops(tmp_path)
    store = Store(tmp_path / "r.sqlite")
    latency = Latency(samples=[1e-6], first=1e-6)
    steps = runner.plan(toys, suite.expand(toys, [path], "cpu"))
    store.add(*(record_of(step, "ok", latency=latency, metrics={"disorder": 0.0}) for step in steps))

    def resume() -> runner.Summary:
        return runner.run(toys, suite.expand(toys, [path], "cpu"), store)

    summary = benchmark.pedantic(resume, rounds=3)
    assert (summary.measured, summary.stored) == (0, NO_OPS)


@pytest.mark.slow
def test_plan_what_is_new(benchmark: BenchmarkFixture, toys: Catalog, tmp_path: Path) -> None:
    """From the suite's file to the first comparison that would be measured, and what of it is stale."""
    path = no_ops(tmp_path)
    store = Store(tmp_path / "r.sqlite")
    steps = runner.plan(toys, suite.expand(toys, [path], "cpu"))
    old = (
        record_of(step, "ok").model_copy(update={"key": f"old-{i}", "source": "old"})
        for i, step in enumerate(steps)
    )
    store.add(*old)

    def plan() -> runner.Summary:
        return runner.run(toys, suite.expand(toys, [path], "cpu"), store, should_stop=lambda: True)

    assert benchmark.pedantic(plan, rounds=3).measured == 0


assert RECORDS <= TIMES * PAPERS * COMPARISONS * PER_COMPARISON
