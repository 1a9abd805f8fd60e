"""Faults of methods, of the machine and of the run itself; each really happens."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import create_engine, text

from harness import runner, suite
from harness.catalog import Catalog
from harness.record import Record
from harness.seeding import rng
from harness.store import Store


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


faulty = _module("faulty")

KILLS = int(os.environ.get("HARNESS_KILLS", "200" if os.environ.get("HARNESS_SCALE") == "1" else "8"))
"""How often a run is killed: 200 times with HARNESS_SCALE=1, which takes minutes, or as often as HARNESS_KILLS says."""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    found: Catalog = faulty.catalog(tmp_path)
    return found


def _one_after_the_other(
    catalog: Catalog, store: Store, folder: Path, method: str, limit: float
) -> list[Record]:
    """A comparison of a faulty method with one that is in order, and then another comparison."""
    path = folder / "faults.yaml"
    path.write_text(
        f"title: F\ncomparisons:\n  fault:\n    task: sorting\n    methods: [{method}, numpy-sort]\n"
        f"    limits: {{time: {limit}, memory: 512MB}}\n    measure: {{budget: 0.05, launches: 1}}\n"
        "  after:\n    task: sorting\n    methods: [numpy-sort]\n    measure: {budget: 0.05, launches: 1}\n"
    )
    with faulty.marked() as mark:
        records = runner.run(catalog, suite.expand(catalog, [str(path)], "cpu"), store).records
        assert not faulty.left_behind(mark), "a process was left behind"
    assert {r.key for r in store.records()} == {r.key for r in records}
    return records


@pytest.mark.parametrize(
    ("method", "status", "says"),
    [
        ("killed", "failed", "SIGKILL"),
        ("segfaults", "failed", "SIGSEGV"),
        ("exhausts-memory", "out-of-memory", ""),
        ("deadlocks", "timeout", "time limit"),
        ("prints-without-end", "timeout", "time limit"),
        ("{method: fork-bomb, parameters: {folder: FOLDER}}", "failed", "the bomb is set"),
        ("leaves-a-daemon", "ok", ""),
    ],
)
def test_a_fault_of_a_method_costs_its_record(
    catalog: Catalog, store: Store, tmp_path: Path, method: str, status: str, says: str
) -> None:
    limit = 2 if status == "timeout" else 60
    named = method.replace("FOLDER", str(tmp_path))
    bad, good, after = _one_after_the_other(catalog, store, tmp_path, named, limit)
    assert (bad.status, good.status, after.status) == (status, "ok", "ok")
    assert says in (bad.reason or "")
    assert len(bad.log or "") < 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_one_record(catalog: Catalog, store: Store, tmp_path: Path, small_disk: Path) -> None:
    method = f"{{method: fills-the-disk, parameters: {{folder: '{small_disk}'}}}}"
    records = _one_after_the_other(catalog, store, tmp_path, method, 60)
    assert [r.status for r in records] == ["failed", "ok", "ok"]
    assert "No space left on device" in (records[0].reason or "")


def test_a_file_that_may_not_grow_costs_one_record(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    method = f"{{method: fills-the-disk, parameters: {{folder: '{tmp_path}', limit: {3 << 20}}}}}"
    records = _one_after_the_other(catalog, store, tmp_path, method, 60)
    assert [r.status for r in records] == ["failed", "ok", "ok"]
    assert "File too large" in (records[0].reason or "")


def test_a_nursery_that_is_killed_costs_its_comparison(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    *_, after = records = _one_after_the_other(catalog, store, tmp_path, "ends-its-nursery", 60)
    assert records[0].status == "failed"
    assert after.status == "ok"


# -- the run itself ---------------------------------------------------------------------------------------


def _suite(folder: Path) -> str:
    """Comparisons whose methods take turns, and others whose methods run once."""
    path = folder / "runs.yaml"
    path.write_text(
        "title: R\ncomparisons:\n  turns:\n    task: sorting\n    methods: [numpy-sort, timsort, no-op]\n    seeds: 3\n"
        "    parameters: {size: 50}\n    measure: {budget: 0.05, launches: 2}\n"
        "  once:\n    task: training\n    methods: [{method: trainer, grid: {lr: [0.1, 0.2]}}]\n    seeds: 4\n"
    )
    return str(path)


def _start(catalog: Catalog, comparisons: list[suite.Comparison], location: Path) -> int:
    """A run in a process of its own; returns its number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            summary = runner.run(catalog, comparisons, Store(location))
            location.with_suffix(f".{os.getpid()}").write_text(f"{summary.measured} {summary.stored}")
            code = 0 if all(r.status == "ok" for r in summary.records) else 2
        finally:
            os._exit(code)
    return pid


def _sound(location: Path, groups: list[set[str]]) -> list[str]:
    """The keys of a store that is in order; of comparisons that take turns there are all records or none."""
    if not location.exists():
        return []
    engine = create_engine(f"sqlite:///{location}")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    engine.dispose()
    records = list(Store(location).records())
    keys = [record.key for record in records]
    assert len(keys) == len(set(keys))
    assert {record.status for record in records} <= {"ok"}
    for group in groups:
        assert len(group & set(keys)) in (0, len(group))
    for group in groups:
        assert len({r.turns for r in records if r.key in group}) <= 1
    return keys


def test_a_run_that_is_killed_at_any_moment_goes_on_where_it_stopped(catalog: Catalog, tmp_path: Path) -> None:
    comparisons = suite.expand(catalog, [_suite(tmp_path)], "cpu")
    steps = runner.plan(catalog, comparisons)
    groups = [{s.key for s in steps if s.comparison is c} for c in comparisons if c.repeats == "adaptive"]
    began = time.monotonic()
    assert os.waitpid(_start(catalog, comparisons, tmp_path / "whole.sqlite"), 0)[1] == 0
    whole = time.monotonic() - began
    random = rng(int(os.environ.get("HARNESS_KILL_SEED", "0")), "kills")
    location, round_, interrupted = tmp_path / "0.sqlite", 0, 0
    with faulty.marked() as mark:
        for _ in range(KILLS):
            before = _sound(location, groups)
            pid = _start(catalog, comparisons, location)
            time.sleep(random.uniform(0, whole * 0.6))
            ended, _ = os.waitpid(pid, os.WNOHANG)
            if not ended:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                interrupted += 1
            assert not faulty.left_behind(mark)
            assert set(before) <= set(_sound(location, groups)), "a record was lost"
            if ended:
                assert sorted(_sound(location, groups)) == sorted(s.key for s in steps)
                round_ += 1
                location = tmp_path / f"{round_}.sqlite"
        assert os.waitpid(_start(catalog, comparisons, location), 0)[1] == 0
        assert not faulty.left_behind(mark)
    assert interrupted >= KILLS // 3
    assert sorted(_sound(location, groups)) == sorted(s.key for s in steps), "each is there exactly once"
    print(f"killed {interrupted} of {KILLS} times; {round_ + 1} stores completed")


def test_the_command_killed_and_given_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "run", _suite(tmp_path), "--methods", str(faulty.TOYS)]
    command += ["--store", str(tmp_path / "r.sqlite"), "--json"]
    with faulty.marked() as mark:
        with open(tmp_path / "errors", "wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while not (tmp_path / "r.sqlite").exists() or not list(Store(tmp_path / "r.sqlite").records()):
            assert process.poll() is None, (tmp_path / "errors").read_text()
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert not faulty.left_behind(mark)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(_sound(tmp_path / "r.sqlite", [])) == 17


def test_two_runs_on_one_store(catalog: Catalog, tmp_path: Path) -> None:
    comparisons = suite.expand(catalog, [_suite(tmp_path)], "cpu")
    location = tmp_path / "r.sqlite"
    pids = [_start(catalog, comparisons, location) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    steps = runner.plan(catalog, comparisons)
    groups = [{s.key for s in steps if s.comparison is c} for c in comparisons if c.repeats == "adaptive"]
    assert sorted(_sound(location, groups)) == sorted(s.key for s in steps)
    counts = [tuple(map(int, location.with_suffix(f".{pid}").read_text().split())) for pid in pids]
    assert all(measured + stored == len(steps) for measured, stored in counts)
    assert sum(measured for measured, _ in counts) == len(steps), "what one has measured the other takes"


_JUMPING = r"""
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
/* Wall time that is an hour ahead or a day behind, another way every 0.05 s. */
static long jump(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return (now.tv_sec * 20 + now.tv_nsec / 50000000) % 2 ? 3600 : -86400;
}
int clock_gettime(clockid_t which, struct timespec *to) {
  int result = syscall(SYS_clock_gettime, which, to);
  if (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) to->tv_sec += jump();
  return result;
}
int gettimeofday(struct timeval *to, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  to->tv_sec = now.tv_sec;
  to->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *to) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}
"""


def test_a_clock_that_jumps_changes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    (tmp_path / "jumping.c").write_text(_JUMPING)
    library = tmp_path / "jumping.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "jumping.c"], check=True)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom harness import comparing, runner, suite\n"
        "from harness.catalog import Catalog\n"
        "from harness.store import Store\ncomparing.PRELOAD = ('numpy', 'harness.method', 'harness.measure.memory')\n"
        "now = [time.time() for _ in range(4) if not time.sleep(0.06)]\n"
        "assert max(abs(b - a) for a, b in zip(now, now[1:])) > 80_000, 'the clock does not jump'\n"
        "catalog = Catalog([Path(sys.argv[1])], builtin=False, entry_point_roots=False)\n"
        "comparisons = suite.expand(catalog, [sys.argv[2]], 'cpu')\n"
        "for again in range(2):\n    summary = runner.run(catalog, comparisons, Store(sys.argv[3]))\n"
        "    print(summary.measured, summary.stored)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(faulty.TOYS), _suite(tmp_path), str(tmp_path / "r.sqlite")],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["17", "0", "0", "17"]
    records = list(Store(tmp_path / "r.sqlite").records())
    assert {r.status for r in records} == {"ok"}
    for record in records:
        assert record.latency is not None
        assert 0 <= min(record.latency.samples) <= max(record.latency.samples) < 60
        assert 0 < (record.duration or 0) < 60
        assert 0 <= (record.prepare_time or 0) < 60
        assert 0 < record.environment["disturbances"]["seconds"] < 60
