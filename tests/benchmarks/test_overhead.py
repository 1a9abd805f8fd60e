"""What the engine itself costs. ``nox -s benchmarks`` measures it; the test session runs each once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness import runner, suite
from harness.catalog import Catalog
from harness.launch import Nursery
from harness.store import Store

TOYS = Path(__file__).resolve().parent.parent / "toys"


@pytest.fixture
def toys() -> Catalog:
    return Catalog([TOYS], builtin=False, entry_point_roots=False)


def no_ops(folder: Path, count: int) -> str:
    path = folder / "no-ops.yaml"
    path.write_text(
        f"title: No-ops\ncomparisons:\n  no-ops:\n    task: sorting\n    parameters: {{size: 2}}\n    methods: [no-op]\n"
        f"    seeds: {count}\n    measure: {{repeats: once}}\n"
    )
    return str(path)


def test_launch(benchmark: BenchmarkFixture) -> None:
    """A fresh process for a method, once the nursery is warm; the target is under 150 ms for all overhead."""
    with Nursery(runner.PRELOAD) as nursery:
        benchmark(lambda: nursery.launch().end())


def test_method_run(benchmark: BenchmarkFixture, toys: Catalog, tmp_path: Path) -> None:
    """Everything around a method that does nothing: launch, load, prepare, run, measure, store."""
    comparisons = suite.expand(toys, [no_ops(tmp_path, 1)], "cpu")
    store = Store(tmp_path / "r.sqlite")
    (step,) = runner.plan(toys, comparisons)
    with Nursery(runner.PRELOAD) as nursery:
        benchmark(lambda: store.add(*runner.measure(toys, [step], nursery, runner.Progress())))


@pytest.mark.slow
def test_two_hundred_comparisons(benchmark: BenchmarkFixture, toys: Catalog, tmp_path: Path) -> None:
    """Planned, measured and stored from nothing; the target is under 30 s on two cores."""
    comparisons = suite.expand(toys, [no_ops(tmp_path, 200)], "cpu")
    store = Store(tmp_path / "r.sqlite")
    summary = benchmark.pedantic(lambda: runner.run(toys, comparisons, store), rounds=1)
    assert summary.count("ok") == 200


def test_resume(benchmark: BenchmarkFixture, toys: Catalog, tmp_path: Path) -> None:
    """Finding out that everything is stored."""
    comparisons = suite.expand(toys, [no_ops(tmp_path, 20)], "cpu")
    store = Store(tmp_path / "r.sqlite")
    runner.run(toys, comparisons, store)
    assert benchmark(lambda: runner.run(toys, comparisons, store)).measured == 0


def test_list(benchmark: BenchmarkFixture) -> None:
    """``harness list``, a whole process; the target is under 300 ms."""
    command = [sys.executable, "-m", "harness.cli", "list"]
    benchmark(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
