"""Real processes that really go wrong."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from harness import runner, suite
from harness.catalog import Catalog
from harness.record import Record
from harness.store import Store


def run(
    toys: Catalog, store: Store, folder: Path, methods: str, more: str = "", limit: int = 60, **options: bool
) -> runner.Summary:
    path = folder / "one.yaml"
    path.write_text(
        f"title: One\ncomparisons:\n  one:\n    task: sorting\n    methods: {methods}\n"
        f"    limits: {{time: {limit}, memory: 1GB}}\n    measure: {{budget: 0.05}}\n{more}"
    )
    return runner.run(toys, suite.expand(toys, [str(path)], "cpu"), store, **options)


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ("raise", "failed", "ValueError: as asked"),
        ("exit", "failed", "exit code 7"),
        ("segfault", "failed", "SIGSEGV"),
        ("hang", "timeout", "time limit"),
        ("allocate", "out-of-memory", "Unable to allocate"),
        ("allocate-slowly", "out-of-memory", ""),
        ("nan", "failed", "bad output: 'faults' is nan"),
        ("wrong-type", "failed", "bad output: a int is not a list"),
        ("spam", "failed", "after much output"),
        ("fork", "failed", "with children"),
    ],
)
def test_a_fault_costs_one_record(
    toys: Catalog, store: Store, tmp_path: Path, how: str, status: str, says: str
) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    methods = f"[{{method: faulty, parameters: {{how: {how}}}}}, numpy-sort]"
    bad, good = run(toys, store, tmp_path, methods, limit=3 if how == "hang" else 60).records
    assert (bad.status, good.status) == (status, "ok")
    assert says in (bad.reason or "")
    assert len(bad.log or "") < 100_000
    deadline = time.monotonic() + 5
    while {p.pid for p in psutil.Process().children(recursive=True)} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not {p.pid for p in psutil.Process().children(recursive=True)} - before, "a process was left behind"


def test_what_a_record_holds(toys: Catalog, store: Store, tmp_path: Path) -> None:
    (record,) = run(toys, store, tmp_path, "[timsort]", "    parameters: {size: 500}\n").records
    assert record.metrics == {"disorder": 0.0, "length": 500.0}
    assert record.amount == 500
    assert record.amount_unit == "numbers"
    assert record.series["steps"].x_label == "end"
    assert record.latency is not None
    assert len(record.latency.samples) >= 5
    assert min(record.latency.samples) > 0
    assert record.instrument("throughput") == pytest.approx(500 / (record.instrument("latency") or 0))
    assert record.prepare_time is not None
    assert record.memory.peak is not None
    assert record.seed == 1000
    assert record.environment["machine"]["cpu"]
    assert record.environment["versions"]["torch"]
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_skips_say_how_to_get_what_is_missing(toys: Catalog, store: Store, tmp_path: Path) -> None:
    (package,) = run(toys, store, tmp_path, "[needs-package]").records
    assert package.status == "skipped"
    assert "python -m pip install 'surely-not-installed>=1'" in (package.reason or "")
    (data,) = run(toys, store, tmp_path, "[timsort]", "    parameters: {source: file}\n").records
    assert data.status == "skipped"
    assert "numbers" in (data.reason or "")


def test_a_profile_that_is_not_here_is_skipped(toys: Catalog, store: Store) -> None:
    from harness import profile

    if profile.get("datacenter-gpu").recognise().here:
        pytest.skip("this machine has the profile")
    comparisons = suite.expand(toys, ["toys"], "datacenter-gpu")
    summary = runner.run(toys, comparisons, store)
    assert {r.status for r in summary.records} == {"skipped"}
    assert "needs a CUDA GPU" in (summary.records[0].reason or "")


def test_resume_repeats_nothing(toys: Catalog, store: Store, tmp_path: Path) -> None:
    methods = "[timsort, {method: faulty, parameters: {how: raise}}]"
    first = run(toys, store, tmp_path, methods)
    assert (first.measured, first.stored) == (2, 0)
    again = run(toys, store, tmp_path, methods)
    assert (again.measured, again.stored) == (0, 2)
    assert {r.key for r in again.records} == {r.key for r in first.records}
    # Methods that take turns are measured together or not at all.
    assert run(toys, store, tmp_path, methods, retry=True).measured == 2
    assert run(toys, store, tmp_path, methods, fresh=True).measured == 2
    assert run(toys, store, tmp_path, methods + "\n    seeds: 2").measured == 2
    assert len(list(store.records())) == 4


def test_a_stopped_run_goes_on_where_it_stopped(toys: Catalog, store: Store) -> None:
    comparisons = [c for c in suite.expand(toys, ["toys"], "cpu") if c.name == "training"]
    seen: list[Record] = []

    class Watch(runner.Progress):
        def finish(self, step: runner.Step, record: Record) -> None:
            seen.append(record)

    stopped = runner.run(toys, comparisons, store, progress=Watch(), should_stop=lambda: len(seen) >= 4)
    assert stopped.measured == 4
    rest = runner.run(toys, comparisons, store)
    assert (rest.measured, rest.stored) == (5, 4)


def test_accuracy_does_not_depend_on_repeats(toys: Catalog, store: Store) -> None:
    comparisons = [c for c in suite.expand(toys, ["toys"], "cpu") if c.name == "training"]
    for record in runner.run(toys, comparisons, store).records:
        assert record.latency is not None
        assert record.latency.stopped == "once"
        assert len(record.latency.samples) == 1
        assert record.metrics["state_bytes"] == 8


def test_peak_memory_of_a_known_allocation(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "family" / "paper"
    folder.mkdir(parents=True)
    (folder / "tasks.py").write_text(
        "from harness.method import Metric, Task, task\n"
        "@task('nothing', metrics=[Metric('zero')], repeats='once')\nclass Nothing(Task):\n"
        "    def load(self, seed): return None\n"
        "    def score(self, work, output): return {'zero': 0.0}\n"
    )
    (folder / "method.py").write_text(
        "import numpy as np\nfrom harness.method import Method, method\n"
        "@method('allocates', task='nothing')\nclass Allocates(Method):\n"
        "    kept: int = 0\n    used: int = 0\n"
        "    def prepare(self, work): self.block = np.ones(self.kept << 20, dtype=np.uint8)\n"
        "    def run(self): np.ones(self.used << 20, dtype=np.uint8).sum()\n"
    )
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "memory.yaml").write_text(
        "title: M\ncomparisons:\n  m:\n    task: nothing\n    methods:\n"
        "      - {method: allocates, parameters: {kept: 64, used: 128}}\n"
    )
    catalog = Catalog([tmp_path], builtin=False, entry_point_roots=False)
    (record,) = runner.run(catalog, suite.expand(catalog, ["memory"], "cpu"), store).records
    assert record.memory.run == pytest.approx(128 << 20, rel=0.03)
    assert record.memory.peak == pytest.approx(192 << 20, rel=0.03)


def test_children_do_not_count_what_they_share(toys: Catalog, store: Store, tmp_path: Path) -> None:
    """Five forks of a process that has imported torch have little memory of their own."""
    path = tmp_path / "one.yaml"
    path.write_text(
        "title: One\ncomparisons:\n  one:\n    task: sorting\n    limits: {time: 60, memory: 600MB}\n"
        "    methods: [{method: faulty, parameters: {how: fork-and-wait}}]\n"
    )
    (record,) = runner.run(toys, suite.expand(toys, [str(path)], "cpu"), store).records
    assert (record.status, record.reason) == ("failed", "ValueError: with children")


@pytest.mark.parametrize("how", ["thread", "child", "pool"])
def test_memory_of_threads_and_of_other_processes(store: Store, tmp_path: Path, how: str) -> None:
    """96 MiB in a thread, in a child that ends with the run, and in one that prepare left running."""
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "tasks.py").write_text(
        "from harness.method import Metric, Task, task\n"
        "@task('nothing', metrics=[Metric('zero')], repeats='once')\nclass Nothing(Task):\n"
        "    def load(self, seed): return None\n"
        "    def score(self, work, output): return {'zero': 0.0}\n"
    )
    (folder / "baselines.py").write_text(
        "import os, signal, threading, time\nimport numpy as np\nfrom harness.method import Method, method\n"
        "def work(seconds):\n    block = np.ones(96 << 20, dtype=np.uint8)\n    time.sleep(seconds)\n    return block\n"
        "def child(seconds):\n    pid = os.fork()\n    if pid == 0:\n        work(seconds)\n        os._exit(0)\n"
        "    return pid\n"
        "@method('allocates', task='nothing')\nclass Allocates(Method):\n    how: str = 'thread'\n"
        "    def prepare(self, work):\n"
        "        if self.how == 'pool':\n            child(60)\n            time.sleep(0.5)\n"
        "    def run(self):\n"
        "        if self.how == 'thread':\n            t = threading.Thread(target=work, args=(0.1,))\n"
        "            t.start()\n            t.join()\n"
        "        elif self.how == 'child':\n            os.waitpid(child(0.6), 0)\n"
    )
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "memory.yaml").write_text(
        "title: M\ncomparisons:\n  m:\n    task: nothing\n    methods:\n"
        f"      - {{method: allocates, parameters: {{how: {how}}}}}\n"
    )
    catalog = Catalog([tmp_path], builtin=False, entry_point_roots=False)
    (record,) = runner.run(catalog, suite.expand(catalog, ["memory"], "cpu"), store).records
    assert record.memory.peak == pytest.approx(96 << 20, rel=0.05)
    if how == "pool":
        assert (record.memory.run or 0) < 8 << 20
    else:
        assert record.memory.run == pytest.approx(96 << 20, rel=0.05)
    assert record.launches[0].peak == record.memory.peak
